"""One training run, from its parts to its table, its files in one directory.

W/config.json         the resolved config
W/metrics.jsonl, tb/  every metric of every update and evaluation
W/checkpoints/        states that training can go on from
W/results.csv         a row per policy and held-out SCM
W/summary.json        what it came to; written last
W/learning_curve.png
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import pandas as pd

from acme_cbo import errors
from acme_cbo import experiment as experiment_lib
from acme_cbo import types
from acme_cbo.evaluation import evaluate
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import report
from acme_cbo.evaluation import statistics
from acme_cbo.runtimes import fused
from acme_cbo.training import callbacks
from acme_cbo.training import checkpoints
from acme_cbo.training import loggers
from acme_cbo.training import trainer as trainer_lib


def prepare(workdir: pathlib.Path) -> None:
  """Makes the directory of a run.

  Args:
    workdir: does not exist yet, or is empty.

  Raises:
    errors.UsageError: there is something in it already, or it cannot be made
      or written to.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if any(workdir.iterdir()):
      raise errors.UsageError(
        f'--workdir={workdir} is not empty; nothing in it is touched: choose a '
        'directory that is new or empty'
      )
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise errors.UsageError(
      f'--workdir={workdir} cannot be made or written to: {error.strerror}'
    ) from error


def train_and_evaluate(
  experiment: experiment_lib.Experiment,
  config_json: str,
  workdir: pathlib.Path,
) -> dict[str, Any]:
  """Trains a policy, scores it beside the heuristics, writes it all down.

  Args:
    experiment: the wired parts.
    config_json: the resolved config, for the record.
    workdir: an empty directory or one that does not exist.

  Returns:
    What `summary.json` holds.
  """
  begin = time.monotonic()
  prepare(workdir)
  parts, settings = experiment.parts, experiment.evaluation
  state = initial_state(experiment)
  size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  print(
    f'{experiment.name}: a policy of {size:,} parameters, '
    f'{experiment.training.num_updates} updates '
    f'of {parts.num_tasks} SCMs x {parts.num_generations} episodes on '
    f'{jax.devices()[0].platform}\n'
    f'watch it with: {_tensorboard()} --logdir={workdir}'
  )

  tasks = held_out_tasks(experiment)
  (workdir / 'config.json').write_text(config_json + '\n')
  score = tasks.network_scorer(parts.network)
  # The first evaluation is of the untrained policy, the last is the table's.
  outcomes: dict[str, evaluate.Outcome] = {}

  def evaluate_state(state):
    outcomes['grpo'] = score(state.params, int(state.step))
    outcomes.setdefault('untrained', outcomes['grpo'])
    return _metrics(tasks, outcomes['grpo'])

  with _how_to_see_it(workdir):
    heuristics = [
      tasks.table(name, outcome)
      for name, outcome in tasks.scores(held_out.HEURISTICS).items()
    ]
    state = _fit(experiment, evaluate_state, state, config_json, workdir)
  results = pd.concat(
    [
      tasks.table('grpo', outcomes['grpo']),
      *heuristics,
      tasks.table('untrained', outcomes['untrained']),
    ],
    ignore_index=True,
  )
  results.to_csv(workdir / 'results.csv', index=False)
  confidence = settings.confidence
  summary = {
    'name': experiment.name,
    'seed': experiment.seed,
    'updates': int(state.step),
    'parameters': size,
    'rewards': parts.weights._asdict() | dataclasses.asdict(parts.kinds),
    'simple_regret_share': parts.grpo.simple_regret_share,
    'num_observations': parts.horizon.num_observations,
    'num_interventions': parts.horizon.num_interventions,
    'held_out_tasks': settings.num_tasks,
    'confidence': confidence,
    'evaluation': statistics.summarise(results, confidence),
    'grpo_minus': statistics.paired_differences(results, 'grpo', confidence),
    'belief': statistics.by_step(tasks.belief_quality(outcomes['grpo'])),
  }
  _draw_learning_curve(workdir, summary['evaluation'])
  summary['seconds'] = time.monotonic() - begin
  text = json.dumps(summary, indent=2, allow_nan=False)
  (workdir / 'summary.json').write_text(text + '\n')
  _print(summary, workdir)
  return summary


def initial_state(
  experiment: experiment_lib.Experiment,
) -> types.TrainingState:
  """The state that a run begins with; from here on it compiles as it says."""
  if experiment.training.quick_compile:
    jax.config.update('jax_disable_most_optimizations', True)
  return fused.initial_state(experiment.seed, experiment.parts)


