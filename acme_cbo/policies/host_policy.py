"""Policies compiled for use on the host, on data in float64."""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.environments import normalization
from acme_cbo.infra import compilation
from acme_cbo.policies import base

# Interventions that one call of the program predicts.
_NUM_PREDICTED = 16


def compiled(
  make: Callable[[Any], base.PolicyFunctions],
  like: Any = (),
  settings: Any = None,
) -> Callable[[Any], base.PolicyFunctions]:
  """Returns a function that makes compiled policies for the host.

  The policies differ only in their parameters and share their programs. Data
  are normalized by `normalization.UnitConverter` before they become float32, so
  that a variable that is far from 0 or hardly varies loses no digits. The
  policy must not depend on units; no policy of this package does.

  Args:
    make: parameters -> a policy in float32, as in training, that `jit` can
      trace.
    like: example of the parameters.
    settings: JSON values that determine `make`, with which its programs are
      looked up in the cache of `compilation`; None to compile them by `jit`.

  Returns:
    Parameters -> a policy on numpy arrays. Its `observe` consumes the memory.
  """
  leaves, structure = jax.tree.flatten(like)
  shapes = [np.shape(leaf) for leaf in leaves]
  ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

  def unravel(flat):
    parts = jnp.split(flat, ends) if leaves else []
    return jax.tree.unflatten(
      structure,
      [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)],
    )

  # Programs that are kept on disk are for the few decisions of a study.
  compiler_options = compilation.quick_options(few_runs=settings is not None)

  def program(name, **options):
    def called(flat, *args):
      return getattr(make(unravel(flat)), name)(*args)

    return jax.jit(called, compiler_options=compiler_options, **options)

  programs = _Programs(
    program('init', static_argnums=3),
    program('choose'),
    program('recommend'),
    # Updated in place: copying the unchanged part of the memory would cost as
    # much as a small network.
    program('observe', donate_argnums=1),
    program('predict'),
  )

  def by_jit(flat, problem, observations, num_interventions):
    del flat, problem, observations
    return programs._replace(
      init=lambda *args: programs.init(*args, num_interventions)
    )

  programs_for = by_jit if settings is None else _Stored(programs, settings)

  def with_params(params):
    # One array: passing an array costs as much as some layers do.
    flat = np.zeros(0, np.float32)
    if leaves:
      flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    with jax.enable_x64(False):
      return _on_host(programs_for, jnp.asarray(flat), make(params))

  return with_params


class _Programs(NamedTuple):
  """Compiled functions of a policy; the first argument is the parameters.

  They are those of `jit`, or of one set of shapes.
  """

  init: Any
  choose: Any
  recommend: Any
  observe: Any
  predict: Any


class _Stored:
  """Programs that are compiled once for each shape, and kept on disk."""

  def __init__(self, programs: _Programs, settings: Any):
    """Stores nothing yet.

    Args:
      programs: the programs, to be traced.
      settings: JSON values that determine them.
    """
    self._programs = programs
    self._settings = settings
    self._compiled: dict[Any, _Programs] = {}

  def __call__(
    self, flat, problem, observations, num_interventions
  ) -> _Programs:
    """Returns the programs for arguments of `init`."""
    shapes = jax.tree.map(
      lambda leaf: [list(np.shape(leaf)), str(np.asarray(leaf).dtype)],
      [flat, *problem, observations],
    )
    key = str((shapes, num_interventions))
    if key not in self._compiled:
      self._compiled[key] = _Programs(
        **compilation.load_or_compile(
          [self._settings, shapes, num_interventions],
          jax.local_devices()[:1],
          functools.partial(
            self._trace, flat, problem, observations, num_interventions
          ),
          lambda: None,
        )
      )
    return self._compiled[key]

  def _trace(self, flat, problem, observations, num_interventions):
    init = self._programs.init.trace(
      flat, problem, observations, num_interventions
    )
    memory = init.out_info
    number = observations.shape[1]
    made = types.Intervention._make(
      (np.zeros(number, bool), np.zeros(number, np.float32))
    )
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    yield 'init', init
    yield 'choose', self._programs.choose.trace(flat, key, memory)
    yield 'recommend', self._programs.recommend.trace(flat, memory)
    yield (
      'observe',
      self._programs.observe.trace(
        flat, memory, np.int32(0), made, np.zeros(number, np.float32)
      ),
    )
    asked = jax.tree.map(lambda leaf: np.stack([leaf] * _NUM_PREDICTED), made)
    yield 'predict', self._programs.predict.trace(flat, memory, asked)


def _on_host(
  programs_for: Callable[..., _Programs],
  flat: jax.Array,
  policy: base.PolicyFunctions,
) -> base.PolicyFunctions:
  """Returns the policy with these parameters."""

  def init(problem, observations, num_interventions):
    units = normalization.UnitConverter.fit(problem, observations)
    rows = units.to_normalized(observations)
    with jax.enable_x64(False):
      programs = programs_for(flat, units.problem, rows, num_interventions)
      memory = programs.init(flat, units.problem, rows)
    return units, programs, memory

  def choose(key, memory):
    units, programs, inner = memory
    with jax.enable_x64(False):
      chosen = programs.choose(flat, key, inner)
    return units.to_own_intervention(chosen)

  def observe(memory, step, intervention, outcome):
    units, programs, inner = memory
    mask = np.asarray(intervention.mask)
    values = np.where(
      mask, units.to_normalized(intervention.values), np.float32(0)
    )
    made = types.Intervention._make((mask, values))
    with jax.enable_x64(False):
      inner = programs.observe(
        flat, inner, np.int32(step), made, units.to_normalized(outcome)
      )
    return units, programs, inner

  def recommend(memory):
    units, programs, inner = memory
    with jax.enable_x64(False):
      recommended = programs.recommend(flat, inner)
    return units.to_own_intervention(recommended)

  def predict(memory, asked):
    units, programs, inner = memory
    mask = np.asarray(asked.mask)
    values = np.where(mask, units.to_normalized(asked.values), np.float32(0))
    chunks = []
    for start in range(0, len(mask), _NUM_PREDICTED):
      # The last chunk is filled up with its last intervention.
      index = np.arange(start, start + _NUM_PREDICTED).clip(max=len(mask) - 1)
      made = types.Intervention._make((mask[index], values[index]))
      with jax.enable_x64(False):
        chunks.append(jax.device_get(programs.predict(flat, inner, made)))
    predicted = jax.tree.map(
      lambda *leaves: np.concatenate(leaves, dtype=float)[: len(mask)], *chunks
    )
    target = np.argmax(units.problem.target)
    location, scale = units.location[target], units.scale[target]
    return jax.tree.map(lambda leaf: location + scale * leaf, predicted)

  def parents(states):
    with jax.enable_x64(False):
      return policy.parents(states)

  return base.PolicyFunctions(
    init,
    choose,
    observe,
    recommend,
    lambda memory: policy.belief_states(memory[-1]),
    parents,
    None if policy.predict is None else predict,
  )
