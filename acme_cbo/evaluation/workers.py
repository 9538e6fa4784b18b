"""Runs the episodes of an evaluation in this process or in worker processes.

A process runs all methods on one SCM and repeat before the next one. It returns
every finished episode at once, encoded as a line of `episodes.jsonl`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import multiprocessing
from multiprocessing import connection as connections
from multiprocessing import context as contexts
import os
import pathlib
import signal
import traceback
from typing import Any, NamedTuple

import jax
import numpy as np

from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.infra import child_process
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies import host_policy
from acme_cbo.policies import registry as policy_registry
from acme_cbo.policies import saving
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import optimum as optimum_lib
from acme_cbo.scms import registry as scm_registry
from acme_cbo.scms import systems

_EXIT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
  """Evaluation spec; each worker rebuilds its policies and SCMs from it.

  Attributes:
    protocol: settings of every episode.
    scms: names and files that are passed to `resolve`.
    methods: names from `policies.registry.NAMES`, or keys of `policies`.
    policies: {method: directory of its trained policy}.
    resolve: function of a module, such as `scms.registry.resolve`, which can be
      pickled.
  """

  protocol: episodes_lib.Protocol
  scms: tuple[str, ...]
  methods: tuple[str, ...]
  policies: Mapping[str, pathlib.Path]
  resolve: scm_registry.Resolve


class WorkItem(NamedTuple):
  """Episodes of several methods on one SCM and repeat, run by one process.

  Attributes:
    scm: name of the SCM.
    repeat: number of the repeat, from 0.
    methods: names of the methods.
  """

  scm: str
  repeat: int
  methods: list[str]


class _SetUp(NamedTuple):
  """A system, its optimum, and the host policies that were made for it.

  Attributes:
    system: the system.
    best: optimum of its interventions.
    expected_outcome: intervention -> E[Y | do].
    policies: {method: its policy}, filled on demand.
  """

  system: systems.System
  best: optimum_lib.Optimum
  expected_outcome: episodes_lib.ExpectedOutcome
  policies: dict[str, base.PolicyFunctions]


class EpisodeRunner:
  """Runs single episodes and caches policies, programs and the last system.

  Attributes:
    environments: {name: `Environment`}.
    metadata: {method: metadata of its trained policy, see `saving.load`}.
    digests: `{'methods': {method: digest}, 'scms': {name: digest}}`.
    optima: {name: optimum} of SCMs that are the same in all repeats, as far as
      it is known before an episode.
  """

  def __init__(
    self,
    spec: EvaluationSpec,
    optima: Mapping[str, optimum_lib.Optimum] | None = None,
  ):
    """Loads the trained policies and finds the SCMs.

    Args:
      spec: spec of the evaluation.
      optima: `optima` of another process, which are not searched again.

    Raises:
      errors.UsageError: an SCM or a policy does not exist, or two SCMs have the
        same name.
    """
    self._protocol = spec.protocol
    trained, digests = {}, dict.fromkeys(spec.methods, '')
    self.metadata: dict[str, dict[str, Any]] = {}
    for method, directory in spec.policies.items():
      policy = saving.load(directory)
      self.metadata[method] = policy.metadata
      trained[method] = policy.network, policy.params
      description = saving.read_description(directory)
      digests[method] = hashlib.sha256(description.encode()).hexdigest()
    with jax.enable_x64(True):
      # With several policies, the first defines which SCMs are held out.
      environments = spec.resolve(
        spec.scms, next(iter(self.metadata.values()), {})
      )
    self.environments = {each.name: each for each in environments}
    names = [each.name for each in environments]
    for name in names:
      if names.count(name) > 1:
        raise errors.UsageError(f'the SCM {name} is named twice')
    self._methods = policy_registry.make(spec.methods, trained)
    self.digests = {
      'methods': digests,
      'scms': {each.name: each.digest for each in environments},
    }
    self._programs: dict[Any, Callable[[Any], base.PolicyFunctions]] = {}
    self._traced: dict[Any, base.PolicyFunctions] = {}
    self._warm: set[tuple[Any, str, str]] = set()
    self._last_set_up: tuple[Any, _SetUp] | None = None
    self.optima = dict(optima or {})

  def system(self, scm: str, repeat: int) -> systems.System:
    """Returns the system of a repeat, with the protocol in its problem."""
    with jax.enable_x64(True):
      system = self.environments[scm].make(repeat)
      return system._replace(
        scm=episodes_lib.with_protocol(system.scm, self._protocol)
      )

  def largest_system(self, scm: str, repeats: int) -> systems.System:
    """Returns the system with the most variables over a number of repeats."""
    count = repeats if self.environments[scm].fresh else 1
    return max(
      (self.system(scm, repeat) for repeat in range(count)),
      key=lambda system: int(np.asarray(system.scm.problem.exists).sum()),
    )

  def optimum(self, scm: str) -> optimum_lib.Optimum:
    """Returns the optimum of an SCM that is the same in all repeats."""
    if scm not in self.optima:
      system = self.system(scm, 0)
      self.optima[scm] = self.environments[scm].search(system)
    return self.optima[scm]

  def refusal(self, method: str, system: systems.System) -> str:
    """Returns why a method cannot be run on a system; empty if it can."""
    return self._methods[method].unsupported_reason(system.scm.problem)

  def run_episode(
    self, scm: str, repeat: int, method: str
  ) -> episodes_lib.Episode:
    """Runs one episode.

    The first episode of a kind of method on SCMs of one shape is run twice and
    the first result discarded, so that compilation does not count as decision
    time. The programs of `cbo` depend on the graph as well, so its first
    decision on a new graph may still include compilation.

    Args:
      scm: name of an environment.
      repeat: number of the repeat, from 0.
      method: name of the method.

    Returns:
      The `Episode`.

    Raises:
      errors.UsageError: the budget does not cover a single intervention, or
        there is no gain that scores can be relative to.
    """
    protocol = self._protocol
    with jax.enable_x64(True):
      set_up = self._set_up(scm, repeat)
      model = set_up.system.scm
      policy = self._policy(set_up, method)
      key = episodes_lib.episode_key(protocol.seed, scm, repeat)
      size = intervention_sets.max_size(model.problem)
      shapes = str((size, jax.tree.map(np.shape, model.problem)))
      entry = self._methods[method]
      traced = isinstance(entry, policy_registry.TracedMethod)
      kind = entry.kind if traced else method
      if (kind, scm, shapes) not in self._warm:
        self._warm.add((kind, scm, shapes))
        episodes_lib.run_episode(key, policy, model, protocol)
      records, memory = episodes_lib.run_episode(key, policy, model, protocol)
      if not records:
        raise errors.UsageError(
          'the budget of '
          f'{float(model.problem.budget):g} does not cover the first '
          'intervention; raise the budget'
        )
      return episodes_lib.evaluate_episode(
        method,
        repeat,
        scm,
        set_up.system,
        set_up.best,
        set_up.expected_outcome,
        records,
        base.parent_probabilities(policy, memory),
        episodes_lib.predict_recommended(policy, memory, records),
      )

  def _set_up(self, scm: str, repeat: int) -> _SetUp:
    """Returns the set-up of a repeat, and caches the last one."""
    key = scm, repeat if self.environments[scm].fresh else None
    if self._last_set_up is None or self._last_set_up[0] != key:
      system = self.system(scm, repeat)
      best = self.optima.get(scm) or self.environments[scm].search(system)
      optimum_lib.check_gain(system, best)
      expected_outcome = episodes_lib.ExpectedOutcome(system.scm, best)
      self._last_set_up = key, _SetUp(system, best, expected_outcome, {})
    return self._last_set_up[1]

  def _policy(self, set_up: _SetUp, name: str) -> base.PolicyFunctions:
    """Returns the policy of a method, made for the system if on the host."""
    method, scm = self._methods[name], set_up.system.scm
    if isinstance(method, policy_registry.HostMethod):
      if name not in set_up.policies:
        set_up.policies[name] = method.make(scm, set_up.best)
      return set_up.policies[name]
    size = intervention_sets.max_size(scm.problem)
    if (name, size) not in self._traced:
      # Policies of one kind share their compiled programs on all SCMs.
      if (method.kind, size) not in self._programs:
        self._programs[method.kind, size] = host_policy.compiled(
          functools.partial(method.make, size), method.params
        )
      make_policy = self._programs[method.kind, size]
      self._traced[name, size] = make_policy(method.params)
    return self._traced[name, size]


def run_serial(
  runner: EpisodeRunner, work_items: Iterable[WorkItem]
) -> Iterator[bytes]:
  """Runs work items in this process and yields the encoded episodes."""
  for item in work_items:
    for method in item.methods:
      yield _encoded_episode(runner, item, method)


def _encoded_episode(
  runner: EpisodeRunner, item: WorkItem, method: str
) -> bytes:
  """Runs an episode and names it in every error."""
  where = f'{method} on {item.scm}, repeat {item.repeat}'
  try:
    episode = runner.run_episode(item.scm, item.repeat, method)
  except errors.UsageError as error:
    raise errors.UsageError(f'{where}: {error}') from error
  except Exception as error:
    error.add_note(where)
    raise
  return episode_store.encode(episode)


def run_parallel(
  spec: EvaluationSpec,
  digests: dict[str, Any],
  optima: Mapping[str, optimum_lib.Optimum],
  work_items: Sequence[WorkItem],
  jobs: int,
) -> Iterator[bytes]:
  """Runs work items in several worker processes.

  The workers are spawned, since a fork of a process that runs jax may hang.
  They end with this process, however it ends. The first failure ends them all.

  Args:
    spec: spec of the evaluation.
    digests: `EpisodeRunner.digests` of this process, checked by every worker.
    optima: `EpisodeRunner.optima` of this process.
    work_items: the episodes, in the order in which they are started.
    jobs: number of processes.

  Yields:
    The encoded episodes, in the order of completion.

  Raises:
    errors.UsageError: a worker raised it.
    RuntimeError: a worker failed or was killed.
  """
  context = multiprocessing.get_context('spawn')
  waiting = list(reversed(work_items))
  workers: dict[connections.Connection, contexts.SpawnProcess] = {}
  try:
    for index in range(min(jobs, len(work_items))):
      connection, child_connection = context.Pipe()
      process = context.Process(
        target=_run_worker,
        args=(spec, digests, optima, index, child_connection),
      )
      process.start()
      child_connection.close()
      workers[connection] = process
      connection.send_bytes(json.dumps(waiting.pop()).encode())
    busy = set(workers)
    while busy:
      ready = connections.wait(list(busy))
      for connection in [each for each in busy if each in ready]:
        message = _receive(connection, workers[connection])
        kind, _, payload = message.partition(b' ')
        if kind == b'episode':
          yield payload
        elif kind == b'usage':
          raise errors.UsageError(payload.decode())
        elif kind == b'failed':
          raise RuntimeError(f'a worker process failed:\n{payload.decode()}')
        elif waiting:
          connection.send_bytes(json.dumps(waiting.pop()).encode())
        else:
          busy.remove(connection)
  finally:
    for connection, process in workers.items():
      connection.close()
      process.terminate()
    for process in workers.values():
      process.join(_EXIT_SECONDS)
      if process.exitcode is None:
        process.kill()
        process.join()


def _receive(
  connection: connections.Connection, process: contexts.SpawnProcess
) -> bytes:
  """Returns the next message of a worker, or raises if it has ended."""
  try:
    return connection.recv_bytes()
  except (EOFError, ConnectionResetError) as error:
    process.join(_EXIT_SECONDS)
    raise RuntimeError(
      f'a worker process ended unexpectedly, with exit code {process.exitcode}'
    ) from error


def _run_worker(
  spec: EvaluationSpec,
  digests: dict[str, Any],
  optima: Mapping[str, optimum_lib.Optimum],
  index: int,
  parent: connections.Connection,
) -> None:
  """Runs the work items that the parent process sends.

  Args:
    spec: spec of the evaluation.
    digests: `EpisodeRunner.digests` of the parent process.
    optima: `EpisodeRunner.optima` of the parent process.
    index: number of this worker, from 0.
    parent: connection to the parent process.
  """
  # Ctrl-C reaches all workers, which end at once. Finished episodes are kept.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  with child_process.ExitWithParent():
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    if cache:
      # Processes cannot share a directory: one could read a file that another
      # one is writing.
      jax.config.update('jax_compilation_cache_dir', f'{cache}/process{index}')
    try:
      runner = EpisodeRunner(spec, optima)
      if runner.digests != digests:
        raise errors.UsageError(
          'an SCM or a policy has changed since the start of the evaluation'
        )
      while True:
        item = WorkItem(*json.loads(parent.recv_bytes()))
        for line in run_serial(runner, [item]):
          parent.send_bytes(b'episode ' + line)
        parent.send_bytes(b'done')
    except EOFError:
      return  # The parent closes the connection when no work is left.
    except errors.UsageError as error:
      parent.send_bytes(b'usage ' + str(error).encode())
    except Exception:  # noqa: BLE001 Raised again in the parent.
      parent.send_bytes(b'failed ' + traceback.format_exc().encode())
