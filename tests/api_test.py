"""Tests of the names that `import acme_cbo` gives."""

import doctest
import importlib
import subprocess
import sys

from absl.testing import absltest
from absl.testing import parameterized
import pytest

import acme_cbo


class ApiTest(parameterized.TestCase):
  @parameterized.parameters(
    'experiments.config',
    'experiments.presets',
    'policies.policy',
    'scms.scm',
    'training.loggers',
    'training.trainer',
  )
  def test_examples_run(self, name):
    self._run_examples(f'acme_cbo.{name}')

  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_examples_of_commands_run(self):
    self._run_examples('acme_cbo.experiments.api')

  def _run_examples(self, name):
    result = doctest.testmod(importlib.import_module(name))
    self.assertEqual(result.failed, 0)
    self.assertGreater(result.attempted, 1)

  def test_importing_the_package_loads_no_library(self):
    code = (
      'import sys, acme_cbo\n'
      'print(*sorted({"jax", "pandas", "numpy", "absl"} & set(sys.modules)))'
    )
    result = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    self.assertEqual(result.stdout.strip(), '')

  @parameterized.parameters(set(acme_cbo.__all__) - {'__version__'})
  def test_every_name_has_an_example(self, name):
    self.assertIn(name, dir(acme_cbo))
    docstring = getattr(acme_cbo, name).__doc__
    if name != 'UsageError':
      self.assertIn('>>> ', docstring)
    self.assertNotEmpty(docstring)

  def test_unknown_name(self):
    with self.assertRaisesRegex(AttributeError, 'no attribute .trian.'):
      acme_cbo.trian  # noqa: B018


if __name__ == '__main__':
  absltest.main()
