"""Append-only logs of events, in a SQLite file or a PostgreSQL database.

  with event_log.EventLog.create('study.db', {'target': 'yield'}) as log:
    event = log.append('observed', {'outcome': 0.7}, expected=1)
    events = log.read()  # Events 0, 'created', and 1, 'observed'.

Whoever appends says which number the event will have. If somebody else was
first, `append` raises a `databases.Conflict`: the caller reads the new events
and decides again. Events are never changed or removed.

A log in a file uses one file, FILE. While a process appends, and after it was
killed, there is a FILE-journal too, which belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import os
import re
from typing import Any
import uuid

import sqlalchemy as sa
from sqlalchemy import exc

from acme_cbo.infra import errors
from acme_cbo.study import databases
from acme_cbo.study import events as events_lib

_NAME = re.compile('[A-Za-z0-9][A-Za-z0-9_.-]{0,99}')


class EventLog:
  """The events of one study.

  A log is for one thread of one process; others open their own. It holds no
  connection between calls, so that it neither blocks others nor minds a server
  that restarts.

  Methods raise an `errors.UsageError` for what the user has to correct, such as
  a damaged file or a full disk, and an `errors.PeerError` if the database
  server cannot be reached. After either, an event that was being appended may
  be stored or not; to append it again with the same `id` is safe.

  Attributes:
    name: name of the study.
    where: the file or the database, as error messages show it.
  """

  def __init__(self, location: str | os.PathLike[str], name: str):
    """Use `create`, `open` or `import_json`."""
    if not _NAME.fullmatch(name):
      raise errors.UsageError(
        f'a study cannot be named {name!r:.120}; use at most 100 letters, '
        'digits, dots, hyphens and underscores, and begin with one of the '
        'first two'
      )
    self.name = name
    self._database = databases.at(location)
    self.where = self._database.where
    self._is_closed = False

  @classmethod
  def create(
    cls,
    location: str | os.PathLike[str],
    payload: dict[str, Any],
    *,
    name: str = 'study',
    blob: bytes | None = None,
  ) -> EventLog:
    """Creates a log, whose event 0 is of the kind 'created'.

    Args:
      location: path of a SQLite file, which need not exist, or URL of a
        PostgreSQL database, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE.
      payload: payload of event 0.
      name: name of the study; a file or database may hold several.
      blob: binary attachment of event 0.

    Raises:
      errors.UsageError: there is such a study, the event is invalid, or the
        location cannot be used; a file that cannot is left unchanged.
      errors.PeerError: the database server cannot be reached.
    """
    log = cls(location, name)
    log._write_first([log._new_event(0, 'created', payload, blob, None)])
    return log

  @classmethod
  def open(
    cls, location: str | os.PathLike[str], *, name: str = 'study'
  ) -> EventLog:
    """Opens a log that exists; see `create`."""
    log = cls(location, name)
    with log._connect() as connection:
      if not log._database.is_set_up(connection):
        raise log._missing()
      log._last(connection)
    return log

  @classmethod
  def import_json(
    cls,
    text: str,
    location: str | os.PathLike[str],
    *,
    name: str = 'study',
    check: Callable[[list[events_lib.Event]], None] = lambda events: None,
  ) -> EventLog:
    """Creates a log with the events of another one; see `create`.

    Args:
      text: result of `export_json`.
      location: as for `create`.
      name: name of the new study.
      check: raises an `errors.UsageError` if the events do not fit together;
        then nothing is created.
    """
    try:
      events = events_lib.from_export(text)
    except errors.UsageError:
      raise
    except ValueError as error:
      raise errors.UsageError(
        f'the exported log is damaged: {error}'
      ) from error
    check(events)
    log = cls(location, name)
    log._write_first(events)
    return log

  def export_json(self) -> str:
    """Returns all events as a JSON text, for `import_json`."""
    return events_lib.to_export(self.read())

  def read(self, after: int = -1) -> list[events_lib.Event]:
    """Returns the events after one of them, in order.

    Args:
      after: number of the last event that the caller has.

    Raises:
      errors.UsageError: an event is damaged or missing, or there is no event
        `after`.
      errors.PeerError: the database server cannot be reached.
    """
    query = (
      sa.select(*databases.COLUMNS)
      .where(
        databases.EVENTS.c.study == self.name, databases.EVENTS.c.number > after
      )
      .order_by(databases.EVENTS.c.number)
    )
    with self._connect() as connection:
      rows = connection.execute(query).all()
      self._check_reaches(after, self._last(connection))
    return [
      self._stored_event(number, row)
      for number, row in enumerate(rows, after + 1)
    ]

  def append(
    self,
    kind: str,
    payload: dict[str, Any],
    expected: int,
    blob: bytes | None = None,
    *,
    id: str | None = None,
  ) -> events_lib.Event:
    """Appends an event, which is on the disk when this returns.

    In PostgreSQL, it is as durable as the server's disks.

    Args:
      kind: short identifier, in lower case.
      payload: JSON object, with finite numbers and without control characters.
      expected: number of the event, one more than that of the last one.
      blob: binary attachment.
      id: `uuid.uuid4().hex`, if the caller wants to append the event again
        after an error; None for a new one.

    Returns:
      The stored event. If the log has the event with this id already, that
      event, whose number may be lower than expected.

    Raises:
      databases.Conflict: the log has another event with the expected number.
      errors.UsageError: the event is invalid, the log has no event before the
        expected number, or the event cannot be written.
      errors.PeerError: the database server cannot be reached.
    """
    event = self._new_event(expected, kind, payload, blob, id)
    query = sa.select(*databases.COLUMNS).where(
      databases.EVENTS.c.study == self.name, databases.EVENTS.c.id == event.id
    )
    with self._connect(to_write=True) as connection:
      row = connection.execute(query).one_or_none()
      if row is None:
        last = self._last(connection)
        self._check_reaches(expected - 1, last)
        if last >= expected:
          raise databases.conflict(self.where)
        connection.execute(sa.insert(databases.EVENTS), self._row(event))
        return event
    stored = self._stored_event(row.number, row)
    if stored != event._replace(number=stored.number, time=stored.time):
      raise errors.UsageError(
        f'event {stored.number} of {self._label()} has the id {event.id}, and '
        'another content; use a new id for each event'
      )
    return stored

  def close(self) -> None:
    """Ends the use of this object; the log itself is complete at any time."""
    self._is_closed = True

  def __enter__(self) -> EventLog:
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  @contextlib.contextmanager
  def _connect(self, to_write: bool = False) -> Iterator[sa.Connection]:
    """Yields a connection whose transaction is committed after the body."""
    if self._is_closed:
      raise ValueError(f'the log of {self._label()} is closed')
    database = self._database
    try:
      with database.lock, database.engine.begin() as connection:
        for statement in database.before_write if to_write else ():
          connection.exec_driver_sql(statement)
        yield connection
    except exc.DBAPIError as error:
      raise database.failure(error) from error

  def _write_first(self, events: Sequence[events_lib.Event]) -> None:
    """Creates the log with some events."""
    self._database.create_file()
    with self._connect(to_write=True) as connection:
      self._database.set_up(connection)
      if self._max_number(connection) is not None:
        raise errors.UsageError(
          f'{self.where} has a study named {self.name!r} already; nothing was '
          'changed: open it, or choose another name or place'
        )
      connection.execute(
        sa.insert(databases.EVENTS), [self._row(x) for x in events]
      )

  def _max_number(self, connection: sa.Connection) -> Any:
    return connection.scalar(
      sa.select(sa.func.max(databases.EVENTS.c.number)).where(
        databases.EVENTS.c.study == self.name
      )
    )

  def _last(self, connection: sa.Connection) -> int:
    """Returns the number of the last event."""
    last = self._max_number(connection)
    if last is None:
      raise self._missing()
    if type(last) is not int:
      raise errors.UsageError(
        f'{self._label()} is damaged: {events_lib.RESTORE}'
      )
    return last

  def _check_reaches(self, number: int, last: int) -> None:
    """Raises unless there is an event with a number, or this is -1."""
    if not -1 <= number <= last:
      raise errors.UsageError(
        f'{self._label()} has no event {number}, only 0 to {last}; if it had, '
        'it was replaced by an older copy: open it again'
      )

  def _new_event(
    self,
    number: int,
    kind: str,
    payload: dict[str, Any],
    blob: bytes | None,
    id: str | None,
  ) -> events_lib.Event:
    """Returns a new event, after the checks of a stored one."""
    time = datetime.datetime.now(datetime.UTC).isoformat(
      timespec='microseconds'
    )
    try:
      event = events_lib.parse(
        number,
        kind,
        events_lib.to_json(payload),
        time,
        uuid.uuid4().hex if id is None else id,
        blob,
      )
      if event.payload != payload:
        raise ValueError(
          'the payload is not what JSON makes of it; use keys that are texts, '
          'and lists'
        )
    except ValueError as error:
      raise errors.UsageError(
        f'event {number} cannot be stored in {self._label()}: {error}'
      ) from error
    return event

  def _stored_event(self, number: int, row: sa.Row) -> events_lib.Event:
    """Returns the event in a row, which has to have this number."""
    try:
      if row.number != number:
        raise ValueError(f'the next event has the number {row.number!r:.40}')
      return events_lib.parse(*row)
    except ValueError as error:
      raise errors.UsageError(
        f'event {number} of {self._label()} is damaged: {error}; '
        f'{events_lib.RESTORE}'
      ) from error

  def _row(self, event: events_lib.Event) -> dict[str, Any]:
    """Returns the values of all columns."""
    payload = events_lib.to_json(event.payload)
    return {'study': self.name, **event._asdict(), 'payload': payload}

  def _label(self) -> str:
    return f'the study {self.name!r} in {self.where}'

  def _missing(self) -> errors.UsageError:
    return errors.UsageError(
      f'{self.where} has no study named {self.name!r}; create it, or choose '
      'another name or place'
    )
