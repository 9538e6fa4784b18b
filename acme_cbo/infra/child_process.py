"""Processes that end with the process that started them, however it ends."""

import multiprocessing
from multiprocessing import connection as connections
import os
import threading


class ExitWithParent:
  """While it is entered, the end of the parent ends this process too.

  For processes of `multiprocessing` that were spawned.
  """

  def __enter__(self) -> None:
    """Starts to watch."""
    reader, self._writer = multiprocessing.Pipe(duplex=False)
    self._thread = threading.Thread(target=self._watch, args=(reader,))
    self._thread.start()

  def __exit__(self, *unused: object) -> None:
    """Stops watching."""
    self._writer.close()
    self._thread.join()

  def _watch(self, reader: connections.Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    if parent.sentinel in connections.wait([parent.sentinel, reader]):
      os._exit(1)
