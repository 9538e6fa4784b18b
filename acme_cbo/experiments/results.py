"""Results of a run: scores, tables, figures and the trained policy.

W/policy/             trained policy, independent of the other files
W/results.csv         a row per policy and held-out SCM
W/learning_curve.png  held-out score over updates
W/rewards.png         reward components over updates, for 10 or more updates
W/README.md           model card: use and performance of the policy
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import held_out_simulators
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import report
from acme_cbo.evaluation import rollouts
from acme_cbo.evaluation import statistics
from acme_cbo.evaluation import tables
from acme_cbo.experiments import builder
from acme_cbo.infra import run_directory
from acme_cbo.policies import heuristics
from acme_cbo.policies import saving
from acme_cbo.training import analysis

HeldOut = held_out.HeldOut | held_out_simulators.HeldOutSimulators


def metrics(tasks: HeldOut, outcome: rollouts.Outcome) -> dict[str, float]:
  """Computes the scalars of one evaluation, for the loggers.

  Args:
    tasks: held-out SCMs.
    outcome: outcome of a policy on them.

  Returns:
    {tag: value}.
  """
  score = np.asarray(outcome.score)
  scalars: dict[str, float] = {}
  for group, selection in tasks.groups().items():
    suffix = '' if group == 'all' else f'_{group}'
    part = score[selection]
    scalars[f'eval/score_first{suffix}'] = part[:, 0].mean()
    scalars[f'eval/score_mean{suffix}'] = part.mean()
    scalars[f'eval/score_best{suffix}'] = part.max(1).mean()
    scalars[f'eval/score_last{suffix}'] = part[:, -1].mean()
    for name, values in outcome.after_last.items():
      scalars[f'eval/{name}{suffix}'] = np.asarray(values)[selection].mean()
  quality = tasks.belief_quality(outcome)
  for row in quality[quality['group'] == 'all'].to_dict('records'):
    for name in statistics.QUALITIES:
      tag = f'belief/{row["belief"]}_{name}_after_{row["interventions"]:02d}'
      scalars[tag] = row[name]
  return scalars


def write(
  experiment: builder.Experiment,
  tasks: HeldOut,
  outcomes: dict[str, rollouts.Outcome],
  workdir: pathlib.Path,
) -> dict[str, Any]:
  """Writes the table and the figures of a run.

  Args:
    experiment: experiment of the run.
    tasks: held-out SCMs.
    outcomes: outcomes of 'grpo', 'untrained' and the heuristics on them.
    workdir: run directory.

  Returns:
    Results for `summary.json`.
  """
  config = experiment.config
  table = pd.concat(
    [
      tasks.table(name, outcomes[name])
      for name in ('grpo', *tasks.heuristics, 'untrained')
    ],
    ignore_index=True,
  )
  run_directory.write_text(workdir / 'results.csv', tables.to_csv(table))
  confidence = config.evaluation.confidence
  summary = {
    'rewards': dataclasses.asdict(config.rewards),
    'simple_regret_share': config.grpo.simple_regret_share,
    'regret_floor': config.grpo.regret_floor,
    'num_observations': config.horizon.num_observations,
    'num_interventions': config.horizon.num_interventions,
    'held_out_tasks': config.evaluation.num_tasks,
    'described': tasks.description,
    'confidence': confidence,
    'evaluation': statistics.summarize(table, confidence),
    'grpo_minus': statistics.paired_differences(table, 'grpo', confidence),
    'belief': statistics.by_step(tasks.belief_quality(outcomes['grpo'])),
  }
  rows = run_directory.read_metrics(workdir)
  _draw_learning_curve(workdir, rows, summary['evaluation'], tasks)
  return summary | {'analysis': _analyze(experiment, rows, workdir)}


def _analyze(
  experiment: builder.Experiment,
  rows: list[dict[str, Any]],
  workdir: pathlib.Path,
) -> dict[str, Any] | None:
  """Analyzes and plots the reward components; returns None for a short run."""
  rows = [row for row in rows if 'reward/total' in row]
  if len(rows) < analysis.MIN_VALUES:
    return None
  config = experiment.config
  confidence, cadence = config.evaluation.confidence, config.training
  curves = {
    tag.removeprefix('reward/'): np.array([row[tag] for row in rows])
    for tag in rows[0]
    if tag.startswith('reward/')
  }
  analyses = {
    name: analysis.analyze(
      values,
      confidence,
      cadence.convergence_window,
      cadence.convergence_tolerance,
    )
    for name, values in curves.items()
  }
  figure = plots.rewards(
    curves,
    {name: analysis.smooth(values) for name, values in curves.items()},
    {name: entry.converged_at for name, entry in analyses.items()},
  )
  plots.save(workdir / 'rewards.png', figure)
  return {
    name: {
      'improvement': _estimate(entry.improvement),
      'trend': _estimate(entry.trend),
      'converged_at': entry.converged_at,
      'noise': entry.noise,
      'largest_fall': entry.largest_fall,
    }
    for name, entry in analyses.items()
  }


def _estimate(estimate: analysis.Estimate) -> dict[str, Any] | None:
  """Returns an estimate for JSON; None if there were too few values."""
  if not np.isfinite(estimate).all():
    return None
  return {'mean': estimate.mean, 'interval': [estimate.low, estimate.high]}


def save_policy(
  experiment: builder.Experiment,
  starts: list[dict[str, Any]],
  params: Any,
  facts: dict[str, Any],
  workdir: pathlib.Path,
) -> None:
  """Writes the trained policy and its model card.

  Args:
    experiment: experiment of the run.
    starts: starts of the run, from `run_directory.record_start`.
    params: parameters of the policy.
    facts: facts about the run, with the results of `write`.
    workdir: run directory.
  """
  values = experiment.config.to_dict()
  metadata = {
    'name': facts['name'],
    'seed': facts['seed'],
    'updates': facts['updates'],
    'horizon': values['horizon'],
    'scms': values['scms'],
    'simulator': values['simulator'],
    'rewards': values['rewards'],
    'simple_regret_share': facts['simple_regret_share'],
    'regret_floor': facts['regret_floor'],
  }
  saving.save(workdir / 'policy', experiment.config.network, params, metadata)
  page = report.model_card(facts, values, starts, str(workdir / 'policy'))
  run_directory.write_text(workdir / 'README.md', page)


def _draw_learning_curve(workdir, rows, evaluation, tasks):
  kinds = [group for group in tasks.groups() if group != 'all']
  groups = {kind: f'eval/score_last_{kind}' for kind in kinds}
  steps, curves = plots.extract_curves(
    rows, groups or {'all': 'eval/score_last'}
  )
  baselines = {
    name: {
      group: evaluation[name]['by_family'].get(group, evaluation[name])[
        'score_last'
      ]['mean']
      for group in curves
    }
    for name in reversed(heuristics.BY_NAME)
  }
  figure = plots.learning_curve(steps, curves, baselines, tasks.unit)
  plots.save(workdir / 'learning_curve.png', figure)
