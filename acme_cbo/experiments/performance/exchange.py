"""Benchmark of the communication between processes of data-parallel training.

Two processes on this machine are measured, each on half of the cores. The costs
of more processes are extrapolated for a ring all-reduce, in which each of n
processes sends 2 (n - 1) messages of 1/n of the array (Patarasuk and Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009).
"""

from collections.abc import Callable, Sequence
from concurrent import futures
import functools
import math
import multiprocessing
import os
import re
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments.performance import timing
from acme_cbo.infra import config_schema
from acme_cbo.infra import cpu
from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import handshake
from acme_cbo.runtimes import mesh
from acme_cbo.runtimes import process_group

_SIZE = 2
# Sizes of the reduced arrays, which separate latency from bandwidth.
_NUM_FLOATS = (1, 1 << 12, 1 << 16, 1 << 20)
# Largest share of an update that communication may take.
_MAX_SHARE = 0.1
_MAX_PROCESSES = 1 << 20
_BYTES_PER_FLOAT = 4
# Shape of the result, and kind of the collective, in the text of a program.
_COLLECTIVE = re.compile(r'= (.*?) (all-reduce|all-gather)(?:-start)?\(')
_ARRAY = re.compile(r'([a-z]+\d*)\[([\d,]*)\]')
_BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'pred': 1}
# Numbers of processes in the table.
_TABLE_SIZES = (2, 8, 64, 512)


class Link(NamedTuple):
  """Connection between two processes.

  Attributes:
    latency: seconds per empty message.
    bandwidth: bytes per second.
  """

  latency: float
  bandwidth: float


# Typical network of a data center, for comparison with the measured link.
ETHERNET = Link(latency=50e-6, bandwidth=10e9 / 8)


class Traffic(NamedTuple):
  """Communication of each process in an update.

  Attributes:
    steps: number of gradient steps.
    reductions: number of all-reduce operations per gradient step.
    reduced: bytes reduced per gradient step.
    gathers: number of all-gather operations per update.
    gathered: bytes of the gathered arrays per update.
  """

  steps: int
  reductions: int
  reduced: int
  gathers: int
  gathered: int

  @property
  def bytes(self) -> int:
    """Total number of bytes per update."""
    return self.steps * self.reduced + self.gathered


def count_traffic(texts: Sequence[str], steps: int) -> Traffic:
  """Counts the collectives in the compiled programs of an update.

  Args:
    texts: text of each program, as XLA prints it.
    steps: number of gradient steps per update.

  Returns:
    The `Traffic` of an update.
  """
  sizes: dict[str, list[int]] = {'all-reduce': [], 'all-gather': []}
  for text in texts:
    for shapes, kind in _COLLECTIVE.findall(text):
      sizes[kind].append(
        sum(
          _BYTES[dtype] * math.prod(map(int, filter(None, shape.split(','))))
          for dtype, shape in _ARRAY.findall(shapes)
        )
      )
  reduced, gathered = sizes['all-reduce'], sizes['all-gather']
  return Traffic(
    steps, len(reduced), sum(reduced), len(gathered), sum(gathered)
  )


def exchange_seconds(link: Link, traffic: Traffic, size: int) -> float:
  """Returns the seconds of communication per update in a ring of processes.

  Args:
    link: connection between neighbors in the ring.
    traffic: communication of each process.
    size: number of processes.
  """
  messages = (size - 1) * (
    2 * traffic.steps * traffic.reductions + traffic.gathers
  )
  share = (size - 1) / size
  content = share * (2 * traffic.steps * traffic.reduced + traffic.gathered)
  return messages * link.latency + content / link.bandwidth


def max_processes(
  link: Link, traffic: Traffic, computing: Callable[[int], float]
) -> int:
  """Returns the number of processes up to which communication is negligible.

  Args:
    link: connection between the processes.
    traffic: communication of each process.
    computing: number of processes -> seconds that each of them computes per
      update.

  Returns:
    The number up to which communication takes at most a tenth of an update,
    found in steps of 1 % and up to about `_MAX_PROCESSES`.
  """
  size = 1
  while size < _MAX_PROCESSES:
    larger = math.ceil(size * 1.01)
    seconds = exchange_seconds(link, traffic, larger)
    if seconds > _MAX_SHARE * (seconds + computing(larger)):
      break
    size = larger
  return size


def measure(config: config_lib.GRPOConfig, repeats: int) -> dict[str, Any]:
  """Measures the communication between two processes.

  Args:
    config: config of a training run.
    repeats: number of timed calls of each program, in turn.

  Returns:
    `exchanged` (the `Traffic`), `update_s` (seconds per update), `reduction_s`
    ({bytes of an array: seconds to reduce it}), and `link` (the `Link`).
  """
  config = config_schema.override(config, {'runtime.kind': 'mesh'})
  port, secret = addresses.free_port(), handshake.new_secret()
  specs = [
    process_group.ProcessSpec('127.0.0.1', port, _SIZE, index, secret)
    for index in range(_SIZE)
  ]
  with futures.ProcessPoolExecutor(
    _SIZE, multiprocessing.get_context('spawn')
  ) as pool:
    results, _ = [
      future.result()
      for future in [
        pool.submit(_measure_in_process, config, repeats, spec)
        for spec in specs
      ]
    ]
  return results


