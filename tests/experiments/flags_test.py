import pathlib
import tempfile

from absl import flags
from absl.testing import absltest

from acme_cbo.evaluation import config
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import config_schema


class DefineEvaluationTest(absltest.TestCase):
  def test_path_with_a_comma_is_one_entry(self):
    experiments_flags.define_evaluation(config.EvaluationConfig)
    names = map(config.flag, config_schema.fields(config.EvaluationConfig))
    for name in ('out', *names):
      self.addCleanup(delattr, flags.FLAGS, name)
    folder = self.enterContext(tempfile.TemporaryDirectory(suffix='a,b'))
    path = pathlib.Path(folder) / 'x.yaml'
    path.touch()
    flag = flags.FLAGS['scm']
    for argument, entries in (
      (str(path), [str(path)]),
      ('toy,x.yaml', ['toy', 'x.yaml']),
      (f'toy,"{path}"', ['toy', str(path)]),
      ('x' * 5000, ['x' * 5000]),
    ):
      flag.parse(argument)
      self.assertEqual(flag.value, entries)


if __name__ == '__main__':
  absltest.main()
