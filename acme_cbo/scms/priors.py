"""The distribution of SCMs that a policy is trained on: key -> Task."""

import functools
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

# Where several variables may be set at once: how often it is but one at a time,
# any of the allowed number, or always as many as are allowed.
_KINDS_OF_SETS = (0.3, 0.5, 0.2)
# The dearest variable costs at most so many times what the cheapest does.
_MAX_COST = 20.0
# Draws of which an averaged outcome is said to be the mean.
_MANY_SAMPLES = 1000.0
# Draws from which a variable's mean and deviation are taken.
_SCALING_DRAWS = 256
# A prior that rejects more than this is refused instead of drawn for ever.
_MAX_ROUNDS = 64


def sample_scm(key: jax.Array, prior: config.PriorConfig) -> types.SCM:
  """One SCM, whatever its best intervention gains.

  Args:
    key: consumed.
    prior: the settings.

  Returns:
    An `SCM` of D = `prior.max_variables` columns, in random order.
  """
  key, key_graph, key_mechanism, key_scaling = jax.random.split(key, 4)
  num_nodes = prior.max_variables
  node = jnp.arange(num_nodes)
  per_node = (num_nodes,)
  drawn = sampling.levels(
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
      'centre': per_node,
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
    },
  )
  num_sizes = prior.max_variables - prior.min_variables + 1
  size = prior.min_variables + sampling.category(
    drawn['size'], (1.0,) * num_sizes
  )
  graph = sampling.category(drawn['graph'], prior.graph_weights)
  family = sampling.category(drawn['family'], prior.family_weights)
  density = sampling.between(
    drawn['density'], prior.min_density, prior.max_density
  )
  parents = graphs.sample(key_graph, graph, size, density, num_nodes)
  present = node < size

  pure = (1.0,) * mechanisms.Family.MIXED
  mechanism = mechanisms.sample(
    key_mechanism,
    jnp.where(
      family == mechanisms.Family.MIXED,
      sampling.category(drawn['families'], pure),
      family,
    ),
    parents,
    prior.num_hidden,
    prior.min_length_scale,
  )
  noise_ratio = sampling.between(
    drawn['noise_ratio'], prior.min_noise, prior.max_noise
  )
  kinds = sampling.category(drawn['noise'], prior.noise_weights)
  mechanism, mean, deviation = _standardise(
    key_scaling, mechanism._replace(noise=kinds), parents, noise_ratio
  )

  # The target, anywhere in the order, with an ancestor that may be set.
  exists = present & (drawn['latent'] >= prior.latent)
  may_set = (drawn['settable'] < prior.settable) & exists
  reachable = exists & (graphs.ancestors(parents) & may_set[None]).any(1)
  target = jnp.argmax(jnp.where(reachable, drawn['target'], -1.0))
  is_target = node == target

  half_width = sampling.between(
    drawn['half_width'], prior.min_width, prior.max_width
  )
  offset = sampling.between(
    drawn['centre'], -prior.max_centre, prior.max_centre
  )
  half, centre = deviation * half_width, mean + deviation * offset

  # Units tell nothing: any origin, any size.
  scale = jnp.exp(sampling.between(drawn['scale'], jnp.log(0.1), jnp.log(10.0)))
  location = scale * 5 * sampling.normal(drawn['location'])
  goal = sampling.sign(drawn['goal'])

  sets = _sets(drawn['sets'], may_set & ~is_target, prior.max_set_size)
  cost = jnp.exp(sampling.between(drawn['cost'], 0.0, jnp.log(_MAX_COST)))
  each = sets @ cost  # [M]
  of_all = prior.num_interventions * each.sum() / (each > 0).sum()
  budget = jnp.maximum(
    of_all * sampling.between(drawn['budget'], 0.3, 1.0), each.max()
  )
  problem = types.Problem(
    exists=exists,
    sets=sets,
    target=is_target,
    goal=goal,
    low=jnp.where(exists, location + scale * (centre - half), 0.0),
    high=jnp.where(exists, location + scale * (centre + half), 0.0),
    cost=cost,
    budget=jnp.where(drawn['budgeted'] < prior.budgeted, budget, jnp.inf),
    samples=jnp.where(drawn['averaged'] < prior.averaged, _MANY_SAMPLES, 1.0),
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
  return simulate.relabel(scm, jnp.argsort(drawn['order']))


@functools.partial(jax.jit, static_argnames='prior')
def sample_task(
  key: jax.Array, prior: config.PriorConfig
) -> tuple[types.Task, jax.Array]:
  """One SCM with its objective, and whether the prior takes it.

  Args:
    key: consumed.
    prior: the settings.

  Returns:
    The task, and [] bool: the target has an ancestor that may be set, and the
    best intervention gains at least `prior.min_gain` deviations of it.
  """
  key_scm, key_bank, key_given = jax.random.split(key, 3)
  scm = sample_scm(key_scm, prior)
  bank = simulate.noise_bank(key_bank, scm, prior.bank_size)
  objective = objective_lib.objective(
    scm, bank, prior.num_cells, prior.max_set_size, key_given
  )
  causes = graphs.ancestors(scm.parents) & scm.problem.settable[None]
  reachable = (causes & scm.problem.target[:, None]).any()
  # Internal units are observational deviations.
  gain = objective.best - objective.baseline
  # What is not finite is no reason to draw again: it is found, and raises.
  return types.Task(scm, objective), reachable & ~(gain < prior.min_gain)


class _Filling(NamedTuple):
  key: jax.Array
  tasks: types.Task
  filled: jax.Array
  rounds: jax.Array


@functools.partial(jax.jit, static_argnames=('prior', 'num_tasks'))
def fill(
  key: jax.Array, prior: config.PriorConfig, num_tasks: int
) -> tuple[types.Task, jax.Array]:
  """A batch of tasks; what the prior does not take is drawn again.

  Args:
    key: consumed.
    prior: the settings.
    num_tasks: B.

  Returns:
    A `Task` with a leading axis B, and [] bool: all of them could be drawn.
    Where it is False the batch is not full, and `require_complete` raises.
  """
  per_round = -(-num_tasks * 5 // 8)
  draw = jax.vmap(lambda k: sample_task(k, prior))

  def more(state):
    return (state.filled < num_tasks) & (state.rounds < _MAX_ROUNDS)

  def fill(state):
    key, key_draw = jax.random.split(state.key)
    fresh, taken = draw(jax.random.split(key_draw, per_round))
    place = state.filled + jnp.cumsum(taken) - 1
    place = jnp.where(taken, place, num_tasks)  # Dropped by the scatter.
    tasks = jax.tree.map(
      lambda old, new: old.at[place].set(new, mode='drop'), state.tasks, fresh
    )
    filled = state.filled + taken.sum(dtype=jnp.int32)
    return _Filling(key, tasks, filled, state.rounds + 1)

  shapes, _ = sample_task.eval_shape(key, prior)
  empty = jax.tree.map(
    lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), shapes
  )
  start = _Filling(key, empty, jnp.int32(0), jnp.int32(0))
  end = jax.lax.while_loop(more, fill, start)
  return end.tasks, end.filled >= num_tasks


def sample(
  key: jax.Array, prior: config.PriorConfig, num_tasks: int
) -> types.Task:
  """The tasks of `fill`, all of them: see `require_complete`."""
  return require_complete(*fill(key, prior, num_tasks))


def require_complete(tasks: types.Task, complete: jax.Array) -> types.Task:
  """The tasks that `fill` returned, outside `jit`.

  Raises:
    errors.UsageError: the prior refuses nearly every SCM that it draws.
  """
  if not complete:
    raise errors.UsageError(
      'the prior refuses nearly every SCM that it draws; lower scms.min_gain '
      'or widen the domains'
    )
  return tasks


def _sets(level, settable, max_size):
  """The sets that may be set together: [M, D] bool, some of them empty."""
  everything = intervention_sets.subsets(np.ones(settable.size, bool), max_size)
  size = everything.sum(1)
  most = jnp.minimum(settable.sum(), max_size)
  one, any_number, as_many = jnp.arange(3) == sampling.category(
    level, _KINDS_OF_SETS
  )
  fitting = (size == 1) & one | any_number | (size == most) & as_many
  possible = ~(everything & ~settable).any(1)
  return everything & (possible & fitting)[:, None]


def _standardise(key, mechanism, parents, noise_ratio):
  """Gives every variable variance 1 by the share of its noise.

  Standardised as it is generated (Ormaniec et al., 2024), so that neither
  variances nor their explained shares grow along the order.

  Args:
    key: consumed.
    mechanism: raw equations, nodes in causal order.
    parents: [D, D] bool.
    noise_ratio: [D] deviation of the noise over that of the signal.

  Returns:
    The mechanism, [D] means and [D] deviations of the variables.
  """
  num_nodes = parents.shape[-1]
  node = jnp.arange(num_nodes)
  is_root = ~parents.any(1)
  share = jnp.where(is_root, 0.0, 1 / jnp.sqrt(1 + jnp.square(noise_ratio)))
  noise_scale = jnp.sqrt(1 - jnp.square(share))
  mechanism = mechanism._replace(noise_scale=noise_scale)
  noise = mechanisms.noise(key, mechanism, _SCALING_DRAWS, num_nodes)

  def scale(u, j):
    raw = mechanisms.signal(mechanism, j, u)
    # A root's signal is constant; its share is 0 and so is its factor.
    spread = jnp.where(is_root[j], 1.0, raw.std())
    factor = share[j] / jnp.maximum(spread, 1e-3)
    centred = factor * (raw - raw.mean()) + noise[:, j]
    u = jnp.where(node == j, centred[:, None], u)
    return u, (factor, -factor * raw.mean())

  u, (factor, bias) = jax.lax.scan(scale, jnp.zeros_like(noise), node)
  mechanism = mechanism._replace(
    bias=bias,
    linear=mechanism.linear * factor[:, None],
    output=mechanism.output * factor[:, None],
  )
  return mechanism, u.mean(0), u.std(0)
