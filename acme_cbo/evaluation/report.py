"""Results as text for people."""

from typing import Any

_COLUMNS = (
  ('first', 'score_first'),
  ('mean', 'score_mean'),
  ('best', 'score_best'),
  ('last', 'score_last'),
)


def summary(found: dict[str, Any]) -> str:
  """What a run came to, as the terminal shows it.

  Args:
    found: `described`, `evaluation`, `grpo_minus`, `belief`, as in the
      `summary.json` of a finished run.

  Returns:
    Lines of text.
  """
  confidence = found['confidence']
  known = columns = ''
  if found['belief']:
    columns = ' The columns of families: last choice.'
    known = (
      '\n\nBelief in the parents of the target, before the first intervention '
      f'and after the last:\n{beliefs(found["belief"])}'
    )
  return (
    f'{found["described"]}\n'
    f'In brackets: {confidence:.0%} intervals.{columns}\n\n'
    f'{table(found["evaluation"])}\n\n'
    f'{comparison("grpo", found["grpo_minus"], confidence)}{known}'
  )


def model_card(
  found: dict[str, Any],
  config: dict[str, Any],
  starts: list[dict[str, Any]],
  directory: str,
) -> str:
  """What a trained policy is, for whoever finds it.

  Args:
    found: as for `summary`, and `name`, `seed`, `updates`, `parameters`.
    config: of the run.
    starts: what it was started with each time, from its `environment.json`.
    directory: where the policy is.

  Returns:
    Markdown.
  """
  scms, horizon, rewards = (config[x] for x in ('scms', 'horizon', 'rewards'))
  start = starts[-1]
  commands = '\n'.join(entry['command'] for entry in starts)
  code = start['git'] or {'revision': 'unknown', 'dirty': False}
  weights = ', '.join(
    f'{name} {x:g}' for name, x in rewards.items() if not isinstance(x, str)
  )
  simulator = config['simulator']['make'] or config['simulator']['command']
  systems = (
    f'- systems of the simulator `{simulator}`'
    if simulator
    else f'- systems of {scms["min_variables"]} to {scms["max_variables"]} '
    'variables,\n  drawn at random: graphs, equations (linear and nonlinear), '
    'noise and units\n'
    f'- {"hidden" if scms["latent"] else "no hidden"} common causes'
  )
  return f"""# {found['name']}, seed {found['seed']}

A policy that chooses experiments: given records of a system and the experiments
so far, which variable to set next and to what value, so that one variable, the
target, becomes as large or as small as possible. It is not told which variable
causes which. It has {found['parameters']:,} parameters and was trained by GRPO,
for {found['updates']} updates.

## What it was trained for

{systems}
- up to {scms['max_set_size']} of the variables set at a time
- {horizon['num_observations']} records before the first experiment,
  {horizon['num_interventions']} experiments
- rewards: {weights}; simple_regret_share {found['simple_regret_share']:g},
  regret_floor {found['regret_floor']:g}

Anything else was not tried: larger systems, other numbers of records.

## How good it is

On systems that training never saw; every policy met the same ones, with the
same data and noise.

```
{summary(found)}
```

## How to use it

From the folder of the code:

```python
import pathlib
from acme_cbo import trained_policy

network, params, about = trained_policy.load(
  pathlib.Path({directory!r})
)
```

`acme_cbo.evaluation.policies.trained(network, params, (), num_turns, pick)` is
the policy as `acme_cbo.evaluation.evaluate.episode` plays it: `num_turns` says
how many variables it may set at once, `pick` how it decides. The directory
needs no other file of this run.

## How it was made

```sh
{commands}
```

Code at revision {code['revision']}{' with changes' if code['dirty'] else ''},
jax {start['versions']['jax']} on {', '.join(start['devices'])}. Every setting
is in `config.json`.
"""


def table(evaluation: dict[str, Any]) -> str:
  """The policies side by side, best last score first.

  Args:
    evaluation: from `statistics.summarise`.

  Returns:
    A table of fixed-width text: means with intervals, the interquartile mean
    of the last score, and the last score by family.
  """
  families = sorted(
    {family for entry in evaluation.values() for family in entry['by_family']}
    - {'simulator'},
    key=lambda family: (family != 'linear', family != 'nonlinear', family),
  )
  head = ['policy', *(f'{name} choice' for name, _ in _COLUMNS), 'last, IQM']
  head[2] = 'all choices'
  lines = [[*head, *families]]
  ranked = sorted(
    evaluation.items(), key=lambda item: -item[1]['score_last']['mean']
  )
  for policy, entry in ranked:
    cells = [policy]
    cells += [interval(entry[key]) for _, key in _COLUMNS]
    cells.append(f'{entry["score_last"]["iqm"]:.2f}')
    for family in families:
      found = entry['by_family'].get(family)
      cells.append(f'{found["score_last"]["mean"]:.2f}' if found else '')
    lines.append(cells)
  return align(lines)


def comparison(
  policy: str, differences: dict[str, Any], confidence: float
) -> str:
  """How far a policy is above the others, a line for each of them.

  Args:
    policy: the one that is compared.
    differences: from `statistics.paired_differences`.
    confidence: of their intervals.

  Returns:
    Lines of text that end in a verdict: above or below in both, or undecided.
  """
  lines = [
    [f'{policy} minus', 'all choices', 'last choice', f'at {confidence:.0%}']
  ]
  for other, entry in differences.items():
    scores = [entry['score_mean'], entry['score_last']]
    if all(score['interval'][0] > 0 for score in scores):
      verdict = 'above'
    elif all(score['interval'][1] < 0 for score in scores):
      verdict = 'below'
    else:
      verdict = 'undecided'
    lines.append([other, *(interval(s, sign=True) for s in scores), verdict])
  return align(lines)


def beliefs(quality: dict[str, Any]) -> str:
  """How well each belief knows the parents, a line for each group of SCMs.

  Args:
    quality: from `statistics.by_step`.

  Returns:
    A table of fixed-width text: each quality before the first intervention and
    after the last.
  """
  lines = [
    ['belief', 'SCMs', 'F1', 'AUROC', 'calibration error'],
  ]
  for belief, groups in quality.items():
    for group, found in groups.items():
      cells = [
        f'{steps[0]:.2f} -> {steps[-1]:.2f}'
        for steps in (found['f1'], found['auroc'], found['ece'])
      ]
      lines.append([belief, group, *cells])
  return align(lines)


def interval(
  entry: dict[str, Any], sign: bool = False, decimals: int = 2
) -> str:
  """As `0.71 [0.69, 0.73]`; as `0.71` where there is no interval."""
  spec = f'{"+" if sign else ""}.{decimals}f'
  mean = f'{entry["mean"]:{spec}}'
  if entry['interval'] is None:
    return mean
  low, high = entry['interval']
  return f'{mean} [{low:{spec}}, {high:{spec}}]'


def align(lines: list[list[str]], num_left: int = 1) -> str:
  """Rows of cells as text of fixed width, the first columns to the left."""
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) if i < num_left else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )
