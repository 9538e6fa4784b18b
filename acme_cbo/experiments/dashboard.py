"""Figures, histograms and layout of a run in TensorBoard."""

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

# Of the metrics whose curves are drawn.
REWARDS = 'reward/'
# Of a leaf of the optimizer's state: .mu['48x48'].
_MEAN = re.compile(r"\.mu\['([^']+)'\]$")


def layout(num_interventions: int) -> dict[str, dict[str, list[str]]]:
  """The charts of the custom scalars tab: {category: {chart: tags}}."""
  last = f'after_{num_interventions:02d}'
  return {
    'Is it good?': {
      'held-out score': ['eval/score_(first|mean|last)$'],
      'last choice, by family': ['eval/score_last_.*'],
      'rewards': [f'{REWARDS}({"|".join(rewards_lib.COMPONENTS)})$'],
    },
    'Does it know the causes?': {
      'F1 after the last intervention': [f'belief/.*_f1_{last}'],
      'AUROC after the last intervention': [f'belief/.*_auroc_{last}'],
      'calibration error after the last': [f'belief/.*_ece_{last}'],
    },
    'Is it well?': {
      'entropy': ['policy/entropy_.*'],
      'divergence': ['policy/kl_.*'],
      'sizes': ['train/.*_norm'],
      'groups that tell nothing': ['train/dead_groups'],
    },
  }


def hparams(
  config: config_lib.GRPOConfig,
) -> dict[str, bool | float | str]:
  """Every setting as the hparams tab can show it: {'grpo.beta': 0.0}."""
  return {
    path: value if isinstance(value, bool | int | float | str) else str(value)
    for path, value in config_schema.flat(config.to_dict()).items()
  }


def histograms(
  tasks: results.HeldOut, outcomes: Mapping[str, rollouts.Outcome]
) -> dict[str, Callable[[types.TrainingState], dict[str, np.ndarray]]]:
  """Returns a function that computes the histograms of an evaluation.

  Args:
    tasks: the held-out SCMs.
    outcomes: whose 'grpo' is that of the latest evaluation.

  Returns:
    {prefix of the tags: state -> {rest of the tag: numbers}}.
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

  def named(tree):
    return {
      f'{_short(module)}/{name}': np.asarray(array)
      for module, arrays in tree.items()
      for name, array in arrays.items()
    }

  def gradients(state):
    """The optimizer's exponential mean of them."""
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    found = ((_MEAN.search(jax.tree_util.keystr(p)), x) for p, x in leaves)
    means = {match[1]: stack for match, stack in found if match}
    return named(optimizer.unstacked(means, state.params))

  return {
    'choices': choices,
    'parameters': lambda state: named(state.params),
    'gradients': gradients,
  }


def _short(module: str) -> str:
  """The last name of a module of Haiku, which is its own."""
  return module.split('/')[-1]


def figures(
  tasks: results.HeldOut, outcomes: Mapping[str, rollouts.Outcome]
) -> dict[str, Callable[[dict[str, Any]], figure_lib.Figure | None]]:
  """Returns a function that draws the figures of an evaluation.

  Args:
    tasks: the held-out SCMs.
    outcomes: whose 'grpo' is that of the latest evaluation.

  Returns:
    {tag: curves of the rewards -> figure, or None where it has nothing yet}.
  """

  def example(curves):
    del curves
    if isinstance(tasks, held_out_simulators.HeldOutSimulators):
      return None  # Nobody knows the parents.
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
    named = {tag.removeprefix(REWARDS): x for tag, x in curves.items()}
    if not named:
      return None
    smoothed = {name: analysis.smooth(x) for name, x in named.items()}
    return plots.rewards(named, smoothed, dict.fromkeys(named))

  return {'figures/example_episode': example, 'figures/rewards': rewards}
