"""One update or evaluation of a run again, and what one of its SCMs met with.

The updates are as they were: a run is a function of its config and its seed.
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
  """Makes an update of a run again and describes one of its SCMs.

  Args:
    workdir: of the run.
    update: its number, counted from 1.
    index: of the SCM in the batch of the update.

  Returns:
    What was drawn and what came of it, as text.

  Raises:
    errors.UsageError: there is no run in `workdir`, or no such SCM in it.
    errors.NonFiniteError: something of the update is not finite, as in the run;
      the description is a note on it.
  """
  experiment = _experiment(workdir)
  parts = experiment.parts
  _check('--update', update, 1, _updates(experiment, workdir, begun=True))
  _check('--scm', index, 0, parts.update.num_tasks - 1)
  state, step, run = _after(update - 1, experiment, workdir)

  _, key_tasks, key_act = jax.random.split(state.key, 3)
  tasks = priors.require_complete(*run['fill'](key_tasks))
  (observations, trajectories), _ = run['act'](state.params, key_act, tasks)
  task, rows, rollouts = jax.device_get(
    jax.tree.map(lambda leaf: leaf[index], (tasks, observations, trajectories))
  )
  text = (
    f'update {update}, SCM {index}\n{describe(task)}\n'
    f'{_met_with(task.scm.problem.exists, rows, rollouts)}'
  )
  with _noting(text):
    step(state)
  return f'{text}\nAll of the update is finite.'


def replay_held_out(workdir: pathlib.Path, update: int, index: int) -> str:
  """Makes the evaluation after an update again and describes one of its SCMs.

  Args:
    workdir: of the run.
    update: its number; 0 is before training.
    index: of the SCM among those held out.

  Returns:
    What was drawn and how every policy scored, as text.

  Raises:
    errors.UsageError: there is no run in `workdir`, or no such SCM in it.
    errors.NonFiniteError: something of the evaluation is not finite, as in the
      run; the description is a note on it.
  """
  experiment = _experiment(workdir)
  _check('--update', update, 0, _updates(experiment, workdir, begun=False))
  _check('--scm', index, 0, experiment.config.evaluation.num_tasks - 1)
  state, *_ = _after(update, experiment, workdir)
  held_out_tasks = train.held_out_tasks(experiment)
  assert not isinstance(held_out_tasks, held_out_simulators.HeldOutSimulators)
  task = jax.device_get(
    jax.tree.map(lambda leaf: leaf[index], held_out_tasks.tasks)
  )
  text = f'after update {update}, held-out SCM {index}\n{describe(task)}'
  score = held_out_tasks.network_scorer(experiment.parts.network)
  with _noting(text):
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
  """A task of D variables, given as numpy arrays, as lines of text."""
  scm, objective = task
  problem = scm.problem
  lines = [
    f'{mechanisms.Family(scm.family).name.lower()} mechanisms, '
    f'{graphs.Graph(scm.graph).name.lower()} graph, '
    f'{"maximise" if problem.goal > 0 else "minimise"} the target; '
    f'E[Y | do] from {objective.worst:.4g} to {objective.best:.4g}, '
    f'{objective.baseline:.4g} if nothing is done (internal units)'
  ]
  for j in np.flatnonzero(problem.exists):
    parents = ', '.join(f'x{i}' for i in np.flatnonzero(scm.parents[j]))
    role = (
      'target'
      if problem.target[j]
      else (
        f'in [{problem.low[j]:.4g}, {problem.high[j]:.4g}]'
        if problem.settable[j]
        else 'may not be set'
      )
    )
    lines.append(f'  x{j}  {role}; parents: {parents or "none"}')
  return '\n'.join(lines)


def _met_with(
  exists: np.ndarray, observations: np.ndarray, rollouts: types.Trajectory
) -> str:
  """Describes the observations and a group of rollouts as text."""
  lines = [
    f'  x{j}  observed {_range(observations[:, j])}, '
    f'after interventions {_range(rollouts.outcomes[..., j])}'
    for j in np.flatnonzero(exists)
  ]
  for i, name in enumerate(rewards.COMPONENTS):
    lines.append(f'  reward/{name} {_range(rollouts.components[..., i])}')
  return '\n'.join(lines)


def _range(values):
  """Formats a range as `-1.2 to 3.4`, with the number of non-finite values."""
  finite = values[np.isfinite(values)]
  lost = values.size - finite.size
  text = f'{finite.min():.4g} to {finite.max():.4g}' if finite.size else ''
  return f'{text} ({lost} of {values.size} not finite)' if lost else text


def _experiment(workdir: pathlib.Path) -> builder.Experiment:
  experiment = builder.from_config(config_lib.read(workdir))
  if not experiment.can_be_replayed:
    raise errors.UsageError(
      f'the updates of the run in --workdir={workdir} cannot be made again: '
      'which parameters its actors had was a matter of time'
    )
  return experiment


def _after(update: int, experiment: builder.Experiment, workdir: pathlib.Path):
  """The state after an update of a run, what goes on from it, its programs."""
  run = factory.compile_programs(
    fused.Fused(experiment.parts),
    experiment.parts_from,
    experiment.config.training.quick_compile,
  )
  state = run['init'](jax.random.PRNGKey(experiment.config.seed))
  with checkpoints.Checkpointer(workdir / 'checkpoints') as checkpointer:
    nearest = checkpointer.latest_step(before=update + 1)
    if nearest:
      state, _ = checkpointer.restore(state, nearest)
  step = agent.make_step(run)
  while int(state.step) < update:
    state, _ = step(state)
  return state, step, run


def _updates(
  experiment: builder.Experiment, workdir: pathlib.Path, begun: bool
) -> int:
  """Returns the number of updates that a run has made or begun."""
  summary = run_directory.read_summary(workdir)
  if summary is None:
    return experiment.config.training.num_updates
  failed = begun and summary['status'] in ('diverged', 'failed')
  return min(
    summary['updates'] + failed, experiment.config.training.num_updates
  )


def _check(flag: str, value: int, least: int, most: int) -> None:
  if not least <= value <= most:
    raise errors.UsageError(f'{flag} is {value}; the run has {least} to {most}')


@contextlib.contextmanager
def _noting(text: str) -> Iterator[None]:
  """Adds the text to an error that something is not finite."""
  try:
    yield
  except errors.NonFiniteError as error:
    error.add_note(text)
    raise
