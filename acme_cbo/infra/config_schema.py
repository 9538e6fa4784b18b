"""Every field of a config: its type, its range, its meaning; and the checks.

Nothing here needs jax: a mistake is answered at once.
"""

import re
from typing import Any, NamedTuple

from acme_cbo.infra import errors

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')
_GRAPHS = ('chain', 'fork', 'star', 'erdos_renyi', 'scale_free')
_FAMILIES = (
  'linear',
  'fourier',
  'tanh',
  'sigmoid',
  'product',
  'exponential',
  'mixed',
  'bumps',
)
_NOISES = ('normal', 'uniform', 'laplace', 'gumbel')
# Of the exact belief, which sums over all sets.
_MAX_EXACT_VARIABLES = 8
_MAX_EXACT_ROWS = 100
# What cannot be had of a simulator.
_OF_THE_TRUTH = (
  ('rewards', 'structure'),
  ('rewards', 'parent'),
  ('grpo', 'parent_coefficient'),
  ('grpo', 'outcome_coefficient'),
  ('grpo', 'regret_floor'),
)


class Field(NamedTuple):
  """One field of a config.

  Attributes:
    meaning: in one line.
    low: the lowest number that is allowed; its type is that of the field.
    high: the highest.
    options: the values that are allowed, where they are few.
    members: what each number of a tuple is for.
    pattern: what each text of a tuple has to match, or the one text.
    is_text: whether it is one text.
  """

  meaning: str
  low: float = 0
  high: float = 0
  options: tuple[Any, ...] = ()
  members: tuple[str, ...] = ()
  pattern: str = ''
  is_text: bool = False

  @property
  def kind(self) -> type:
    """What a value has to be, or each number of a tuple."""
    return type(self.low)

  def allowed(self) -> str:
    """What is allowed, in words."""
    if self.options:
      return ', '.join(map(repr, self.options))
    if self.pattern:
      return 'text' if self.is_text else 'texts'
    spec = ',' if self.kind is int else 'g'
    text = f'{self.kind.__name__}, {self.low:{spec}} to {self.high:{spec}}'
    return f'{len(self.members)} of {text}' if self.members else text


def _count(meaning, low=1, high=10**7):
  return Field(meaning, low, high)


def _real(meaning, low=0.0, high=1000.0, **kwargs):
  return Field(meaning, low, high, **kwargs)


def _share(meaning):
  return Field(meaning, 0.0, 1.0)


def _positive(meaning):
  return Field(meaning, 1e-12, 1e6)


def _choice(meaning, *options):
  return Field(meaning, options=options)


