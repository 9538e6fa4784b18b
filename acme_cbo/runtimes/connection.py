"""A connection of two processes that tells which of them is gone."""

from collections.abc import Iterator
import json
import socket
import threading
import time
from typing import Any

# Without a sign of life for so long, whoever is at the other end is lost.
SILENCE_SECONDS = 30.0


class Connection:
  """JSON objects, one in a line, over a connection.

  Where an object has `bytes`, so many follow its line; they are its `payload`.
  Any thread may send, one at a time; one thread hears.
  """

  def __init__(self, connection: socket.socket):
    self.socket = connection
    self.socket.settimeout(SILENCE_SECONDS)
    self._content = bytearray()
    self._header: dict[str, Any] | None = None
    self._said: list[dict[str, Any]] = []
    self._heard = time.monotonic()
    self._sending = threading.Lock()
    self._is_torn = False

  def send(self, what: dict[str, Any], payload: bytes | None = None) -> None:
    """Sends one object, and bytes with it.

    Where that fails nothing can be sent any more, as half of it may have been.
    Nothing is raised: who hears at this end finds out who is gone.
    """
    with self._sending:
      self._send(what, payload)

  def beat(self) -> None:
    """Sends a sign of life, unless something else is being sent."""
    if self._sending.acquire(blocking=False):
      try:
        self._send({}, None)
      finally:
        self._sending.release()

  def _send(self, what, payload) -> None:
    if self._is_torn:
      return
    if payload is not None:
      what = {**what, 'bytes': len(payload)}
    try:
      self.socket.sendall(json.dumps(what).encode() + b'\n')
      if payload is not None:
        self.socket.sendall(payload)
    except OSError:
      self._is_torn = True

  def first(self, seconds: float) -> dict[str, Any]:
    """Waits for the first object that is not a sign of life."""
    deadline = time.monotonic() + seconds
    while True:
      self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
      said, cause = self.heard(True)
      self.socket.settimeout(SILENCE_SECONDS)
      if said:
        first, *self._said = said
        return first
      if cause:
        raise ConnectionError(cause)

  def heard(self, is_ready: bool) -> tuple[list[dict[str, Any]], str]:
    """What has come in but signs of life; why nothing more will, if so."""
    before, self._said = self._said, []
    if not is_ready and before:
      return before, ''
    if not is_ready:
      silent = time.monotonic() - self._heard
      lost = silent > SILENCE_SECONDS
      return [], f'was not heard of for {silent:.0f} s' if lost else ''
    self._heard = time.monotonic()
    try:
      received = self.socket.recv(1 << 20)
    except TimeoutError:
      raise
    except OSError:  # It was reset.
      received = b''
    self._content += received
    said = [*before, *filter(None, self._parsed())]
    return said, '' if received else 'has ended without a word'

  def close(self) -> None:
    """Closes the connection."""
    self.socket.close()

  def _parsed(self) -> Iterator[dict[str, Any]]:
    """Whole objects of what has come in; what is left stays."""
    while True:
      if self._header is None:
        line, newline, rest = self._content.partition(b'\n')
        if not newline:
          return
        self._header, self._content = dict(json.loads(line)), rest
      size = self._header.get('bytes', 0)
      if len(self._content) < size:
        return
      header, self._header = self._header, None
      if 'bytes' in header:
        header['payload'] = bytes(self._content[:size])
        del self._content[:size]
      yield header
