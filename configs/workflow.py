"""A study: which balance of the four rewards is better?

  python launchers/workflow.py --config=configs/workflow.py --workdir=runs/study
  python launchers/workflow.py --config=configs/workflow.py:short --workdir=S
  python launchers/workflow.py --config=configs/workflow.py:smoke --workdir=S

The first takes some three hours on two cores; :short trains for 60 updates, of
260, and takes half an hour; :smoke only shows that it runs.

A study of your own is a file like this one: `get_config` says how much is
trained and on what policies are compared, `sweep` which configurations there
are. Any other preset of configs/grpo.py may stand behind the colon.
"""

import ml_collections

from configs import rewards


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """The config of the study.

  Args:
    preset: what follows the colon of `--config=`.

  Returns:
    The config, with its set of fields locked.
  """
  config = ml_collections.ConfigDict()
  config.preset = preset
  # Of every configuration; fewer than five decide nothing.
  config.seeds = (0, 1, 2, 3, 4)
  # The flags of launchers/compare.py.
  config.evaluation = ml_collections.ConfigDict(
    dict(
      scm=('chain_5', 'fork_5', 'star_5', 'sparse_5'),
      repeats=20,
      samples=1,
      budget=ml_collections.config_dict.placeholder(float),
      seed=0,
      confidence=0.95,
      allow_mismatch=False,
    )
  )
  if preset == 'smoke':
    config.seeds = (0, 1, 2)
    config.evaluation.repeats = 5
  config.lock()
  return config


def sweep(
  config: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
  """The configurations that are compared.

  Args:
    config: of the study, as flags have changed it.

  Returns:
    {name: config of a training}; the study gives it its name and its seeds.
  """
  base = '' if config.preset == 'short' else config.preset
  found = {
    balance: rewards.get_config(f'{balance}:{base}')
    for balance in rewards.BALANCES
  }
  if config.preset == 'short':
    for one in found.values():
      one.training.num_updates = 60
  if config.preset == 'smoke':
    for one in found.values():
      one.grpo.num_tasks = 16
      one.grpo.num_minibatches = 2
      one.training.num_updates = 4
      one.training.eval_every = 4
      one.training.checkpoint_every = 2
      one.evaluation.num_tasks = 16
  return found
