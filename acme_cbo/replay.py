"""One update of a run again, and what one of its SCMs went through.

The updates are as they were: a run is a function of its config and its seed.
"""

import pathlib

import jax
import numpy as np

from acme_cbo import errors
from acme_cbo import experiment as experiment_lib
from acme_cbo import rewards
from acme_cbo import train
from acme_cbo import types
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
  if not 1 <= update <= experiment.training.num_updates:
    raise errors.UsageError(
      f'--update is {update}; the run makes updates 1 to '
      f'{experiment.training.num_updates}'
    )
  if not 0 <= index < parts.num_tasks:
    raise errors.UsageError(
      f'--scm is {index}; an update has SCMs 0 to {parts.num_tasks - 1}'
    )
  state = train.initial_state(experiment)
  with checkpoints.Checkpointer(workdir / 'checkpoints') as checkpointer:
    nearest = checkpointer.latest_step(before=update)
    if nearest:
      state, _ = checkpointer.restore(state, nearest)
  step = fused.make_step(parts)
  while int(state.step) < update - 1:
    state, _ = step(state)

  _, key_tasks, key_act = jax.random.split(state.key, 3)
  tasks = priors.sample(key_tasks, parts.prior, parts.num_tasks)
  (observations, trajectories), _ = fused.make_act(parts)(
    state.params, key_act, tasks
  )
  task, rows, rollouts = jax.device_get(
    jax.tree.map(lambda leaf: leaf[index], (tasks, observations, trajectories))
  )
  text = f'update {update}, SCM {index}\n{describe(task, rows, rollouts)}'
  try:
    step(state)
  except errors.NonFiniteError as error:
    error.add_note(text)
    raise
  return f'{text}\nAll of the update is finite.'


def describe(
  task: types.Task, observations: np.ndarray, rollouts: types.Trajectory
) -> str:
  """A task, what was observed and what its group did, as text.

  Args:
    task: of D variables, as numpy arrays.
    observations: [N, D].
    rollouts: G trajectories.

  Returns:
    Lines of text.
  """
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
    lines.append(
      f'  x{j}  {role}; parents: {parents or "none"}; '
      f'observed {_range(observations[:, j])}, '
      f'after interventions {_range(rollouts.outcomes[..., j])}'
    )
  for i, name in enumerate(rewards.COMPONENTS):
    lines.append(f'  reward/{name} {_range(rollouts.components[..., i])}')
  return '\n'.join(lines)


def _range(values):
  """As `-1.2 to 3.4`, and how many are not finite."""
  finite = values[np.isfinite(values)]
  lost = values.size - finite.size
  text = f'{finite.min():.4g} to {finite.max():.4g}' if finite.size else ''
  return f'{text} ({lost} of {values.size} not finite)' if lost else text


def _experiment(workdir: pathlib.Path) -> experiment_lib.Experiment:
  try:
    text = (workdir / 'config.json').read_text()
  except OSError as error:
    raise errors.UsageError(
      f'--workdir={workdir} holds no config.json that can be read: '
      f'{error.strerror}'
    ) from error
  return experiment_lib.from_json(text)
