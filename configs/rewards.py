"""Balances of the four rewards, ready for a comparison of models.

  python launchers/train.py --config=configs/rewards.py:balanced
  python launchers/train.py --config=configs/rewards.py:optimization_only
  python launchers/train.py --config=configs/rewards.py:structure_heavy
  python launchers/train.py --config=configs/rewards.py:exploration_heavy

All else is as in configs/grpo.py; a preset of it stands behind a second colon:
configs/rewards.py:structure_heavy:smoke.
"""

import ml_collections

from configs import grpo

# optimization, structure, parent, exploration
BALANCES = {
  'balanced': (1.0, 0.5, 0.3, 0.1),
  'optimization_only': (1.0, 0.0, 0.0, 0.0),
  'structure_heavy': (0.5, 1.0, 0.5, 0.1),
  'exploration_heavy': (0.5, 0.3, 0.2, 1.0),
}


def get_config(balance: str = 'balanced') -> ml_collections.ConfigDict:
  """The config of one balance.

  Args:
    balance: what follows the first colon of `--config=`.

  Returns:
    The config, with its set of fields locked.
  """
  name, _, preset = balance.partition(':')
  if name not in BALANCES:
    raise ValueError(
      f'configs/rewards.py has no balance {name!r}; there are '
      f'{", ".join(BALANCES)}'
    )
  config = grpo.get_config(preset)
  config.name = f'{config.name}-{name}'
  (
    config.rewards.optimization,
    config.rewards.structure,
    config.rewards.parent,
    config.rewards.exploration,
  ) = BALANCES[name]
  return config
