import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import mechanisms
from acme_cbo.scms import optimum
from acme_cbo.scms import simulate
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec
from tests.support import chance
from tests.support import hand_made_scms

_FEW = optimum.NUM_SEARCH_DRAWS


def _chain(**changes):
  """`hand_made_scms.chain`, the target in units of 5 from -7."""
  scm = hand_made_scms.chain(**changes)
  return systems.System('chain', '', ('A', 'B', 'Y', 'padding'), scm)


def _written(variables, goal='maximize', rest=''):
  lines = ''.join(f'  {line}\n' for line in variables)
  return yaml_spec.parse(
    f'name: written\ntarget: Y\ngoal: {goal}\nvariables:\n{lines}{rest}'
  )


def _in_float64(variables):
  with jax.enable_x64(True):
    return _written(variables)


@functools.cache
def _bowl(goal):
  """Y = -(A - 0.3)^2 - 2 (B + 0.4)^2 + A C + e, of C with the mean 0.5."""
  return optimum.search(
    _written(
      [
        'A: {equation: e, domain: [-1, 1]}',
        'B: {equation: A + e, domain: [-1, 1]}',
        'C: {equation: e, noise: {uniform: [0, 1]}}',
        'Y: {equation: -(A - 0.3)**2 - 2 * (B + 0.4)**2 + A * C + e}',
      ],
      goal,
      'interventions: {max_size: 2}',
    )
  )


