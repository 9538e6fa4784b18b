"""Prints how the records of training look, and those of its shifts.

  python docs/studies/record_shapes.py --systems=600

A row per distribution of `evaluate --scm=shifts`: quantiles of .02 and .98 of
the values of `training_range.record_shape` over systems with 100 records each.
"""

import argparse

from acme_cbo.infra import jax_environment

# ruff: noqa: E402 - jax and numpy read the environment when they are imported.
jax_environment.set_defaults(small_programs=True)

import jax
import pandas as pd

from acme_cbo.policies import policy as policy_lib
from acme_cbo.scms import registry
from acme_cbo.scms import scm
from acme_cbo.study import training_range

# Systems that no evaluation and no choice of this project is made on.
_FIRST = 200_000


def main() -> None:
  """Draws the systems and prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--systems', type=int, default=600)
  number = parser.parse_args().systems
  with jax.enable_x64(True):
    environments = registry.resolve(
      ['shifts'], policy_lib.load_policy().metadata
    )
    rows = {}
    for one in environments:
      systems = map(one.make, range(_FIRST, _FIRST + number))
      shapes = pd.DataFrame(
        [
          training_range.record_shape(scm.SCM(system).sample(100).to_numpy())
          for system in systems
        ]
      )
      rows[one.name] = shapes.quantile([0.02, 0.98]).unstack()
  print(pd.DataFrame(rows).T.to_string(float_format='{:.2f}'.format))


if __name__ == '__main__':
  main()
