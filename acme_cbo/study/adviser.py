"""Suggestions of a trained policy, or of another method, for a study.

The method proposes. A proposal that the space does not allow moves to the
nearest intervention that it does allow; one that is under way already, was just
abandoned, or is close to one that failed, is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
import itertools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import qmc

from acme_cbo import types
from acme_cbo.environments import problem as problem_lib
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.study import padding
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
# Without passive records the first experiments are spread over the domains, and
# their outcomes stand in for records.
_NUM_SPREAD = 3


class Evidence(NamedTuple):
  """Evidence of a study, as a policy is shown it, padded, see `padding`.

  Attributes:
    problem: target, domains, allowed sets, costs and budget.
    observations: [N, D] records, missing values filled in.
    steps: (intervention, outcome [D]) of each experiment.
    under_way: the same of those whose outcome is awaited, with a stand-in.
    num_interventions: T, number of experiments that are planned.
  """

  problem: types.Problem
  observations: np.ndarray
  steps: tuple[tuple[types.Intervention, np.ndarray], ...]
  under_way: tuple[tuple[types.Intervention, np.ndarray], ...]
  num_interventions: int


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
    self._known: Evidence | None = None
    self._memory: Any = None

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
    """
    limit = _limit(state, self.metadata['horizon']['num_interventions'])
    if state.settings.budget is None:
      return limit
    return min(limit, max(1, state.num_affordable(state.settings.budget)))

  def _history(self, state):
    """Yields the functions and the memory before and after each experiment."""
    shown = self._evidence(state, state.space.sets, [])
    if shown is None:
      return
    for number in range(len(shown.steps) + 1):
      yield self._follow(shown._replace(steps=shown.steps[:number]))

  def warnings(self, state: state_lib.State) -> list[str]:
    """Returns how a study is outside of what the policy was trained on.

    Args:
      state: state of the study.
    """
    return training_range.warnings(
      state,
      self.metadata,
      _problem(state, state.space.sets),
      _planned(
        state,
        len(state.observed),
        self.metadata['horizon']['num_interventions'],
      ),
    )

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
    return evidence(
      state,
      sets,
      under_way,
      horizon['num_observations'],
      horizon['num_interventions'],
      is_choice,
    )

  def _follow(self, shown: Evidence) -> tuple[base.PolicyFunctions, Any]:
    """Shows the policy the evidence; returns its functions and its memory.

    The memory is kept, so that only new steps are shown the next time. As
    `observe` consumes it, stand-ins are shown to a copy.
    """
    functions = self._functions(intervention_sets.max_size(shown.problem))
    known = shown._replace(under_way=())
    start = 0
    if self._known is not None and _extends(known, self._known):
      start = len(self._known.steps)
    else:
      self._memory = functions.init(
        shown.problem, shown.observations, shown.num_interventions
      )
    # An interruption in between leaves a memory that nothing extends.
    self._known = None
    for number, step in enumerate(shown.steps[start:], start):
      self._memory = functions.observe(self._memory, number, *step)
    self._known = known
    if not shown.under_way:
      return functions, self._memory
    memory = jax.tree.map(
      lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else leaf,
      self._memory,
    )
    for number, step in enumerate(shown.under_way, len(shown.steps)):
      memory = functions.observe(memory, number, *step)
    return functions, memory


def evidence(
  state: state_lib.State,
  sets: Sequence[frozenset[str]],
  under_way: Sequence[Mapping[str, float]],
  max_observations: int,
  horizon: int,
  is_choice: bool = False,
) -> Evidence | None:
  """Returns what a policy is shown of a study.

  Args:
    state: state of the study.
    sets: sets of variables that may be set next, of those of the space.
    under_way: interventions whose outcome is not known yet.
    max_observations: largest number of records; of more, it is this many at
      random, always the same.
    horizon: number of experiments to plan with where the study has no limit.
    is_choice: whether the policy chooses a further experiment.

  Returns:
    The `Evidence`, or None if there is too little to learn from.
  """
  settings = state.settings
  observed = state.observed
  outcomes = np.array(
    [
      [one.values.get(name, math.nan) for name in settings.columns]
      for one in observed
    ]
  ).reshape(-1, len(settings.columns))
  records = state.records
  if len(records) < 2:
    if len(observed) < _NUM_SPREAD:
      return None
    records = np.concatenate([records, outcomes[:_NUM_SPREAD]])
  if len(records) > max_observations:
    rng = np.random.default_rng(settings.seed)
    records = records[np.sort(rng.permutation(len(records))[:max_observations])]
  middle = _middle(state, records, outcomes)
  records = np.where(np.isnan(records), middle, records)
  outcomes = np.where(np.isnan(outcomes), middle, outcomes)
  problem = _problem(state, sets)
  size = problem.exists.size
  records, outcomes, middle = (
    padding.columns(rows, size) for rows in (records, outcomes, middle)
  )
  steps = tuple(
    (_intervention(state, _in_domains(state, one.do), size), outcome)
    for one, outcome in zip(observed, outcomes, strict=True)
  )
  stand_ins = []
  for do in under_way:
    intervention = _intervention(state, do, size)
    outcome = np.where(intervention.mask, intervention.values, middle)
    stand_ins.append((intervention, outcome))
  return Evidence(
    problem,
    records,
    steps,
    tuple(stand_ins),
    _planned(state, len(steps) + len(stand_ins) + is_choice, horizon),
  )


