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

# Training draws its systems from seeds below this.
_FIRST_SEED = 2**31
# Systems that are played on at once.
_CHUNK = 64


class HeldOutSimulators:
  """M systems, as `held_out.HeldOut` has SCMs.

  A score is how many deviations better than the mean of the observations the
  target was, in one noisy outcome. Nobody knows what is best, nor the parents.

  Attributes:
    heuristics: the policies that need no training.
    described: what is played on, and what a score is.
    unit: what a score is, in short.
    problem: M times that of all systems.
  """

  unit = 'deviations above the observations'
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
    horizon: environment.Horizon,
    stall_seconds: float,
  ):
    """Chooses the systems.

    Args:
      seed: from which systems, data and noise are drawn.
      make: makes a simulator.
      problem: of all systems.
      num_tasks: M.
      horizon: N and T.
      stall_seconds: how long simulators may take over a step.
    """
    self._stall_seconds = stall_seconds
    self._seeds = [_FIRST_SEED + seed * num_tasks + i for i in range(num_tasks)]
    self._key = jax.random.fold_in(jax.random.PRNGKey(seed), 0x51A)
    self._make, self._horizon = make, horizon
    self._problem = problem
    self.problem = normalization.stack_copies(problem, num_tasks)
    self.described = (
      f'{num_tasks} held-out systems of the simulator, '
      f'{horizon.num_observations} observations, '
      f'{horizon.num_interventions} interventions. Score: deviations of the '
      'target above its mean in the observations, in the direction of the goal.'
    )

  def scores(
    self, factories: dict[str, policies_base.Factory]
  ) -> dict[str, rollouts.Outcome]:
    """What policies that need no parameters reach.

    Args:
      factories: {name: policy of a task}, which none of them looks at.

    Returns:
      {name: `Outcome`}.

    Raises:
      errors.NonFiniteError: an outcome is not finite.
    """
    nothing: Any = None
    return {
      name: self._play(lambda params, f=factory: f(nothing))((), 0)
      for name, factory in factories.items()
    }

  def network_scorer(
    self, network: networks_base.Network
  ) -> Callable[[Any, int], rollouts.Outcome]:
    """A compiled evaluation of the network, see `HeldOut.network_scorer`."""
    num_turns = intervention_sets.max_size(self._problem)
    return self._play(
      lambda params: trained.trained(
        network, params, (), num_turns, action_distribution.mode
      )
    )

  def table(self, policy: str, outcome: rollouts.Outcome) -> pd.DataFrame:
    """One row per system: see `statistics`."""
    return held_out.table(
      policy,
      outcome,
      family='simulator',
      graph='unknown',
      variables=self._problem.exists.size,
    )

  def groups(self) -> dict[str, np.ndarray]:
    """All of them: [M] bool."""
    return {'all': np.ones(len(self._seeds), bool)}

  def belief_quality(self, outcome: rollouts.Outcome) -> pd.DataFrame:
    """Nothing: nobody knows the parents."""
    del outcome
    return pd.DataFrame([], columns=held_out.BELIEF_COLUMNS)

  def _play(
    self, make_policy: Callable[[Any], policies_base.Policy]
  ) -> Callable[[Any, int], rollouts.Outcome]:
    """(parameters, update) -> `Outcome` of the policies that they make."""
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

    def play_chunk(params, pool, seeds, key):
      own_rows = pool.reset(
        seeds, [0] * len(seeds), self._horizon.num_observations
      )
      units = normalization.UnitConverter.fit(self._problem, own_rows)
      rows = units.to_normalized(own_rows)

      def choose_each(step, memory):
        keys = jax.random.split(jax.random.fold_in(key, step), len(seeds))
        chosen = choose(params, keys, memory)
        return chosen, units.to_own_intervention(chosen)

      steps = [
        (*to_own_intervention, own)
        for (_, to_own_intervention), own, _ in episode.on_host(
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
      score = float(self._problem.goal) * units.to_normalized(own)
      return rollouts.Outcome._make(
        (
          score[..., target],
          types.Intervention._make((masks, values)),
          own[..., target],
          {},
          np.stack([np.isfinite(x).all((1, 2)) for x in (rows, score)], 1),
        )
      )

    def play(params, update):
      size = min(_CHUNK, len(self._seeds))
      short = -len(self._seeds) % size
      seeds = self._seeds + self._seeds[:short]
      keys = jax.random.split(self._key, len(seeds) // size)
      with contextlib.closing(
        simulator_pool.Pool(self._make, size, self._stall_seconds)
      ) as pool:
        chunks = [
          play_chunk(params, pool, seeds[i * size : (i + 1) * size], key)
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

    return play
