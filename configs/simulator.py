"""Trains a policy on a simulator of yours instead of random SCMs.

  python launchers/train.py
    --config=configs/simulator.py:docs.simulators.bioreactor:Bioreactor
    --config='configs/simulator.py:python docs/simulators/ticket_office.py'

What stands behind the first colon is a module and what makes a simulator of it,
or a command that starts a process that is one: see docs/simulators.md. All
other fields are those of configs/grpo.py.
"""

import re

import ml_collections

from configs import grpo

_MAKE = re.compile(r'[\w.]+:\w+')


def get_config(simulator: str = '') -> ml_collections.ConfigDict:
  """The config of a simulator.

  Args:
    simulator: what follows the first colon in `--config`.

  Returns:
    The config, with its set of fields locked.
  """
  if not simulator.strip():
    raise ValueError(
      'configs/simulator.py needs a simulator behind a colon: module:function, '
      'or a command'
    )
  config = grpo.get_config()
  config.name = 'grpo-simulator'
  if _MAKE.fullmatch(simulator):
    config.simulator.make = simulator
  else:
    config.simulator.command = simulator
  # Nobody knows its parents, nor what would have been best.
  config.rewards.structure = 0.0
  config.rewards.parent = 0.0
  config.grpo.parent_coefficient = 0.0
  config.grpo.outcome_coefficient = 0.0
  config.grpo.num_tasks = 16
  config.grpo.num_generations = 8
  config.grpo.gradient_accumulation_steps = 1
  config.runtime.kind = 'threaded'
  config.evaluation.num_tasks = 128
  return config
