from unittest import mock

from absl.testing import absltest

from acme_cbo.infra import errors
from acme_cbo.infra import extras


class ExtrasTest(absltest.TestCase):
  def test_an_installed_module(self):
    module = extras.import_module('submitit.slurm.slurm', 'slurm', '--flag')
    self.assertEqual(module.__name__, 'submitit.slurm.slurm')

  def test_a_missing_one(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      r"^--flag needs the package no_such; .* pip install 'acme_cbo\[slurm\]'$",
    ):
      extras.import_module('no_such.part', 'slurm', '--flag')

  def test_a_broken_one_keeps_its_error(self):
    error = ModuleNotFoundError('no module', name='something_else')
    with (
      mock.patch('importlib.import_module', side_effect=error),
      self.assertRaises(ModuleNotFoundError),
    ):
      extras.import_module('submitit', 'slurm', '--flag')


if __name__ == '__main__':
  absltest.main()
