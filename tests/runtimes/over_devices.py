"""Updates of the miniature over several devices beside those of one, for tests.

JAX_NUM_CPU_DEVICES=4 python tests/runtimes/over_devices.py: prints as JSON how
far they are apart.
"""

import dataclasses
import json
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import losses
from acme_cbo.agents.grpo import rewards
from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.runtimes import mesh
from acme_cbo.runtimes import threaded
from acme_cbo.scms import priors
from tests.support import miniature

jax.config.update('jax_disable_most_optimizations', True)
_UPDATES = 20
_SETTINGS = dataclasses.replace(
  miniature.LEARNER, num_minibatches=2, gradient_accumulation_steps=2
)
# Whose advantages are of all groups together.
_GRPO = dataclasses.replace(miniature.GRPO, scale_rewards='batch')
_PARTS = miniature.parts(num_tasks=16, settings=_SETTINGS, grpo=_GRPO)
_OVER = mesh.Mesh(_PARTS)
_SPOILT = 11


def apart(one, other) -> float:
  """The largest difference of two trees."""
  differences = jax.tree.map(
    lambda x, y: np.abs(np.asarray(x, float) - np.asarray(y, float)).max(),
    one,
    other,
  )
  return max(map(float, jax.tree.leaves(differences)))


def curves() -> dict[str, float]:
  """How far metrics and parameters are apart in some updates."""
  alone, shared = agent.programs(_PARTS), _OVER.programs
  key = jax.random.PRNGKey(0)
  one, many = alone['init'](key), shared['init'](_OVER.device_put(key))
  in_metrics = 0.0
  for _ in range(_UPDATES):
    one, expected = agent.make_step(alone)(one)
    many, actual = agent.make_step(shared)(many)
    in_metrics = max(in_metrics, apart(actual, expected))
  copies = [
    [leaf.addressable_data(i) for leaf in jax.tree.leaves(many)]
    for i in range(len(_OVER.devices))
  ]
  return {
    'devices': len(_OVER.devices),
    'metrics': in_metrics,
    'params': apart(_OVER.to_local(many).params, one.params),
    'between devices': max(apart(copies[0], copy) for copy in copies),
  }


def threads() -> dict[str, float]:
  """How far a learner and an actor on two devices are from both on one."""
  over = threaded.Threaded(_PARTS, 1, max_lag=0, stall_seconds=60)
  run = agent.programs(_PARTS)
  key = jax.random.PRNGKey(0)
  one, two = run['init'](key), run['init'](key)
  with over.session(run, two) as step:
    for _ in range(3):
      one, _ = agent.make_step(run)(one)
      two, _ = step(two)
  return {'threads': apart(two, one)}


def faults() -> dict[str, str]:
  """What is said of an outcome, and of a gradient, on one SCM that is lost."""
  run = _OVER.programs
  state = run['init'](_OVER.device_put(jax.random.PRNGKey(0)))
  _, key_tasks, _ = jax.random.split(state.key, 3)
  tasks, _ = run['fill'](key_tasks)
  marked = np.asarray(tasks.scm.location[_SPOILT])
  step = environment.step

  def spoilt(key, scm, intervention):
    is_marked = (scm.location == marked).all()
    return jnp.where(is_marked, jnp.nan, step(key, scm, intervention))

  said = {}
  with mock.patch.object(environment, 'step', spoilt):
    try:
      spoilt_run = mesh.Mesh(_PARTS).programs
      agent.make_step({**run, 'act': spoilt_run['act']})(state)
    except errors.NonFiniteError as error:
      said['outcome'] = str(error)
  loss = losses.outcome_loss
  with mock.patch.object(losses, 'outcome_loss', _rooted(loss, tasks)):
    try:
      spoilt_run = mesh.Mesh(_PARTS).programs
      agent.make_step({**spoilt_run, 'fill': run['fill'], 'act': run['act']})(
        state
      )
    except errors.NonFiniteError as error:
      said['gradient'] = str(error)
  return said


def _rooted(loss, tasks):
  """A loss that is finite, its gradient not on one of the tasks."""
  objective = jax.tree.map(lambda leaf: leaf[_SPOILT], tasks.objective)
  table = np.asarray(rewards.optimization(objective.curves, objective))

  def rooted(logits, nones, rewarded, *others):
    value = loss(logits, nones, rewarded, *others)
    marked = (jnp.abs(rewarded - table) < 1e-4).all()
    return value + jnp.sqrt(jnp.where(marked, 0 * value, 1.0))

  return rooted


def refused() -> str:
  """What is said of tasks that cannot be shared out."""
  try:
    mesh.Mesh(dataclasses.replace(_PARTS, num_tasks=8))
  except errors.UsageError as error:
    return str(error)
  return ''


if __name__ == '__main__':
  # The prior draws the same tasks each time: nothing of it to compile.
  drawn = miniature.tasks(16), True
  with mock.patch.object(priors, 'fill', lambda *unused: drawn):
    found = {**curves(), **threads(), **faults()}
  print(json.dumps({**found, 'refused': refused()}))
