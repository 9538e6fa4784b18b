"""Child processes: their end with their parent, and their import path."""

import multiprocessing
from multiprocessing import connection as connections
import os
import threading

from acme_cbo.infra import provenance


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


def python_path() -> str:
  """Returns the PYTHONPATH with which a new process imports this package."""
  paths = [str(provenance.PACKAGE.parent), os.environ.get('PYTHONPATH', '')]
  return os.pathsep.join(filter(None, paths))
