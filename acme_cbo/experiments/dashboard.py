"""TensorBoard layout, hyperparameters, histograms and figures of a run."""

from collections.abc import Callable, Mapping
import re
from typing import Any

import jax
from matplotlib import figure as figure_lib
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import optimizer
from acme_cbo.agents.grpo import rewards as rewards_lib
from acme_cbo.evaluation import held_out_simulators
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import rollouts
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import results
from acme_cbo.infra import config_schema
from acme_cbo.training import analysis

# Prefix of the metrics in the figure of the rewards.
REWARDS = 'reward/'
# Path of a momentum in the state of the optimizer: .mu['48x48'].
_MOMENTUM = re.compile(r"\.mu\['([^']+)'\]$")


def layout(num_interventions: int) -> dict[str, dict[str, list[str]]]:
  """Returns the charts of the custom scalars tab.

  Args:
    num_interventions: number of interventions of an episode.

  Returns:
    {category: {chart: [regular expressions of tags]}}.
  """
  last = f'after_{num_interventions:02d}'
  return {
    'Performance': {
      'held-out score': ['eval/score_(first|mean|last|recommended)$'],
      'held-out score of the last intervention, by family': [
        'eval/score_last_.*'
      ],
      'rewards': [f'{REWARDS}({"|".join(rewards_lib.COMPONENTS)})$'],
    },
    'Predictions of E[Y | do]': {
      'coverage of 90 % intervals': ['eval/coverage_(recommended|random)$'],
      'CRPS, in deviations of the records': ['eval/crps_(recommended|random)$'],
    },
    'Beliefs about the parents': {
      'F1 after the last intervention': [f'belief/.*_f1_{last}'],
      'AUROC after the last intervention': [f'belief/.*_auroc_{last}'],
      'calibration error after the last intervention': [
        f'belief/.*_ece_{last}'
      ],
    },
    'Optimization': {
      'entropy': ['policy/entropy_.*'],
      'KL divergence': ['policy/kl_.*'],
      'norms': ['train/.*_norm'],
      'share of groups without advantages': ['train/dead_groups'],
    },
  }


def hparams(
  config: config_lib.GRPOConfig,
) -> dict[str, bool | float | str]:
  """Returns all settings for the hparams tab: {'grpo.beta': 0.0}."""
  return {
    path: value if isinstance(value, bool | int | float | str) else str(value)
    for path, value in config_schema.flat(config.to_dict()).items()
  }


def histograms(
  tasks: results.HeldOut, outcomes: Mapping[str, rollouts.Outcome]
) -> dict[str, Callable[[types.TrainingState], dict[str, np.ndarray]]]:
  """Returns the histograms that are logged with every evaluation.

  Args:
    tasks: held-out SCMs.
    outcomes: outcomes by policy; 'grpo' is that of the latest evaluation.

  Returns:
    {prefix of the tags: state -> {rest of the tag: values}}.
  """

  def choices(state):
    del state
    outcome, problem = outcomes['grpo'], tasks.problem
    mask, values = (np.asarray(leaf) for leaf in outcome.intervention)
    low, high = (
      np.broadcast_to(end[:, None], values.shape)[mask]
      for end in (problem.low, problem.high)
    )
    return {
      'variable': np.nonzero(mask)[-1],
      'share_of_domain': (values[mask] - low) / (high - low),
    }

  def flatten(tree):
    return {
      f'{_short(module)}/{name}': np.asarray(array)
      for module, arrays in tree.items()
      for name, array in arrays.items()
    }

  def gradients(state):
    """Returns the momenta, exponential means of the gradients."""
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    matches = (
      (_MOMENTUM.search(jax.tree_util.keystr(p)), x) for p, x in leaves
    )
    momenta = {match[1]: stack for match, stack in matches if match}
    return flatten(optimizer.unstack(momenta, state.params))

  return {
    'choices': choices,
    'parameters': lambda state: flatten(state.params),
    'gradients': gradients,
  }


def _short(module: str) -> str:
  """Returns the last part of the name of a Haiku module."""
  return module.split('/')[-1]


def figures(
  tasks: results.HeldOut, outcomes: Mapping[str, rollouts.Outcome]
) -> dict[str, Callable[[dict[str, Any]], figure_lib.Figure | None]]:
  """Returns the figures that are logged with every evaluation.

  Args:
    tasks: held-out SCMs.
    outcomes: outcomes by policy; 'grpo' is that of the latest evaluation.

  Returns:
    {tag: curves of the rewards -> figure, or None if there is nothing to draw}.
  """

  def example(curves):
    del curves
    if isinstance(tasks, held_out_simulators.HeldOutSimulators):
      return None  # The true parents are unknown.
    scm = jax.tree.map(lambda leaf: leaf[0], tasks.scm)
    exists = scm.problem.exists
    outcome = outcomes['grpo']
    belief = np.asarray(outcome.parents['learned'][0])
    return plots.episode(
      intervened=np.asarray(outcome.intervention.mask[0])[:, exists],
      values=np.asarray(outcome.intervention.values[0])[:, exists],
      target=np.asarray(outcome.target[0]),
      score=np.asarray(outcome.score[0]),
      belief=belief[:, exists],
      parents=tasks.parents[0][exists],
      is_target=scm.problem.target[exists],
      goal=float(scm.problem.goal),
    )

  def rewards(curves):
    by_name = {tag.removeprefix(REWARDS): x for tag, x in curves.items()}
    if not by_name:
      return None
    smoothed = {name: analysis.smooth(x) for name, x in by_name.items()}
    return plots.rewards(by_name, smoothed, dict.fromkeys(by_name))

  return {'figures/example_episode': example, 'figures/rewards': rewards}
