"""Trains a policy for causal Bayesian optimization with GRPO.

  python launchers/train.py --config=configs/grpo.py           quick start
  python launchers/train.py --config=configs/grpo.py:smoke     a minute's test
  python launchers/train.py --config=configs/grpo.py:linear    only linear SCMs
  python launchers/train.py --config=configs/grpo.py:large     an hour
  python launchers/train.py --config=configs/grpo.py:general   hours

:large gives the best policy for the SCMs of the quick start. The SCMs of
:general have latent variables, costs, interventions on several variables at
once, and budgets of up to 60 interventions. docs/benchmarks.md says how the
shipped policy was trained.

--config.grpo.num_generations=16 overrides a field; --config_help lists all
fields with their defaults. acme_cbo/experiments/presets.py holds the presets.
A config file is Python and is run: use only those you trust.
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
