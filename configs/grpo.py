"""Trains a policy for causal Bayesian optimization with GRPO.

  python launchers/train.py --config=configs/grpo.py           the quick start
  python launchers/train.py --config=configs/grpo.py:smoke     does it run?
  python launchers/train.py --config=configs/grpo.py:linear    linear SCMs alone
  python launchers/train.py --config=configs/grpo.py:large     an hour, the best
  python launchers/train.py --config=configs/grpo.py:general   for a GPU

:general trained the policy of the package: it may set several variables at
once, pays for them, meets latent causes, and searches for long.

A field is overridden by --config.grpo.num_generations=16; --config_help lists
all fields with their defaults. The presets are in
acme_cbo/experiments/presets.py. This file is Python and is run: trust it as
you trust a program.
"""

import ml_collections

from acme_cbo.experiments import presets


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the config of a preset.

  Args:
    preset: text after the colon in `--config=configs/grpo.py:smoke`.

  Returns:
    The config, with its set of fields locked.
  """
  config = ml_collections.ConfigDict(presets.preset(preset).to_dict())
  return config.lock()
