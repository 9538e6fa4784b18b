"""Studies: the next experiment on one's own data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
import math
import numbers
import os
import pathlib
from typing import Any
import uuid

import jax
import numpy as np
import pandas as pd

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import run_directory
from acme_cbo.infra import text as text_lib
from acme_cbo.policies import policy as policy_lib
from acme_cbo.policies import prediction as prediction_lib
from acme_cbo.scms import interventions as interventions_lib
from acme_cbo.study import advice
from acme_cbo.study import adviser as adviser_lib
from acme_cbo.study import databases
from acme_cbo.study import event_log
from acme_cbo.study import events as events_lib
from acme_cbo.study import evidence
from acme_cbo.study import parsing
from acme_cbo.study import records as records_lib
from acme_cbo.study import state as state_lib

# Suggestions of one call.
_MAX_SUGGESTIONS = 100
# Column of a table of outcomes that has the numbers of the trials.
_EXPERIMENT = 'experiment'
_MAX_JSON_BYTES = 10**9


class Study:
  """Experiments on one system, suggested one after another, or several at once.

  A study is a log of events in one file, or in a database that several people
  share: every call reads what is new there, and every change is stored before
  the call returns.

  Attributes:
    log: the log of events.
    warnings: sentences about the tables that this object has read, and about
      outcomes that it has stored and that may be slips of the pen.

  Example:
    >>> import acme_cbo, tempfile
    >>> system = acme_cbo.SCM.named('toy')
    >>> path = tempfile.mkdtemp() + '/toy.study'
    >>> study = acme_cbo.Study.create(
    ...   path, data=system.sample(100), target='Y', goal='minimize',
    ...   variables={'X': {'domain': (-5, 5)}, 'Z': {'domain': (-5, 20)}})
    >>> for step in range(10):
    ...   trial, = study.suggest()
    ...   outcome = system.sample(1, trial.do, seed=step + 1).iloc[0]
    ...   study.observe(trial, outcome)
    >>> best = study.recommend()
    >>> sorted(best.do)
    ['Z']
  """

  def __init__(self, log: event_log.EventLog):
    """Use `create` or `open`."""
    self.log = log
    self.warnings: list[str] = []
    self._current = state_lib.State()
    self._adviser: adviser_lib.Adviser | None = None

  @classmethod
  def create(
    cls,
    location: str | os.PathLike[str],
    *,
    target: str,
    variables: Mapping[str, Mapping[str, Any]],
    data: pd.DataFrame | str | os.PathLike[str] | None = None,
    goal: str = 'maximize',
    interventions: Any = None,
    constraints: Sequence[str] = (),
    edges: Mapping[str, Sequence[Any]] | None = None,
    budget: float | None = None,
    experiments: int | None = None,
    columns: Sequence[str] | None = None,
    seed: int = 0,
    policy: str | os.PathLike[str] | None = None,
    name: str = 'study',
  ) -> Study:
    """Creates a study.

    Args:
      location: path of a file that does not exist, or the URL of a PostgreSQL
        database, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE.
      target: name of the variable to optimize.
      variables: {name: settings} of the variables that may be set: `domain`,
        (low, high), and optionally `step`; or `values`, a list; and `cost`.
      data: table of passive records, a DataFrame or a CSV, TSV or Excel file. A
        column `intervention_targets` names what was set in past experiments.
      goal: 'maximize' or 'minimize'.
      interventions: which variables may be set together: {'max_size': 2},
        {'sets': [['a'], ['a', 'b']]}, or 'all'; one at a time by default.
      constraints: linear constraints, such as '2*a + b <= 10'.
      edges: what is known of the graph, {'required': ['dose -> yield'],
        'forbidden': ['yield -> dose']}; either may be missing.
      budget: maximum total cost of the experiments; unlimited by default.
      experiments: maximum number of experiments; unlimited by default.
      columns: names of the variables, those that are only watched among them;
        all numeric columns of the data by default.
      seed: seed of all suggestions.
      policy: directory of a policy, or of a run; the shipped one by default.
      name: name of the study, where a database holds several.

    Raises:
      UsageError: an argument cannot be used, or the study exists.
      PeerError: the database server cannot be reached.
    """
    warnings: list[str] = []
    table = None
    if data is not None:
      table = records_lib.read(
        data,
        target=target,
        settable=[*variables],
        variables=columns,
      )
      table = _without_reserved(table, warnings)
      columns = table.variables
    elif columns is None:
      columns = [*variables, target]
    payload = _plain(
      {
        'target': target,
        'goal': goal,
        'columns': columns,
        'variables': variables,
        'interventions': interventions,
        'constraints': constraints,
        'budget': budget,
        'experiments': experiments,
        'seed': seed,
      }
    )
    if edges is not None:  # Older versions know no edges.
      payload['edges'] = _plain(edges)
    payload['policy'] = '' if policy is None else os.path.abspath(policy)
    if table is not None:
      payload['records'] = _table_payload(table)
    state_lib.State().apply(
      'created', payload, None if table is None else table.values
    )
    study = cls(
      event_log.EventLog.create(
        location,
        payload,
        name=name,
        blob=None if table is None else events_lib.pack_array(table.values),
      )
    )
    study.warnings += warnings
    return study

  @classmethod
  def open(
    cls, location: str | os.PathLike[str], *, name: str = 'study'
  ) -> Study:
    """Opens a study.

    Args:
      location: as for `create`.
      name: as for `create`.

    Raises:
      UsageError: there is no such study, or it is damaged.
      PeerError: the database server cannot be reached.
    """
    study = cls(event_log.EventLog.open(location, name=name))
    study._read()
    return study

  def suggest(
    self,
    number: int = 1,
    *,
    only: Collection[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    gp_bo: bool = False,
  ) -> list[advice.Trial]:
    """Suggests the next experiments, and stores them as pending.

    Args:
      number: number of experiments to carry out at once.
      only: variables that they may set; all by default.
      fixed: {variable: value} that each of them sets.
      gp_bo: whether to say what Bayesian optimization by Gaussian processes,
        which ignores the records, would do instead; this takes seconds.

    Returns:
      `number` different trials, aware of each other and of those pending.

    Raises:
      UsageError: an argument is wrong, or nothing is left to suggest.
    """
    if not isinstance(number, numbers.Integral) or not (
      1 <= number <= _MAX_SUGGESTIONS
    ):
      raise errors.UsageError(
        f'{number!r} suggestions; ask for 1 to {_MAX_SUGGESTIONS} at once'
      )

    arguments = (
      int(number),
      None if only is None else _plain(only),
      None if fixed is None else _named(fixed),
    )
    others: list[dict[str, float] | None] = [None] * int(number)

    def decide(state):
      adviser = self._advise(state)
      made = adviser.suggest(state, *arguments)
      if gp_bo:
        # Its imports take as long as a suggestion without it.
        from acme_cbo.policies.baselines import gp_bo as gp_bo_lib  # noqa: PLC0415

        method = adviser_lib.Adviser(
          lambda max_set_size: gp_bo_lib.gp_bo(), adviser.metadata
        )
        with jax.enable_x64(True):
          others[:] = method.suggest(state, *arguments)
      return {'suggestions': made}

    state = self._append('suggested', decide)
    made = [*state.experiments.values()][-int(number) :]
    return self._trials(state, made, others)

  def observe(
    self,
    trial: advice.Trial | int | None,
    outcome: Mapping[str, float] | pd.Series,
    do: Mapping[str, float] | None = None,
  ) -> int:
    """Stores the outcome of an experiment.

    Args:
      trial: the trial or its number; None for an experiment that the study did
        not suggest.
      outcome: {variable: value} with the target; of variables that were set,
        the values that were measured count.
      do: {variable: value} that was set; those of the trial by default.

    Returns:
      The number of the experiment.

    Raises:
      UsageError: an argument is wrong.
    """
    one: dict[str, Any] = {'outcome': _named(outcome)}
    if trial is not None:
      one['experiment'] = _number(trial)
    if do is not None:
      one['do'] = _named(do)
    if trial is None and do is None:
      raise errors.UsageError('name the trial, or give do={variable: value}')
    return self._observe([one])[0]

  def fail(
    self,
    trial: advice.Trial | int | None,
    do: Mapping[str, float] | None = None,
    *,
    reason: str = '',
  ) -> int:
    """Stores that an experiment has failed: it has no outcome.

    Args:
      trial: the trial or its number; None for one that was not suggested.
      do: {variable: value} that was set, of one that was not suggested.
      reason: why, for the record.

    Returns:
      The number of the experiment.

    Raises:
      UsageError: an argument is wrong.
    """
    if (trial is None) == (do is None):
      raise errors.UsageError(
        'name the trial that has failed, or, for one that was not suggested, '
        'None and what was set: fail(trial, reason=...), fail(None, do)'
      )
    payload: dict[str, Any] = {'reason': reason}
    if trial is not None:
      payload['experiment'] = _number(trial)
    else:
      payload['do'] = _named(do)
    state = self._append('failed', lambda state: payload)
    number = payload.get('experiment', len(state.experiments))
    self.warnings += advice.oddities(state, [number])
    return number

  def abandon(self, trial: advice.Trial | int, *, reason: str = '') -> None:
    """Stores that a suggestion will not be carried out.

    Args:
      trial: the trial or its number.
      reason: why, for the record.
    """
    payload = {'experiment': _number(trial), 'reason': reason}
    self._append('abandoned', lambda state: payload)

  def observe_table(
    self, data: pd.DataFrame | str | os.PathLike[str]
  ) -> list[int]:
    """Stores the outcomes of many experiments.

    Args:
      data: table with the variables of the study as columns. A column
        `experiment` has the numbers of the trials; where it is empty, or
        missing, `intervention_targets` names the variables that were set.

    Returns:
      The numbers of the experiments.

    Raises:
      UsageError: the table has problems; then nothing is stored.
    """
    settings = self.settings
    table = records_lib.read(
      data,
      target=settings.target,
      numeric=(*settings.columns, _EXPERIMENT),
    )
    self.warnings += table.warnings
    for name in table.variables:
      if name not in (*settings.columns, *state_lib.RESERVED):
        hint = errors.did_you_mean_or_options(name, settings.columns)
        raise errors.UsageError(
          f'the table of outcomes has a column {name!r}, which is no variable '
          f'of the study{hint}'
        )
    outcomes = []
    for row, set_names in zip(table.values, table.interventions, strict=True):
      values = dict(zip(table.variables, row.tolist(), strict=True))
      number = values.pop(_EXPERIMENT, math.nan)
      outcome = {
        name: value
        for name, value in values.items()
        if name in settings.columns and not math.isnan(value)
      }
      one: dict[str, Any] = {'outcome': outcome}
      if not math.isnan(number):
        one['experiment'] = int(number) if number == int(number) else number
      if set_names:
        one['do'] = {name: values[name] for name in set_names}
      outcomes.append(one)
    if not outcomes:
      raise errors.UsageError('the table of outcomes has no rows')
    return self._observe(outcomes)

  def _observe(self, outcomes: Sequence[Mapping[str, Any]]) -> list[int]:
    """Stores outcomes; returns the numbers of their experiments."""
    state = self._append('observed', lambda state: {'outcomes': [*outcomes]})
    num_new = sum('experiment' not in one for one in outcomes)
    new = iter([*state.experiments][len(state.experiments) - num_new :])
    made = [
      one['experiment'] if 'experiment' in one else next(new)
      for one in outcomes
    ]
    self.warnings += advice.oddities(state, made)
    return made

  def amend(
    self,
    trial: advice.Trial | int,
    outcome: Mapping[str, float] | None = None,
    do: Mapping[str, float] | None = None,
    *,
    reason: str = '',
  ) -> None:
    """Corrects an experiment; the log keeps what was stored before.

    Args:
      trial: the trial or its number.
      outcome: {variable: value} of the variables to correct.
      do: {variable: value} that was really set, all of it; what was measured of
        the variables that were set no longer counts.
      reason: why it was wrong, for the record.
    """
    payload: dict[str, Any] = {'experiment': _number(trial), 'reason': reason}
    if outcome is not None:
      payload['outcome'] = _named(outcome)
    if do is not None:
      payload['do'] = _named(do)
    self._append('amended', lambda state: payload)

  def withdraw(
    self,
    trial: advice.Trial | int | None = None,
    *,
    records: int | None = None,
    reason: str = '',
  ) -> None:
    """Withdraws an experiment, or a table of records; the log keeps it.

    Args:
      trial: the trial or its number.
      records: number of the event that added the records.
      reason: why, for the record.
    """
    payload: dict[str, Any] = {'reason': reason}
    if trial is not None:
      payload['experiment'] = _number(trial)
    if records is not None:
      payload['records'] = records
    self._append('withdrawn', lambda state: payload)

  def add_records(self, data: pd.DataFrame | str | os.PathLike[str]) -> None:
    """Adds passive records and past experiments; see `create`.

    Args:
      data: table with the variables of the study as columns. A variable other
        than the target may be missing.
    """
    settings = self.settings
    table = records_lib.read(
      data, target=settings.target, numeric=settings.columns
    )
    table = _without_reserved(table, self.warnings)
    place = {name: j for j, name in enumerate(table.variables)}
    values = np.full((len(table.values), len(settings.columns)), np.nan)
    for j, name in enumerate(settings.columns):
      if name in place:
        values[:, j] = table.values[:, place[name]]
    self.warnings += [
      f'column {name!r} is left out: it is no variable of the study'
      for name in table.variables
      if name not in settings.columns
    ]
    payload = _table_payload(table)
    self._append(
      'records', lambda state: payload, events_lib.pack_array(values), values
    )

  def change(self, **settings: Any) -> None:
    """Changes settings, such as a domain, the budget or the goal.

    Args:
      **settings: new values of arguments of `create`: `goal`, `variables`,
        `interventions`, `constraints`, `edges`, `budget`, `experiments`. Of
        `variables`, those that are left out stay as they are; None takes one
        away.
    """
    payload = _plain(settings)
    self._append('changed', lambda state: payload)

  def predict(self, do: Mapping[str, float]) -> prediction_lib.Estimate:
    """Predicts the target under an intervention.

    Args:
      do: {variable: value}; it need not be an allowed one.

    Raises:
      UsageError: there is nothing to predict from, or `do` is wrong.
    """
    state = self.state
    do = _named(do)
    interventions_lib.from_names(do, [*state.space.variables])
    if not do:
      raise errors.UsageError('give one or more values: {variable: value}')
    predicted = self._advise(state).predict(state, [do])
    if predicted is None:
      raise errors.UsageError(
        'there is nothing to predict from: add two records, or '
        f'{evidence.NUM_SPREAD} outcomes'
      )
    return predicted[0].estimate

  def recommend(self, *, untried: bool = False) -> advice.Recommendation | None:
    """Returns the best setting so far, or None before the first outcome.

    It is the experiment, among those that the study allows, that the policy
    predicts to be best: not the one with the luckiest outcome.

    Args:
      untried: whether it may also be what the policy would try next, if that is
        predicted to be better than all that was tried.
    """
    state = self.state
    adviser = self._advise(state)
    number = adviser.recommend(state)
    if number is None:
      return None
    return advice.recommendation(
      state,
      _predict(adviser, state),
      number,
      adviser.proposals(state) if untried else (),
    )

  def stop_advice(self) -> advice.StopAdvice:
    """Returns whether the rest of the experiments is worth its cost.

    Raises:
      UsageError: there are no outcomes yet.
    """
    best = self.recommend()
    if best is None:
      raise errors.UsageError(
        f'nothing to advise: {evidence.shortfall(self._current)}'
      )
    return self._stop_advice(self._current, best)

  def _stop_advice(
    self, state: state_lib.State, best: advice.Recommendation
  ) -> advice.StopAdvice:
    adviser = self._advise(state)
    return advice.stop_advice(
      state, best, adviser.unchanged(state), adviser.planned(state)
    )

  def causes(self) -> dict[str, float]:
    """Returns {variable: probability that it causes the target directly}."""
    state = self.state
    return self._advise(state).causes(state)

  def report(self, path: str | os.PathLike[str]) -> None:
    """Writes a report as one HTML page.

    Args:
      path: file to write; one that exists is replaced.
    """
    # Imported late: matplotlib takes a second.
    from acme_cbo.study import report  # noqa: PLC0415

    best = self.recommend()
    state = self._current
    adviser = self._advise(state)
    stop = None if best is None else self._stop_advice(state, best)
    page = report.render(
      state,
      _predict(adviser, state),
      best,
      stop,
      adviser.causes_over_time(state),
      adviser.warnings(state),
    )
    run_directory.write_text(pathlib.Path(path), page)

  def to_csv(self) -> str:
    """Returns `to_frame` as CSV, with cells that no spreadsheet runs."""
    frame = self.to_frame().map(_quoted).rename(columns=text_lib.quote_cell)
    return frame.to_csv(index=False)

  def to_json(self) -> str:
    """Returns the whole log as JSON, for `from_json`."""
    return self.log.export_json()

  @classmethod
  def from_json(
    cls,
    path: str | os.PathLike[str],
    location: str | os.PathLike[str],
    *,
    name: str = 'study',
  ) -> Study:
    """Creates a study from an exported one.

    Args:
      path: JSON file with the result of `to_json`.
      location: as for `create`.
      name: as for `create`.

    Raises:
      UsageError: the file is damaged, or the study exists.
    """
    if pathlib.Path(path).suffix.lower() == '.csv':
      raise errors.UsageError(
        f'{path} is a table of experiments; a study is imported from JSON: '
        'create one with the table as its data'
      )
    text = files.read_text(pathlib.Path(path), _MAX_JSON_BYTES)

    def check(events):
      state = state_lib.State()
      for event in events:
        state = _after(state, event)

    return cls(
      event_log.EventLog.import_json(text, location, name=name, check=check)
    )

  def pending(self) -> list[advice.Trial]:
    """Returns the trials whose outcome is awaited."""
    state = self.state
    return self._trials(state, state.pending, [None] * len(state.pending))

  def to_frame(self) -> pd.DataFrame:
    """Returns a row for each experiment: status, what was set, and outcome."""
    state = self.state
    names = state.settings.columns
    rows = [
      [
        one.number,
        one.status,
        one.is_suggested,
        ';'.join(one.do),
        *(one.values.get(name, np.nan) for name in names),
        one.reason,
      ]
      for one in state.experiments.values()
    ]
    columns = [
      _EXPERIMENT,
      'experiment_status',
      'experiment_suggested',
      records_lib.INTERVENTION_TARGETS,
      *names,
      'experiment_reason',
    ]
    return pd.DataFrame(rows, columns=columns)

  @property
  def settings(self) -> state_lib.Settings:
    """The current settings."""
    return self.state.settings

  @property
  def state(self) -> state_lib.State:
    """The state after all events that are stored now; not to be changed."""
    self._read()
    return self._current

  def _read(self) -> None:
    """Applies the events that are new in the log."""
    for event in self.log.read(after=self._current.num_events - 1):
      try:
        self._current = _after(self._current, event)
      except errors.UsageError as error:
        raise errors.UsageError(f'{self.log.where}: {error}') from error

  def _append(
    self,
    kind: str,
    decide: Callable[[state_lib.State], dict[str, Any]],
    blob: bytes | None = None,
    rows: np.ndarray | None = None,
  ) -> state_lib.State:
    """Appends an event, decided anew whenever somebody else was faster.

    Args:
      kind: kind of the event.
      decide: state -> payload.
      blob: attachment of the event, with its `rows`.
      rows: rows of a table.

    Returns:
      The state after the event.
    """
    id = uuid.uuid4().hex
    while True:
      state = self.state
      payload = decide(state)
      after = state.copy()
      after.apply(kind, payload, rows)  # Raises before anything is stored.
      try:
        self.log.append(kind, payload, state.num_events, blob, id=id)
      except databases.Conflict:
        continue
      self._current = after
      return after

  def _advise(self, state: state_lib.State) -> adviser_lib.Adviser:
    if self._adviser is None:
      policy = policy_lib.load_policy(state.settings.policy or None)
      self._adviser = adviser_lib.Adviser(policy.functions, policy.metadata)
    return self._adviser

  def _trials(
    self,
    state: state_lib.State,
    experiments: Sequence[state_lib.Experiment],
    others: Sequence[dict[str, float] | None],
  ) -> list[advice.Trial]:
    """Returns trials; `others` has what `gp_bo` would do instead of each."""
    if not experiments:
      return []
    adviser = self._advise(state)
    causes, warnings = adviser.causes(state), tuple(adviser.warnings(state))
    predicted = adviser.predict(state, [one.do for one in experiments])
    estimates = (one.estimate for one in predicted or [])
    bools = {k for k, v in state.space.variables.items() if v.is_bool}
    return [
      advice.Trial(
        one.number,
        {
          name: bool(value) if name in bools else value
          for name, value in one.do.items()
        },
        next(estimates, None),
        advice.evidence(state, one.do, causes),
        warnings,
        other,
      )
      for one, other in zip(experiments, others, strict=True)
    ]


def _predict(
  adviser: adviser_lib.Adviser, state: state_lib.State
) -> advice.Predict:
  """Returns the predictions of a study that has something to learn from."""

  def predict(interventions):
    predicted = adviser.predict(state, interventions)
    assert predicted is not None
    return predicted

  return predict


def _after(state: state_lib.State, event: events_lib.Event) -> state_lib.State:
  """Returns a state, changed by one more event.

  Raises:
    errors.UsageError: the event does not fit; nothing is changed.
  """
  after = state.copy()
  rows = None
  try:
    if event.blob is not None:
      rows = events_lib.unpack_array(event.blob, _shape(state, event))
    after.apply(event.kind, event.payload, rows)
  except errors.UsageError as error:
    raise errors.UsageError(
      f'event {event.number} cannot be used: {error}'
    ) from error
  return after


def _shape(state: state_lib.State, event: events_lib.Event) -> tuple[int, int]:
  """Returns the shape of the rows of an event, as it says itself."""
  if event.number:
    records, columns = event.payload, state.settings.columns
  else:
    records, columns = map(event.payload.get, ('records', 'columns'))
  if not isinstance(records, dict) or not isinstance(columns, Sequence):
    raise errors.UsageError('it has rows, and does not say how many')
  size = records.get('size')
  return size if type(size) is int else -1, len(columns)


def _without_reserved(
  table: records_lib.Records, warnings: list[str]
) -> records_lib.Records:
  """Leaves out columns that an exported study has beside its variables."""
  warnings += table.warnings
  kept = [
    j
    for j, name in enumerate(table.variables)
    if name not in state_lib.RESERVED
  ]
  warnings += [
    f'column {name!r} is left out: tables of studies use it'
    for name in table.variables
    if name in state_lib.RESERVED
  ]
  return table._replace(
    variables=tuple(table.variables[j] for j in kept),
    values=table.values[:, kept],
  )


def _quoted(cell: Any) -> Any:
  return text_lib.quote_cell(cell) if isinstance(cell, str) else cell


def _number(trial: Any) -> int:
  """Returns the number of a trial."""
  number = trial.number if isinstance(trial, advice.Trial) else trial
  if isinstance(number, bool) or not isinstance(number, numbers.Integral):
    raise errors.UsageError(
      f'the trial is {trial!r}; name a trial of `suggest` or its number'
    )
  return int(number)


def _named(values: Any) -> dict[str, Any]:
  """Returns values by name as a plain dict; missing ones are left out."""
  if isinstance(values, pd.Series):
    values = values[values.notna()].to_dict()
  if not isinstance(values, Mapping):
    raise errors.UsageError(f'{values!r} must be a dict {{variable: value}}')
  return _plain(values)


def _plain(value: Any) -> Any:
  """Returns a value as JSON has it: lists, Python's numbers, names.

  Names have their normal form, as those of a table.
  """
  if isinstance(value, Mapping):
    named = {_plain(str(key)): _plain(item) for key, item in value.items()}
    if len(named) < len(value):
      raise errors.UsageError(f'two names of {[*value]} are the same')
    return named
  if isinstance(value, str):
    return parsing.normalized_name(value)
  if isinstance(value, np.ndarray):
    return value.tolist()
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, Sequence | Set) and not isinstance(value, str):
    return [_plain(item) for item in value]
  return value


def _table_payload(table: records_lib.Records) -> dict[str, Any]:
  """Returns the payload of a table, whose values are a blob."""
  return {
    'size': len(table.values),
    'interventions': {
      str(i): list(names)
      for i, names in enumerate(table.interventions)
      if names
    },
  }
