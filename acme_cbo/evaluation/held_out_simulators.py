"""Held-out systems of a simulator on which every policy of a run is scored."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import environment
from acme_cbo.environments import normalization
from acme_cbo.environments import simulator_pool
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import rollouts
from acme_cbo.infra import errors
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import episode
from acme_cbo.policies import trained
from acme_cbo.scms import intervention_sets

# Maximum number of systems that are run at once.
_CHUNK = 64


class HeldOutSimulators:
  """M held-out systems of a simulator, with the interface of `HeldOut`.

  The score of an intervention is the improvement of the target over the mean of
  the observations, in their standard deviations, in a single noisy outcome. The
  optimum and the parents of the target are unknown.

  Attributes:
    heuristics: {name: factory of a policy without training}.
    description: the systems and the score, as a sentence.
    unit: unit of a score.
    problem: the problem of the systems, with a leading axis M.
  """

  unit = 'standard deviations above the mean of the observations'
  heuristics: ClassVar[dict[str, policies_base.Factory]] = {
    name: factory
    for name, factory in held_out.HEURISTICS.items()
    if name != 'oracle'
  }

  def __init__(
    self,
    seed: int,
    make: Callable[[], environment.Simulator],
    problem: types.Problem,
    num_tasks: int,
    horizon: environments_config.HorizonConfig,
    stall_seconds: float,
  ):
    """Stores the settings; simulators are started by an evaluation.

    Args:
      seed: random seed of systems, data and noise.
      make: function that makes a simulator.
      problem: problem that all systems share.
      num_tasks: number M of systems.
      horizon: numbers of observations and interventions.
      stall_seconds: maximum time for a step of the simulators.
    """
    self._stall_seconds = stall_seconds
    first = environment.FIRST_HELD_OUT_SEED
    num_seeds = environment.MAX_SEED + 1 - first
    self._seeds = [
      first + (seed * num_tasks + i) % num_seeds for i in range(num_tasks)
    ]
    self._key = jax.random.fold_in(jax.random.PRNGKey(seed), 0x51A)
    self._make, self._horizon = make, horizon
    self._problem = problem
    self.problem = normalization.stack_copies(problem, num_tasks)
    self.description = (
      f'{num_tasks} held-out systems of the simulator, '
      f'{horizon.num_observations} observations, '
      f'{horizon.num_interventions} interventions. Score: improvement '
      'of the target over the mean of the observations, in their standard '
      'deviations.'
    )

  def scores(
    self, factories: dict[str, policies_base.Factory]
  ) -> dict[str, rollouts.Outcome]:
    """Evaluates policies without parameters.

    Args:
      factories: {name: task -> policy}; they must not depend on the task.

    Returns:
      {name: `Outcome`}.

    Raises:
      errors.NonFiniteError: an outcome is not finite.
    """
    no_task: Any = None
    return {
      name: self._make_scorer(lambda params, f=factory: f(no_task))((), 0)
      for name, factory in factories.items()
    }

  def network_scorer(
    self, network: networks_base.Network
  ) -> Callable[[Any, int], rollouts.Outcome]:
    """Returns an evaluation of a network, see `HeldOut.network_scorer`."""
    max_set_size = intervention_sets.max_size(self._problem)
    return self._make_scorer(
      lambda params: trained.trained(
        network, params, (), max_set_size, action_distribution.mode
      )
    )

  def table(self, policy: str, outcome: rollouts.Outcome) -> pd.DataFrame:
    """Returns the table of results of a policy, see `statistics`."""
    return held_out.table(
      policy,
      outcome,
      family='simulator',
      graph='unknown',
      variables=self._problem.exists.size,
    )

  def groups(self) -> dict[str, np.ndarray]:
    """Returns {'all': [M] bool}, the only group."""
    return {'all': np.ones(len(self._seeds), bool)}

  def belief_quality(self, outcome: rollouts.Outcome) -> pd.DataFrame:
    """Returns an empty table, since the parents are unknown."""
    del outcome
    return pd.DataFrame([], columns=held_out.BELIEF_COLUMNS)

  def _make_scorer(
    self, make_policy: Callable[[Any], policies_base.PolicyFunctions]
  ) -> Callable[[Any, int], rollouts.Outcome]:
    """Returns a compiled evaluation of a policy on all systems.

    Args:
      make_policy: parameters -> policy.

    Returns:
      (parameters, number of the update that they come from) -> `Outcome`.
    """
    num_steps = self._horizon.num_interventions

    @jax.jit
    def init(params, problems, rows):
      policy = make_policy(params)
      return jax.vmap(
        lambda problem, row: policy.init(problem, row, num_steps)
      )(problems, rows)

    @jax.jit
    def choose(params, keys, memory):
      return jax.vmap(make_policy(params).choose)(keys, memory)

    @jax.jit
    def observe(params, memory, step, intervention, outcomes):
      return jax.vmap(make_policy(params).observe, (0, None, 0, 0))(
        memory, step, intervention, outcomes
      )

    def score_chunk(params, pool, seeds, key):
      own_rows = pool.reset(
        seeds, [0] * len(seeds), self._horizon.num_observations
      )
      units = normalization.UnitConverter.fit(
        self._problem, own_rows, pool.variables
      )
      rows = units.to_normalized(own_rows)

      def choose_each(step, memory):
        keys = jax.random.split(jax.random.fold_in(key, step), len(seeds))
        chosen = choose(params, keys, memory)
        return chosen, units.to_own_intervention(chosen)

      steps = [
        (*intervention, own)
        for (_, intervention), own, _ in episode.on_host(
          choose_each,
          lambda step, choice: pool.step(*choice[1]),
          lambda memory, step, choice, own: observe(
            params, memory, jnp.int32(step), choice[0], units.to_normalized(own)
          ),
          init(params, units.problem, rows),
          num_steps,
        )
      ]
      masks, values, own = (np.stack(x, 1) for x in zip(*steps, strict=True))
      (target,) = np.flatnonzero(self._problem.target)
      scores = float(self._problem.goal) * units.to_normalized(own)
      fields: dict[str, Any] = dict(
        score=scores[..., target],
        intervention=types.Intervention._make((masks, values)),
        target=own[..., target],
        parents={},
        after_last={},
        finite=np.stack(
          [np.isfinite(x).all((1, 2)) for x in (rows, scores)], 1
        ),
      )
      return rollouts.Outcome(**fields)

    def score(params, update):
      size = min(_CHUNK, len(self._seeds))
      # The last chunk is filled up with the first systems.
      missing = -len(self._seeds) % size
      seeds = self._seeds + self._seeds[:missing]
      keys = jax.random.split(self._key, len(seeds) // size)
      with contextlib.closing(
        simulator_pool.Pool(self._make, size, self._stall_seconds)
      ) as pool:
        chunks = [
          score_chunk(params, pool, seeds[i * size : (i + 1) * size], key)
          for i, key in enumerate(keys)
        ]
      outcome = jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[: len(self._seeds)], *chunks
      )
      errors.check_finite(
        update,
        ['observation', 'outcome'],
        ~outcome.finite.T,
        f'{self._seeds[0]}',
        held_out=True,
      )
      return outcome

    return score
