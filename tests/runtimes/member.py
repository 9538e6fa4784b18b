"""One process of a group that joins as for a training, for tests.

python tests/runtimes/member.py ID SIZE PORT EVENT: process 0 commands steps
until EVENT happens; the others print their commands. '- alone' is no event, but
a short time to join. No arrays are exchanged, so that jax is not needed.
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


def coordinate(group: process_group.SingleProcess, event: str) -> None:
  """Commands steps."""
  group.on_peer_loss(lambda reason: print(f'written: {reason}', flush=True))
  if event == '0 hangs':
    time.sleep(60)
  for step in range(10**6 if event[0] != '-' else _STEPS):
    group.command({'step': step})
    if step == _STEPS:
      trigger(event, 0)
    if step > _STEPS and event == '1 stops unread':
      assert isinstance(group, process_group.Coordinator)
      group.request(1, step, bytes(1 << 26), 0)
    if number := group.received_signal():
      raise errors.Interrupted(number, f'after update {step}')
    with group.explain_failures():
      time.sleep(0.02)
      if step > _STEPS and event == '1 resets':
        raise ValueError('Connection reset by peer')


def run_worker(
  group: process_group.Worker, process_id: int, event: str
) -> None:
  """Prints commands."""
  is_signaled = event == '1 receives a signal' and process_id == 1
  for command in group.commands(
    lambda: signal.SIGTERM if is_signaled else None
  ):
    print(command, flush=True)
    if command['step'] == _STEPS:
      trigger(event, process_id)
  print('left', flush=True)


def trigger(event: str, process_id: int) -> None:
  """Triggers an event such as '1 dies' if it names this process."""
  target, _, event = event.partition(' ')
  if target != str(process_id):
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
  """Joins the group and prints how it ended."""
  process_id, size, port = map(int, sys.argv[1:4])
  event = sys.argv[4]
  join_seconds = 1.5 if event == '- alone' else 30.0
  # A process that is not stopped may be slow, on a machine with other work.
  silence_seconds = 1.0 if 'stops' in event else 10.0
  spec = process_group.ProcessSpec(
    '127.0.0.1', port, size, process_id, 'secret', join_seconds
  )
  config = {
    'seed': int(process_id == 1 and event == '1 has another config'),
    'runtime': {'kind': 'mesh'},
  }
  with (
    mock.patch.object(process_group, '_join_xla'),
    mock.patch.object(process_group, '_BEAT_SECONDS', 0.2),
    mock.patch.object(connection, 'SILENCE_SECONDS', silence_seconds),
    mock.patch.object(process_group, '_GRACE_SECONDS', 0.5),
    mock.patch.object(
      provenance,
      'digest',
      lambda: str(event == f'{process_id} is another program'),
    ),
  ):
    try:
      with process_group.join(spec, config) as group:
        if isinstance(group, process_group.Worker):
          if event == '0 hangs' and process_id == 1:
            trigger('1 dies', 1)
          run_worker(group, process_id, event)
        else:
          coordinate(group, event)
    except (errors.PeerError, errors.UsageError) as error:
      sys.exit(f'error: {error}')
    except errors.Interrupted as error:
      print(f'interrupted: {error}')
      sys.exit(128 + error.signal)


if __name__ == '__main__':
  main()
