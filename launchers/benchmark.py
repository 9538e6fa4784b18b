"""Measures what the cache and the sharing save, and what the trainer costs.

python launchers/benchmark.py --out=benchmark.json
"""

from collections.abc import Sequence
import json
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CONFIG = config_flags.DEFINE_config_file(
  'config',
  str(_ROOT / 'configs' / 'grpo.py:benchmark'),
  'Path of the config file.',
)
_OUT = flags.DEFINE_string('out', None, 'JSON file to write the figures to.')
_REPEATS = flags.DEFINE_integer('repeats', 7, 'Runs of each.', lower_bound=1)


def main(argv: Sequence[str]) -> None:
  """Prints the figures and writes them down."""
  del argv
  config = command_line.required_config(_CONFIG)
  command_line.set_environment()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo import benchmark  # noqa: PLC0415
  from acme_cbo import experiment  # noqa: PLC0415
  from acme_cbo.runtimes import fused  # noqa: PLC0415

  parts = experiment.from_config(config).parts
  figures = benchmark.measure(parts, _REPEATS.value)
  figures['trainer_overhead'] = benchmark.trainer_overhead(
    fused.make_step(parts), fused.initial_state(0, parts), _REPEATS.value
  )
  print(json.dumps(figures, indent=2))
  if _OUT.value:
    pathlib.Path(_OUT.value).write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
  command_line.run(main)
