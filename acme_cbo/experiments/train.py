"""A training run, with all its files in one directory.

W/metrics.jsonl, tb/  metrics of every update and evaluation
W/checkpoints/        states that training can resume from

The other files are written by `run_directory` and `results`.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import pathlib
import shlex
import time
from typing import Any

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import held_out_simulators
from acme_cbo.evaluation import report
from acme_cbo.evaluation import rollouts
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import dashboard
from acme_cbo.experiments import results
from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.infra import signals
from acme_cbo.runtimes import factory
from acme_cbo.runtimes import fused
from acme_cbo.runtimes import process_group
from acme_cbo.training import callbacks
from acme_cbo.training import checkpoints
from acme_cbo.training import loggers
from acme_cbo.training import monitors
from acme_cbo.training import progress
from acme_cbo.training import stopping
from acme_cbo.training import trainer as trainer_lib

# Metric that the best checkpoints are selected by.
_SCORE = 'eval/score_last'
# Metrics beside the hyperparameters in TensorBoard.
_SHOWN = ('eval/score_first', 'eval/score_mean', _SCORE, 'reward/total')


def run(
  config: config_lib.GRPOConfig | None,
  workdir: str | None,
  resume: bool,
  resume_step: int | None,
  process_spec: process_group.ProcessSpec | None,
) -> None:
  """Trains in this process, alone or as one of several.

  Args:
    config: config of the run; None is the config of process 0.
    workdir: see `train_and_evaluate`; None for a directory named after the run.
    resume: see `train_and_evaluate`.
    resume_step: see `train_and_evaluate`.
    process_spec: index of this process among several, and how they connect;
      None for a single process.

  Raises:
    errors.UsageError: see `train_and_evaluate`, or the processes do not match.
    errors.Interrupted: see `train_and_evaluate`.
    errors.PeerError: another process did not connect, or was lost.
  """
  values = config.to_dict() if config else None
  with process_group.join(process_spec, values) as group:
    if isinstance(group, process_group.Worker):
      worker_config = config_lib.GRPOConfig.from_dict(group.config)
      run_worker(builder.from_config(worker_config), group)
      return
    assert config is not None
    train_and_evaluate(
      builder.from_config(config),
      pathlib.Path(workdir or run_directory.default_workdir(config.name)),
      resume,
      resume_step,
      group,
    )


def train_and_evaluate(
  experiment: builder.Experiment,
  workdir: pathlib.Path,
  resume: bool = False,
  resume_step: int | None = None,
  group: process_group.SingleProcess = process_group.SINGLE_PROCESS,
  more_callbacks: Sequence[trainer_lib.Callback] = (),
) -> dict[str, Any]:
  """Trains a policy, evaluates it, and writes all files of the run.

  Args:
    experiment: config and parts.
    workdir: run directory. It must be missing or empty, unless its run is
      resumed.
    resume: whether to resume the run in `workdir` from its latest checkpoint,
      or from the beginning if it has none yet.
    resume_step: step of the checkpoint to resume from; later ones are deleted.
    group: the processes that train together; this one coordinates them.
    more_callbacks: callbacks beside those that the config names.

  Returns:
    Contents of `summary.json`.

  Raises:
    errors.UsageError: the directory cannot be used, or holds no run of this
      config that can be resumed.
    errors.Interrupted: a signal was received; the run can be resumed.
    errors.PeerError: another process was lost; the run can be resumed.
  """
  start_time = time.monotonic()
  config, values = experiment.config, experiment.config.to_dict()
  own = (*callbacks.load(config.training.callbacks), *more_callbacks)
  if not resume:
    run_directory.prepare(workdir)
  facts: dict[str, Any] = {
    'name': config.name,
    'seed': config.seed,
    'updates': 0,
    'latest_checkpoint': None,
  }
  with (
    run_directory.lock(workdir),
    checkpoints.Checkpointer(
      workdir / 'checkpoints',
      config.training.max_checkpoints,
      config.training.best_checkpoints,
    ) as checkpointer,
  ):
    if resume:
      run_directory.check_resumable(
        workdir, config_lib.differences(workdir, config)
      )
    runtime = factory.make_runtime(
      experiment.parts, config.runtime, config.simulator, group
    )
    programs = factory.compile_programs(
      runtime, experiment.parts_from, config.training.quick_compile
    )
    # Errors of the first state are raised before any file is written.
    initial = runtime.init_state(programs, config.seed)
    # A copy, since an update donates the state.
    untrained = jax.tree.map(np.array, initial.params)
    state, metadata = _starting_point(
      checkpointer, initial, resume, resume_step, workdir
    )
    state = runtime.device_put(state)
    starts = run_directory.record_start(
      workdir,
      values,
      [f'{device} ({device.device_kind})' for device in jax.devices()],
    )
    for difference in run_directory.environment_changes(starts):
      print(
        'warning: environment changed since the last start; results may '
        f'differ: {difference}',
        flush=True,
      )
    with (
      run_directory.summary_on_exit(workdir, facts, start_time) as guard,
      _note_next_command(workdir, experiment),
      runtime.session(programs, state) as step,
    ):
      group.on_peer_loss(guard.record_failure)
      facts['parameters'] = _announce(experiment, state, workdir)
      tasks = held_out_tasks(experiment)
      score = tasks.network_scorer(experiment.parts.network)
      outcomes: dict[str, rollouts.Outcome] = {}

      def evaluate_state(state):
        """Evaluates a policy; the first call also evaluates the baselines."""
        if not outcomes:
          outcomes['untrained'] = score(untrained, 0)
          outcomes.update(tasks.scores(tasks.heuristics))
        outcomes['grpo'] = (
          score(state.params, int(state.step))
          if state.step
          else outcomes['untrained']
        )
        return results.metrics(tasks, outcomes['grpo'])

      tensorboard = loggers.TensorBoardLogger(workdir)
      trainer = _trainer(
        experiment,
        evaluate_state,
        loggers.LoggerGroup(tensorboard, loggers.JsonlLogger(workdir)),
        (
          monitors.Histograms(dashboard.histograms(tasks, outcomes)),
          monitors.Figures(
            dashboard.REWARDS, dashboard.figures(tasks, outcomes)
          ),
          *own,
          callbacks.Checkpoint(
            checkpointer,
            config.training.checkpoint_every,
            {'config': values, 'environment': starts[-1]},
            score=_SCORE,
          ),
          _Record(facts, checkpointer),
        ),
        lambda: guard.get_signal() or group.received_signal(),
        workdir,
        runtime,
        step,
      )
      if metadata:
        trainer.load_state_dict(metadata['trainer'])
        checkpointer.delete_after(int(state.step))
      else:
        text = json.dumps(values, indent=2)
        trainer.logger.write_text('config', f'```\n{text}\n```')
        tensorboard.write_layout(
          dashboard.layout(config.horizon.num_interventions)
        )
        tensorboard.write_hparams(dashboard.hparams(config), _SHOWN)
      state = runtime.to_local(trainer.fit(state))
      if signal := guard.get_signal():
        raise errors.Interrupted(signal, f'after update {trainer.updates}')
      if not outcomes:  # It was resumed after the last update.
        evaluate_state(state)
      facts['finished_by'] = trainer.stop_reason or 'all updates were made'
      if trainer.stop_reason:
        print(
          f'stopped after update {trainer.updates}: {trainer.stop_reason}',
          flush=True,
        )
      facts |= results.write(experiment, tasks, outcomes, workdir)
      results.save_policy(experiment, starts, state.params, facts, workdir)
  summary = run_directory.read_summary(workdir)
  assert summary  # Written when the run ended.
  print(
    f'\n{report.summary(summary)}\n\n{summary["seconds"] / 60:.1f} minutes'
    f'{" since the run was resumed" if resume else ""}; all files are in '
    f'{workdir}',
    flush=True,
  )
  return summary


class _Record(trainer_lib.Callback):
  """Keeps the facts for `summary.json` up to date; the last callback."""

  def __init__(
    self, facts: dict[str, Any], checkpointer: checkpoints.Checkpointer
  ):
    self._facts = facts
    self._checkpointer = checkpointer

  def on_fit_start(self, trainer, state):
    """Updates the facts."""
    self._keep(trainer)

  def on_after_log(self, trainer, state, metrics):
    """Updates the facts."""
    self._keep(trainer)

  def on_fit_end(self, trainer, state):
    """Updates the facts."""
    self._keep(trainer)

  def on_exception(self, trainer, exception):
    """Updates the facts."""
    self._keep(trainer)

  def _keep(self, trainer):
    self._facts['updates'] = trainer.updates
    self._facts['latest_checkpoint'] = self._checkpointer.latest_step()


def run_worker(
  experiment: builder.Experiment, group: process_group.Worker
) -> None:
  """Takes part in the training run that the coordinator leads.

  Args:
    experiment: config and parts.
    group: connection of this process to the coordinator.

  Raises:
    errors.Interrupted: the run was interrupted.
  """
  config = experiment.config
  runtime = factory.make_runtime(
    experiment.parts, config.runtime, config.simulator, group
  )
  programs = factory.compile_programs(
    runtime, experiment.parts_from, config.training.quick_compile
  )
  state = runtime.init_state(programs, config.seed)
  with signals.SignalGuard(lambda signal: None) as get_signal:
    runtime.run_worker(get_signal, programs, state)


def held_out_tasks(experiment: builder.Experiment) -> results.HeldOut:
  """Returns the tasks that the policies of a run are evaluated on."""
  config, prior = experiment.config, experiment.parts.prior
  if config.simulator:
    return held_out_simulators.HeldOutSimulators(
      config.evaluation.seed,
      *factory.simulator_and_problem(config.simulator, prior.max_set_size),
      config.evaluation.num_tasks,
      config.horizon,
      config.runtime.stall_seconds,
    )
  return held_out.HeldOut(
    config.evaluation.seed,
    dataclasses.replace(prior, bank_size=config.evaluation.bank_size),
    config.evaluation.num_tasks,
    config.horizon,
  )


@contextlib.contextmanager
def _note_next_command(
  workdir: pathlib.Path, experiment: builder.Experiment
) -> Iterator[None]:
  """Adds a note to an error: the command that inspects it, or resumes."""
  try:
    yield
  except errors.NonFiniteError as error:
    if experiment.can_be_replayed:
      error.add_note(
        f'inspect the failing SCM with: {cli.command("replay")} '
        f'{_flag(workdir)} --update={error.update} --scm={error.task}'
        f'{" --held_out" if error.held_out else ""}'
      )
    raise
  except (errors.Interrupted, errors.PeerError) as error:
    error.add_note(
      f'resume with: {cli.command("train")} --resume {_flag(workdir)}'
      # `config.read_to_resume` does not run what a directory names.
      + (' and its config' if experiment.config.programs else '')
    )
    raise


def _flag(workdir: pathlib.Path) -> str:
  """Returns the flag --workdir, quoted for a shell."""
  return shlex.quote(f'--workdir={workdir}')


def _announce(experiment, state, workdir) -> int:
  """Prints what is trained and where; returns the number of parameters."""
  config = experiment.config
  kind = 'simulated systems' if config.simulator else 'SCMs'
  size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  print(
    f'{config.name}: a policy of {size:,} parameters, '
    f'{config.training.num_updates} updates '
    f'of {config.grpo.num_tasks} {kind} x {config.grpo.num_generations} '
    f'episodes on {jax.devices()[0].platform}\n'
    f'monitor it with: {cli.executable("tensorboard")} '
    f'{shlex.quote(f"--logdir={workdir}")}',
    flush=True,
  )
  return size


def _starting_point(
  checkpointer: checkpoints.Checkpointer,
  state: types.TrainingState,
  resume: bool,
  resume_step: int | None,
  workdir: pathlib.Path,
) -> tuple[types.TrainingState, dict[str, Any]]:
  """Returns the first state, and the metadata of its checkpoint if any."""
  if not resume:
    return state, {}
  if resume_step is None and checkpointer.latest_step() is None:
    run_directory.clear(workdir)
    return state, {}
  state, metadata = checkpointer.restore(state, resume_step)
  print(f'resuming after update {int(state.step)}', flush=True)
  return state, metadata


def _trainer(
  experiment: builder.Experiment,
  evaluate_state: Callable[[types.TrainingState], dict[str, Any]],
  logger: loggers.Logger,
  last: tuple[trainer_lib.Callback, ...],
  get_signal: Callable[[], int | None],
  workdir: pathlib.Path,
  runtime: fused.Fused,
  step: agent.Step,
) -> trainer_lib.Trainer:
  """Returns the trainer of a run, with `last` as its last callbacks."""
  config, cadence = experiment.config, experiment.config.training
  evaluation = callbacks.Evaluation(evaluate_state, cadence.eval_every)
  optional: list[trainer_lib.Callback] = []
  if cadence.patience:
    optional.append(stopping.EarlyStopping(_SCORE, cadence.patience))
  if cadence.profile_from:
    optional.append(
      monitors.Profile(
        workdir / 'profile', cadence.profile_from, cadence.profile_updates
      )
    )
  return trainer_lib.Trainer(
    step=step,
    to_local=runtime.to_local,
    num_updates=cadence.num_updates,
    logger=logger,
    get_signal=get_signal,
    callbacks=(
      monitors.Throughput(
        config.grpo.num_tasks
        * config.grpo.num_generations
        * config.horizon.num_interventions
      ),
      monitors.LearningRate(experiment.learning_rate),
      progress.Progress(
        {
          'held-out score, last choice': _SCORE,
          'reward': 'reward/total',
          'interventions/s': 'perf/interventions_per_second',
        },
        evaluation,
      ),
      evaluation,
      stopping.Convergence(
        'reward/total',
        cadence.convergence_window,
        cadence.convergence_tolerance,
        cadence.stop_when_converged,
      ),
      *optional,
      *last,
    ),
  )
