"""Training, evaluation and comparison as functions: the commands for Python.

Defaults and meanings of the settings of an evaluation come from the fields of
its config, here as in the flags of the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import inspect
import os
import pathlib
import textwrap
from typing import Any, Literal, TypeVar

import pandas as pd

from acme_cbo.evaluation import config as evaluation_config
from acme_cbo.evaluation import run as evaluation
from acme_cbo.evaluation.comparison import run as comparison
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import train as train_lib
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.policies import saving
from acme_cbo.scms import registry
from acme_cbo.training import trainer

_Evaluation = evaluation_config.MethodEvaluationConfig
_Comparison = evaluation_config.ComparisonConfig
_FunctionT = TypeVar('_FunctionT', bound=Callable[..., Any])


def train(
  config: config_lib.GRPOConfig | None = None,
  workdir: str | os.PathLike[str] | None = None,
  *,
  resume: bool = False,
  callbacks: Sequence[trainer.Callback] = (),
) -> dict[str, Any]:
  """Trains a policy, and evaluates it beside the heuristics.

  Args:
    config: config of the run; the default is the quick start, some minutes on
      two CPU cores.
    workdir: directory of the run, empty or new, where everything is written;
      the default is runs/<name>-<time>. The directory of an earlier run, where
      that is resumed.
    resume: continue the run in `workdir` from its latest checkpoint, with the
      config that it was started with. A config that names a simulator or
      callbacks has to be given again.
    callbacks: callbacks to call beside those that `config` names; they are not
      part of the config, and are to be given again to resume.

  Returns:
    The content of the run's `summary.json`.

  Raises:
    UsageError: the config or the directory cannot be used.

  Example:
    >>> import contextlib, tempfile
    >>> import acme_cbo
    >>> config = acme_cbo.preset('smoke').override({'training.num_updates': 2})
    >>> quiet = contextlib.redirect_stdout(None)
    >>> with tempfile.TemporaryDirectory() as workdir, quiet:
    ...   summary = acme_cbo.train(config, workdir)
    ...   policy = acme_cbo.load_policy(workdir)
    >>> summary['updates']
    2
  """
  if resume and config is None:
    if workdir is None:
      raise errors.UsageError('name the run to resume: workdir=...')
    config = config_lib.read_to_resume(pathlib.Path(workdir))
  if config is None:
    config = config_lib.GRPOConfig()
  if not isinstance(config, config_lib.GRPOConfig):
    raise errors.UsageError(
      f'config is of type {type(config).__name__}; it must be a GRPOConfig, as '
      "acme_cbo.preset('smoke') and acme_cbo.GRPOConfig.from_dict() return it"
    )
  return train_lib.train_and_evaluate(
    builder.from_config(config),
    pathlib.Path(workdir or run_directory.default_workdir(config.name)),
    resume,
    more_callbacks=callbacks,
  )


def _with_arguments_of(
  cls: type[config_schema.Section], **others: str
) -> Callable[[_FunctionT], _FunctionT]:
  """Returns a decorator that adds `Args:` to a docstring, before `Returns:`.

  Args:
    cls: class of a config, whose fields have the meanings of the parameters.
    others: meanings of the parameters that are no fields.
  """
  meanings = config_schema.meanings(cls) | others

  def decorate(function: _FunctionT) -> _FunctionT:
    lines = [
      textwrap.fill(
        f'{name}: {meanings[name]}.',
        width=76,
        initial_indent='  ',
        subsequent_indent='    ',
      )
      for name in inspect.signature(function).parameters
    ]
    head, returns, tail = (inspect.getdoc(function) or '').partition('Returns:')
    function.__doc__ = '\n'.join([f'{head}Args:', *lines, '', returns + tail])
    return function

  return decorate


def _names(values: Any) -> tuple[Any, ...]:
  """Returns several names or paths, or a single one, as a tuple."""
  is_single = isinstance(values, str | os.PathLike)
  return (values,) if is_single else tuple(values)


@_with_arguments_of(
  _Evaluation,
  policy="directory of a run or of a saved policy to evaluate as 'grpo'; the "
  'default is the policy shipped with the package',
)
def evaluate(
  scms: str | Iterable[str],
  methods: str | Iterable[str] = _Evaluation.methods,
  *,
  out: str | os.PathLike[str],
  policy: str | os.PathLike[str] | None = None,
  observations: int = _Evaluation.observations,
  interventions: int = _Evaluation.interventions,
  repeats: int = _Evaluation.repeats,
  samples: int = _Evaluation.samples,
  budget: float | None = _Evaluation.budget,
  edges: Literal['unknown', 'known'] = _Evaluation.edges,
  seed: int = _Evaluation.seed,
  confidence: float = _Evaluation.confidence,
  jobs: int = _Evaluation.jobs,
) -> pd.DataFrame:
  """Evaluates methods on the same SCMs, with the same data and noise.

  Episodes that `out` already holds are not run again.

  Returns:
    One row for each step of each episode, as in `results.csv`.

  Raises:
    UsageError: an argument cannot be used.

  Example:
    >>> import contextlib, tempfile
    >>> import acme_cbo
    >>> quiet = contextlib.redirect_stdout(None)
    >>> with tempfile.TemporaryDirectory() as out, quiet:
    ...   results = acme_cbo.evaluate(
    ...     'toy', 'slope', out=out, repeats=1, interventions=2)
    >>> sorted(set(results['method']))
    ['slope']
  """
  methods = _names(methods)
  policies: dict[str, pathlib.Path] = {}
  if 'grpo' in methods or policy is not None:
    policies['grpo'] = saving.directory(policy)
  config = _Evaluation(
    scms=_names(scms),
    repeats=repeats,
    samples=samples,
    budget=budget,
    edges=edges,
    seed=seed,
    confidence=confidence,
    jobs=jobs,
    out=pathlib.Path(out),
    methods=methods,
    policies=policies,
    observations=observations,
    interventions=interventions,
  )
  evaluation.run(config, registry.resolve)
  return pd.read_csv(config.out / 'results.csv')


@_with_arguments_of(_Comparison)
def compare(
  paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
  *,
  out: str | os.PathLike[str],
  scms: str | Iterable[str] = _Comparison.scms,
  repeats: int = _Comparison.repeats,
  samples: int = _Comparison.samples,
  budget: float | None = _Comparison.budget,
  edges: Literal['unknown', 'known'] = _Comparison.edges,
  seed: int = _Comparison.seed,
  confidence: float = _Comparison.confidence,
  jobs: int = _Comparison.jobs,
  allow_mismatch: bool = _Comparison.allow_mismatch,
) -> Mapping[str, Any]:
  """Compares trained models, or evaluations, and writes `index.html` to `out`.

  Returns:
    The content of the report's `summary.json`.

  Raises:
    UsageError: an argument cannot be used.

  Example:
    >>> import contextlib, pathlib, tempfile
    >>> import acme_cbo
    >>> quiet = contextlib.redirect_stdout(None)
    >>> with tempfile.TemporaryDirectory() as root, quiet:
    ...   outs = [pathlib.Path(root) / name for name in ('a', 'b')]
    ...   for method, out in zip(('slope', 'random'), outs):
    ...     _ = acme_cbo.evaluate(
    ...       'toy', method, out=out, repeats=2, interventions=2)
    ...   summary = acme_cbo.compare(outs, out=pathlib.Path(root) / 'report')
    ...   report_exists = (pathlib.Path(root) / 'report/index.html').exists()
    >>> report_exists
    True
  """
  config = _Comparison(
    scms=_names(scms),
    repeats=repeats,
    samples=samples,
    budget=budget,
    edges=edges,
    seed=seed,
    confidence=confidence,
    jobs=jobs,
    out=pathlib.Path(out),
    paths=tuple(map(pathlib.Path, _names(paths))),
    allow_mismatch=allow_mismatch,
  )
  return comparison.run(config, registry.resolve)
