"""Makes one update of a run again and shows what one of its SCMs met with.

python launchers/replay.py --workdir=runs/mine --update=17 --scm=5
python launchers/replay.py --workdir=runs/mine --update=17 --scm=5 --held_out
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.infra import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.')
_UPDATE = flags.DEFINE_integer('update', None, 'Number of the update, from 1.')
_SCM = flags.DEFINE_integer('scm', 0, 'Index of the SCM in its batch, from 0.')
_HELD_OUT = flags.DEFINE_bool(
  'held_out', False, 'The evaluation after the update, not the update.'
)


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.replay`."""
  del argv
  cli.set_environment()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import replay  # noqa: PLC0415
  from acme_cbo.infra import errors  # noqa: PLC0415

  if not _WORKDIR.value or _UPDATE.value is None:
    raise errors.UsageError('name a run and an update: --workdir=, --update=')
  again = replay.replay_held_out if _HELD_OUT.value else replay.replay
  print(again(pathlib.Path(_WORKDIR.value), _UPDATE.value, _SCM.value))


if __name__ == '__main__':
  cli.run(main)
