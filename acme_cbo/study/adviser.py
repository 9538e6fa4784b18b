"""Suggestions of a trained policy, or of another method, for a study.

The method proposes. A proposal that the space does not allow moves to the
nearest intervention that it does allow; one that is under way already, was just
abandoned, or is close to one that failed, is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
import itertools
import math
from typing import Any

import jax
import numpy as np
from scipy.stats import qmc

from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies import prediction
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions as interventions_lib
from acme_cbo.study import digits
from acme_cbo.study import evidence
from acme_cbo.study import space as space_lib
from acme_cbo.study import state as state_lib
from acme_cbo.study import training_range

# Draws of the policy per suggestion, until one is new.
_MAX_DRAWS = 64
# Distance from a failed experiment on the same variables, in shares of the
# domains, within which another one is likely to fail as well.
_NEAR = 0.05
# Distance below which two interventions under way are the same.
_SAME = 0.01


class Adviser:
  """Suggests, by a method, the next interventions of a study.

  Attributes:
    metadata: training metadata of a policy.
  """

  def __init__(
    self,
    functions: Callable[[int], base.PolicyFunctions],
    metadata: Mapping[str, Any],
  ):
    """Wraps a method.

    Args:
      functions: function from the largest number of variables that are set at
        once to the policy that proposes interventions.
      metadata: training metadata of a policy, see `saving.load`; of other
        methods they decide how many records are shown.
    """
    self._functions = functions
    self.metadata = metadata
    # The evidence that was shown last, and the functions and the memory then.
    self._followed: tuple[evidence.Evidence, base.PolicyFunctions, Any] | None
    self._followed = None

  def suggest(
    self,
    state: state_lib.State,
    number: int = 1,
    only: Collection[str] | None = None,
    fixed: Mapping[str, float] | None = None,
  ) -> list[dict[str, float]]:
    """Returns the next interventions; they differ from all that are pending.

    Those that are pending count as experiments whose outcome is the median of
    all that was observed, a constant liar (Ginsbourger, Le Riche and Carraro,
    "Kriging Is Well-Suited to Parallelize Optimization", 2010, section 4). So
    do those that failed or were abandoned, until the next outcome.

    Args:
      state: state of the study.
      number: number of interventions.
      only: variables that they may set; all of the space by default.
      fixed: {variable: value} that each of them sets.

    Returns:
      `number` interventions, {variable: value}.

    Raises:
      errors.UsageError: an argument is wrong, or nothing is left to suggest.
    """
    fixed = {} if fixed is None else dict(fixed)
    sets = _restricted(state.space, only, fixed)
    pending = [dict(one.do) for one in state.pending]
    given_up = _given_up(state)
    new: list[dict[str, float]] = []
    for index in range(len(state.experiments), len(state.experiments) + number):
      _check_means(state, sets, new)
      draws = itertools.chain(
        self._draws(state, sets, [*pending, *given_up, *new], index),
        _spread(state, sets, index),
      )
      left = _left(state, new)
      under_way = [*pending, *new]
      new.append(_first_new(state, draws, left, under_way, given_up, fixed))
    return new

  def recommend(self, state: state_lib.State) -> int | None:
    """Returns the number of the experiment that the policy holds to be best.

    It is one whose intervention the space allows; None if there is none.
    """
    known = _without_violations(state)
    candidates = [one for one in known.observed if state.space.has(one.do)]
    shown = self._evidence(known, state.space.sets, [])
    if not candidates or shown is None:
      return None
    functions, memory = self._follow(shown)
    found = _values_set(state, functions.recommend(memory))
    # The policy computes in float32, which moves the values a little.
    return min(
      candidates, key=lambda one: state.space.distance(one.do, found)
    ).number

  def proposals(self, state: state_lib.State) -> list[dict[str, float]]:
    """Returns new interventions: what the policy might try, and a spread.

    Args:
      state: state of the study.

    Returns:
      Interventions, {variable: value}, that the space and the budget allow, and
      that were neither tried, nor failed, nor are pending.
    """
    tried = [*state.observed, *state.pending, *state.failed]
    sets, index = state.space.sets, len(state.experiments)
    # Where a replicate is due, the policy draws that alone.
    draws = itertools.chain(
      self._draws(state, sets, [], index), _spread(state, sets, index)
    )
    return [
      do
      for do in map(state.space.nearest, draws)
      if do
      and not state.space.complaint(do)
      and not _is_near(state, do, [one.do for one in tried], _SAME)
      and intervention_sets.is_within_budget(_left(state, []), state.cost(do))
    ]

  def predict(
    self,
    state: state_lib.State,
    interventions: Sequence[Mapping[str, float]],
  ) -> list[prediction.Prediction] | None:
    """Predicts the target under interventions.

    Args:
      state: state of the study.
      interventions: {variable: value} of each; they need not be allowed.

    Returns:
      A `Prediction` of each; None as long as there is nothing to learn from.
    """
    shown = self._evidence(state, state.space.sets, [])
    if shown is None:
      return None
    if not interventions:
      return []
    functions, memory = self._follow(shown)
    assert functions.predict is not None
    asked = [
      evidence.intervention(state, do, shown.problem.exists.size)
      for do in interventions
    ]
    predicted = functions.predict(
      memory, jax.tree.map(lambda *leaves: np.stack(leaves), *asked)
    )
    return [
      jax.tree.map(lambda leaf, i=i: leaf[i], predicted)
      for i in range(len(interventions))
    ]

  def causes(self, state: state_lib.State) -> dict[str, float]:
    """Returns {variable: probability that it is a direct cause of the target}.

    It is empty as long as there is nothing to learn from.
    """
    shown = self._evidence(state, state.space.sets, [])
    if shown is None:
      return {}
    (belief,) = base.parent_probabilities(*self._follow(shown)).values()
    return _by_name(state, belief)

  def causes_over_time(self, state: state_lib.State) -> list[dict[str, float]]:
    """Returns `causes` before the first experiment and after each."""
    return [
      _by_name(state, *base.parent_probabilities(*known).values())
      for known in self._history(state)
    ]

  def unchanged(self, state: state_lib.State) -> int:
    """Returns after how many of the last experiments `recommend` is the same.

    Past experiments of a table do not count.

    Args:
      state: state of the study.
    """
    known = _without_violations(state)
    recommended = [
      [np.asarray(leaf).tolist() for leaf in functions.recommend(memory)]
      for functions, memory in itertools.islice(self._history(known), 1, None)
    ]
    same = 0
    for one, made in zip(
      reversed(known.observed), reversed(recommended), strict=False
    ):
      if made != recommended[-1]:
        break
      same += not one.is_past
    return same

  def planned(self, state: state_lib.State) -> int:
    """Returns how many experiments a study has room for.

    Where it has no limit, it is the number that the policy was trained on.

    Args:
      state: state of the study.
    """
    return evidence.room(state, self.metadata['horizon']['num_interventions'])

  def _history(self, state):
    """Yields the functions and the memory before and after each experiment."""
    shown = self._evidence(state, state.space.sets, [])
    if shown is None:
      return
    functions, memory = self._begin(shown)
    yield functions, memory
    for number, step in enumerate(shown.steps):
      memory = functions.observe(memory, number, *step)
      yield functions, memory

  def warnings(self, state: state_lib.State) -> list[str]:
    """Returns how a study is outside of what the policy was trained on.

    Args:
      state: state of the study.
    """
    return training_range.warnings(state, self.metadata)

  def _draws(self, state, sets, under_way, index):
    """Yields proposals of the policy, its first choice first."""
    shown = self._evidence(state, sets, under_way, is_choice=True)
    if shown is None:
      return
    functions, memory = self._follow(shown)
    key = jax.random.fold_in(_key(state.settings.seed), index)
    for draw in range(_MAX_DRAWS):
      drawn = key if draw == 0 else jax.random.fold_in(key, draw)
      yield _values_set(state, functions.choose(drawn, memory))

  def _evidence(self, state, sets, under_way, is_choice=False):
    horizon = self.metadata['horizon']
    return evidence.of(
      state,
      sets,
      under_way,
      horizon['num_observations'],
      horizon['num_interventions'],
      is_choice,
    )

  def _begin(
    self, shown: evidence.Evidence
  ) -> tuple[base.PolicyFunctions, Any]:
    """Returns the functions of the policy, and its memory before any step."""
    functions = self._functions(intervention_sets.max_size(shown.problem))
    return functions, functions.init(
      shown.problem, shown.observations, shown.num_interventions
    )

  def _follow(
    self, shown: evidence.Evidence
  ) -> tuple[base.PolicyFunctions, Any]:
    """Shows the policy the evidence; returns its functions and its memory.

    The memory is kept, so that only new steps are shown the next time. As
    `observe` consumes it, stand-ins are shown to a copy.
    """
    known = shown._replace(under_way=())
    # An interruption in between leaves nothing that is half shown.
    followed, self._followed = self._followed, None
    if followed is not None and evidence.extends(known, followed[0]):
      before, functions, memory = followed
      start = len(before.steps)
    else:
      start = 0
      functions, memory = self._begin(known)
    for number, step in enumerate(known.steps[start:], start):
      memory = functions.observe(memory, number, *step)
    self._followed = known, functions, memory
    if not shown.under_way:
      return functions, memory
    # By numpy: jax would compile a copy for each shape.
    memory = jax.tree.map(
      lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) else leaf,
      memory,
    )
    for number, step in enumerate(shown.under_way, len(shown.steps)):
      memory = functions.observe(memory, number, *step)
    return functions, memory


def _key(seed: int) -> np.ndarray:
  """Returns the random key of a seed of up to 64 bits, in any precision."""
  return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def _by_name(state, belief) -> dict[str, float]:
  return {
    name: float(probability)
    # Of padding there is a belief, too.
    for name, probability in zip(state.settings.columns, belief, strict=False)
    if name != state.settings.target
  }


def _restricted(
  space: space_lib.Space,
  only: Collection[str] | None,
  fixed: Mapping[str, float],
) -> list[frozenset[str]]:
  """Returns the sets of a space that the arguments of `suggest` leave."""
  if isinstance(only, str):
    raise errors.UsageError(f'only={only!r} must be a list of names')
  for name in (*(only or ()), *fixed):
    if name not in space.variables:
      hint = errors.did_you_mean_or_options(str(name), [*space.variables])
      raise errors.UsageError(f'{name!r} is no variable that may be set{hint}')
  for name, value in fixed.items():
    if not space.variables[name].allows(interventions_lib.to_float(value)):
      raise errors.UsageError(
        f'{name!r} is fixed at {value!r}; it must be '
        f'{space.variables[name].describe()}'
      )
  allowed = space.variables.keys() if only is None else {*only, *fixed}
  sets = [one for one in space.sets if fixed.keys() <= one <= allowed]
  if not sets:
    raise errors.UsageError(
      'no allowed set of variables is left: '
      + ', '.join(
        text
        for text, given in (
          (f'only {sorted(only or ())}', only is not None),
          (f'with {sorted(fixed)}', fixed),
        )
        if given
      )
    )
  return sets


def _check_means(state, sets, new) -> None:
  """Raises if the budget, or the number of experiments, is used up."""
  settings = state.settings
  limit = settings.experiments
  if limit is not None and len(state.counted) + len(new) >= limit:
    rest = (
      f'only {len(new)} of {limit} experiments are left'
      if new
      else (f'all {limit} experiments are made or under way')
    )
    raise errors.UsageError(f'{rest}; raise the number of experiments to go on')
  left = _left(state, new)
  cheapest = min(map(state.cost, sets))
  if not intervention_sets.is_within_budget(left, cheapest):
    spent, budget, cost = (
      digits.cost(x)
      for x in (settings.budget - left, settings.budget, cheapest)
    )
    raise errors.UsageError(
      f'the budget is spent: {spent} of {budget} is used, and the cheapest '
      f'experiment costs {cost}'
    )


def _left(state, new) -> float:
  """Returns the rest of the budget."""
  if state.settings.budget is None:
    return math.inf
  spent = math.fsum([state.spent, *map(state.cost, new)])
  return state.settings.budget - spent


def _given_up(state) -> list[dict[str, float]]:
  """Returns what failed or was abandoned since the last outcome."""
  last = max((one.number for one in state.observed), default=0)
  return [
    dict(one.do)
    for one in state.experiments.values()
    if one.status in ('failed', 'abandoned') and one.number > last
  ]


def _first_new(
  state, draws, left, under_way, given_up, fixed
) -> dict[str, float]:
  """Returns the first proposal that is allowed, and new.

  One that is near a failure, or was given up, is returned if there is no other.
  """
  last_resort = None
  for draw in draws:
    do = state.space.nearest({**draw, **fixed}, fixed)
    if (
      do is None
      or state.space.complaint(do)
      or not intervention_sets.is_within_budget(left, state.cost(do))
    ):
      continue
    if _is_near(state, do, under_way, _SAME):
      continue
    if not (
      _is_near(state, do, [one.do for one in state.failed], _NEAR)
      or _is_near(state, do, given_up, _SAME)
    ):
      return do
    last_resort = last_resort or do
  if last_resort is None:
    raise errors.UsageError(
      f'nothing new to suggest: {2 * _MAX_DRAWS} proposals were under way '
      'already, or violated a constraint; report outcomes, or widen the domains'
    )
  return last_resort


def _is_near(state, do, others, distance) -> bool:
  return any(state.space.distance(do, other) < distance for other in others)


def _spread(state, sets, index):
  """Yields interventions that are spread over the sets and domains."""
  variables = state.space.variables
  seed = state.settings.seed
  order = np.random.default_rng(seed).permutation(len(sets))
  sampler = qmc.Halton(len(variables), rng=np.random.default_rng(seed))
  for point in sampler.random(index + _MAX_DRAWS)[index:]:
    names = sets[order[index % len(sets)]]
    yield {
      name: one.low + (one.high - one.low) * share
      for (name, one), share in zip(variables.items(), point, strict=True)
      if name in names
    }
    index += 1


def _values_set(state, intervention) -> dict[str, float]:
  """Returns an intervention of a policy as {variable: value}."""
  mask, values = map(np.asarray, intervention)
  columns = state.settings.columns
  return {columns[j]: float(values[j]) for j in np.flatnonzero(mask)}


def _without_violations(state) -> state_lib.State:
  """Returns a state without the outcomes that violate a constraint.

  A policy knows of sets and domains, not of constraints, and could recommend
  one of them. They exist where constraints came later.
  """
  if not state.space.constraints:
    return state
  known = state.copy()
  for one in state.observed:
    if frozenset(one.do) in state.space.sets and not state.space.has(one.do):
      del known.experiments[one.number]
  return known
