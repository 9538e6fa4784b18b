"""Conversion of metrics from device arrays to Python floats."""

from collections.abc import Mapping
import math
from typing import Any

import jax
import numpy as np


def to_finite_floats(when: str, metrics: Mapping[str, Any]) -> dict[str, float]:
  """Fetches metrics to the host as finite floats.

  Args:
    when: beginning of an error message, such as 'After update 3'.
    metrics: scalars by tag.

  Returns:
    Floats by tag.

  Raises:
    ValueError: a metric is not a scalar.
    FloatingPointError: a metric is not finite.
  """
  arrays = {t: np.asarray(x) for t, x in jax.device_get(dict(metrics)).items()}
  shapes = {tag: x.shape for tag, x in arrays.items() if x.shape}
  if shapes:
    raise ValueError(f'Metrics must be scalars; got the shapes {shapes}.')
  floats = {tag: float(x) for tag, x in arrays.items()}
  bad = [f'{tag} = {x}' for tag, x in floats.items() if not math.isfinite(x)]
  if bad:
    raise FloatingPointError(
      f'{when} these metrics are not finite: {", ".join(bad)}.'
    )
  return floats
