import pathlib
import tempfile

from absl.testing import absltest

from acme_cbo import errors
from acme_cbo.evaluation import environments


class ResolveTest(absltest.TestCase):
  def test_a_name_that_nobody_knows(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      "no SCM 'benchmark'; did you mean benchmarks.; there are benchmarks, ",
    ):
      environments.resolve(['benchmark'])

  def test_a_file_that_is_not_there(self):
    with self.assertRaisesRegex(
      errors.UsageError, '--scm: /no/such.yaml cannot be read: No such file'
    ):
      environments.resolve(['/no/such.yaml'])

  def test_a_directory(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'x.yml'
    path.mkdir()
    with self.assertRaisesRegex(errors.UsageError, 'x.yml cannot be read'):
      environments.resolve([str(path)])


if __name__ == '__main__':
  absltest.main()
