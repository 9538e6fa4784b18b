"""Plays the episodes of a comparison, in this process or in several.

A process plays all methods on one SCM and one repeat, then the next. It sends
every finished episode at once, as the line that is written down.
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
from acme_cbo.scms import optimum
from acme_cbo.scms import registry as scm_registry
from acme_cbo.scms import systems

_EXIT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
  """Who plays on what; of it every process makes the same players.

  Attributes:
    protocol: of every episode.
    scms: what `resolve` is called with.
    methods: names of `registry.NAMES`, or of `policies`.
    policies: {method: directory of the trained policy that plays as it}.
    resolve: a module's function, as `registry.resolve`.
  """

  protocol: episodes_lib.Protocol
  scms: tuple[str, ...]
  methods: tuple[str, ...]
  policies: Mapping[str, pathlib.Path]
  resolve: scm_registry.Resolve


class WorkItem(NamedTuple):
  """Episodes that one process plays in turn: all on one SCM and repeat."""

  scm: str
  repeat: int
  methods: list[str]


class _SetUp(NamedTuple):
  """An SCM that is set up, and the policies that are made for it."""

  system: systems.System
  best: optimum.Optimum
  judge: episodes_lib.ExpectedOutcome
  policies: dict[str, base.Policy]


class EpisodeRunner:
  """Plays episodes one by one.

  Attributes:
    environments: {name: `Environment`}.
    abouts: {method: what its policy was trained for}.
    digests: `methods` and `scms`, of each what it was made from.
  """

  def __init__(self, cast: EvaluationSpec):
    """Reads what the players are made from.

    Args:
      cast: who plays on what.

    Raises:
      errors.UsageError: there is no such SCM or policy, or one name is given
        to two SCMs.
    """
    self._protocol = cast.protocol
    trained, digests = {}, dict.fromkeys(cast.methods, '')
    self.abouts: dict[str, dict[str, Any]] = {}
    for method, directory in cast.policies.items():
      network, params, self.abouts[method] = saving.load(directory)
      trained[method] = network, params
      # It holds the digest of the parameters.
      content = (directory / 'policy.json').read_bytes()
      digests[method] = hashlib.sha256(content).hexdigest()
    with jax.enable_x64(True):
      # Of several policies the first says what was never met before.
      found = cast.resolve(cast.scms, next(iter(self.abouts.values()), {}))
    self.environments = {each.name: each for each in found}
    names = [each.name for each in found]
    for name in names:
      if names.count(name) > 1:
        raise errors.UsageError(f'--scm: the SCM {name} is named twice')
    self._methods = policy_registry.make(cast.methods, trained)
    self.digests = {
      'methods': digests,
      'scms': {each.name: each.digest for each in found},
    }
    self._programs: dict[Any, Callable[[Any], base.Policy]] = {}
    self._traced: dict[Any, base.Policy] = {}
    self._warm: set[tuple[Any, str, str]] = set()
    self._stage: tuple[Any, _SetUp] | None = None

  def system(self, scm: str, repeat: int) -> systems.System:
    """The system of a repeat, with what the protocol says of its problem."""
    with jax.enable_x64(True):
      system = self.environments[scm].make(repeat)
      return system._replace(scm=episodes_lib.told(system.scm, self._protocol))

  def largest(self, scm: str, repeats: int) -> systems.System:
    """The system with the most variables, of that many repeats."""
    count = repeats if self.environments[scm].fresh else 1
    return max(
      (self.system(scm, repeat) for repeat in range(count)),
      key=lambda system: int(np.asarray(system.scm.problem.exists).sum()),
    )

  def refusal(self, method: str, system: systems.System) -> str:
    """Why a method cannot play on a system; empty where it can."""
    return self._methods[method].refusal(system.scm.problem)

  def play(self, scm: str, repeat: int, method: str) -> episodes_lib.Episode:
    """Plays one episode.

    Before the first one of a kind of method on SCMs of one shape the same
    episode is played and thrown away, for what is compiled in it is no
    decision's time. (What `cbo` compiles depends on the graph as well: on a
    fresh one, a first decision may compile.)

    Args:
      scm: name of an environment.
      repeat: its number, from 0.
      method: who plays.

    Returns:
      The `Episode`.

    Raises:
      errors.UsageError: the budget does not pay for one intervention, or no
        intervention is better than none.
    """
    protocol = self._protocol
    with jax.enable_x64(True):
      stage = self._set_up(scm, repeat)
      model = stage.system.scm
      policy = self._policy(stage, method)
      key = episodes_lib.key_of(protocol.seed, scm, repeat)
      size = intervention_sets.max_size(model.problem)
      shapes = str((size, jax.tree.map(np.shape, model.problem)))
      of_method = self._methods[method]
      traced = isinstance(of_method, policy_registry.Traced)
      kind = of_method.kind if traced else method
      if (kind, scm, shapes) not in self._warm:
        self._warm.add((kind, scm, shapes))
        episodes_lib.play(key, policy, model, protocol)
      moves, memory = episodes_lib.play(key, policy, model, protocol)
      if not moves:
        raise errors.UsageError(
          'it is left with no intervention that the budget of '
          f'{float(model.problem.budget):g} pays for; raise --budget'
        )
      return episodes_lib.judged(
        method,
        repeat,
        scm,
        stage.system,
        stage.best,
        stage.judge,
        moves,
        episodes_lib.last_beliefs(policy, memory),
      )

  def _set_up(self, scm: str, repeat: int) -> _SetUp:
    """The stage of a repeat; the last one stays."""
    which = scm, repeat if self.environments[scm].fresh else None
    if self._stage is None or self._stage[0] != which:
      system = self.system(scm, repeat)
      best = self.environments[scm].search(system)
      gain = float(system.scm.problem.goal) * (best.best - best.baseline)
      if not gain > 0:
        raise errors.UsageError(
          f'--scm: no intervention on {scm} that is allowed is better than '
          'none, so that there is nothing to score'
        )
      judge = episodes_lib.ExpectedOutcome(system.scm, best)
      self._stage = which, _SetUp(system, best, judge, {})
    return self._stage[1]

  def _policy(self, stage: _SetUp, name: str) -> base.Policy:
    method, scm = self._methods[name], stage.system.scm
    if isinstance(method, policy_registry.OnHost):
      if name not in stage.policies:
        stage.policies[name] = method.make(scm, stage.best)
      return stage.policies[name]
    size = intervention_sets.max_size(scm.problem)
    if (name, size) not in self._traced:
      # Policies of one kind share what is compiled, and serve all SCMs.
      if (method.kind, size) not in self._programs:
        self._programs[method.kind, size] = host_policy.compiled(
          functools.partial(method.make, size), method.params
        )
      of_params = self._programs[method.kind, size]
      self._traced[name, size] = of_params(method.params)
    return self._traced[name, size]


def run_here(
  player: EpisodeRunner, blocks: Iterable[WorkItem]
) -> Iterator[bytes]:
  """Plays blocks in turn; the lines of the log."""
  for block in blocks:
    for method in block.methods:
      yield _line(player, block, method)


def _line(player: EpisodeRunner, block: WorkItem, method: str) -> bytes:
  where = f'{method} on {block.scm}, repeat {block.repeat}'
  try:
    episode = player.play(block.scm, block.repeat, method)
  except errors.UsageError as error:
    raise errors.UsageError(f'{where}: {error}') from error
  except Exception as error:
    error.add_note(where)
    raise
  return episode_store.encode(episode)


def run_in_processes(
  cast: EvaluationSpec,
  digests: dict[str, Any],
  blocks: Sequence[WorkItem],
  jobs: int,
) -> Iterator[bytes]:
  """Plays blocks in several processes.

  They are spawned: a fork of a process that runs jax may hang. They end with
  this one, however it ends; the first that fails ends them all.

  Args:
    cast: who plays on what.
    digests: what all this was made from.
    blocks: in the order in which they are begun.
    jobs: the number of processes.

  Yields:
    The lines of the log, as episodes end.

  Raises:
    errors.UsageError: as a process said.
    RuntimeError: a process failed, or was killed.
  """
  context = multiprocessing.get_context('spawn')
  waiting = list(reversed(blocks))
  processes: dict[connections.Connection, contexts.SpawnProcess] = {}
  try:
    for number in range(min(jobs, len(blocks))):
      here, there = context.Pipe()
      process = context.Process(
        target=_work, args=(cast, digests, number, there)
      )
      process.start()
      there.close()
      processes[here] = process
      here.send_bytes(json.dumps(waiting.pop()).encode())
    busy = set(processes)
    while busy:
      said_something = connections.wait(list(busy))
      for here in [each for each in busy if each in said_something]:
        kind, _, said = _received(here, processes[here]).partition(b' ')
        if kind == b'episode':
          yield said
        elif kind == b'usage':
          raise errors.UsageError(said.decode())
        elif kind == b'failed':
          raise RuntimeError(f'a process failed:\n{said.decode()}')
        elif waiting:
          here.send_bytes(json.dumps(waiting.pop()).encode())
        else:
          busy.remove(here)
  finally:
    for here, process in processes.items():
      here.close()
      process.terminate()
    for process in processes.values():
      process.join(_EXIT_SECONDS)
      if process.exitcode is None:
        process.kill()
        process.join()


def _received(
  ready: connections.Connection, process: contexts.SpawnProcess
) -> bytes:
  try:
    return ready.recv_bytes()
  except (EOFError, ConnectionResetError) as error:
    process.join(_EXIT_SECONDS)
    raise RuntimeError(
      f'a process ended before its work did, with exit code {process.exitcode}'
    ) from error


def _work(
  cast: EvaluationSpec,
  digests: dict[str, Any],
  number: int,
  parent: connections.Connection,
) -> None:
  """What a process does."""
  # Ctrl-C ends all of them at once; nothing that is finished is lost.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  with child_process.ExitWithParent():
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    if cache:
      # Two processes may not share one: one could read what another one writes.
      jax.config.update('jax_compilation_cache_dir', f'{cache}/process{number}')
    try:
      player = EpisodeRunner(cast)
      if player.digests != digests:
        raise errors.UsageError(
          'an SCM or the policy has changed since the evaluation began'
        )
      while True:
        block = WorkItem(*json.loads(parent.recv_bytes()))
        for line in run_here(player, [block]):
          parent.send_bytes(b'episode ' + line)
        parent.send_bytes(b'done')
    except EOFError:
      return  # Nothing is left to do.
    except errors.UsageError as error:
      parent.send_bytes(b'usage ' + str(error).encode())
    except Exception:  # noqa: BLE001 It is raised again in the parent.
      parent.send_bytes(b'failed ' + traceback.format_exc().encode())