class ObjectiveTest(parameterized.TestCase):
  @parameterized.parameters(1.0, -1.0)
  def test_linear_in_own_units(self, goal):
    # In internal units do(A) gives Y -1 - 2 a and do(B) gives it -b, without
    # an intervention it is -1. Values are location + 5 u; domains are
    # [-1, 2] and [-0.5, 2] in those units, so a lies in [1.2, 1.8] and b in
    # [1.3, 1.8].
    result = optimum.search(
      _chain(goal=goal, location=-7.0, scale=5.0), num_draws=_FEW
    )
    at_low, at_high = -7 + 5 * (-1 - 2 * 1.2), -7 + 5 * (-1 - 2 * 1.8)
    b_low, b_high = -7 - 5 * 1.3, -7 - 5 * 1.8
    self.assertAlmostEqual(result.baseline, -12, places=5)
    best, worst = (b_low, at_high) if goal > 0 else (at_high, b_low)
    self.assertAlmostEqual(result.best, best, places=4)
    self.assertAlmostEqual(result.worst, worst, places=4)
    of_a, of_b = result.by_set
    self.assertEqual((of_a.variables, of_b.variables), (('A',), ('B',)))
    self.assertAlmostEqual(
      of_a.outcome, at_low if goal > 0 else at_high, places=4
    )
    self.assertAlmostEqual(
      of_b.outcome, b_low if goal > 0 else b_high, places=4
    )
    chosen = of_b if goal > 0 else of_a
    np.testing.assert_array_equal(result.choice.mask, chosen.choice.mask)
    # Ends of the domain are attained exactly.
    value = -0.5 if goal > 0 else 2.0
    self.assertEqual(result.choice.values.sum(), value)

  def test_inside_the_domains(self):
    # do(A, B): -(a - 0.3)^2 + 0.5 a at a = 0.55, b = -0.4: 0.2125. do(B):
    # A is standard normal, -1 - 0.09. do(A): B is normal around a:
    # -(a - 0.3)^2 - 2 (a + 0.4)^2 - 2 + 0.5 a, at a = -0.5 / 6.
    result = _bowl('maximize')
    by_set = {one.variables: one for one in result.by_set}
    self.assertCountEqual(by_set, [('A',), ('B',), ('A', 'B')])
    self.assertAlmostEqual(result.best, 0.2125, delta=1e-3)
    np.testing.assert_allclose(
      result.choice.values, [0.55, -0.4, 0, 0], atol=2e-3
    )
    np.testing.assert_array_equal(result.choice.mask, [1, 1, 0, 0])
    a = -0.5 / 6
    self.assertAlmostEqual(
      by_set['A',].outcome,
      -((a - 0.3) ** 2) - 2 * (a + 0.4) ** 2 - 2 + 0.5 * a,
      delta=0.02,
    )
    self.assertAlmostEqual(by_set['A',].choice.values[0], a, delta=0.01)
    self.assertAlmostEqual(by_set['B',].outcome, -1.09, delta=0.02)
    self.assertAlmostEqual(by_set['B',].choice.values[1], -0.4, delta=1e-3)
    # Without an intervention B is of variance 2: -1.09 - 2 (2 + 0.16). What
    # stratified draws leave to chance is 4 A e, of error 4 / 128.
    self.assertAlmostEqual(
      result.baseline, -5.41, delta=chance.SIGMAS * 4 / 128
    )
    # The worst corner of all: a = -1, b = 1, -1.69 - 3.92 - 0.5. do(A = 1)
    # comes to -0.49 - 2 (1.4^2 + 1) + 0.5, and do(B = 1) to -1.09 - 3.92.
    self.assertAlmostEqual(result.worst, -6.11, delta=0.02)

  def test_where_less_is_better(self):
    result = _bowl('minimize')
    self.assertAlmostEqual(result.best, -6.11, delta=0.02)
    np.testing.assert_array_equal(result.choice.values, [-1, 1, 0, 0])
    self.assertAlmostEqual(result.worst, 0.2125, delta=1e-3)

  def test_outcomes_are_those_of_the_bank(self):
    result = _bowl('maximize')
    self.assertEqual(result.bank.shape, (optimum.NUM_DRAWS, 4))
    self.assertEqual(result.bank.dtype, np.float64)
    self.assertEqual(result.choice.values.dtype, np.float64)
    a, b = result.choice.values[:2]
    c, noise = result.bank[:, 2:].T
    by_hand = -((a - 0.3) ** 2) - 2 * (b + 0.4) ** 2 + a * c.mean()
    self.assertAlmostEqual(result.best, by_hand + noise.mean(), places=10)

  def test_same_seed_same_answer(self):
    system = _chain()
    first, second = (
      optimum.search(system, num_draws=_FEW, seed=3) for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)

  def test_the_cheapest_of_those_that_are_equally_good(self):
    # B alone decides: A and B together come to the same.
    result = optimum.search(
      _written(
        [
          'A: {equation: e, domain: [0, 1]}',
          'B: {equation: A + e, domain: [0, 1], cost: 5}',
          'Y: {equation: -(B - 0.7)**2}',
        ],
        rest='interventions: {max_size: 2}',
      ),
      num_draws=_FEW,
    )
    np.testing.assert_array_equal(result.choice.mask, [False, True, False])
    self.assertAlmostEqual(float(result.choice.values[1]), 0.7, places=4)

  def test_what_the_budget_does_not_pay_for(self):
    variables = [
      'A: {equation: e, domain: [0, 1]}',
      'B: {equation: e, domain: [0, 1], cost: 5}',
      'Y: {equation: A + 2 * B}',
    ]
    sets = 'interventions: {max_size: 2}\n'
    for budget, best, number in ((5.5, 2, 2), (6, 3, 3), (1, 1, 1)):
      result = optimum.search(
        _written(variables, rest=f'{sets}budget: {budget}'), num_draws=_FEW
      )
      # A and B have the mean 0 unless they are set.
      self.assertAlmostEqual(result.best, best, delta=0.01)
      self.assertLen(result.by_set, number)

  def test_hint(self):
    # A needle that no search finds, 1e-8 wide.
    variables = [
      'X: {equation: e, domain: [0, 1]}',
      'Y: {equation: 0.1 * X + exp(-abs(1e8 * (X - 0.123456)))}',
    ]
    blind = optimum.search(_written(variables), num_draws=_FEW)
    self.assertAlmostEqual(blind.best, 0.1, places=3)
    with jax.enable_x64(True):
      scm = _written(variables, rest='optimum: {X: 0.123456}')
    result = optimum.search(scm, num_draws=_FEW)
    self.assertAlmostEqual(result.best, 1.0123456, places=5)
    self.assertAlmostEqual(float(result.choice.values[0]), 0.123456, places=9)

  def test_many_sets(self):
    # 8 + 28 + 56 sets; the best three are X0, X1 and X2 at their upper ends.
    roots = [f'X{i}: {{equation: e, domain: [-1, {8 - i}]}}' for i in range(8)]
    total = ' + '.join(f'X{i}' for i in range(8))
    result = optimum.search(
      _written(
        [*roots, f'Y: {{equation: {total} + e}}'],
        rest='interventions: {max_size: 3}',
      ),
      num_draws=_FEW,
    )
    self.assertLen(result.by_set, 92)
    self.assertAlmostEqual(result.best, 21, delta=0.05)
    self.assertAlmostEqual(result.worst, -3, delta=0.05)
    np.testing.assert_array_equal(
      result.choice.values, [8, 7, 6, 0, 0, 0, 0, 0, 0]
    )
    for one in result.by_set:
      best = sum(8 - int(name[1]) for name in one.variables)
      self.assertAlmostEqual(one.outcome, best, delta=0.05)

  def test_no_intervention_changes_the_target(self):
    chain = hand_made_scms.chain()
    # The target becomes a root.
    cut = chain.mechanism._replace(linear=chain.mechanism.linear.at[2].set(0.0))
    with self.assertRaisesRegex(
      errors.UsageError, '^chain: no allowed intervention changes the'
    ):
      optimum.search(
        _chain()._replace(scm=chain._replace(mechanism=cut)), num_draws=_FEW
      )
    # X is in the equation, but without effect.
    with self.assertRaisesRegex(errors.UsageError, 'all outcomes are'):
      optimum.search(
        _written(
          ['X: {equation: e, domain: [0, 1]}', 'Y: {equation: 0 * X + e}']
        ),
        num_draws=_FEW,
      )

  def test_not_finite(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      r"^written: Z: 'log\(X - 0.4\)' is nan under do\(X = [0-9.]+\) where X",
    ):
      optimum.search(
        _written(
          [
            'X: {equation: 1, domain: [0, 1]}',
            'Z: {equation: log(X - 0.4)}',
            'Y: {equation: Z + e}',
          ]
        ),
        num_draws=_FEW,
      )

  def test_refuses_a_hint_that_may_not_be_set(self):
    hint = hand_made_scms.do({0: 1.0, 1: 1.0}, 4)
    with self.assertRaisesRegex(errors.UsageError, 'may not be set together'):
      optimum.search(_chain()._replace(optimum_hint=hint), num_draws=_FEW)

  def test_hint_beyond_the_budget_is_ignored(self):
    system = _chain()
    problem = system.scm.problem
    rows = np.flatnonzero(np.asarray(problem.sets).any(-1))
    dear, cheap = (
      int(np.argmax(np.asarray(problem.sets)[row])) for row in rows[:2]
    )
    cost = jnp.ones(problem.cost.shape).at[dear].set(10.0)
    problem = problem._replace(cost=cost, budget=jnp.array(5.0))
    hint = hand_made_scms.do({dear: float(problem.low[dear])}, cost.size)
    result = optimum.search(
      system._replace(
        scm=system.scm._replace(problem=problem), optimum_hint=hint
      ),
      num_draws=_FEW,
    )
    self.assertEqual(np.flatnonzero(result.choice.mask).tolist(), [cheap])

  @parameterized.parameters(0, 100, 700)
  def test_refuses_numbers_of_draws_that_are_not_multiples(self, number):
    with self.assertRaisesRegex(
      errors.UsageError, f'a multiple of 512, got {number}'
    ):
      optimum.search(_chain(), num_draws=number)

  def test_agrees_with_simulate(self):
    # The same outcome as `simulate.expected_outcome`, with the goal's sign.
    result = _bowl('minimize')
    with jax.enable_x64(True):
      system = _written(
        [
          'A: {equation: e, domain: [-1, 1]}',
          'B: {equation: A + e, domain: [-1, 1]}',
          'C: {equation: e, noise: {uniform: [0, 1]}}',
          'Y: {equation: -(A - 0.3)**2 - 2 * (B + 0.4)**2 + A * C + e}',
        ],
        'minimize',
      )
      outcome = simulate.expected_outcome(
        system.scm,
        jnp.asarray(result.bank),
        jax.tree.map(jnp.asarray, result.by_set[0].choice),
      )
    self.assertAlmostEqual(result.by_set[0].outcome, -float(outcome), places=10)


