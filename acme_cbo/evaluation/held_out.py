"""Held-out SCMs on which every policy of a run is scored."""

from collections.abc import Callable
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import environment
from acme_cbo.evaluation import rollouts
from acme_cbo.evaluation import statistics
from acme_cbo.infra import errors
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import heuristics as heuristics_lib
from acme_cbo.policies import trained
from acme_cbo.scms import config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors

# The policies that need no training, and the bound on all of them.
HEURISTICS: dict[str, policies_base.Factory] = {
  'random': lambda task: heuristics_lib.random(),
  'slope': lambda task: heuristics_lib.slope(),
  'explore_then_commit': lambda task: heuristics_lib.explore_then_commit(),
  'oracle': heuristics_lib.oracle,
}

BELIEF_COLUMNS = ['belief', 'group', 'interventions', *statistics.QUALITIES]


def table(
  policy: str, outcome: rollouts.Outcome, **columns: Any
) -> pd.DataFrame:
  """One row per task: `policy`, `task`, the columns, and the scores."""
  score = np.asarray(outcome.score, np.float64)
  return pd.DataFrame(
    {
      'policy': policy,
      'task': np.arange(len(score)),
      **columns,
      'score_first': score[:, 0],
      'score_mean': score.mean(1),
      'score_best': score.max(1),
      'score_last': score[:, -1],
    }
  )