# `name`, which is a text, is beside these.
FIELDS = {
  'seed': _count('of the training', 0, 2**31 - 1),
  'scms.min_variables': _count('variables of the smallest SCM', 2, 64),
  'scms.max_variables': _count('variables of the largest SCM', 2, 64),
  'scms.graph_weights': _real(
    'relative frequency of each graph', members=_GRAPHS
  ),
  'scms.family_weights': _real(
    'relative frequency of each family of equations', members=_FAMILIES
  ),
  'scms.noise_weights': _real(
    'relative frequency of each kind of noise', members=_NOISES
  ),
  'scms.min_density': _share('lowest edge probability of Erdos-Renyi graphs'),
  'scms.max_density': _share('highest edge probability of Erdos-Renyi graphs'),
  'scms.min_noise': _real(
    'lowest noise of a variable over its signal', 1e-3, 100.0
  ),
  'scms.max_noise': _real(
    'highest noise of a variable over its signal', 1e-3, 100.0
  ),
  'scms.settable': _real('probability that a variable may be set', 0.01, 1.0),
  'scms.min_width': _real(
    'smallest half-width of a domain, in observational deviations', 1e-2, 100.0
  ),
  'scms.max_width': _real(
    'largest half-width of a domain, in observational deviations', 1e-2, 100.0
  ),
  'scms.max_centre': _real(
    'furthest centre of a domain from the mean, in deviations', 0.0, 100.0
  ),
  'scms.min_gain': _real(
    'least gain of the best intervention, in deviations of the target',
    1e-3,
    100.0,
  ),
  'scms.min_length_scale': _real(
    'shortest wave of Fourier equations, in deviations of the causes',
    0.05,
    2.5,
  ),
  'scms.max_set_size': _count('variables that may be set at once', 1, 8),
  'scms.latent': _real(
    'probability that a variable is never watched', 0.0, 0.9
  ),
  'scms.averaged': _share(
    'SCMs of which the mean of many outcomes is watched, not one'
  ),
  'scms.budgeted': _share('SCMs with a budget of cost'),
  'scms.num_hidden': _count('hidden units of an equation', 2, 256),
  'scms.bank_size': _count('draws over which E[Y | do] is averaged', 8, 65536),
  'horizon.num_observations': _count('records before the first step', 2, 10000),
  'horizon.num_interventions': _count('steps of an episode', 1, 1000),
  'rewards.optimization': _real('weight of how good the intervention is'),
  'rewards.structure': _real('weight of what was learnt about the parents'),
  'rewards.parent': _real('weight of setting a parent of the target'),
  'rewards.exploration': _real('weight of going where nobody was'),
  'rewards.outcome': _choice(
    'optimization is of which outcome', 'expected', 'sampled'
  ),
  'rewards.potential': _choice(
    'structure is the gain in the log posterior of the truth, or the fall in '
    'entropy',
    'log_posterior',
    'entropy',
  ),
  'rewards.parents': _choice(
    'parent is by the belief or the truth', 'belief', 'truth'
  ),
  'rewards.belief': _choice(
    "the network's, or that of linear SCMs of at most 8 variables",
    'learned',
    'exact',
  ),
  'network.width': _count('of the residual stream', 4, 4096),
  'network.num_blocks': _count('blocks of attention', 1, 64),
  'network.num_heads': _count('heads, which divide the width', 1, 64),
  'network.mlp_factor': _count('hidden width of an MLP over the width', 1, 16),
  # The best intervention is searched for on the same cells: fewer miss it.
  'network.num_cells': _count('cells of a domain', 8, 256),
  'network.belief_input': _choice(
    'whether tokens carry the exact belief', 'none', 'exact'
  ),
  'grpo.num_tasks': _count('SCMs of an update'),
  'grpo.num_generations': _count('rollouts in the group of an SCM', 2, 4096),
  'grpo.num_iterations': _count(
    'passes over the rollouts of an update', 1, 100
  ),
  'grpo.num_minibatches': _count('gradient steps of a pass'),
  'grpo.gradient_accumulation_steps': _count(
    'parts of a minibatch whose gradients are taken in turn, for less memory'
  ),
  'grpo.epsilon': _real('clip of the ratio below 1', 1e-6, 1.0),
  'grpo.epsilon_high': _real('clip of the ratio above 1', 1e-6, 100.0),
  'grpo.beta': _real('weight of the divergence from the reference'),
  'grpo.reference_every': _count('updates between two references'),
  'grpo.baseline': _choice(
    'what a return is compared with', 'group', 'reached'
  ),
  'grpo.scale_rewards': _choice(
    'deviation by which advantages are divided', 'group', 'batch', 'none'
  ),
  'grpo.scale_components': _choice(
    'whether each component is divided by its own deviation', 'group', 'none'
  ),
  'grpo.supervision': _choice(
    'a step earns its return-to-go, or the whole return', 'process', 'outcome'
  ),
  'grpo.importance_sampling_level': _choice(
    'one ratio for each', 'decision', 'factor', 'sequence'
  ),
  'grpo.simple_regret_share': _share(
    'share of what optimization earns that is for the best so far'
  ),
  'grpo.regret_floor': _share(
    'regret down to which it counts by factors; 0 is by differences'
  ),
  'grpo.variable_entropy': _real('weight of the entropy of the variable'),
  'grpo.cell_entropy': _real('weight of the entropy of the cell'),
  'grpo.parent_coefficient': _real('weight of the loss of the belief'),
  'grpo.outcome_coefficient': _real('weight of the loss of the predictions'),
  'optimizer.learning_rate': _positive('at its highest'),
  'optimizer.warmup_updates': _count('updates over which it rises', 0),
  'optimizer.final_fraction': _share(
    'of the learning rate that is left at the end'
  ),
  'optimizer.max_grad_norm': _positive('norm at which a gradient is clipped'),
  'optimizer.weight_decay': _real('of the matrices'),
  'runtime.kind': _choice(
    'actor and learner in turn on one device, so on all, or beside each other',
    'fused',
    'mesh',
    'threaded',
  ),
  'runtime.num_actors': _count('threads that act, if threaded', 1, 1024),
  'runtime.max_lag': _count(
    'updates that the parameters of actors may be old; 0: lockstep', 0, 1024
  ),
  'runtime.stall_seconds': _real(
    'how long the learner waits for an actor', 0.1, 1e6
  ),
  'simulator.make': Field(
    "'module:function' that makes a simulator to train on instead of SCMs",
    pattern=r'|[\w.]+:\w+',
    is_text=True,
  ),
  'simulator.command': Field(
    'what starts a process that is such a simulator',
    pattern=r'.*',
    is_text=True,
  ),
  'training.num_updates': _count('of the whole run', 0),
  'training.eval_every': _count('updates between two evaluations'),
  'training.checkpoint_every': _count('updates between two checkpoints'),
  'training.max_checkpoints': _count(
    'latest checkpoints that are kept', 1, 10**4
  ),
  'training.best_checkpoints': _count(
    'checkpoints kept for the highest held-out score at the last choice',
    0,
    10**4,
  ),
  'training.quick_compile': _choice(
    'compile quickly rather than well', False, True
  ),
  'training.patience': _count(
    'evaluations without a better one after which the run stops; 0: never', 0
  ),
  'training.convergence_window': _count(
    'updates over which the reward stands still once it has converged', 40
  ),
  'training.convergence_tolerance': _positive(
    'change of the reward over a window that does not matter'
  ),
  'training.stop_when_converged': _choice(
    'whether the run stops then', False, True
  ),
  'training.profile_from': _count(
    'update from which a profile is written; 0: never', 0
  ),
  'training.profile_updates': _count('updates that the profile takes in'),
  'training.callbacks': Field(
    "callbacks of your own, each as 'module:Class'", pattern=r'[\w.]+:\w+'
  ),
  # Linear or nonlinear SCMs are then 5 or more, the least for an interval.
  'evaluation.num_tasks': _count('held-out SCMs', 10, 10**6),
  'evaluation.seed': _count('of the held-out SCMs', 0, 2**31 - 1),
  'evaluation.bank_size': _count(
    'draws over which E[Y | do] is averaged', 8, 65536
  ),
  'evaluation.confidence': _real('of every interval', 0.5, 0.9999),
}


