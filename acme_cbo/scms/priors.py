"""Prior over SCMs: samples the tasks that a policy is trained on."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import config
from acme_cbo.scms import graphs
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import mechanisms
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import sampling
from acme_cbo.scms import simulate

# Least and largest weight of a strong latent cause, where those of other causes
# are of the order of 1.
_CONFOUNDING = (1.0, 4.0)
# Largest ratio of the costs of two variables.
_MAX_COST = 20.0
# Logarithms of the fewest and the most values that a variable may be set to,
# where it has levels.
_LOG_LEVELS = (math.log(1.6), math.log(12.4))
# Nominal number of samples of an averaged outcome (`Problem.samples`).
_MANY_SAMPLES = 1000.0
# Number of draws for estimates of a variable's mean and deviation.
_SCALING_DRAWS = 256
# Number of sampling rounds after which a prior that rejects too many SCMs is
# reported instead of sampled further.
_MAX_ROUNDS = 64


def sample_scm(key: jax.Array, prior: config.Prior) -> types.SCM:
  """Samples one SCM, without rejection by the gain of its best intervention.

  Args:
    key: random key, consumed.
    prior: settings of the prior.

  Returns:
    An `SCM` of D = `prior.max_variables` columns, in random order.
  """
  key, key_graph, key_mechanism, key_scaling = jax.random.split(key, 4)
  num_nodes = prior.max_variables
  node = jnp.arange(num_nodes)
  per_node = (num_nodes,)
  levels = sampling.levels(
    key,
    {
      'size': (),
      'graph': (),
      'family': (),
      'density': (),
      'noise_ratio': per_node,
      'noise': per_node,
      'settable': per_node,
      'target': per_node,
      'half_width': per_node,
      'center': per_node,
      'scale': per_node,
      'location': per_node,
      'goal': (),
      'order': per_node,
      'families': per_node,
      'latent': per_node,
      'sets': (),
      'averaged': (),
      'cost': per_node,
      'budgeted': (),
      'budget': (),
      'noiseless': (),
      'uneven': (),
      'confounded': (),
      'confounder': (4,),
      'informed': (2,),
      'edges': (num_nodes, num_nodes),
      'stepped': (),
      'steps': (2, *per_node),
    },
  )
  num_sizes = prior.max_variables - prior.min_variables + 1
  size = prior.min_variables + sampling.category(
    levels['size'], (1.0,) * num_sizes
  )
  graph = sampling.category(levels['graph'], prior.graph_weights.in_order)
  family = sampling.category(levels['family'], prior.family_weights.in_order)
  density = sampling.between(
    levels['density'], prior.min_density, prior.max_density
  )
  parents = graphs.sample(key_graph, graph, size, density, num_nodes)
  present = node < size

  # The target may be anywhere in the order, but needs an ancestor that may be
  # set.
  exists = present & (levels['latent'] >= prior.latent)
  may_set = (levels['settable'] < prior.settable) & exists
  reachable = exists & (graphs.ancestors(parents) & may_set[None]).any(1)
  target = jnp.argmax(jnp.where(reachable, levels['target'], -1.0))
  is_target = node == target
  confounder = None
  if prior.confounded:
    confounder = _confounder(levels['confounder'], parents, may_set, is_target)
    is_confounded = confounder.any() & (levels['confounded'] < prior.confounded)
    confounder = jnp.where(is_confounded, confounder, 0.0)
    parents |= confounder != 0
    # The first node of the order has no causes.
    exists &= ~(is_confounded & (node == 0))
    may_set &= exists

  pure = (1.0,) * mechanisms.Family.MIXED
  mechanism = mechanisms.sample(
    key_mechanism,
    jnp.where(
      family == mechanisms.Family.MIXED,
      sampling.category(levels['families'], pure),
      family,
    ),
    parents,
    prior.num_hidden,
    prior.min_length_scale,
    (levels['uneven'] < prior.uneven) if prior.uneven else None,
  )
  if confounder is not None:
    mechanism = mechanism._replace(linear=mechanism.linear + confounder)
  noise_ratio = sampling.between(
    levels['noise_ratio'], prior.min_noise, prior.max_noise
  )
  is_noiseless = (levels['noiseless'] < prior.noiseless / 2) | (
    (levels['noiseless'] < prior.noiseless) & is_target
  )
  noise_ratio = jnp.where(is_noiseless, 0.0, noise_ratio)
  noise = sampling.category(levels['noise'], prior.noise_weights.in_order)
  mechanism, mean, deviation = _standardize(
    key_scaling, mechanism._replace(noise=noise), parents, noise_ratio
  )

  half_width = sampling.between(
    levels['half_width'], prior.min_width, prior.max_width
  )
  offset = sampling.between(
    levels['center'], -prior.max_centre, prior.max_centre
  )
  half, center = deviation * half_width, mean + deviation * offset

  # Origins and sizes of the units are random, so that they carry no
  # information.
  scale = jnp.exp(
    sampling.between(levels['scale'], jnp.log(0.1), jnp.log(10.0))
  )
  location = scale * 5 * sampling.normal(levels['location'])
  goal = sampling.sign(levels['goal'])

  sets = _sets(levels['sets'], may_set & ~is_target, prior)
  cost = jnp.exp(sampling.between(levels['cost'], 0.0, jnp.log(_MAX_COST)))
  set_costs = sets @ cost  # [M]
  mean_total = prior.num_interventions * set_costs.sum() / (set_costs > 0).sum()
  budget = jnp.maximum(
    mean_total * sampling.between(levels['budget'], 0.3, 1.0), set_costs.max()
  )
  problem = types.Problem(
    exists=exists,
    sets=sets,
    target=is_target,
    goal=goal,
    low=jnp.where(exists, location + scale * (center - half), 0.0),
    high=jnp.where(exists, location + scale * (center + half), 0.0),
    cost=cost,
    budget=jnp.where(levels['budgeted'] < prior.budgeted, budget, jnp.inf),
    samples=jnp.where(levels['averaged'] < prior.averaged, _MANY_SAMPLES, 1.0),
    edges=(
      _known_edges(levels, parents, exists, prior) if prior.informed else None
    ),
    levels=_num_levels(levels, prior) if prior.stepped else None,
  )
  scm = types.SCM(
    problem=problem,
    mechanism=mechanism,
    present=present,
    parents=parents,
    order=node,
    location=location,
    scale=scale,
    graph=graph,
    family=family,
  )
  return simulate.relabel(scm, jnp.argsort(levels['order']))


@functools.partial(jax.jit, static_argnames='prior')
def sample_task(
  key: jax.Array, prior: config.Prior
) -> tuple[types.Task, jax.Array]:
  """Samples one SCM with its objective, and whether the prior accepts it.

  Args:
    key: random key, consumed.
    prior: settings of the prior.

  Returns:
    The task, and [] bool, whether the target has an ancestor that may be set
    and the best intervention gains at least `prior.min_gain` standard
    deviations of the target.
  """
  key_scm, key_bank, key_partial = jax.random.split(key, 3)
  scm = sample_scm(key_scm, prior)
  bank = simulate.noise_bank(key_bank, scm, prior.bank_size)
  objective = objective_lib.objective(
    scm, bank, prior.num_cells, prior.max_set_size, key_partial
  )
  settable_ancestors = (
    graphs.ancestors(scm.parents) & scm.problem.settable[None]
  )
  reachable = (settable_ancestors & scm.problem.target[:, None]).any()
  # Internal units are observational deviations.
  gain = objective.best - objective.baseline
  # A gain of NaN is accepted, not redrawn, so that later checks report it.
  return types.Task(scm, objective), reachable & ~(gain < prior.min_gain)


class _FillState(NamedTuple):
  """Carry of the sampling loop.

  Attributes:
    key: random key of the next round.
    tasks: [B, ...] accepted tasks; zeros where none has been accepted yet.
    filled: [] int32, number of accepted tasks so far; may exceed B.
    rounds: [] int32, number of rounds so far.
  """

  key: jax.Array
  tasks: types.Task
  filled: jax.Array
  rounds: jax.Array


@functools.partial(jax.jit, static_argnames=('prior', 'num_tasks'))
def fill(
  key: jax.Array, prior: config.Prior, num_tasks: int
) -> tuple[types.Task, jax.Array]:
  """Samples a batch of tasks by rejection.

  Args:
    key: random key, consumed.
    prior: settings of the prior.
    num_tasks: number of tasks, B.

  Returns:
    A `Task` with a leading axis B, and [] bool, whether the batch is complete.
    `require_complete` raises if it is not.
  """
  per_round = -(-num_tasks * 5 // 8)
  draw = jax.vmap(lambda k: sample_task(k, prior))

  def is_incomplete(state):
    return (state.filled < num_tasks) & (state.rounds < _MAX_ROUNDS)

  def sample_round(state):
    key, key_draw = jax.random.split(state.key)
    candidates, accepted = draw(jax.random.split(key_draw, per_round))
    index = state.filled + jnp.cumsum(accepted) - 1
    index = jnp.where(accepted, index, num_tasks)  # Dropped by the scatter.
    tasks = jax.tree.map(
      lambda old, new: old.at[index].set(new, mode='drop'),
      state.tasks,
      candidates,
    )
    filled = state.filled + accepted.sum(dtype=jnp.int32)
    return _FillState(key, tasks, filled, state.rounds + 1)

  shapes, _ = sample_task.eval_shape(key, prior)
  empty = jax.tree.map(
    lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), shapes
  )
  start = _FillState(key, empty, jnp.int32(0), jnp.int32(0))
  end = jax.lax.while_loop(is_incomplete, sample_round, start)
  return end.tasks, end.filled >= num_tasks


def sample(key: jax.Array, prior: config.Prior, num_tasks: int) -> types.Task:
  """Samples a complete batch of tasks; see `fill` and `require_complete`."""
  return require_complete(*fill(key, prior, num_tasks))


def require_complete(tasks: types.Task, complete: jax.Array) -> types.Task:
  """Returns the tasks of `fill` if the batch is complete. Not for use in `jit`.

  Args:
    tasks: [B, ...] tasks returned by `fill`.
    complete: [] bool returned by `fill`.

  Returns:
    The tasks.

  Raises:
    errors.UsageError: the batch is incomplete, because the prior rejects nearly
      every SCM.
  """
  if not complete:
    raise errors.UsageError(
      'the prior rejects nearly every SCM; lower scms.min_gain or widen the '
      'domains'
    )
  return tasks


def _num_levels(levels, prior):
  """Samples how many values each variable may be set to: [D]."""
  is_stepped, number = levels['steps']
  is_stepped = (is_stepped < 0.5) & (levels['stepped'] < prior.stepped)
  # Few more often than many.
  number = jnp.round(jnp.exp(sampling.between(number, *_LOG_LEVELS)))
  return jnp.where(is_stepped, number, 0.0)


def _known_edges(levels, parents, exists, prior):
  """Samples what is known of the edges.

  Nothing, or everything, or a random share of all that can be known.

  Args:
    levels: uniform levels of the draws.
    parents: [D, D] bool, `parents[j, i]`.
    exists: [D] bool, the observed variables.
    prior: settings of the prior.

  Returns:
    [D, D] as `Problem.edges`.
  """
  is_informed, share = levels['informed']
  share = jnp.where(is_informed < prior.informed, 1.5 * share, 0.0)
  is_known = levels['edges'] < share
  return jnp.where(is_known, graphs.known_edges(parents, exists), 0.0)


def _confounder(levels, parents, may_set, is_target):
  """Samples the weights of a strong cause of the target and one of its parents.

  It is the first node of the causal order, which has no causes. Where its two
  effects oppose that of the parent, the target is correlated with the parent in
  the other direction than the parent changes it.

  Args:
    levels: [4] uniform levels of the draw.
    parents: [D, D] bool, `parents[j, i]`.
    may_set: [D] bool, variables that may be set.
    is_target: [D] bool.

  Returns:
    [D, D] linear weights; 0 where the target has no parent to confound.
  """
  node = jnp.arange(len(parents))
  possible = parents[jnp.argmax(is_target)] & may_set & (node > 0)
  # A random one: the first that is possible, from a random node on.
  start = (levels[0] * len(parents)).astype(jnp.int32)
  turn = (node - start) % len(parents)
  is_parent = possible & (turn == jnp.where(possible, turn, node.size).min())
  weights = sampling.between(levels[1:3], *_CONFOUNDING)
  to_parent = weights[0] * is_parent
  to_target = weights[1] * sampling.sign(levels[3]) * is_target
  column = jnp.where(possible.any(), to_parent + to_target, 0.0)
  return column[:, None] * (node == 0)


def _sets(level, settable, prior):
  """Samples the sets that may be set together.

  Args:
    level: [] uniform level of the draw.
    settable: [D] bool, variables that may be set.
    prior: settings of the prior.

  Returns:
    [M, D] bool; rows of sets that are not allowed are empty.
  """
  max_size = prior.max_set_size
  subsets = intervention_sets.subsets(np.ones(settable.size, bool), max_size)
  size = subsets.sum(1)
  largest = jnp.minimum(settable.sum(), max_size)
  singles_only, any_size, largest_only = jnp.arange(3) == sampling.category(
    level, prior.set_weights.in_order
  )
  size_fits = (
    (size == 1) & singles_only | any_size | (size == largest) & largest_only
  )
  possible = ~(subsets & ~settable).any(1)
  return subsets & (possible & size_fits)[:, None]


def _standardize(key, mechanism, parents, noise_ratio):
  """Scales the equations and the noise so that every variable has variance 1.

  Variables are standardized as they are generated (Ormaniec et al., 2024), so
  that neither variances nor explained fractions of variance grow along the
  causal order.

  Args:
    key: random key, consumed.
    mechanism: raw equations, nodes in causal order.
    parents: [D, D] bool, `parents[j, i]`.
    noise_ratio: [D] ratio of the deviation of the noise to that of the signal.

  Returns:
    The scaled mechanism, [D] means and [D] deviations of the variables.
  """
  num_nodes = parents.shape[-1]
  node = jnp.arange(num_nodes)
  is_root = ~parents.any(1)
  signal_scale = jnp.where(
    is_root, 0.0, 1 / jnp.sqrt(1 + jnp.square(noise_ratio))
  )
  noise_scale = jnp.sqrt(1 - jnp.square(signal_scale))
  mechanism = mechanism._replace(noise_scale=noise_scale)
  noise = mechanisms.noise(key, mechanism, _SCALING_DRAWS, num_nodes)

  def scale(u, j):
    raw = mechanisms.signal(mechanism, j, u)
    # The signal of a root is constant; its scale, and so its factor, is 0.
    spread = jnp.where(is_root[j], 1.0, raw.std())
    factor = signal_scale[j] / jnp.maximum(spread, 1e-3)
    uneven = mechanisms.noise_factor(mechanism, j, u)
    values = factor * (raw - raw.mean()) + noise[:, j] * uneven
    u = jnp.where(node == j, values[:, None], u)
    return u, (factor, -factor * raw.mean())

  u, (factor, bias) = jax.lax.scan(scale, jnp.zeros_like(noise), node)
  mechanism = mechanism._replace(
    bias=bias,
    linear=mechanism.linear * factor[:, None],
    output=mechanism.output * factor[:, None],
  )
  return mechanism, u.mean(0), u.std(0)