def _key(seed: int) -> np.ndarray:
  """Returns the random key of a seed of up to 64 bits, in any precision."""
  return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def _problem(state, sets) -> types.Problem:
  """Returns the problem of a study, in own units, padded, see `padding`."""
  settings, variables = state.settings, state.space.variables
  domains = {name: (one.low, one.high) for name, one in variables.items()}
  budget = None
  if settings.budget is not None:
    # The policy charges all that it is shown at today's costs: give it what is
    # left, and that.
    made = [one for one in state.counted if one.status != 'pending']
    spent = math.fsum(one.cost for one in made)
    shown = math.fsum(state.cost(one.do) for one in state.observed)
    budget = max(settings.budget + (shown - spent), 1e-9)
  mean = float(np.mean([one.cost for one in variables.values()]))
  problem = problem_lib.make(
    settings.columns,
    settings.target,
    settings.goal,
    domains,
    1,
    # In training all variables have costs, those that cannot be set among them.
    {
      name: variables[name].cost if name in variables else mean
      for name in settings.columns
    },
  )
  allowed = {*sets}
  changes: dict[str, Any] = dict(
    sets=np.array(
      [
        [name in one and one in allowed for name in settings.columns]
        for one in state.space.sets
      ]
    ),
    budget=np.float64(np.inf if budget is None else budget),
  )
  return padding.problem(problem._replace(**changes))


def _planned(state, num_steps, horizon) -> int:
  """Returns the number T of experiments that the policy plans with.

  Args:
    state: state of the study.
    num_steps: number of experiments that it is shown, and of the next one if it
      chooses one.
    horizon: number of experiments that it was trained on.
  """
  past = sum(one.is_past for one in state.observed)
  planned = past + _limit(state, horizon)
  if state.settings.experiments is None:
    planned = min(planned, horizon)
  # More were made than planned: in tens, because each number is compiled.
  return planned if num_steps <= planned else 10 * -(-num_steps // 10)


def _limit(state, horizon) -> int:
  """Returns how many experiments a study has room for, or the horizon."""
  settings = state.settings
  if settings.experiments is not None:
    return settings.experiments
  if settings.budget is None:
    return horizon
  return min(horizon, max(1, state.num_affordable(settings.budget)))


def _extends(shown: Evidence, before: Evidence) -> bool:
  """Returns whether evidence only adds steps to what was shown before."""

  def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))

  return (
    len(shown.steps) >= len(before.steps)
    and same(shown.steps[: len(before.steps)], before.steps)
    and same(shown._replace(steps=()), before._replace(steps=()))
  )


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
    if not space.variables[name].allows(interventions.to_float(value)):
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
    raise errors.UsageError(
      f'the budget is spent: {left:g} of {settings.budget:g} is left, and the '
      f'cheapest experiment costs {cheapest:g}'
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


def _in_domains(state, do) -> dict[str, float]:
  """Returns an intervention; values a little outside move to the domain.

  Those that were carried out a little outside may be recommended, too.
  """
  moved = {}
  for name, value in do.items():
    one = state.space.variables.get(name)
    inside = value if one is None else min(max(value, one.low), one.high)
    little = one is not None and (
      abs(inside - value) <= space_lib.SAME * (one.high - one.low)
    )
    moved[name] = inside if little else value
  return moved


def _intervention(state, do, size) -> types.Intervention:
  """Returns an intervention, padded to a number of variables."""
  made = interventions.from_names(do, state.settings.columns)
  return jax.tree.map(lambda leaf: padding.columns(leaf, size), made)


def _middle(state, records, outcomes) -> np.ndarray:
  """Returns [D] medians of all values, which stand in for missing ones."""
  rows = np.concatenate([records, outcomes])
  middle = np.zeros(rows.shape[1])
  for j, name in enumerate(state.settings.columns):
    present = rows[~np.isnan(rows[:, j]), j]
    if present.size:
      middle[j] = np.median(present)
    elif name in state.space.variables:
      one = state.space.variables[name]
      middle[j] = (one.low + one.high) / 2
  return middle
