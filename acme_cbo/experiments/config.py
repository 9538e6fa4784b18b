"""Config of a training run: the root of all sections. Needs no jax."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.environments import config as environments_config
from acme_cbo.evaluation import held_out_config
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.networks import config as networks_config
from acme_cbo.runtimes import config as runtimes_config
from acme_cbo.scms import config as scms_config
from acme_cbo.training import config as training_config

# Limits of the exact belief, which sums over all sets of parents.
_MAX_EXACT_VARIABLES = 8
_MAX_EXACT_ROWS = 100
# Fields that a size of `horizon.mixture` gives, in its order.
_SIZE = (
  'horizon.num_observations',
  'horizon.num_interventions',
  'scms.max_set_size',
  'scms.max_variables',
)
# Fields that need the truth, which a simulator does not give.
_OF_THE_TRUTH = (
  ('rewards', 'structure'),
  ('rewards', 'parent'),
  ('grpo', 'parent_coefficient'),
  ('grpo', 'outcome_coefficient'),
  ('grpo', 'prediction_coefficient'),
  ('grpo', 'regret_floor'),
)


@dataclasses.dataclass(frozen=True)
class GRPOConfig(config_schema.Section):
  """Config of a GRPO training run.

  Every field has a default; the defaults are those of configs/grpo.py. The flag
  `--config_help` of the launchers lists every field with its range.

  Example:
    >>> import acme_cbo
    >>> config = acme_cbo.GRPOConfig(name='short', seed=1)
    >>> config.grpo.num_tasks
    64
    >>> config = config.override({'training.num_updates': 5})
    >>> config.training.num_updates
    5
    >>> try:
    ...   config.override({'seed': -5})
    ... except acme_cbo.UsageError as error:
    ...   print(error)
    config.seed is -5; it must be at least 0 and at most 2147483647

  Attributes:
    name: name of the run.
    seed: random seed of the training.
    scms: distribution of SCMs to train on.
    horizon: size of an episode.
    rewards: components of the reward.
    network: size of the policy.
    grpo: update of the policy.
    optimizer: optimizer and learning-rate schedule.
    runtime: how actor and learner run.
    simulator: simulator to train on instead of SCMs.
    training: length and cadence of the run.
    evaluation: held-out SCMs.
  """

  name: str = config_schema.field(
    'grpo',
    'name of the run',
    pattern=r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}',
    form='1 to 64 letters, digits, ".", "_" or "-", beginning with a letter or '
    'a digit',
  )
  seed: int = config_schema.field(
    0, 'random seed of the training', low=0, high=2**31 - 1
  )
  scms: scms_config.PriorConfig = dataclasses.field(
    default_factory=scms_config.PriorConfig
  )
  horizon: environments_config.HorizonConfig = dataclasses.field(
    default_factory=environments_config.HorizonConfig
  )
  rewards: grpo_config.RewardConfig = dataclasses.field(
    default_factory=grpo_config.RewardConfig
  )
  network: networks_config.NetworkConfig = dataclasses.field(
    default_factory=networks_config.NetworkConfig
  )
  grpo: grpo_config.UpdateConfig = dataclasses.field(
    default_factory=grpo_config.UpdateConfig
  )
  optimizer: grpo_config.OptimizerConfig = dataclasses.field(
    default_factory=grpo_config.OptimizerConfig
  )
  runtime: runtimes_config.RuntimeConfig = dataclasses.field(
    default_factory=runtimes_config.RuntimeConfig
  )
  simulator: environments_config.SimulatorConfig = dataclasses.field(
    default_factory=environments_config.SimulatorConfig
  )
  training: training_config.TrainingConfig = dataclasses.field(
    default_factory=training_config.TrainingConfig
  )
  evaluation: held_out_config.HeldOutConfig = dataclasses.field(
    default_factory=held_out_config.HeldOutConfig
  )

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'GRPOConfig':
    """Builds a config from plain values, and validates it.

    Args:
      values: {section: {field: value}}, as `to_dict` returns it, also after it
        went through JSON.

    Returns:
      The config.

    Raises:
      errors.UsageError: a field is missing, unknown, of the wrong type, out of
        its range, or does not fit another one. The sentence names it.
    """
    config = config_schema.from_dict(cls, values)
    config.validate()
    return config

  def override(self, values: Mapping[str, Any]) -> 'GRPOConfig':
    """Returns a config with some values replaced, and validates it.

    Args:
      values: new values by path: {'grpo.beta': 0.1}.

    Returns:
      The new config; this one is left as it is.

    Raises:
      errors.UsageError: there is no such path, or the values cannot be used.
    """
    config = config_schema.override(self, values)
    config.validate()
    return config

  def to_dict(self) -> dict[str, Any]:
    """Returns the values as plain dicts: {section: {field: value}}."""
    return config_schema.to_dict(self)

  def validate(self) -> None:
    """Raises an `errors.UsageError` unless every value can be used."""
    config_schema.check(self)

  @property
  def programs(self) -> dict[str, Any]:
    """Programs that a run starts or imports: {field: value}."""
    named = {
      'simulator.make': self.simulator.make,
      'simulator.command': self.simulator.command,
      'training.callbacks': self.training.callbacks,
    }
    return {field: value for field, value in named.items() if value}

  @property
  def of_further_sizes(self) -> list['GRPOConfig']:
    """Configs with each of the sizes of `horizon.mixture` as the only one."""
    return [
      config_schema.override(
        self,
        {'horizon.mixture': '', **dict(zip(_SIZE, size, strict=True))},
      )
      for size in self.horizon.further_sizes
    ]

  def check(self, path: str) -> None:
    """Raises unless the sections fit each other."""
    self._check_exact_belief(path)
    if self.horizon.mixture:
      self._check_mixture(path)
    if self.simulator:
      self._check_simulator(path)

  def _check_mixture(self, path: str) -> None:
    if self.simulator:
      raise errors.UsageError(
        f'{path}.horizon.mixture is {self.horizon.mixture!r}; a simulator has '
        'one size: leave it empty'
      )
    for sized in self.of_further_sizes:
      try:
        config_schema.check(sized, path)
      except errors.UsageError as error:
        raise errors.UsageError(
          f'{path}.horizon.mixture cannot be {self.horizon.mixture!r}: {error}'
        ) from error

  def _check_exact_belief(self, path: str) -> None:
    num_variables = self.scms.max_variables
    num_rows = self.horizon.num_observations + self.horizon.num_interventions
    for name, belief, other in (
      ('rewards.belief', self.rewards.belief, 'learned'),
      ('network.belief_input', self.network.belief_input, 'none'),
    ):
      if belief == 'exact' and num_variables > _MAX_EXACT_VARIABLES:
        raise errors.UsageError(
          f"{path}.{name} is 'exact', which sums over all sets of at most "
          f'{_MAX_EXACT_VARIABLES} variables; {path}.scms.max_variables is '
          f'{num_variables}: lower it, or choose {other!r}'
        )
      if belief == 'exact' and num_rows > _MAX_EXACT_ROWS:
        raise errors.UsageError(
          f"{path}.{name} is 'exact', whose log odds are good to .1 in 32 bits "
          f'for at most {_MAX_EXACT_ROWS} rows; '
          f'{path}.horizon.num_observations and num_interventions are '
          f'{num_rows} together: lower them, or choose {other!r}'
        )

  def _check_simulator(self, path: str) -> None:
    if self.runtime.kind != 'threaded':
      raise errors.UsageError(
        f'{path}.runtime.kind is {self.runtime.kind!r}; a simulator needs '
        "'threaded'"
      )
    if self.rewards.best != 'made':
      raise errors.UsageError(
        f'{path}.rewards.best is {self.rewards.best!r}; with a simulator it '
        "must be 'made': nobody knows how good what is predicted is"
      )
    for section, name in _OF_THE_TRUTH:
      value = getattr(getattr(self, section), name)
      if value:
        raise errors.UsageError(
          f'{path}.{section}.{name} is {value}, which needs the truth about a '
          'system, and a simulator does not give it; it must be 0 '
          '(configs/simulator.py sets all of these)'
        )


def help_text() -> str:
  """Returns the table of `--config_help`: all fields of a `GRPOConfig`."""
  return config_schema.table(GRPOConfig)


def read(workdir: pathlib.Path) -> GRPOConfig:
  """Returns the config of the run in a directory.

  Raises:
    errors.UsageError: there is no run, or its config cannot be used.
  """
  return GRPOConfig.from_dict(_values(workdir))


def read_to_resume(workdir: pathlib.Path) -> GRPOConfig:
  """Returns the config of a run that is to be resumed.

  A run directory may come from somebody else: what its config.json names is not
  run.

  Args:
    workdir: directory of the run.

  Raises:
    errors.UsageError: there is no run, its config cannot be used, or it names a
      program.
  """
  config = read(workdir)
  for field, value in config.programs.items():
    raise errors.UsageError(
      f'the run in {workdir} would run a program that its config.json names, '
      f'config.{field} = {value!r}; if you trust it, name it yourself: resume '
      'with the config and the overrides that the run was started with'
    )
  return config


def differences(workdir: pathlib.Path, config: GRPOConfig) -> list[str]:
  """Returns how a config differs from the one that a run was started with.

  Args:
    workdir: directory of the run.
    config: other config.

  Returns:
    A line for each field that differs; none where all are the same.

  Raises:
    errors.UsageError: there is no run.
  """
  old = config_schema.flat(_values(workdir))
  new = config_schema.flat(json.loads(json.dumps(config.to_dict())))
  return [
    f'config.{name}: {old.get(name, "nothing")} -> {new.get(name, "nothing")}'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
  ]


def _values(workdir: pathlib.Path) -> dict[str, Any]:
  return scms_config.with_named_weights(run_directory.read_config(workdir))
