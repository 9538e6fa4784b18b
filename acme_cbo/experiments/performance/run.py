"""Runs the benchmarks, each in a process that suits it."""

from collections.abc import Callable, Sequence
from concurrent import futures
import json
import multiprocessing
import pathlib
import signal
import sys
import tempfile
from typing import Any

from acme_cbo.agents.grpo import agent
from acme_cbo.evaluation import plots
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments.performance import decisions
from acme_cbo.experiments.performance import exchange as exchange_lib
from acme_cbo.experiments.performance import machine
from acme_cbo.experiments.performance import report
from acme_cbo.experiments.performance import scaling
from acme_cbo.experiments.performance import startup
from acme_cbo.experiments.performance import timing
from acme_cbo.experiments.performance import training
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory

# Number of timed starts of each kind.
_NUM_STARTS = 3
# Config file that returns an already resolved config, stored beside it.
_CONFIG_FILE = """import json
import pathlib

import ml_collections


def get_config():
  text = (pathlib.Path(__file__).parent / 'config.json').read_text()
  return ml_collections.ConfigDict(json.loads(text))
"""


def run(
  config: config_lib.GRPOConfig,
  repeats: int,
  botorch: Sequence[str],
  path: str | None,
) -> None:
  """Runs the benchmark, prints a table, and writes the results as JSON.

  Args:
    config: config of a training run.
    repeats: number of timed calls of each program.
    botorch: see `decisions.measure`.
    path: JSON file to write; None writes no file.

  Raises:
    errors.UsageError: the file cannot be written.
  """
  out = pathlib.Path(path) if path else None
  if out:
    run_directory.check_file(out, '--out')
  # Handled like Ctrl-C, so that child processes end with this one.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  results = measure(
    config,
    repeats,
    botorch,
    lambda line: print(f'measuring {line} ...', file=sys.stderr, flush=True),
  )
  print(report.table(results), flush=True)
  if out:
    run_directory.write_json(out, results)


def measure(
  config: config_lib.GRPOConfig,
  repeats: int,
  botorch: Sequence[str],
  report_progress: Callable[[str], None],
) -> dict[str, Any]:
  """Measures how fast a config trains, decides and starts.

  Args:
    config: config of a training run.
    repeats: number of timed calls of each program, in turn.
    botorch: see `decisions.measure`.
    report_progress: function that is called with the name of the next step.

  Returns:
    The results of `training.measure` and `decisions.measure`, with `startup_s`,
    the medians of `starts`, `trainer_overhead`, `peak_memory` (peak memory in
    bytes of a warm start up to its first update), and `machine`.
  """
  experiment = builder.from_config(config)
  report_progress('decisions, with 5 variables and 100 observations')
  # In a process of its own, whose settings suit small programs.
  with futures.ProcessPoolExecutor(
    1, multiprocessing.get_context('spawn'), _set_small_programs
  ) as pool:
    decision_results = pool.submit(
      _measure_decisions, config, repeats, botorch
    ).result()
  report_progress(
    f'{_NUM_STARTS} cold and {_NUM_STARTS} warm starts of training'
  )
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory)
    (path / 'config.json').write_text(json.dumps(config.to_dict()))
    (path / 'config.py').write_text(_CONFIG_FILE)
    starts = startup.measure([f'--config={path / "config.py"}'], _NUM_STARTS)
  start_seconds = {
    kind: [start.seconds for start in starts_of_kind]
    for kind, starts_of_kind in starts.items()
  }
  report_progress('acting, learning and slower baselines, in turn')
  training_results = training.measure(experiment.parts, repeats)
  overhead = training.trainer_overhead(
    agent.make_step(agent.programs(experiment.parts)),
    agent.initial_state(experiment.config.seed, experiment.parts),
    4 * repeats,
    experiment.learning_rate,
  )
  return {
    'machine': machine.describe(),
    **training_results,
    'ratios': training_results['ratios'] | decision_results['ratios'],
    'decision_ms': decision_results['decision_ms'],
    'startup_s': timing.medians(start_seconds),
    'starts': timing.spread(start_seconds),
    'trainer_overhead': overhead,
    'peak_memory': max(start.peak_memory for start in starts['warm']),
  }


def scale(
  config: config_lib.GRPOConfig, repeats: int, directory: pathlib.Path
) -> str:
  """Measures how costs scale, and writes scaling.json and scaling.png.

  Args:
    config: config of a training run.
    repeats: number of timed calls of each program.
    directory: output directory; created if it does not exist.

  Returns:
    A table of the exponents.
  """
  run_directory.create(directory, '--scaling')
  results = scaling.measure(
    config, repeats, lambda line: print(line, flush=True)
  )
  text = json.dumps({'machine': machine.describe(), 'axes': results}, indent=2)
  (directory / 'scaling.json').write_text(text + '\n')
  plots.save(directory / 'scaling.png', plots.scaling(results))
  return f'\n{scaling.table(results)}'


def exchange(config: config_lib.GRPOConfig, repeats: int) -> str:
  """Returns a table of the communication costs, see `exchange.measure`."""
  return exchange_lib.table(exchange_lib.measure(config, repeats))


def _set_small_programs() -> None:
  jax_environment.set_defaults(small_programs=True)


def _measure_decisions(config, repeats, botorch):
  experiment = builder.from_config(config)
  parts = experiment.parts
  params = agent.initial_state(experiment.config.seed, parts).params
  return decisions.measure(parts.network, params, repeats, botorch)
