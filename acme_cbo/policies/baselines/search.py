"""Bayesian optimisation with Gaussian processes: methods of the literature.

They choose on the host, step by step, with compiled numerics inside; all is in
float64, so that they are to be called within `jax.enable_x64(True)`. What they
are told differs: `gp_bo` the problem alone, `cbo` the true graph as well.

Where no set is left that the budget pays for, they set nothing.

  T  interventions of the episode
  C  candidates of a set
  D  variables
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize
from scipy.stats import qmc

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies.baselines import gaussian_processes as gp
from acme_cbo.policies.baselines import identification
from acme_cbo.scms import intervention_sets

# Of each set: points of a Sobol sequence, and corners of its box at most.
_SOBOL, _CORNERS = 512, 64
# Sets in which the improvement is climbed: those of the best candidates.
_CLIMBED = 2
_MOST_ITERATIONS = 10
# A climb starts at the best candidate, another one this far from the best point
# so far, in its domain.
_NUDGE = 0.02
# Points from which each one of a space-filling design is picked.
_DESIGN_CHOICES = 32
# Length scale of a search, a priori: a twelfth of a domain.
_LENGTH = 0.3
# Width of a domain over which a uniform distribution has variance 1.
_WIDTH = np.sqrt(12.0)


class _Arm(NamedTuple):
  """A set of variables, and the process over what they are set to.

  Attributes:
    mask: [D] bool, the set.
    cost: what setting it costs.
    prior: what the search's prior needs to know of it.
    candidates: C points.
    prior_mode: the hyperparameters of its process, before any outcome.
    mode: the most probable ones.
    sample: K hyperparameters that are averaged over.
    predicted: [K, C] means and [K, C] deviations at the candidates.
  """

  mask: np.ndarray
  cost: float
  prior: Any
  candidates: gp.Points
  prior_mode: gp.Parameters
  mode: gp.Parameters
  sample: gp.Sample
  predicted: tuple[jax.Array, jax.Array]


class _Memory(NamedTuple):
  """What a search has seen.

  Attributes:
    problem: of numpy arrays.
    arms: the sets that it chooses from.
    location: origin of the units in which outcomes are modelled.
    scale: size of these units.
    step: interventions so far.
    arm: [T] int, which set each step set.
    points: T points; inputs are fractions of the domains, scaled and centred.
    outcomes: [T] of the target, signed by the goal, in its own units.
    spent: what the interventions so far cost.
  """

  problem: types.Problem
  arms: tuple[_Arm, ...]
  location: float
  scale: float
  step: int
  arm: np.ndarray
  points: gp.Points
  outcomes: np.ndarray
  spent: float


class Prior(NamedTuple):
  """What is believed of E[Y | do] before any intervention.

  Attributes:
    fit: (problem, observations, masks of the sets) -> what `evaluate` needs to
      know of each set. Observations are standardised [N, D], with the [D]
      locations and [D] scales that did it.
    evaluate: (that, fractions [C, D] of the domains) -> [C] means and [C]
      deviations of the target; standardised, more is better.
  """

  fit: Callable[..., list[Any]]
  evaluate: Callable[..., tuple[jax.Array, jax.Array]]


class Search(NamedTuple):
  """How the two methods differ.

  Attributes:
    sets: problem -> the sets to choose from.
    prior: of their processes.
    per_cost: whether the improvement is divided by the set's cost.
    num_initial: the sets' masks -> how many steps fill the space first.
    own_units: whether the units are the outcomes' own, not the observations'.
  """

  sets: Callable[[types.Problem], list[identification.Variables]]
  prior: Prior
  per_cost: bool
  num_initial: Callable[[Sequence[np.ndarray]], int]
  own_units: bool


def policy(search: Search) -> base.Policy:
  """Returns the policy that searches as described."""
  return base.Policy(
    init=functools.partial(_init, search),
    choose=functools.partial(_choose, search),
    observe=functools.partial(_observe, search),
    recommend=_recommend,
  )


def _init(search, problem, observations, num_interventions):
  observations = check_observations(observations)
  problem = jax.tree.map(np.asarray, problem)
  # What the whole budget does not pay for is none of the sets.
  within = np.asarray(intervention_sets.affordable(problem, jnp.zeros(())))
  problem = problem._replace(sets=within)
  rows = np.where(problem.exists, observations, 0.0)
  location, scale = rows.mean(0), rows.std(0)
  scale = np.where(scale > 0, scale, 1.0)
  standardised = (rows - location) / scale

  num_variables = problem.low.size
  masks = [
    np.isin(np.arange(num_variables), list(chosen))
    for chosen in search.sets(problem)
  ]
  states = search.prior.fit(problem, (standardised, location, scale), masks)

  def arm(mask, state):
    cost = float(problem.cost[mask].sum())
    if search.per_cost and not cost > 0:
      raise errors.UsageError(
        f'setting variables {np.flatnonzero(mask).tolist()} costs {cost:g}; an '
        'improvement per cost needs a positive one'
      )
    candidates = _points(search, state, _fractions(mask))
    mode = gp.prior_mode(mask, _LENGTH)
    sample = gp.sample(mask, nothing, mode, mode)
    predicted = _predicted(sample, mask, nothing, candidates)
    return _Arm(mask, cost, state, candidates, mode, mode, sample, predicted)

  no_steps = np.zeros(int(num_interventions))
  points = gp.Points(
    np.zeros((no_steps.size, num_variables)), no_steps, no_steps
  )
  nothing = gp.Data(points, no_steps, no_steps.astype(bool))
  target = int(np.argmax(problem.target))
  return _Memory(
    problem=problem,
    arms=tuple(arm(*each) for each in zip(masks, states, strict=True)),
    location=float(problem.goal * location[target]),
    scale=float(scale[target]),
    step=0,
    arm=no_steps.astype(int) - 1,
    points=points,
    outcomes=no_steps,
    spent=0.0,
  )


def check_observations(observations: Any) -> np.ndarray:
  """Observations on the host.

  Args:
    observations: [N, D].

  Returns:
    [N, D].

  Raises:
    errors.UsageError: they are not of 64 bits, or there are fewer than 2.
  """
  dtype = jnp.asarray(observations).dtype
  if dtype != jnp.float64:
    raise errors.UsageError(
      f'observations are {dtype}, and this policy computes in float64; draw '
      'them and call it within jax.enable_x64(True)'
    )
  if len(observations) < 2:
    raise errors.UsageError(
      f'{len(observations)} observational row(s); a deviation needs 2'
    )
  return np.asarray(observations)


def _fractions(mask):
  """Candidates of a set: [C, D] fractions, the middle of the box first."""
  size = int(mask.sum())
  corners = (np.arange(2 ** min(size, 6))[:, None] >> np.arange(size)) & 1
  sobol = qmc.Sobol(size, rng=0).random(_SOBOL)
  inside = np.concatenate([np.full((1, size), 0.5), corners, sobol])
  # As many for every set, so that one program serves all.
  inside = inside[: 1 + _SOBOL]
  fractions = np.full((len(inside), mask.size), 0.5)
  fractions[:, mask] = inside
  return fractions


def _points(search, state, fractions):
  mean, deviation = _evaluated(search.prior.evaluate, state, fractions)
  return gp.Points(_scaled(fractions), np.asarray(mean), np.asarray(deviation))


_evaluated = jax.jit(
  lambda evaluate, state, fractions: evaluate(state, fractions),
  static_argnums=0,
)


def _scaled(fractions):
  return _WIDTH * (fractions - 0.5)


def _data(memory, index):
  """What was seen of a set, in units."""
  return gp.Data(
    points=memory.points,
    outputs=(memory.outcomes - memory.location) / memory.scale,
    known=memory.arm == index,
  )


def _intervention(memory, arm, inputs):
  """do() of a set, from inputs of its process."""
  problem = memory.problem
  fraction = inputs / _WIDTH + 0.5
  value = (1 - fraction) * problem.low + fraction * problem.high
  value = np.clip(value, problem.low, problem.high)
  return types.Intervention(
    mask=jnp.asarray(arm.mask),
    values=jnp.asarray(np.where(arm.mask, value, 0.0)),
  )


def _choose(search, key, memory):
  affordable = [
    index
    for index, arm in enumerate(memory.arms)
    if intervention_sets.is_within_budget(
      memory.problem.budget, memory.spent + arm.cost
    )
  ]
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  if not affordable:
    nothing = np.zeros_like(memory.arms[0].mask)
    return _intervention(
      memory, memory.arms[0]._replace(mask=nothing), np.zeros(nothing.size)
    )
  if memory.step < search.num_initial([arm.mask for arm in memory.arms]):
    index = affordable[memory.step % len(affordable)]
    inputs = _far_from_others(rng, memory, index)
    return _intervention(memory, memory.arms[index], inputs)
  _, best = _best_tried(memory)

  def by_cost(index, improvement):
    cost = memory.arms[index].cost if search.per_cost else 1.0
    return improvement - np.log(cost)

  improvements = {
    index: np.asarray(
      _improvements(
        memory.arms[index].sample, *memory.arms[index].predicted, best
      )
    )
    for index in affordable
  }
  highest = sorted(
    affordable, key=lambda index: -by_cost(index, improvements[index].max())
  )
  climbed = []
  for index in highest[:_CLIMBED]:
    first = memory.arms[index].candidates.inputs[np.argmax(improvements[index])]
    climbed.append((index, *_climb(search, rng, memory, index, first, best)))
  index, _, inputs = max(climbed, key=lambda end: by_cost(*end[:2]))
  return _intervention(memory, memory.arms[index], inputs)


def _far_from_others(rng, memory, index):
  """The next point of a space-filling design.

  The furthest from the points so far of a few random ones (Mitchell,
  "Spectrally Optimal Sampling for Distribution Ray Tracing", 1991).
  """
  mask = memory.arms[index].mask
  choices = _scaled(rng.random((_DESIGN_CHOICES, mask.size)))
  choices = np.where(mask, choices, 0.0)
  tried = memory.points.inputs[memory.arm == index]
  if not len(tried):
    return choices[0]
  apart = np.square(choices[:, None] - tried).sum(-1).min(1)
  return choices[np.argmax(apart)]


def _best_tried(memory):
  """Which step has the highest posterior mean, and that mean.

  Before the first step it is -1, and the mean is that of the observations.
  """
  if not memory.step:
    return -1, 0.0
  means = np.full(memory.arm.size, -np.inf)
  for index, arm in enumerate(memory.arms):
    known = memory.arm == index
    if known.any():
      mean = _means(arm.sample, arm.mask, _data(memory, index), memory.points)
      means[known] = np.asarray(mean)[known]
  return int(np.argmax(means)), float(means.max())


_process_each = jax.vmap(gp.process, (0, None, None))
_condition_each = jax.vmap(gp.predict, (0, None, None))


def _predict_each(sample, columns, data, points):
  """[K, P] means and [K, P] deviations, by each of the hyperparameters."""
  processes = _process_each(sample.parameters, columns, data)
  return _condition_each(processes, data, points)


def _average(sample, columns, data, points):
  """[P] posterior means."""
  mean, _ = _predict_each(sample, columns, data, points)
  return jnp.exp(sample.log_weight) @ mean


def _improve(sample, mean, deviation, best):
  """[P] log of what the best posterior mean is expected to gain.

  Of an outcome with noise counts by how much it moves the mean at the point:
  the quantile improvement of Picheny et al., "Quantile-Based Optimization of
  Noisy Computer Experiments with Tunable Precision" (2013), at the median.
  Without noise that is the expected improvement.
  """
  noise = jnp.exp(sample.parameters.noise)[:, None]
  moves = jnp.square(deviation) / jnp.hypot(deviation, noise)
  each = gp.log_expected_improvement(mean, moves, best)
  return jax.nn.logsumexp(each + sample.log_weight[:, None], 0)


def _loss_and_slopes(
  evaluate, inputs, directions, state, sample, processes, data, best
):
  """Less the log improvement at a point, and its slopes in some directions."""

  def loss(inputs):
    mean, deviation = evaluate(state, inputs[None] / _WIDTH + 0.5)
    point = gp.Points(inputs[None], mean, deviation)
    predicted = _condition_each(processes, data, point)
    return -_improve(sample, *predicted, best)[0]

  # Forwards: to go back through a prior's loop takes longer, and to compile.
  def along(direction):
    return jax.jvp(loss, (inputs,), (direction,))

  return jax.vmap(along, out_axes=(None, 0))(directions)


_processes = jax.jit(_process_each)
_predicted = jax.jit(_predict_each)
_means = jax.jit(_average)
_improvements = jax.jit(_improve)
_loss_and_slopes_at = jax.jit(_loss_and_slopes, static_argnums=0)


def _climb(search, rng, memory, index, first, best):
  """Of a set: the highest log improvement, and where it is."""
  arm, data = memory.arms[index], _data(memory, index)
  processes = _processes(arm.sample.parameters, arm.mask, data)
  starts = [first]
  if data.known.any():
    outputs = np.where(data.known, data.outputs, -np.inf)
    nudge = _NUDGE * _WIDTH * rng.normal(size=arm.mask.size)
    starts.append(data.points.inputs[np.argmax(outputs)] + nudge * arm.mask)

  given = jax.tree.map(
    jnp.asarray, (arm.prior, arm.sample, processes, data, best)
  )

  directions = np.eye(arm.mask.size)[arm.mask]

  def loss(inside):
    value, slopes = _loss_and_slopes_at(
      search.prior.evaluate, inside @ directions, directions, *given
    )
    return float(value), np.asarray(slopes)

  bounds = [(-_WIDTH / 2, _WIDTH / 2)] * int(arm.mask.sum())
  ends = [
    optimize.minimize(
      loss,
      np.clip(start[arm.mask], -_WIDTH / 2, _WIDTH / 2),
      jac=True,
      method='L-BFGS-B',
      bounds=bounds,
      options={'maxiter': _MOST_ITERATIONS},
    )
    for start in starts
  ]
  end = min(ends, key=lambda end: end.fun)
  return -float(end.fun), end.x @ directions


def _observe(search, memory, step, intervention, outcome):
  del step
  problem, here = memory.problem, memory.step
  mask, values = np.asarray(intervention.mask), np.asarray(intervention.values)
  index = _index(memory, mask)
  if here == memory.arm.size:
    raise errors.UsageError(
      f'the episode has {here} interventions, and another one came'
    )
  arm = memory.arms[index]
  width = np.where(problem.high > problem.low, problem.high - problem.low, 1.0)
  fractions = np.where(mask, (values - problem.low) / width, 0.5)
  point = _points(search, arm.prior, fractions[None])
  signed = float(problem.goal * outcome[np.argmax(problem.target)])
  if not np.isfinite(signed):
    raise errors.UsageError(
      f'the target was seen to be {signed} at intervention {here}; outcomes '
      'are finite'
    )
  memory = memory._replace(
    step=here + 1,
    arm=_with(memory.arm, here, index),
    points=gp.Points(
      *(
        _with(old, here, new[0])
        for old, new in zip(memory.points, point, strict=True)
      )
    ),
    outcomes=_with(memory.outcomes, here, signed),
    spent=memory.spent + arm.cost,
  )
  seen = memory.outcomes[: here + 1]
  units_change = search.own_units and seen.std() > 0
  if units_change:
    memory = memory._replace(
      location=float(seen.mean()), scale=float(seen.std())
    )

  def follow(number, arm):
    data = _data(memory, number)
    if number == index:
      mode = gp.fit(arm.mask, data, arm.prior_mode, (arm.mode,))
      sample = gp.sample(arm.mask, data, arm.prior_mode, mode)
      arm = arm._replace(mode=mode, sample=sample)
    elif not (units_change and data.known.any()):
      return arm
    predicted = _predicted(arm.sample, arm.mask, data, arm.candidates)
    return arm._replace(predicted=jax.block_until_ready(predicted))

  arms = tuple(follow(*each) for each in enumerate(memory.arms))
  return memory._replace(arms=arms)


def _index(memory, mask):
  """The number of the set that a mask sets."""
  for index, arm in enumerate(memory.arms):
    if (arm.mask == mask).all():
      return index
  raise errors.UsageError(
    f'variables {np.flatnonzero(mask).tolist()} were set, which are none of '
    'the sets that this policy chooses from'
  )


def _with(array, index, value):
  """A copy of an array with one row replaced."""
  array = array.copy()
  array[index] = value
  return array


def _recommend(memory):
  if memory.step:
    step, _ = _best_tried(memory)
    arm = memory.arms[memory.arm[step]]
    return _intervention(memory, arm, memory.points.inputs[step])
  # Before any outcome: where the prior mean is highest.
  arm = max(memory.arms, key=lambda arm: arm.candidates.mean.max())
  first = np.argmax(arm.candidates.mean)
  return _intervention(memory, arm, arm.candidates.inputs[first])
