"""Proof of two processes that both know the secret of their run.

The worker sends a nonce, process 0 its own nonce and proof, the worker its
proof: HMACs of both nonces, under the secret. Neither side reads anything else
of the other before. A proof names the role of its sender, so that none can be
sent back to its sender. Messages after the proofs are neither signed nor
encrypted.
"""

from collections.abc import Generator
import hmac
import os
import queue
import secrets
import socket
import sys
import threading
import time
from typing import Any

from acme_cbo.infra import errors
from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import connection

# Environment variable with the secret.
VARIABLE = 'ACME_CBO_SECRET'
# Seconds that a peer has to prove the secret.
SECONDS = 5.0
# Anyone can ask process 0 for a proof, and try short secrets on it.
_MIN_LENGTH = 32
_BYTES = 32
# Both nonce and proof in hexadecimal digits, and a space.
_MAX_LINE = 4 * _BYTES + 1
# Seconds between two looks at the connections that have not proved it yet.
_POLL_SECONDS = 0.05
# Number of such connections, beside those of the workers.
_MAX_STRANGERS = 64
# Number of refused connections that are reported.
_MAX_WARNINGS = 20
_HOW_TO = (
  f'export {VARIABLE}=$(openssl rand -hex 32), with the same value for all '
  'processes on all machines'
)


class WrongSecretError(Exception):
  """The peer does not know the secret, or is another program."""


def new_secret() -> str:
  """Returns a random secret."""
  return secrets.token_hex(32)


def secret_from_environment() -> str:
  """Returns the secret that the user has set.

  Raises:
    errors.UsageError: it is not set, or too short.
  """
  secret = os.environ.get(VARIABLE)
  if secret is None:
    raise errors.UsageError(
      'processes that train together have to know a common secret; set it: '
      f'{_HOW_TO}'
    )
  if len(secret) < _MIN_LENGTH:
    raise errors.UsageError(
      f'{VARIABLE} has {len(secret)} characters, which can be guessed; it '
      f'needs at least {_MIN_LENGTH}: {_HOW_TO}'
    )
  return secret


def accept(
  server: socket.socket, secret: str, size: int, deadline: float
) -> Generator[tuple[connection.Connection, dict[str, Any]], None, None]:
  """Yields connections of clients that have proved the secret.

  A thread of its own greets each client, so that a silent one does not delay
  the others. If there are too many, the oldest is refused. Those still without
  proof are closed with this generator.

  Args:
    server: socket that listens; its timeout is changed.
    secret: secret of the run.
    size: number of processes of the run.
    deadline: value of `time.monotonic()` at which this ends.

  Yields:
    Connection, and the first object that the client has sent.
  """
  results: queue.SimpleQueue[
    tuple[connection.Connection, dict[str, Any] | str]
  ] = queue.SimpleQueue()
  # Decisions are taken in this thread alone: whoever is removed from here has
  # been refused, also if the proof comes in the meantime.
  pending: dict[connection.Connection, tuple[threading.Thread, str]] = {}
  num_refused = 0
  server.settimeout(_POLL_SECONDS)

  def drop(peer: connection.Connection) -> None:
    thread, _ = pending.pop(peer)
    peer.shut_down()
    thread.join()
    peer.close()

  try:
    while time.monotonic() < deadline:
      while not results.empty():
        peer, result = results.get()
        if peer not in pending:
          continue
        _, address = pending.pop(peer)
        if isinstance(result, dict):
          yield peer, result
        else:
          peer.close()
          num_refused += 1
          _warn(address, result, num_refused)
      try:
        client, address = server.accept()
      except (TimeoutError, ConnectionError):  # No client, or it has left.
        continue
      if len(pending) == size + _MAX_STRANGERS:
        drop(next(iter(pending)))
      peer = connection.Connection(client)
      thread = threading.Thread(
        target=_greet, args=(peer, secret, results), name='handshake'
      )
      pending[peer] = thread, addresses.to_text(*address[:2])
      thread.start()
  finally:
    for peer in [*pending]:
      drop(peer)


def _greet(
  peer: connection.Connection,
  secret: str,
  results: queue.SimpleQueue[
    tuple[connection.Connection, dict[str, Any] | str]
  ],
) -> None:
  """Puts a client's first object into a queue, or the reason to refuse it."""
  deadline = time.monotonic() + SECONDS
  result: dict[str, Any] | str
  try:
    _prove_to_worker(peer, secret, deadline)
    result = peer.receive_first(deadline)
  except (OSError, WrongSecretError) as error:
    result = connection.printable(error)
  results.put((peer, result))


def _warn(address: str, reason: str, number: int) -> None:
  """Reports a refused client, unless there were many before."""
  if number <= _MAX_WARNINGS:
    print(
      f'warning: refused a connection from {address}, which {reason}; all '
      f'processes of this run need the same {VARIABLE}'
      f'{"; later ones are not reported" if number == _MAX_WARNINGS else ""}',
      file=sys.stderr,
      flush=True,
    )


def _prove_to_worker(
  peer: connection.Connection, secret: str, deadline: float
) -> None:
  """Exchanges proofs with a client, as process 0.

  Args:
    peer: connection of the client.
    secret: secret of the run.
    deadline: value of `time.monotonic()` by which the client has to be done.

  Raises:
    OSError: the client disconnected, or was too slow.
    WrongSecretError: the client does not know the secret.
  """
  (theirs,) = _receive(peer, 1, deadline)
  own = secrets.token_bytes(_BYTES)
  _send(peer, own, _proof(secret, 'process 0', theirs, own))
  (proof,) = _receive(peer, 1, deadline)
  _check(proof, _proof(secret, 'worker', theirs, own))


def prove_to_coordinator(peer: connection.Connection, secret: str) -> None:
  """Exchanges proofs with process 0, as a worker.

  Args:
    peer: connection to process 0.
    secret: secret of the run.

  Raises:
    OSError: process 0 disconnected, or was too slow.
    WrongSecretError: process 0 does not know the secret.
  """
  deadline = time.monotonic() + SECONDS
  own = secrets.token_bytes(_BYTES)
  _send(peer, own)
  theirs, proof = _receive(peer, 2, deadline)
  _check(proof, _proof(secret, 'process 0', own, theirs))
  _send(peer, _proof(secret, 'worker', own, theirs))


def _proof(
  secret: str, role: str, workers_nonce: bytes, coordinators_nonce: bytes
) -> bytes:
  """Returns the proof that a process with a role knows the secret."""
  message = role.encode() + workers_nonce + coordinators_nonce
  return hmac.digest(os.fsencode(secret), message, 'sha256')


def _check(proof: bytes, expected: bytes) -> None:
  if not hmac.compare_digest(proof, expected):
    raise WrongSecretError('has another secret')


def _send(peer: connection.Connection, *values: bytes) -> None:
  peer.socket.sendall(b' '.join(x.hex().encode() for x in values) + b'\n')


def _receive(
  peer: connection.Connection, number: int, deadline: float
) -> list[bytes]:
  """Returns the values of a line, each of `_BYTES` bytes."""
  line = peer.receive_line(deadline, _MAX_LINE)
  try:
    values = [bytes.fromhex(word.decode('ascii')) for word in line.split(b' ')]
  except ValueError:
    values = []
  if [len(value) for value in values] != [_BYTES] * number:
    raise WrongSecretError('sent no proof of the secret')
  return values
