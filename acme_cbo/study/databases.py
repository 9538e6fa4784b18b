"""Databases of logs of events: SQLite files, and PostgreSQL servers."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import struct
import sys
import threading

import sqlalchemy as sa
from sqlalchemy import exc

from acme_cbo.infra import errors
from acme_cbo.infra import extras
from acme_cbo.infra import files
from acme_cbo.infra import text as texts
from acme_cbo.study import events

# Marks SQLite files of this package, in bytes 68 to 71: 'acbo' in ASCII.
_APPLICATION_ID = 0x6163626F
_SQLITE_MAGIC = b'SQLite format 3\0'
# Key of the lock under which tables are created in PostgreSQL.
_ADVISORY_LOCK = _APPLICATION_ID
# Seconds to wait for the writes of others, and for a connection.
_TIMEOUT = 30

_METADATA = sa.MetaData()
EVENTS = sa.Table(
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
# Values as they are stored, for `events.parse` to check.
COLUMNS = [
  sa.type_coerce(EVENTS.c[name], sa.types.NullType()).label(name)
  for name in ('number', 'kind', 'payload', 'time', 'id', 'blob')
]


class Conflict(Exception):
  """Somebody else has appended an event with the expected number."""


def at(location: str | os.PathLike[str]) -> SQLite | PostgreSQL:
  """Returns the database at a path or a URL."""
  if not (isinstance(location, str) and '://' in location):
    return SQLite(pathlib.Path(location))
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
  return PostgreSQL(url)


class SQLite:
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
    events.check_version(self.where, version)

  def set_up(self, connection: sa.Connection) -> None:
    """Creates the table if there is none."""
    if self.is_set_up(connection):
      return
    EVENTS.create(connection)
    for statement in (
      f'PRAGMA application_id = {_APPLICATION_ID}',
      f'PRAGMA user_version = {events.VERSION}',
      *(
        f'CREATE TRIGGER acme_cbo_no_{change.lower()} '
        f'BEFORE {change} ON {EVENTS.name} '
        "BEGIN SELECT RAISE(ABORT, 'events are never changed'); END"
        for change in ('UPDATE', 'DELETE')
      ),
    ):
      connection.exec_driver_sql(statement)

  def is_set_up(self, connection: sa.Connection) -> bool:
    """Returns whether there is the table; raises if the file is damaged."""
    result = connection.exec_driver_sql('PRAGMA quick_check(1)').scalar()
    if result != 'ok':
      raise errors.UsageError(
        f'{self.where} is damaged: {" ".join(str(result).split())}; '
        f'{events.RESTORE}'
      )
    return sa.inspect(connection).has_table(EVENTS.name)

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
      sqlite3.SQLITE_CORRUPT: ('is damaged', events.RESTORE),
      sqlite3.SQLITE_NOTADB: ('is damaged', events.RESTORE),
    }.get(code, ('cannot be used', events.RESTORE))
    return errors.UsageError(
      f'{self.where} {message}: {_one_line(error.orig)}; {advice}'
    )


class PostgreSQL:
  """A PostgreSQL database; see `SQLite`."""

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
      connection.execute(sa.insert(_SCHEMA), {'version': events.VERSION})

  def is_set_up(self, connection: sa.Connection) -> bool:
    """Returns whether there are tables; raises if they are of no use."""
    if not sa.inspect(connection).has_table(_SCHEMA.name):
      return False
    version = connection.scalar(sa.select(sa.func.max(_SCHEMA.c.version)))
    events.check_version(self.where, version)
    return True

  def failure(self, error: exc.DBAPIError) -> Exception:
    """Returns the exception to raise for an error of PostgreSQL."""
    state = getattr(error.orig, 'sqlstate', None) or ''
    reason = _one_line(error.orig)
    # Unique violation, serialization failure, deadlock.
    if state in ('23505', '40001', '40P01'):
      return conflict(self.where)
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


def conflict(where: str) -> Conflict:
  """Returns the exception that says where somebody else was first."""
  return Conflict(
    f'somebody else has appended an event in {where}; read the new events, and '
    'decide again'
  )


def _one_line(error: BaseException | None) -> str:
  return texts.printable(' '.join(str(error).split()), '')
