"""Repeats an update or an evaluation of a run, and describes one of its SCMs.

The numbers are the same: a run is a function of its config and its seed.
"""

from collections.abc import Iterator
import contextlib
import pathlib

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import rewards
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import held_out_simulators
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import train
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.runtimes import factory
from acme_cbo.runtimes import fused
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors
from acme_cbo.training import checkpoints


def replay(workdir: pathlib.Path, update: int, index: int) -> str:
  """Repeats an update of a run and describes one of its SCMs.

  Args:
    workdir: run directory.
    update: number of the update, from 1.
    index: index of the SCM in the batch of the update.

  Returns:
    Description of the SCM and of the rollouts on it.

  Raises:
    errors.UsageError: there is no run in `workdir`, no such update or SCM, or
      the run is not reproducible.
    errors.NonFiniteError: a value of the update is not finite, as in the run;
      the description is added as a note.
  """
  experiment = _read_experiment(workdir)
  parts = experiment.parts
  _check('--update', update, 1, _num_updates(experiment, workdir, begun=True))
  _check('--scm', index, 0, parts.update.num_tasks - 1)
  state, step, programs = _repeat_until(update - 1, experiment, workdir)

  _, key_tasks, key_act = jax.random.split(state.key, 3)
  programs = agent.programs_of_update(programs, update)
  tasks = priors.require_complete(*programs['fill'](key_tasks))
  (observations, trajectories), _ = programs['act'](
    state.params, key_act, tasks
  )
  task, rows, rollouts = jax.device_get(
    jax.tree.map(lambda leaf: leaf[index], (tasks, observations, trajectories))
  )
  text = (
    f'update {update}, SCM {index}\n{describe(task)}\n'
    f'{_describe_rollouts(task.scm.problem.exists, rows, rollouts)}'
  )
  with _add_note(text):
    step(state)
  return f'{text}\nAll values of the update are finite.'


def replay_held_out(workdir: pathlib.Path, update: int, index: int) -> str:
  """Repeats the evaluation after an update and describes one of its SCMs.

  Args:
    workdir: run directory.
    update: number of the update; 0 is before training.
    index: index of the held-out SCM.

  Returns:
    Description of the SCM and the scores of all policies on it.

  Raises:
    errors.UsageError: there is no run in `workdir`, no such update or SCM, or
      the run is not reproducible.
    errors.NonFiniteError: a value of the evaluation is not finite, as in the
      run; the description is added as a note.
  """
  experiment = _read_experiment(workdir)
  _check('--update', update, 0, _num_updates(experiment, workdir, begun=False))
  _check('--scm', index, 0, experiment.config.evaluation.num_tasks - 1)
  state, *_ = _repeat_until(update, experiment, workdir)
  held_out_tasks = train.held_out_tasks(experiment)
  assert not isinstance(held_out_tasks, held_out_simulators.HeldOutSimulators)
  task = jax.device_get(
    jax.tree.map(lambda leaf: leaf[index], held_out_tasks.tasks)
  )
  text = f'after update {update}, held-out SCM {index}\n{describe(task)}'
  score = held_out_tasks.network_scorer(experiment.parts.network)
  with _add_note(text):
    outcomes = {
      'grpo': score(state.params, update),
      **held_out_tasks.scores(held_out.HEURISTICS),
    }
  scores = [
    f'  score of {name}: '
    + ' '.join(f'{x:.2f}' for x in np.asarray(outcome.score[index]))
    for name, outcome in outcomes.items()
  ]
  return '\n'.join([text, *scores])


def describe(task: types.Task) -> str:
  """Returns a description of a task of D variables, in numpy arrays."""
  scm, objective = task
  problem = scm.problem
  lines = [
    f'{mechanisms.Family(scm.family).name.lower()} mechanisms, '
    f'{graphs.Graph(scm.graph).name.lower()} graph, '
    f'{"maximize" if problem.goal > 0 else "minimize"} the target; '
    f'E[Y | do] from {objective.worst:.4g} to {objective.best:.4g}, '
    f'{objective.baseline:.4g} without an intervention (internal units)'
  ]
  for j in np.flatnonzero(problem.exists):
    parents = ', '.join(f'x{i}' for i in np.flatnonzero(scm.parents[j]))
    role = (
      'target'
      if problem.target[j]
      else (
        f'in [{problem.low[j]:.4g}, {problem.high[j]:.4g}]'
        if problem.settable[j]
        else 'cannot be intervened on'
      )
    )
    lines.append(f'  x{j}  {role}; parents: {parents or "none"}')
  return '\n'.join(lines)


def _describe_rollouts(
  exists: np.ndarray, observations: np.ndarray, rollouts: types.Trajectory
) -> str:
  """Returns the ranges of observations, outcomes and rewards, as text."""
  lines = [
    f'  x{j}  observed {_range(observations[:, j])}, '
    f'after interventions {_range(rollouts.outcomes[..., j])}'
    for j in np.flatnonzero(exists)
  ]
  for i, name in enumerate(rewards.COMPONENTS):
    lines.append(f'  reward/{name} {_range(rollouts.components[..., i])}')
  return '\n'.join(lines)


def _range(values):
  """Returns '-1.2 to 3.4', and the number of values that are not finite."""
  finite = values[np.isfinite(values)]
  num_lost = values.size - finite.size
  text = f'{finite.min():.4g} to {finite.max():.4g}' if finite.size else ''
  return (
    f'{text} ({num_lost} of {values.size} not finite)' if num_lost else text
  )


def _read_experiment(workdir: pathlib.Path) -> builder.Experiment:
  """Returns the experiment of a run, which has to be reproducible."""
  experiment = builder.from_config(config_lib.read(workdir))
  if not experiment.can_be_replayed:
    raise errors.UsageError(
      f'the run in --workdir={workdir} is not reproducible: it used '
      'asynchronous actors (config.runtime.max_lag > 0) or a simulator'
    )
  return experiment


def _repeat_until(
  update: int, experiment: builder.Experiment, workdir: pathlib.Path
):
  """Returns the state after an update, the next step, and the programs."""
  programs = factory.compile_programs(
    fused.Fused(experiment.parts),
    experiment.parts_from,
    experiment.config.training.quick_compile,
  )
  state = programs['init'](jax.random.PRNGKey(experiment.config.seed))
  with checkpoints.Checkpointer(workdir / 'checkpoints') as checkpointer:
    nearest = checkpointer.latest_step(before=update + 1)
    if nearest:
      state, _ = checkpointer.restore(state, nearest)
  step = agent.make_step(programs)
  while int(state.step) < update:
    state, _ = step(state)
  return state, step, programs


def _num_updates(
  experiment: builder.Experiment, workdir: pathlib.Path, begun: bool
) -> int:
  """Returns the number of updates that a run has made, or begun.

  It is that of the config if the run was killed.
  """
  summary = run_directory.read_summary(workdir)
  if summary is None:
    return experiment.config.training.num_updates
  failed = begun and summary['status'] in ('diverged', 'failed')
  return min(
    summary['updates'] + failed, experiment.config.training.num_updates
  )


def _check(flag: str, value: int, least: int, most: int) -> None:
  """Raises unless the value of a flag is within a range."""
  if not least <= value <= most:
    raise errors.UsageError(f'{flag} is {value}; the run has {least} to {most}')


@contextlib.contextmanager
def _add_note(text: str) -> Iterator[None]:
  """Adds a note to a `NonFiniteError`."""
  try:
    yield
  except errors.NonFiniteError as error:
    error.add_note(text)
    raise
