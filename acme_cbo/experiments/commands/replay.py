"""Repeats one update of a run and prints the data of one of its SCMs.

acme-cbo replay --workdir=runs/mine --update=17 --scm=5
acme-cbo replay --workdir=runs/mine --update=17 --scm=5 --held_out
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import jax_environment

_WORKDIR = flags.DEFINE_string('workdir', None, 'Run directory; required.')
_UPDATE = flags.DEFINE_integer(
  'update', None, 'Number of the update, counted from 1; required.'
)
_SCM = flags.DEFINE_integer(
  'scm', 0, 'Index of the SCM in its batch or held-out set, counted from 0.'
)
_HELD_OUT = flags.DEFINE_bool(
  'held_out', False, 'Repeat the evaluation on the held-out SCMs instead.'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv)


def main(argv: Sequence[str]) -> None:
  """Repeats what the flags name, see `experiments.replay`."""
  del argv
  if not _WORKDIR.value or _UPDATE.value is None:
    raise errors.UsageError('name a run and an update: --workdir=, --update=')
  jax_environment.set_defaults()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import replay  # noqa: PLC0415

  again = replay.replay_held_out if _HELD_OUT.value else replay.replay
  print(again(pathlib.Path(_WORKDIR.value), _UPDATE.value, _SCM.value))
