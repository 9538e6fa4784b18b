"""Compares updates on several devices with those on one, for tests.

JAX_NUM_CPU_DEVICES=4 python tests/runtimes/over_devices.py prints the
differences as JSON.
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
_UPDATE = dataclasses.replace(
  miniature.UPDATE,
  num_tasks=16,
  num_minibatches=2,
  gradient_accumulation_steps=2,
  # Advantages depend on all groups together.
  scale_rewards='batch',
)
_PARTS = miniature.parts(update=_UPDATE)
_OVER = mesh.Mesh(_PARTS)
_FAULTY = 11


def max_difference(one, other) -> float:
  """Returns the largest absolute difference of two trees."""
  differences = jax.tree.map(
    lambda x, y: np.abs(np.asarray(x, float) - np.asarray(y, float)).max(),
    one,
    other,
  )
  return max(map(float, jax.tree.leaves(differences)))


def curves() -> dict[str, float]:
  """Compares metrics and parameters over some updates."""
  alone, shared = agent.programs(_PARTS), _OVER.programs
  key = jax.random.PRNGKey(0)
  one, many = alone['init'](key), shared['init'](_OVER.device_put(key))
  in_metrics = 0.0
  for _ in range(_UPDATES):
    one, expected = agent.make_step(alone)(one)
    many, actual = agent.make_step(shared)(many)
    in_metrics = max(in_metrics, max_difference(actual, expected))
  copies = [
    [leaf.addressable_data(i) for leaf in jax.tree.leaves(many)]
    for i in range(len(_OVER.devices))
  ]
  return {
    'devices': len(_OVER.devices),
    'metrics': in_metrics,
    'params': max_difference(_OVER.to_local(many).params, one.params),
    'between devices': max(max_difference(copies[0], copy) for copy in copies),
  }


def sizes() -> dict[str, bool]:
  """Returns whether there are the same programs for updates of two sizes."""
  parts = miniature.parts(update=_UPDATE, other_sizes=(_PARTS,))
  names = mesh.Mesh(parts).programs.keys()
  return {'sizes': names == agent.programs(parts).keys()}


def threads() -> dict[str, float]:
  """Compares a learner and an actor on two devices with both on one."""
  over = threaded.Threaded(_PARTS, 1, max_lag=0, stall_seconds=60)
  programs = agent.programs(_PARTS)
  key = jax.random.PRNGKey(0)
  one, two = programs['init'](key), programs['init'](key)
  with over.session(programs, two) as step:
    for _ in range(3):
      one, _ = agent.make_step(programs)(one)
      two, _ = step(two)
  return {'threads': max_difference(two, one)}


def faults() -> dict[str, str]:
  """Returns the errors for a non-finite outcome and gradient on one SCM."""
  programs = _OVER.programs
  state = programs['init'](_OVER.device_put(jax.random.PRNGKey(0)))
  _, key_tasks, _ = jax.random.split(state.key, 3)
  tasks, _ = programs['fill'](key_tasks)
  marked = np.asarray(tasks.scm.location[_FAULTY])
  step = environment.step

  def faulty(key, scm, intervention):
    is_marked = (scm.location == marked).all()
    return jnp.where(is_marked, jnp.nan, step(key, scm, intervention))

  messages = {}
  with mock.patch.object(environment, 'step', faulty):
    try:
      faulty_programs = mesh.Mesh(_PARTS).programs
      agent.make_step({**programs, 'act': faulty_programs['act']})(state)
    except errors.NonFiniteError as error:
      messages['outcome'] = str(error)
  loss = losses.outcome_loss
  with mock.patch.object(losses, 'outcome_loss', _rooted(loss, tasks)):
    try:
      faulty_programs = mesh.Mesh(_PARTS).programs
      agent.make_step(
        {**faulty_programs, 'fill': programs['fill'], 'act': programs['act']}
      )(state)
    except errors.NonFiniteError as error:
      messages['gradient'] = str(error)
  return messages


def _rooted(loss, tasks):
  """Returns a finite loss whose gradient is not finite on one task."""
  objective = jax.tree.map(lambda leaf: leaf[_FAULTY], tasks.objective)
  table = np.asarray(rewards.optimization(objective.curves, objective))

  def rooted(logits, nones, rewarded, *others):
    value = loss(logits, nones, rewarded, *others)
    marked = (jnp.abs(rewarded - table) < 1e-4).all()
    return value + jnp.sqrt(jnp.where(marked, 0 * value, 1.0))

  return rooted


def refused() -> str:
  """Returns the error for tasks that cannot be divided evenly."""
  try:
    update = dataclasses.replace(_UPDATE, num_tasks=8)
    mesh.Mesh(dataclasses.replace(_PARTS, update=update))
  except errors.UsageError as error:
    return str(error)
  return ''


if __name__ == '__main__':
  # The prior returns fixed tasks, so that it need not be compiled.
  filled = miniature.tasks(16), True
  with mock.patch.object(priors, 'fill', lambda *unused: filled):
    results = {**curves(), **sizes(), **threads(), **faults()}
  print(json.dumps({**results, 'refused': refused()}))
