"""Tests that the stored programs of a policy are those that `jit` compiles."""

import functools
import tempfile
from unittest import mock

from absl.testing import absltest
import jax
from jax.experimental.compilation_cache import compilation_cache
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.environments import problem as problem_lib
from acme_cbo.infra import compilation
from acme_cbo.policies import base
from acme_cbo.policies import host_policy
from acme_cbo.policies import trained
from tests.support import miniature

_NUM_INTERVENTIONS = 4
# More than one call of the program predicts.
_NUM_ASKED = 17


@functools.cache
def _params():
  parts = miniature.parts(network=miniature.network())
  return jax.jit(lambda key: agent.init(key, parts))(
    jax.random.PRNGKey(0)
  ).params


def _asked():
  """Interventions on the first variable."""
  values = np.zeros((_NUM_ASKED, 3))
  values[:, 0] = np.linspace(-1, 2, _NUM_ASKED)
  return types.Intervention._make(
    (np.tile(np.arange(3) == 0, (_NUM_ASKED, 1)), values)
  )


def _play(settings):
  """Returns all that a policy, compiled anew, does in an episode."""
  policy = host_policy.compiled(
    lambda params: trained.deployed(miniature.network(), params, 1),
    _params(),
    settings=settings,
  )(_params())
  domains = {'a': (-1.0, 2.0), 'b': (0.0, 300.0)}
  problem = problem_lib.make(('a', 'b', 'y'), 'y', 'maximize', domains, 1)
  rng = np.random.default_rng(0)
  memory = policy.init(problem, rng.normal(size=(6, 3)), _NUM_INTERVENTIONS)
  done = []
  for step in range(_NUM_INTERVENTIONS):
    made = policy.choose(jax.random.PRNGKey(step), memory)
    memory = policy.observe(memory, step, made, rng.normal(size=3))
    done += [*made, *policy.recommend(memory)]
  assert policy.predict is not None
  predicted = policy.predict(memory, _asked())
  each = [
    base.predict_one(
      policy, memory, jax.tree.map(lambda x, i=i: x[i], _asked())
    )
    for i in range(_NUM_ASKED)
  ]
  return [*done, *predicted], (predicted, each)


class StoredTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    cache = self.enterContext(tempfile.TemporaryDirectory())
    self.addCleanup(compilation_cache.reset_cache)
    name = 'jax_compilation_cache_dir'
    self.addCleanup(jax.config.update, name, jax.config.values[name])
    jax.config.update(name, cache)

  def test_act_as_those_of_jit_and_are_compiled_once(self):
    (by_jit, _), (stored, _) = _play(None), _play('settings')
    with mock.patch.object(compilation, '_compile') as compiled:
      loaded, (predicted, each) = _play('settings')
    compiled.assert_not_called()
    for done in (stored, loaded):
      for expected, actual in zip(by_jit, done, strict=True):
        np.testing.assert_array_equal(actual, expected)
    # Of all together as of each alone.
    for together, *alone in zip(predicted, *each, strict=True):
      self.assertLen(together, _NUM_ASKED)
      np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5)

  def test_other_settings_are_compiled_again(self):
    _play('settings')
    with (
      mock.patch.object(compilation, '_compile', side_effect=ZeroDivisionError),
      self.assertRaises(ZeroDivisionError),
    ):
      _play('other settings')


if __name__ == '__main__':
  absltest.main()
