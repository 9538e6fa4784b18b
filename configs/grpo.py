"""Trains a policy for causal Bayesian optimisation with GRPO.

  python launchers/train.py --config=configs/grpo.py           the quick start
  python launchers/train.py --config=configs/grpo.py:smoke     does it run?
  python launchers/train.py --config=configs/grpo.py:linear    linear SCMs alone
  python launchers/train.py --config=configs/grpo.py:large     an hour, the best
  python launchers/train.py --config=configs/grpo.py:general   for a GPU

:general is what the policy of the package was trained with: it may set several
variables at once, pay for them, meet latent causes, and search for long.

A field is overridden by --config.grpo.num_generations=16. This file is Python
and is run: trust it as you trust a program. Why each default is what it is:
docs/experiments.md.
"""

import ml_collections

_PRESETS = ('', 'smoke', 'linear', 'large', 'general')


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """The config of one preset.

  Args:
    preset: what follows the colon in `--config=configs/grpo.py:smoke`.

  Returns:
    The config, with its set of fields locked.
  """
  if preset not in _PRESETS:
    raise ValueError(
      f'configs/grpo.py has no preset {preset!r}; there are '
      f'{", ".join(name or "the default" for name in _PRESETS)}'
    )
  config = ml_collections.ConfigDict()
  config.name = f'grpo-{preset}' if preset else 'grpo'
  config.seed = 0

  # The distribution of SCMs: see acme_cbo/scms/priors.py.
  config.scms = ml_collections.ConfigDict(
    dict(
      min_variables=3,
      max_variables=8,
      # chain, fork, star, Erdos-Renyi, scale-free
      graph_weights=(1.0, 1.0, 1.0, 2.0, 1.0),
      # linear, Fourier, tanh, sigmoid, product, exponential, mixed, bumps
      family_weights=(2.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0),
      # normal, uniform, Laplace, Gumbel
      noise_weights=(1.0, 1.0, 1.0, 0.0),
      min_density=0.2,
      max_density=0.8,
      min_noise=0.3,
      max_noise=1.5,
      settable=0.8,
      min_width=1.0,
      max_width=3.0,
      max_centre=1.0,
      min_gain=0.1,
      min_length_scale=0.7,
      max_set_size=1,
      latent=0.0,
      averaged=0.0,
      budgeted=0.0,
      num_hidden=8,
      bank_size=32,
    )
  )
  config.horizon = ml_collections.ConfigDict(
    dict(num_observations=20, num_interventions=10)
  )
  # Weights of the four components of the reward, and what they are made of.
  config.rewards = ml_collections.ConfigDict(
    dict(
      optimization=1.0,
      structure=0.5,
      parent=0.3,
      exploration=0.1,
      outcome='expected',
      potential='log_posterior',
      parents='belief',
      belief='learned',
    )
  )
  config.network = ml_collections.ConfigDict(
    dict(
      width=48,
      num_blocks=3,
      num_heads=3,
      mlp_factor=2,
      num_cells=16,
      belief_input='none',
    )
  )
  # The update: see acme_cbo/agents/grpo/.
  config.grpo = ml_collections.ConfigDict(
    dict(
      num_tasks=64,
      num_generations=4,
      num_iterations=1,
      num_minibatches=4,
      # Half a minibatch at a time is near the processor, not in main memory.
      gradient_accumulation_steps=2,
      epsilon=0.2,
      epsilon_high=0.2,
      beta=0.0,
      reference_every=50,
      baseline='group',
      scale_rewards='group',
      scale_components='none',
      supervision='process',
      importance_sampling_level='decision',
      simple_regret_share=0.0,
      regret_floor=0.0,
      variable_entropy=0.003,
      cell_entropy=0.003,
      parent_coefficient=0.5,
      outcome_coefficient=2.0,
    )
  )
  config.optimizer = ml_collections.ConfigDict(
    dict(
      learning_rate=6e-3,
      warmup_updates=5,
      final_fraction=0.05,
      max_grad_norm=1.0,
      weight_decay=1e-4,
    )
  )
  # How actor and learner are run: see acme_cbo/runtimes/.
  config.runtime = ml_collections.ConfigDict(
    dict(kind='fused', num_actors=1, max_lag=1, stall_seconds=300.0)
  )
  # Systems that are no SCMs: see configs/simulator.py.
  config.simulator = ml_collections.ConfigDict(dict(make='', command=''))
  config.training = ml_collections.ConfigDict(
    dict(
      num_updates=260,
      eval_every=20,
      checkpoint_every=60,
      max_checkpoints=3,
      best_checkpoints=1,
      # Half the time to compile, half the speed after it: for a few updates.
      quick_compile=False,
      # Evaluations without a better one after which the run stops; 0 is never.
      patience=0,
      convergence_window=100,
      convergence_tolerance=0.02,
      stop_when_converged=False,
      # The update from which a profile is written; 0 is never.
      profile_from=0,
      profile_updates=3,
      # Callbacks of your own, as 'my_package.my_module:MyCallback'.
      callbacks=(),
    )
  )
  config.evaluation = ml_collections.ConfigDict(
    dict(num_tasks=1024, seed=1, bank_size=64, confidence=0.99)
  )

  if preset == 'smoke':
    config.network.width = 16
    config.network.num_heads = 2
    config.network.num_blocks = 1
    config.training.num_updates = 6
    config.training.eval_every = 3
    config.training.checkpoint_every = 3
    config.training.quick_compile = True
    config.evaluation.num_tasks = config.grpo.num_tasks
    config.evaluation.bank_size = config.scms.bank_size
  elif preset == 'linear':
    config.scms.family_weights = (1.0,) + (0.0,) * 7
  elif preset == 'large':
    config.network.width = 64
    config.network.num_blocks = 4
    config.network.num_heads = 4
    config.training.num_updates = 1000
    config.training.eval_every = 50
    config.training.checkpoint_every = 100
  elif preset == 'general':
    config.scms.family_weights = (1.0, 3.0, 1.0, 1.0, 1.0, 0.5, 3.0, 0.0)
    config.scms.min_length_scale = 0.2
    config.scms.max_width = 6.0
    config.scms.max_centre = 2.5
    config.scms.max_set_size = 2
    config.scms.latent = 0.1
    config.scms.averaged = 0.5
    config.scms.budgeted = 0.3
    config.horizon.num_observations = 100
    config.horizon.num_interventions = 40
    config.network.num_cells = 32
    # What was found counts, and how near it is to the best, more than what is
    # earned on the way. The belief in parents pays little: what is best to set
    # is often a cause of a cause.
    config.grpo.simple_regret_share = 0.95
    config.grpo.regret_floor = 0.03
    config.grpo.baseline = 'reached'
    config.grpo.scale_rewards = 'batch'
    config.grpo.num_generations = 8
    config.grpo.gradient_accumulation_steps = 1
    config.grpo.variable_entropy = 0.002
    config.grpo.cell_entropy = 0.002
    config.rewards.structure = 0.2
    config.rewards.parent = 0.05
    config.training.num_updates = 450
    config.training.eval_every = 150
    config.training.checkpoint_every = 50
    config.evaluation.num_tasks = 256
  config.lock()
  return config
