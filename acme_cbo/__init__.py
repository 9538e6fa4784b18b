"""Policies for causal Bayesian optimization, trained with GRPO in JAX.

A policy is trained once, over a distribution of structural causal models, and
then chooses interventions on systems that it has never seen, without being
given their graph:

  import acme_cbo

  policy = acme_cbo.load_policy()
  session = policy.start(records, target='yield', domains={...}, ...)
  do = session.choose()
  session.observe(outcome)
  session.recommend()

Names are imported when they are first used: importing the package alone loads
neither jax nor pandas. The first use of a name other than `__version__` also
sets defaults of jax's environment variables, such as the directory of its
compilation cache, where they are not set; see `acme_cbo.infra.jax_environment`.
"""

import importlib
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
  from acme_cbo.experiments.api import compare as compare
  from acme_cbo.experiments.api import evaluate as evaluate
  from acme_cbo.experiments.api import train as train
  from acme_cbo.experiments.config import GRPOConfig as GRPOConfig
  from acme_cbo.experiments.presets import preset as preset
  from acme_cbo.infra.errors import UsageError as UsageError
  from acme_cbo.infra.version import __version__ as __version__
  from acme_cbo.policies.policy import load_policy as load_policy
  from acme_cbo.policies.policy import Policy as Policy
  from acme_cbo.scms.scm import SCM as SCM
  from acme_cbo.study.study import Study as Study
  from acme_cbo.training.loggers import Logger as Logger
  from acme_cbo.training.trainer import Callback as Callback
  from acme_cbo.training.trainer import Trainer as Trainer

_MODULES = {
  'Callback': 'training.trainer',
  'GRPOConfig': 'experiments.config',
  'Logger': 'training.loggers',
  'Policy': 'policies.policy',
  'SCM': 'scms.scm',
  'Study': 'study.study',
  'Trainer': 'training.trainer',
  'UsageError': 'infra.errors',
  '__version__': 'infra.version',
  'compare': 'experiments.api',
  'evaluate': 'experiments.api',
  'load_policy': 'policies.policy',
  'preset': 'experiments.presets',
  'train': 'experiments.api',
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
  """Imports a name of the API when it is first used."""
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  if name != '__version__':
    importlib.import_module(f'{__name__}.infra.jax_environment').set_defaults()
  module = importlib.import_module(f'{__name__}.{_MODULES[name]}')
  globals()[name] = getattr(module, name)
  return globals()[name]


def __dir__() -> list[str]:
  return sorted(__all__)