def _measure_in_process(
  config: config_lib.GRPOConfig,
  repeats: int,
  spec: process_group.ProcessSpec,
) -> dict[str, Any]:
  """Joins the group as one of its processes, and measures as `measure`."""
  os.sched_setaffinity(0, cpu.split_cores(_SIZE)[spec.process_id])
  with process_group.join(spec, config.to_dict()) as group:
    parts = builder.from_config(config).parts
    runtime = mesh.Mesh(parts, group)
    programs = {
      name: traced.lower().compile() for name, traced in runtime.trace()
    }
    traffic = count_traffic(
      [str(programs[name].as_text()) for name in ('fill', 'act', 'learn')],
      parts.update.steps_per_update,
    )
    state = runtime.init_state(programs, 0)
    num_floats = sorted({*_NUM_FLOATS, traffic.reduced // _BYTES_PER_FLOAT})
    reduction_seconds = timing.medians(
      timing.time_interleaved(
        {
          str(n * _BYTES_PER_FLOAT): _make_reduction(runtime.devices, n)
          for n in num_floats
        },
        repeats,
        calls_per_turn=20,
      )
    )
    step = agent.make_step({**runtime.programs, **programs})
    # The state is donated, and so replaced at every call.
    states = [runtime.device_put(state)]

    def update():
      states[0], metrics = step(states[0])
      return metrics

    medians = timing.medians(
      timing.time_interleaved({'update': update}, repeats)
    )
  by_bytes = {int(size): s for size, s in reduction_seconds.items()}
  # A reduction between two processes takes two messages of half of the array.
  # The bandwidth is that of an array of the size of the gradient.
  smallest, gradient = min(by_bytes), traffic.reduced
  link = Link(
    by_bytes[smallest] / 2,
    gradient / (by_bytes[gradient] - by_bytes[smallest]),
  )
  return {
    'exchanged': traffic._asdict(),
    'update_s': medians['update'],
    'reduction_s': by_bytes,
    'link': link._asdict(),
  }


def _make_reduction(devices, num_floats: int) -> Callable[[], jax.Array]:
  """Returns a function that averages an array over all devices."""
  device_mesh = jax.make_mesh(
    (len(devices),), ('all',), (jax.sharding.AxisType.Auto,), devices=devices
  )
  sharding = NamedSharding(device_mesh, PartitionSpec('all'))
  ones = np.ones(num_floats, np.float32)
  array = jax.make_array_from_callback(
    (len(devices) * num_floats,), sharding, lambda index: ones
  )
  mean = jax.jit(
    jax.shard_map(
      lambda x: jax.lax.pmean(x, 'all'),
      mesh=device_mesh,
      in_specs=PartitionSpec('all'),
      out_specs=PartitionSpec(),
      check_vma=False,
    )
  )
  return functools.partial(mean, array)


def table(results: dict[str, Any]) -> str:
  """Formats the results of `measure`, and their extrapolation, as text."""
  traffic, link = Traffic(**results['exchanged']), Link(**results['link'])
  measured_s = exchange_seconds(link, traffic, _SIZE)
  computing = results['update_s'] - measured_s
  links = {'measured link': link, '10 Gbit/s, 50 us': ETHERNET}
  scalings: dict[str, Callable[[int], float]] = {
    'SCMs per process fixed': lambda size: computing,
    'SCMs in total fixed': lambda size: computing * _SIZE / size,
  }

  def line(name, *values):
    return f'  {name:<42}' + ''.join(f'{value:>10}' for value in values)

  def share(computing, link, size):
    seconds = exchange_seconds(link, traffic, size)
    return f'{seconds / (seconds + computing(size)):.1%}'

  cases = [
    (f'{scaling_name}, {link_name}', scaling, link)
    for scaling_name, scaling in scalings.items()
    for link_name, link in links.items()
  ]
  return '\n'.join(
    [
      'communication of a process per update',
      line('gradient steps', f'{traffic.steps:,}'),
      line('all-reduces per gradient step', f'{traffic.reductions:,}'),
      line('bytes reduced per gradient step', f'{traffic.reduced:,}'),
      line('all-gathers', f'{traffic.gathers:,}'),
      line('bytes gathered', f'{traffic.gathered:,}'),
      line('bytes in total', f'{traffic.bytes:,}'),
      '\ntwo processes on this machine',
      line('milliseconds per update', f'{1e3 * results["update_s"]:,.1f}'),
      *(
        line(
          f'milliseconds to reduce {size / 1024:,.0f} KiB', f'{1e3 * s:,.3f}'
        )
        for size, s in results['reduction_s'].items()
      ),
      line('communication', f'{measured_s / results["update_s"]:.2%}'),
      '\ncommunication as a share of an update, by number of processes',
      line('', *_TABLE_SIZES),
      *(
        line(name, *(share(scaling, link, size) for size in _TABLE_SIZES))
        for name, scaling, link in cases
      ),
      '\nnumber of processes up to which the share is below 10 %',
      *(
        line(name, f'{max_processes(link, traffic, scaling):,}')
        for name, scaling, link in cases
      ),
    ]
  )
