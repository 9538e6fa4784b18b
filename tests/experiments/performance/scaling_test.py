"""The work that is expected of the blocks is the work that is traced."""

import copy
import dataclasses
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.environments import environment
from acme_cbo.evaluation import plots
from acme_cbo.experiments.performance import scaling
from acme_cbo.networks import config as config_lib
from acme_cbo.networks import tokens
from acme_cbo.networks import transformer
from acme_cbo.scms import priors
from configs import grpo
from tests.support import miniature


def _multiply_adds(function, *args) -> int:
  """Those of the matrix products in what a function is traced to."""

  def count(jaxpr):
    found = 0
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        shape = equation.invars[0].aval.shape
        (out,) = equation.outvars
        found += out.aval.size * math.prod(shape[i] for i in contracted)
      times = equation.params.get('length', 1)
      for inner in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda x: isinstance(x, core.ClosedJaxpr | core.Jaxpr),
      ):
        if isinstance(inner, core.ClosedJaxpr):
          found += times * count(inner.jaxpr)
    return found

  return count(jax.make_jaxpr(function)(*args).jaxpr)


class MultiplyAddsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(num_variables=5, observations=7, steps=4, rollouts=2, blocks=2),
    dict(num_variables=4, observations=40, steps=9, rollouts=3, blocks=1),
  )
  def test_are_those_of_the_blocks(
    self, num_variables, observations, steps, rollouts, blocks
  ):
    architecture = config_lib.NetworkConfig(48, blocks, 3, 2, 16, 'none')
    network = transformer.make(architecture)
    parts = miniature.parts(
      prior=dataclasses.replace(miniature.PRIOR, max_variables=num_variables),
      horizon=environment.Horizon(observations, steps),
      num_tasks=3,
      num_generations=rollouts,
    )
    task, _ = jax.eval_shape(
      lambda key: priors.sample_task(key, parts.prior), jax.random.PRNGKey(0)
    )
    problem = task.scm.problem
    given = jnp.zeros((observations, num_variables))
    row = tokens.start_row(num_variables)
    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf, steps + 1, 0), row)
    params = jax.eval_shape(
      network.init, jax.random.PRNGKey(0), problem, given, row
    )
    prefix = jax.eval_shape(network.prefix, params, problem, given)
    traced = 3 * (
      _multiply_adds(network.prefix, params, problem, given)
      + rollouts * _multiply_adds(network.full, params, problem, prefix, rows)
    )
    terms = scaling.multiply_adds(architecture, parts)['learner']
    blocks = sum(
      terms[name]
      for name in (
        'tokens',
        'attention across variables',
        'attention across rows',
      )
    )
    # Beside the blocks there are an embedding and norms.
    self.assertBetween(traced / blocks, 1, 1.1)


class ExponentTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 1.0, 2.5)
  def test_is_that_of_a_power(self, power):
    sizes = np.array([3, 6, 12, 25, 50])
    # What it takes to start is not looked at.
    costs = 0.1 * sizes**power + 10.0 * (sizes < 12)
    self.assertAlmostEqual(scaling.exponent(sizes, costs), power, places=6)


def _found():
  work = {'actor': [1e6, 2e6, 4e6], 'learner': [1e6, 4e6, 16e6]}
  return {
    axis: {
      'sizes': [5, 10, 20],
      'seconds': {'actor': [0.1, 0.2, 0.4], 'learner': [0.3, 0.6, 2.4]},
      'multiply_adds': work,
      'exponent': {'actor': 1.0, 'learner': 1.87},
      'expected': {'actor': 1.0, 'learner': 2.0},
      'largest': {who: ['tokens', 'tokens', 'surrogate'] for who in work},
    }
    for axis in scaling.AXES
  }


class ReportTest(absltest.TestCase):
  def test_table(self):
    lines = scaling.table(_found()).splitlines()
    self.assertLen(lines, 2 + len(scaling.AXES))
    expected = 'variables, D 5 to 20 1.00 1.00 1.87 2.00 tokens, then surrogate'
    self.assertEqual(lines[2].split(), expected.split())

  def test_figure_has_a_panel_for_each(self):
    figure = plots.scaling(_found())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    self.assertEqual(titles, list(scaling.AXES))


@pytest.mark.slow
class MeasureTest(absltest.TestCase):
  def test_of_two_sizes(self):
    config = grpo.get_config('smoke').to_dict()
    before = copy.deepcopy(config)
    told = []
    found = scaling.measure(
      config, 1, told.append, {'T': ('horizon.num_interventions', (2, 8))}
    )
    self.assertLen(told, 2)
    for who in scaling.WHO:
      few, many = found['T']['seconds'][who]
      self.assertBetween(few, 0, many)
    self.assertEqual(config, before)


if __name__ == '__main__':
  absltest.main()
