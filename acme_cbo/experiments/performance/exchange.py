"""What processes that train as one exchange, and for how many that is little.

Two processes of this machine are measured, each on half of its cores; what more
would take follows from how a ring reduces: of n processes each sends 2 (n - 1)
messages of 1/n of the array (Patarasuk and Yuan, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", 2009).
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
from acme_cbo.experiments.performance import timing
from acme_cbo.infra import cpu
from acme_cbo.runtimes import mesh
from acme_cbo.runtimes import process_group

_SIZE = 2
# Floats of the arrays that are reduced, to tell a message from its bytes.
_NUM_FLOATS = (1, 1 << 12, 1 << 16, 1 << 20)
# Share of an update above which an exchange is not little.
_LITTLE = 0.1
_MOST_PROCESSES = 1 << 20
_FLOAT = 4
# In the text of a compiled program: what comes out, and what was done.
_EXCHANGE = re.compile(r'= (.*?) (all-reduce|all-gather)(?:-start)?\(')
_ARRAY = re.compile(r'([a-z]+\d*)\[([\d,]*)\]')
_BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'pred': 1}
# Numbers of processes that the table has.
_SHOWN = (2, 8, 64, 512)


class Link(NamedTuple):
  """How two processes are connected.

  Attributes:
    latency: seconds of a message without content.
    bandwidth: bytes a second.
  """

  latency: float
  bandwidth: float


# What a data centre has, beside what is measured.
ETHERNET = Link(latency=50e-6, bandwidth=10e9 / 8)


class Exchanged(NamedTuple):
  """What each process exchanges in an update.

  Attributes:
    steps: gradient steps, each of which has the reductions.
    reductions: arrays, or tuples of them, that are reduced in a step.
    reduced: bytes of them.
    gathers: arrays that are gathered from all processes, once.
    gathered: bytes of them, whole.
  """

  steps: int
  reductions: int
  reduced: int
  gathers: int
  gathered: int

  @property
  def bytes(self) -> int:
    """All of an update."""
    return self.steps * self.reduced + self.gathered


def exchanged(texts: Sequence[str], steps: int) -> Exchanged:
  """What is in compiled programs of an update.

  Args:
    texts: of the programs, as XLA writes them.
    steps: gradient steps of an update.

  Returns:
    Its exchanges.
  """
  sizes: dict[str, list[int]] = {'all-reduce': [], 'all-gather': []}
  for text in texts:
    for result, kind in _EXCHANGE.findall(text):
      sizes[kind].append(
        sum(
          _BYTES[dtype] * math.prod(map(int, filter(None, shape.split(','))))
          for dtype, shape in _ARRAY.findall(result)
        )
      )
  reduced, gathered = sizes['all-reduce'], sizes['all-gather']
  return Exchanged(
    steps, len(reduced), sum(reduced), len(gathered), sum(gathered)
  )


def seconds(link: Link, what: Exchanged, size: int) -> float:
  """Of the exchanges of an update, for so many processes in a ring."""
  messages = (size - 1) * (2 * what.steps * what.reductions + what.gathers)
  share = (size - 1) / size
  content = share * (2 * what.steps * what.reduced + what.gathered)
  return messages * link.latency + content / link.bandwidth


def most(link: Link, what: Exchanged, update: Callable[[int], float]) -> int:
  """Up to how many processes an exchange is little beside the computing.

  Args:
    link: between them.
    what: is exchanged.
    update: number of processes -> seconds that each computes in an update.

  Returns:
    Their number, at most a million or so.
  """
  size = 1
  while size < _MOST_PROCESSES:
    after = math.ceil(size * 1.01)
    taken = seconds(link, what, after)
    if taken > _LITTLE * (taken + update(after)):
      break
    size = after
  return size


def measure(config: dict[str, Any], repeats: int) -> dict[str, Any]:
  """Two processes: what they exchange, and how long that takes.

  Args:
    config: checked.
    repeats: runs of each, in turn.

  Returns:
    `exchanged`; `update_s`, seconds of an update of both; `reduction_s`, of
    arrays by their bytes; `link`.
  """
  config = {**config, 'runtime': {**config['runtime'], 'kind': 'mesh'}}
  port = process_group.free_port()
  with futures.ProcessPoolExecutor(
    _SIZE, multiprocessing.get_context('spawn')
  ) as pool:
    found, _ = [
      each.result()
      for each in [
        pool.submit(_member, config, repeats, port, number)
        for number in range(_SIZE)
      ]
    ]
  return found


def _member(
  config: dict[str, Any], repeats: int, port: int, number: int
) -> dict[str, Any]:
  """What one of the processes measures."""
  os.sched_setaffinity(0, cpu.split_cores(_SIZE)[number])
  place = process_group.ProcessSpec('127.0.0.1', port, _SIZE, number)
  with process_group.join(place, config) as group:
    parts = builder.from_config(config).parts
    runtime = mesh.Mesh(parts, group)
    run = {name: traced.lower().compile() for name, traced in runtime.trace()}
    what = exchanged(
      [str(run[name].as_text()) for name in ('fill', 'act', 'learn')],
      parts.settings.steps_per_update,
    )
    state = runtime.init_state(run, 0)
    num_floats = sorted({*_NUM_FLOATS, what.reduced // _FLOAT})
    reduced = timing.medians(
      timing.interleaved(
        {str(n * _FLOAT): _reduction(runtime.devices, n) for n in num_floats},
        repeats,
        in_a_row=20,
      )
    )
    step, box = (
      agent.make_step({**runtime.programs, **run}),
      [runtime.device_put(state)],
    )

    def update():
      box[0], metrics = step(box[0])
      return metrics

    taken = timing.medians(timing.interleaved({'update': update}, repeats))
  by_bytes = {int(size): seconds for size, seconds in reduced.items()}
  # Two messages, each of half of the array; as quick as one of a gradient is.
  smallest, gradient = min(by_bytes), what.reduced
  link = Link(
    by_bytes[smallest] / 2,
    gradient / (by_bytes[gradient] - by_bytes[smallest]),
  )
  return {
    'exchanged': what._asdict(),
    'update_s': taken['update'],
    'reduction_s': by_bytes,
    'link': link._asdict(),
  }


def _reduction(devices, num_floats: int) -> Callable[[], jax.Array]:
  """A mean over all devices of as many floats of each."""
  over = jax.make_mesh(
    (len(devices),), ('all',), (jax.sharding.AxisType.Auto,), devices=devices
  )
  sharding = NamedSharding(over, PartitionSpec('all'))
  ones = np.ones(num_floats, np.float32)
  shared = jax.make_array_from_callback(
    (len(devices) * num_floats,), sharding, lambda index: ones
  )
  mean = jax.jit(
    jax.shard_map(
      lambda x: jax.lax.pmean(x, 'all'),
      mesh=over,
      in_specs=PartitionSpec('all'),
      out_specs=PartitionSpec(),
      check_vma=False,
    )
  )
  return functools.partial(mean, shared)


def table(found: dict[str, Any]) -> str:
  """The figures of `measure`, and what follows, as lines of text."""
  what, here = Exchanged(**found['exchanged']), Link(**found['link'])
  here_s = seconds(here, what, _SIZE)
  computing = found['update_s'] - here_s
  links = {'as measured': here, '10 Gbit/s, 50 us': ETHERNET}
  ways: dict[str, Callable[[int], float]] = {
    'as many SCMs each': lambda size: computing,
    'as many in all': lambda size: computing * _SIZE / size,
  }

  def line(name, *values):
    return f'  {name:<38}' + ''.join(f'{value:>10}' for value in values)

  def share(way, link, size):
    taken = seconds(link, what, size)
    return f'{taken / (taken + way(size)):.1%}'

  every = [
    (f'{way}, {link}', ways[way], links[link]) for way in ways for link in links
  ]
  return '\n'.join(
    [
      'what a process exchanges in an update',
      line('gradient steps', f'{what.steps:,}'),
      line('reductions in each', f'{what.reductions:,}'),
      line('bytes of them', f'{what.reduced:,}'),
      line('arrays gathered, once', f'{what.gathers:,}'),
      line('bytes of them', f'{what.gathered:,}'),
      line('bytes in all', f'{what.bytes:,}'),
      '\nmeasured between two processes of this machine',
      line('milliseconds of an update', f'{1e3 * found["update_s"]:,.1f}'),
      *(
        line(f'milliseconds to reduce {size / 1024:,.0f} KiB', f'{ms:,.3f}')
        for size, ms in (
          (size, 1e3 * taken) for size, taken in found['reduction_s'].items()
        )
      ),
      line('share of an update', f'{here_s / found["update_s"]:.2%}'),
      '\nshare of an update, of so many processes',
      line('', *_SHOWN),
      *(
        line(name, *(share(way, link, size) for size in _SHOWN))
        for name, way, link in every
      ),
      '\nprocesses up to which it is less than a tenth',
      *(line(name, f'{most(link, what, way):,}') for name, way, link in every),
    ]
  )
