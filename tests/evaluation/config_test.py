"""Tests of the configs of evaluations and comparisons."""

import math
import pathlib
import types
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.evaluation import config
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.policies import registry

_OUT = pathlib.Path('o')


def _evaluation(**changes: Any) -> config.MethodEvaluationConfig:
  settings: dict[str, Any] = {
    'methods': ('random',),
    'policies': {},
    'out': _OUT,
  }
  return config.MethodEvaluationConfig(**(settings | changes))


class ValidateTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(repeats=1, samples=1, jobs=1, observations=2, interventions=1),
    dict(seed=2**32 - 1, budget=0.001, confidence=0.999999),
    dict(budget=10, samples=1000, scms=('toy', 'a b.yaml')),
    dict(methods=('random', 'grpo'), policies={'grpo': _OUT}),
  )
  def test_accepts(self, **changes):
    _evaluation(**changes).validate()

  @parameterized.parameters(
    (dict(repeats=0), 'repeats is 0; it must be at least 1 and at most'),
    (dict(repeats=-3), 'repeats is -3; it must be at least 1'),
    (dict(repeats=2.0), 'repeats is 2.0; it must be a number of type int'),
    (dict(observations=1), 'observations is 1; it must be at least 2'),
    (dict(interventions=0), 'interventions is 0; it must be at least 1'),
    (dict(samples=0), 'samples is 0; it must be at least 1'),
    (dict(jobs=0), 'jobs is 0; it must be at least 1'),
    (dict(seed=-1), 'seed is -1; it must be at least 0'),
    (dict(seed=2**32), 'seed is 4294967296; .* at most 4294967295'),
    (dict(budget=0.0), 'budget is 0.0; it must be at least 1e-12'),
    (dict(budget=-1.0), 'budget is -1.0; it must be'),
    (dict(budget=math.nan), 'budget is nan; it must be'),
    (dict(budget=math.inf), 'budget is inf; it must be'),
    (dict(confidence=0.0), 'confidence is 0.0; it must be at least 1e-06'),
    (dict(confidence=1.0), 'confidence is 1.0; .* and at most 0.999999'),
    (dict(confidence=math.nan), 'confidence is nan; it must be'),
    (dict(scms=()), 'scms is empty; name one or more'),
    (dict(scms=('a', '')), "scms has ''; each entry must be the name of an"),
    (dict(scms=(3,)), 'scms has 3; each entry must be the name of an SCM'),
    (dict(scms='toy'), "scms is 'toy'; it must be a tuple of texts"),
    (dict(scms=('a', 'b', 'a')), 'scms names a twice'),
    (dict(methods=()), 'methods is empty'),
    (dict(methods=('slope', 'slope')), 'methods names slope twice'),
    (dict(methods=('grpo',)), 'the method grpo needs a trained policy, and'),
    (
      dict(policies={'grpo': _OUT}),
      'a trained policy is given, o, but grpo is not among the methods',
    ),
  )
  def test_refuses(self, changes, message):
    with self.assertRaisesRegex(errors.UsageError, f'^{message}') as context:
      _evaluation(**changes).validate()
    self.assertNotIn('\n', str(context.exception))

  def test_of_a_comparison(self):
    comparison = config.ComparisonConfig(out=_OUT, paths=())
    comparison.validate()
    wrong: Any = 'yes'
    with self.assertRaisesRegex(errors.UsageError, '^allow_mismatch is .yes.;'):
      config.ComparisonConfig(
        out=_OUT, paths=(), allow_mismatch=wrong
      ).validate()


class DefaultsTest(absltest.TestCase):
  def test_are_valid(self):
    _evaluation(
      methods=config.MethodEvaluationConfig.methods, policies={'grpo': _OUT}
    ).validate()
    registry.check(config.MethodEvaluationConfig.methods)

  def test_the_meaning_of_methods_lists_all(self):
    meaning = config_schema.meanings(config.MethodEvaluationConfig)['methods']
    self.assertEndsWith(meaning, f': {", ".join(registry.NAMES)}')


class FlagsTest(parameterized.TestCase):
  def test_become_a_config(self):
    flags = types.SimpleNamespace(
      **vars(_evaluation(repeats=3, budget=2.5)),
      scm=['toy', 'a.yaml'],
    )
    self.assertEqual(
      config.from_flags(config.MethodEvaluationConfig, flags, policies={}),
      _evaluation(repeats=3, budget=2.5, scms=('toy', 'a.yaml')),
    )

  @parameterized.parameters(None, '')
  def test_out_is_required(self, out):
    flags = types.SimpleNamespace(out=out)
    with self.assertRaisesRegex(errors.UsageError, '--out is not set; name an'):
      config.from_flags(config.ComparisonConfig, flags)


if __name__ == '__main__':
  absltest.main()