def flat(values: Any, path: str = '') -> dict[str, Any]:
  """The values of a config by the paths of `FIELDS`: {'grpo.beta': 0.0}."""
  if not isinstance(values, dict):
    return {path: values}
  found: dict[str, Any] = {}
  for name, value in values.items():
    found |= flat(value, f'{path}.{name}' if path else name)
  return found


def check(config: dict[str, Any]) -> None:
  """Raises unless a config has every field, each as it should be.

  Args:
    config: {section: {field: value}}.

  Raises:
    errors.UsageError: a field is missing, unknown, of the wrong type,
      out of its range, or does not fit another one. The sentence names it.
  """
  sections: dict[str, list[str]] = {'': ['name']}
  for path in FIELDS:
    section, _, name = path.rpartition('.')
    sections.setdefault(section, []).append(name)
  top = [*sections[''], *filter(None, sections)]
  _check_names('', config, top)
  name = config['name']
  if not isinstance(name, str) or not _NAME.fullmatch(name):
    raise errors.UsageError(
      f'config.name is {name!r}; a name begins with a letter or a '
      'digit, goes on with those, ".", "_" or "-", and has at most 64 of them'
    )
  for section, names in sections.items():
    values = config
    if section:
      values = config[section]
      if not isinstance(values, dict):
        raise errors.UsageError(
          f'config.{section} is {values!r}; it must be a section'
        )
      _check_names(f'{section}.', values, names)
  for path, field in FIELDS.items():
    section, _, name = path.rpartition('.')
    _check_value(path, (config[section] if section else config)[name], field)
  _check_fit(config)


def table() -> str:
  """Every field with what is allowed and what it means, as lines of text."""
  rows = [('config.name', 'text', 'of the run')]
  for path, field in FIELDS.items():
    members = f': {", ".join(field.members)}' if field.members else ''
    rows.append((f'config.{path}', field.allowed(), field.meaning + members))
  first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
  return '\n'.join(
    f'--{path:<{first}}  {allowed:<{second}}  {meaning}'
    for path, allowed, meaning in rows
  )


def _check_names(prefix, found, expected):
  for name in found:
    if name not in expected:
      hint = errors.did_you_mean(name, expected, prefix)
      raise errors.UsageError(f'config.{prefix}{name} is unknown{hint}')
  for name in expected:
    if name not in found:
      raise errors.UsageError(f'config.{prefix}{name} is missing')


def _check_value(path: str, value: Any, field: Field) -> None:
  """Raises unless a value has the type and the range of its field."""
  if field.options:
    # 1 == True, but it is no truth value.
    if not any(type(value) is type(x) and value == x for x in field.options):
      raise errors.UsageError(
        f'config.{path} is {value!r}; it must be one of {field.allowed()}'
      )
    return
  if not field.members and not field.pattern:
    _check_number(path, value, field)
    return
  if field.is_text:
    if not isinstance(value, str) or not re.fullmatch(field.pattern, value):
      raise errors.UsageError(
        f'config.{path} is {value!r}; it must be a text that matches '
        f'{field.pattern}'
      )
    return
  if not isinstance(value, tuple | list):
    what = 'numbers' if field.members else 'texts'
    raise errors.UsageError(
      f'config.{path} is {value!r}; it must be a tuple of {what}'
    )
  if field.pattern:
    for item in value:
      if not isinstance(item, str) or not re.fullmatch(field.pattern, item):
        raise errors.UsageError(
          f'config.{path} has {item!r}; each has to match {field.pattern}'
        )
    return
  for item in value:
    _check_number(path, item, field)
  if len(value) != len(field.members) or not sum(value):
    raise errors.UsageError(
      f'config.{path} is {tuple(value)}; it must have one weight for '
      f'each of {", ".join(field.members)}, and one of them above 0'
    )


