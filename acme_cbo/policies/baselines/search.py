"""Bayesian optimization with Gaussian processes, the core of `gp_bo` and `cbo`.

A policy runs on the host and calls compiled numerics. All numbers are float64,
so that it must be called within `jax.enable_x64(True)`. Once the budget affords
no set, interventions are empty.

  T  interventions of the episode
  C  candidates of a set
  D  variables
  K  hyperparameter samples
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
from acme_cbo.scms import rounding

# Number of candidates of each set that are points of a Sobol sequence.
_NUM_SOBOL = 512
# Number of sets, those of the best candidates, in which gradient ascent
# maximizes the acquisition function.
_NUM_ASCENTS = 2
_MAX_ITERATIONS = 10
# One ascent starts at the best candidate. Another one starts at the best point
# so far, with noise of this standard deviation as a fraction of the domain.
_START_NOISE = 0.02
# Random points of which a space-filling design takes the best one.
_NUM_DESIGN_CANDIDATES = 32
# Prior length scale of a search: a twelfth of a domain.
_LENGTH = 0.3
# Width of a domain over which a uniform distribution has variance 1.
_WIDTH = np.sqrt(12.0)


class _Arm(NamedTuple):
  """A set of variables, with the Gaussian process over their values.

  Attributes:
    mask: [D] bool, the set.
    cost: cost of intervening on the set.
    prior: state of the search's prior for this set.
    candidates: C points.
    prior_mode: mode of the prior of the hyperparameters.
    mode: most probable hyperparameters.
    sample: K samples of the hyperparameters.
    predicted: [K, C] means and [K, C] standard deviations at the candidates.
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
  """State of a search.

  Attributes:
    problem: problem, as numpy arrays.
    arms: sets to choose from.
    location: origin of the units in which outcomes are modeled.
    scale: scale of these units.
    step: number of interventions so far.
    arm: [T] int, index of the arm of each step; -1 for steps to come.
    points: T points; inputs are centered and scaled fractions of the domains.
    outcomes: [T] outcomes of the target, signed by the goal, in its own units.
    spent: cost of all interventions so far.
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
  """Prior of E[Y | do], before any intervention.

  Attributes:
    fit: (problem, standardized, masks of the sets) -> one state per set.
      `standardized` is a tuple: standardized observations [N, D], their
      locations [D] and their scales [D].
    evaluate: (state of a set, fractions [C, D] of the domains) -> [C] means and
      [C] standard deviations of the target, standardized; more is better.
  """

  fit: Callable[..., list[Any]]
  evaluate: Callable[..., tuple[jax.Array, jax.Array]]


class Search(NamedTuple):
  """Options in which the methods differ.

  Attributes:
    sets: problem -> sets to choose from.
    prior: prior of the Gaussian processes.
    per_cost: whether the improvement is divided by the cost of the set.
    num_initial: masks of the sets -> number of initial, space-filling steps.
    own_units: whether outcomes are standardized by themselves instead of by the
      observations.
  """

  sets: Callable[[types.Problem], list[identification.Variables]]
  prior: Prior
  per_cost: bool
  num_initial: Callable[[Sequence[np.ndarray]], int]
  own_units: bool


def policy(search: Search) -> base.PolicyFunctions:
  """Returns the policy of a search."""
  return base.PolicyFunctions(
    init=functools.partial(_init, search),
    choose=functools.partial(_choose, search),
    observe=functools.partial(_observe, search),
    recommend=_recommend,
  )


def _init(search, problem, observations, num_interventions):
  observations = check_observations(observations)
  problem = jax.tree.map(np.asarray, problem)
  # Sets that exceed the whole budget are not allowed.
  affordable = np.asarray(intervention_sets.affordable(problem, jnp.zeros(())))
  problem = problem._replace(sets=affordable)
  rows = np.where(problem.exists, observations, 0.0)
  deviation = rounding.standard_deviation(rows)
  # The mean of a constant may be off by a rounding.
  location = np.where(deviation > 0, rows.mean(0), rows[0])
  scale = np.where(deviation > 0, deviation, 1.0)
  standardized = (rows - location) / scale

  num_variables = problem.low.size
  masks = [
    np.isin(np.arange(num_variables), list(chosen))
    for chosen in search.sets(problem)
  ]
  states = search.prior.fit(problem, (standardized, location, scale), masks)

  def arm(mask, state):
    cost = float(problem.cost[mask].sum())
    if search.per_cost and not cost > 0:
      raise errors.UsageError(
        f'the cost of variables {np.flatnonzero(mask).tolist()} is {cost:g}; '
        'the improvement per cost needs a positive cost'
      )
    candidates = _points(search, state, _fractions(mask))
    mode = gp.prior_mode(mask, _LENGTH)
    sample = gp.sample(mask, no_data, mode, mode)
    predicted = _predict(sample, mask, no_data, candidates)
    return _Arm(mask, cost, state, candidates, mode, mode, sample, predicted)

  zeros = np.zeros(int(num_interventions))
  points = gp.Points(np.zeros((zeros.size, num_variables)), zeros, zeros)
  no_data = gp.Data(points, zeros, zeros.astype(bool))
  target = int(np.argmax(problem.target))
  return _Memory(
    problem=problem,
    arms=tuple(arm(*each) for each in zip(masks, states, strict=True)),
    location=float(problem.goal * location[target]),
    scale=float(scale[target]),
    step=0,
    arm=zeros.astype(int) - 1,
    points=points,
    outcomes=zeros,
    spent=0.0,
  )


def check_observations(observations: Any) -> np.ndarray:
  """Checks observations and copies them to the host.

  Args:
    observations: [N, D] observations.

  Returns:
    [N, D] observations, as a numpy array.

  Raises:
    errors.UsageError: the dtype is not float64, or N is less than 2.
  """
  dtype = jnp.asarray(observations).dtype
  if dtype != jnp.float64:
    raise errors.UsageError(
      f'observations are {dtype}, and this policy needs float64; create them '
      'and call the policy within jax.enable_x64(True)'
    )
  if len(observations) < 2:
    raise errors.UsageError(
      f'observations have {len(observations)} row(s); at least 2 are needed'
    )
  return np.asarray(observations)


def _fractions(mask):
  """Returns the candidates of a set, [C, D] fractions, the center first."""
  size = int(mask.sum())
  # At most 64 corners of the box.
  corners = (np.arange(2 ** min(size, 6))[:, None] >> np.arange(size)) & 1
  sobol = qmc.Sobol(size, rng=0).random(_NUM_SOBOL)
  inside = np.concatenate([np.full((1, size), 0.5), corners, sobol])
  # The same number for every set, so that one program serves all.
  inside = inside[: 1 + _NUM_SOBOL]
  fractions = np.full((len(inside), mask.size), 0.5)
  fractions[:, mask] = inside
  return fractions


def _points(search, state, fractions):
  """Evaluates the prior at [C, D] fractions; returns C points."""
  mean, deviation = _evaluate_prior(search.prior.evaluate, state, fractions)
  return gp.Points(_scale(fractions), np.asarray(mean), np.asarray(deviation))


_evaluate_prior = jax.jit(
  lambda evaluate, state, fractions: evaluate(state, fractions),
  static_argnums=0,
)


def _scale(fractions):
  """Scales fractions so that a uniform distribution has mean 0, variance 1."""
  return _WIDTH * (fractions - 0.5)


def _data(memory, index):
  """Returns the data of an arm, in the units of the search."""
  return gp.Data(
    points=memory.points,
    outputs=(memory.outcomes - memory.location) / memory.scale,
    row_mask=memory.arm == index,
  )


def _intervention(memory, arm, inputs):
  """Returns the intervention on an arm at inputs of its process."""
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
    empty = np.zeros_like(memory.arms[0].mask)
    return _intervention(
      memory, memory.arms[0]._replace(mask=empty), np.zeros(empty.size)
    )
  if memory.step < search.num_initial([arm.mask for arm in memory.arms]):
    index = affordable[memory.step % len(affordable)]
    inputs = _design_point(rng, memory, index)
    return _intervention(memory, memory.arms[index], inputs)
  _, best = _best_step(memory)

  def per_cost(index, improvement):
    cost = memory.arms[index].cost if search.per_cost else 1.0
    return improvement - np.log(cost)

  improvements = {
    index: np.asarray(
      _improvement(
        memory.arms[index].sample, *memory.arms[index].predicted, best
      )
    )
    for index in affordable
  }
  highest = sorted(
    affordable, key=lambda index: -per_cost(index, improvements[index].max())
  )
  ascents = []
  for index in highest[:_NUM_ASCENTS]:
    first = memory.arms[index].candidates.inputs[np.argmax(improvements[index])]
    ascents.append((index, *_ascend(search, rng, memory, index, first, best)))
  index, _, inputs = max(ascents, key=lambda ascent: per_cost(*ascent[:2]))
  return _intervention(memory, memory.arms[index], inputs)


def _design_point(rng, memory, index):
  """Returns the next point of a space-filling design.

  It is the one of a few random points that is farthest from the points so far
  (Mitchell, "Spectrally Optimal Sampling for Distribution Ray Tracing", 1991).
  """
  mask = memory.arms[index].mask
  candidates = _scale(rng.random((_NUM_DESIGN_CANDIDATES, mask.size)))
  candidates = np.where(mask, candidates, 0.0)
  existing = memory.points.inputs[memory.arm == index]
  if not len(existing):
    return candidates[0]
  distance = np.square(candidates[:, None] - existing).sum(-1).min(1)
  return candidates[np.argmax(distance)]


def _best_step(memory):
  """Returns the step with the highest posterior mean, and this mean.

  Before the first step these are -1 and 0, the mean of the observations.
  """
  if not memory.step:
    return -1, 0.0
  means = np.full(memory.arm.size, -np.inf)
  for index, arm in enumerate(memory.arms):
    row_mask = memory.arm == index
    if row_mask.any():
      mean = _mean(arm.sample, arm.mask, _data(memory, index), memory.points)
      means[row_mask] = np.asarray(mean)[row_mask]
  return int(np.argmax(means)), float(means.max())


_process_per_sample = jax.vmap(gp.process, (0, None, None))
_predict_per_process = jax.vmap(gp.predict, (0, None, None))


def _predict_per_sample(sample, columns, data, points):
  """Returns [K, P] means and [K, P] deviations, per hyperparameter sample."""
  processes = _process_per_sample(sample.parameters, columns, data)
  return _predict_per_process(processes, data, points)


def _average_mean(sample, columns, data, points):
  """Returns [P] posterior means, averaged over hyperparameter samples."""
  mean, _ = _predict_per_sample(sample, columns, data, points)
  return jnp.exp(sample.log_weight) @ mean


def _log_improvement(sample, mean, deviation, best):
  """Returns [P] the log of the expected gain of the best posterior mean.

  A noisy outcome counts by how much it changes the posterior mean at its point.
  This is the quantile improvement of Picheny et al., "Quantile-Based
  Optimization of Noisy Computer Experiments with Tunable Precision" (2013), at
  the median; without noise it is the expected improvement.
  """
  noise = jnp.exp(sample.parameters.noise)[:, None]
  change = jnp.square(deviation) / jnp.hypot(deviation, noise)
  each = gp.log_expected_improvement(mean, change, best)
  return jax.nn.logsumexp(each + sample.log_weight[:, None], 0)


def _loss_and_slopes(
  evaluate, inputs, directions, state, sample, processes, data, best
):
  """Returns the negative log improvement and its directional derivatives."""

  def loss(inputs):
    mean, deviation = evaluate(state, inputs[None] / _WIDTH + 0.5)
    point = gp.Points(inputs[None], mean, deviation)
    predicted = _predict_per_process(processes, data, point)
    return -_log_improvement(sample, *predicted, best)[0]

  # Forward mode: reverse mode through the loop of a prior is slower to run and
  # to compile.
  def along(direction):
    return jax.jvp(loss, (inputs,), (direction,))

  return jax.vmap(along, out_axes=(None, 0))(directions)


_processes = jax.jit(_process_per_sample)
_predict = jax.jit(_predict_per_sample)
_mean = jax.jit(_average_mean)
_improvement = jax.jit(_log_improvement)
_jit_loss_and_slopes = jax.jit(_loss_and_slopes, static_argnums=0)


def _ascend(search, rng, memory, index, first, best):
  """Maximizes the log improvement of an arm; returns maximum and inputs."""
  arm, data = memory.arms[index], _data(memory, index)
  processes = _processes(arm.sample.parameters, arm.mask, data)
  starts = [first]
  if data.row_mask.any():
    outputs = np.where(data.row_mask, data.outputs, -np.inf)
    noise = _START_NOISE * _WIDTH * rng.normal(size=arm.mask.size)
    starts.append(data.points.inputs[np.argmax(outputs)] + noise * arm.mask)

  arguments = jax.tree.map(
    jnp.asarray, (arm.prior, arm.sample, processes, data, best)
  )

  directions = np.eye(arm.mask.size)[arm.mask]

  def loss(inside):
    value, slopes = _jit_loss_and_slopes(
      search.prior.evaluate, inside @ directions, directions, *arguments
    )
    return float(value), np.asarray(slopes)

  bounds = [(-_WIDTH / 2, _WIDTH / 2)] * int(arm.mask.sum())
  results = [
    optimize.minimize(
      loss,
      np.clip(start[arm.mask], -_WIDTH / 2, _WIDTH / 2),
      jac=True,
      method='L-BFGS-B',
      bounds=bounds,
      options={'maxiter': _MAX_ITERATIONS},
    )
    for start in starts
  ]
  result = min(results, key=lambda result: result.fun)
  return -float(result.fun), result.x @ directions


def _observe(search, memory, step, intervention, outcome):
  del step
  problem, current = memory.problem, memory.step
  mask, values = np.asarray(intervention.mask), np.asarray(intervention.values)
  index = _index(memory, mask)
  if current == memory.arm.size:
    raise errors.UsageError(
      f'the episode is over after {current} interventions, but another '
      'outcome was observed'
    )
  if index is None:
    # A user made it: no process is of this set.
    cost = float(problem.cost[mask].sum())
    return memory._replace(spent=memory.spent + cost)
  arm = memory.arms[index]
  width = np.where(problem.high > problem.low, problem.high - problem.low, 1.0)
  fractions = np.where(mask, (values - problem.low) / width, 0.5)
  point = _points(search, arm.prior, fractions[None])
  signed = float(problem.goal * outcome[np.argmax(problem.target)])
  if not np.isfinite(signed):
    raise errors.UsageError(
      f'the target is {signed} after intervention {current}; outcomes must be '
      'finite'
    )
  memory = memory._replace(
    step=current + 1,
    arm=_replace_row(memory.arm, current, index),
    points=gp.Points(
      *(
        _replace_row(old, current, new[0])
        for old, new in zip(memory.points, point, strict=True)
      )
    ),
    outcomes=_replace_row(memory.outcomes, current, signed),
    spent=memory.spent + arm.cost,
  )
  outcomes = memory.outcomes[: current + 1]
  scale = float(rounding.standard_deviation(outcomes))
  units_change = search.own_units and scale > 0
  if units_change:
    memory = memory._replace(location=float(outcomes.mean()), scale=scale)

  def update(number, arm):
    data = _data(memory, number)
    if number == index:
      mode = gp.fit(arm.mask, data, arm.prior_mode, (arm.mode,))
      sample = gp.sample(arm.mask, data, arm.prior_mode, mode)
      arm = arm._replace(mode=mode, sample=sample)
    elif not (units_change and data.row_mask.any()):
      return arm
    predicted = _predict(arm.sample, arm.mask, data, arm.candidates)
    return arm._replace(predicted=jax.block_until_ready(predicted))

  arms = tuple(update(*each) for each in enumerate(memory.arms))
  return memory._replace(arms=arms)


def _index(memory, mask):
  """Returns the index of the arm of a mask, or None."""
  for index, arm in enumerate(memory.arms):
    if (arm.mask == mask).all():
      return index
  return None


def _replace_row(array, index, value):
  """Returns a copy of an array with one row replaced."""
  array = array.copy()
  array[index] = value
  return array


def _recommend(memory):
  if memory.step:
    step, _ = _best_step(memory)
    arm = memory.arms[memory.arm[step]]
    return _intervention(memory, arm, memory.points.inputs[step])
  # Before any outcome: the maximum of the prior mean.
  arm = max(memory.arms, key=lambda arm: arm.candidates.mean.max())
  first = np.argmax(arm.candidates.mean)
  return _intervention(memory, arm, arm.candidates.inputs[first])
