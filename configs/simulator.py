"""Trains a policy on your own simulator instead of random SCMs.

  python launchers/train.py
    --config=configs/simulator.py:docs.simulators.bioreactor:Bioreactor
    --config='configs/simulator.py:python docs/simulators/ticket_office.py'

The text after the first colon is a module and a function or class that makes a
simulator, or a command that starts a process which is one: see
docs/simulators.md. All other fields are those of configs/grpo.py.
"""

import ml_collections

from acme_cbo.experiments import presets


def get_config(simulator: str = '') -> ml_collections.ConfigDict:
  """Returns the config of a simulator.

  Args:
    simulator: text after the first colon of `--config=`.

  Returns:
    The config, with its set of fields locked.
  """
  config = ml_collections.ConfigDict(presets.simulator(simulator).to_dict())
  return config.lock()
