"""Metrics on their way from the device to whoever reads them."""

from collections.abc import Mapping
import math
from typing import Any

import jax
import numpy as np


def to_finite_floats(when: str, metrics: Mapping[str, Any]) -> dict[str, float]:
  """Fetches scalars to the host.

  Args:
    when: begins the sentence of an error.
    metrics: scalars by tag.

  Returns:
    The same as floats.

  Raises:
    ValueError: one of them is no scalar.
    FloatingPointError: one of them is not finite.
  """
  arrays = {t: np.asarray(x) for t, x in jax.device_get(dict(metrics)).items()}
  shapes = {tag: x.shape for tag, x in arrays.items() if x.shape}
  if shapes:
    raise ValueError(f'Metrics must be scalars; got the shapes {shapes}.')
  found = {tag: float(x) for tag, x in arrays.items()}
  bad = [f'{tag} = {x}' for tag, x in found.items() if not math.isfinite(x)]
  if bad:
    raise FloatingPointError(
      f'{when} these metrics are not finite: {", ".join(bad)}.'
    )
  return found
