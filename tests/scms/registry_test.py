import pathlib
import tempfile

from absl.testing import absltest
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import benchmarks
from acme_cbo.scms import config
from acme_cbo.scms import registry


class ResolveTest(absltest.TestCase):
  def test_unknown_name(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      "no SCM 'benchmark'; did you mean benchmarks.; use one of benchmarks, ",
    ):
      registry.resolve(['benchmark'], {})

  def test_missing_file(self):
    with self.assertRaisesRegex(
      errors.UsageError, '/no/such.yaml cannot be read: No such file'
    ):
      registry.resolve(['/no/such.yaml'], {})

  def test_part_of_a_path_with_a_comma(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      "no SCM 'my/a'; a path with a comma needs double quotes in a list of",
    ):
      registry.resolve(['my/a', 'b.yaml'], {})

  def test_long_name(self):
    with self.assertRaisesRegex(errors.UsageError, "no SCM 'aaa"):
      registry.resolve(['a' * 5000], {})

  def test_suffix_in_capitals(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'x.YAML'
    path.write_text(benchmarks.TEXTS['toy'])
    (system,) = registry.resolve([str(path)], {})
    self.assertEqual(system.name, 'toy')

  def test_benchmark_family_and_file(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'x.yaml'
    text = benchmarks.TEXTS['toy'].replace('name: toy', 'name: mine')
    path.write_text(text)
    toy, chain, mine = registry.resolve(['toy', 'chain_3', str(path)], {})
    self.assertEqual(
      [x.name for x in (toy, chain, mine)], ['toy', 'chain_3', 'mine']
    )
    self.assertEqual(
      [x.fresh for x in (toy, chain, mine)], [False, True, False]
    )
    self.assertEqual(toy.make(0).variables, ('X', 'Z', 'Y'))
    self.assertIs(toy.make(0), toy.make(1))
    weights = [chain.make(i).scm.mechanism.linear for i in (0, 1, 0)]
    np.testing.assert_array_equal(weights[0], weights[2])
    self.assertFalse(np.array_equal(weights[0], weights[1]))
    self.assertEqual(mine.make(0).variables, ('X', 'Z', 'Y'))
    self.assertEqual(chain.digest, '')
    self.assertLen(toy.digest, 64)
    path.write_text(text.replace('exp(-X)', 'exp(-2 * X)'))
    (changed,) = registry.resolve([str(path)], {})
    self.assertLen(mine.digest, 64)
    self.assertNotEqual(mine.digest, changed.digest)

  def test_held_out_is_outside_the_training_prior(self):
    metadata = {
      'scms': {
        'max_variables': 5,
        'graph_weights': vars(config.GraphWeights(star=0.0)),
        'family_weights': vars(config.FamilyWeights.only('linear')),
      },
      'horizon': {'num_observations': 20, 'num_interventions': 10},
    }
    environments = registry.resolve(
      ['toy', 'chain_5', 'chain_8', 'star_5', 'er_tanh_10', 'sparse_5'],
      metadata,
    )
    self.assertEqual(
      [environment.held_out for environment in environments],
      [True, False, True, True, True, False],
    )

  def test_group_is_all_of_its_members(self):
    names = [x.name for x in registry.resolve(['benchmarks'], {})]
    self.assertEqual(names, list(benchmarks.TEXTS))

  def test_file_that_describes_no_system(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'x.yaml'
    path.write_text('nonsense')
    with self.assertRaisesRegex(errors.UsageError, 'x.yaml'):
      registry.resolve([str(path)], {})

  def test_file_with_a_variable_that_is_not_finite(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'x.yaml'
    path.write_text(
      'name: x\ntarget: Y\ngoal: minimize\nvariables:\n'
      '  X: {equation: "e", domain: [1, 5]}\n'
      '  Y: {equation: "log(X) + e"}\n'
    )
    with self.assertRaisesRegex(
      errors.UsageError, rf"^{path}: x: Y: 'log\(X\) \+ e' is nan under no "
    ):
      registry.resolve([str(path)], {})

  def test_directory(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'x.yml'
    path.mkdir()
    with self.assertRaisesRegex(errors.UsageError, 'x.yml cannot be read'):
      registry.resolve([str(path)], {})


if __name__ == '__main__':
  absltest.main()
