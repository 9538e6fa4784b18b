"""State of a study: what its events add up to.

Every change of a study is an event, and nothing is ever removed from its log:
a correction is an event too. The state is computed from the events alone, so
that a study that is opened again is the study that was left.

  created    settings, and the names of the columns
  records    passive records, and past experiments of a table
  suggested  experiments that the study proposes
  observed   outcomes of experiments, suggested or not
  failed     an experiment that has no outcome
  abandoned  a suggestion that will not be carried out
  amended    correction of what an experiment set, or of its outcome
  withdrawn  an experiment, or records, that no longer count
  changed    new settings
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import copy
import dataclasses
import functools
import math
from typing import Any

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import interventions
from acme_cbo.scms import known_edges
from acme_cbo.study import parsing
from acme_cbo.study import space as space_lib

GOALS = ('maximize', 'minimize')
# Settings that `changed` may change.
CHANGEABLE = (
  'goal',
  'variables',
  'interventions',
  'constraints',
  'edges',
  'budget',
  'experiments',
)
_MAX_EXPERIMENTS = 1_000
# Number of experiments that is as good as any number.
_MAX_AFFORDABLE = 10**9
# Ratio to the largest value so far beyond which an outcome is an error.
_MAX_RATIO = 1e9
# Columns of tables that say what an experiment is; no variables.
RESERVED = (
  'experiment',
  'experiment_status',
  'experiment_suggested',
  'experiment_reason',
  'intervention_targets',
)
# Exceptions that a payload of a wrong form causes.
_DAMAGED = (
  AttributeError,
  KeyError,
  IndexError,
  OverflowError,
  TypeError,
  ValueError,
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of a study.

  Attributes:
    target: name of the variable to optimize.
    goal: 'maximize' or 'minimize'.
    columns: names of all D variables, the target among them.
    variables: {name: settings} of those that may be set, see `space.parse`.
    interventions: which may be set together, see `space.parse`.
    constraints: linear constraints, see `space.parse`.
    edges: known edges, see `known_edges.parse`, or None.
    budget: maximum total cost of the experiments, or None.
    experiments: maximum number of the experiments, or None.
    seed: seed of all suggestions.
    policy: directory of the policy that decides; '' is the shipped one.
  """

  target: str
  goal: str
  columns: tuple[str, ...]
  variables: Mapping[str, Any]
  interventions: Any = None
  constraints: Sequence[str] = ()
  edges: Any = None
  budget: float | None = None
  experiments: int | None = None
  seed: int = 0
  policy: str = ''

  @property
  def sign(self) -> float:
    """1 to maximize the target, -1 to minimize it."""
    return 1.0 if self.goal == 'maximize' else -1.0

  def known_edges(self) -> np.ndarray | None:
    """Returns what is known of the graph, see `known_edges.parse`."""
    return known_edges.parse(self.edges, self.columns)

  def space(self) -> space_lib.Space:
    """Returns the allowed interventions; raises if a setting is wrong.

    Raises:
      errors.UsageError: a setting is wrong, or does not fit the others.
    """
    if len(set(self.columns)) < len(self.columns):
      raise errors.UsageError('two variables have the same name')
    for name in self.columns:
      if (
        not isinstance(name, str)
        or not name.strip()
        or (not name.isprintable())
      ):
        raise errors.UsageError(
          f'a variable has the name {name!r}; it must be a text that can be '
          'shown'
        )
    for name in (*self.columns, *self.variables):
      if name in RESERVED or ';' in name:
        raise errors.UsageError(
          f'a variable cannot be named {name!r}: tables of studies use '
          f'{", ".join(RESERVED)} and ";" for something else'
        )
    if self.target not in self.columns:
      hint = errors.did_you_mean_or_options(str(self.target), self.columns)
      raise errors.UsageError(
        f'the target {self.target!r} is no variable{hint}'
      )
    if self.goal not in GOALS:
      raise errors.UsageError(
        f"the goal is {self.goal!r}; it must be 'maximize' or 'minimize'"
      )
    for what, value, whole in (
      ('budget', self.budget, False),
      ('number of experiments', self.experiments, True),
    ):
      number = interventions.to_float(value)
      if value is not None and (
        isinstance(value, bool)
        or not 0 < number < math.inf
        or (whole and (number != int(number) or number > _MAX_EXPERIMENTS))
      ):
        kind = (
          f'a whole number from 1 to {_MAX_EXPERIMENTS:,}'
          if whole
          else 'finite and above 0'
        )
        raise errors.UsageError(f'the {what} is {value!r}; it must be {kind}')
    self.known_edges()
    if not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
      raise errors.UsageError(
        f'the seed is {self.seed!r}; it must be an int from 0 to 2**64 - 1'
      )
    space = space_lib.parse(
      self.variables, self.interventions, self.constraints
    )
    for name in space.variables:
      if name == self.target:
        raise errors.UsageError(
          f'the target {name!r} cannot be among the variables to set'
        )
      if name not in self.columns:
        hint = errors.did_you_mean_or_options(name, self.columns)
        raise errors.UsageError(f'there is no variable {name!r}{hint}')
    return space


