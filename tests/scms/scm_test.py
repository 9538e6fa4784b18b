"""Tests of SCMs with named variables."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import scm as scm_lib
from tests.support import chance

_TEXT = """
name: mine
target: y
goal: minimize
variables:
  x: {equation: "e", domain: [-2, 2]}
  u: {equation: "e", latent: true}
  z: {equation: "2 * x + u"}
  y: {equation: "z + 0.1 * e"}
"""


class ScmTest(parameterized.TestCase):
  def test_describes_the_system(self):
    scm = scm_lib.SCM.from_text(_TEXT)
    self.assertEqual(
      (scm.name, scm.target, scm.goal), ('mine', 'y', 'minimize')
    )
    self.assertEqual(scm.variables, ('x', 'z', 'y'))
    self.assertEqual(scm.domains, {'x': (-2.0, 2.0)})

  def test_a_file_is_the_same_as_its_text(self):
    with tempfile.TemporaryDirectory() as root:
      path = pathlib.Path(root) / 'mine.yaml'
      path.write_text(_TEXT)
      from_file = scm_lib.SCM.from_yaml(path).sample(4)
    from_text = scm_lib.SCM.from_text(_TEXT).sample(4)
    np.testing.assert_array_equal(from_file, from_text)

  def test_logs_what_may_be_wrong_with_data(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'graph.txt').write_text('x -> y')
    rows = np.random.default_rng(0).normal(size=(50, 3))
    text = '\n'.join(','.join(map(str, row)) for row in rows)
    (folder / 'data.csv').write_text(f'x,y,id\n{text}\n')
    (folder / 'fitted.yaml').write_text(
      'name: fitted\ntarget: y\ngoal: maximize\n'
      'graph: graph.txt\ndata: data.csv\nfit: linear\n'
    )
    with self.assertLogs('absl', 'WARNING') as logged:
      scm_lib.SCM.from_yaml(folder / 'fitted.yaml')
    (record,) = logged.records
    self.assertEqual(
      record.getMessage(),
      f'fitted: {folder}/data.csv: not in the graph and therefore left out: '
      "'id'",
    )

  def test_samples(self):
    rows = scm_lib.SCM.from_text(_TEXT).sample(2000, {'x': 1.5})
    np.testing.assert_array_equal(rows['x'], 1.5)
    # z = 3 + u, y = z + 0.1 e.
    error = 1 / np.sqrt(2000)
    self.assertAlmostEqual(rows['z'].mean(), 3.0, delta=chance.SIGMAS * error)
    residual = rows['y'] - rows['z']
    self.assertAlmostEqual(residual.std(), 0.1, delta=0.01)

  def test_expected_outcome(self):
    scm = scm_lib.SCM.from_text(_TEXT)
    # By hand: y has the variance 1.01 under do(x), and 5.01 otherwise. The mean
    # is that of 4,096 draws.
    for do, mean, variance in (({'x': 2.0}, 4.0, 1.01), ({}, 0.0, 5.01)):
      error = np.sqrt(variance / 4096)
      self.assertAlmostEqual(
        scm.expected_outcome(do), mean, delta=chance.SIGMAS * error
      )

  def test_named(self):
    self.assertEqual(scm_lib.SCM.named('toy').goal, 'minimize')
    with self.assertRaisesRegex(errors.UsageError, "no benchmark 'tou'; did"):
      scm_lib.SCM.named('tou')

  @parameterized.parameters(
    ({'w': 1}, "there is no variable 'w'"),
    ({'x': np.nan}, "'x' is set to nan; set it to a finite number"),
    ({'x': 'a'}, "'x' is set to 'a'"),
    ({'x': 3}, r"'x' is set to 3, outside its domain \[-2, 2\]"),
    ({'y': 0}, "'y' may not be set; 'x' may"),
    (5, 'the intervention is 5; it must be a dict'),
  )
  def test_bad_interventions(self, do, sentence):
    scm = scm_lib.SCM.from_text(_TEXT)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      scm.sample(1, do)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      scm.expected_outcome(do)


if __name__ == '__main__':
  absltest.main()
