"""Tests of the names that `import acme_cbo` gives."""

import doctest
import importlib
import inspect
import subprocess
import sys
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

import acme_cbo
from acme_cbo.evaluation import config
from acme_cbo.evaluation import run
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.policies import saving


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

  def test_defaults_are_those_of_the_commands(self):
    for function, cls in (
      (acme_cbo.evaluate, config.MethodEvaluationConfig),
      (acme_cbo.compare, config.ComparisonConfig),
    ):
      parameters = inspect.signature(function).parameters
      for name, field in config_schema.fields(cls).items():
        default = parameters[name].default
        if default is not inspect.Parameter.empty:
          self.assertEqual(default, field.default, name)
      for name in parameters:
        self.assertIn(f'\n  {name}: ', function.__doc__ or '')

  def test_a_single_name_is_a_list_of_one(self):
    with mock.patch.object(run, 'run', side_effect=errors.UsageError) as called:
      with self.assertRaises(errors.UsageError):
        acme_cbo.evaluate('toy', 'slope', out='o')
      with self.assertRaises(errors.UsageError):
        acme_cbo.evaluate(iter(['toy', 'psa']), out='o')
    first, second = (call.args[0] for call in called.call_args_list)
    self.assertEqual((first.scms, first.methods), (('toy',), ('slope',)))
    self.assertEmpty(first.policies)
    self.assertEqual(second.scms, ('toy', 'psa'))
    self.assertEqual(second.policies, {'grpo': saving.SHIPPED})

  @parameterized.parameters(
    (dict(scms=[3]), '^scms has 3; each entry must be the name of an SCM'),
    (dict(repeats=0), '^repeats is 0; it must be at least 1'),
    (dict(methods=[]), '^methods is empty'),
  )
  def test_refused_settings_of_an_evaluation(self, changes, message):
    arguments = dict(scms='toy', methods='slope', out='nowhere') | changes
    with self.assertRaisesRegex(acme_cbo.UsageError, message):
      acme_cbo.evaluate(**arguments)

  def test_training_takes_no_dict(self):
    wrong: Any = {'seed': 1}
    with self.assertRaisesRegex(
      acme_cbo.UsageError, 'config is of type dict; it must be a GRPOConfig'
    ):
      acme_cbo.train(wrong)

  def test_unknown_name(self):
    with self.assertRaisesRegex(AttributeError, 'no attribute .trian.'):
      acme_cbo.trian  # noqa: B018


if __name__ == '__main__':
  absltest.main()
