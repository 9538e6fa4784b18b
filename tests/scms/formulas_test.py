import warnings

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from acme_cbo.infra import errors
from acme_cbo.scms import formulas
from acme_cbo.scms import mechanisms
from tests.support import chance

_NAMES = ('X', 'Z', 'rate_2')

# Each with the same in numpy, written by hand.
_EQUATIONS = (
  ('e', lambda x, z, r, e: e),
  ('3', lambda x, z, r, e: 3 + 0 * e),
  ('pi', lambda x, z, r, e: np.pi + 0 * e),
  ('.5e1 - 2. * 1E-1', lambda x, z, r, e: 4.8 + 0 * e),
  ('exp(-X) + e', lambda x, z, r, e: np.exp(-x) + e),
  ('cos(Z) - exp(-Z / 20)', lambda x, z, r, e: np.cos(z) - np.exp(-z / 20)),
  ('-X**2', lambda x, z, r, e: -(x**2)),
  ('(-X)**3', lambda x, z, r, e: -(x**3)),
  ('X**-2 + Z**0', lambda x, z, r, e: 1 / x**2 + 1),
  ('X - Z - rate_2', lambda x, z, r, e: x - z - r),
  ('X / Z / rate_2', lambda x, z, r, e: x / z / r),
  ('X - (Z - rate_2)', lambda x, z, r, e: x - (z - r)),
  ('2 * X + 3 * Z * e', lambda x, z, r, e: 2 * x + 3 * z * e),
  ('sin(X) * tanh(Z)', lambda x, z, r, e: np.sin(x) * np.tanh(z)),
  ('sigmoid(X - e)', lambda x, z, r, e: special.expit(x - e)),
  ('sqrt(abs(X)) + log(1 + Z**2)',
   lambda x, z, r, e: np.sqrt(np.abs(x)) + np.log(1 + z**2)),
  ('min(X, Z) - max(X, rate_2)',
   lambda x, z, r, e: np.minimum(x, z) - np.maximum(x, r)),
  ('--X', lambda x, z, r, e: x),
  ('+X + + Z - +e', lambda x, z, r, e: x + z - e),
  # As messages advise.
  ('sigmoid(100 * (X - 0.5))', lambda x, z, r, e: special.expit(100*x - 50)),
  ('exp(2.5 * log(X * X)) + e * e',
   lambda x, z, r, e: (x * x) ** 2.5 + e ** 2),
  ('  X\n  + Z  ', lambda x, z, r, e: x + z),
)  # fmt: skip

