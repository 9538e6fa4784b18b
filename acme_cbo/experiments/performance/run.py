"""All measurements of a benchmark, each kind in a process that suits it."""

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
from acme_cbo.experiments.performance import decisions
from acme_cbo.experiments.performance import exchange as exchange_lib
from acme_cbo.experiments.performance import machine
from acme_cbo.experiments.performance import report
from acme_cbo.experiments.performance import scaling
from acme_cbo.experiments.performance import startup
from acme_cbo.experiments.performance import timing
from acme_cbo.experiments.performance import training
from acme_cbo.infra import cli
from acme_cbo.infra import run_directory

# Trainings that are started, of each kind.
_STARTS = 3
# A config file of one that was read and changed already.
_CONFIG_FILE = """import json
import pathlib

import ml_collections


def get_config():
  text = (pathlib.Path(__file__).parent / 'config.json').read_text()
  return ml_collections.ConfigDict(json.loads(text))
"""


def run(
  config: dict[str, Any],
  repeats: int,
  botorch: Sequence[str],
  path: str | None,
) -> None:
  """Measures, prints a table, and writes the figures down.

  Args:
    config: checked.
    repeats: runs of each, in turn.
    botorch: see `decisions.measure`.
    path: of a JSON file; None writes none.

  Raises:
    errors.UsageError: no such file can be written.
  """
  out = pathlib.Path(path) if path else None
  if out:
    run_directory.check_file(out, '--out')
  # As Ctrl-C, so that what it has started ends with it.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  figures = measure(
    config,
    repeats,
    botorch,
    lambda line: print(f'measuring {line} ...', file=sys.stderr, flush=True),
  )
  print(report.table(figures), flush=True)
  if out:
    run_directory.write_json(out, figures)


def measure(
  config: dict[str, Any],
  repeats: int,
  botorch: Sequence[str],
  say: Callable[[str], None],
) -> dict[str, Any]:
  """How fast a config trains, decides and starts.

  Args:
    config: checked.
    repeats: runs of each, in turn.
    botorch: see `decisions.measure`.
    say: is told what comes next.

  Returns:
    What `training.measure` and `decisions.measure` return, with `startup_s`,
    the medians of `starts`, `trainer_overhead`, `peak_memory`, the bytes that a
    training with all its programs kept has held up to its first update, and
    `machine`.
  """
  experiment = builder.from_config(config)
  say('decisions, of 5 variables and 100 records')
  # Nothing of this process slows down what is timed in others.
  with futures.ProcessPoolExecutor(
    1, multiprocessing.get_context('spawn'), _one_decision_at_a_time
  ) as other:
    decided = other.submit(_decide, config, repeats, botorch).result()
  say(f'{_STARTS} cold and {_STARTS} warm starts of a training')
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory)
    (path / 'config.json').write_text(json.dumps(config))
    (path / 'config.py').write_text(_CONFIG_FILE)
    started = startup.measure([f'--config={path / "config.py"}'], _STARTS)
  starts = {
    kind: [start.seconds for start in made] for kind, made in started.items()
  }
  say('acting and learning, in several ways, in turn')
  trained = training.measure(experiment.parts, repeats)
  overhead = training.trainer_overhead(
    agent.make_step(agent.programs(experiment.parts)),
    agent.initial_state(experiment.seed, experiment.parts),
    4 * repeats,
    experiment.learning_rate,
  )
  return {
    'machine': machine.facts(),
    **trained,
    'ratios': trained['ratios'] | decided['ratios'],
    'decision_ms': decided['decision_ms'],
    'startup_s': timing.medians(starts),
    'starts': timing.spread(starts),
    'trainer_overhead': overhead,
    'peak_memory': max(start.peak_memory for start in started['warm']),
  }


def scale(config: dict[str, Any], repeats: int, directory: pathlib.Path) -> str:
  """Measures how the costs of a config grow; writes scaling.json and .png.

  Args:
    config: checked.
    repeats: runs of each.
    directory: made where it is missing.

  Returns:
    The exponents, as a table.
  """
  run_directory.create(directory, '--scaling')
  found = scaling.measure(config, repeats, lambda line: print(line, flush=True))
  text = json.dumps({'machine': machine.facts(), 'axes': found}, indent=2)
  (directory / 'scaling.json').write_text(text + '\n')
  plots.save(directory / 'scaling.png', plots.scaling(found))
  return f'\n{scaling.table(found)}'


def exchange(config: dict[str, Any], repeats: int) -> str:
  """Measures what two processes exchange, see `exchange.measure`: a table."""
  return exchange_lib.table(exchange_lib.measure(config, repeats))


def _one_decision_at_a_time() -> None:
  cli.set_environment(small_programs=True)


def _decide(config, repeats, botorch):
  experiment = builder.from_config(config)
  parts = experiment.parts
  params = agent.initial_state(experiment.seed, parts).params
  return decisions.measure(parts.network, params, repeats, botorch)
