"""Presets of `GRPOConfig`: named sets of overrides. Needs no jax.

Why each default and each preset is what it is: docs/experiments.md.
"""

from collections.abc import Mapping
import re
from typing import Any

from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.experiments import config as config_lib
from acme_cbo.infra import config_schema

_MODULE_AND_FUNCTION = re.compile(r'[\w.]+:\w+')

_DEFAULTS = config_lib.GRPOConfig()
_ONLY_LINEAR = {
  f'scms.family_weights.{family}': float(family == 'linear')
  for family in vars(_DEFAULTS.scms.family_weights)
}

# Presets by name, as overrides of the defaults; '' is the quick start.
PRESETS: dict[str, dict[str, Any]] = {
  '': {},
  # Shows that it runs, in a minute.
  'smoke': {
    'network.width': 16,
    'network.num_heads': 2,
    'network.num_blocks': 1,
    'training.num_updates': 6,
    'training.eval_every': 3,
    'training.checkpoint_every': 3,
    'training.quick_compile': True,
    # As in training, so that the prior is compiled once for both.
    'evaluation.num_tasks': _DEFAULTS.grpo.num_tasks,
    'evaluation.bank_size': _DEFAULTS.scms.bank_size,
  },
  # Linear SCMs alone.
  'linear': _ONLY_LINEAR,
  # The best policy for the default SCMs, in an hour.
  'large': {
    'network.width': 64,
    'network.num_blocks': 4,
    'network.num_heads': 4,
    'training.num_updates': 1000,
    'training.eval_every': 50,
    'training.checkpoint_every': 100,
  },
  # Hours on a CPU. Several variables at once, up to all of them, costs, latent
  # causes, targets without noise and with much of it, known edges, short and
  # long episodes. docs/benchmarks.md says how the shipped policy was trained.
  'general': {
    'scms.family_weights.linear': 1.0,
    'scms.family_weights.fourier': 3.0,
    'scms.family_weights.exponential': 0.5,
    'scms.family_weights.mixed': 3.0,
    'scms.min_length_scale': 0.2,
    'scms.max_width': 6.0,
    'scms.max_centre': 2.5,
    'scms.min_variables': 2,
    'scms.max_set_size': 2,
    'scms.set_weights.largest': 0.35,
    'scms.min_noise': 0.1,
    'scms.max_noise': 2.0,
    'scms.noise_weights.student': 1.0,
    'scms.noiseless': 0.25,
    'scms.uneven': 0.2,
    'scms.confounded': 0.2,
    'scms.informed': 0.3,
    'scms.stepped': 0.25,
    'scms.latent': 0.1,
    'scms.averaged': 0.35,
    'scms.budgeted': 0.3,
    'horizon.num_observations': 100,
    'horizon.num_interventions': 40,
    'horizon.mixture': '20x10x3x11 60x20x6x8 3x15x6x8',
    'network.num_cells': 32,
    # The best outcome so far counts more than that of each step, and its
    # regret on a logarithmic scale. Parents have small weights: the best
    # variable to set is often a cause of a parent.
    'grpo.simple_regret_share': 0.95,
    'grpo.regret_floor': 0.03,
    'grpo.baseline': 'reached',
    'grpo.scale_rewards': 'batch',
    'grpo.num_tasks': 32,
    'grpo.num_generations': 8,
    'grpo.gradient_accumulation_steps': 1,
    'grpo.variable_entropy': 0.002,
    'grpo.cell_entropy': 0.002,
    'rewards.best': 'recommended',
    'rewards.structure': 0.2,
    'rewards.parent': 0.05,
    'training.num_updates': 300,
    'training.eval_every': 150,
    'training.checkpoint_every': 25,
    'evaluation.num_tasks': 128,
  },
}

# Balances of the reward by name, as weights of its components; the weight of a
# component that a balance does not name is 0.
BALANCES: dict[str, dict[str, float]] = {
  'balanced': {
    'optimization': 1.0,
    'structure': 0.5,
    'parent': 0.3,
    'exploration': 0.1,
  },
  'optimization_only': {'optimization': 1.0},
  'structure_heavy': {
    'optimization': 0.5,
    'structure': 1.0,
    'parent': 0.5,
    'exploration': 0.1,
  },
  'exploration_heavy': {
    'optimization': 0.5,
    'structure': 0.3,
    'parent': 0.2,
    'exploration': 1.0,
  },
}

_SIMULATOR: dict[str, Any] = {
  'name': 'grpo-simulator',
  # A simulator tells neither its parents nor the best outcome.
  'rewards.structure': 0.0,
  'rewards.parent': 0.0,
  'grpo.parent_coefficient': 0.0,
  'grpo.outcome_coefficient': 0.0,
  'grpo.prediction_coefficient': 0.0,
  'grpo.num_tasks': 16,
  'grpo.num_generations': 8,
  'grpo.gradient_accumulation_steps': 1,
  'runtime.kind': 'threaded',
  'evaluation.num_tasks': 128,
}


def preset(name: str = '') -> config_lib.GRPOConfig:
  """Returns the config of a preset.

  Args:
    name: name in `PRESETS`.

  Returns:
    The config, named 'grpo' or 'grpo-<preset>'.

  Raises:
    ValueError: there is no such preset.

  Example:
    >>> import acme_cbo
    >>> acme_cbo.preset('smoke').training.num_updates
    6
  """
  _check_name('preset', name, PRESETS)
  overrides = {'name': f'grpo-{name}' if name else 'grpo', **PRESETS[name]}
  return config_schema.override(_DEFAULTS, overrides)


def balance(name: str, preset_name: str = '') -> config_lib.GRPOConfig:
  """Returns the config of a preset with another balance of the reward.

  Args:
    name: name in `BALANCES`.
    preset_name: name in `PRESETS`.

  Returns:
    The config, named after both.

  Raises:
    ValueError: there is no such balance or preset.
  """
  _check_name('balance', name, BALANCES)
  config = preset(preset_name)
  weights = dict.fromkeys(grpo_config.COMPONENTS, 0.0) | BALANCES[name]
  overrides = {f'rewards.{key}': weight for key, weight in weights.items()}
  return config_schema.override(
    config, {'name': f'{config.name}-{name}', **overrides}
  )


def simulator(source: str) -> config_lib.GRPOConfig:
  """Returns the config for training on a simulator instead of random SCMs.

  Args:
    source: 'module:function' that makes one, or a command that starts one.

  Returns:
    The config.

  Raises:
    ValueError: the source is empty.
  """
  if not source.strip():
    raise ValueError(
      'name a simulator after the colon: module:function, or a command'
    )
  field = 'make' if _MODULE_AND_FUNCTION.fullmatch(source) else 'command'
  return config_schema.override(
    _DEFAULTS, {f'simulator.{field}': source, **_SIMULATOR}
  )


def _check_name(kind: str, name: str, known: Mapping[str, Any]) -> None:
  if name not in known:
    names = ', '.join(one or 'the default' for one in known)
    raise ValueError(f'there is no {kind} {name!r}; there are {names}')
