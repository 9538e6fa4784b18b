"""Training, evaluation and comparison as functions: the commands for Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import pandas as pd

from acme_cbo.evaluation import config as evaluation_config
from acme_cbo.evaluation import run as evaluation
from acme_cbo.evaluation.comparison import run as comparison
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import train as train_lib
from acme_cbo.infra import run_directory
from acme_cbo.policies import saving
from acme_cbo.scms import registry
from acme_cbo.training import trainer


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
      config that it was started with unless another one is given.
    callbacks: callbacks to call beside those that `config` names; they are not
      part of the config, and are to be given again to resume.

  Returns:
    The content of the run's `summary.json`.

  Raises:
    UsageError: the config or the directory cannot be used.

  Example:
    >>> import contextlib, dataclasses, tempfile
    >>> import acme_cbo
    >>> config = acme_cbo.preset('smoke')
    >>> config = dataclasses.replace(
    ...   config, training=dataclasses.replace(config.training, num_updates=2))
    >>> quiet = contextlib.redirect_stdout(None)
    >>> with tempfile.TemporaryDirectory() as workdir, quiet:
    ...   summary = acme_cbo.train(config, workdir)
    ...   policy = acme_cbo.load_policy(workdir)
    >>> summary['updates']
    2
  """
  if resume and config is None:
    if workdir is None:
      raise ValueError('name the run to resume: workdir=...')
    config = config_lib.read(pathlib.Path(workdir))
  config = config or config_lib.GRPOConfig()
  return train_lib.train_and_evaluate(
    builder.from_config(config),
    pathlib.Path(workdir or run_directory.default_workdir(config.name)),
    resume,
    more_callbacks=callbacks,
  )


def evaluate(
  scms: Sequence[str],
  methods: Sequence[str] = ('grpo', 'random'),
  *,
  out: str | os.PathLike[str],
  policy: str | os.PathLike[str] | None = None,
  observations: int = 100,
  interventions: int = 40,
  repeats: int = 20,
  samples: int = 1,
  budget: float | None = None,
  seed: int = 0,
  confidence: float = 0.95,
  jobs: int = 1,
) -> pd.DataFrame:
  """Evaluates methods on the same SCMs, with the same data and noise.

  Episodes that `out` already holds are not run again.

  Args:
    scms: names of benchmarks, families or groups of them, and YAML files.
    methods: names of methods; 'grpo' is the trained policy.
    out: output directory.
    policy: directory of a run or of a saved policy to evaluate as 'grpo'; the
      default is the policy that comes with the package.
    observations: number of passive records before the first intervention.
    interventions: maximum number of interventions per episode.
    repeats: number of episodes of each method on each SCM.
    samples: number of draws of which each outcome is the mean.
    budget: what the interventions of an episode may cost; the default is the
      budget of the SCM.
    seed: random seed for data and noise.
    confidence: confidence level of all intervals.
    jobs: number of worker processes.

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
    ...     ['toy'], ['slope'], out=out, repeats=1, interventions=2)
    >>> sorted(set(results['method']))
    ['slope']
  """
  policies: dict[str, pathlib.Path] = {}
  if 'grpo' in methods or policy is not None:
    policies['grpo'] = saving.directory(policy)
  config = evaluation_config.MethodEvaluationConfig(
    scms=tuple(scms),
    repeats=repeats,
    samples=samples,
    budget=budget,
    seed=seed,
    confidence=confidence,
    jobs=jobs,
    out=pathlib.Path(out),
    methods=tuple(methods),
    policies=policies,
    observations=observations,
    interventions=interventions,
  )
  evaluation_config.check_method_config(config)
  evaluation.run(config, registry.resolve)
  return pd.read_csv(config.out / 'results.csv')


def compare(
  paths: Sequence[str | os.PathLike[str]],
  *,
  out: str | os.PathLike[str],
  scms: Sequence[str] = ('chain_5', 'fork_5', 'star_5', 'sparse_5'),
  repeats: int = 20,
  samples: int = 1,
  budget: float | None = None,
  seed: int = 0,
  confidence: float = 0.95,
  jobs: int = 1,
  allow_mismatch: bool = False,
) -> Mapping[str, Any]:
  """Compares trained models, or evaluations, and writes a report.

  Args:
    paths: run directories, output directories of `evaluate`, or CSV tables.
    out: output directory; its `index.html` is the report.
    scms: names of SCMs to evaluate the models on.
    repeats: number of episodes of each model on each SCM.
    samples: number of draws of which each outcome is the mean.
    budget: what the interventions of an episode may cost; the default is the
      budget of the SCM.
    seed: random seed for data and noise.
    confidence: confidence level of all intervals and decisions.
    jobs: number of worker processes.
    allow_mismatch: include runs that were stopped early, or that were trained
      or evaluated differently, and mark them.

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
    ...       ['toy'], [method], out=out, repeats=2, interventions=2)
    ...   summary = acme_cbo.compare(outs, out=pathlib.Path(root) / 'report')
    ...   report_exists = (pathlib.Path(root) / 'report/index.html').exists()
    >>> report_exists
    True
  """
  config = comparison.ComparisonConfig(
    scms=tuple(scms),
    repeats=repeats,
    samples=samples,
    budget=budget,
    seed=seed,
    confidence=confidence,
    jobs=jobs,
    out=pathlib.Path(out),
    paths=tuple(map(pathlib.Path, paths)),
    allow_mismatch=allow_mismatch,
  )
  return comparison.run(config, registry.resolve)