def _check_number(path: str, value: Any, field: Field) -> None:
  allowed = (int,) if field.kind is int else (int, float)
  if isinstance(value, bool) or not isinstance(value, allowed):
    raise errors.UsageError(
      f'config.{path} is {value!r}; it must be a number of type '
      f'{field.kind.__name__}'
    )
  # NaN is within no range, and every range is finite.
  if not field.low <= value <= field.high:
    raise errors.UsageError(
      f'config.{path} is {value}; it must be at least {field.low} and at most '
      f'{field.high}'
    )


def _check_fit(config: dict[str, Any]) -> None:
  """Raises unless the values fit each other."""
  scms, network, grpo = config['scms'], config['network'], config['grpo']
  for name in ('variables', 'density', 'noise', 'width'):
    low, high = scms[f'min_{name}'], scms[f'max_{name}']
    if low > high:
      raise errors.UsageError(
        f'config.scms.min_{name} is {low}, above config.scms.max_{name}, '
        f'which is {high}'
      )
  if network['width'] % network['num_heads']:
    raise errors.UsageError(
      f'config.network.num_heads is {network["num_heads"]}; it must divide '
      f'config.network.width, which is {network["width"]}'
    )
  for section, name, other in (
    ('rewards', 'belief', 'learned'),
    ('network', 'belief_input', 'none'),
  ):
    if (
      config[section][name] == 'exact'
      and scms['max_variables'] > _MAX_EXACT_VARIABLES
    ):
      raise errors.UsageError(
        f"config.{section}.{name} is 'exact', which sums over all sets of at "
        f'most {_MAX_EXACT_VARIABLES} variables; config.scms.max_variables is '
        f'{scms["max_variables"]}: lower it, or choose {other!r}'
      )
    num_rows = sum(config['horizon'].values())
    if config[section][name] == 'exact' and num_rows > _MAX_EXACT_ROWS:
      raise errors.UsageError(
        f"config.{section}.{name} is 'exact', whose log odds are good to .1 in "
        f'32 bits for at most {_MAX_EXACT_ROWS} rows; '
        f'config.horizon.num_observations and num_interventions are {num_rows} '
        f'together: lower them, or choose {other!r}'
      )
  training = config['training']
  if training['profile_from'] > training['num_updates']:
    raise errors.UsageError(
      f'config.training.profile_from is {training["profile_from"]}, after the '
      f'last update, which is {training["num_updates"]}'
    )
  if (
    training['stop_when_converged']
    and training['convergence_window'] > training['num_updates']
  ):
    raise errors.UsageError(
      'config.training.stop_when_converged is True, and convergence_window is '
      f'{training["convergence_window"]}, longer than the run of '
      f'{training["num_updates"]} updates'
    )
  if training['profile_from'] == 1:
    raise errors.UsageError(
      'config.training.profile_from is 1; it must be 0, for never, or 2 or '
      'more: a trace begins after an update'
    )
  _check_simulator(config)
  weights = ('optimization', 'structure', 'parent', 'exploration')
  if not any(config['rewards'][name] for name in weights):
    raise errors.UsageError(
      'all of the weights in config.rewards are 0, and no intervention would '
      f'be better than another; raise one of {", ".join(weights)}'
    )
  parts = grpo['num_minibatches'] * grpo['gradient_accumulation_steps']
  if grpo['num_tasks'] % parts:
    raise errors.UsageError(
      'config.grpo.num_minibatches times '
      f'config.grpo.gradient_accumulation_steps is {parts}; it must divide '
      f'config.grpo.num_tasks, which is {grpo["num_tasks"]}'
    )


def _check_simulator(config: dict[str, Any]) -> None:
  """Raises where a simulator is to give what it does not know."""
  if not any(config['simulator'].values()):
    return
  if all(config['simulator'].values()):
    raise errors.UsageError(
      'config.simulator has both make and command; leave one of them empty'
    )
  kind = config['runtime']['kind']
  if kind != 'threaded':
    raise errors.UsageError(
      f"config.runtime.kind is {kind!r}; a simulator needs 'threaded'"
    )
  for section, name in _OF_THE_TRUTH:
    if config[section][name]:
      raise errors.UsageError(
        f'config.{section}.{name} is {config[section][name]}, which needs the '
        'truth about a system, and a simulator does not tell it; it must be 0 '
        '(configs/simulator.py sets all of these)'
      )
