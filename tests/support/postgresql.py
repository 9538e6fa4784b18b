"""A PostgreSQL server of a test's own."""

import contextlib
import importlib.util
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Any
import unittest

HAS_PSYCOPG = importlib.util.find_spec('psycopg') is not None
if HAS_PSYCOPG:
  import psycopg

# Its second form is as URLs have it.
PASSWORD, QUOTED_PASSWORD = 'se/cr@et', 'se%2Fcr%40et'


def url(port: int, database: str, password: str = QUOTED_PASSWORD) -> str:
  """Returns the URL of a study in a database of the server."""
  return f'postgresql+psycopg://tester:{password}@127.0.0.1:{port}/{database}'


@contextlib.contextmanager
def server():
  """Starts a PostgreSQL server; yields its port.

  It takes a password from everybody, and stops when this process has ended,
  however it ends.
  """
  found = [*map(str, pathlib.Path('/').glob('usr/lib/postgresql/*/bin/initdb'))]
  path = os.pathsep.join(
    [*(os.path.dirname(x) for x in found), os.environ['PATH']]
  )
  initdb, postgres = (
    shutil.which(x, path=path) for x in ('initdb', 'postgres')
  )
  if not initdb or not postgres:
    raise unittest.SkipTest('needs the server of PostgreSQL')
  with tempfile.TemporaryDirectory() as name, socket.socket() as free:
    folder = pathlib.Path(name)
    password = folder / 'password'
    password.write_text(PASSWORD)
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # Whom the programs refuse to serve.
      nobody = pwd.getpwnam('nobody')
      user = dict(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
      for path in (folder, password):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    # Without a locale, the encoding is SQL_ASCII, the least helpful one.
    subprocess.run(
      (
        *(initdb, '--pgdata', folder / 'data', '--no-sync', '--no-locale'),
        *('--auth=scram-sha-256', '--username=tester', '--pwfile', password),
      ),
      check=True,
      capture_output=True,
      cwd=folder,
      **user,
    )
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
    free.close()
    server = subprocess.Popen(
      (
        *('sh', '-c', '"$@" </dev/null & read _; kill -QUIT $!; wait $!', '-'),
        *(postgres, '-D', folder / 'data', '-p', str(port), '-F'),
        *('-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='),
        *('-c', 'logging_collector=on', '-c', f'log_directory={folder}'),
      ),
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      cwd=folder,
      **user,
    )
    try:
      _wait_for(port, folder)
      yield port
    finally:
      server.communicate(timeout=30)  # Closes the standard input.


def _wait_for(port, folder):
  """Waits until a server accepts connections."""
  for _ in range(300):
    try:
      connect(port).close()
    except psycopg.OperationalError:
      time.sleep(0.1)
    else:
      return
  raise AssertionError([path.read_text() for path in folder.glob('*.log')])


def connect(port, database='postgres', autocommit=True) -> Any:
  """Returns a connection of the user `tester`."""
  return psycopg.connect(
    host='127.0.0.1',
    port=port,
    user='tester',
    password=PASSWORD,
    dbname=database,
    client_encoding='UTF8',
    autocommit=autocommit,
  )
