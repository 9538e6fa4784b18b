"""The two loops of an episode: one scanned on the device, one on the host."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.scms import interventions


class Steps(NamedTuple):
  """T steps of an episode.

  Attributes:
    choice: T choices of the policy.
    intervention: `Intervention` of [T, D] arrays that was made.
    outcomes: [T, D] outcome of each.
    expected: [T] E[Y | do] of each, see `simulate.expected_outcome`.
    tracked: T + 1 results of `track`, before each step and after the last.
    end: state of the policy after the last step.
  """

  choice: Any
  intervention: types.Intervention
  outcomes: jax.Array
  expected: jax.Array
  tracked: Any
  end: Any


def on_device(
  choose: Callable[[jax.Array, Any], tuple[types.Intervention, Any]],
  observe: Callable[..., Any],
  track: Callable[[Any], Any],
  state: Any,
  task: types.Task,
  choice_keys: jax.Array,
  outcome_keys: jax.Array,
) -> Steps:
  """Scans an episode of T steps.

  Args:
    choose: (key, state) -> the intervention, and whatever is to be kept of the
      choice.
    observe: (state, step, intervention, outcome [D]) -> state.
    track: state -> what is to be kept of it, such as the policy's beliefs.
    state: state of the policy before the first step.
    task: the SCM and its objective.
    choice_keys: [T, ...] keys of the choices, consumed.
    outcome_keys: [T] keys of the noise, consumed.

  Returns:
    The `Steps`.
  """
  scm, objective = task

  def step(carry, inputs):
    state, spent, last = carry
    index, choice_key, outcome_key = inputs
    chosen, choice = choose(choice_key, state)
    intervention, spent = environment.apply_budget(
      scm.problem, spent, chosen, last
    )
    outcome, expected = environment.sample_outcome(
      outcome_key, scm, objective.bank, intervention
    )
    after = observe(state, index, intervention, outcome)
    return (after, spent, intervention), (
      choice,
      intervention,
      outcome,
      expected,
      track(state),
    )

  start = (
    state,
    jnp.zeros(()),
    interventions.no_intervention(scm.order.size),
  )
  inputs = jnp.arange(len(outcome_keys)), choice_keys, outcome_keys
  (end, *_), history = jax.lax.scan(step, start, inputs)
  choice, intervention, outcomes, expected, before = history
  after = track(end)
  return Steps(
    choice,
    intervention,
    outcomes,
    expected,
    beliefs.append_state(before, after),
    end,
  )


def on_host(
  choose: Callable[[int, Any], Any],
  respond: Callable[[int, Any], Any],
  observe: Callable[[Any, int, Any, Any], Any],
  state: Any,
  num_interventions: int,
) -> Iterator[tuple[Any, Any, Any]]:
  """Steps an episode, or a batch of them, on the host.

  Args:
    choose: (step, state) -> the choice; None ends the episode.
    respond: (step, choice) -> the outcome; None ends the episode.
    observe: (state, step, choice, outcome) -> state.
    state: state of the policy before the first step.
    num_interventions: T, the most steps that are made.

  Yields:
    The choice, the outcome and the state after it.
  """
  for step in range(num_interventions):
    choice = choose(step, state)
    outcome = None if choice is None else respond(step, choice)
    if outcome is None:
      return
    state = observe(state, step, choice, outcome)
    yield choice, outcome, state
