"""A structural causal model with the names that its users know it by."""

from typing import NamedTuple

from acme_cbo import types


class System(NamedTuple):
  """A named SCM: of a benchmark, of a file, or fitted to data.

  Attributes:
    name: of the system.
    source: where it comes from: a paper, or a file.
    variables: D names, in the order of the SCM's columns, latent ones too.
    scm: the model.
    optimum_hint: an intervention that is known to be best, or close to it; None
      where none is known.
  """

  name: str
  source: str
  variables: tuple[str, ...]
  scm: types.SCM
  optimum_hint: types.Intervention | None
