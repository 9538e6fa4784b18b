"""Child processes: their exit with their parent, and their import path."""

import multiprocessing
from multiprocessing import connection as connections
import os
import threading

from acme_cbo.infra import provenance


class ExitWithParent:
  """Context manager that exits this process when its parent exits.

  It is for processes that `multiprocessing` spawned.
  """

  def __enter__(self) -> None:
    """Starts the thread that waits for the parent."""
    reader, self._writer = multiprocessing.Pipe(duplex=False)
    self._thread = threading.Thread(
      target=self._wait_for_parent, args=(reader,)
    )
    self._thread.start()

  def __exit__(self, *unused: object) -> None:
    """Stops that thread."""
    self._writer.close()
    self._thread.join()

  def _wait_for_parent(self, reader: connections.Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    if parent.sentinel in connections.wait([parent.sentinel, reader]):
      os._exit(1)


def python_path() -> str:
  """Returns the PYTHONPATH with which a new process imports this package."""
  paths = [str(provenance.PACKAGE.parent), os.environ.get('PYTHONPATH', '')]
  return os.pathsep.join(filter(None, paths))
