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
  @parameterized.parameters('acme_cbo.policies.policy', 'acme_cbo.scms.scm')
  def test_examples_run(self, name):
    self._run_examples(name)

  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_examples_of_commands_run(self):
    self._run_examples('acme_cbo.experiments.api')

  def _run_examples(self, name):
    result = doctest.testmod(importlib.import_module(name))
    self.assertEqual(result.failed, 0)
    self.assertGreater(result.attempted, 3)

  def test_importing_the_package_loads_no_library(self):
    code = (
      'import sys, acme_cbo\n'
      'print(*sorted({"jax", "pandas", "numpy", "absl"} & set(sys.modules)))'
    )
    result = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    self.assertEqual(result.stdout.strip(), '')

  def test_every_name_has_a_docstring(self):
    for name in acme_cbo.__all__:
      with self.subTest(name):
        self.assertIn(name, dir(acme_cbo))
        if name != '__version__':
          self.assertNotEmpty(getattr(acme_cbo, name).__doc__)

  def test_unknown_name(self):
    with self.assertRaisesRegex(AttributeError, 'no attribute .trian.'):
      acme_cbo.trian  # noqa: B018


if __name__ == '__main__':
  absltest.main()
