"""Several processes, of one machine or of many, that train as one.

Process 0 leads: it alone reads and writes files, and tells the others when to
make an update. What they tell each other goes over a connection of each to
process 0, beside those of XLA, over which arrays go: XLA's end the process
without a word of who is gone, or wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import json
import os
import queue
import select
import socket
import sys
import threading
import time
from typing import Any, NamedTuple, NoReturn

from acme_cbo.infra import errors
from acme_cbo.infra import extras
from acme_cbo.infra import provenance
from acme_cbo.runtimes import connection

# Between two signs of life.
_BEAT_SECONDS = 2.0
# What the leader may take to write down what it has once a process is lost.
_GRACE_SECONDS = 10.0
# How long it waits for the cause of a failed exchange, and for others to leave.
_CAUSE_SECONDS = 5.0
_LEAVE_SECONDS = 30.0
# Between two looks at what may have happened meanwhile.
_POLL_SECONDS = 0.2
# How long somebody may be at the door without a word.
_HELLO_SECONDS = 5.0
# What XLA raises where an exchange of arrays fails.
_OF_EXCHANGES = (ValueError, RuntimeError)


class ProcessSpec(NamedTuple):
  """One process among those that train together.

  Attributes:
    host: where process 0 can be reached.
    port: that it listens at.
    num_processes: of all.
    process_id: of this one, from 0.
    patience: seconds until all have to be there.
  """

  host: str
  port: int
  num_processes: int
  process_id: int
  patience: float = 300.0


def spec_from_flags(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> ProcessSpec | None:
  """What the flags of those names say; None where they say nothing.

  Args:
    coordinator: 'host:port' of process 0, or 'slurm': all three as srun has it.
    num_processes: of all.
    process_id: of this one.

  Raises:
    errors.UsageError: one is missing, or not as it should be.
  """
  if coordinator == 'slurm':
    if num_processes is not None or process_id is not None:
      raise errors.UsageError(
        '--coordinator=slurm takes --num_processes and --process_id from srun; '
        'leave them out'
      )
    return _slurm()
  if (coordinator, num_processes, process_id) == (None, None, None):
    return None
  if coordinator is None or num_processes is None or process_id is None:
    raise errors.UsageError(
      'several processes need --coordinator=host:port, --num_processes and '
      '--process_id, all three'
    )
  host, _, port = coordinator.rpartition(':')
  host = host.removeprefix('[').removesuffix(']')
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise errors.UsageError(
      f'--coordinator={coordinator} is no address; give one that all can '
      "reach, as 10.0.0.1:8476, or 'slurm'"
    )
  if num_processes < 1 or not 0 <= process_id < num_processes:
    raise errors.UsageError(
      f'--process_id is {process_id} and --num_processes {num_processes}; '
      'processes are counted from 0 to one less than their number'
    )
  return ProcessSpec(host, int(port), num_processes, process_id)


def _slurm() -> ProcessSpec:
  """As the variables say that srun sets."""
  if 'SLURM_PROCID' not in os.environ:
    raise errors.UsageError(
      '--coordinator=slurm: this was not started by srun, which sets '
      'SLURM_PROCID'
    )
  slurm = extras.import_module(
    'submitit.slurm.slurm', 'slurm', '--coordinator=slurm'
  )
  job = slurm.SlurmJobEnvironment()
  # All of a job know its number, and two jobs may meet on a machine.
  port = 20000 + int(job.job_id.partition('_')[0]) % 20000
  return ProcessSpec(job.hostnames[0], port, job.num_tasks, job.global_rank)


class SingleProcess:
  """One process, which leads nobody; see `Leader`."""

  size = 1

  def command(self, what: dict[str, Any]) -> None:
    """Tells nobody."""

  def received_signal(self) -> int | None:
    """None: no other process has been told to end."""
    return None

  def barrier(self) -> None:
    """Nobody is waited for."""

  def on_peer_loss(self, write: Callable[[str], Any]) -> None:
    """Nobody can be lost."""

  def explain_failures(self) -> contextlib.AbstractContextManager[None]:
    """No failure is that of another process."""
    return contextlib.nullcontext()


class Coordinator(SingleProcess):
  """Process 0: what it knows of the others, and tells them.

  Attributes:
    size: number of processes.
    config: of the run.
  """

  def __init__(self, place: ProcessSpec, welcome: dict[str, Any]):
    """Waits for the others.

    Args:
      place: of this process.
      welcome: what each is told as it comes.

    Raises:
      errors.PeerError: one has not come in time.
      errors.UsageError: nobody can be waited for at this address.
    """
    self.size, self.config = place.num_processes, welcome['config']
    self._signal: int | None = None
    self._lost: str | None = None
    self._is_lost, self._left = threading.Event(), threading.Event()
    self._write: Callable[[str], Any] = lambda reason: None
    self._peers: dict[int, connection.Connection] = {}
    self._names = {0: _name(0)}
    self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {
      i: queue.SimpleQueue() for i in range(1, self.size)
    }
    try:
      with _listening(place.port) as server:
        self._gather(server, place)
    except BaseException as error:
      self._tell({'lost': _failure(self._names[0], error)})
      for line in self._peers.values():
        line.close()
      raise
    self._tell({'name': self._names[0], **welcome})
    self._wake_reader, self._wake_writer = socket.socketpair()
    self._thread = threading.Thread(target=self._watch, name='processes')
    self._thread.start()

  def command(self, what: dict[str, Any]) -> None:
    """Tells all others what to do next."""
    self._check()
    self._tell(what)

  def request(
    self, number: int, what: dict[str, Any], payload: bytes
  ) -> dict[str, Any]:
    """Tells one process something, and waits for its answer.

    Raises:
      errors.PeerError: a process is lost.
    """
    self._check()
    self._peers[number].send(what, payload)
    return self._answer(number)

  def barrier(self) -> None:
    """Waits until all are where this one is.

    What exchanges arrays waits for half a minute and no longer.

    Raises:
      errors.PeerError: a process is lost.
    """
    for number in self._peers:
      self._answer(number)
    self.command({'met': True})

  def received_signal(self) -> int | None:
    """The signal that another process was told to end by, if one was.

    Raises:
      errors.PeerError: one is lost.
    """
    self._check()
    return self._signal

  def on_peer_loss(self, write: Callable[[str], Any]) -> None:
    """What is to be written before the end, where nothing else could be."""
    self._write = write

  @contextlib.contextmanager
  def explain_failures(self) -> Iterator[None]:
    """Around what exchanges arrays: it may fail as another process is lost.

    Raises:
      errors.PeerError: one is, and which.
    """
    try:
      yield
    except _OF_EXCHANGES as error:
      if not isinstance(error, errors.UsageError) and self._is_lost.wait(
        _CAUSE_SECONDS
      ):
        raise errors.PeerError(self._lost) from error
      raise

  def leave(
    self, error: BaseException | None, leave_xla: Callable[[], Any]
  ) -> None:
    """Tells the others how it ends and waits until they have left.

    Args:
      error: that it ends with, if so.
      leave_xla: ends the exchange of arrays, which others cannot outlive.
    """
    self._left.set()
    if isinstance(error, errors.Interrupted):
      self._tell({'interrupted': error.signal})
    elif error is not None:
      self._tell({'lost': self._lost or _failure(self._names[0], error)})
    else:
      self._tell({'end': True})
    self._thread.join(_LEAVE_SECONDS)
    self._wake_writer.close()
    self._thread.join()
    self._wake_reader.close()
    for line in self._peers.values():
      line.close()
    if self._lost is None:
      leave_xla()

  def _gather(self, server: socket.socket, place: ProcessSpec) -> None:
    """Takes in the others, each by its number."""
    deadline = time.monotonic() + place.patience
    while missing := {*range(1, self.size)} - self._peers.keys():
      left = deadline - time.monotonic()
      if left <= 0:
        numbers = errors.format_list(
          [*map(str, sorted(missing))], 5, 'more', ', '
        )
        raise errors.PeerError(
          f'process {numbers} of {self.size} has not come to {place.host}:'
          f'{place.port} within {place.patience:.0f} s'
        )
      server.settimeout(left)
      try:
        line = connection.Connection(server.accept()[0])
      except TimeoutError:
        continue
      try:
        number, size, name = _introduced(line.first(_HELLO_SECONDS))
      except (OSError, ValueError, KeyError, TypeError, RecursionError):
        line.close()  # Somebody else was at the door.
        continue
      if size != self.size or number not in missing:
        line.send(
          {
            'lost': f'process 0 leads {self.size} processes and waits for '
            f'{sorted(missing)}; it cannot take in {number} of {size}'
          }
        )
        line.close()
        continue
      self._peers[number], self._names[number] = line, name

  def _answer(self, number: int) -> dict[str, Any]:
    answer = self._answers[number].get()
    if answer is None:
      raise errors.PeerError(self._lost)
    return answer

  def _tell(self, what: dict[str, Any], but: int = 0) -> None:
    for number, line in self._peers.items():
      if number != but:
        line.send(what)

  def _check(self) -> None:
    if self._lost is not None:
      raise errors.PeerError(self._lost)

  def _watch(self) -> None:
    """Hears the others, and finds out who is gone."""
    there = dict(self._peers)
    beaten = 0.0
    while there:
      ready, _, _ = select.select(
        [self._wake_reader, *(line.socket for line in there.values())],
        [],
        [],
        _BEAT_SECONDS / 2,
      )
      if self._wake_reader in ready:
        return
      if time.monotonic() - beaten > _BEAT_SECONDS:
        for line in there.values():
          line.beat()
        beaten = time.monotonic()
      for number, line in [*there.items()]:
        said, cause = line.heard(line.socket in ready)
        for what in said:
          self._signal = what.get('signal', self._signal)
          if 'left' in what:
            there.pop(number, None)
          if 'answer' in what:
            self._answers[number].put(what)
          cause = what.get('failed', cause)
        if cause and number in there:
          there.pop(number)
          if not self._left.is_set():
            self._lose(number, cause)

  def _lose(self, number: int, cause: str) -> None:
    if self._lost is not None:
      return  # The first is the cause, all others follow from it.
    self._lost = f'{self._names[number]} {cause}'
    self._tell({'lost': self._lost}, but=number)
    self._is_lost.set()
    for answers in self._answers.values():
      answers.put(None)

    def end():
      if not self._left.wait(_GRACE_SECONDS):
        try:
          self._write(f'PeerError: {self._lost}')
        finally:
          _end(self._lost)

    threading.Thread(target=end, name='end').start()


class Worker:
  """Any other process: it does what process 0 tells it.

  It ends at once, with one line that says why, where process 0 is gone or knows
  that another one is: there is nothing that it could lose.

  Attributes:
    size: number of processes.
    config: of process 0.
    welcome: all that it told as this one came.
  """

  def __init__(self, place: ProcessSpec):
    """Comes to process 0.

    Args:
      place: of this process.

    Raises:
      errors.PeerError: process 0 cannot be found in time.
    """
    self.size = place.num_processes
    self._line = _come(place)
    self._line.send(
      {
        'process': place.process_id,
        'of': place.num_processes,
        'name': _name(place.process_id),
      }
    )
    try:
      self.welcome = self._line.first(place.patience)
    except (OSError, ValueError) as error:
      raise errors.PeerError(
        f'process 0 at {place.host}:{place.port} has ended, or does not wait '
        'for this process'
      ) from error
    if lost := self.welcome.get('lost'):
      raise errors.PeerError(lost)
    self._leader, self.config = self.welcome['name'], self.welcome['config']
    self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    self._left = threading.Event()
    self._thread = threading.Thread(target=self._watch, name='processes')
    self._thread.start()

  def commands(
    self, interrupted: Callable[[], int | None]
  ) -> Iterator[dict[str, Any]]:
    """What process 0 wants done, until it ends.

    Args:
      interrupted: asked for the number of a signal that came in, if one did;
        process 0 is told, and ends the run for all.

    Raises:
      errors.Interrupted: it was interrupted.
    """
    told = False
    while True:
      if not told and (signal := interrupted()):
        self._line.send({'signal': signal})
        told = True
      try:
        what = self._commands.get(timeout=_POLL_SECONDS)
      except queue.Empty:
        continue
      if 'end' in what:
        return
      if 'interrupted' in what:
        raise errors.Interrupted(what['interrupted'], 'with process 0')
      yield what

  def barrier(self) -> None:
    """Waits until all are where this one is.

    Raises:
      errors.Interrupted: the run was.
      errors.PeerError: process 0 has ended.
    """
    self.reply({}, b'')
    for what in self.commands(lambda: None):
      if 'met' in what:
        return
    raise errors.PeerError(f'{self._leader} has ended')

  def reply(self, what: dict[str, Any], payload: bytes) -> None:
    """What process 0 asked for."""
    self._line.send({**what, 'answer': True}, payload)

  @contextlib.contextmanager
  def explain_failures(self) -> Iterator[None]:
    """Around what exchanges arrays: the watch ends a process that is left."""
    try:
      yield
    except _OF_EXCHANGES as error:
      if not isinstance(error, errors.UsageError):
        self._left.wait(_CAUSE_SECONDS)
      raise

  def leave(
    self, error: BaseException | None, leave_xla: Callable[[], Any]
  ) -> None:
    """Tells process 0 how it ends.

    Args:
      error: that it ends with, if so.
      leave_xla: ends the exchange of arrays, as long as process 0 is there.
    """
    if error is None or isinstance(error, errors.Interrupted):
      leave_xla()
      self._line.send({'left': True})
    else:
      self._line.send(
        {'failed': f'has failed: {type(error).__name__}: {error}'}
      )
      leave_xla()
    self._left.set()
    self._thread.join()
    self._line.close()

  def _watch(self) -> None:
    beaten = 0.0
    while not self._left.is_set():
      ready, _, _ = select.select([self._line.socket], [], [], _POLL_SECONDS)
      if time.monotonic() - beaten > _BEAT_SECONDS:
        self._line.beat()
        beaten = time.monotonic()
      said, cause = self._line.heard(bool(ready))
      for what in said:
        if 'lost' in what:
          _end(what['lost'])
        self._commands.put(what)
        if 'end' in what or 'interrupted' in what:
          self._left.wait()
          return
      if cause:
        _end(f'{self._leader} {cause}')


SINGLE_PROCESS = SingleProcess()
Group = SingleProcess | Worker


@contextlib.contextmanager
def join(
  place: ProcessSpec | None, config: dict[str, Any] | None
) -> Iterator[Group]:
  """Joins the processes that train together, until the body ends.

  Args:
    place: of this process; None where it is alone.
    config: of the run; None is whatever process 0 has.

  Yields:
    What this process is among them.

  Raises:
    errors.PeerError: another process has not come, or is lost.
    errors.UsageError: they are different programs, were started with different
      configs, or there is nobody to wait for.
  """
  if place is None:
    yield SINGLE_PROCESS
    return
  group: Coordinator | Worker
  if place.process_id == 0:
    port = free_port()
    assert config is not None
    welcome = {'config': config, 'port': port, 'installed': provenance.digest()}
    group = Coordinator(place, welcome)
  else:
    group = Worker(place)
    port = group.welcome['port']
  leave_xla = _nothing
  try:
    if isinstance(group, Worker):
      _check_same_program(group.welcome['installed'])
      if config is not None:
        _check_same(config, group.config)
    if group.config['runtime']['kind'] == 'mesh':
      leave_xla = _join_xla(place, port)
    yield group
  except BaseException as error:
    group.leave(error, leave_xla)
    raise
  group.leave(None, leave_xla)


def _nothing() -> None:
  pass


def _join_xla(place: ProcessSpec, port: int) -> Callable[[], None]:
  """Lets the devices of all processes be those of one; returns what ends it."""
  import jax  # noqa: PLC0415 - what comes before needs none of it.

  # Whom the others lose, and what is done then, is decided here.
  jax.config.update('jax_enable_recoverability', True)
  jax.config.update('jax_enable_preemption_service', False)
  jax.distributed.initialize(
    f'{place.host}:{port}',
    place.num_processes,
    place.process_id,
    initialization_timeout=int(place.patience),
    heartbeat_timeout_seconds=int(2 * connection.SILENCE_SECONDS),
  )
  return jax.distributed.shutdown


def _check_same_program(leading: str) -> None:
  if provenance.digest() != leading:
    raise errors.UsageError(
      'this process is another program than process 0: the sources of '
      'acme_cbo, or the versions of Python and of what is installed, differ; '
      'install the same on all machines'
    )


def _check_same(own: dict[str, Any], leading: dict[str, Any]) -> None:
  own = json.loads(json.dumps(own))
  if own != leading:
    names = [
      name for name in own | leading if own.get(name) != leading.get(name)
    ]
    raise errors.UsageError(
      'this process was started with another config than process 0: '
      f'{", ".join(names)} differ; start all with the same flags'
    )


def _introduced(said: dict[str, Any]) -> tuple[int, int, str]:
  """Number, number of all and name of a process that has come."""
  number, size, name = (said[x] for x in ('process', 'of', 'name'))
  if type(number) is not int:
    raise TypeError(f'{number!r} is no number of a process')
  return number, size, name


def _name(process_id: int) -> str:
  return f'process {process_id} ({socket.gethostname()}, pid {os.getpid()})'


def _failure(name: str, error: BaseException) -> str:
  return f'{name} has failed: {type(error).__name__}: {error}'


def _end(reason: str | None) -> NoReturn:
  """Ends the process without waiting for what is compiled or exchanged."""
  print(f'error: {reason}', file=sys.stderr, flush=True)
  os._exit(1)


def free_port() -> int:
  """One that nobody listens at, at this moment."""
  with _listening(0) as server:
    return server.getsockname()[1]


def _listening(port: int) -> socket.socket:
  try:
    return socket.create_server(
      ('', port), family=socket.AF_INET6, dualstack_ipv6=True
    )
  except ValueError:  # A machine without IPv6.
    return socket.create_server(('', port))
  except OSError as error:
    raise errors.UsageError(
      f'--coordinator: port {port} of this machine cannot be listened at: '
      f'{error.strerror}; choose another'
    ) from error


def _come(place: ProcessSpec) -> connection.Connection:
  """A line to process 0, which may be there later than this process."""
  deadline = time.monotonic() + place.patience
  while True:
    try:
      return connection.Connection(
        socket.create_connection((place.host, place.port), 5)
      )
    except OSError as error:
      if time.monotonic() > deadline:
        raise errors.PeerError(
          f'process 0 cannot be reached at {place.host}:{place.port} within '
          f'{place.patience:.0f} s: {error.strerror or error}'
        ) from error
      time.sleep(0.2)
