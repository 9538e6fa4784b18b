"""Text reports of training runs: tables of scores and the model card."""

from typing import Any

from acme_cbo.scms import config as scms_config

_COLUMNS = (
  ('first', 'score_first'),
  ('mean', 'score_mean'),
  ('best', 'score_best'),
  ('last', 'score_last'),
)


def summary(results: dict[str, Any]) -> str:
  """Returns the results of a training run as text for the terminal.

  Args:
    results: the entries `described`, `confidence`, `evaluation`, `grpo_minus`
      and `belief` of the `summary.json` of a finished run.

  Returns:
    Lines of text.
  """
  confidence = results['confidence']
  families = beliefs = ''
  if results['belief']:
    families = ' By family: score of the last intervention.'
    beliefs = (
      '\n\nBelief in the parents of the target, before the first and after the '
      f'last intervention:\n{belief_table(results["belief"])}'
    )
  return (
    f'{results["described"]}\n'
    'Columns: score of the first, mean, best and last intervention; in '
    f'brackets {confidence:.0%} intervals.{families}\n\n'
    f'{score_table(results["evaluation"])}\n\n'
    f'{difference_table("grpo", results["grpo_minus"], confidence)}{beliefs}'
  )


def model_card(
  results: dict[str, Any],
  config: dict[str, Any],
  starts: list[dict[str, Any]],
  directory: str,
) -> str:
  """Returns the model card of a trained policy.

  Args:
    results: the entries of `summary`, and `name`, `seed`, `updates`,
      `parameters`, `simple_regret_share` and `regret_floor`.
    config: config of the run.
    starts: entries of the `environment.json` of the run, one for each start.
    directory: directory of the saved policy.

  Returns:
    Text in Markdown.
  """
  scms, horizon, rewards = (config[x] for x in ('scms', 'horizon', 'rewards'))
  start = starts[-1]
  commands = '\n'.join(entry['command'] for entry in starts)
  git = start['git'] or {'revision': 'unknown', 'dirty': False}
  weights = ', '.join(
    f'{name} {x:g}' for name, x in rewards.items() if not isinstance(x, str)
  )
  simulator = config['simulator']['make'] or config['simulator']['command']
  systems = (
    f'- systems of the simulator `{simulator}`'
    if simulator
    else f'- systems of {scms["min_variables"]} to {scms["max_variables"]} '
    'variables,\n  sampled at random: graphs, equations (linear and '
    'nonlinear), noise and units\n'
    f'- {"hidden" if scms["latent"] else "no hidden"} common causes'
  )
  known = ', but for edges that a user knows' if scms['informed'] else ''
  _, *further = scms_config.trained_sizes(config)
  further_sizes = ''.join(
    f'- also {observations} observations and {experiments} experiments,\n'
    f'  with at most {variables} variables, {set_size} set at a time\n'
    for observations, experiments, set_size, variables in further
  )
  return f"""# {results['name']}, seed {results['seed']}

A policy that chooses experiments. Given observations of a system and the
results of earlier experiments, it chooses which variables to set next, and to
which values, in order to maximize or minimize one variable, the target. The
causal graph is unknown to it{known}. The policy has {results['parameters']:,}
parameters and was trained by GRPO for {results['updates']} updates.

## Training distribution

{systems}
- number of variables set at a time: at most {scms['max_set_size']}
- {horizon['num_observations']} observations before the first experiment,
  {horizon['num_interventions']} experiments
{further_sizes}- rewards: {weights};
  simple_regret_share {results['simple_regret_share']:g},
  regret_floor {results['regret_floor']:g}

The policy was not evaluated on anything else, such as larger systems or other
numbers of observations.

## Evaluation

On held-out systems that were not used in training. All policies are evaluated
on the same systems, with the same data and noise.

```
{summary(results)}
```

## Usage

```python
import acme_cbo

policy = acme_cbo.load_policy({directory!r})
session = policy.start(
  records,
  target='y',
  goal='maximize',
  domains={{'x': (-3, 3), 'z': (-3, 3)}},
  num_interventions={horizon['num_interventions']},
)
for _ in range({horizon['num_interventions']}):
  do = session.choose()
  session.observe(experiment(do))
print(session.recommend())
```

`records` is a DataFrame of observations, with a column for each variable.
`domains` are the ranges of the variables that may be set. `experiment` carries
out `do`, such as `{{'z': 0.9}}`, and returns the value of every variable. No
other file of this run is needed.

## Reproduction

```sh
{commands}
```

Code at revision {git['revision']}{' with changes' if git['dirty'] else ''},
jax {start['versions']['jax']} on {', '.join(start['devices'])}. All settings
are in `config.json`.
"""