class HeldOut:
  """M tasks with their data and their noise, the same for every policy.

  They are drawn when they are first looked at.

  Attributes:
    heuristics: the policies that need no training.
    described: what is played on, and what a score is.
    unit: what a score is, in short.
  """

  unit = '0 do nothing, 1 optimum'

  heuristics: ClassVar[dict[str, policies_base.Factory]] = HEURISTICS

  def __init__(
    self,
    seed: int,
    prior: config.PriorConfig,
    num_tasks: int,
    horizon: environment.Horizon,
  ):
    """Chooses the tasks.

    Args:
      seed: from which tasks, data and noise are drawn.
      prior: the distribution of SCMs.
      num_tasks: M.
      horizon: N and T.
    """
    self._seed = seed
    self._prior = prior
    self._num_tasks = num_tasks
    self._horizon = horizon
    self.described = (
      f'{num_tasks} held-out SCMs, {horizon.num_observations} observations, '
      f'{horizon.num_interventions} interventions. '
      'Score: 0 = no intervention, 1 = the best one.'
    )
    # Beside the network's own, where it can be computed.
    self._kinds = [
      kind
      for kind in beliefs.FACTORIES
      if kind != 'exact' or prior.max_variables <= exact_posterior.MAX_VARIABLES
    ]

  @functools.cached_property
  def _keys(self) -> jax.Array:
    """Of the tasks, and of their data and noise."""
    # Training folds nothing in, so that no seed of its can meet these draws.
    key = jax.random.fold_in(jax.random.PRNGKey(self._seed), 0x4E1D)
    return jax.random.split(key)

  @functools.cached_property
  def tasks(self) -> types.Task:
    """The SCMs and their objectives.

    Raises:
      errors.UsageError: the prior rejects nearly every SCM.
    """
    return priors.sample(self._keys[0], self._prior, self._num_tasks)

  @functools.cached_property
  def scm(self) -> types.SCM:
    """Those of the tasks, in numpy."""
    return jax.device_get(self.tasks.scm)

  @property
  def problem(self) -> types.Problem:
    """What may be seen of them, in numpy."""
    return self.scm.problem

  @functools.cached_property
  def is_linear(self) -> np.ndarray:
    """[M] bool."""
    return np.asarray(self.scm.family) == mechanisms.Family.LINEAR

  @functools.cached_property
  def parents(self) -> np.ndarray:
    """[M, D] bool, the parents of the targets."""
    return np.asarray(graphs.target_parents(self.tasks.scm))

  def scores(
    self, factories: dict[str, policies_base.Factory]
  ) -> dict[str, rollouts.Outcome]:
    """What policies that need no parameters reach, all in one program.

    Args:
      factories: {name: policy of a task}.

    Returns:
      {name: `Outcome`}.

    Raises:
      errors.NonFiniteError: a score is not finite.
    """

    @jax.jit
    def run(index, key, tasks):
      def factory(task):
        return policies_base.select(
          [f(task) for f in factories.values()], index
        )

      return self._evaluate(key, factory, tasks)

    return {
      name: self._finite(0, run(jnp.int32(index), self._keys[1], self.tasks))
      for index, name in enumerate(factories)
    }

  def network_scorer(
    self, network: networks_base.Network
  ) -> Callable[[Any, int], rollouts.Outcome]:
    """A compiled evaluation of the network.

    Args:
      network: whose parameters are scored.

    Returns:
      (parameters, number of updates that made them) -> `Outcome`. It raises an
      `errors.NonFiniteError` where a score or a belief is not finite.
    """

    def run(params: Any, key: jax.Array, tasks: types.Task):
      num_turns = tasks.objective.partial_outcome.shape[-1]
      policy = trained.trained(
        network, params, self._kinds, num_turns, action_distribution.mode
      )
      return self._evaluate(key, lambda task: policy, tasks)

    compiled = jax.jit(run)
    return lambda params, update: self._finite(
      update, compiled(params, self._keys[1], self.tasks)
    )

  def table(self, policy: str, outcome: rollouts.Outcome) -> pd.DataFrame:
    """One row per task: see `statistics`."""
    return table(
      policy,
      outcome,
      family=[mechanisms.Family(i).name.lower() for i in self.scm.family],
      graph=[graphs.Graph(i).name.lower() for i in self.scm.graph],
      variables=self.scm.problem.exists.sum(-1),
    )

  def groups(self) -> dict[str, np.ndarray]:
    """Which tasks are 'all', 'linear', 'nonlinear': [M] bool, none empty."""
    groups = {
      'all': np.ones_like(self.is_linear),
      'linear': self.is_linear,
      'nonlinear': ~self.is_linear,
    }
    return {name: chosen for name, chosen in groups.items() if chosen.any()}

  def belief_quality(self, outcome: rollouts.Outcome) -> pd.DataFrame:
    """How well each belief knows the parents, a row per group and step.

    Args:
      outcome: of a policy on these tasks.

    Returns:
      The columns `belief`, `group`, `interventions` (how many were made before)
      and those of `statistics.parent_set_quality`. Without a group in which
      all candidates are parents, as in stars: there is nothing to tell apart.
    """
    rows = []
    of_all = np.asarray(beliefs.candidates(self.tasks.scm.problem))
    for belief, probability in outcome.parents.items():
      steps = np.asarray(probability).swapaxes(0, 1)
      for group, chosen in self.groups().items():
        candidates = of_all & chosen[:, None]
        if len(np.unique(self.parents[candidates])) == 2:
          rows += [
            {
              'belief': belief,
              'group': group,
              'interventions': step,
              **statistics.parent_set_quality(
                probability, self.parents, candidates
              ),
            }
            for step, probability in enumerate(steps)
          ]
    return pd.DataFrame(rows, columns=BELIEF_COLUMNS)

  def _finite(self, update, outcome):
    """The outcome, if all of it is finite."""
    found = {'score': outcome.score}
    found |= {f'belief {kind}': p for kind, p in outcome.parents.items()}
    faulty = [
      *~np.asarray(outcome.finite).T,
      *(
        ~np.isfinite(values).reshape(len(values), -1).all(1)
        for values in map(np.asarray, found.values())
      ),
    ]
    errors.check_finite(
      update,
      ['observation', 'outcome', *found],
      np.stack(faulty),
      f'{self._seed}',
      held_out=True,
    )
    return outcome

  def _evaluate(self, key, factory, tasks):
    horizon = self._horizon
    return rollouts.evaluate(
      key,
      factory,
      tasks,
      horizon.num_observations,
      horizon.num_interventions,
    )
