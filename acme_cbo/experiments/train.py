"""One training run, from its parts to its table, its files in one directory.

W/metrics.jsonl, tb/  every metric of every update and evaluation
W/checkpoints/        states that training can go on from

and what `run_directory` and `results` write.
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

# By which the best checkpoints are kept.
_SCORE = 'eval/score_last'
# What is shown beside the settings of a run.
_SHOWN = ('eval/score_first', 'eval/score_mean', _SCORE, 'reward/total')


def run(
  config: config_lib.GRPOConfig | None,
  workdir: str | None,
  resume: bool,
  resume_step: int | None,
  place: process_group.ProcessSpec | None,
) -> None:
  """Trains in this process, alone or as one of several.

  Args:
    config: config of the run; None is the config of process 0.
    workdir: see `train_and_evaluate`; None is one of the name of the run.
    resume: see `train_and_evaluate`.
    resume_step: see `train_and_evaluate`.
    place: of this process among several; None where it is alone.

  Raises:
    errors.UsageError: see `train_and_evaluate`, or the processes do not fit
      each other.
    errors.Interrupted: see `train_and_evaluate`.
    errors.PeerError: another process has not come, or was lost.
  """
  values = config.to_dict() if config else None
  with process_group.join(place, values) as group:
    if isinstance(group, process_group.Worker):
      same = config_lib.GRPOConfig.from_dict(group.config)
      follow(builder.from_config(same), group)
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
  """Trains a policy, scores it beside the heuristics, writes it all down.

  Args:
    experiment: the wired parts.
    workdir: an empty directory or one that does not exist; that of a run, where
      it is resumed.
    resume: go on with the run in `workdir` from its latest checkpoint, or from
      the beginning where it has none yet.
    resume_step: go on from the checkpoint of this step; later ones are deleted.
    group: the processes that train together, of which this one leads.
    more_callbacks: callbacks beside those that the config names.

  Returns:
    What `summary.json` holds.

  Raises:
    errors.UsageError: the directory cannot be used, or holds no run of this
      config that could go on.
    errors.Interrupted: a signal came in; the run can be resumed.
    errors.PeerError: another process was lost; the run can be resumed.
  """
  begun = time.monotonic()
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
    run = factory.compile_programs(
      runtime, experiment.parts_from, config.training.quick_compile
    )
    # Training that could not begin is refused before all is written.
    beginning = runtime.init_state(run, config.seed)
    # An update takes the state away.
    untrained = jax.tree.map(np.array, beginning.params)
    state, metadata = _starting_point(
      checkpointer, beginning, resume, resume_step, workdir
    )
    state = runtime.device_put(state)
    starts = run_directory.record_start(
      workdir,
      values,
      [f'{device} ({device.device_kind})' for device in jax.devices()],
    )
    for difference in run_directory.environment_changes(starts):
      print(
        'warning: the environment changed since the last start; results may '
        f'differ: {difference}',
        flush=True,
      )
    with (
      run_directory.summary_on_exit(workdir, facts, begun) as guard,
      _what_to_do_next(workdir, experiment.can_be_replayed),
      runtime.session(run, state) as step,
    ):
      group.on_peer_loss(guard.record_failure)
      facts['parameters'] = _announce(experiment, state, workdir)
      tasks = held_out_tasks(experiment)
      score = tasks.network_scorer(experiment.parts.network)
      outcomes: dict[str, rollouts.Outcome] = {}

      def evaluate_state(state):
        """Scores a policy; the first time also those it is compared to."""
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
      if not outcomes:  # It went on from its end.
        evaluate_state(state)
      facts['finished_by'] = trainer.stop_reason or 'all updates were made'
      if trainer.stop_reason:
        print(
          f'stopped after update {trainer.updates}: {trainer.stop_reason}',
          flush=True,
        )
      facts |= results.write(experiment, tasks, outcomes, workdir)
      results.save_policy(experiment, starts, state.params, facts, workdir)
  summary = json.loads((workdir / 'summary.json').read_text())
  print(
    f'\n{report.summary(summary)}\n\n{summary["seconds"] / 60:.1f} minutes'
    f'{" since it went on" if resume else ""}; all of it in {workdir}',
    flush=True,
  )
  return summary


class _Record(trainer_lib.Callback):
  """Keeps the facts of a run up to date; the last of its callbacks."""

  def __init__(
    self, facts: dict[str, Any], checkpointer: checkpoints.Checkpointer
  ):
    self._facts = facts
    self._checkpointer = checkpointer

  def on_fit_start(self, trainer, state):
    """Keeps it."""
    self._keep(trainer)

  def on_after_log(self, trainer, state, metrics):
    """Keeps it."""
    self._keep(trainer)

  def on_fit_end(self, trainer, state):
    """Keeps it."""
    self._keep(trainer)

  def on_exception(self, trainer, exception):
    """Keeps it."""
    self._keep(trainer)

  def _keep(self, trainer):
    self._facts['updates'] = trainer.updates
    self._facts['latest_checkpoint'] = self._checkpointer.latest_step()


def follow(experiment: builder.Experiment, group: process_group.Worker) -> None:
  """Trains as `train_and_evaluate` does in the process that leads.

  Args:
    experiment: the wired parts.
    group: what this process is among the others.

  Raises:
    errors.Interrupted: the run was.
  """
  config = experiment.config
  runtime = factory.make_runtime(
    experiment.parts, config.runtime, config.simulator, group
  )
  run = factory.compile_programs(
    runtime, experiment.parts_from, config.training.quick_compile
  )
  state = runtime.init_state(run, config.seed)
  with signals.SignalGuard(lambda signal: None) as interrupted:
    runtime.run_worker(interrupted, run, state)


def held_out_tasks(experiment: builder.Experiment) -> results.HeldOut:
  """The tasks that policies of a run are scored on."""
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
def _what_to_do_next(
  workdir: pathlib.Path, can_be_replayed: bool
) -> Iterator[None]:
  """Adds to an error the command that shows its cause, or that goes on."""
  try:
    yield
  except errors.NonFiniteError as error:
    if can_be_replayed:
      error.add_note(
        f'see what it met with: {cli.command("replay")} '
        f'{_flag(workdir)} --update={error.update} --scm={error.task}'
        f'{" --held_out" if error.held_out else ""}'
      )
    raise
  except (errors.Interrupted, errors.PeerError) as error:
    error.add_note(
      f'go on with: {cli.command("train")} --resume {_flag(workdir)}'
    )
    raise


def _flag(workdir: pathlib.Path) -> str:
  """Returns the flag of the directory, quoted for a shell."""
  return shlex.quote(f'--workdir={workdir}')


def _announce(experiment, state, workdir) -> int:
  """Says what is trained and where; returns its number of parameters."""
  config = experiment.config
  kind = 'simulated systems' if config.simulator else 'SCMs'
  size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  print(
    f'{config.name}: a policy of {size:,} parameters, '
    f'{config.training.num_updates} updates '
    f'of {config.grpo.num_tasks} {kind} x {config.grpo.num_generations} '
    f'episodes on '
    f'{jax.devices()[0].platform}\n'
    f'watch it with: {cli.executable("tensorboard")} '
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
  """The state to go on from and its metadata, which a new run has not."""
  if not resume:
    return state, {}
  if resume_step is None and checkpointer.latest_step() is None:
    run_directory.clear(workdir)
    return state, {}
  state, metadata = checkpointer.restore(state, resume_step)
  print(f'going on after update {int(state.step)}', flush=True)
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
  """The trainer of a run: the callbacks of its config, and then the `last`."""
  config, cadence = experiment.config, experiment.config.training
  evaluation = callbacks.Evaluation(evaluate_state, cadence.eval_every)
  if_wanted: list[trainer_lib.Callback] = []
  if cadence.patience:
    if_wanted.append(stopping.EarlyStopping(_SCORE, cadence.patience))
  if cadence.profile_from:
    if_wanted.append(
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
      *if_wanted,
      *last,
    ),
  )