# (text, error message, its column).
_REFUSED = (
  ('', 'the equation is empty', 1),
  ('  ', 'the equation is empty', 1),
  ('X +', 'cannot be read', 4),
  ('+' * 21 + 'X', 'operations are nested more than 20 deep', 21),
  ('X Z', 'cannot be read', 3),
  ('  X +* Z', 'cannot be read', 6),
  ('(X', 'cannot be read', 1),
  ('X)', 'cannot be read', 2),
  ('X + Y', 'Y is unknown; there are X, Z, ', 5),
  ('X + rate2', r'rate2 is unknown; did you mean rate_2\?', 5),
  ('x', r'x is unknown; did you mean X\?', 1),
  ('exp + 1', r'exp is a function; write exp\(...\)', 1),
  ('1 + X(2)', 'X is not a function; there are exp, log', 5),
  ('pi(2)', 'pi is not a function', 1),
  ('exp(X, Z)', 'exp takes 1 argument, got 2', 1),
  ('exp()', 'exp takes 1 argument, got 0', 1),
  ('max(X)', 'max takes 2 arguments, got 1', 1),
  ('exp(*X)', 'not part of an equation', 5),
  ('exp(X)(Z)', 'not part of an equation', 1),
  ('2(X)', 'not part of an equation', 1),
  ('X, Z', 'not part of an equation', 1),
  ('X // 2', 'not part of an equation', 1),
  ('X % 2', "'%' is not part of an equation", 3),
  ('X ^ 2', r"'\^' is not part of an equation; a power is written \*\*", 3),
  ('Y = X', 'Y is unknown', 1),
  ('X = 2', 'write the right side only', 3),
  ('X == 2', r'; an equation has no conditions; a step at c is written sig', 3),
  ('X < 2', r"'<' is not part.*; .* sigmoid\(100 \* \(x - c\)\)", 3),
  ('X > 2', "'>' is not part of an equation; an equation has no conditions", 3),
  ('where(X, 1, 2)', 'where is unknown; an equation has no conditions', 1),
  ('X if Z else 1', 'if is unknown; an equation has no conditions; a step', 3),
  ('ln(X)', r'ln is unknown; write log\(x\) \(column', 1),
  ('np.exp(X)', r'np is unknown; write exp\(x\), not', 1),
  ('E**X', r'E is unknown; write exp\(1\) for 2.718; e is the noise', 1),
  ('e**2', 'e is the noise of the variable, not the number 2.718; write', 1),
  ('X * e**-X', r'exp\(x\) for a power of that number, and e \* e for', 5),
  ('X \N{MINUS SIGN} 2', 'part of an equation; a minus sign is written -', 3),
  ('2X', "'2X' is not a number; a product is written 2 \\* X", 1),
  ('2 * 1_000', "'1_' is not a number", 5),
  ('1.2.3', "'1.2.' is not a number", 1),
  ('0x10', "'0x' is not a number", 1),
  ('1j', "'1j' is not a number", 1),
  ('2e', "'2e' is not a number", 1),
  ('X + 1e999', 'a number is too large', 5),
  ('X + 1e31', r'a number is too large; at most 1e\+30', 5),
  ('9' * 400, 'a number is too large', 1),
  ('007', 'cannot be read', 1),
  ('X**Z', 'a power must be an integer from -8 to 8', 4),
  ('X**0.5', r'-8 to 8; write sqrt\(x\) for x\*\*0.5, and exp\(y \* log', 4),
  ('X**9', 'a power must be an integer', 4),
  ('X**-9', 'a power must be an integer', 4),
  ('2**9999999', 'a power must be an integer', 4),
  ('9**9**9', 'a power must be an integer', 4),
  ('X**(1 + 1)', 'a power must be an integer', 5),
  # Other Python syntax.
  ("__import__('os')", '__import__ is unknown', 1),
  ('X.real', "'.' is not part of an equation", 2),
  ('X . real', "'.' is not part of an equation", 3),
  ('lambda: 1', 'lambda is unknown', 1),
  ('not X', 'not is unknown', 1),
  ('True', 'True is unknown', 1),
  ('None', 'None is unknown', 1),
  ('await X', 'await is unknown', 1),
  ("f'{X}'", 'f is unknown', 1),
  ('"X"', "'\"' is not part", 1),
  ('[X]', r"'\[' is not part", 1),
  ('{X}', "'{' is not part", 1),
  ('X := 2', "':' is not part", 3),
  ('X; Z', "';' is not part", 2),
  ('X # Z', "'#' is not part", 3),
  ('eval(X)', 'eval is unknown', 1),
  ('X\\', r"'\\\\' is not part", 2),
  ('X\0', r"'\\x00' is not part", 2),
  # Python would normalize both to ASCII or read them as digits.
  ('ｅ + 1', "'ｅ' is not part", 1),
  ('X²', r"'²' is not part of an equation; a power is written \*\*", 2),
  ('٣', "'٣' is not part", 1),
  # Deeply nested or long.
  ('(' * 250 + '1' + ')' * 249, 'cannot be read', None),
  ('-' * 21 + 'X', 'operations are nested more than 20 deep', 21),
  ('exp(' * 20 + 'X' + ')' * 20, 'operations are nested more than 20 deep', 81),
  ('-' * 499 + 'X', 'operations are nested more than 20 deep', 21),
  ('X +' * 200 + ' X', 'at most 500 characters, got 602', 501),
)  # fmt: skip


def _evaluate(text, dtype=jnp.float32):
  """Values of an equation on the rows of `_rows`."""
  x, z, r, e = (jnp.asarray(column, dtype) for column in _rows())
  equation = formulas.parse(text, _NAMES)
  return equation.evaluate({'X': x, 'Z': z, 'rate_2': r, 'e': e}, e)


