"""A sweep: which balance of the components of the reward is best?

  python launchers/workflow.py --config=configs/workflow.py --workdir=runs/sweep
  python launchers/workflow.py --config=configs/workflow.py:short --workdir=S
  python launchers/workflow.py --config=configs/workflow.py:smoke --workdir=S

The first takes some three hours on two cores; :short trains for 60 updates
instead of 260, and takes 40 minutes; :smoke only shows that it runs.

A sweep of your own is a file like this one: `get_config` returns the seeds and
how the policies are evaluated, `sweep` the configs to train. Any other preset
of configs/grpo.py may follow after the colon.
"""

from typing import Any

import ml_collections

from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import presets
from acme_cbo.experiments import sweep_config
from acme_cbo.infra import config_schema


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the config of the sweep.

  Args:
    preset: text after the colon of `--config=`.

  Returns:
    The config, with its set of fields locked.
  """
  config = ml_collections.ConfigDict()
  config.preset = preset
  # Of every configuration; fewer than five decide nothing.
  config.seeds = (0, 1, 2, 3, 4)
  # The flags of launchers/compare.py with their defaults. Below it,
  # `config.evaluation.scm = ('toy', 'my.yaml')` would choose other SCMs.
  config.evaluation = ml_collections.ConfigDict(
    {
      name: ml_collections.config_dict.placeholder(field.kind)
      if field.default is None
      else field.default
      for name, field in sweep_config.EVALUATION.items()
    }
  )
  if preset == 'smoke':
    config.seeds = (0, 1, 2)
    config.evaluation.repeats = 5
  return config.lock()


def sweep(
  config: ml_collections.ConfigDict,
) -> dict[str, config_lib.GRPOConfig]:
  """Returns the configs to train and compare.

  Args:
    config: config of the sweep, with the overrides of the command line.

  Returns:
    {name: config of a training run}; the sweep sets their names and seeds.
  """
  changes: dict[str, Any] = {}
  if config.preset == 'short':
    changes = {'training.num_updates': 60}
  elif config.preset == 'smoke':
    changes = {
      'grpo.num_tasks': 16,
      'grpo.num_minibatches': 2,
      'training.num_updates': 4,
      'training.eval_every': 4,
      'training.checkpoint_every': 2,
      'evaluation.num_tasks': 16,
    }
  preset = '' if config.preset == 'short' else config.preset
  return {
    name: config_schema.override(presets.balance(name, preset), changes)
    for name in presets.BALANCES
  }
