"""Message connection of two processes that detects the loss of the peer."""

import json
import socket
import threading
import time
from typing import Any

from acme_cbo.infra import text as text_lib

# A peer that has sent nothing for this many seconds counts as lost.
SILENCE_SECONDS = 30.0
# Largest number of bytes of a line; a line holds a config at most.
MAX_LINE = 1 << 20
# Largest number of bytes of a payload whose size the receiver cannot know.
MAX_PAYLOAD = 1 << 30
# Largest number of characters of a peer's text in a message to the user.
_MAX_TEXT = 500


def printable(text: Any) -> str:
  """Returns text of a peer in a form that is safe to print.

  Args:
    text: value that a peer sent, usually a string.

  Returns:
    The text without control characters, which are escaped, and cut off if it is
    long.
  """
  return text_lib.printable(str(text)[:_MAX_TEXT], keep='')


class Connection:
  """Connection that carries JSON objects, one per line, with optional payloads.

  If an object has `bytes`, that many raw bytes follow its line; they are
  received as its `payload`. Any thread may send, one at a time; only one thread
  may receive.

  Attributes:
    socket: connected socket.
    max_payload: largest number of bytes of a payload to receive.
  """

  def __init__(self, connection: socket.socket, max_payload: int = 0):
    self.socket = connection
    self.max_payload = max_payload
    self.socket.settimeout(SILENCE_SECONDS)
    self._buffer = bytearray()
    self._header: dict[str, Any] | None = None
    self._last_received = self._message_begin = time.monotonic()
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

  def receive_line(self, deadline: float, limit: int = MAX_LINE) -> bytes:
    """Waits for a whole line.

    Args:
      deadline: value of `time.monotonic()` by which the line has to be
        complete.
      limit: largest number of bytes of the line.

    Returns:
      The line, without its newline.

    Raises:
      ConnectionError: the peer has disconnected, or the line is too long; the
        message continues a sentence that begins with the peer's name.
      TimeoutError: the line was not complete in time; likewise.
    """
    try:
      while (line := self._take_line(limit)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
          raise TimeoutError
        self.socket.settimeout(left)
        received = self.socket.recv(limit + 1)
        if not received:
          raise ConnectionError('disconnected unexpectedly')
        self._buffer += received
    except TimeoutError:
      raise TimeoutError('did not send a whole line in time') from None
    except ConnectionResetError:
      raise ConnectionError('disconnected unexpectedly') from None
    finally:
      self.socket.settimeout(SILENCE_SECONDS)
    return line

  def receive_first(self, deadline: float) -> dict[str, Any]:
    """Waits for the first object, which has no payload.

    Args:
      deadline: see `receive_line`.

    Returns:
      The object.

    Raises:
      ConnectionError: see `receive_line`, or the line is not a JSON object.
      TimeoutError: see `receive_line`.
    """
    message = _parse_object(self.receive_line(deadline))
    self._last_received = self._message_begin = time.monotonic()
    return message

  def receive(self, is_ready: bool) -> tuple[list[dict[str, Any]], str]:
    """Receives the available objects, without heartbeats.

    Args:
      is_ready: whether the socket is readable; if so, this reads from it.

    Returns:
      Objects, and the reason if the peer is lost, else ''. The reason continues
      a sentence that begins with the peer's name.
    """
    now, cause = time.monotonic(), ''
    if is_ready:
      try:
        received = self.socket.recv(1 << 20)
      except OSError:  # The peer reset the connection.
        received = b''
      self._buffer += received
      self._last_received = now
      if not received:
        cause = 'disconnected unexpectedly'
    elif now - self._last_received > SILENCE_SECONDS:
      cause = f'sent nothing for {now - self._last_received:.0f} s'
    messages: list[dict[str, Any]] = []
    try:
      while (message := self._take_message()) is not None:
        self._message_begin = now
        if message:
          messages.append(message)
    except ConnectionError as error:
      return messages, str(error)
    if not self._buffer and self._header is None:
      self._message_begin = now
    # The sender gives up line and payload after `SILENCE_SECONDS` each.
    elif not cause and now - self._message_begin > 2 * SILENCE_SECONDS:
      cause = f'did not complete a message within {2 * SILENCE_SECONDS:.0f} s'
    return messages, cause

  def shut_down(self) -> None:
    """Makes a thread that receives find the peer disconnected."""
    try:
      self.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
      self._is_broken = True  # The peer has disconnected already.

  def close(self) -> None:
    """Closes the connection."""
    self.socket.close()

  def _take_line(self, limit: int) -> bytes | None:
    """Removes a line from the buffer; returns None if it is not complete."""
    end = self._buffer.find(b'\n', 0, limit + 1)
    if end >= 0:
      line = bytes(self._buffer[:end])
      del self._buffer[: end + 1]
      return line
    if len(self._buffer) > limit:
      raise ConnectionError(f'sent a line of more than {limit:,} bytes')
    return None

  def _take_message(self) -> dict[str, Any] | None:
    """Removes an object from the buffer; returns None if it is incomplete."""
    if self._header is None:
      line = self._take_line(MAX_LINE)
      if line is None:
        return None
      self._header = _parse_object(line)
      self._check_size(self._header.get('bytes', 0))
    size = self._header.get('bytes', 0)
    if len(self._buffer) < size:
      return None
    header, self._header = self._header, None
    if 'bytes' in header:
      header['payload'] = bytes(self._buffer[:size])
      del self._buffer[:size]
    return header

  def _check_size(self, size: Any) -> None:
    """Checks the size of a payload before any of it is stored."""
    if type(size) is not int or not 0 <= size <= self.max_payload:
      raise ConnectionError(
        f'announced {printable(size)} bytes where at most '
        f'{self.max_payload:,} are expected'
      )


def _parse_object(line: bytes) -> dict[str, Any]:
  """Returns the JSON object of a line.

  Args:
    line: line that a peer sent.

  Raises:
    ConnectionError: the line is not a JSON object of the protocol.
  """
  try:
    message = json.loads(line)
  except (ValueError, RecursionError):
    message = None
  # The payload follows the line; it is never in it.
  if not isinstance(message, dict) or 'payload' in message:
    raise ConnectionError(f'sent an invalid message: {line[:60]!r}')
  return message
