"""Table of the results of a benchmark."""

from collections.abc import Iterator, Mapping
from typing import Any


def table(results: Mapping[str, Any]) -> str:
  """Formats the results of a benchmark as text.

  Args:
    results: return value of `run.measure`.

  Returns:
    Lines of text.
  """
  hardware, sizes = results['machine'], results['sizes']
  ceilings = results['ceilings']
  lines = [
    f'{hardware["cores"]} cores, {hardware["device"]}, jax {hardware["jax"]}; '
    f'matrix product {ceilings["operations_per_second"] / 1e9:.0f} GFLOP/s in '
    f'float32, memory {ceilings["bytes_per_second"] / 1e9:.0f} GB/s',
    f'{sizes["num_tasks"]} SCMs x {sizes["num_generations"]} episodes of '
    f'{sizes["num_interventions"]} interventions, '
    f'{sizes["num_observations"]} observations, {sizes["max_variables"]} '
    'variables',
  ]
  lines += _list('speed', _rates(results))
  lines += _list('speedup', _ratios(results['ratios']))
  lines += _columns(
    'share of the ceiling',
    ('operations', 'memory'),
    {
      name: (f'{share:.0%}', f'{results["memory_share"][name]:.0%}')
      for name, share in results['ceiling_share'].items()
    },
  )
  lines += _columns(
    'milliseconds',
    ('median', 'min', 'max'),
    {
      name: tuple(f'{1e3 * times[k]:.4g}' for k in ('median', 'min', 'max'))
      for name, times in results['seconds'].items()
    },
  )
  return '\n'.join(lines)


def _list(title, rows) -> list[str]:
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


def _rates(results) -> Iterator[tuple[str, str]]:
  for name, rate in results['interventions_per_second'].items():
    yield f'interventions per second, {name}', f'{rate:,.0f}'
  for name, times in results['decision_ms'].items():
    yield (
      f'milliseconds per decision, {name.replace("_", " ")}',
      f'{times["median"]:.3g}',
    )
  for name, seconds in results['startup_s'].items():
    yield f'seconds to the first update, {name}', f'{seconds:.1f}'
  for name, times in results['starts'].items():
    yield (
      f'fastest and slowest start, {name}',
      f'{times["min"]:.1f} - {times["max"]:.1f}',
    )
  for name, costs in results['compile'].items():
    yield (
      f'seconds to trace and to compile, {name}',
      f'{costs["seconds_to_trace"]:.1f} + {costs["seconds_to_compile"]:.1f}',
    )
    yield f'mebibytes of temporary arrays, {name}', f'{costs["mebibytes"]:.0f}'
  for name, share in results['share_of_acting'].items():
    yield (
      f'acting time added by, {name.replace("_", " ")}',
      _format_optional(share, '.1%'),
    )
  yield 'share of an update in Python', f'{results["python_share"]:.1%}'
  yield 'overhead of the trainer', f'{results["trainer_overhead"]:.1%}'
  yield (
    'peak gibibytes of a training run',
    f'{results["peak_memory"] / 2**30:.1f}',
  )


def _ratios(ratios) -> Iterator[tuple[str, str]]:
  for name, ratio in ratios.items():
    yield name.replace('_', ' '), _format_optional(ratio, '.1f')


def _format_optional(number, spec) -> str:
  return 'not measured' if number is None else f'{number:{spec}}'