def score_table(evaluation: dict[str, Any]) -> str:
  """Returns a table of all policies, sorted by the last score.

  Args:
    evaluation: result of `statistics.summarize`.

  Returns:
    A table of fixed-width text: means with intervals, the interquartile mean
    of the last score, and the last score by family.
  """
  families = sorted(
    {family for entry in evaluation.values() for family in entry['by_family']}
    - {'simulator'},
    key=lambda family: (family != 'linear', family != 'nonlinear', family),
  )
  head = ['policy', *(name for name, _ in _COLUMNS), 'last, IQM']
  lines = [[*head, *families]]
  ranked = sorted(
    evaluation.items(), key=lambda item: -item[1]['score_last']['mean']
  )
  for policy, entry in ranked:
    cells = [policy]
    cells += [format_interval(entry[key]) for _, key in _COLUMNS]
    cells.append(f'{entry["score_last"]["iqm"]:.2f}')
    for family in families:
      scores = entry['by_family'].get(family)
      cells.append(f'{scores["score_last"]["mean"]:.2f}' if scores else '')
    lines.append(cells)
  return align(lines)


def difference_table(
  policy: str, differences: dict[str, Any], confidence: float
) -> str:
  """Returns a table of the differences between a policy and the others.

  Args:
    policy: name of the policy that is compared.
    differences: result of `statistics.paired_differences`.
    confidence: confidence level of their intervals.

  Returns:
    A row for each other policy. The last column is 'above' or 'below' where the
    differences of the mean and of the last score are both significant and of
    that sign, and 'undecided' otherwise.
  """
  lines = [[f'{policy} minus', 'mean', 'last', f'at {confidence:.0%}']]
  for other, entry in differences.items():
    scores = [entry['score_mean'], entry['score_last']]
    if all(score['interval'][0] > 0 for score in scores):
      verdict = 'above'
    elif all(score['interval'][1] < 0 for score in scores):
      verdict = 'below'
    else:
      verdict = 'undecided'
    lines.append(
      [other, *(format_interval(s, sign=True) for s in scores), verdict]
    )
  return align(lines)


def belief_table(quality: dict[str, Any]) -> str:
  """Returns a table of the quality of each belief in each group of SCMs.

  Args:
    quality: result of `statistics.by_step`.

  Returns:
    A table of fixed-width text: each quality before the first and after the
    last intervention.
  """
  lines = [
    ['belief', 'SCMs', 'F1', 'AUROC', 'calibration error'],
  ]
  for belief, groups in quality.items():
    for group, qualities in groups.items():
      cells = [
        f'{steps[0]:.2f} -> {steps[-1]:.2f}'
        for steps in (qualities['f1'], qualities['auroc'], qualities['ece'])
      ]
      lines.append([belief, group, *cells])
  return align(lines)


def format_interval(
  entry: dict[str, Any], sign: bool = False, decimals: int = 2
) -> str:
  """Returns `0.71 [0.69, 0.73]`, or `0.71` if there is no interval."""
  spec = f'{"+" if sign else ""}.{decimals}f'
  mean = f'{entry["mean"]:{spec}}'
  if entry['interval'] is None:
    return mean
  low, high = entry['interval']
  return f'{mean} [{low:{spec}}, {high:{spec}}]'


def align(lines: list[list[str]], num_left: int = 1) -> str:
  """Formats rows of cells as a table of fixed-width text.

  Args:
    lines: cells of each row, all rows of the same length.
    num_left: number of columns that are aligned to the left.

  Returns:
    Lines of text.
  """
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) if i < num_left else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )
