"""Tests of the log of events on real files, processes, kills and servers."""

import contextlib
import datetime
import hashlib
import io
import itertools
import json
import os
import pathlib
import pwd
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
from typing import Any
import unittest
from unittest import mock
import uuid
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest

from acme_cbo.infra import errors
from acme_cbo.study import databases
from acme_cbo.study import event_log
from acme_cbo.study import events as events_lib
from tests.support import postgresql

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PAYLOAD = {
  'name': 'Ertrag — "µ"\n\\ud800 \U0001f600',
  'values': [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, 2**63, None],
  'nested': {'a': [True, {}, []]},
}
# For each line {location, workers, count, bytes} it forks workers, each of
# which appends `count` events, and prints the number and the id of each when it
# is acknowledged, or the error. Without the time to start Python, a worker can
# be killed at any moment of an append.
_FORKER = """
import hashlib, json, os, resource, sys
from acme_cbo.infra import errors
from acme_cbo.study import databases
from acme_cbo.study import event_log
from acme_cbo.study import events as events_lib

def say(*words):
  os.write(1, (' '.join(map(str, words)) + '\\n').encode())

def work(location, count, bytes, limit):
  if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
  with event_log.EventLog.open(location) as log:
    number = log.read()[-1].number
    while count:
      blob = os.urandom(bytes)
      payload = {'sha': hashlib.sha256(blob).hexdigest()}
      try:
        event = log.append('observed', payload, number + 1, blob)
      except databases.Conflict:
        number = log.read(number)[-1].number
        continue
      number = event.number
      count -= 1
      say('appended', number, event.id)

heavy = {'jax', 'pandas', 'scipy', 'matplotlib', 'psycopg'}
say('heavy', *heavy & {*sys.modules})
for line in sys.stdin:
  job = json.loads(line)
  if '://' in job['location']:
    import psycopg  # Once for all workers.
  pids = []
  for _ in range(job.pop('workers')):
    pids.append(os.fork())
    if not pids[-1]:
      try:
        work(**job)
      except errors.UsageError as error:
        say('failed', error)
      os._exit(0)
  say('pids', *pids)
  codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
  say('ended', *codes)
"""
_TRY_TO_LOCK = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')
"""


class _Forker:
  """Starts workers that append; see `_FORKER`."""

  def __enter__(self):
    self._process: Any = subprocess.Popen(
      [sys.executable, '-c', _FORKER],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONPATH': str(_ROOT)},
    )
    self.heavy = self._read()[1:]
    return self

  def __exit__(self, *unused):
    self._process.stdin.close()
    self._process.wait(30)
    self._process.stdout.close()

  def _read(self):
    words = self._process.stdout.readline().split()
    assert words, 'the forker has ended'
    return words

  def start(self, location, workers=1, count=-1, bytes=0, limit=0):
    """Starts workers; by default one, which goes on until it is killed."""
    job = dict(
      location=str(location),
      workers=workers,
      count=count,
      bytes=bytes,
      limit=limit,
    )
    self._acknowledged, self._failures = [], []
    self._process.stdin.write(json.dumps(job) + '\n')
    self._process.stdin.flush()
    self.pids = []
    while not self.pids:
      self._handle(self._read())

  def wait_for(self, count):
    """Waits until some events are acknowledged."""
    while len(self._acknowledged) < count:
      self._handle(self._read())

  def finish(self):
    """Waits for the workers' end; returns (number, id) pairs, and errors."""
    self._codes = None
    while self._codes is None:
      self._handle(self._read())
    return self._acknowledged, self._failures

  def _handle(self, words):
    match words:
      case ['pids', *pids]:
        self.pids = [int(pid) for pid in pids]
      case ['appended', number, id]:
        self._acknowledged.append((int(number), id))
      case ['failed', *words]:
        self._failures.append(' '.join(words))
      case ['ended', *codes]:
        self._codes = codes
      case _:
        raise AssertionError(words)


def _text(error):
  """Returns all that a traceback of an error shows."""
  return ''.join(traceback.format_exception(error))


class _LogTest(parameterized.TestCase):
  """Tests of both back ends, in subclasses.

  Attributes:
    location: a place without a study.
    num_kills: number of processes to kill.
    blob_bytes: size of the events that they append.
  """

  location: Any
  num_kills: int
  blob_bytes: int

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.forker = cls.enterClassContext(_Forker())

  def setUp(self):
    super().setUp()
    self.was_in_an_append = False
    self.folder = pathlib.Path(
      self.enterContext(tempfile.TemporaryDirectory())
    ).resolve()

  def _create(self, num_events=1):
    log = event_log.EventLog.create(self.location, {'target': 'yield'})
    for number in range(1, num_events):
      log.append('observed', {'y': number}, number)
    return log

  def _open(self, **kwargs):
    return event_log.EventLog.open(self.location, **kwargs)

  def _assert_has_just(self, acknowledged):
    """Asserts that all acknowledged events are there, each once."""
    events = self._open().read()
    self.assertEqual([e.number for e in events], [*range(len(events))])
    self.assertCountEqual([(e.number, e.id) for e in events[1:]], acknowledged)

  def test_events_come_back_exactly(self):
    blob = bytes(range(256)) * 40
    log = event_log.EventLog.create(self.location, _PAYLOAD, blob=blob)
    before = datetime.datetime.now(datetime.UTC)
    appended = [
      log.append('records_added', {}, 1, b''),
      log.append('observed', _PAYLOAD, 2),
    ]
    with self._open() as other:
      events = other.read()
    self.assertEqual(events[1:], appended)
    self.assertEqual(
      [(e.number, e.kind, e.payload, e.blob) for e in events],
      [
        (0, 'created', _PAYLOAD, blob),
        (1, 'records_added', {}, b''),
        (2, 'observed', _PAYLOAD, None),
      ],
    )
    self.assertEqual(str(events[0].payload['values'][1]), '-0.0')
    moment = datetime.datetime.fromisoformat(events[2].time)
    self.assertLess(abs(moment - before), datetime.timedelta(seconds=30))
    self.assertLen({event.id for event in events}, 3)

  def test_reads_the_events_after_a_number(self):
    log = self._create(4)
    self.assertEqual([e.number for e in log.read(1)], [2, 3])
    self.assertEmpty(log.read(3))
    for number in (4, -2):
      with self.assertRaisesRegex(
        errors.UsageError, f'has no event {number}, only 0 to 3; if it had, it '
      ):
        log.read(number)

  def test_create_refuses_an_existing_study_and_open_a_missing_one(self):
    events = self._create(2).read()
    with self.assertRaisesRegex(
      errors.UsageError,
      "has a study named 'study' already; nothing was changed",
    ):
      self._create()
    self.assertEqual(self._open().read(), events)
    with self.assertRaisesRegex(
      errors.UsageError, "has no study named 'other'; create it, or choose"
    ):
      self._open(name='other')

  def test_one_place_holds_several_studies(self):
    first = self._create(3)
    second = event_log.EventLog.create(self.location, {'b': 2}, name='b')
    second.append('observed', {}, 1)
    self.assertEqual(
      [e.payload for e in self._open(name='b').read()], [{'b': 2}, {}]
    )
    self.assertLen(first.read(), 3)

  def test_names_are_short_and_plain(self):
    for name in ('', '-a', 'a/b', 'ä', 'a' * 101, 'a\n', "a'"):
      with self.assertRaisesRegex(errors.UsageError, 'a study cannot be named'):
        event_log.EventLog.create(self.location, {}, name=name)

  @pytest.mark.fault
  def test_conflict(self):
    mine = self._create(2)
    theirs = self._open()
    theirs.append('suggested', {'do': 1}, 2)
    with self.assertRaisesRegex(
      databases.Conflict, 'somebody else has appended an event in .*; read the'
    ):
      mine.append('suggested', {'do': 2}, 2)
    self.assertEqual([e.payload for e in mine.read(1)], [{'do': 1}])
    mine.append('suggested', {'do': 2}, 3)
    with self.assertRaisesRegex(
      errors.UsageError, 'has no event 8, only 0 to 3'
    ):
      mine.append('suggested', {'do': 3}, 9)
    self.assertLen(theirs.read(), 4)

  @pytest.mark.fault
  def test_an_event_that_is_appended_again_is_stored_once(self):
    log = self._create()
    id = uuid.uuid4().hex
    first = log.append('observed', {'y': [1]}, 1, b'x', id=id)
    log.append('observed', {}, 2)
    for expected in (1, 2, 3):
      again = log.append('observed', {'y': [1]}, expected, b'x', id=id)
      self.assertEqual(again, first)
    self.assertLen(log.read(), 3)
    for kind, payload, blob in (
      ('suggested', {'y': [1]}, b'x'),
      ('observed', {'y': [2]}, b'x'),
      ('observed', {'y': [1]}, None),
    ):
      with self.assertRaisesRegex(
        errors.UsageError,
        f'event 1 of the .* has the id {id}, and another cont',
      ):
        log.append(kind, payload, 3, blob, id=id)

  def _invalid_payloads(self):
    deep = []
    for _ in range(10**5):
      deep = [deep]
    yield {'y': float('nan')}, 'not JSON with finite numbers'
    yield {'y': [float('-inf')]}, 'not JSON with finite numbers'
    yield {'y': {1, 2}}, 'set is not JSON serializable'
    yield {'y': deep}, 'not JSON with finite numbers: maximum recursion'
    yield {'y': 2**64}, 'is too large'
    yield {'y': 'a\x1b'}, 'has a control character .*u001b'
    yield {'y\0': 1}, 'has a control character'
    yield {'y': '\x7f'}, 'has a control character'
    yield {'y': '\ud800'}, 'surrogates not allowed'
    yield {1: 2}, 'not what JSON makes of it'
    yield {'y': (1, 2)}, 'not what JSON makes of it'
    yield [1], 'is no JSON object'
    yield {'y': 'a' * 10**7}, r'has 10,000,009 bytes; at most 10,000,000'

  @pytest.mark.fault
  def test_invalid_events_are_not_stored(self):
    log: Any = self._create()
    for payload, message in self._invalid_payloads():
      with self.assertRaisesRegex(errors.UsageError, f'event 1 .*{message}'):
        log.append('observed', payload, 1)
    for kind in ('', 'Observed', 'a b', '1a', 'a' * 41, 'a\n', 'created', None):
      with self.assertRaisesRegex(errors.UsageError, 'event 1 .*the kind'):
        log.append(kind, {}, 1)
    for id in ('', 'A' * 32, 'a' * 31, 5):
      with self.assertRaisesRegex(errors.UsageError, 'event 1 .*the id is'):
        log.append('observed', {}, 1, id=id)
    for number in (-1, True, 1.0):
      with self.assertRaisesRegex(errors.UsageError, 'the number is'):
        log.append('observed', {}, number)
    for blob, message in (
      ('text', 'blob is of the type str'),
      (bytes(10**8 + 1), 'blob has 100,000,001 bytes; at most 100,000,000'),
    ):
      with self.assertRaisesRegex(errors.UsageError, f'event 1 .*{message}'):
        log.append('observed', {}, 1, blob)
    self.assertLen(log.read(), 1)

  def test_export_and_import(self):
    log = event_log.EventLog.create(self.location, _PAYLOAD, blob=b'\0\xff')
    log.append('observed', _PAYLOAD, 1, b'')
    log.append('observed', {}, 2)
    exported = log.export_json()
    imported = event_log.EventLog.import_json(
      exported, self.location, name='copy'
    )
    self.assertEqual(imported.read(), log.read())
    self.assertEqual(imported.export_json(), exported)
    path = self.folder / 'copy.db'
    event_log.EventLog.import_json(exported, path).append('observed', {}, 3)
    self.assertEqual(event_log.EventLog.open(path).read()[:3], log.read())
    with self.assertRaisesRegex(errors.UsageError, "named 'copy' already"):
      event_log.EventLog.import_json(exported, self.location, name='copy')

  def test_a_closed_log_is_not_used(self):
    with self._create() as log:
      pass
    with self.assertRaisesRegex(ValueError, "'study' in .* is closed"):
      log.read()

  def test_several_processes_append_at_once(self):
    self._create()
    self.forker.start(self.location, workers=3, count=8)
    acknowledged, failures = self.forker.finish()
    self.assertEmpty(failures)
    self.assertLen(acknowledged, 24)
    self._assert_has_just(acknowledged)

  @pytest.mark.fault
  def test_killed_processes_lose_no_acknowledged_event(self):
    self._kill(self.num_kills)

  @pytest.mark.fault
  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_many_killed_processes_lose_no_acknowledged_event(self):
    self._kill(50, workers=3)

  def _kill(self, num_kills, workers=1):
    """Kills processes that append, at random moments."""
    log = self._create()
    generator = random.Random(0)
    last = 0
    for _ in range(num_kills):
      self.forker.start(self.location, workers, bytes=self.blob_bytes)
      self.forker.wait_for(1)
      time.sleep(generator.uniform(0, 0.05))
      for pid in self.forker.pids:
        os.kill(pid, signal.SIGKILL)
      acknowledged, failures = self.forker.finish()
      self.assertEmpty(failures)
      self.was_in_an_append |= (self.folder / 'study.db-journal').exists()
      events = self._open().read(last)
      self.assertContainsSubset(
        acknowledged, [(e.number, e.id) for e in events]
      )
      # A worker may be killed after its commit, and before it says so.
      self.assertLessEqual(len(events), len(acknowledged) + workers)
      for event in events:
        digest = hashlib.sha256(event.blob or b'').hexdigest()
        self.assertEqual(event.payload, {'sha': digest})
      last = log.append('restarted', {}, events[-1].number + 1).number
    self.assertLen(log.read(), last + 1)


class SQLiteTest(_LogTest):
  num_kills = 10
  # Many pages, which take about as long to write as to bring to the disk.
  blob_bytes = 2_000_000

  def setUp(self):
    super().setUp()
    self.location = self.folder / 'study.db'

  @pytest.mark.fault
  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_many_killed_processes_lose_no_acknowledged_event(self):
    super().test_many_killed_processes_lose_no_acknowledged_event()
    self.assertTrue(self.was_in_an_append)

  def test_the_module_is_light(self):
    self.assertEmpty(self.forker.heavy)

  def test_ten_thousand_events_are_read_quickly(self):
    self._create(2)
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      connection.executemany(
        'INSERT INTO acme_cbo_events SELECT study, ?, kind, payload, time, ?, '
        "blob FROM acme_cbo_events WHERE study = 'study' AND number = 1",
        [(number, uuid.uuid4().hex) for number in range(2, 10_000)],
      )
      connection.commit()
    start = time.process_time()
    with self._open() as log:
      self.assertLen(log.read(), 10_000)
    self.assertLess(time.process_time() - start, 1)

  def test_a_log_is_one_file_and_durable(self):
    log = self._create(3)
    self.assertEqual(os.listdir(self.folder), ['study.db'])
    with log._connect() as connection:
      self.assertEqual(_pragma(connection, 'synchronous'), 3)  # EXTRA
    # Another program has changed the mode.
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      connection.execute('PRAGMA journal_mode = WAL')
    self.assertLen(log.read(), 3)
    log.append('observed', {}, 3)
    self.assertEqual(os.listdir(self.folder), ['study.db'])
    with log._connect(to_write=True) as connection:
      self.assertEqual(_pragma(connection, 'journal_mode'), 'delete')

  def test_events_cannot_be_changed(self):
    self._create(3)
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      copy = "INSERT INTO acme_cbo_events SELECT study, {}, 'a', '', '', {}, ''"
      copy += ' FROM acme_cbo_events WHERE number = 1'
      for statement, message in (
        ("UPDATE acme_cbo_events SET payload = '{}'", 'events are never chang'),
        ('DELETE FROM acme_cbo_events', 'events are never changed'),
        (copy.format(9, 'id'), 'UNIQUE .*study, .*id'),
        (copy.format(1, "'a'"), 'UNIQUE .*study, .*number'),
      ):
        with self.assertRaisesRegex(sqlite3.IntegrityError, message):
          connection.execute(statement)

  @parameterized.parameters('a b', 'a?mode=ro', 'a#b', 'a%20b', 'ä', '\udcff')
  def test_any_name_of_a_file(self, name):
    self.location = self.folder / name
    self._create(2)
    self.assertLen(self._open().read(), 2)
    self.assertEqual(os.listdir(self.folder), [name])

  def test_a_path_may_be_a_link_or_relative(self):
    target = self.folder / 'folder' / 'study.db'
    target.parent.mkdir()
    event_log.EventLog.create(target, {})
    self.location = self.folder / 'link'
    self.location.symlink_to(target)
    with contextlib.chdir(target.parent):
      log = event_log.EventLog.open('study.db')
    log.append('observed', {}, 1)
    self.assertLen(self._open().read(), 2)
    self.assertEqual(log.where, 'study.db')

  def test_a_url_needs_psycopg(self):
    with (
      mock.patch.dict(sys.modules, {'psycopg': None}),
      self.assertRaisesRegex(
        errors.UsageError,
        r'a study in postgresql\+psycopg://u:\*\*\*@h/d needs the package psy',
      ),
    ):
      event_log.EventLog.open(
        'postgresql+psycopg://u:secret@h/d?password=secret'
      )

  def test_an_empty_file_is_an_empty_database(self):
    # It is what a process leaves that is killed while it creates a log.
    self.location.touch()
    with self.assertRaisesRegex(errors.UsageError, 'has no study named'):
      self._open()
    self.assertEqual(self.location.read_bytes(), b'')
    self._create()
    self.assertLen(self._open().read(), 1)

  def _refused(self, message, *changed):
    """Asserts that the location is refused, and that nothing is changed."""
    before = _contents(self.folder)
    exported = '{"format": "acme_cbo study", "version": 1, "events": [%s]}'
    event = dict(number=0, kind='created', payload={}, id='0' * 32)
    event['time'] = '2026-01-02T03:04:05.000006+00:00'
    exported %= json.dumps(event)
    for operation in (
      self._open,
      self._create,
      lambda: event_log.EventLog.import_json(exported, self.location),
    ):
      with self.assertRaisesRegex(errors.UsageError, message) as caught:
        operation()
      self.assertNotIn('\n', str(caught.exception))
      self.assertEqual(_contents(self.folder), before)

  @pytest.mark.fault
  def test_refuses_what_is_no_file(self):
    self.location.mkdir()
    self._refused('study.db cannot be read: it is a directory; name a regular')
    self.location.rmdir()
    os.mkfifo(self.location)
    self._refused('study.db cannot be read: it is a pipe; name a regular file')
    self.location.unlink()
    self.location.symlink_to(self.location)
    self._refused('study.db cannot be read: Too many levels of symbolic links')
    self.location = '/dev/zero'
    self._refused('/dev/zero cannot be read: it is a device; name a regular')
    self.location = 'a\0b'
    self._refused('is not a valid path')

  @pytest.mark.fault
  @parameterized.parameters(b'a', b'SQLite format 3\0', bytes(10_000))
  def test_refuses_a_file_that_is_no_database(self, content):
    self.location.write_bytes(content)
    self._refused('study.db is no SQLite database; nothing was changed: name')

  @pytest.mark.fault
  def test_refuses_the_database_of_another_program(self):
    # Opening this one would move the changes in its -wal into the database.
    source = self.folder / 'source'
    source.mkdir()
    with contextlib.closing(sqlite3.connect(source / 'study.db')) as connection:
      connection.execute('CREATE TABLE acme_cbo_events (study, number)')
      connection.execute('PRAGMA journal_mode = WAL')
      connection.execute("INSERT INTO acme_cbo_events VALUES ('study', 1)")
      connection.commit()
      for path in source.iterdir():
        shutil.copy(path, self.folder)
    self.assertGreater((self.folder / 'study.db-wal').stat().st_size, 0)
    self._refused('is a database of another program; nothing was changed: name')

  @pytest.mark.fault
  @parameterized.parameters(
    (
      2,
      'has tables of version 2, and this version of acme_cbo reads at most 1',
    ),
    (0, 'is damaged: it has no version of its tables; restore it from a copy'),
  )
  def test_refuses_tables_of_another_version(self, version, message):
    self._create()
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      connection.execute(f'PRAGMA user_version = {version}')
    self._refused(message)

  @pytest.mark.fault
  @parameterized.parameters('cut', 'overwritten', 'schema')
  def test_refuses_a_damaged_database(self, damage):
    self._create(3)
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      connection.executemany(
        "INSERT INTO acme_cbo_events VALUES ('study', ?, 'a', '{}', '', ?, ?)",
        [(number, str(number), bytes(1000)) for number in range(3, 100)],
      )
      connection.commit()
    content = bytearray(self.location.read_bytes())
    if damage == 'cut':
      del content[len(content) // 2 :]
    elif damage == 'overwritten':
      for page in range(8, len(content) // 4096):
        content[page * 4096 : page * 4096 + 8] = b'\x55' * 8
    else:
      content[100:200] = b'\x55' * 100
    self.location.write_bytes(content)
    self._refused('study.db is damaged: .*; restore it from a copy')

  @pytest.mark.fault
  @parameterized.parameters(
    ("payload = '[]'", 'the payload is no JSON object'),
    ("payload = '{'", 'Expecting property name'),
    ("""payload = '{"y": NaN}'""", 'the number NaN is not finite'),
    ("""payload = '{"y": 1e999}'""", 'the number 1e999 is not finite'),
    (r"""payload = '{"y": "\u0007"}'""", 'has a control character'),
    (r"""payload = '{"y": "\uD800"}'""", 'surrogates not allowed'),
    ("payload = x'7b7d'", 'the payload is of the type bytes'),
    ("kind = 'Observed'", "the kind is 'Observed'"),
    ("kind = 'created'", "only event 0 is 'created'"),
    ('kind = 7.5', "the kind is '7.5'"),
    ("time = '2026-01-02'", "the time is '2026-01-02'"),
    ("time = '2026-13-02T03:04:05.000006+00:00'", 'month must be in 1..12'),
    ("id = 'abc'", "the id is 'abc'"),
    ("blob = 'abc'", 'the blob is of the type str'),
    ('blob = 1000000000000', 'the blob is of the type int'),
    ('number = 9', 'the next event has the number 2'),
    ("number = 'a'", 'is damaged: |event 1 .* number 2'),
    ('blob = zeroblob(100001)', 'the blob has 100,001 bytes; at most 100,000'),
  )
  def test_a_damaged_event_is_named(self, change, message):
    log = self._create(3)
    self.enterContext(mock.patch.object(events_lib, '_MAX_BLOB_BYTES', 10**5))
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      connection.execute('DROP TRIGGER acme_cbo_no_update')
      connection.execute(
        f'UPDATE acme_cbo_events SET {change} WHERE number = 1'
      )
      connection.commit()
    with self.assertRaisesRegex(errors.UsageError, message) as caught:
      log.read()
    if 'number' not in change:
      self.assertRegex(
        str(caught.exception),
        "^event 1 of the study 'study' in .*/study.db is damaged: .*; restore",
      )
      self.assertLen(log.read(1), 1)

  @pytest.mark.fault
  def test_a_missing_event_is_named(self):
    log = self._create(5)
    with contextlib.closing(sqlite3.connect(self.location)) as connection:
      connection.execute('DROP TRIGGER acme_cbo_no_delete')
      connection.execute('DELETE FROM acme_cbo_events WHERE number = 2')
      connection.commit()
    with self.assertRaisesRegex(
      errors.UsageError, 'event 2 of the .* is damaged: the next event has the'
    ):
      log.read()

  def _changed_exports(self):
    """Yields pairs of a changed export and the message that it causes."""
    log = self._create(3)
    log.append('observed', {'y': 1}, 3, b'abc')
    exported = log.export_json()

    def changed(position, **changes):
      value = json.loads(exported)
      value['events'][position] |= changes
      return json.dumps(value)

    value = json.loads(exported)
    events = value['events']
    yield from (
      ('', 'Expecting value'),
      ('[]', "its format is not 'acme_cbo study'"),
      (exported[:-1], 'Expecting'),
      (exported + '\ud800', 'surrogates not allowed'),
      ('[' * 10**5, 'nested too deeply'),
      (json.dumps(value | {'version': 2}), 'has tables of version 2'),
      (json.dumps(value | {'version': '1'}), 'has no version'),
      (json.dumps(value | {'events': []}), 'it has no list of events'),
      (json.dumps(value | {'events': {}}), 'it has no list of events'),
      (json.dumps(value | {'events': [1]}), 'event 0: it is no JSON object'),
      (
        json.dumps(value | {'events': events[1:]}),
        'event 0: it has the number',
      ),
      (
        json.dumps(value | {'events': events[:1] + events[2:]}),
        'event 1: it ha',
      ),
      (changed(1, number=2), 'event 1: it has the number 2'),
      (changed(1, number=True), 'event 1: the number is True'),
      (changed(1, id=events[2]['id']), 'two events have one id'),
      (changed(1, id='x'), "event 1: the id is 'x'"),
      (changed(1, kind=None), 'event 1: the kind is None'),
      (changed(1, time='now'), "event 1: the time is 'now'"),
      (changed(1, payload=[]), 'event 1: the payload is no JSON object'),
      (changed(1, payload={'y': float('nan')}), 'the number NaN is not finite'),
      (changed(1, payload={'y': '\x07'}), 'has a control character'),
      (changed(1, payload={'y': 'a' * 10**7}), 'event 1: .* 10,000,009 bytes'),
      (changed(1, extra=1), "event 1: it has the unknown field 'extra'"),
      (changed(3, blob=5), 'event 3: the blob is no text'),
      (changed(3, blob='YWJ'), 'event 3: .*padding'),
      (changed(3, blob='YW\nJj'), 'event 3: '),
    )

  @pytest.mark.fault
  def test_a_damaged_export_is_not_imported(self):
    path = self.folder / 'new.db'
    for text, message in self._changed_exports():
      with self.assertRaisesRegex(
        errors.UsageError, f'the exported log .*{message}'
      ) as caught:
        event_log.EventLog.import_json(text, path)
      self.assertNotIn('\n', str(caught.exception), message)
      self.assertFalse(path.exists())

  @pytest.mark.fault
  def test_a_log_that_was_removed_or_replaced(self):
    log = self._create(3)
    older = self.location.read_bytes()
    log.append('observed', {}, 3)
    self.location.write_bytes(older)
    with self.assertRaisesRegex(
      errors.UsageError, 'has no event 3, only 0 to 2'
    ):
      log.read(3)
    with self.assertRaisesRegex(
      errors.UsageError, 'has no event 3, only 0 to 2'
    ):
      log.append('observed', {}, 4)
    self.location.unlink()
    for operation in (log.read, lambda: log.append('observed', {}, 4)):
      with self.assertRaisesRegex(
        errors.UsageError, 'study.db cannot be read: No such file or directory'
      ):
        operation()
    self.assertEmpty(os.listdir(self.folder))

  @pytest.mark.fault
  def test_paths_that_cannot_be_created(self):
    for path, message in (
      (self.folder / 'none' / 'study.db', 'No such file or directory'),
      (self.folder / ('a' * 300), 'File name too long'),
      ('/proc/study.db', 'No such file or directory|Permission denied'),
    ):
      with self.assertRaisesRegex(
        errors.UsageError, f'{path} cannot be created: ({message})'
      ):
        event_log.EventLog.create(path, {})

  @pytest.mark.fault
  def test_a_lock_is_waited_for_and_then_reported(self):
    log = self._create()
    self.enterContext(mock.patch.object(databases, '_TIMEOUT', 0.3))
    connection = sqlite3.connect(self.location, check_same_thread=False)
    with contextlib.closing(connection):
      connection.execute('BEGIN IMMEDIATE')
      with self.assertRaisesRegex(
        errors.UsageError,
        'study.db is locked: .*; another process has been using it for 0.3 sec',
      ):
        log.append('observed', {}, 1)
      self.assertLen(log.read(), 1)
      timer = threading.Timer(0.1, connection.rollback)
      timer.start()
      self.addCleanup(timer.join)
      log.append('observed', {}, 1)

  @pytest.mark.fault
  def test_threads_do_not_drop_the_locks_of_others(self):
    log = self._create()
    thread = threading.Thread(target=self._open)
    with log._connect(to_write=True):
      thread.start()
      thread.join(0.2)
      other = subprocess.run(
        [sys.executable, '-c', _TRY_TO_LOCK, self.location],
        capture_output=True,
        text=True,
      )
    thread.join()
    self.assertIn('database is locked', other.stderr)

  @pytest.mark.fault
  def test_a_full_disk_loses_nothing(self):
    log = self._create(2)
    full = ('PRAGMA max_page_count = 20', *databases.SQLite.before_write)
    with (
      mock.patch.object(databases.SQLite, 'before_write', full),
      self.assertRaisesRegex(
        errors.UsageError,
        'study.db cannot be written to: database or disk is full; free some',
      ),
    ):
      for number in itertools.count(2):
        log.append('observed', {}, number, bytes(5000))
    self.assertGreater(number, 5)
    self.assertLen(self._open().read(), number)
    log.append('observed', {}, number, bytes(5000))

  @pytest.mark.fault
  def test_a_limit_on_the_size_of_files_loses_nothing(self):
    self._create()
    self.forker.start(self.location, bytes=5000, limit=100_000)
    acknowledged, failures = self.forker.finish()
    self.assertLen(failures, 1)
    self.assertRegex(
      failures[0],
      'study.db cannot be read or written to: disk I/O error; the disk may be',
    )
    self.assertGreater(len(acknowledged), 5)
    self._assert_has_just(acknowledged)
    self._open().append('observed', {}, len(acknowledged) + 1, bytes(5000))

  @pytest.mark.fault
  @parameterized.parameters(
    (0o444, 'cannot be written to: attempt to write a readonly database; make'),
    (0o666, 'cannot be written to: attempt to write a readonly database; make'),
    (0o000, 'cannot be read: Permission denied'),
  )
  def test_permissions(self, mode, message):
    log = self._create(2)
    self.location.chmod(mode)
    self.folder.chmod(0o555)
    self.addCleanup(self.folder.chmod, 0o755)
    with _unprivileged():
      if mode:
        self.assertLen(self._open().read(), 2)
      with self.assertRaisesRegex(errors.UsageError, f'study.db {message}'):
        log.append('observed', {}, 2)
      with self.assertRaisesRegex(
        errors.UsageError, 'new.db cannot be created: Permission denied'
      ):
        event_log.EventLog.create(self.folder / 'new.db', {})
    self.location.chmod(0o644)
    self.assertLen(log.read(), 2)


def _pragma(connection, name):
  return connection.exec_driver_sql(f'PRAGMA {name}').scalar()


def _contents(folder):
  """Returns {name: content} of a folder; None for what is no file."""
  return {
    path.name: path.read_bytes() if path.is_file() else None
    for path in folder.glob('[!.]*')
    if not path.is_symlink()
  }


@contextlib.contextmanager
def _unprivileged():
  """Acts as a user whom permissions bind."""
  if os.geteuid():
    yield
    return
  os.seteuid(pwd.getpwnam('nobody').pw_uid)
  try:
    yield
  finally:
    os.seteuid(0)


@contextlib.contextmanager
def _proxy(port):
  """Forwards connections, but cuts them when the server answers to a word.

  Args:
    port: port of the server.

  Yields:
    The port of the proxy, and a list of words to which clients get no answer.
  """
  words = []

  def serve():
    while True:
      try:
        client, _ = listener.accept()
      except OSError:
        return
      with client, socket.create_connection(('127.0.0.1', port)) as server:
        _forward(client, server, words)

  with socket.create_server(('127.0.0.1', 0)) as listener:
    thread = threading.Thread(target=serve)
    thread.start()
    try:
      yield listener.getsockname()[1], words
    finally:
      listener.shutdown(socket.SHUT_RDWR)
      thread.join()


def _forward(client, server, words):
  while True:
    for source in select.select([client, server], [], [])[0]:
      data = source.recv(2**16)
      if not data:
        return
      (server if source is client else client).sendall(data)
      if source is client and any(word in data for word in words):
        server.recv(2**16)
        return


@unittest.skipUnless(postgresql.HAS_PSYCOPG, 'needs psycopg')
class PostgreSQLTest(_LogTest):
  num_kills = 4  # The server survives them.
  blob_bytes = 100_000

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.port = cls.enterClassContext(postgresql.server())
    cls.numbers = itertools.count()

  def setUp(self):
    super().setUp()
    self.database = f'test{next(self.numbers)}'
    with postgresql.connect(self.port) as connection:
      connection.execute(f'CREATE DATABASE {self.database}')
    self.location = self._url()

  def _url(self, port=None, password=None, database=None, more=''):
    location = postgresql.url(
      port or self.port,
      database or self.database,
      password or postgresql.QUOTED_PASSWORD,
    )
    return location + more

  def _assert_hides_password(self, error):
    text = _text(error)
    for part in ('se/cr', 'se%2Fcr', 'cr@et', 'cr%40et', 'wrong'):
      self.assertNotIn(part, text)

  def test_other_tables_are_left_alone(self):
    with postgresql.connect(self.port, self.database) as connection:
      connection.execute('CREATE TABLE mine (a int)')
    self._create(2)
    with postgresql.connect(self.port, self.database) as connection:
      tables = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
      ).fetchall()
    self.assertCountEqual(
      tables, [('mine',), ('acme_cbo_events',), ('acme_cbo_schema',)]
    )

  def test_several_processes_create_at_once(self):
    threads, outcomes = [], []

    def create(name):
      try:
        event_log.EventLog.create(self.location, {}, name=name)
        outcomes.append(name)
      except errors.UsageError as error:
        outcomes.append(str(error))

    for name in ('a', 'b', 'b', 'c'):
      threads.append(threading.Thread(target=create, args=(name,)))
      threads[-1].start()
    for thread in threads:
      thread.join()
    self.assertContainsSubset(['a', 'b', 'c'], outcomes)
    self.assertLen([x for x in outcomes if "named 'b' already" in x], 1)

  @pytest.mark.fault
  def test_tables_of_a_newer_version(self):
    log = self._create()
    with postgresql.connect(self.port, self.database) as connection:
      connection.execute('UPDATE acme_cbo_schema SET version = 2')
    for operation in (self._open, self._create):
      with self.assertRaisesRegex(
        errors.UsageError, 'has tables of version 2, and this version of acme_c'
      ):
        operation()
    self.assertLen(log.read(), 1)

  @pytest.mark.fault
  def test_servers_that_cannot_be_reached(self):
    for url, message in (
      (self._url(password='wrong'), 'password authentication failed for user'),
      (self._url(database='none'), 'database "none" does not exist'),
      (self._url(port=1), 'Connection refused'),
    ):
      with self.assertRaisesRegex(
        errors.PeerError,
        r'^postgresql\+psycopg://tester:\*\*\*@127.0.0.1:\d+/\w+ cannot be reac'
        f'hed: .*{message}',
      ) as caught:
        event_log.EventLog.open(url)
      self.assertNotIn('\n', str(caught.exception))
      self._assert_hides_password(caught.exception)

  @pytest.mark.fault
  def test_urls_that_are_not_valid(self):
    for url in (
      self._url(port='se/cr'),
      self._url(password=postgresql.PASSWORD, port='wrong'),
      f'mysql://tester:{postgresql.QUOTED_PASSWORD}@host/database',
      f'postgresql://tester:{postgresql.QUOTED_PASSWORD}@host/database',
      f'postgresql+psycopg://tester:{postgresql.QUOTED_PASSWORD}@host',
      f'tester:{postgresql.QUOTED_PASSWORD}@postgresql+psycopg://host',
    ):
      with self.assertRaisesRegex(
        errors.UsageError, 'the URL of the study is not valid; write postgresql'
      ) as caught:
        event_log.EventLog.open(url)
      self._assert_hides_password(caught.exception)
      self.assertIsNone(caught.exception.__context__)

  @pytest.mark.fault
  def test_no_message_has_a_password(self):
    log = self._create(3)
    options = event_log.EventLog.open(self._url(more='?password=se%2Fcr%40et'))
    with postgresql.connect(self.port, self.database) as connection:
      connection.execute('DROP TABLE acme_cbo_events')
    for operation in (
      log.read,
      options.read,
      self._open,
      self._create,
      lambda: log.append('observed', {}, 3),
      lambda: event_log.EventLog.open(self._url(more='?no=se%2Fcr')),
      lambda: self._open(name='-'),
    ):
      with self.assertRaises((errors.UsageError, errors.PeerError)) as caught:
        operation()
      self.assertNotIn('\n', str(caught.exception))
      self._assert_hides_password(caught.exception)
    for shown in (repr(log), log.where, options.where):
      self.assertNotIn('cr', shown.replace('acme_cbo', ''))

  @pytest.mark.fault
  @parameterized.parameters((b'COMMIT', 2), (b'INSERT', 1))
  def test_a_retry_after_a_lost_connection_is_stored_once(self, word, stored):
    log = self._create()
    id = uuid.uuid4().hex
    with _proxy(self.port) as (port, words):
      through_proxy = event_log.EventLog.open(self._url(port))
      words.append(word)
      with self.assertRaisesRegex(
        errors.PeerError,
        'cannot be reached: .*; if an event was being appended, append it '
        'again with the same id',
      ) as caught:
        through_proxy.append('observed', {'y': 1}, 1, id=id)
    self._assert_hides_password(caught.exception)
    self.assertLen(log.read(), stored)
    event = log.append('observed', {'y': 1}, 1, id=id)
    self.assertEqual((event.number, event.id), (1, id))
    self.assertEqual(log.read(0), [event])

  @pytest.mark.fault
  def test_a_transaction_of_somebody_else_is_waited_for(self):
    log = self._create()
    with postgresql.connect(
      self.port, self.database, autocommit=False
    ) as connection:
      connection.execute(
        "INSERT INTO acme_cbo_events SELECT study, 1, 'observed', payload, "
        'time, md5(id), blob FROM acme_cbo_events'
      )
      short = ("SET LOCAL lock_timeout = '200ms'",)
      with (
        mock.patch.object(databases.PostgreSQL, 'before_write', short),
        self.assertRaisesRegex(
          errors.UsageError, 'cannot be used: it is locked: somebody has been'
        ),
      ):
        log.append('observed', {}, 1)
      timer = threading.Timer(0.2, connection.commit)
      timer.start()
      with self.assertRaises(databases.Conflict):
        log.append('observed', {}, 1)
      timer.join()
    self.assertLen(log.read(), 2)


del _LogTest  # It is no test of its own.


class PackArrayTest(parameterized.TestCase):
  @parameterized.parameters((()), (0,), (3,), (2, 3), (0, 4), (2, 3, 4))
  def test_every_bit_comes_back(self, *shape):
    size = int(np.prod(shape))
    array = np.random.default_rng(0).normal(size=shape) * 10.0**300
    special = [np.nan, -np.inf, -0.0, 5e-324]
    np.ravel(array)[: min(size, 4)] = special[:size]
    blob = events_lib.pack_array(array)
    unpacked = events_lib.unpack_array(blob, shape)
    self.assertEqual(unpacked.dtype, np.float64)
    self.assertEqual(unpacked.shape, shape)
    self.assertEqual(unpacked.tobytes(), array.tobytes())
    other = np.load(io.BytesIO(zlib.decompress(blob)), allow_pickle=False)
    np.testing.assert_array_equal(other, array)

  def test_any_layout_in_memory(self):
    array = np.arange(12.0).reshape(3, 4)
    for view in (array.T, array[::2, ::-1], np.asfortranarray(array)):
      unpacked = events_lib.unpack_array(
        events_lib.pack_array(view), view.shape
      )
      np.testing.assert_array_equal(unpacked, view)

  @parameterized.parameters(
    (np.zeros(3, np.float32), 'of float32 cannot be stored'),
    (np.zeros(3, '>f8'), 'of >f8 cannot be stored'),
    (np.array([None]), 'of object cannot be stored'),
    (np.broadcast_to(0.0, 10**7 + 1), 'of 10,000,001 numbers of float64 cann'),
  )
  def test_other_arrays_are_not_stored(self, array, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      events_lib.pack_array(array)

  def test_the_largest_array_fits_into_an_event(self):
    self.assertLess(
      8 * events_lib._MAX_NUMBERS * 1.001 + 1000, events_lib._MAX_BLOB_BYTES
    )

  @pytest.mark.fault
  def test_damaged_blobs(self):
    def packed(array, **kwargs):
      buffer = io.BytesIO()
      np.save(buffer, array, **kwargs)
      return buffer.getvalue()

    good = packed(np.arange(3.0))
    code = good.replace(b'(3,)', b'f()').replace(b'False', b'[][0]')
    bomb = zlib.compress(good[:128] + bytes(10**7))
    for blob, message in (
      (b'', 'is no array of float64'),
      (b'abc', 'Error -3'),
      (zlib.compress(b'abc'), 'is no array of float64'),
      (zlib.compress(good)[:-1], 'is shorter or longer'),
      (zlib.compress(good)[:-20], 'array'),
      (zlib.compress(good) + b'a', 'is shorter or longer'),
      (zlib.compress(good + b'a'), 'is shorter or longer'),
      (zlib.compress(good[:-1]), 'is shorter or longer'),
      (zlib.compress(code), 'is no array of float64'),
      (zlib.compress(packed(np.arange(3))), 'is no array of float64'),
      (zlib.compress(packed(np.array([None] * 3))), 'is no array of float64'),
      (zlib.compress(packed(np.arange(4.0))), r'has the shape \(4,\); it has'),
      (zlib.compress(packed(np.zeros((3, 1)))), r'has the shape \(3, 1\)'),
      (bomb, 'is shorter or longer'),
    ):
      with self.assertRaisesRegex(errors.UsageError, message):
        events_lib.unpack_array(blob, (3,))
    tracemalloc.start()
    self.addCleanup(tracemalloc.stop)
    with self.assertRaises(errors.UsageError):
      events_lib.unpack_array(bomb, (3,))
    self.assertLess(tracemalloc.get_traced_memory()[1], 10**6)
    for shape in ((-3,), (10**9,), (10**9, 10**9)):
      with self.assertRaisesRegex(errors.UsageError, 'cannot have the shape'):
        events_lib.unpack_array(bomb, shape)


if __name__ == '__main__':
  absltest.main()
