"""Runs the command `acme-cbo replay` from a clone, without installation."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments.commands import replay

if __name__ == '__main__':
  replay.run()