def _with_target(target, goal='maximize'):
  """Returns a system of A, B and C with an equation of the target."""
  return _written(
    [
      *(f'{x}: {{equation: e, domain: [0, 10]}}' for x in 'ABC'),
      f'Y: {{equation: "{target}"}}',
    ],
    goal,
    'interventions: {sets: [[A, B, C]]}',
  )


class UnitsTest(parameterized.TestCase):
  @parameterized.parameters((1e-9, 0.0), (1.0, 1e8))
  def test_of_the_target(self, unit, origin):
    # The best value, 1, is at (3.7, 6.1, 8.3).
    bump = 'exp(-(A - 3.7)**2 - (B - 6.1)**2 - (C - 8.3)**2 / 2)'
    with jax.enable_x64(True):
      system = _with_target(f'{origin} + {unit} * ({bump} + 0.1 * e)')
    result = optimum.search(system, num_draws=_FEW)
    gain = (result.best - result.baseline) / unit
    # Without an intervention 3e-5, worked out by integrals of normal densities.
    self.assertAlmostEqual(gain, 1.0, delta=1e-4)
    np.testing.assert_allclose(
      result.choice.values[:3], [3.7, 6.1, 8.3], atol=1e-3
    )
    self.assertAlmostEqual(result.deviation / unit, 0.1, delta=0.01)
    optimum.check_gain(system, result)

  @parameterized.parameters(0.0, 1e8)
  def test_a_small_difference_far_from_0_is_one(self, origin):
    # B is better by 0.05, but costs more.
    system = _in_float64(
      [
        'A: {equation: 0, domain: [0, 1], cost: 1}',
        'B: {equation: 0, domain: [0, 1], cost: 2}',
        f'Y: {{equation: {origin} + A + 1.05 * B + 0.1 * e}}',
      ]
    )
    result = optimum.search(system, num_draws=_FEW)
    np.testing.assert_array_equal(result.choice.mask, [False, True, False])
    self.assertAlmostEqual(result.best - result.baseline, 1.05, delta=1e-7)

  def test_no_effect_far_from_0(self):
    # All outcomes are the same but for rounding.
    system = _in_float64(
      [
        'X: {equation: e, domain: [0, 1]}',
        'Y: {equation: 1e8 / 3 + X / 7 - X / 7 + 0 * e}',
      ]
    )
    with self.assertRaisesRegex(errors.UsageError, 'all outcomes are'):
      optimum.search(system, num_draws=_FEW)

  def test_a_plateau_at_an_end(self):
    system = _in_float64(
      [
        'X: {equation: 0, domain: [0, 1]}',
        'Y: {equation: "max(0, min(1, 1e6 * (X - 0.999)))"}',
      ]
    )
    result = optimum.search(system, num_draws=_FEW)
    self.assertEqual(result.best, 1.0)


