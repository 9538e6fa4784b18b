from unittest import mock

from absl.testing import absltest

from acme_cbo.infra import errors
from acme_cbo.infra import extras


class ExtrasTest(absltest.TestCase):
  def test_an_installed_module(self):
    module = extras.import_module('submitit.slurm.slurm', '--flag')
    self.assertEqual(module.__name__, 'submitit.slurm.slurm')

  def test_a_missing_one(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      '^--flag needs the package no_such; .* pip install no_such$',
    ):
      extras.import_module('no_such.part', '--flag')

  def test_a_broken_one_keeps_its_error(self):
    error = ModuleNotFoundError('no module', name='something_else')
    with (
      mock.patch('importlib.import_module', side_effect=error),
      self.assertRaises(ModuleNotFoundError),
    ):
      extras.import_module('submitit', '--flag')


if __name__ == '__main__':
  absltest.main()
