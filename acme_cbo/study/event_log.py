"""Append-only logs of events, in a SQLite file or a PostgreSQL database.

  with event_log.EventLog.create('study.db', {'target': 'yield'}) as log:
    event = log.append('observed', {'outcome': 0.7}, expected=1)
    events = log.read()  # Events 0, 'created', and 1, 'observed'.

Whoever appends says which number the event will have. If somebody else was
first, `append` raises a `Conflict`: the caller reads the new events and decides
again. Events are never changed or removed.

A log in a file uses one file, FILE. While a process appends, and after it was
killed, there is a FILE-journal too, which belongs to it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import io
import json
import math
import os
import pathlib
import re
import sqlite3
import struct
import sys
import threading
from typing import Any, NamedTuple
import uuid
import zlib

import numpy as np
import sqlalchemy as sa
from sqlalchemy import exc

from acme_cbo.infra import errors
from acme_cbo.infra import extras
from acme_cbo.infra import files
from acme_cbo.infra import text as texts

# Version of the tables and of exported logs.
_VERSION = 1
# Marks SQLite files of this package, in bytes 68 to 71: 'acbo' in ASCII.
_APPLICATION_ID = 0x6163626F
_SQLITE_MAGIC = b'SQLite format 3\0'
_FORMAT = 'acme_cbo study'
# Key of the lock under which tables are created in PostgreSQL.
_ADVISORY_LOCK = _APPLICATION_ID

_MAX_PAYLOAD_BYTES = 10**7
_MAX_BLOB_BYTES = 10**8
# Numbers in a packed array; without compression, they fit into a blob.
_MAX_NUMBERS = 10**7
_MAX_HEADER_BYTES = 1000
_RESTORE = 'restore it from a copy'
# Seconds to wait for the writes of others, and for a connection.
_TIMEOUT = 30

_KIND = re.compile('[a-z][a-z0-9_]{0,39}')
_NAME = re.compile('[A-Za-z0-9][A-Za-z0-9_.-]{0,99}')
_ID = re.compile('[0-9a-f]{32}')
_TIME = re.compile(
  r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\+00:00'
)
# Header of .npy files of float64 arrays in C order. Numpy's parser of headers
# evaluates them as Python literals.
_NPY_HEADER = re.compile(
  rb"\x93NUMPY\x01\x00..\{'descr': '<f8', 'fortran_order': False, "
  rb"'shape': \(([0-9, ]{0,200})\), \} *\n",
  re.DOTALL,
)

_METADATA = sa.MetaData()
_EVENTS = sa.Table(
  'acme_cbo_events',
  _METADATA,
  sa.Column('study', sa.Text, primary_key=True),
  sa.Column('number', sa.Integer, primary_key=True, autoincrement=False),
  sa.Column('kind', sa.Text, nullable=False),
  sa.Column('payload', sa.Text, nullable=False),
  sa.Column('time', sa.Text, nullable=False),
  sa.Column('id', sa.Text, nullable=False),
  sa.Column('blob', sa.LargeBinary),
  sa.UniqueConstraint('study', 'id'),
)
# Only in PostgreSQL: a SQLite file has its version in its header.
_SCHEMA = sa.Table(
  'acme_cbo_schema',
  _METADATA,
  sa.Column('version', sa.Integer, primary_key=True, autoincrement=False),
)
# Values as they are stored, for `_parse_event` to check.
_COLUMNS = [
  sa.type_coerce(_EVENTS.c[name], sa.types.NullType()).label(name)
  for name in ('number', 'kind', 'payload', 'time', 'id', 'blob')
]


class Conflict(Exception):
  """Somebody else has appended an event with the expected number."""


class Event(NamedTuple):
  """An event of a log.

  Attributes:
    number: position in the log, counted from 0.
    kind: short identifier; 'created' for event 0, and for no other.
    payload: JSON object.
    time: time of the first attempt to append it, in UTC, ISO 8601.
    id: 32 hexadecimal digits, unique in the log.
    blob: binary attachment, or None.
  """

  number: int
  kind: str
  payload: dict[str, Any]
  time: str
  id: str
  blob: bytes | None = None


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
    self._database = _database(location)
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
    check: Callable[[list[Event]], None] = lambda events: None,
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
      events = _parse_export(text)
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
    events = []
    for event in self.read():
      values = event._asdict()
      if event.blob is None:
        del values['blob']
      else:
        values['blob'] = base64.b64encode(event.blob).decode()
      events.append(values)
    export = {'format': _FORMAT, 'version': _VERSION, 'events': events}
    return json.dumps(export, allow_nan=False)

  def read(self, after: int = -1) -> list[Event]:
    """Returns the events after one of them, in order.

    Args:
      after: number of the last event that the caller has.

    Raises:
      errors.UsageError: an event is damaged or missing, or there is no event
        `after`.
      errors.PeerError: the database server cannot be reached.
    """
    query = (
      sa.select(*_COLUMNS)
      .where(_EVENTS.c.study == self.name, _EVENTS.c.number > after)
      .order_by(_EVENTS.c.number)
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
  ) -> Event:
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
      Conflict: the log has another event with the expected number.
      errors.UsageError: the event is invalid, the log has no event before the
        expected number, or the event cannot be written.
      errors.PeerError: the database server cannot be reached.
    """
    event = self._new_event(expected, kind, payload, blob, id)
    query = sa.select(*_COLUMNS).where(
      _EVENTS.c.study == self.name, _EVENTS.c.id == event.id
    )
    with self._connect(to_write=True) as connection:
      row = connection.execute(query).one_or_none()
      if row is None:
        last = self._last(connection)
        self._check_reaches(expected - 1, last)
        if last >= expected:
          raise _conflict(self.where)
        connection.execute(sa.insert(_EVENTS), self._row(event))
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

  def _write_first(self, events: Sequence[Event]) -> None:
    """Creates the log with some events."""
    self._database.create_file()
    with self._connect(to_write=True) as connection:
      self._database.set_up(connection)
      if self._max_number(connection) is not None:
        raise errors.UsageError(
          f'{self.where} has a study named {self.name!r} already; nothing was '
          'changed: open it, or choose another name or place'
        )
      connection.execute(sa.insert(_EVENTS), [self._row(x) for x in events])

  def _max_number(self, connection: sa.Connection) -> Any:
    return connection.scalar(
      sa.select(sa.func.max(_EVENTS.c.number)).where(
        _EVENTS.c.study == self.name
      )
    )

  def _last(self, connection: sa.Connection) -> int:
    """Returns the number of the last event."""
    last = self._max_number(connection)
    if last is None:
      raise self._missing()
    if type(last) is not int:
      raise errors.UsageError(f'{self._label()} is damaged: {_RESTORE}')
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
  ) -> Event:
    """Returns a new event, after the checks of a stored one."""
    time = datetime.datetime.now(datetime.UTC).isoformat(
      timespec='microseconds'
    )
    try:
      event = _parse_event(
        number,
        kind,
        _to_json(payload),
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

  def _stored_event(self, number: int, row: sa.Row) -> Event:
    """Returns the event in a row, which has to have this number."""
    try:
      if row.number != number:
        raise ValueError(f'the next event has the number {row.number!r:.40}')
      return _parse_event(*row)
    except ValueError as error:
      raise errors.UsageError(
        f'event {number} of {self._label()} is damaged: {error}; {_RESTORE}'
      ) from error

  def _row(self, event: Event) -> dict[str, Any]:
    """Returns the values of all columns."""
    payload = _to_json(event.payload)
    return {'study': self.name, **event._asdict(), 'payload': payload}

  def _label(self) -> str:
    return f'the study {self.name!r} in {self.where}'

  def _missing(self) -> errors.UsageError:
    return errors.UsageError(
      f'{self.where} has no study named {self.name!r}; create it, or choose '
      'another name or place'
    )


def _database(location: str | os.PathLike[str]) -> _SQLite | _PostgreSQL:
  """Returns the database at a path or a URL."""
  if not (isinstance(location, str) and '://' in location):
    return _SQLite(pathlib.Path(location))
  try:
    url = sa.make_url(location)
  except (exc.ArgumentError, ValueError):
    url = None
  # Outside the handler: the caught error may quote a part of the password.
  if not url or url.drivername != 'postgresql+psycopg' or not url.database:
    raise errors.UsageError(
      'the URL of the study is not valid; write postgresql+psycopg://'
      'USER:PASSWORD@HOST:PORT/DATABASE, with %40 for @ and %2F for / in the '
      'password, or name a file'
    )
  return _PostgreSQL(url)


class _SQLite:
  """A SQLite file.

  Attributes:
    where: the path, as error messages show it.
    engine: engine that opens the file anew for each connection.
    lock: context manager for the time of a connection.
    before_write: statements that begin a transaction that writes.
  """

  # POSIX drops the locks that a process holds on a file when it closes any
  # descriptor of the file, such as that of `_check_header` in another thread.
  lock = threading.Lock()
  # The first statement matters if another program has left the mode WAL, in
  # which a log consists of three files.
  before_write = ('PRAGMA journal_mode = DELETE', 'BEGIN IMMEDIATE')

  def __init__(self, path: pathlib.Path):
    self.where = texts.printable(str(path), '')
    self._path = path.absolute()
    self.engine = sa.create_engine(
      'sqlite://',
      creator=self._open,
      poolclass=sa.NullPool,
      hide_parameters=True,
    )

  def create_file(self) -> None:
    """Creates an empty file, which is an empty database, if there is none."""
    try:
      with open(self._path, 'xb'):
        pass
    except (FileExistsError, ValueError):
      pass  # `_open` checks what there is.
    except OSError as error:
      raise errors.UsageError(
        f'{self.where} cannot be created: {error.strerror}'
      ) from error

  def _open(self) -> sqlite3.Connection:
    """Opens the file, unless it is that of another program."""
    self._check_header()
    connection = sqlite3.connect(
      f'{self._path.as_uri()}?mode=rw',
      uri=True,
      timeout=_TIMEOUT,
      # Transactions begin and end where this module says so.
      isolation_level=None,
    )
    # With FULL, a loss of power can bring back the journal of a transaction,
    # which undoes it.
    connection.execute('PRAGMA synchronous = EXTRA')
    return connection

  def _check_header(self) -> None:
    """Raises unless the file is empty or a database of this package.

    SQLite itself may write to a file when it opens it: it completes what a
    program that was killed has left.
    """
    with files.open_regular(self._path, sys.maxsize) as file:
      try:
        header = file.read(100)
      except OSError as error:
        raise errors.UsageError(
          f'{self.where} cannot be read: {error.strerror}'
        ) from error
    if not header:
      return
    if len(header) < 100 or not header.startswith(_SQLITE_MAGIC):
      raise errors.UsageError(
        f'{self.where} is no SQLite database; nothing was changed: name the '
        'file of a study'
      )
    version, application_id = struct.unpack('>60x i 4x i 28x', header)
    if application_id != _APPLICATION_ID:
      raise errors.UsageError(
        f'{self.where} is a database of another program; nothing was changed: '
        'name the file of a study'
      )
    _check_version(self.where, version)

  def set_up(self, connection: sa.Connection) -> None:
    """Creates the table if there is none."""
    if self.is_set_up(connection):
      return
    _EVENTS.create(connection)
    for statement in (
      f'PRAGMA application_id = {_APPLICATION_ID}',
      f'PRAGMA user_version = {_VERSION}',
      *(
        f'CREATE TRIGGER acme_cbo_no_{event.lower()} '
        f'BEFORE {event} ON {_EVENTS.name} '
        "BEGIN SELECT RAISE(ABORT, 'events are never changed'); END"
        for event in ('UPDATE', 'DELETE')
      ),
    ):
      connection.exec_driver_sql(statement)

  def is_set_up(self, connection: sa.Connection) -> bool:
    """Returns whether there is the table; raises if the file is damaged."""
    result = connection.exec_driver_sql('PRAGMA quick_check(1)').scalar()
    if result != 'ok':
      raise errors.UsageError(
        f'{self.where} is damaged: {" ".join(str(result).split())}; {_RESTORE}'
      )
    return sa.inspect(connection).has_table(_EVENTS.name)

  def failure(self, error: exc.DBAPIError) -> Exception:
    """Returns the exception to raise for an error of SQLite."""
    # Extended codes have the kind in their last byte.
    code = getattr(error.orig, 'sqlite_errorcode', 0) & 0xFF
    message, advice = {
      sqlite3.SQLITE_BUSY: (
        'is locked',
        f'another process has been using it for {_TIMEOUT} seconds: wait until '
        'it has ended',
      ),
      sqlite3.SQLITE_FULL: ('cannot be written to', 'free some space'),
      sqlite3.SQLITE_IOERR: (
        'cannot be read or written to',
        'the disk may be full or faulty, or the size of files limited',
      ),
      sqlite3.SQLITE_READONLY: (
        'cannot be written to',
        'make the file and its directory writable',
      ),
      sqlite3.SQLITE_CANTOPEN: (
        'cannot be opened',
        'the file has to exist, and both it and its directory to be writable',
      ),
      sqlite3.SQLITE_CORRUPT: ('is damaged', _RESTORE),
      sqlite3.SQLITE_NOTADB: ('is damaged', _RESTORE),
    }.get(code, ('cannot be used', _RESTORE))
    return errors.UsageError(
      f'{self.where} {message}: {_one_line(error.orig)}; {advice}'
    )


class _PostgreSQL:
  """A PostgreSQL database; see `_SQLite`."""

  lock = contextlib.nullcontext()
  before_write = (
    f"SET LOCAL lock_timeout = '{_TIMEOUT}s'",
    # A server may be set up to confirm what is not yet on its disks.
    'SET LOCAL synchronous_commit = on',
  )

  def __init__(self, url: sa.URL):
    # Passwords may be among the options too.
    self.where = texts.printable(
      url.set(query={}).render_as_string(hide_password=True), ''
    )
    extras.import_module(
      'psycopg', f'a study in {self.where}', "'psycopg[binary]'"
    )
    self.engine = sa.create_engine(
      url,
      poolclass=sa.NullPool,
      hide_parameters=True,
      connect_args={
        'connect_timeout': _TIMEOUT,
        'tcp_user_timeout': _TIMEOUT * 1000,
        'keepalives_idle': _TIMEOUT,
        'client_encoding': 'UTF8',
      },
    )

  def create_file(self) -> None:
    """Does nothing: somebody has created the database."""

  def set_up(self, connection: sa.Connection) -> None:
    """Creates the tables if there are none."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    if not self.is_set_up(connection):
      _METADATA.create_all(connection)
      connection.execute(sa.insert(_SCHEMA), {'version': _VERSION})

  def is_set_up(self, connection: sa.Connection) -> bool:
    """Returns whether there are tables; raises if they are of no use."""
    if not sa.inspect(connection).has_table(_SCHEMA.name):
      return False
    version = connection.scalar(sa.select(sa.func.max(_SCHEMA.c.version)))
    _check_version(self.where, version)
    return True

  def failure(self, error: exc.DBAPIError) -> Exception:
    """Returns the exception to raise for an error of PostgreSQL."""
    state = getattr(error.orig, 'sqlstate', None) or ''
    reason = _one_line(error.orig)
    # Unique violation, serialization failure, deadlock.
    if state in ('23505', '40001', '40P01'):
      return _conflict(self.where)
    # The client gives none to errors of connections; 57P is a shutdown.
    if not state or state.startswith(('08', '57P')):
      return errors.PeerError(
        f'{self.where} cannot be reached: {reason}; if an event was being '
        'appended, append it again with the same id'
      )
    if state == '55P03':
      reason = (
        f'it is locked: somebody has been writing to it for {_TIMEOUT} seconds'
      )
    return errors.UsageError(f'{self.where} cannot be used: {reason}')


def _conflict(where: str) -> Conflict:
  return Conflict(
    f'somebody else has appended an event in {where}; read the new events, and '
    'decide again'
  )


def _one_line(error: BaseException | None) -> str:
  return texts.printable(' '.join(str(error).split()), '')


def _check_version(where: str, version: Any) -> None:
  """Raises unless the tables are those of this version of the package."""
  if type(version) is not int or version < 1:
    raise errors.UsageError(
      f'{where} is damaged: it has no version of its tables; {_RESTORE}'
    )
  if version > _VERSION:
    raise errors.UsageError(
      f'{where} has tables of version {version}, and this version of acme_cbo '
      f'reads at most {_VERSION}; nothing was changed: update acme_cbo'
    )


def _to_json(payload: Any) -> str:
  """Returns a payload as JSON; raises a `ValueError` if it is none."""
  try:
    return json.dumps(payload, allow_nan=False)
  except (TypeError, ValueError, RecursionError) as error:
    raise ValueError(
      f'the payload is not JSON with finite numbers: {error}'
    ) from error


def _parse_event(
  number: Any, kind: Any, payload: Any, time: Any, id: Any, blob: Any
) -> Event:
  """Returns an event; raises a `ValueError` if a value is invalid.

  Args:
    number: number of the event.
    kind: its kind.
    payload: its payload, as a JSON text.
    time: its time.
    id: its id.
    blob: its binary attachment, or None.
  """
  if type(number) is not int or number < 0:
    raise ValueError(f'the number is {number!r:.40}, and no integer from 0')
  if not isinstance(kind, str) or not _KIND.fullmatch(kind):
    raise ValueError(
      f'the kind is {kind!r:.60}; use at most 40 lower-case letters, digits '
      'and underscores, and begin with a letter'
    )
  if (kind == 'created') != (number == 0):
    raise ValueError(
      f"the kind of event {number} is {kind!r}; only event 0 is 'created'"
    )
  if not isinstance(time, str) or not _TIME.fullmatch(time):
    raise ValueError(f'the time is {time!r:.60}, and no UTC in ISO 8601')
  datetime.datetime.fromisoformat(time)
  if not isinstance(id, str) or not _ID.fullmatch(id):
    raise ValueError(f'the id is {id!r:.60}, and no 32 hexadecimal digits')
  if blob is not None and not isinstance(blob, bytes):
    raise ValueError(f'the blob is of the type {type(blob).__name__}')
  if blob is not None and len(blob) > _MAX_BLOB_BYTES:
    raise ValueError(
      f'the blob has {len(blob):,} bytes; at most {_MAX_BLOB_BYTES:,} are '
      'allowed'
    )
  return Event(number, kind, _parse_payload(payload), time, id, blob)


def _parse_payload(payload: Any) -> dict[str, Any]:
  """Returns the object in a JSON text; raises a `ValueError` if it is none."""
  if not isinstance(payload, str):
    raise ValueError(f'the payload is of the type {type(payload).__name__}')
  content = payload.encode()
  if len(content) > _MAX_PAYLOAD_BYTES:
    raise ValueError(
      f'the payload has {len(content):,} bytes; at most '
      f'{_MAX_PAYLOAD_BYTES:,} are allowed'
    )
  value = files.parse_json(content)
  if not isinstance(value, dict):
    raise ValueError('the payload is no JSON object')
  if '\\ud' in payload.lower():
    # Half of a surrogate pair cannot be encoded.
    json.dumps(value, ensure_ascii=False).encode()
  return value


def _parse_export(text: str) -> list[Event]:
  """Returns the events of an exported log; raises a `ValueError` if damaged."""
  export = files.parse_json(text.encode())
  if not isinstance(export, dict) or export.get('format') != _FORMAT:
    raise ValueError(f'its format is not {_FORMAT!r}')
  _check_version('the exported log', export.get('version'))
  items = export.get('events')
  if not isinstance(items, list) or not items:
    raise ValueError('it has no list of events')
  events = []
  for number, item in enumerate(items):
    try:
      events.append(_parse_exported_event(number, item))
    except ValueError as error:
      raise ValueError(f'event {number}: {error}') from error
  if len({event.id for event in events}) < len(events):
    raise ValueError('two events have one id')
  return events


def _parse_exported_event(number: int, item: Any) -> Event:
  """Returns an event of an exported log; raises a `ValueError` if damaged."""
  if not isinstance(item, dict):
    raise ValueError('it is no JSON object')
  values = dict(item)
  values['payload'] = _to_json(values.get('payload'))
  if 'blob' in values:
    if not isinstance(values['blob'], str):
      raise ValueError('the blob is no text')
    values['blob'] = base64.b64decode(values['blob'], validate=True)
  if unknown := values.keys() - set(Event._fields):
    raise ValueError(f'it has the unknown field {min(unknown)!r:.60}')
  fields = [values.get(name) for name in Event._fields]
  if values.get('number') != number:
    raise ValueError(f'it has the number {values.get("number")!r:.40}')
  return _parse_event(*fields)


def pack_array(array: np.ndarray) -> bytes:
  """Compresses an array, bit for bit, as the blob of an event.

  Args:
    array: float64 array; values that are not finite are kept.

  Returns:
    A .npy file, compressed with zlib.

  Raises:
    errors.UsageError: the array is of another type or too large.
  """
  if array.dtype != np.float64 or array.size > _MAX_NUMBERS:
    raise errors.UsageError(
      f'an array of {array.size:,} numbers of {array.dtype} cannot be stored; '
      f'at most {_MAX_NUMBERS:,} of float64 can'
    )
  buffer = io.BytesIO()
  np.save(buffer, np.asarray(array, order='C'), allow_pickle=False)
  return zlib.compress(buffer.getvalue())


def unpack_array(blob: bytes, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the array that `pack_array` compressed.

  Args:
    blob: result of `pack_array`.
    shape: shape that the array has to have.

  Returns:
    A read-only float64 array.

  Raises:
    errors.UsageError: the blob is damaged, or the shape differs.
  """
  size = math.prod(shape)
  if min(shape, default=0) < 0 or size > _MAX_NUMBERS:
    raise errors.UsageError(
      f'an array cannot have the shape {shape}; at most {_MAX_NUMBERS:,} '
      'numbers are allowed'
    )
  decompressor = zlib.decompressobj()
  try:
    # A small blob may expand to a thousand times its size.
    content = decompressor.decompress(blob, _MAX_HEADER_BYTES + 8 * size)
  except zlib.error as error:
    raise errors.UsageError(f'the array is damaged: {error}') from error
  header = _NPY_HEADER.match(content)
  if header is None:
    raise errors.UsageError('the array is damaged: it is no array of float64')
  stored = tuple(map(int, header[1].replace(b',', b' ').split()))
  if stored != shape:
    raise errors.UsageError(
      f'the array has the shape {stored}; it has to be {shape}'
    )
  if (
    not decompressor.eof
    or decompressor.unused_data
    or len(content) != header.end() + 8 * size
  ):
    raise errors.UsageError(
      'the array is damaged: it is shorter or longer than its shape'
    )
  return np.frombuffer(content, '<f8', size, header.end()).reshape(shape)
