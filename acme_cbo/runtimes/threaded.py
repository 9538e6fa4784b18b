"""Asynchronous runtime: actor threads beside a learner thread.

The layout of actor and learner is that of Sebulba in Podracer (Hessel et al.,
2021, https://arxiv.org/abs/2104.06272). The learner is the thread that calls
the step. With a `max_lag` of 0 actors and learner run in lockstep, and the
results are those of `fused` bit for bit. Otherwise actors work ahead with
parameters that are a few updates old, for which the importance ratios of the
loss correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import threading
import time
from typing import Any, NamedTuple

import jax
from jax import stages
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.runtimes import experience_queue
from acme_cbo.runtimes import fused
from acme_cbo.runtimes import process_group
from acme_cbo.runtimes import remote

# Number of seconds that actors have to end after the queue was closed.
_JOIN_SECONDS = 30.0


class Actors(NamedTuple):
  """Actors of a session.

  Attributes:
    collect: function of each actor, from a work item to its experience.
    stop: function that interrupts actors that can be interrupted.
  """

  collect: Sequence[Callable[[experience_queue.WorkItem], agent.Experience]]
  stop: Callable[[], None] = lambda: None


class Threaded(fused.Fused):
  """Runtime with the learner on the first device and actors on the others.

  If there is only one device, actors share it with the learner. If there are
  other processes, these are the actors.
  """

  def __init__(
    self,
    parts: agent.Parts,
    num_actors: int,
    max_lag: int,
    stall_seconds: float,
    group: process_group.Group = process_group.SINGLE_PROCESS,
  ):
    """Creates the runtime.

    Args:
      parts: parts of an update.
      num_actors: number of actor threads if there are no other processes.
      max_lag: largest age of an actor's parameters in updates.
      stall_seconds: number of seconds that the learner waits for an actor.
      group: processes that train together; all but process 0 are actors.
    """
    super().__init__(parts)
    learner, *others = jax.local_devices()
    self._learner = learner
    self._actor_devices = [
      others[i % len(others)] if others else learner for i in range(num_actors)
    ]
    self._group = group
    self._max_lag = max_lag
    self._stall_seconds = stall_seconds

  @contextlib.contextmanager
  def session(
    self,
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> Iterator[agent.Step]:
    """Runs actor threads while the body makes updates.

    Args:
      programs: programs by name, compiled or not.
      state: state before the first update.

    Yields:
      Function that makes one update.

    Raises:
      BaseException: the step raises exceptions of actors.
      errors.PeerError: the step timed out waiting for an actor, or an actor did
        not end with the body.
    """
    # The learner donates its own parameters, so that actors need a copy.
    copy = jax.jit(lambda params: jax.tree.map(jnp.copy, params))
    work = experience_queue.ExperienceQueue(
      int(state.step),
      copy(state.params),
      state.key,
      lambda key: jax.random.split(key, 3)[0],
      self._max_lag,
      self._stall_seconds,
    )

    def step(state):
      begin = time.monotonic()
      result, waited = work.get()
      state, metrics = agent.update(programs, state, result.experience)
      version = int(state.step)
      work.publish(version, copy(state.params))
      seconds = time.monotonic() - begin
      actors_waited = work.pop_actor_wait_seconds() / len(actors.collect)
      return state, {
        **metrics,
        'policy/lag': version - 1 - result.version,
        'perf/learner_waiting': waited / seconds,
        'perf/actors_waiting': min(actors_waited / seconds, 1.0),
      }

    with self._actors(programs, state) as actors:
      threads = [
        threading.Thread(
          target=_run_actor,
          args=(work, collect),
          name=f'{cli.ACTOR_THREAD} {i}',
        )
        for i, collect in enumerate(actors.collect)
      ]
      for thread in threads:
        thread.start()
      try:
        yield step
      except BaseException as error:
        work.close()
        actors.stop()
        if message := _join(threads, _JOIN_SECONDS):
          error.add_note(message)
        raise
      work.close()
      actors.stop()
      # Actors may still be collecting for an update that is not needed.
      if message := _join(threads, max(self._stall_seconds, _JOIN_SECONDS)):
        raise errors.PeerError(message)

  @contextlib.contextmanager
  def _actors(
    self,
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> Iterator[Actors]:
    """Yields the actors of a session."""
    if (
      isinstance(self._group, process_group.Coordinator)
      and self._group.size > 1
    ):
      yield Actors(
        [
          remote.make_collect(self._group, process_id, programs, state)
          for process_id in range(1, self._group.size)
        ]
      )
    else:
      yield Actors(
        [
          self._make_collect(device, programs, state)
          for device in self._actor_devices
        ]
      )

  def run_worker(
    self,
    get_signal: Callable[[], int | None],
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> None:
    """Collects experience for process 0; see `fused.Fused.run_worker`."""
    assert isinstance(self._group, process_group.Worker)
    remote.collect_for_learner(self._group, get_signal, programs, state)

  def _make_collect(
    self,
    device: jax.Device,
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> Callable[[experience_queue.WorkItem], agent.Experience]:
    """Returns the function of an actor on a device."""
    if device == self._learner:
      return lambda item: agent.collect(
        programs, item.params, item.key, item.update
      )
    actor_programs = self._compile_for_actor(device, state)

    def collect(item: experience_queue.WorkItem) -> agent.Experience:
      params, key = jax.device_put((item.params, item.key), device)
      tasks, data, seed, key = agent.collect(
        actor_programs, params, key, item.update
      )
      tasks, data, key = jax.device_put((tasks, data, key), self._learner)
      return agent.Experience(tasks, data, seed, key)

    return collect

  def _compile_for_actor(
    self, device: jax.Device, state: types.TrainingState
  ) -> dict[str, stages.Compiled]:
    """Compiles the programs of an actor for a device other than the learner's.

    Args:
      device: device of the actor.
      state: any training state of the run, for its shapes.

    Returns:
      'fill' and 'act' of `agent.programs`, of all sizes.
    """
    sharding = jax.sharding.SingleDeviceSharding(device)

    def on_device(tree):
      return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=sharding
        ),
        tree,
      )

    key = on_device(state.key)
    compiled = {}
    for name in agent.names_of(self.programs, 'fill'):
      fill = self.programs[name].lower(key)
      tasks, _ = on_device(fill.out_info)
      act_name = name.replace('fill', 'act')
      act = self.programs[act_name].lower(on_device(state.params), key, tasks)
      compiled |= {name: fill.compile(), act_name: act.compile()}
    return compiled


def _run_actor(
  work: experience_queue.ExperienceQueue,
  collect: Callable[[experience_queue.WorkItem], Any],
) -> None:
  """Main loop of an actor thread, until the queue is closed."""
  try:
    while (item := work.get_work()) is not None:
      work.put(item.update, item.version, collect(item))
  except BaseException as error:  # noqa: BLE001 - the learner raises it.
    error.add_note(f'raised by {threading.current_thread().name}')
    work.put_error(error)


def _join(threads: Sequence[threading.Thread], seconds: float) -> str:
  """Waits for threads to end.

  Args:
    threads: threads to wait for.
    seconds: timeout in seconds for all of them together.

  Returns:
    Message that names the threads that have not ended, or ''.
  """
  deadline = time.monotonic() + seconds
  for thread in threads:
    thread.join(max(deadline - time.monotonic(), 0))
  names = [thread.name for thread in threads if thread.is_alive()]
  return (
    f'{", ".join(names)} did not end within {seconds:.0f} s' if names else ''
  )