class ExistenceTest(parameterized.TestCase):
  @parameterized.parameters(
    ('1 / X', -1.1),
    ('1 / (1 - X)', -1),
    ('1 / sqrt(abs(X - pi / 9))', -1.1),
    ('-log(abs(X))', -1),
  )
  def test_a_pole(self, equation, low):
    system = _in_float64(
      [
        f'X: {{equation: 0.7, domain: [{low}, 2]}}',
        f'Y: {{equation: {equation}}}',
      ]
    )
    # The search may also end exactly at the pole.
    with self.assertRaisesRegex(
      errors.UsageError,
      '^written: (the mean of Y has no finite best value: it grows without '
      r"bound near do\(X = [0-9.e+-]+\), up to [1-9]|Y: '.*' is inf under do)",
    ):
      optimum.search(system, num_draws=_FEW)

  @parameterized.parameters('abs(X)', 'sqrt(abs(X))', '(X - 0.1)**2')
  def test_no_pole(self, equation):
    # Sharp optima, of value 0.
    system = _in_float64(
      [
        'X: {equation: 1, domain: [-1.1, 2]}',
        f'Y: {{equation: -{equation}}}',
      ]
    )
    result = optimum.search(system, num_draws=_FEW)
    self.assertAlmostEqual(result.best, 0.0, delta=1e-3)

  def test_a_mean_that_does_not_exist(self):
    # The density of D is positive at 0.
    system = _in_float64(
      [
        'X: {equation: e, domain: [-2, 2]}',
        'D: {equation: 1 + 0.5 * e}',
        'Y: {equation: X / D + 0.1 * e}',
      ]
    )
    with self.assertRaisesRegex(
      errors.UsageError,
      'the mean of Y under .* does not exist or cannot be '
      r'estimated: .* \(tail index (0\.[89]|1\.[01])',
    ):
      optimum.search(system)

  def test_a_mean_that_hides_every_effect(self):
    system = _in_float64(
      [
        'X: {equation: e, domain: [-2, 2]}',
        'Z: {equation: e}',
        'Y: {equation: X + exp(exp(Z))}',
      ]
    )
    with self.assertRaisesRegex(
      errors.UsageError, 'the mean of Y under .* does not exist or cannot be'
    ):
      optimum.search(system)

  @parameterized.parameters(
    # Tail index, and whether the mean counts as one.
    (1.0, False), (0.5, False), (2.0, True), (4.0, True)
  )  # fmt: skip
  def test_tail_index(self, index, exists):
    # Of a Pareto distribution, P(|y| > x) = x^-index.
    rng = np.random.default_rng(0)
    values = rng.choice([-1, 1], 2**18) * rng.random(2**18) ** (-1 / index)
    estimate = optimum.tail_index(values, optimum.TAIL_EXTREMES)
    self.assertAlmostEqual(estimate, index, delta=0.25 * index)
    self.assertEqual(estimate > optimum.MIN_TAIL_INDEX, exists)

  def test_no_heavy_tails(self):
    rng = np.random.default_rng(0)
    normal, uniform = rng.normal(size=2**18), rng.random(2**18)
    for values in (
      normal,
      uniform,
      rng.laplace(size=2**18),
      np.exp(normal),
      np.exp(2 * normal),
      np.where(uniform < 1e-3, 100.0, normal),
      np.where(uniform < 1e-4, 1e6, normal),
      np.where(uniform < 1e-4, 1.0, 0.0),
      np.zeros(2**18),
    ):
      index = optimum.tail_index(values, optimum.TAIL_EXTREMES)
      self.assertGreater(index, optimum.MIN_TAIL_INDEX)