def held_out_tasks(experiment: experiment_lib.Experiment) -> held_out.HeldOut:
  """The tasks that policies of a run are scored on."""
  parts, settings = experiment.parts, experiment.evaluation
  prior = dataclasses.replace(parts.prior, bank_size=settings.bank_size)
  return held_out.HeldOut(
    settings.seed, prior, settings.num_tasks, parts.horizon
  )


@contextlib.contextmanager
def _how_to_see_it(workdir: pathlib.Path) -> Iterator[None]:
  """Adds to an error that something is not finite the command that shows it."""
  try:
    yield
  except errors.NonFiniteError as error:
    error.add_note(
      'see what it met with: python launchers/replay.py '
      f'--workdir={workdir} --update={error.update} --scm={error.task}'
      f'{" --held_out" if error.held_out else ""}'
    )
    raise


def _tensorboard():
  """The command that starts TensorBoard, in whatever environment this is."""
  beside = pathlib.Path(sys.executable).parent / 'tensorboard'
  if shutil.which('tensorboard') or not beside.exists():
    return 'tensorboard'
  here = pathlib.Path.cwd()
  return beside.relative_to(here) if here in beside.parents else beside


def _fit(
  experiment: experiment_lib.Experiment,
  evaluate_state: Callable[[types.TrainingState], dict[str, Any]],
  state: types.TrainingState,
  config_json: str,
  workdir: pathlib.Path,
) -> types.TrainingState:
  """Trains with the loggers and callbacks of a run."""
  parts, cadence = experiment.parts, experiment.training
  logger = loggers.LoggerGroup(
    loggers.TensorBoardLogger(workdir), loggers.JsonlLogger(workdir)
  )
  logger.write_text('config', f'```\n{config_json}\n```')
  with checkpoints.Checkpointer(
    workdir / 'checkpoints', cadence.max_checkpoints
  ) as checkpointer:
    trainer = trainer_lib.Trainer(
      step=fused.make_step(parts),
      evaluate=evaluate_state,
      num_updates=cadence.num_updates,
      eval_every=cadence.eval_every,
      interventions_per_update=parts.num_tasks
      * parts.num_generations
      * parts.horizon.num_interventions,
      logger=logger,
      callbacks=(
        callbacks.Progress(
          {
            'held-out score, last choice': 'eval/score_last',
            'reward': 'reward/total',
          },
        ),
        callbacks.Checkpoint(
          checkpointer,
          cadence.checkpoint_every,
          {'config': json.loads(config_json)},
        ),
      ),
    )
    return trainer.fit(state)


def _metrics(tasks: held_out.HeldOut, outcome: evaluate.Outcome):
  """Scalars of one evaluation, for the loggers."""
  score = np.asarray(outcome.score)
  metrics = {}
  for group, chosen in tasks.groups().items():
    suffix = '' if group == 'all' else f'_{group}'
    part = score[chosen]
    metrics[f'eval/score_first{suffix}'] = part[:, 0].mean()
    metrics[f'eval/score_mean{suffix}'] = part.mean()
    metrics[f'eval/score_last{suffix}'] = part[:, -1].mean()
  quality = tasks.belief_quality(outcome)
  for row in quality[quality['group'] == 'all'].to_dict('records'):
    for name in statistics.QUALITIES:
      tag = f'belief_{row["belief"]}/{name}_after_{row["interventions"]:02d}'
      metrics[tag] = row[name]
  return metrics


def _draw_learning_curve(workdir, evaluation):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  groups = [
    group
    for group in ('linear', 'nonlinear')
    if group in evaluation['grpo']['by_family']
  ]
  steps, curves = plots.curves_of(
    [json.loads(line) for line in lines],
    {group: f'eval/score_last_{group}' for group in groups},
  )
  baselines = {
    name: {
      group: evaluation[name]['by_family'][group]['score_last']['mean']
      for group in groups
    }
    for name in ('explore_then_commit', 'slope', 'random')
  }
  plots.learning_curve(workdir / 'learning_curve.png', steps, curves, baselines)


def _print(summary, workdir):
  minutes = summary['seconds'] / 60
  confidence = summary['confidence']
  print(
    f'\n{summary["held_out_tasks"]} held-out SCMs, '
    f'{summary["num_observations"]} observations, '
    f'{summary["num_interventions"]} interventions. '
    'Score: 0 = no intervention, 1 = the best one.\n'
    f'In brackets: {confidence:.0%} intervals. '
    'The columns of families: last choice.\n\n'
    f'{report.table(summary["evaluation"])}\n\n'
    f'{report.comparison("grpo", summary["grpo_minus"], confidence)}\n\n'
    'Belief in the parents of the target, before the first intervention and '
    f'after the last:\n{report.beliefs(summary["belief"])}\n\n'
    f'{minutes:.1f} minutes; all of it in {workdir}',
  )
  sys.stdout.flush()
