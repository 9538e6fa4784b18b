"""Runs the command `acme-cbo simulate` from a clone, without installation."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments.commands import simulate

if __name__ == '__main__':
  simulate.run()
