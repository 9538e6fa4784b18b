"""Muon for matrices, Adam for the rest, and the learning-rate schedule."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

# Root mean square of the steps of Adam, in learning rates. Those of Muon are
# scaled to it.
_ADAM_STEP = 0.2
# Coefficients of the Newton-Schulz iteration (Jordan et al., "Muon: An
# optimizer for hidden layers", 2024), one row per iteration: optax then runs a
# loop, whose body is compiled once.
_NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5


def schedule(
  learning_rate: float,
  warmup_steps: int,
  total_steps: int,
  final_fraction: float,
) -> optax.Schedule:
  """Returns a schedule with a linear warm-up and a cosine decay.

  Args:
    learning_rate: peak learning rate.
    warmup_steps: number of gradient steps of the warm-up.
    total_steps: number of gradient steps, with those of the warm-up.
    final_fraction: ratio of the last learning rate to the peak.

  Returns:
    Learning rate as a function of the number of gradient steps.
  """
  # Also called outside of an update, where it would be a dozen small programs.
  return jax.jit(
    optax.warmup_cosine_decay_schedule(
      init_value=0.0,
      peak_value=learning_rate,
      warmup_steps=warmup_steps,
      decay_steps=total_steps,
      end_value=final_fraction * learning_rate,
    )
  )


def make_optimizer(
  schedule: optax.Schedule, max_grad_norm: float, weight_decay: float
) -> optax.GradientTransformation:
  """Returns Muon with clipping by global norm, for stacked parameters.

  Matrices take steps along their orthogonalized momentum, scaled to the size of
  the steps of Adam (Liu et al., "Muon is Scalable for LLM Training", 2025,
  section 2.2). Vectors take the steps of Adam.

  Args:
    schedule: learning rate as a function of the number of gradient steps.
    max_grad_norm: global norm that gradients are clipped to.
    weight_decay: weight decay of the matrices.

  Returns:
    The optimizer, for parameters from `stack_by_shape`.
  """
  return optax.chain(
    optax.clip_by_global_norm(max_grad_norm),
    contrib.muon(
      schedule,
      ns_coeffs=_NEWTON_SCHULZ,
      weight_decay=weight_decay,
      consistent_rms=_ADAM_STEP,
      muon_weight_dimension_numbers=_matrix_axes,
    ),
  )


def stack_by_shape(tree: Any) -> dict[str, jax.Array]:
  """Stacks arrays of the same shape: {'2x3': [number of arrays, 2, 3]}.

  Operations on each of many small parameters would take longer to compile than
  the gradient of the network.
  """
  groups: dict[str, list[jax.Array]] = {}
  for leaf in jax.tree.leaves(tree):
    groups.setdefault(_shape(leaf), []).append(leaf)
  return {shape: jnp.stack(group) for shape, group in groups.items()}


def unstack(stacks: dict[str, jax.Array], like: Any) -> Any:
  """Inverts `stack_by_shape`, for a tree with the structure of `like`."""
  arrays = {shape: iter(stack) for shape, stack in stacks.items()}
  return jax.tree.map(lambda leaf: next(arrays[_shape(leaf)]), like)


def _matrix_axes(stacks: Any) -> dict[str, Any]:
  """Returns the axes of the matrices in each stack; None for vectors."""
  return {
    shape: contrib.MuonDimensionNumbers(1, 2) if shape.count('x') == 1 else None
    for shape in stacks
  }


def _shape(array):
  return 'x'.join(map(str, array.shape))
