"""Groups of processes, on one or several machines, that train together.

Process 0 is the coordinator: it alone reads and writes files, and commands the
updates of the workers. Commands use one connection of each worker to process 0;
both sides first prove that they know the secret of the run. XLA exchanges
arrays over connections of its own, which do not report a lost process: they end
this process without naming it, or wait forever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import json
import os
import queue
import select
import signal as signals
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from acme_cbo.infra import errors
from acme_cbo.infra import extras
from acme_cbo.infra import provenance
from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import connection
from acme_cbo.runtimes import handshake

# Seconds between two heartbeats.
_BEAT_SECONDS = 2.0
# Seconds that process 0 has to save its state once a worker is lost.
_GRACE_SECONDS = 10.0
# Seconds to wait for the cause of a failed exchange, and for workers to leave.
_CAUSE_SECONDS = 5.0
_LEAVE_SECONDS = 30.0
# Seconds between two checks for signals.
_POLL_SECONDS = 0.2
# Exceptions of XLA if an exchange of arrays fails.
_EXCHANGE_ERRORS = (ValueError, RuntimeError)
# Reply of a worker at a barrier; other replies name their update.
_BARRIER = 'barrier'


@dataclasses.dataclass(frozen=True)
class ProcessSpec:
  """Specification of one process of a group.

  Attributes:
    host: host of process 0, and the only address on which it listens.
    port: port on which process 0 listens.
    num_processes: number of processes of the group.
    process_id: number of this process, from 0.
    secret: secret that only the processes of the group know.
    join_seconds: number of seconds to wait for all processes to join.
  """

  host: str
  port: int
  num_processes: int
  process_id: int
  secret: str = dataclasses.field(repr=False)
  join_seconds: float = 300.0


def spec_from_flags(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> ProcessSpec | None:
  """Returns the process that the flags of these names specify.

  Args:
    coordinator: 'host:port' of process 0, or 'slurm' to take all three values
      from srun.
    num_processes: number of processes.
    process_id: number of this process.

  Returns:
    The `ProcessSpec`, or None if no flag is set.

  Raises:
    errors.UsageError: a flag is missing or invalid, or the environment has no
      secret.
  """
  if coordinator == 'slurm':
    if num_processes is not None or process_id is not None:
      raise errors.UsageError(
        '--coordinator=slurm takes --num_processes and --process_id from srun; '
        'omit them'
      )
    return _slurm()
  if (coordinator, num_processes, process_id) == (None, None, None):
    return None
  if coordinator is None or num_processes is None or process_id is None:
    raise errors.UsageError(
      'several processes need all three of --coordinator=host:port, '
      '--num_processes and --process_id'
    )
  try:
    host, port = addresses.parse(coordinator)
  except ValueError as error:
    raise errors.UsageError(
      f'--coordinator={coordinator} is not an address; give one that all '
      "processes can reach, such as 10.0.0.1:8476, or 'slurm'"
    ) from error
  if num_processes < 1 or not 0 <= process_id < num_processes:
    raise errors.UsageError(
      f'--process_id is {process_id} and --num_processes is {num_processes}; '
      'processes are numbered from 0 to --num_processes - 1'
    )
  return ProcessSpec(
    host,
    port,
    num_processes,
    process_id,
    handshake.secret_from_environment(),
  )


def _slurm() -> ProcessSpec:
  """Returns the process that the environment variables of srun specify."""
  if 'SLURM_PROCID' not in os.environ:
    raise errors.UsageError(
      '--coordinator=slurm: this process was not started by srun, which '
      'sets SLURM_PROCID'
    )
  slurm = extras.import_module('submitit.slurm.slurm', '--coordinator=slurm')
  job = slurm.SlurmJobEnvironment()
  # All processes know the job number; two jobs may share a machine.
  port = 20000 + int(job.job_id.partition('_')[0]) % 20000
  return ProcessSpec(
    job.hostnames[0],
    port,
    job.num_tasks,
    job.global_rank,
    handshake.secret_from_environment(),
  )


class SingleProcess:
  """Group of this process only; same interface as `Coordinator`.

  Attributes:
    size: number of processes.
  """

  size = 1

  def command(self, message: dict[str, Any]) -> None:
    """Does nothing: there are no workers."""

  def received_signal(self) -> int | None:
    """Returns None: no worker can receive a signal."""
    return None

  def barrier(self) -> None:
    """Returns at once: there are no workers."""

  def on_peer_loss(self, write: Callable[[str], Any]) -> None:
    """Does nothing: no worker can be lost."""

  def explain_failures(self) -> contextlib.AbstractContextManager[None]:
    """Returns a context manager that does nothing."""
    return contextlib.nullcontext()


class Coordinator(SingleProcess):
  """Process 0 of a group; it commands the workers.

  Attributes:
    size: number of processes.
    config: config of the run.
    names: names of the processes that have joined, by number.
  """

  def __init__(self, spec: ProcessSpec, welcome: dict[str, Any]):
    """Waits until all workers have joined.

    Args:
      spec: specification of this process.
      welcome: message for every worker that joins.

    Raises:
      errors.PeerError: a worker has not joined in time.
      errors.UsageError: this process cannot listen on its port.
    """
    self.size, self.config = spec.num_processes, welcome['config']
    self._signal: int | None = None
    self._lost: str | None = None
    self._has_monitor_failed = False
    self._is_lost, self._is_leaving = threading.Event(), threading.Event()
    self._write: Callable[[str], Any] = lambda reason: None
    self._peers: dict[int, connection.Connection] = {}
    self.names = {0: _name(0)}
    self._replies: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {
      i: queue.SimpleQueue() for i in range(1, self.size)
    }
    try:
      with addresses.listen(spec.host, spec.port) as server:
        self._accept_workers(server, spec)
    except BaseException as error:
      self._broadcast({'lost': f'{self.names[0]} {_failure(error)}'})
      for peer in self._peers.values():
        peer.close()
      raise
    self._broadcast({'name': self.names[0], **welcome})
    self._wake_reader, self._wake_writer = socket.socketpair()
    self._thread = threading.Thread(target=self._monitor, name='processes')
    self._thread.start()

  def command(self, message: dict[str, Any]) -> None:
    """Sends a command to all workers.

    Args:
      message: JSON object that `Worker.commands` yields.

    Raises:
      errors.PeerError: a worker is lost.
    """
    self._check_peers()
    self._broadcast(message)

  def request(
    self, process_id: int, update: int, payload: bytes, reply_bytes: int
  ) -> dict[str, Any]:
    """Asks one worker for its part of an update and waits for its reply.

    Args:
      process_id: number of the worker.
      update: number of the update; `Worker.commands` yields it as `update`.
      payload: raw bytes to send with it.
      reply_bytes: number of bytes of the reply's payload.

    Returns:
      Message of `Worker.reply`.

    Raises:
      errors.PeerError: a worker is lost, or this one sent another reply.
    """
    self._check_peers()
    peer = self._peers[process_id]
    peer.max_payload = reply_bytes
    peer.send({'update': update}, payload)
    reply = self._wait_for_reply(process_id, update)
    if len(reply['payload']) != reply_bytes:
      raise errors.PeerError(
        f'{self.names[process_id]} sent {len(reply["payload"]):,} bytes for '
        f'update {update}, which takes {reply_bytes:,}'
      )
    return reply

  def barrier(self) -> None:
    """Waits until all workers have called `Worker.barrier`.

    To be called before an exchange of arrays, which itself times out after half
    a minute.

    Raises:
      errors.PeerError: a worker is lost.
    """
    for process_id in self._peers:
      self._wait_for_reply(process_id, _BARRIER)
    self.command({'met': True})

  def received_signal(self) -> int | None:
    """Returns the number of a signal that a worker received, or None.

    Raises:
      errors.PeerError: a worker is lost.
    """
    self._check_peers()
    return self._signal

  def on_peer_loss(self, write: Callable[[str], Any]) -> None:
    """Sets the function that records the loss of a worker.

    It is called if this process does not end by itself after a loss.

    Args:
      write: function of the reason.
    """
    self._write = write

  @contextlib.contextmanager
  def explain_failures(self) -> Iterator[None]:
    """Context manager that turns failures of exchanges into their cause.

    Raises:
      errors.PeerError: an exchange of arrays failed because a worker is lost.
    """
    try:
      yield
    except _EXCHANGE_ERRORS as error:
      if not isinstance(error, errors.UsageError) and self._is_lost.wait(
        _CAUSE_SECONDS
      ):
        raise errors.PeerError(self._lost) from error
      raise

  def leave(
    self, error: BaseException | None, leave_xla: Callable[[], Any]
  ) -> None:
    """Ends the workers and waits until they have left.

    Args:
      error: exception that ends the run, or None.
      leave_xla: function that disconnects XLA; workers must do so first.
    """
    self._is_leaving.set()
    if isinstance(error, errors.Interrupted):
      self._broadcast({'interrupted': error.signal})
    elif error is not None:
      message = self._lost or f'{self.names[0]} {_failure(error)}'
      self._broadcast({'lost': message})
    else:
      self._broadcast({'end': True})
    self._thread.join(_LEAVE_SECONDS)
    self._wake_writer.close()
    self._thread.join()
    self._wake_reader.close()
    for peer in self._peers.values():
      peer.close()
    if self._lost is None:
      leave_xla()
    if error is None and self._has_monitor_failed:
      raise errors.PeerError(self._lost)

  def _accept_workers(self, server: socket.socket, spec: ProcessSpec) -> None:
    """Accepts connections until all workers have joined."""
    deadline = time.monotonic() + spec.join_seconds
    with contextlib.closing(
      handshake.accept(server, spec.secret, self.size, deadline)
    ) as accepted:
      while missing := {*range(1, self.size)} - self._peers.keys():
        peer, message = next(accepted, (None, {}))
        if peer is None:
          raise errors.PeerError(_not_joined_message(missing, server, spec))
        process_id, size, name = _parse_introduction(message)
        if size == self.size and process_id in missing:
          self._peers[process_id], self.names[process_id] = peer, name
          continue
        peer.send(
          {
            'lost': f'process 0 has {self.size} processes and waits for '
            f'{sorted(missing)}; it cannot accept {process_id} of {size}'
          }
        )
        peer.close()

  def _wait_for_reply(
    self, process_id: int, answers: int | str
  ) -> dict[str, Any]:
    """Waits for the reply of a worker to a request or a barrier."""
    reply = self._replies[process_id].get()
    if reply is None:
      raise errors.PeerError(self._lost)
    if reply['answer'] != answers:
      raise errors.PeerError(
        f'{self.names[process_id]} sent its reply to '
        f'{connection.printable(reply["answer"])} where that to {answers} was '
        'expected'
      )
    return reply

  def _broadcast(self, message: dict[str, Any], exclude: int = 0) -> None:
    for process_id, peer in self._peers.items():
      if process_id != exclude:
        peer.send(message)

  def _check_peers(self) -> None:
    if self._lost is not None:
      raise errors.PeerError(self._lost)

  def _monitor(self) -> None:
    """Main function of the thread that receives messages and detects losses."""
    try:
      self._watch()
    except BaseException as error:  # noqa: BLE001 - the main thread raises it.
      traceback.print_exc()
      self._has_monitor_failed = True
      self._end_all(_monitor_failure(self.names[0], error))

  def _watch(self) -> None:
    """Receives messages and detects losses until all workers have left."""
    active = dict(self._peers)
    last_heartbeat = 0.0
    while active:
      ready, _, _ = select.select(
        [self._wake_reader, *(peer.socket for peer in active.values())],
        [],
        [],
        _BEAT_SECONDS / 2,
      )
      if self._wake_reader in ready:
        return
      if time.monotonic() - last_heartbeat > _BEAT_SECONDS:
        for peer in active.values():
          peer.send_heartbeat()
        last_heartbeat = time.monotonic()
      for process_id, peer in [*active.items()]:
        messages, cause = peer.receive(peer.socket in ready)
        for message in messages:
          if invalid := _invalid_part(message):
            cause = f'sent an invalid message: {invalid}'
            break
          self._signal = message.get('signal', self._signal)
          if 'left' in message:
            active.pop(process_id, None)
          if 'answer' in message:
            self._replies[process_id].put(message)
          if 'failed' in message:
            cause = connection.printable(message['failed'])
        if cause and process_id in active:
          active.pop(process_id)
          if not self._is_leaving.is_set():
            self._end_all(f'{self.names[process_id]} {cause}', process_id)

  def _end_all(self, reason: str, exclude: int = 0) -> None:
    """Ends all processes.

    Args:
      reason: message that says which process is lost, and why.
      exclude: number of the lost process.
    """
    if self._lost is not None:
      return  # Later losses are consequences of the first one.
    self._lost = reason
    self._broadcast({'lost': reason}, exclude)
    self._is_lost.set()
    for replies in self._replies.values():
      replies.put(None)

    def exit_after_grace():
      if not self._is_leaving.wait(_GRACE_SECONDS):
        try:
          self._write(f'PeerError: {self._lost}')
        finally:
          _exit(self._lost)

    threading.Thread(target=exit_after_grace, name='end').start()


class Worker:
  """Process other than process 0; it carries out the commands of process 0.

  It exits at once, with one line that gives the reason, if process 0 is lost or
  reports a loss. A worker has no state to save.

  Attributes:
    size: number of processes.
    config: config of process 0.
    coordinator: name of process 0.
    welcome: message that process 0 sent when this process joined.
  """

  def __init__(self, spec: ProcessSpec):
    """Connects to process 0.

    Args:
      spec: specification of this process.

    Raises:
      errors.PeerError: process 0 cannot be reached in time.
    """
    self.size = spec.num_processes
    self._connection = _connect(spec)
    self._connection.send(
      {
        'process': spec.process_id,
        'of': spec.num_processes,
        'name': _name(spec.process_id),
      }
    )
    try:
      self.welcome = _receive_welcome(self._connection, spec)
    except BaseException:
      self._connection.close()
      raise
    self.coordinator = connection.printable(self.welcome['name'])
    self.config = self.welcome['config']
    self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    self._has_left = threading.Event()
    self._thread = threading.Thread(target=self._monitor, name='processes')
    self._thread.start()

  def commands(
    self, get_signal: Callable[[], int | None]
  ) -> Iterator[dict[str, Any]]:
    """Yields the commands of process 0 until it ends the run.

    Args:
      get_signal: function that returns the number of a received signal, or
        None. The signal is sent to process 0, which then ends the run of all
        processes.

    Yields:
      Messages of `Coordinator.command` and `Coordinator.request`.

    Raises:
      errors.Interrupted: a signal ended the run.
    """
    has_sent_signal = False
    while True:
      if not has_sent_signal and (signal := get_signal()):
        self._connection.send({'signal': signal})
        has_sent_signal = True
      try:
        message = self._commands.get(timeout=_POLL_SECONDS)
      except queue.Empty:
        continue
      if 'end' in message:
        return
      if 'interrupted' in message:
        raise errors.Interrupted(message['interrupted'], 'with process 0')
      yield message

  def barrier(self) -> None:
    """Waits until all processes have called `barrier`.

    Raises:
      errors.Interrupted: a signal ended the run.
      errors.PeerError: process 0 has ended.
    """
    self.reply(_BARRIER, {}, b'')
    for message in self.commands(lambda: None):
      if 'met' in message:
        return
    raise errors.PeerError(f'{self.coordinator} has ended')

  def reply(
    self, answers: int | str, message: dict[str, Any], payload: bytes
  ) -> None:
    """Sends the reply to a request of process 0.

    Args:
      answers: number of the requested update.
      message: JSON object.
      payload: raw bytes to send with it.
    """
    self._connection.send({**message, 'answer': answers}, payload)

  @contextlib.contextmanager
  def explain_failures(self) -> Iterator[None]:
    """Context manager that waits for the cause of a failed exchange.

    The thread that monitors process 0 exits this process with the cause.
    """
    try:
      yield
    except _EXCHANGE_ERRORS as error:
      if not isinstance(error, errors.UsageError):
        self._has_left.wait(_CAUSE_SECONDS)
      raise

  def leave(
    self, error: BaseException | None, leave_xla: Callable[[], Any]
  ) -> None:
    """Reports the end of this process to process 0.

    Args:
      error: exception that ends this process, or None.
      leave_xla: function that disconnects XLA, while process 0 still runs.
    """
    if error is None or isinstance(error, errors.Interrupted):
      leave_xla()
      self._connection.send({'left': True})
    else:
      self._connection.send({'failed': _failure(error)})
      leave_xla()
    self._has_left.set()
    self._thread.join()
    self._connection.close()

  def _monitor(self) -> None:
    """Main function of the thread that receives commands and detects losses."""
    try:
      self._watch()
    except BaseException as error:  # noqa: BLE001 - it ends the process.
      traceback.print_exc()
      _exit(_monitor_failure('this process', error))

  def _watch(self) -> None:
    """Receives commands and detects losses until this process has left."""
    last_heartbeat = 0.0
    while not self._has_left.is_set():
      ready, _, _ = select.select(
        [self._connection.socket], [], [], _POLL_SECONDS
      )
      if time.monotonic() - last_heartbeat > _BEAT_SECONDS:
        self._connection.send_heartbeat()
        last_heartbeat = time.monotonic()
      messages, cause = self._connection.receive(bool(ready))
      for message in messages:
        if invalid := _invalid_part(message):
          cause = f'sent an invalid message: {invalid}'
          break
        if 'lost' in message:
          _exit(connection.printable(message['lost']))
        self._commands.put(message)
        if 'end' in message or 'interrupted' in message:
          self._has_left.wait()
          return
      if cause:
        _exit(f'{self.coordinator} {cause}')


SINGLE_PROCESS = SingleProcess()
Group = SingleProcess | Worker


@contextlib.contextmanager
def join(
  spec: ProcessSpec | None, config: dict[str, Any] | None
) -> Iterator[Group]:
  """Joins a group of processes while the body runs.

  Args:
    spec: specification of this process; None for a single process.
    config: config of the run; None takes that of process 0.

  Yields:
    The group as this process sees it.

  Raises:
    errors.PeerError: another process has not joined, or is lost.
    errors.UsageError: the processes are different programs or have different
      configs, or process 0 cannot listen on its port.
  """
  if spec is None:
    yield SINGLE_PROCESS
    return
  group: Coordinator | Worker
  if spec.process_id == 0:
    port = addresses.free_port(spec.host)
    assert config is not None
    welcome = {'config': config, 'port': port, 'installed': provenance.digest()}
    group = Coordinator(spec, welcome)
  else:
    group = Worker(spec)
    port = group.welcome['port']
  leave_xla = _do_nothing
  try:
    if isinstance(group, Worker):
      _check_same_program(group.welcome['installed'])
      if config is not None:
        _check_same_config(config, group.config)
    if group.config['runtime']['kind'] == 'mesh':
      leave_xla = _join_xla(spec, port)
    yield group
  except BaseException as error:
    group.leave(error, leave_xla)
    raise
  group.leave(None, leave_xla)


def _do_nothing() -> None:
  pass


def _join_xla(spec: ProcessSpec, port: int) -> Callable[[], None]:
  """Connects the devices of all processes; returns a function to disconnect."""
  import jax  # noqa: PLC0415 - joining needs no jax.

  # This module detects and handles losses instead of jax.
  jax.config.update('jax_enable_recoverability', True)
  jax.config.update('jax_enable_preemption_service', False)
  jax.distributed.initialize(
    addresses.to_text(spec.host, port),
    spec.num_processes,
    spec.process_id,
    initialization_timeout=int(spec.join_seconds),
    heartbeat_timeout_seconds=int(2 * connection.SILENCE_SECONDS),
    # By default it listens at all addresses of this machine.
    coordinator_bind_address=(
      addresses.to_text(addresses.resolve(spec.host), port)
      if spec.process_id == 0
      else None
    ),
  )
  return jax.distributed.shutdown


def _check_same_program(expected: str) -> None:
  if provenance.digest() != expected:
    raise errors.UsageError(
      'this process runs a different program than process 0: the sources of '
      'acme_cbo, Python or the installed packages differ; install the same '
      'versions on all machines'
    )


def _check_same_config(own: dict[str, Any], expected: dict[str, Any]) -> None:
  own = json.loads(json.dumps(own))
  if own != expected:
    names = [
      name for name in own | expected if own.get(name) != expected.get(name)
    ]
    raise errors.UsageError(
      'this process has a different config than process 0: '
      f'{", ".join(names)} differ; start all processes with the same flags'
    )


def _parse_introduction(message: dict[str, Any]) -> tuple[Any, Any, str]:
  """Returns the process id, group size and name that a worker sent."""
  process_id, size, name = (message.get(x) for x in ('process', 'of', 'name'))
  if type(process_id) is not int or type(size) is not int:
    process_id, size = map(connection.printable, (process_id, size))
  return process_id, size, connection.printable(name)


def _invalid_part(message: dict[str, Any]) -> str:
  """Returns the part of a message that its receiver cannot use, or ''."""
  for key in ('signal', 'interrupted'):
    number = message.get(key, signals.SIGTERM)
    if not isinstance(number, int) or number not in signals.valid_signals():
      return f'{key} {connection.printable(number)}'
  for key in ('answer', 'update'):
    if key in message and 'payload' not in message:
      return f'{key} without payload'
  return ''


def _not_joined_message(
  missing: set[int], server: socket.socket, spec: ProcessSpec
) -> str:
  numbers = errors.format_list([*map(str, sorted(missing))], 5, 'more', ', ')
  message = (
    f'process {numbers} of {spec.num_processes} did not connect to '
    f'{addresses.to_text(spec.host, spec.port)} within '
    f'{spec.join_seconds:.0f} s'
  )
  address = server.getsockname()[0]
  if not addresses.is_hidden_loopback(spec.host, address):
    return message
  return (
    f'{message}; {spec.host} is {address} on its own machine, which no other '
    'machine can reach: give its address in the network instead'
  )


def _receive_welcome(
  peer: connection.Connection, spec: ProcessSpec
) -> dict[str, Any]:
  """Returns the message of process 0 that all processes have joined."""
  name = f'process 0 at {addresses.to_text(spec.host, spec.port)}'
  # Process 0 stops waiting first, and says who is missing.
  deadline = time.monotonic() + spec.join_seconds + _CAUSE_SECONDS
  try:
    welcome = peer.receive_first(deadline)
  except OSError as error:
    raise errors.PeerError(f'{name} {error}') from error
  if 'lost' in welcome:
    raise errors.PeerError(connection.printable(welcome['lost']))
  types = {'name': str, 'config': dict, 'port': int, 'installed': str}
  for key, kind in types.items():
    if type(welcome.get(key)) is not kind:
      raise errors.PeerError(f'{name} sent an invalid welcome: no {key}')
  return welcome


def _monitor_failure(name: str, error: BaseException) -> str:
  return f'{name} no longer receives messages: {type(error).__name__}: {error}'


def _name(process_id: int) -> str:
  return f'process {process_id} ({socket.gethostname()}, pid {os.getpid()})'


def _failure(error: BaseException) -> str:
  """Returns the end of a sentence that begins with the failed process."""
  return connection.printable(f'failed: {type(error).__name__}: {error}')


def _exit(reason: str | None) -> NoReturn:
  """Exits without waiting for compiled programs or exchanges of arrays."""
  print(f'error: {reason}', file=sys.stderr, flush=True)
  os._exit(1)


def _connect(spec: ProcessSpec) -> connection.Connection:
  """Connects to process 0, which may start later than this process.

  Returns:
    Connection to a process that has proved the secret.
  """
  deadline = time.monotonic() + spec.join_seconds
  address = addresses.to_text(spec.host, spec.port)
  while True:
    try:
      client = socket.create_connection((spec.host, spec.port), 5)
      peer = connection.Connection(client, connection.MAX_PAYLOAD)
      with contextlib.ExitStack() as stack:
        stack.callback(peer.close)
        handshake.prove_to_coordinator(peer, spec.secret)
        stack.pop_all()
        return peer
    except handshake.WrongSecretError as error:
      raise errors.PeerError(
        f'process 0 at {address} {error}; all processes need the same '
        f'{handshake.VARIABLE}'
      ) from error
    except OSError as error:
      if time.monotonic() > deadline:
        raise errors.PeerError(
          f'process 0 cannot be reached at {address} within '
          f'{spec.join_seconds:.0f} s: {error.strerror or error}'
        ) from error
      time.sleep(0.2)
