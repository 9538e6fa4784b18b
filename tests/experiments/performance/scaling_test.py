"""Tests of the expected work, against traced programs, and of the exponents."""

import dataclasses
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.environments import config as environments_config
from acme_cbo.evaluation import plots
from acme_cbo.experiments import presets
from acme_cbo.experiments.performance import scaling
from acme_cbo.networks import config as config_lib
from acme_cbo.networks import tokens
from acme_cbo.networks import transformer
from acme_cbo.scms import priors
from tests.support import miniature


def _multiply_adds(function, *args) -> int:
  """Counts the multiply-adds of all matrix products in a traced function."""

  def count(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        shape = equation.invars[0].aval.shape
        (out,) = equation.outvars
        total += out.aval.size * math.prod(shape[i] for i in contracted)
      times = equation.params.get('length', 1)
      for inner in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda x: isinstance(x, core.ClosedJaxpr | core.Jaxpr),
      ):
        if isinstance(inner, core.ClosedJaxpr):
          total += times * count(inner.jaxpr)
    return total

  return count(jax.make_jaxpr(function)(*args).jaxpr)


class MultiplyAddsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(num_variables=5, observations=7, steps=4, rollouts=2, blocks=2),
    dict(num_variables=4, observations=40, steps=9, rollouts=3, blocks=1),
  )
  def test_matches_the_traced_blocks(
    self, num_variables, observations, steps, rollouts, blocks
  ):
    architecture = config_lib.NetworkConfig(48, blocks, 3, 2, 16, 'none')
    network = transformer.make(architecture)
    parts = miniature.parts(
      prior=dataclasses.replace(miniature.PRIOR, max_variables=num_variables),
      horizon=environments_config.HorizonConfig(observations, steps),
      update=dataclasses.replace(
        miniature.UPDATE, num_tasks=3, num_generations=rollouts
      ),
    )
    task, _ = jax.eval_shape(
      lambda key: priors.sample_task(key, parts.prior), jax.random.PRNGKey(0)
    )
    problem = task.scm.problem
    data = jnp.zeros((observations, num_variables))
    row = tokens.start_row(num_variables)
    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf, steps + 1, 0), row)
    params = jax.eval_shape(
      network.init, jax.random.PRNGKey(0), problem, data, row
    )
    prefix = jax.eval_shape(network.prefix, params, problem, data)
    traced = 3 * (
      _multiply_adds(network.prefix, params, problem, data)
      + rollouts * _multiply_adds(network.full, params, problem, prefix, rows)
    )
    terms = scaling.multiply_adds(architecture, parts)['learner']
    blocks = sum(
      terms[name]
      for name in (
        'tokens',
        'attention across variables',
        'attention across rows',
        'processes of the records',
      )
    )
    # The traced programs also have an embedding and norms.
    self.assertBetween(traced / blocks, 1, 1.1)


class ExponentTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 1.0, 2.5)
  def test_fits_a_power_law(self, power):
    sizes = np.array([3, 6, 12, 25, 50])
    # The overhead at small sizes is ignored.
    costs = 0.1 * sizes**power + 10.0 * (sizes < 12)
    self.assertAlmostEqual(scaling.exponent(sizes, costs), power, places=6)


def _results():
  work = {'actor': [1e6, 2e6, 4e6], 'learner': [1e6, 4e6, 16e6]}
  return {
    axis: {
      'sizes': [5, 10, 20],
      'seconds': {'actor': [0.1, 0.2, 0.4], 'learner': [0.3, 0.6, 2.4]},
      'multiply_adds': work,
      'exponent': {'actor': 1.0, 'learner': 1.87},
      'expected': {'actor': 1.0, 'learner': 2.0},
      'largest': {p: ['tokens', 'tokens', 'surrogate'] for p in work},
    }
    for axis in scaling.AXES
  }


class ReportTest(absltest.TestCase):
  def test_table(self):
    lines = scaling.table(_results()).splitlines()
    self.assertLen(lines, 2 + len(scaling.AXES))
    expected = 'variables, D 5 to 20 1.00 1.00 1.87 2.00 tokens, then surrogate'
    self.assertEqual(lines[2].split(), expected.split())

  def test_figure_has_a_panel_per_axis(self):
    figure = plots.scaling(_results())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    self.assertEqual(titles, list(scaling.AXES))


@pytest.mark.slow
class MeasureTest(absltest.TestCase):
  def test_two_sizes(self):
    config = presets.preset('smoke')
    progress = []
    results = scaling.measure(
      config, 1, progress.append, {'T': ('horizon.num_interventions', (2, 8))}
    )
    self.assertLen(progress, 2)
    for program in scaling.PROGRAMS:
      few, many = results['T']['seconds'][program]
      self.assertBetween(few, 0, many)


if __name__ == '__main__':
  absltest.main()
