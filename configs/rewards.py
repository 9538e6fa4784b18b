"""Trains with another balance of the components of the reward.

  python launchers/train.py --config=configs/rewards.py:balanced
  python launchers/train.py --config=configs/rewards.py:optimization_only
  python launchers/train.py --config=configs/rewards.py:structure_heavy
  python launchers/train.py --config=configs/rewards.py:exploration_heavy

Everything else is as in configs/grpo.py; one of its presets may follow after a
second colon: configs/rewards.py:structure_heavy:smoke.
"""

import ml_collections

from acme_cbo.experiments import presets


def get_config(balance: str = 'balanced') -> ml_collections.ConfigDict:
  """Returns the config of a balance.

  Args:
    balance: text after the first colon of `--config=`.

  Returns:
    The config, with its set of fields locked.
  """
  name, _, preset = balance.partition(':')
  config = ml_collections.ConfigDict(presets.balance(name, preset).to_dict())
  return config.lock()