@dataclasses.dataclass(frozen=True)
class Experiment:
  """One experiment.

  Attributes:
    number: its number, from 1, in the order in which they came.
    do: {variable: value} that was asked for, or, once there is an outcome, that
      was carried out.
    status: 'pending', 'observed', 'failed', 'abandoned' or 'withdrawn'.
    outcome: {variable: value} that was observed; variables may be missing, the
      target is not.
    is_suggested: whether the study suggested it.
    is_past: whether it came with a table of records; neither the budget nor the
      number of experiments counts it.
    is_amended: whether it was corrected.
    cost: its cost, at the time when it began.
    reason: why it failed, was abandoned or was withdrawn.
    events: numbers of the events that concern it.
  """

  number: int
  do: Mapping[str, float]
  status: str = 'pending'
  outcome: Mapping[str, float] = dataclasses.field(default_factory=dict)
  is_suggested: bool = False
  is_past: bool = False
  is_amended: bool = False
  cost: float = 0.0
  reason: str = ''
  events: tuple[int, ...] = ()

  @property
  def values(self) -> dict[str, float]:
    """{variable: value} of all that is known: what was set, and observed."""
    return {**self.do, **self.outcome}


class State:
  """State of a study, changed by one event after another.

  Attributes:
    settings: current settings.
    space: interventions that the settings allow.
    experiments: {number: `Experiment`}, in their order.
    num_events: number of events so far, the number of the next one.
  """

  def __init__(self):
    """Creates the state before the first event."""
    self.settings: Settings
    self.space: space_lib.Space
    self.experiments: dict[int, Experiment] = {}
    self.num_events = 0
    self._records: dict[int, np.ndarray] = {}
    self._target_range: tuple[int, float] = (0, 0.0)

  def copy(self) -> State:
    """Returns a state that changes independently of this one."""
    copied = copy.copy(self)
    copied.experiments = dict(self.experiments)
    copied._records = dict(self._records)
    return copied

  @property
  def records(self) -> np.ndarray:
    """Passive records: [N, D], NaN where a value is missing."""
    tables = [*self._records.values()]
    if len(tables) == 1:  # Not copied: it may have 100,000 rows.
      return tables[0]
    return np.concatenate([np.zeros((0, len(self.settings.columns))), *tables])

  @property
  def target_range(self) -> float:
    """Difference of the largest and the smallest target observed so far."""
    # Kept, because every number that is printed asks for it.
    if self._target_range[0] != self.num_events:
      name = self.settings.target
      column = self.settings.columns.index(name)
      values = np.append(
        self.records[:, column], [one.outcome[name] for one in self.observed]
      )
      difference = float(np.ptp(values)) if values.size else 0.0
      self._target_range = self.num_events, difference
    return self._target_range[1]

  @property
  def num_records(self) -> dict[int, int]:
    """{number of an event: number of passive records that it added}."""
    return {event: len(rows) for event, rows in self._records.items()}

  @property
  def observed(self) -> list[Experiment]:
    """Experiments with an outcome, in the order in which they began."""
    return self._with_status('observed')

  @property
  def pending(self) -> list[Experiment]:
    """Suggestions whose outcome is awaited."""
    return self._with_status('pending')

  @property
  def failed(self) -> list[Experiment]:
    """Experiments that were carried out and have no outcome."""
    return self._with_status('failed')

  def _with_status(self, status):
    return [one for one in self.experiments.values() if one.status == status]

  @property
  def counted(self) -> list[Experiment]:
    """Experiments that limits count: carried out or under way, in the study."""
    return [
      one
      for one in self.experiments.values()
      if one.status in ('pending', 'observed', 'failed') and not one.is_past
    ]

  @property
  def spent(self) -> float:
    """Cost of the experiments that the budget counts."""
    return math.fsum(one.cost for one in self.counted)

  def cost(self, names: Iterable[str]) -> float:
    """Returns the cost of setting variables, also of those no longer set."""
    variables = self.space.variables
    return math.fsum(
      variables[name].cost if name in variables else 1.0 for name in names
    )

  def num_affordable(self, budget: float) -> int:
    """Returns how many of the cheapest experiments a budget pays for."""
    cheapest = min(map(self.cost, self.space.sets))
    # A rounding error does not forbid the last one.
    number = budget / cheapest * (1 + 1e-9) + 1e-9
    return max(0, math.floor(min(number, _MAX_AFFORDABLE)))

  def apply(
    self, kind: str, payload: Mapping[str, Any], rows: np.ndarray | None = None
  ) -> None:
    """Applies the next event.

    A state that raises is not changed.

    Args:
      kind: kind of the event.
      payload: its content.
      rows: [N, D] rows of a table, of the kinds that have them.

    Raises:
      errors.UsageError: the event does not fit the state; the sentence says
        what would.
    """
    handlers = {
      'created': self._created,
      'records': self._added,
      'suggested': self._suggested,
      'observed': self._observed,
      'failed': functools.partial(self._ended, 'failed'),
      'abandoned': functools.partial(self._ended, 'abandoned'),
      'amended': self._amended,
      'withdrawn': self._withdrawn,
      'changed': self._changed,
    }
    if kind not in handlers or (kind == 'created') != (self.num_events == 0):
      raise errors.UsageError(
        f'event {self.num_events} is of the kind {kind!r}, which cannot be'
      )
    arguments = {} if rows is None else {'rows': rows}
    try:
      handlers[kind](**payload, **arguments)
    except errors.UsageError:
      raise
    except _DAMAGED as error:
      raise errors.UsageError(
        f'event {self.num_events} is damaged: it is not as events of the kind '
        f'{kind!r} are'
      ) from error
    self.num_events += 1

  def _created(self, *, records=None, rows=None, **settings):
    settings['columns'] = _tuple('columns', settings.get('columns', ()))
    created = Settings(**settings)
    self.space, self.settings = created.space(), created
    if records is not None:
      self._added(**records, rows=rows)

  def _changed(self, **settings):
    if not settings:
      raise errors.UsageError('name what to change, such as the budget')
    for name in settings:
      if name not in CHANGEABLE:
        hint = errors.did_you_mean_or_options(name, CHANGEABLE)
        raise errors.UsageError(f'{name!r} cannot be changed{hint}')
    if 'variables' in settings:
      if not isinstance(settings['variables'], Mapping):
        raise errors.UsageError(
          f'the variables are {settings["variables"]!r}; they must be a dict '
          'of those that change'
        )
      settings['variables'] = _merged(
        self.settings.variables, settings['variables']
      )
    changed = dataclasses.replace(self.settings, **settings)
    self.space, self.settings = changed.space(), changed

  def _added(self, *, interventions, size, rows):
    names = self.settings.columns
    if rows is None or rows.shape != (size, len(names)):
      raise errors.UsageError(
        f'the records must be {size!r} rows of {len(names)} columns'
      )
    made = []
    is_passive = np.ones(len(rows), bool)
    for text, set_names in interventions.items():
      index = int(text)
      if str(index) != text or index < 0:
        raise ValueError(f'{text!r} is no number of a row')
      row = rows[index]
      outcome = {
        name: float(value)
        for name, value in zip(names, row, strict=True)
        if not math.isnan(value)
      }
      if unknown := [name for name in set_names if name not in outcome]:
        raise errors.UsageError(
          f'row {index} of the records sets {unknown[0]!r}, which has no value '
          f'in it, or is no column of the study: {", ".join(names)}'
        )
      do = {name: outcome[name] for name in set_names}
      self._check_do(do)
      self._check_outcome(outcome)
      made.append((do, outcome))
      is_passive[index] = False
    target = rows[:, names.index(self.settings.target)]
    if not np.isfinite(target).all() or np.isinf(rows).any():
      raise errors.UsageError('the records have targets that are not finite')
    self._records[self.num_events] = rows[is_passive]
    for do, outcome in made:
      self._begin(do, status='observed', outcome=outcome, is_past=True)

  def _suggested(self, *, suggestions):
    for do in suggestions:
      if message := self.space.complaint(do):
        raise errors.UsageError(f'the suggestion cannot be: {message}')
    for do in suggestions:
      self._begin(do, is_suggested=True)

  def _observed(self, *, outcomes):
    after = self.copy()
    for i, one in enumerate(outcomes):
      try:
        after._observed_one(**one)
      except errors.UsageError as error:
        if len(outcomes) == 1:
          raise
        raise errors.UsageError(
          f'outcome {i + 1} of {len(outcomes)}: {error}; nothing was stored'
        ) from error
    self.experiments = after.experiments

  def _observed_one(self, *, outcome, experiment=None, do=None):
    self._check_outcome(outcome)
    self._check_size(outcome)
    outcome = _floats(outcome)
    if experiment is None:
      if do is None:
        raise errors.UsageError(
          'say which experiment it is of: its number, or what was set'
        )
      self._begin(
        self._carried_out(self._check_do(do), outcome),
        status='observed',
        outcome=outcome,
      )
      return
    old = self._get(experiment)
    if old.status not in ('pending', 'failed', 'abandoned'):
      advice = (
        'to correct its outcome, amend it'
        if old.status == 'observed'
        else 'give its outcome as one of what was set, without the number'
      )
      raise errors.UsageError(
        f'experiment {experiment} is {old.status}; {advice}'
      )
    asked = old.do if do is None else self._check_do(do)
    self._update(
      experiment,
      status='observed',
      do=self._carried_out(asked, outcome),
      outcome=outcome,
      reason='',
    )

  def _ended(self, kind, /, *, experiment=None, do=None, reason=''):
    if experiment is None:
      if kind == 'abandoned':
        raise errors.UsageError('name the suggestion to abandon')
      self._begin(self._check_do(do), status=kind, reason=str(reason))
      return
    old = self._get(experiment)
    if old.status != 'pending':
      raise errors.UsageError(
        f'experiment {experiment} is {old.status}, not pending'
      )
    self._update(experiment, status=kind, reason=str(reason))

  def _amended(self, *, experiment, outcome=None, do=None, reason=''):
    if outcome is None and do is None:
      raise errors.UsageError('give what to correct: outcome= or do=')
    old = self._get(experiment)
    if old.status != 'observed':
      raise errors.UsageError(
        f'experiment {experiment} is {old.status}; only one with an outcome '
        'can be amended'
      )
    kept = old.outcome
    if do is not None:
      # What was measured of the variables that were set is of the old values.
      kept = {k: v for k, v in kept.items() if k not in {*do, *old.do}}
    asked = old.do if do is None else self._check_do(do)
    outcome = {**kept, **({} if outcome is None else outcome)}
    self._check_outcome(outcome)
    self._check_size(outcome)
    outcome = _floats(outcome)
    self._update(
      experiment,
      do=self._carried_out(asked, outcome),
      outcome=outcome,
      is_amended=True,
      reason=str(reason),
    )

  def _withdrawn(self, *, experiment=None, records=None, reason=''):
    if (experiment is None) == (records is None):
      raise errors.UsageError('name one experiment, or one table of records')
    if records is not None:
      if type(records) is not int or records not in self._records:
        hint = ', '.join(map(str, self._records)) or 'none'
        raise errors.UsageError(
          f'event {records!r} has no records; those with records: {hint}'
        )
      del self._records[records]
      return
    if self._get(experiment).status == 'withdrawn':
      raise errors.UsageError(f'experiment {experiment} is withdrawn already')
    self._update(experiment, status='withdrawn', reason=str(reason))

  def _get(self, number) -> Experiment:
    if number not in self.experiments:
      most = len(self.experiments)
      raise errors.UsageError(
        f'there is no experiment {number!r}; '
        + (f'there are 1 to {most}' if most else 'there are none yet')
      )
    return self.experiments[number]

  def _begin(self, do, **fields) -> None:
    number = len(self.experiments) + 1
    self.experiments[number] = Experiment(
      number,
      _floats(do),
      cost=self.cost(do),
      events=(self.num_events,),
      **fields,
    )

  def _update(self, number, **fields) -> None:
    old = self.experiments[number]
    self.experiments[number] = dataclasses.replace(
      old, events=(*old.events, self.num_events), **fields
    )

  def _check_outcome(self, outcome) -> None:
    """Raises unless an outcome has the target, and finite numbers only."""
    if not isinstance(outcome, Mapping):
      raise errors.UsageError(
        f'the outcome is {outcome!r}; it must be a dict {{variable: value}}'
      )
    names = self.settings.columns
    for name, value in outcome.items():
      if name not in names:
        hint = errors.did_you_mean_or_options(str(name), names)
        raise errors.UsageError(
          f'the outcome has a value of {name!r}, which is no variable{hint}'
        )
      if not abs(interventions.to_float(value)) <= parsing.MAX_VALUE:
        raise errors.UsageError(
          f'the outcome of {name!r} is {value!r}; it must be a finite number '
          f'within ±{parsing.MAX_VALUE:g}: leave the variable out if it was '
          'not measured'
        )
    if self.settings.target not in outcome:
      raise errors.UsageError(
        f'the outcome has no value of the target {self.settings.target!r}'
      )

  def _check_size(self, outcome) -> None:
    """Raises if a value is out of all proportion to those so far."""
    for name, value in outcome.items():
      known = self._largest(name)
      if known and abs(value) > _MAX_RATIO * known:
        raise errors.UsageError(
          f'the outcome of {name!r} is {value:g}, and its largest value so far '
          f'is {known:g}; check the digits and the unit'
        )

  def _largest(self, name: str) -> float:
    """Returns the largest known absolute value of a variable, or 0."""
    column = self.settings.columns.index(name)
    values = [0.0]
    for rows in self._records.values():
      values.append(np.nanmax(np.abs(rows[:, column]), initial=0.0))
    for one in self.experiments.values():
      values.append(abs(one.outcome.get(name, 0.0)))
    if name in self.space.variables:
      one = self.space.variables[name]
      values += [abs(one.low), abs(one.high)]
    return float(np.nanmax(values))

  def _check_do(self, do) -> dict[str, float]:
    """Returns an intervention; raises unless it sets variables to numbers.

    The values may lie outside of the domains: what counts is what was done.
    """
    if not isinstance(do, Mapping) or not do:
      raise errors.UsageError(
        f'the intervention is {do!r}; it must be a dict {{variable: value}} of '
        'the variables that were set'
      )
    for name, value in do.items():
      if name not in self.settings.columns or name == self.settings.target:
        options = [*self.space.variables]
        hint = errors.did_you_mean_or_options(str(name), options)
        raise errors.UsageError(f'{name!r} cannot be set{hint}')
      if not math.isfinite(interventions.to_float(value)):
        raise errors.UsageError(
          f'{name!r} is set to {value!r}; it must be a finite number'
        )
    return _floats(do)

  def _carried_out(self, do, outcome) -> dict[str, float]:
    """Returns the values that were set: those that were measured count."""
    return {name: float(outcome.get(name, value)) for name, value in do.items()}


def _tuple(name: str, values: Any) -> tuple[Any, ...]:
  if isinstance(values, str) or not isinstance(values, Sequence):
    raise errors.UsageError(
      f'the {name} are {values!r}; they must be a list of texts'
    )
  return tuple(values)


def _merged(
  old: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns settings of variables after changes; None takes one away."""
  merged = dict(old)
  for name, change in changes.items():
    if change is None:
      if name not in merged:
        hint = errors.did_you_mean_or_options(name, [*merged])
        raise errors.UsageError(
          f'{name!r} is no variable that may be set{hint}'
        )
      del merged[name]
      continue
    kept = dict(merged.get(name, {}))
    for key in ('domain', 'step') if 'values' in change else ('values',):
      if 'values' in change or 'domain' in change:
        kept.pop(key, None)
    merged[name] = {**kept, **change}
  return merged


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
  return {name: float(value) for name, value in values.items()}
