"""One of several processes that join as for a training, for tests.

python tests/runtimes/member.py ID NUMBER PORT WHAT: process 0 commands steps
until WHAT happens; the others print what they are told. Arrays are exchanged by
nobody, so that jax need not start.
"""

import os
import pathlib
import signal
import sys
import time
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from acme_cbo.infra import errors
from acme_cbo.infra import provenance
from acme_cbo.runtimes import connection
from acme_cbo.runtimes import process_group

_STEPS = 4


def lead(group: process_group.SingleProcess, what: str) -> None:
  """Commands steps."""
  group.on_peer_loss(lambda reason: print(f'written: {reason}', flush=True))
  if what == '0 hangs':
    time.sleep(60)
  for step in range(10**6 if what[0] != '-' else _STEPS):
    group.command({'step': step})
    if step == _STEPS:
      happen(what, 0)
    if step > _STEPS and what == '1 stops unread':
      assert isinstance(group, process_group.Coordinator)
      group.request(1, {'step': step}, bytes(1 << 26))
    if number := group.received_signal():
      raise errors.Interrupted(number, f'after update {step}')
    with group.explain_failures():
      time.sleep(0.02)
      if step > _STEPS and what == '1 resets':
        raise ValueError('Connection reset by peer')


def follow(group: process_group.Worker, number: int, what: str) -> None:
  """Does what it is told."""
  is_told = what == '1 was told to end' and number == 1
  for command in group.commands(lambda: signal.SIGTERM if is_told else None):
    print(command, flush=True)
    if command['step'] == _STEPS:
      happen(what, number)
  print('left', flush=True)


def happen(what: str, number: int) -> None:
  """What is to happen to this process, if it is meant."""
  who, _, event = what.partition(' ')
  if who != str(number):
    return
  if event in ('dies', 'hangs', 'resets'):
    os.kill(os.getpid(), signal.SIGKILL)
  elif event.startswith('stops'):
    os.kill(os.getpid(), signal.SIGSTOP)
  elif event == 'raises':
    raise KeyError('broken on purpose')
  elif event == 'is interrupted':
    raise errors.Interrupted(signal.SIGTERM, 'on purpose')


def main() -> None:
  """Joins, and says how it ended."""
  number, size, port = map(int, sys.argv[1:4])
  what = sys.argv[4]
  place = process_group.ProcessSpec('127.0.0.1', port, size, number, 1.5)
  config = {
    'seed': int(number == 1 and what == '1 has another config'),
    'runtime': {'kind': 'mesh'},
  }
  with (
    mock.patch.object(process_group, '_join_xla'),
    mock.patch.object(process_group, '_BEAT_SECONDS', 0.2),
    mock.patch.object(connection, 'SILENCE_SECONDS', 1.0),
    mock.patch.object(process_group, '_GRACE_SECONDS', 0.5),
    mock.patch.object(
      provenance, 'digest', lambda: str(what == f'{number} is another program')
    ),
  ):
    try:
      with process_group.join(place, config) as group:
        if isinstance(group, process_group.Worker):
          if what == '0 hangs' and number == 1:
            happen('1 dies', 1)
          follow(group, number, what)
        else:
          lead(group, what)
    except (errors.PeerError, errors.UsageError) as error:
      sys.exit(f'error: {error}')
    except errors.Interrupted as error:
      print(f'interrupted: {error}')
      sys.exit(128 + error.signal)


if __name__ == '__main__':
  main()
