"""Message connection of two processes that detects the loss of the peer."""

from collections.abc import Iterator
import json
import socket
import threading
import time
from typing import Any

# A peer that has sent nothing for this many seconds counts as lost.
SILENCE_SECONDS = 30.0


class Connection:
  """Connection that carries JSON objects, one per line, with optional payloads.

  If an object has `bytes`, that many raw bytes follow its line; they are
  received as its `payload`. Any thread may send, one at a time; only one thread
  may receive.

  Attributes:
    socket: connected socket.
  """

  def __init__(self, connection: socket.socket):
    self.socket = connection
    self.socket.settimeout(SILENCE_SECONDS)
    self._buffer = bytearray()
    self._header: dict[str, Any] | None = None
    self._pending: list[dict[str, Any]] = []
    self._last_received = time.monotonic()
    self._send_lock = threading.Lock()
    self._is_broken = False

  def send(self, message: dict[str, Any], payload: bytes | None = None) -> None:
    """Sends one object, with an optional payload.

    If that fails, nothing more is sent, because the message may have been cut
    off. No exception is raised: the receiving thread detects the loss.

    Args:
      message: JSON object.
      payload: raw bytes to send with it.
    """
    with self._send_lock:
      self._send(message, payload)

  def send_heartbeat(self) -> None:
    """Sends an empty object, unless another thread is sending."""
    if self._send_lock.acquire(blocking=False):
      try:
        self._send({}, None)
      finally:
        self._send_lock.release()

  def _send(self, message: dict[str, Any], payload: bytes | None) -> None:
    if self._is_broken:
      return
    if payload is not None:
      message = {**message, 'bytes': len(payload)}
    try:
      self.socket.sendall(json.dumps(message).encode() + b'\n')
      if payload is not None:
        self.socket.sendall(payload)
    except OSError:
      self._is_broken = True

  def receive_first(self, seconds: float) -> dict[str, Any]:
    """Waits for the first object that is not a heartbeat.

    Args:
      seconds: timeout in seconds.

    Returns:
      The object.

    Raises:
      ConnectionError: the peer has disconnected.
      TimeoutError: nothing was received in time.
    """
    deadline = time.monotonic() + seconds
    while True:
      self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
      messages, cause = self.receive(True)
      self.socket.settimeout(SILENCE_SECONDS)
      if messages:
        first, *self._pending = messages
        return first
      if cause:
        raise ConnectionError(cause)

  def receive(self, is_ready: bool) -> tuple[list[dict[str, Any]], str]:
    """Receives the available objects, without heartbeats.

    Args:
      is_ready: whether the socket is readable; if so, this reads from it.

    Returns:
      Objects, and the reason if the peer is lost, else ''.

    Raises:
      TimeoutError: the socket was not readable within its timeout.
    """
    pending, self._pending = self._pending, []
    if not is_ready and pending:
      return pending, ''
    if not is_ready:
      silence = time.monotonic() - self._last_received
      is_lost = silence > SILENCE_SECONDS
      return [], f'sent nothing for {silence:.0f} s' if is_lost else ''
    self._last_received = time.monotonic()
    try:
      received = self.socket.recv(1 << 20)
    except TimeoutError:
      raise
    except OSError:  # The peer reset the connection.
      received = b''
    self._buffer += received
    messages = [*pending, *filter(None, self._parse())]
    return messages, '' if received else 'disconnected unexpectedly'

  def close(self) -> None:
    """Closes the connection."""
    self.socket.close()

  def _parse(self) -> Iterator[dict[str, Any]]:
    """Removes complete objects from the buffer and yields them."""
    while True:
      if self._header is None:
        line, newline, rest = self._buffer.partition(b'\n')
        if not newline:
          return
        self._header, self._buffer = dict(json.loads(line)), rest
      size = self._header.get('bytes', 0)
      if len(self._buffer) < size:
        return
      header, self._header = self._header, None
      if 'bytes' in header:
        header['payload'] = bytes(self._buffer[:size])
        del self._buffer[:size]
      yield header
