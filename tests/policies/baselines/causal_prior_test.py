"""Tests of E[Y | do] from observations, against closed forms."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.policies.baselines import causal_prior
from acme_cbo.policies.baselines import identification
from tests.policies.baselines import known_scms

_NUM_DRAWS = 64
_predict = jax.jit(causal_prior.predict)


def _linear(parents, weights, latent=''):
  """A linear SCM with standard normal noise: weights by cause and effect."""

  def equation(name):
    causes = {c: weights[c + name] for c in parents[name]}
    return lambda v, e: e + sum(w * v[c] for c, w in causes.items())

  return known_scms.KnownSCM(
    equations={name: equation(name) for name in parents},
    parents=parents,
    latent=latent,
    domains={n: (-1.0, 1.0) for n in parents if n not in latent + 'Y'},
  )


class CausalPriorTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  def predict(self, known, settings, num_rows=120, seed=0):
    """Predicts at several values of one set, in the variables' own units."""
    rows = known.sample(np.random.default_rng(seed), {}, num_rows)
    names = list(known.equations)
    target = names.index('Y')
    graph = identification.observed_graph(known.to_scm())
    factors = identification.factorize(graph, target)
    location, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    regressions = causal_prior.fit(
      factors, target, (rows - location) / scale, _NUM_DRAWS
    )
    mask = np.array([n in settings for n in names])
    values = np.stack(
      [
        np.broadcast_to(
          settings.get(n, 0.0), (len(next(iter(settings.values()))),)
        )
        for n in names
      ],
      1,
    )
    mean, deviation = _predict(
      regressions,
      mask,
      causal_prior.roles(factors, target, mask),
      jnp.asarray((values - location) / scale),
    )
    unit = scale[target]
    return location[target] + unit * mean, unit * deviation, rows

  @pytest.mark.oracle
  def test_without_latent_variables(self):
    # E[Y | do(X)] is a line; W, which acts on both, has to be adjusted for. The
    # slope in closed form is that of least squares from the same rows.
    known = _linear(
      {'W': '', 'X': 'W', 'Z': 'X', 'Y': 'WXZ'},
      {'WX': 1.0, 'XZ': 0.8, 'ZY': 1.5, 'XY': -0.5, 'WY': -1.0},
    )
    x = np.linspace(-1, 1, 5)
    mean, deviation, rows = self.predict(known, {'X': x})
    w, x_observed, z, y = rows.T
    of_y = np.linalg.lstsq(
      np.stack([w, x_observed, z, np.ones(len(w))], 1), y, rcond=None
    )[0]
    slope = of_y[1] + of_y[2] * np.polyfit(x_observed, z, 1)[0]
    self.assertAlmostEqual(np.polyfit(x, mean, 1)[0], slope, delta=0.2)
    # True is 0.8 * 1.5 - 0.5.
    self.assertAlmostEqual(slope, 0.7, delta=0.3)
    naive = np.polyfit(rows[:, 1], rows[:, 3], 1)[0]
    self.assertLess(naive, slope - 0.3)
    # The variance given X is 1 + 1.5² + 1: of W, Z and Y.
    np.testing.assert_allclose(deviation, np.sqrt(4.25), rtol=0.15)

  @pytest.mark.oracle
  def test_with_a_latent_common_cause(self):
    # The front door: X acts on Y through Z alone, and U on both X and Y. The
    # effect is 0.8 * 1.5; regression on X is off by 2 cov(U, X) / var(X) = 1.
    known = _linear(
      {'U': '', 'X': 'U', 'Z': 'X', 'Y': 'ZU'},
      {'UX': 1.0, 'XZ': 0.8, 'ZY': 1.5, 'UY': 2.0},
      latent='U',
    )
    x = np.linspace(-1, 1, 5)
    mean, _, rows = self.predict(known, {'X': x})
    self.assertAlmostEqual(np.polyfit(x, mean, 1)[0], 1.2, delta=0.25)
    naive = np.polyfit(rows[:, 1], rows[:, 3], 1)[0]
    self.assertAlmostEqual(naive, 2.2, delta=0.25)
    # And of Z, which shares no latent cause with Y: 1.5, not more.
    mean, _, rows = self.predict(known, {'Z': x})
    self.assertAlmostEqual(np.polyfit(x, mean, 1)[0], 1.5, delta=0.25)
    naive = np.polyfit(rows[:, 2], rows[:, 3], 1)[0]
    self.assertGreater(naive, 1.9)

  @pytest.mark.oracle
  def test_of_two_variables(self):
    known = _linear(
      {'W': '', 'X': '', 'Z': 'X', 'Y': 'XZ'},
      {'XZ': 2.0, 'XY': 1.0, 'ZY': -1.0},
    )
    x, z = np.array([-1.0, 0.0, 1.0]), np.array([-1.5, 0.5, 1.5])
    mean, deviation, _ = self.predict(known, {'X': x, 'Z': z})
    np.testing.assert_allclose(mean, x - z, atol=0.35)
    np.testing.assert_allclose(deviation, 1, rtol=0.2)

  def test_roles(self):
    known = known_scms.complete()
    names = list(known.equations)
    target = names.index('Y')
    factors = identification.factorize(
      identification.observed_graph(known.to_scm()), target
    )

    def roles(chosen):
      mask = np.array([n in chosen for n in names])
      role = causal_prior.roles(factors, target, mask)
      return dict(zip(names, role.tolist(), strict=True))

    # The natural value of B depends on V, as Y does. With D and E set, C has no
    # other effect.
    nothing = dict(U=0, V=0)
    self.assertEqual(
      roles('DE'), nothing | dict(F=1, A=2, B=1, C=0, D=0, E=0, Y=2)
    )
    self.assertEqual(
      roles('B'), nothing | dict(F=1, A=2, B=1, C=2, D=2, E=2, Y=2)
    )


if __name__ == '__main__':
  absltest.main()
