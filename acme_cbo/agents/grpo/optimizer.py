"""Muon for matrices, Adam for the rest, and the learning-rate schedule."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

# Root mean square of Adam's steps, in learning rates: Muon's are made like it.
_ADAM_STEP = 0.2
# Coefficients of an iteration of Newton and Schulz (Jordan et al., "Muon: An
# optimizer for hidden layers", 2024), once for each: given one by one they are
# looped over, and what an iteration does is compiled once.
_ORTHOGONALISATION = ((3.4445, -4.7750, 2.0315),) * 5


def schedule(
  learning_rate: float,
  warmup_steps: int,
  total_steps: int,
  final_fraction: float,
) -> optax.Schedule:
  """Learning rate by gradient step: a linear warm-up and a cosine decay."""
  # Also looked at on its own: a dozen small programs otherwise.
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
  """Muon with clipping by global norm, for `stacked` parameters.

  Matrices take steps along their orthogonalised momentum, scaled to the size
  of Adam's (Liu et al., "Muon is Scalable for LLM Training", 2025, section
  2.2); vectors take Adam's. The weight decay is that of the matrices.
  """
  return optax.chain(
    optax.clip_by_global_norm(max_grad_norm),
    contrib.muon(
      schedule,
      ns_coeffs=_ORTHOGONALISATION,
      weight_decay=weight_decay,
      consistent_rms=_ADAM_STEP,
      muon_weight_dimension_numbers=_of_matrices,
    ),
  )


def stacked(tree: Any) -> dict[str, jax.Array]:
  """All arrays of a shape as one: {'2x3': [number of them, 2, 3]}.

  What is done to each of many small parameters makes a program that takes
  longer to compile than the gradient of the network.
  """
  groups: dict[str, list[jax.Array]] = {}
  for leaf in jax.tree.leaves(tree):
    groups.setdefault(_shape(leaf), []).append(leaf)
  return {shape: jnp.stack(group) for shape, group in groups.items()}


def unstacked(stacks: dict[str, jax.Array], like: Any) -> Any:
  """The tree of which `stacked` made stacks; `like` is of its structure."""
  of_shape = {shape: iter(stack) for shape, stack in stacks.items()}
  return jax.tree.map(lambda leaf: next(of_shape[_shape(leaf)]), like)


def _of_matrices(stacks: Any) -> dict[str, Any]:
  """Returns the axes of each stack that hold matrices; None without any."""
  return {
    shape: contrib.MuonDimensionNumbers(1, 2) if shape.count('x') == 1 else None
    for shape in stacks
  }


def _shape(array):
  return 'x'.join(map(str, array.shape))
