"""Evidence of a study, as a policy is shown it: padded arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.environments import problem as problem_lib
from acme_cbo.scms import interventions
from acme_cbo.study import padding
from acme_cbo.study import space as space_lib
from acme_cbo.study import state as state_lib

# Without passive records, the outcomes of this many experiments stand in.
NUM_SPREAD = 3


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


def of(
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
    if len(observed) < NUM_SPREAD:
      return None
    records = np.concatenate([records, outcomes[:NUM_SPREAD]])
  if len(records) > max_observations:
    rng = np.random.default_rng(settings.seed)
    records = records[np.sort(rng.permutation(len(records))[:max_observations])]
  middle = _middle(state, records, outcomes)
  records = np.where(np.isnan(records), middle, records)
  outcomes = np.where(np.isnan(outcomes), middle, outcomes)
  whole = problem(state, sets)
  size = whole.exists.size
  records, outcomes, middle = (
    padding.columns(rows, size) for rows in (records, outcomes, middle)
  )
  steps = tuple(
    (intervention(state, _in_domains(state, one.do), size), outcome)
    for one, outcome in zip(observed, outcomes, strict=True)
  )
  stand_ins = []
  for do in under_way:
    planned = intervention(state, do, size)
    outcome = np.where(planned.mask, planned.values, middle)
    stand_ins.append((planned, outcome))
  return Evidence(
    whole,
    records,
    steps,
    tuple(stand_ins),
    num_interventions(state, len(steps) + len(stand_ins) + is_choice, horizon),
  )


def shortfall(state: state_lib.State) -> str:
  """Returns why there is nothing to recommend, as the end of a sentence.

  Args:
    state: state of the study.
  """
  if not state.observed:
    return 'there is no outcome yet'
  if not any(state.space.has(one.do) for one in state.observed):
    return 'there is no outcome yet of what the study allows'
  return f'without records, it takes {NUM_SPREAD} outcomes'


def problem(
  state: state_lib.State, sets: Sequence[frozenset[str]]
) -> types.Problem:
  """Returns the problem of a study, in own units, padded, see `padding`.

  Args:
    state: state of the study.
    sets: sets of variables that may be set next, of those of the space.
  """
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
  whole = problem_lib.make(
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
    edges=settings.known_edges(),
  )
  return padding.problem(whole._replace(**changes))


def num_interventions(
  state: state_lib.State, num_steps: int, horizon: int
) -> int:
  """Returns the number T of experiments that the policy plans with.

  Args:
    state: state of the study.
    num_steps: number of experiments that it is shown, and of the next one if it
      chooses one.
    horizon: number of experiments that it was trained on.
  """
  limit = state.settings.experiments
  past = sum(one.is_past for one in state.observed)
  if limit is not None:
    # The policy knows of the budget that there is beside it.
    planned = past + limit
  else:
    planned = min(past + room(state, horizon), horizon)
  # More were made than planned: in tens, because each number is compiled.
  return planned if num_steps <= planned else 10 * -(-num_steps // 10)


def room(state: state_lib.State, horizon: int) -> int:
  """Returns how many experiments a study has room for.

  Args:
    state: state of the study.
    horizon: the number where the study has no limit.
  """
  settings = state.settings
  limit = horizon if settings.experiments is None else settings.experiments
  if settings.budget is None:
    return limit
  return min(limit, max(1, state.num_affordable(settings.budget)))


def extends(shown: Evidence, before: Evidence) -> bool:
  """Returns whether evidence only adds steps to what was shown before.

  Args:
    shown: the evidence.
    before: what was shown before.
  """

  def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))

  return (
    len(shown.steps) >= len(before.steps)
    and same(shown.steps[: len(before.steps)], before.steps)
    and same(shown._replace(steps=()), before._replace(steps=()))
  )


def intervention(
  state: state_lib.State, do: Mapping[str, float], size: int
) -> types.Intervention:
  """Returns an intervention, padded to a number of variables.

  Args:
    state: state of the study.
    do: {variable: value}.
    size: number of variables.
  """
  made = interventions.from_names(do, state.settings.columns)
  return jax.tree.map(lambda leaf: padding.columns(leaf, size), made)


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
