"""What was measured, as a table to read."""

from collections.abc import Iterator, Mapping
from typing import Any


def table(figures: Mapping[str, Any]) -> str:
  """The figures of a benchmark.

  Args:
    figures: what launchers/benchmark.py writes.

  Returns:
    Lines of text.
  """
  facts, sizes = figures['machine'], figures['sizes']
  ceilings = figures['ceilings']
  lines = [
    f'{facts["cores"]} cores, {facts["device"]}, jax {facts["jax"]}; matrix '
    f'product {ceilings["operations_per_second"] / 1e9:.0f} GFLOP/s of '
    f'float32, memory {ceilings["bytes_per_second"] / 1e9:.0f} GB/s',
    f'{sizes["num_tasks"]} SCMs x {sizes["num_generations"]} episodes of '
    f'{sizes["num_interventions"]} interventions, '
    f'{sizes["num_observations"]} observations, {sizes["max_variables"]} '
    'variables',
  ]
  lines += _listed('how fast', _rates(figures))
  lines += _listed('how many times as fast', _ratios(figures['ratios']))
  lines += _columns(
    'share of the ceiling of',
    ('operations', 'memory'),
    {
      name: (f'{share:.0%}', f'{figures["memory_share"][name]:.0%}')
      for name, share in figures['ceiling_share'].items()
    },
  )
  lines += _columns(
    'milliseconds',
    ('median', 'min', 'max'),
    {
      name: tuple(f'{1e3 * one[what]:.4g}' for what in ('median', 'min', 'max'))
      for name, one in figures['seconds'].items()
    },
  )
  return '\n'.join(lines)


def _listed(title, rows) -> list[str]:
  return ['', title, *(f'  {name:<44}{value:>12}' for name, value in rows)]


def _columns(title, names, rows) -> list[str]:
  head = f'{title:<26}' + ''.join(f'{name:>12}' for name in names)
  return [
    '',
    head,
    *(
      f'  {name:<24}' + ''.join(f'{value:>12}' for value in values)
      for name, values in rows.items()
    ),
  ]


def _rates(figures) -> Iterator[tuple[str, str]]:
  for name, rate in figures['interventions_per_second'].items():
    yield f'interventions a second, {name}', f'{rate:,.0f}'
  for name, one in figures['decision_ms'].items():
    yield (
      f'milliseconds of a decision, {name.replace("_", " ")}',
      f'{one["median"]:.3g}',
    )
  for name, seconds in figures['startup_s'].items():
    yield f'seconds to the first update, {name}', f'{seconds:.1f}'
  for name, one in figures['starts'].items():
    yield (
      f'least and most of the starts, {name}',
      f'{one["min"]:.1f} - {one["max"]:.1f}',
    )
  for name, one in figures['compile'].items():
    yield (
      f'seconds to trace and to compile, {name}',
      f'{one["seconds_to_trace"]:.1f} + {one["seconds_to_compile"]:.1f}',
    )
    yield f'mebibytes of what it works out, {name}', f'{one["mebibytes"]:.0f}'
  for name, share in figures['share_of_acting'].items():
    yield (
      f'time of acting more by, {name.replace("_", " ")}',
      _or_not_measured(share, '.1%'),
    )
  yield 'share of an update in Python', f'{figures["python_share"]:.1%}'
  yield 'share that the trainer adds', f'{figures["trainer_overhead"]:.1%}'
  yield (
    'gibibytes at most, of a training',
    f'{figures["peak_memory"] / 2**30:.1f}',
  )


def _ratios(ratios) -> Iterator[tuple[str, str]]:
  for name, ratio in ratios.items():
    yield name.replace('_', ' '), _or_not_measured(ratio, '.1f')


def _or_not_measured(number, form) -> str:
  return 'not measured' if number is None else f'{number:{form}}'
