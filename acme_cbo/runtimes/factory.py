"""Construction of the runtime that a config selects."""

from collections.abc import Callable
import functools
from typing import Any

import jax

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import environment
from acme_cbo.environments import problem as problem_lib
from acme_cbo.environments import simulators
from acme_cbo.infra import compilation
from acme_cbo.infra import errors
from acme_cbo.runtimes import config
from acme_cbo.runtimes import fused
from acme_cbo.runtimes import mesh
from acme_cbo.runtimes import process_group
from acme_cbo.runtimes import simulated
from acme_cbo.runtimes import threaded


def make_runtime(
  parts: agent.Parts,
  settings: config.RuntimeConfig,
  simulator: environments_config.SimulatorConfig,
  group: process_group.Group,
) -> fused.Fused:
  """Returns the runtime that a config selects.

  Args:
    parts: parts of an update.
    settings: kind of the runtime, and its options.
    simulator: simulator to train on; empty for SCMs from the prior.
    group: processes that train together.

  Returns:
    The runtime.

  Raises:
    errors.UsageError: the runtime does not support the simulator or several
      processes.
  """
  kind = settings.kind
  if group.size > 1 and kind == 'fused':
    raise errors.UsageError(
      "config.runtime.kind is 'fused', which runs in one process; use 'mesh' "
      "or 'threaded' for several"
    )
  if kind == 'mesh':
    return mesh.Mesh(parts, group)
  if simulator:
    if group.size > 1:
      raise errors.UsageError(
        'training on config.simulator runs in one process; omit --coordinator, '
        '--num_processes and --process_id'
      )
    make, problem = simulator_and_problem(simulator, parts.prior.max_set_size)
    return simulated.Simulated(
      parts,
      settings.num_actors,
      settings.max_lag,
      settings.stall_seconds,
      problem,
      make,
    )
  if kind == 'threaded':
    return threaded.Threaded(
      parts,
      settings.num_actors,
      settings.max_lag,
      settings.stall_seconds,
      group,
    )
  return fused.Fused(parts)


@functools.cache  # A simulator may be a process, which takes a while to start.
def simulator_and_problem(
  settings: environments_config.SimulatorConfig, max_set_size: int
) -> tuple[Callable[[], environment.Simulator], types.Problem]:
  """Returns a factory of simulators and the `Problem` of all of them.

  Args:
    settings: simulator of the config.
    max_set_size: largest number of variables of one intervention.
  """
  make = simulators.make_factory(settings)
  one = make()
  try:
    problem = problem_lib.from_simulator(one, max_set_size)
    return simulators.matching_factory(make, one), problem
  finally:
    simulators.close(one)


def compile_programs(
  runtime: fused.Fused, traced_from: Any, quick_compile: bool
) -> dict[str, Callable[..., Any]]:
  """Compiles the programs of a runtime or loads them from the cache.

  Args:
    runtime: runtime to compile for.
    traced_from: JSON values that determine the traced programs.
    quick_compile: whether to disable most optimizations, for this process from
      now on.

  Returns:
    Programs by name; those of an update are compiled.
  """
  if quick_compile:
    jax.config.update('jax_disable_most_optimizations', True)
  compiled = compilation.load_or_compile(
    [traced_from, runtime.layout],
    runtime.devices,
    runtime.trace,
    lambda: print('compiling (about half a minute) …', flush=True),
  )
  return {**runtime.programs, **compiled}
