"""Makes the runtime that a config names."""

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
from acme_cbo.infra import errors
from acme_cbo.runtimes import compilation
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
  """Makes the runtime that runs the updates.

  Args:
    parts: of an update.
    settings: which runtime, and its options.
    simulator: of the systems to train on; empty where they are SCMs.
    group: the processes that train together.

  Returns:
    The runtime.

  Raises:
    errors.UsageError: it cannot run them, or not in several processes.
  """
  kind = settings.kind
  if group.size > 1 and kind == 'fused':
    raise errors.UsageError(
      "config.runtime.kind is 'fused', which runs in one process; several need "
      "'mesh' or 'threaded'"
    )
  if kind == 'mesh':
    return mesh.Mesh(parts, group)
  if simulator:
    if group.size > 1:
      raise errors.UsageError(
        'config.simulator is trained on in one process; leave out '
        '--coordinator, --num_processes and --process_id'
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


@functools.cache  # What it is made for may be a process, which takes a while.
def simulator_and_problem(
  settings: environments_config.SimulatorConfig, max_set_size: int
) -> tuple[Callable[[], environment.Simulator], types.Problem]:
  """Returns a maker of simulators, and the `Problem` of each of them."""
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
  """Compiles the programs of a runtime, or loads them.

  Args:
    runtime: whose programs they are.
    traced_from: values, as JSON can hold them, that decide what is traced.
    quick_compile: compile quickly rather than well, here and from here on.

  Returns:
    {name: program}, those compiled that an update calls.
  """
  if quick_compile:
    jax.config.update('jax_disable_most_optimizations', True)
  compiled = compilation.load_or_compile(
    [traced_from, runtime.layout],
    runtime.devices,
    runtime.trace,
    lambda: print('compiling, half a minute or so …', flush=True),
  )
  return {**runtime.programs, **compiled}