class CheckGainTest(parameterized.TestCase):
  @parameterized.parameters(
    ('-(X - 0.3)**2 + 0.1 * e', 'a thousandth of the standard deviation of Y'),
    ('-(X - 0.3)**2', 'a millionth of the difference between the best and the'),
  )
  def test_almost_nothing_to_gain(self, equation, reason):
    # Without an intervention -1e-8, with the best one 0.
    system = _in_float64(
      [
        'X: {equation: 0.3 + 0.0001 * e, domain: [0, 1]}',
        f'Y: {{equation: {equation}}}',
      ]
    )
    result = optimum.search(system, num_draws=_FEW)
    with self.assertRaisesRegex(
      errors.UsageError,
      r'^there is almost nothing to gain on written: the best intervention, '
      rf'do\(X = 0.3\), improves the mean of Y by 1(\.0\d)?e-08, '
      f'less than {reason}',
    ):
      optimum.check_gain(system, result)

  def test_a_target_that_is_too_far_from_0(self):
    system = _in_float64(
      [
        'X: {equation: e, domain: [0, 1]}',
        'Y: {equation: 100000000000000 - (X - 0.3)**2}',
      ]
    )
    result = optimum.search(system, num_draws=_FEW)
    with self.assertRaisesRegex(
      errors.UsageError, r'as large as 1e\+14; measure Y from another origin'
    ):
      optimum.check_gain(system, result)

  def test_nothing_to_gain(self):
    system = _in_float64(
      ['X: {equation: 2, domain: [0, 1]}', 'Y: {equation: X}']
    )
    result = optimum.search(system, num_draws=_FEW)
    with self.assertRaisesRegex(errors.UsageError, 'is better than none'):
      optimum.check_gain(system, result)

  def test_deviation_of_a_linear_system(self):
    # Y is -B + e = -(2 A + e) + e in internal units of 5: see `chain`.
    scm = hand_made_scms.chain(location=-7.0, scale=5.0)
    result = optimum.search(_chain()._replace(scm=scm), num_draws=_FEW)
    rows = jax.jit(simulate.sample, static_argnums=3)(
      jax.random.key(0), scm, hand_made_scms.do({}, 4), 20_000
    )
    # The standard error of a deviation is 1 / sqrt(2 n) of it: 0.5 %.
    self.assertAlmostEqual(
      result.deviation / float(rows[:, 2].std()), 1.0, delta=0.02
    )


class FamilyTest(absltest.TestCase):
  def test_noisy_chain_agrees_with_the_closed_form(self):
    # In a family that is not linear the bank holds noise, of mean 0.
    scm = hand_made_scms.chain()
    noisy = scm._replace(family=jnp.int32(mechanisms.Family.TANH))
    exact, result = (
      optimum.search(_chain()._replace(scm=one)) for one in (scm, noisy)
    )
    self.assertEqual(np.abs(exact.bank).max(), 0.0)
    self.assertGreater(result.bank.std(), 0.9)
    self.assertAlmostEqual(exact.best, 1.0, places=6)
    self.assertAlmostEqual(result.best, 1.0, delta=1e-3)


if __name__ == '__main__':
  absltest.main()