def _rows():
  return np.random.default_rng(0).normal(size=(4, 7)) + 0.1


class ParseTest(parameterized.TestCase):
  @parameterized.parameters(*_EQUATIONS)
  def test_against_numpy(self, text, function):
    with jax.enable_x64(True):
      actual = _evaluate(text, jnp.float64)
    self.assertEqual(actual.shape, (7,))
    np.testing.assert_allclose(actual, function(*_rows()), rtol=1e-12)

  @parameterized.parameters('3', 'pi + 1', 'X + 2 * e')
  def test_has_the_type_of_the_values(self, text):
    self.assertEqual(_evaluate(text).dtype, jnp.float32)

  @parameterized.parameters(*_REFUSED)
  def test_refuses(self, text, message, column):
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      with self.assertRaisesRegex(formulas.FormulaError, message) as caught:
        formulas.parse(text, _NAMES)
    if column is not None:
      self.assertEqual(caught.exception.column, column)
    self.assertEqual(len(str(caught.exception).splitlines()), 1)
    self.assertIsInstance(caught.exception, errors.UsageError)
    self.assertRegex(str(caught.exception), r'\(column \d+ of the equation\)$')

  def test_accepts_the_limits(self):
    np.testing.assert_allclose(_evaluate('-' * 18 + 'X'), _rows()[0], rtol=1e-6)
    # 166 terms are no deeper than two, and have 498 characters.
    text = '+'.join(['X '] * 166)
    np.testing.assert_allclose(_evaluate(text), 166 * _rows()[0], rtol=1e-5)
    text = '*'.join(['pi'] * 30)
    np.testing.assert_allclose(_evaluate(text), np.pi**30, rtol=1e-5)

  def test_names_and_noise_that_it_uses(self):
    equation = formulas.parse('exp(Z) + Z * X', _NAMES)
    self.assertEqual((equation.names, equation.noisy), (('Z', 'X'), False))
    self.assertTrue(formulas.parse('1 + e', _NAMES).noisy)
    # The e of an exponent is not noise.
    self.assertFalse(formulas.parse('1e3', _NAMES).noisy)

  @hypothesis.settings(max_examples=300, deadline=None)
  @hypothesis.given(
    st.one_of(
      st.text(max_size=60),
      st.text('XZe0123456789.+-*/(), expsincoqrtab', max_size=60),
      st.lists(
        st.sampled_from(
          ['X', 'e', '2', '**', '*', '/', '-', '(', ')', 'exp(', 'max(', ',',
           ' ', 'if', 'lambda', '1e', '.', '_', '\n']
        ),
        max_size=30,
      ).map(''.join),
    )
  )  # fmt: skip
  def test_any_text_is_parsed_or_refused(self, text):
    try:
      equation = formulas.parse(text, _NAMES)
    except formulas.FormulaError as error:
      self.assertBetween(error.column, 1, len(text) + 1)
      return
    one = jnp.ones(2)
    values = dict.fromkeys((*_NAMES, 'e'), one)
    self.assertEqual(equation.evaluate(values, one).shape, (2,))


