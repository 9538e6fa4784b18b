"""Actors and a learner beside each other: threads of one process.

The learner is the thread that calls the step. With a lag of 0 they work in
lockstep, and what comes out is that of `fused` bit for bit; else actors work
ahead with parameters that are a few updates old, as the importance ratios of
the loss know.
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

# How long an actor may take to end what it is at, once it is told to.
_JOIN_SECONDS = 30.0


class Actors(NamedTuple):
  """Who acts beside a learner.

  Attributes:
    each: what each actor does for a ticket.
    stop: ends what of it can be ended at once.
  """

  each: Sequence[Callable[[experience_queue.WorkItem], agent.Experience]]
  stop: Callable[[], None] = lambda: None


class Threaded(fused.Fused):
  """The learner on the first device, actors on the others, if there are any."""

  def __init__(
    self,
    parts: agent.Parts,
    num_actors: int,
    max_lag: int,
    stall_seconds: float,
    group: process_group.Group = process_group.SINGLE_PROCESS,
  ):
    """Chooses how far actors may be ahead.

    Args:
      parts: of the update.
      num_actors: how many threads act, where there is no other process.
      max_lag: how many updates old their parameters may be.
      stall_seconds: how long the learner waits for one of them.
      group: the processes, of which all but this one act.
    """
    super().__init__(parts)
    learner, *others = jax.local_devices()
    self._learner = learner
    self._actors = [
      others[i % len(others)] if others else learner for i in range(num_actors)
    ]
    self._group = group
    self._max_lag = max_lag
    self._stall_seconds = stall_seconds

  @contextlib.contextmanager
  def session(
    self, run: Mapping[str, Callable[..., Any]], state: types.TrainingState
  ) -> Iterator[agent.Step]:
    """Starts the actors; they end with the body.

    Raises:
      BaseException: what an actor raised, from the step.
      errors.PeerError: an actor has stalled, from the step; or it does not end.
    """
    # The learner takes its own away.
    copy = jax.jit(lambda params: jax.tree.map(jnp.copy, params))
    pipeline = experience_queue.ExperienceQueue(
      int(state.step),
      copy(state.params),
      state.key,
      lambda key: jax.random.split(key, 3)[0],
      self._max_lag,
      self._stall_seconds,
    )

    def step(state):
      begin = time.monotonic()
      brought, waited = pipeline.get()
      state, metrics = agent.update(run, state, brought.experience)
      version = int(state.step)
      pipeline.publish(version, copy(state.params))
      seconds = time.monotonic() - begin
      actors_waited = pipeline.pop_actor_wait_seconds() / len(acting.each)
      return state, {
        **metrics,
        'policy/lag': version - 1 - brought.version,
        'perf/learner_waiting': waited / seconds,
        'perf/actors_waiting': min(actors_waited / seconds, 1.0),
      }

    with self._acting(run, state) as acting:
      threads = [
        threading.Thread(
          target=_act, args=(pipeline, act), name=f'{cli.ACTOR_THREAD} {i}'
        )
        for i, act in enumerate(acting.each)
      ]
      for thread in threads:
        thread.start()
      try:
        yield step
      except BaseException as error:
        pipeline.close()
        acting.stop()
        if stuck := _stuck(threads, _JOIN_SECONDS):
          error.add_note(stuck)
        raise
      pipeline.close()
      acting.stop()
      # They may be at an update that nobody needs any more.
      if stuck := _stuck(threads, max(self._stall_seconds, _JOIN_SECONDS)):
        raise errors.PeerError(stuck)

  @contextlib.contextmanager
  def _acting(
    self, run: Mapping[str, Callable[..., Any]], state: types.TrainingState
  ) -> Iterator[Actors]:
    """Who acts, as long as it is entered."""
    if (
      isinstance(self._group, process_group.Coordinator)
      and self._group.size > 1
    ):
      yield Actors(
        [
          remote.make_collect(self._group, number, run, state)
          for number in range(1, self._group.size)
        ]
      )
    else:
      yield Actors(
        [self._act_on(device, run, state) for device in self._actors]
      )

  def run_worker(
    self,
    interrupted: Callable[[], int | None],
    run: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> None:
    """Collects experience for process 0; see `fused.Fused.run_worker`."""
    assert isinstance(self._group, process_group.Worker)
    remote.collect_for_learner(self._group, interrupted, run, state)

  def _act_on(
    self,
    device: jax.Device,
    run: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> Callable[[experience_queue.WorkItem], agent.Experience]:
    """What an actor on a device does for a ticket."""
    if device == self._learner:
      return lambda ticket: agent.collect(
        run, ticket.params, ticket.key, ticket.update
      )
    there = self._compiled_on(device, state)

    def act(ticket):
      params, key = jax.device_put((ticket.params, ticket.key), device)
      tasks, data, seed, key = agent.collect(there, params, key, ticket.update)
      tasks, data, key = jax.device_put((tasks, data, key), self._learner)
      return agent.Experience(tasks, data, seed, key)

    return act

  def _compiled_on(
    self, device: jax.Device, state: types.TrainingState
  ) -> dict[str, stages.Compiled]:
    """What actors run, of another device than the learner's."""
    sharding = jax.sharding.SingleDeviceSharding(device)

    def there(tree):
      return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=sharding
        ),
        tree,
      )

    key = there(state.key)
    fill = self.programs['fill'].lower(key)
    tasks, _ = there(fill.out_info)
    act = self.programs['act'].lower(there(state.params), key, tasks)
    return {'fill': fill.compile(), 'act': act.compile()}


def _act(
  pipeline: experience_queue.ExperienceQueue,
  act: Callable[[experience_queue.WorkItem], Any],
) -> None:
  """What an actor does, from its start to its end."""
  try:
    while (ticket := pipeline.get_work()) is not None:
      pipeline.put(ticket.update, ticket.version, act(ticket))
  except BaseException as error:  # noqa: BLE001 - the learner raises it.
    error.add_note(f'raised by {threading.current_thread().name}')
    pipeline.put_error(error)


def _stuck(threads: Sequence[threading.Thread], seconds: float) -> str:
  """Waits for actors; which of them do not end, if so, as a sentence."""
  deadline = time.monotonic() + seconds
  for thread in threads:
    thread.join(max(deadline - time.monotonic(), 0))
  names = [thread.name for thread in threads if thread.is_alive()]
  return (
    f'{", ".join(names)} did not end within {seconds:.0f} s' if names else ''
  )
