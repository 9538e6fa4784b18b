"""Simulates studies: are their predictions right, and is their advice good?

acme-cbo simulate --studies=500 --jobs=2 --out=runs/studies.jsonl

Half of the studies are of systems of the distribution that the shipped policy
was trained on, half of its shifts, as `evaluate --scm=shifts` draws them, with
100 records, single noisy outcomes and 10, 20, 30 or 40 experiments. Rerun the
command to resume it.
"""

from collections.abc import Sequence
import sys

from absl import flags

from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory

_STUDIES = flags.DEFINE_integer(
  'studies', 500, 'Number of studies.', lower_bound=2
)
_FIRST = flags.DEFINE_integer(
  'first',
  0,
  'Number of the first system; what is chosen is chosen on systems from '
  '100000 on.',
  lower_bound=0,
)
_JOBS = flags.DEFINE_integer('jobs', 1, 'Number of processes.', lower_bound=1)
_OUT = flags.DEFINE_string(
  'out', None, 'File of JSON lines, a row per study; required.'
)
_REPORT = flags.DEFINE_string(
  'report', '', 'Markdown file that the result is also written to.'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv)


def main(argv: Sequence[str]) -> None:
  """Simulates the studies that are missing, and prints the result."""
  del argv
  jax_environment.set_defaults(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments.validation import studies  # noqa: PLC0415
  from acme_cbo.experiments.validation import study_summary  # noqa: PLC0415

  if not _OUT.value:
    raise errors.UsageError('name the file of the results: --out=FILE.jsonl')
  out = cli.output_file('out', _OUT.value)
  report = _REPORT.value and cli.output_file('report', _REPORT.value)
  rows = []
  for row in studies.run(_STUDIES.value, _FIRST.value, _JOBS.value, out):
    rows.append(row)
    print(
      f'{len(rows)} of {_STUDIES.value}: {row["scm"]} {row["repeat"]}',
      file=sys.stderr,
      flush=True,
    )
  print(study_summary.table(rows))
  if report:
    page = study_summary.report(cli.invocation(), rows)
    run_directory.write_text(report, page)