class NameTest(parameterized.TestCase):
  @parameterized.parameters('X', 'N', 'NO', 'x_1', 'E', 'a' * 64)
  def test_takes(self, name):
    formulas.check_name(name)

  @parameterized.parameters(
    ('', 'is not a valid name'),
    ('1X', 'is not a valid name'),
    ('_X', 'is not a valid name'),
    ('X-Y', 'is not a valid name'),
    ('X\n', 'is not a valid name'),
    ('Größe', 'is not a valid name'),
    ('a' * 65, 'is not a valid name'),
    ('e', 'has a meaning'),
    ('pi', 'has a meaning'),
    ('exp', 'has a meaning'),
    ('lambda', 'a Python keyword'),
    ('None', 'a Python keyword'),
  )
  def test_refuses(self, name, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      formulas.check_name(name)


_NORMAL = formulas.Noise()
_NONE = formulas.Noise('none', ())


def _toy(noises=(_NORMAL,) * 3):
  return formulas.Formulas(
    ('X', 'Z', 'Y'), ('e', 'exp(-X) + e', 'cos(Z) - X'), tuple(noises)
  )


_value = jax.jit(mechanisms.value)


class FormulasTest(parameterized.TestCase):
  def test_is_static(self):
    mechanism = _toy()
    self.assertEmpty(jax.tree.leaves(mechanism))
    self.assertEqual(mechanism, _toy())
    self.assertEqual(hash(mechanism), hash(_toy()))
    self.assertNotEqual(mechanism, _toy([_NONE] * 3))
    self.assertIs(jax.tree.map(jnp.sin, mechanism), mechanism)

  def test_value_of_each_variable(self):
    u, noise = np.random.default_rng(1).normal(size=(2, 5, 3))
    x, z = u[:, 0], u[:, 1]
    for j, expected in enumerate(
      [noise[:, 0], np.exp(-x) + noise[:, 1], np.cos(z) - x]
    ):
      actual = _value(_toy(), j, jnp.float32(u), jnp.float32(noise))
      np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

  def test_slope(self):
    def total(u):
      return mechanisms.value(_toy(), jnp.int32(2), u, jnp.zeros_like(u)).sum()

    u = np.random.default_rng(2).normal(size=(4, 3))
    slope = jax.jit(jax.grad(total))(jnp.float32(u))
    expected = np.stack([-np.ones(4), -np.sin(u[:, 1]), np.zeros(4)], 1)
    np.testing.assert_allclose(slope, expected, rtol=1e-5)

  def test_slope_of_a_square_at_zero(self):
    mechanism = formulas.Formulas(('X', 'Y'), ('e', 'X**2'), (_NORMAL,) * 2)
    slope = jax.grad(
      lambda x: mechanisms.value(
        mechanism, jnp.int32(1), jnp.zeros((1, 2)).at[0, 0].set(x),
        jnp.zeros((1, 2)),
      )[0]
    )(0.0)  # fmt: skip
    self.assertEqual(float(slope), 0.0)

  def test_parents_are_the_names_that_an_equation_uses(self):
    np.testing.assert_array_equal(
      _toy().parents, [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    )

  @parameterized.parameters(
    (('X',), ('e', 'e'), 1, 'give one of each'),
    ((), (), 0, 'give one of each'),
    (('X', 'X'), ('e', 'e'), 2, 'the same name'),
    (('X', 'e'), ('e', 'e'), 2, 'has a meaning'),
    (('X', 'Y'), ('e', 'Z'), 2, 'Z is unknown'),
  )
  def test_refuses(self, names, texts, number, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      formulas.Formulas(names, texts, (_NORMAL,) * number)


# With the distribution that scipy knows by another name.
_DISTRIBUTIONS = (
  (_NORMAL, stats.norm()),
  (formulas.Noise('normal', (-1.5, 0.3)), stats.norm(-1.5, 0.3)),
  (formulas.Noise('uniform', (4.0, 8.0)), stats.uniform(4, 4)),
  (formulas.Noise('laplace', (2.0, 0.5)), stats.laplace(2, 0.5)),
  (formulas.Noise('gamma', (2.0, 1.0, 3.0)), stats.gamma(2, 1, 3)),
  (formulas.Noise('gamma', (0.05, 0.0, 1.0)), stats.gamma(0.05)),
  (formulas.Noise('gamma', (0.5, -1.0, 2.0)), stats.gamma(0.5, -1, 2)),
  (formulas.Noise('gamma', (40.0, 0.0, 0.1)), stats.gamma(40, 0, 0.1)),
  (formulas.Noise('gamma', (1e4, 0.0, 1.0)), stats.gamma(1e4)),
)
_MECHANISM = formulas.Formulas(
  tuple(f'X{i}' for i in range(len(_DISTRIBUTIONS))),
  ('e',) * len(_DISTRIBUTIONS),
  tuple(noise for noise, _ in _DISTRIBUTIONS),
)


class NoiseTest(parameterized.TestCase):
  @pytest.mark.oracle
  def test_quantiles_against_scipy(self):
    # Within the range to which `sampling` truncates the tails.
    tail = np.geomspace(1e-6, 0.5, 2000)
    level = np.concatenate([tail, 1 - tail, np.linspace(0.001, 0.999, 2000)])
    with jax.enable_x64(True):
      columns = np.tile(level[:, None], len(_DISTRIBUTIONS))
      drawn = np.asarray(mechanisms.noise_at(_MECHANISM, jnp.asarray(columns)))
    self.assertEqual(drawn.dtype, np.float64)
    for j, (noise, distribution) in enumerate(_DISTRIBUTIONS):
      with self.subTest(noise):
        np.testing.assert_allclose(
          drawn[:, j], distribution.ppf(level), rtol=1e-6, atol=1e-12
        )

  def test_in_float32(self):
    level = np.linspace(0.001, 0.999, 500)
    columns = np.tile(level[:, None], len(_DISTRIBUTIONS))
    drawn = mechanisms.noise_at(_MECHANISM, jnp.float32(columns))
    self.assertEqual(drawn.dtype, jnp.float32)
    for j, (noise, distribution) in enumerate(_DISTRIBUTIONS):
      with self.subTest(noise):
        away = np.asarray(drawn[:, j], np.float64) - distribution.ppf(level)
        self.assertLess(np.abs(away).max(), 1e-3 * distribution.std())

  @pytest.mark.stat
  def test_draws(self):
    number = 100_000
    drawn = np.asarray(
      mechanisms.noise(
        jax.random.key(0), _MECHANISM, number, len(_DISTRIBUTIONS)
      ),
      np.float64,
    )
    for j, (noise, distribution) in enumerate(_DISTRIBUTIONS):
      with self.subTest(noise):
        error = distribution.std() / np.sqrt(number)
        self.assertAlmostEqual(
          drawn[:, j].mean(), distribution.mean(), delta=chance.SIGMAS * error
        )
        kurtosis = float(distribution.stats('k')) + 3
        self.assertAlmostEqual(
          drawn[:, j].var() / distribution.var(), 1,
          delta=chance.SIGMAS * np.sqrt((kurtosis - 1) / number),
        )  # fmt: skip

  def test_is_finite_at_the_ends(self):
    ends = jnp.tile(jnp.array([[0.0], [1.0]]), len(_DISTRIBUTIONS))
    drawn = mechanisms.noise_at(_MECHANISM, ends)
    self.assertTrue(np.isfinite(drawn).all())
    np.testing.assert_array_equal(drawn[:, 2], [4.0, 8.0])

  def test_none_is_none(self):
    mechanism = _toy([_NONE, _NORMAL, _NORMAL])
    drawn = mechanisms.noise(jax.random.key(0), mechanism, 50, 3)
    np.testing.assert_array_equal(drawn[:, 0], 0.0)
    self.assertGreater(drawn[:, 1].std(), 0.5)

  @parameterized.parameters(
    (('normal', (0.0,)), r'takes 2 numbers \(mean, deviation\), got 1'),
    (('none', (1.0,)), 'takes 0 numbers, got 1'),
    (('normal', (0.0, 0.0)), 'deviation of normal noise must be positive'),
    (('normal', (np.nan, 1.0)), 'mean of normal noise must be finite'),
    (('laplace', (0.0, -1.0)), 'scale of laplace noise must be positive'),
    (('uniform', (1.0, 1.0)), 'low < high, got 1 and 1'),
    (('gamma', (1.0, 0.0, 0.0)), 'scale of gamma noise must be positive'),
    (('gamma', (0.01, 0.0, 1.0)), 'shape of gamma noise must be 0.05 to'),
    (('gamma', (1e5, 0.0, 1.0)), 'shape of gamma noise must be 0.05 to'),
    (('gama', (1.0, 0.0, 1.0)), r'did you mean gamma\?; there are normal'),
  )
  def test_refuses(self, noise, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      formulas.check_noise(formulas.Noise(*noise))


if __name__ == '__main__':
  absltest.main()
