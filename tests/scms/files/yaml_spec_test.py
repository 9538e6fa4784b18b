"""Tests of reading systems from YAML."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import formulas
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec
from tests.support import chance

# Lines and columns of the errors below refer to this text.
_TOY = """\
name: toy
target: Y
goal: minimize
variables:
  Y: {equation: 'cos(Z) + e'}
  X: {equation: U + e, domain: [-5, 5], cost: 1}
  Z: {equation: exp(-X) + e, domain: [-5, 20], cost: 10}
  U: {equation: e, noise: {uniform: [-1, 1]}, latent: true}
interventions: {max_size: 2}
budget: 100
optimum: {Z: -3.2}
"""
_TARGET = "  Y: {equation: 'cos(Z) + e'}\n"
_X = '  X: {equation: U + e, domain: [-5, 5], cost: 1}\n'
_Z = '  Z: {equation: exp(-X) + e, domain: [-5, 20], cost: 10}\n'
_SETS = 'interventions: {max_size: 2}\n'

# Old text, new text, line and column, and reason of the error.
_INVALID = (
  # Keys.
  ('name: toy\n', '', '1:1', 'the file: name is missing'),
  ('goal: minimize\n', '', '1:1', 'the file: goal is missing'),
  ('target: Y\n', '', '1:1', 'the file: target is missing'),
  ('goal: ', 'gaol: ', '3:1',
   r"the file: unknown key 'gaol'; did you mean goal\?"),
  ('budget: 100', 'x: 1', '10:1', "unknown key 'x'; there are name, target"),
  ('cost: 10', 'costs: 10', '7:48',
   r"variable Z: unknown key 'costs'; did you mean cost\?"),
  ('target: Y', 'target: Y\ntarget: Y', '3:1', "duplicate key 'target'"),
  ('  X: ', '  Z: ', '7:3', "variables: duplicate key 'Z'"),
  ('cost: 10', 'cost: 10, cost: 9', '7:58', "variable Z: duplicate key 'cost'"),
  ('equation: exp(-X) + e, ', '', '7:6', 'variable Z: equation is missing'),
  ('target: Y', '<<: {a: 1}\ntarget: Y', '2:1', "unknown key '<<'"),
  ('target: Y', '? [a]\n: 1\ntarget: Y', '2:3', 'a key of the file must be'),
  (_TOY, _TOY.split('vari')[0] + 'variables: 3\n', '4:12',
   'variables must be a mapping'),
  # Names, the goal, the target.
  ('name: toy', 'name: ../toy', '1:7', "name '../toy' must be a letter or"),
  ('name: toy', 'name: [toy]', '1:7', 'name must be a string'),
  ('name: toy', 'name:', '1:6', 'name is empty'),
  ('minimize', 'minimise', '3:7',
   "goal must be minimize or maximize, got 'minimise'"),
  ('target: Y', 'target: y', '2:9',
   r"target: unknown variable 'y'; did you mean Y\?"),
  ('target: Y', 'target: U', '2:9', 'target U is latent; it must be observed'),
  ('target: Y', 'target: Z', '7:38',
   'variable Z is the target, which cannot be intervened on'),
  ('  X: ', '  exp: ', '6:3', 'exp has a meaning in equations'),
  ('  X: ', '  e: ', '6:3', 'e has a meaning in equations'),
  ('  X: ', '  "1": ', '6:3', "'1' is not a valid name of a variable"),
  ('  X: ', '  lambda: ', '6:3', 'lambda is a Python keyword'),
  # Equations.
  ('cos(Z)', 'cos(W)', '5:22', 'variable Y: equation: W is unknown'),
  ('cos(Z)', 'cosh(Z)', '5:18', r'cosh is unknown; did you mean cos\?'),
  ('exp(-X)', 'exp(-X', '7:20', 'variable Z: equation: the equation cannot'),
  ('exp(-X)', 'X**0.5', '7:20', 'variable Z: equation: a power must be'),
  ('exp(-X) + e', '"1 + X^2"', '7:23', "variable Z: .* a power is written"),
  ("'cos(Z) + e'", '"cos\\u0028W)"', '5:17', 'column 5: W is unknown'),
  ("{equation: 'cos(Z) + e'}", '\n    equation: cos(Z) +\n      W + e', '6:15',
   'equation, column 10: W is unknown'),
  ("'cos(Z) + e'", '[1]', '5:17', 'variable Y: equation must be a string'),
  ("'cos(Z) + e'", "' '", '5:17', 'variable Y: equation is empty'),
  ("'cos(Z) + e'", '', '5:16', 'variable Y: equation is empty'),
  ("'cos(Z) + e'", "'__import__(1)'", '5:18', '__import__ is unknown'),
  ('U + e', 'Z + e', '6:17',
   'variable X: the equations have a cycle: X -> Z -> X'),
  ('U + e', 'X + e', '6:17', 'the equations have a cycle: X -> X'),
  # Domains, costs, latent variables.
  ('[-5, 5]', '[5, -5]', '6:32',
   r'variable X: domain must be \[low, high\] with low < high, got \[5, -5\]'),
  ('[-5, 5]', '[5, 5]', '6:32', 'with low < high'),
  ('[-5, 5]', '[1, 1.00000001]', '6:32', 'with low < high'),
  ('[-5, 5]', '[-5, 0, 5]', '6:32', r'domain must be \[low, high\]'),
  ('[-5, 5]', '5', '6:32', 'variable X: domain must be a list'),
  ('[-5, 5]', '[-5, .inf]', '6:37', "must be a finite number, got '.inf'"),
  ('[-5, 5]', '[.nan, 5]', '6:33', "must be a finite number, got '.nan'"),
  ('[-5, 5]', '[nan, 5]', '6:33', "must be a finite number, got 'nan'"),
  ('[-5, 5]', '[-5, 1e999]', '6:37', "must be a number within ±1e"),
  ('[-5, 5]', '[-5, 2e12]', '6:37',
   r"a number within ±1e\+12, got '2e12'; choose a larger unit"),
  ('[-5, 5]', '[-5, "5"]', '6:37',
   "a number, got the text '5'; write it without quotes"),
  ('[-5, 5]', '[-5, "x"]', '6:37', "must be a finite number, got 'x'"),
  ('[-5, 5]', '[-5, true]', '6:37', "must be a finite number, got 'true'"),
  ('[-5, 5]', '[-5, 1_0]', '6:37', "must be a finite number, got '1_0'"),
  ('[-5, 5]', '[-5, ]', '6:32', r'domain must be \[low, high\]'),
  (_TARGET, "  Y: {equation: Z, domain: [0, 1]}\n", '5:28',
   'variable Y is the target, which cannot be intervened on'),
  ('latent: true', 'latent: true, domain: [0, 1]', '8:69',
   'variable U is latent, so that it cannot be intervened on'),
  ('latent: true', 'latent: yes', '8:55',
   "variable U: latent must be true or false, got 'yes'"),
  ('cost: 10', 'cost: 0', '7:54', 'variable Z: cost must be positive, got 0'),
  ('cost: 10', 'cost: -1', '7:54', 'variable Z: cost must be positive'),
  ('cost: 10', 'cost: no', '7:54', "must be a finite number, got 'no'"),
  (_TARGET, '  Y: {equation: Z, cost: 1}\n', '5:26',
   'variable Y has a cost but no domain'),
  (_X + _Z, _X.replace('domain: [-5, 5], cost: 1', '')
   + _Z.replace('domain: [-5, 20], cost: 10', ''), '5:3',
   'no variable has a domain'),
  ("'cos(Z) + e'", 'e', '2:9',
   'no variable with a domain is a cause of the target Y'),
  # Noise.
  ('{uniform: [-1, 1]}', '{unifrom: [-1, 1]}', '8:27',
   r"variable U: noise 'unifrom' is unknown; did you mean uniform\?"),
  ('{uniform: [-1, 1]}', '{uniform: [1, -1]}', '8:27', 'needs low < high'),
  ('{uniform: [-1, 1]}', '{normal: [0]}', '8:27', 'takes 2 numbers'),
  ('{uniform: [-1, 1]}', '{normal: [0, 0]}', '8:27', 'must be positive'),
  ('{uniform: [-1, 1]}', '{normal: 1}', '8:36', 'noise must be a list'),
  ('{uniform: [-1, 1]}', '{normal: [0, x]}', '8:40', "number, got 'x'"),
  ('{uniform: [-1, 1]}', '{}', '8:27', 'noise must be one distribution'),
  ('{uniform: [-1, 1]}', '{normal: [0, 1], none: []}', '8:27', 'must be one'),
  ('{uniform: [-1, 1]}', 'normal', '8:27', 'normal noise takes 2 numbers'),
  ('{uniform: [-1, 1]}', '[1]', '8:27', 'variable U: noise must be a string'),
  ('e, noise', '1, noise', '8:27',
   'variable U: noise is given, but the equation does not mention e'),
  # Interventions.
  ('max_size: 2', 'max_size: 3', '9:27',
   r'max_size must be a whole number, 1 to 2 \(the number of .*\), got 3'),
  ('max_size: 2', 'max_size: 0', '9:27', 'a whole number, 1 to 2'),
  ('max_size: 2', 'max_size: 1.5', '9:27', 'a whole number, 1 to 2'),
  ('max_size: 2', 'max_sizes: 2', '9:17', r'did you mean max_size\?'),
  ('{max_size: 2}', '{}', '9:16', 'must have exactly one of max_size and sets'),
  ('{max_size: 2}', '2', '9:16', 'interventions must be a mapping'),
  ('max_size: 2', 'max_size: 2, sets: [[Z]]', '9:16', 'must have exactly one'),
  ('max_size: 2', 'sets: []', '9:23', '0 sets; there must be 1 to 50,000'),
  ('max_size: 2', 'sets: [Z]', '9:24', 'sets must be a list'),
  ('max_size: 2', 'sets: [[]]', '9:24', 'empty set'),
  ('max_size: 2', 'sets: [[Z], [W]]', '9:30', "sets: unknown variable 'W'"),
  ('max_size: 2', 'sets: [[Z], [Y]]', '9:30', 'sets: Y has no domain'),
  ('max_size: 2', 'sets: [[Z, Z]]', '9:28', 'sets: duplicate variable Z'),
  ('max_size: 2', 'sets: [[X, Z], [Z, X]]', '9:32',
   r'sets: duplicate set \[Z, X\]'),
  # What is known of the edges.
  ('budget: 100', 'edges: {required: [X -> Y]}', '10:8',
   'edges: X -> Y contradicts the graph'),
  ('budget: 100', 'edges: {forbidden: [X -> Z]}', '10:8',
   'edges: X -> Z contradicts the graph'),
  ('budget: 100', 'edges: {required: [U -> X]}', '10:8',
   "'U' in the edge 'U -> X' is no observed variable"),
  ('budget: 100', 'edges: {known: [X -> Z]}', '10:8',
   "edges cannot be 'known'; there are required, forbidden"),
  ('budget: 100', 'edges: [X -> Z]', '10:8', 'edges must be a mapping'),
  ('budget: 100', 'edges: {required: X}', '10:19',
   'edges: required must be a list'),
  # The budget and the optimum.
  ('budget: 100', 'budget: 0', '10:9', 'budget must be positive'),
  ('budget: 100', 'budget: 0.5', '10:9',
   'budget 0.5 is too small for any intervention; the cheapest costs 1'),
  ('budget: 100', 'budget: .inf', '10:9', 'budget must be a finite number'),
  ('{Z: -3.2}', '{W: -3.2}', '11:11', "optimum: unknown variable 'W'"),
  ('{Z: -3.2}', '{Y: -3.2}', '11:11', 'optimum: Y has no domain'),
  ('{Z: -3.2}', '{Z: -5.1}', '11:14',
   r'optimum: Z = -5.1 is outside its domain \[-5, 20\]'),
  ('{Z: -3.2}', '{}', '11:10', r'optimum: \[\] is not one of the allowed sets'),
  (_SETS + 'budget: 100\noptimum: {Z: -3.2}',
   'interventions: {sets: [[Z]]}\noptimum: {X: 1, Z: 1}', '10:10',
   r'optimum: \[X, Z\] is not one of the allowed sets'),
  # Control characters, which terminals may act on.
  ('name: toy', r'name: "t\e[2J"', '1:7',
   r"name must not contain control characters, got 't\\x1b\[2J'"),
  ('  X: ', r'  "\a": ', '6:3', r"must not contain .*, got '\\x07'"),
  ('name: toy', 'name: toy\n"\\x9b": 1', '2:1', r"of the file must .*\\x9b"),
  # Features of YAML that are not supported.
  ('name: toy', 'name: &a toy', '1:7', 'anchors'),
  ('target: Y', 'target: *a', '2:9', 'anchors'),
  ('name: toy', 'name: !!str toy', '1:7', 'tags'),
  ('name: toy', "name: !!python/object/apply:os.system ['true']", '1:7',
   'tags'),
  ('name: toy', 'name: ! toy', '1:7', 'tags'),
  ('name: toy', '[' * 9 + ']' * 9, '1:9', 'nested more than 8 levels deep'),
  (_TOY, '[' * 100_000, '1:9', 'nested more than 8 levels deep'),
  (_TOY, 'a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]', '1:4', 'anchors'),
  # Invalid YAML, or no mapping.
  (_TOY, '', '1:1', 'the file is empty; it must describe a system'),
  (_TOY, '# nothing\n', '1:1', 'the file is empty'),
  (_TOY, '- a\n- b\n', '1:1', r'the file must be a mapping \(key: value\)'),
  (_TOY, 'toy', '1:1', 'the file must be a mapping'),
  (_TOY, '{}', '1:1', 'the file: name is missing'),
  (_TOY, _TOY + '---\n' + _TOY, '12:1', 'invalid YAML: found another document'),
  ('name: toy', 'name: {toy', '2:7', 'invalid YAML: '),
  ('name: toy', 'name: "toy', '12:1', 'invalid YAML: found unexpected end of'),
  ('name: toy', 'name: to\0y', '1:9', 'invalid character'),
  ('goal: minimize', 'goal: \ud800', '3:7', 'invalid character'),
  ('name: toy', 'name: "\\UFFFFFFFF"', '1:1', 'a number is too large'),
  ('name: toy', '\tname: toy', '1:1', 'invalid YAML: '),
)  # fmt: skip


def _error(text, file='toy.yaml'):
  with pytest.raises(errors.UsageError) as caught:
    yaml_spec.parse(text, file)
  return str(caught.value)


def _many(number):
  """Returns a system of settable roots and a target."""
  roots = ''.join(
    f'  X{i}: {{equation: e, domain: [0, 1]}}\n' for i in range(number)
  )
  return f'name: many\ntarget: Y\ngoal: maximize\nvariables:\n{roots}' + (
    '  Y: {equation: X0 + e}\n'
  )


class ParseTest(parameterized.TestCase):
  def test_toy(self):
    system = yaml_spec.parse(_TOY + 'source: one\n  line\n')
    self.assertEqual(system.name, 'toy')
    self.assertEqual(system.source, 'one line')
    self.assertEqual(system.variables, ('Y', 'X', 'Z', 'U'))
    scm, problem = system.scm, system.scm.problem
    np.testing.assert_array_equal(problem.exists, [True, True, True, False])
    np.testing.assert_array_equal(scm.present, True)
    np.testing.assert_array_equal(problem.target, [True, False, False, False])
    np.testing.assert_array_equal(
      problem.sets,
      [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]],
    )
    np.testing.assert_array_equal(problem.low, [0, -5, -5, 0])
    np.testing.assert_array_equal(problem.high, [0, 5, 20, 0])
    np.testing.assert_array_equal(problem.cost, [1, 1, 10, 1])
    self.assertEqual((problem.goal, problem.budget), (-1, 100))
    np.testing.assert_array_equal(
      scm.parents, [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(scm.order, [3, 1, 2, 0])
    np.testing.assert_array_equal(scm.location, 0)
    np.testing.assert_array_equal(scm.scale, 1)
    self.assertEqual(
      scm.mechanism.noises,
      (*[formulas.Noise()] * 3, formulas.Noise('uniform', (-1.0, 1.0))),
    )
    hint = system.optimum_hint
    assert hint is not None
    np.testing.assert_array_equal(hint.mask, [0, 0, 1, 0])
    np.testing.assert_allclose(hint.values, [0, 0, -3.2, 0])

  def test_known_edges(self):
    text = _TOY + 'edges: {required: [X -> Z], forbidden: [Y->X, "Z -> X"]}\n'
    edges = yaml_spec.parse(text).scm.problem.edges
    # Rows are effects: of Y, X, Z and U.
    np.testing.assert_array_equal(
      edges, [[0, 0, 0, 0], [-1, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    )

  def test_optional_keys(self):
    system = yaml_spec.parse(
      _many(3).replace('Y: {equation: X0 + e}', 'Y: {equation: X0}')
    )
    self.assertEqual(system.source, '')
    self.assertIsNone(system.optimum_hint)
    np.testing.assert_array_equal(system.scm.problem.sets, np.eye(3, 4))
    np.testing.assert_array_equal(system.scm.problem.cost, 1)
    self.assertEqual(system.scm.problem.budget, np.inf)
    self.assertIsNone(system.scm.problem.edges)
    # A variable without e in its equation has no noise; it may say so.
    self.assertEqual(system.scm.mechanism.noises[3].kind, 'none')
    explicit = _many(3).replace(
      'Y: {equation: X0 + e}', 'Y: {equation: X0, noise: none}'
    )
    noise = yaml_spec.parse(explicit).scm.mechanism.noises[3]
    self.assertEqual(noise.kind, 'none')

  def test_names_are_strings_as_written(self):
    text = _TOY.replace('U', 'NO').replace('X', 'N').replace('Z', 'on')
    system = yaml_spec.parse(text)
    self.assertEqual(system.variables, ('Y', 'N', 'on', 'NO'))

  @parameterized.parameters('1e3', '1.0e+3', '1000', '+1000.', '"q"', '1E3')
  def test_numbers(self, number):
    text = _TOY.replace('budget: 100', f'budget: {number}')
    if number == '"q"':
      self.assertIn('budget must be a finite number', _error(text))
    else:
      self.assertEqual(yaml_spec.parse(text).scm.problem.budget, 1000)

  @parameterized.parameters(
    ('true', True),
    ('True', True),
    ('TRUE', True),
    ('false', False),
    ('False', False),
    ('FALSE', False),
  )
  def test_booleans(self, word, latent):
    system = yaml_spec.parse(_TOY.replace('latent: true', f'latent: {word}'))
    self.assertEqual(bool(system.scm.problem.exists[3]), not latent)

  def test_large_domains(self):
    problem = yaml_spec.parse(_TOY.replace('[-5, 5]', '[0, 5e9]')).scm.problem
    self.assertEqual((problem.low[1], problem.high[1]), (0, 5e9))

  def test_is_in_the_precision_of_jax(self):
    self.assertEqual(yaml_spec.parse(_TOY).scm.problem.low.dtype, np.float32)
    with jax.enable_x64(True):
      scm = yaml_spec.parse(_TOY).scm
    floats = [
      leaf.dtype
      for leaf in jax.tree.leaves(scm)
      if np.issubdtype(leaf.dtype, np.floating)
    ]
    self.assertEqual(set(floats), {np.dtype(np.float64)})

  def test_sets_that_are_listed(self):
    text = _TOY.replace('max_size: 2', 'sets: [[Z, X], [Z]]')
    np.testing.assert_array_equal(
      yaml_spec.parse(text).scm.problem.sets, [[0, 1, 1, 0], [0, 0, 1, 0]]
    )

  def test_sets_by_their_size(self):
    text = _many(6) + 'interventions: {max_size: 3}\n'
    sets = np.asarray(yaml_spec.parse(text).scm.problem.sets)
    # 6 + 15 + 20.
    self.assertEqual(sets.shape, (41, 7))
    self.assertLen(np.unique(sets, axis=0), 41)
    self.assertEqual((sets.sum(1).min(), sets.sum(1).max()), (1, 3))
    self.assertFalse(sets[:, 6].any())

  def test_too_many_sets(self):
    text = _many(40) + 'interventions: {max_size: 5}\n'
    self.assertRegex(
      _error(text), r'^toy.yaml:46:16: .*760,098 sets of up to 5 out of 40'
    )

  def test_too_many_variables(self):
    yaml_spec.parse(_many(199))
    self.assertRegex(
      _error(_many(200)), '^toy.yaml:5:3: 201 variables; at most 200$'
    )

  @parameterized.parameters(*_INVALID)
  def test_is_an_error(self, old, new, position, reason):
    self.assertIn(old, _TOY)
    message = _error(_TOY.replace(old, new, 1))
    self.assertStartsWith(message, f'toy.yaml:{position}: ')
    self.assertRegex(message, reason)
    self.assertLen(message.splitlines(), 1)

  @hypothesis.settings(max_examples=150, deadline=None)
  @hypothesis.given(
    st.one_of(
      st.text(max_size=80),
      st.tuples(
        st.integers(0, len(_TOY)), st.integers(0, 30), st.text(max_size=8)
      ).map(lambda cut: _TOY[: cut[0]] + cut[2] + _TOY[cut[0] + cut[1] :]),
      st.tuples(
        st.integers(0, len(_TOY)),
        st.text('{}[]:,-#&*!|>\'"%@`? \n\tyne0\\', max_size=6),
      ).map(lambda cut: _TOY[: cut[0]] + cut[1] + _TOY[cut[0] :]),
    )
  )
  def test_any_text_is_a_system_or_an_error(self, text):
    try:
      self.assertIsInstance(yaml_spec.parse(text, 'file'), systems.System)
    except errors.UsageError as error:
      self.assertRegex(str(error), r'^file:\d+:\d+: ')
      self.assertLen(str(error).splitlines(), 1)
      self.assertNotRegex(str(error), r'[\x00-\x1f\x7f-\x9f]')

  _VALUE = st.recursive(
    st.sampled_from(
      ['X', 'Y', 'e', 'X + e', 'exp(', '', 1, -1.5, 1e400, True, None,
       'minimize', 'none', 'toy']
    ),
    lambda inner: st.one_of(
      st.lists(inner, max_size=3),
      st.dictionaries(
        st.sampled_from(
          ['X', 'Y', 'equation', 'domain', 'cost', 'noise', 'latent',
           'normal', 'max_size', 'sets']
        ),
        inner,
        max_size=4,
      ),
    ),
    max_leaves=12,
  )  # fmt: skip

  @hypothesis.settings(max_examples=150, deadline=None)
  @hypothesis.given(
    st.fixed_dictionaries(
      {'name': st.just('toy'), 'target': st.just('Y')},
      optional=dict.fromkeys(
        ['goal', 'variables', 'interventions', 'budget', 'edges', 'optimum'],
        _VALUE,
      ),
    )
  )
  def test_any_tree_is_a_system_or_an_error(self, tree):
    try:
      yaml_spec.parse(yaml.safe_dump(tree), 'file')
    except errors.UsageError as error:
      self.assertRegex(str(error), r'^file:\d+:\d+: ')


class ReadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder) / 'toy.yaml'

  def _error(self, path=None):
    with self.assertRaises(errors.UsageError) as caught:
      yaml_spec.read(path or self.path)
    return str(caught.exception)

  def test_reads(self):
    for encoding in 'utf-8', 'utf-8-sig':
      self.path.write_text(_TOY, encoding)
      self.assertEqual(
        yaml_spec.read(self.path).variables, ('Y', 'X', 'Z', 'U')
      )

  def test_names_the_file(self):
    self.path.write_text(_TOY.replace('minimize', 'up'))
    self.assertStartsWith(self._error(), f'{self.path}:3:7: goal must be')

  def test_columns_after_a_byte_order_mark(self):
    self.path.write_text(_TOY.replace('toy', '&a'), 'utf-8-sig')
    self.assertStartsWith(self._error(), f'{self.path}:1:7: anchors')

  def test_not_utf_8(self):
    self.path.write_bytes(b'name: toy\nsource: \xff\xfe\n')
    self.assertStartsWith(
      self._error(), f'{self.path}, line 2: not valid UTF-8'
    )

  def test_too_large(self):
    self.path.write_text('#' * 300_000)
    self.assertEqual(
      self._error(),
      f'{self.path} is too large: at most 262,144 bytes are allowed',
    )
    self.assertIn('larger than 256 KiB', _error('#' * 300_000))

  def test_missing_file(self):
    path = self.path.with_name('nowhere.yaml')
    self.assertStartsWith(self._error(path), f'{path} cannot be read: No such')
    self.assertRegex(self._error(self.path.parent), 'it is a directory')
    self.assertRegex(self._error('a\0b'), "'a.x00b' is not a valid path$")

  @hypothesis.settings(max_examples=100, deadline=None)
  @hypothesis.given(
    st.one_of(
      st.binary(max_size=60),
      st.tuples(st.integers(0, len(_TOY)), st.binary(max_size=4)).map(
        lambda cut: _TOY.encode()[: cut[0]] + cut[1] + _TOY.encode()[cut[0] :]
      ),
    )
  )
  def test_any_bytes_are_a_system_or_an_error(self, data):
    self.path.write_bytes(data)
    try:
      yaml_spec.read(self.path)
    except errors.UsageError as error:
      self.assertStartsWith(str(error), f'{self.path}')


# A chain of four variables, of which U is latent.
_CELLS = """\
name: cells
target: Y
goal: maximize
graph: cells.dot
data: cells.csv
fit: linear
"""


class FittedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    rng = np.random.default_rng(0)
    u, a, b, y = rng.normal(size=(4, 4000))
    a += u
    b += 2 * a + 10
    y += -3 * b
    self.rows = np.stack([b, y, a], 1)
    (self.folder / 'cells.dot').write_text(
      'digraph { U [latent]; U -> A -> B -> Y }'
    )
    np.savetxt(
      self.folder / 'cells.csv',
      self.rows,
      delimiter=',',
      header='B,Y,A',
      comments='',
    )

  def _read(self, *more):
    path = self.folder / 'cells.yaml'
    path.write_text(_CELLS + ''.join(f'{line}\n' for line in more))
    return yaml_spec.read(path)

  def _error(self, *more):
    with self.assertRaises(errors.UsageError) as caught:
      self._read(*more)
    return str(caught.exception).removeprefix(f'{self.folder}/')

  def test_all_but_the_target_may_be_set(self):
    system = self._read()
    self.assertEqual(system.variables, ('U', 'A', 'B', 'Y'))
    scm, problem = system.scm, system.scm.problem
    np.testing.assert_array_equal(problem.exists, [0, 1, 1, 1])
    np.testing.assert_array_equal(problem.sets, [[0, 1, 0, 0], [0, 0, 1, 0]])
    a, b = self.rows[:, 2], self.rows[:, 0]
    np.testing.assert_allclose(problem.low, [0, a.min(), b.min(), 0], rtol=1e-6)
    np.testing.assert_allclose(
      problem.high, [0, a.max(), b.max(), 0], rtol=1e-6
    )
    np.testing.assert_array_equal(scm.parents, np.eye(4, k=-1))
    # Y = -3 B, and B = 2 A + 10: at do(A = 1) on average -36.
    bank = simulate.noise_bank(jax.random.key(0), scm, 64)
    do = types.Intervention(np.eye(4)[1] > 0, np.eye(4, dtype=np.float32)[1])
    outcome = simulate.in_target_units(
      scm, jax.jit(simulate.expected_outcome)(scm, bank, do)
    )
    self.assertAlmostEqual(float(outcome), -36, delta=0.5)

  def test_listed_variables_may_be_set(self):
    system = self._read(
      'variables: {B: {}, A: {domain: [0, 2.5], cost: 3}}',
      'interventions: {max_size: 2}',
      'budget: 8',
      'source: a laboratory',
    )
    problem = system.scm.problem
    np.testing.assert_array_equal(
      problem.sets, [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]]
    )
    np.testing.assert_array_equal(problem.cost, [1, 3, 1, 1])
    self.assertEqual((problem.low[1], problem.high[1]), (0, 2.5))
    self.assertEqual((problem.budget, system.source), (8, 'a laboratory'))

  def test_names_are_compared_in_their_normal_form(self):
    with absltest.mock.patch.dict(
      globals(), _CELLS=_CELLS.replace('Y', 'o\u0308')
    ):
      for name in ('cells.csv', 'cells.dot'):
        path = self.folder / name
        path.write_text(path.read_text().replace('Y', '\u00f6'))
      dot = self.folder / 'cells.dot'
      dot.write_text(dot.read_text().replace('A', 'a\u0308'))
      data = self.folder / 'cells.csv'
      data.write_text(data.read_text().replace('A', '\u00e4'))
      system = self._read(
        'variables: {a\u0308: {domain: [0, 1]}}', 'optimum: {"a\u0308": 1}'
      )
    self.assertEqual(system.variables, ('U', '\u00e4', 'B', '\u00f6'))
    np.testing.assert_array_equal(system.scm.problem.target, [0, 0, 0, 1])
    np.testing.assert_array_equal(system.scm.problem.settable, [0, 1, 0, 0])

  def test_domains_and_columns_that_leave_the_data_are_warnings(self):
    data = self.folder / 'cells.csv'
    data.write_text(data.read_text().replace('B,Y,A', 'B,Y,day'))
    (self.folder / 'cells.dot').write_text('digraph { B -> Y }')
    b = self.rows[:, 0]
    quality = self._read(
      f'variables: {{B: {{domain: [0, {b.max() + 99}]}}}}'
    ).fit
    assert quality is not None
    np.testing.assert_allclose(quality.beyond, [99 / b.std(), 0])
    self.assertEqual(
      quality.warnings[0],
      f"{data}: not in the graph and therefore left out: 'day'",
    )
    self.assertStartsWith(quality.warnings[1], 'the domain of B, 0 to ')
    self.assertLen(quality.warnings, 2)
    self.assertIsNone(yaml_spec.parse(_TOY).fit)

  def test_data_change_the_digest(self):
    digest = systems.digest(self._read())
    self.assertEqual(digest, systems.digest(self._read()))
    data = self.folder / 'cells.csv'
    data.write_text(data.read_text() + '1,2,3\n')
    self.assertNotEqual(digest, systems.digest(self._read()))

  @parameterized.parameters(
    ('variables: {Z: {}}', "cells.yaml:7:13: variables: unknown variable 'Z'"),
    ('variables: {U: {}}', 'cells.yaml:7:13: variable U is latent'),
    ('variables: {Y: {}}', 'cells.yaml:7:13: variable Y is the target'),
    ('variables: {}', 'cells.yaml:7:12: variables is empty'),
    (
      'variables: {A: {equation: e}}',
      "cells.yaml:7:17: variable A: unknown key 'equation'",
    ),
    (
      'variables: {A: {domain: [2, 1]}}',
      'cells.yaml:7:25: variable A: domain must be',
    ),
    ('optimum: {A: 1e8}', 'cells.yaml:7:14: optimum: A = 100000000 is outside'),
  )
  def test_errors(self, line, reason):
    self.assertStartsWith(self._error(line), reason)

  @parameterized.parameters(
    (
      'data: cells.csv\n',
      '',
      'cells.yaml:1:1: graph, data, fit must be given together',
    ),
    ('linear', 'cubic', 'cells.yaml:6:6: fit must be linear or features'),
    (
      'cells.csv',
      'no.csv',
      'cells.yaml:5:7: {0}/no.csv cannot be read: No such file',
    ),
    (
      'cells.dot',
      'a.yaml',
      'cells.yaml:4:8: {0}/a.yaml is not in a supported graph format',
    ),
    (
      'cells.dot',
      '"a\\0.dot"',
      "cells.yaml:4:8: graph must not contain control characters, got 'a\\x00",
    ),
    (
      'fit: linear',
      'fit: features',
      'cells.yaml:6:6: {0}/cells.dot and {0}/cells.csv: U is l',
    ),
  )
  def test_errors_in_other_files(self, old, new, reason):
    with absltest.mock.patch.dict(globals(), _CELLS=_CELLS.replace(old, new)):
      error = self._error()
    self.assertStartsWith(error, reason.format(self.folder))


class SampleTest(absltest.TestCase):
  def test_a_latent_variable_is_not_observed(self):
    system = yaml_spec.parse(_TOY)
    nothing = interventions.no_intervention(4)
    rows = jax.jit(simulate.sample, static_argnums=3)(
      jax.random.key(0), system.scm, nothing, 1000
    )
    np.testing.assert_array_equal(rows[:, 3], 0.0)
    # X is U and normal noise: its variance is 1 / 3 + 1.
    self.assertAlmostEqual(
      float(rows[:, 1].var()),
      4 / 3,
      delta=chance.SIGMAS * np.sqrt(2 / 1000) * 4 / 3,
    )


class BudgetTest(parameterized.TestCase):
  @parameterized.parameters(('0.3', True), ('0.29999', False))
  def test_of_the_cheapest_intervention(self, budget, is_enough):
    # 0.1 + 0.2 is above 0.3 in float64.
    text = (
      'name: x\ntarget: Y\ngoal: minimize\nvariables:\n'
      '  X: {equation: e, domain: [-5, 5], cost: 0.1}\n'
      '  Z: {equation: e, domain: [-5, 5], cost: 0.2}\n'
      '  Y: {equation: X + Z + e}\n'
      f'interventions: {{sets: [[X, Z]]}}\nbudget: {budget}\n'
    )
    if is_enough:
      problem = yaml_spec.parse(text).scm.problem
      self.assertTrue(
        intervention_sets.affordable(problem, jnp.zeros(())).any()
      )
    else:
      with self.assertRaisesRegex(errors.UsageError, 'is too small for any'):
        yaml_spec.parse(text)


class CheckFiniteTest(parameterized.TestCase):
  def test_toy_is_finite(self):
    yaml_spec.check_finite(yaml_spec.parse(_TOY))

  @parameterized.parameters(
    # Under no intervention, X is at times negative.
    ('exp(-X)', 'log(X)', r"^toy: Z: 'log\(X\) \+ e' is nan under no "
     r'intervention where X = -[0-9.]+, in 0.[0-9]+ of the draws$'),
    ('exp(-X)', 'sqrt(X)', 'no intervention'),
    # Only an end of the domain reaches it.
    ('exp(-X)', '1 / (X + 5)', r"Z: '1 / \(X \+ 5\) \+ e' is -?inf under "
     r'do\(X = -5\) where X = -5$'),
    ('exp(-X)', 'log(5.0001 - X) + X / X', None),
    # Only between the ends.
    ('exp(-X)', '0 * sqrt(abs(X) - 4.999)', 'no intervention'),
    # float32 ends at 3e38.
    ('exp(-X)', 'exp(X**8)', 'is inf under'),
  )  # fmt: skip
  def test_names_variable_and_equation(self, old, new, reason):
    text = _TOY.replace(old, new, 1)
    if reason is None:
      text = text.replace('U + e', '1 + 0 * U')
      yaml_spec.check_finite(yaml_spec.parse(text))
      return
    with self.assertRaisesRegex(errors.UsageError, reason) as caught:
      yaml_spec.check_finite(yaml_spec.parse(text))
    self.assertLen(str(caught.exception).splitlines(), 1)

  def test_rarely(self):
    # A normal number is below -3.2 with probability 0.00069, and W is no cause
    # of the target.
    text = _TOY.replace('  X: ', '  W: {equation: log(3.2 + e)}\n  X: ', 1)
    with self.assertRaisesRegex(
      errors.UsageError,
      r"^toy: W: 'log\(3.2 \+ e\)' is nan under no intervention, in "
      r'0\.000[67][0-9]? of the draws$',
    ):
      yaml_spec.check_finite(yaml_spec.parse(text))

  def test_between_the_ends(self):
    text = _TOY.replace('exp(-X)', 'sqrt(abs(X) - 4.9)').replace('U + e', '5')
    with self.assertRaisesRegex(errors.UsageError, r'is nan under do\(X = '):
      yaml_spec.check_finite(yaml_spec.parse(text))

  def test_many_sets(self):
    text = _many(30) + 'interventions: {max_size: 2}\n'
    yaml_spec.check_finite(yaml_spec.parse(text))


if __name__ == '__main__':
  absltest.main()
