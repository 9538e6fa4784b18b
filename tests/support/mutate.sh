#!/usr/bin/env bash
# Counts the mutants of a module that survive its tests, in a copy of HEAD.
#
#   tests/support/mutate.sh acme_cbo/agents/grpo/losses.py tests/agents/grpo/losses_test.py 100
#
# Takes the module, the tests, and how many mutants to draw at random (all, if
# not given). Prints the survivors' diffs and the rate with its 95 % interval.
set -euo pipefail
if (($# < 2)); then
  echo "usage: tests/support/mutate.sh MODULE TESTS [NUMBER_OF_MUTANTS]" >&2
  exit 2
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
module="$1" tests="$2" number="${3:-1000000}"
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT

# Apart from .venv: nothing that is shipped or tested needs it.
"$root/.venv/bin/python" -m venv "$copy/tool"
"$copy/tool/bin/pip" install -q cosmic-ray==8.7.0
git -C "$root" archive --prefix=tree/ HEAD | tar -x -C "$copy"
cd "$copy/tree"
cat >session.toml <<EOF
[cosmic-ray]
module-path = "$module"
timeout = 300.0
excluded-modules = []
test-command = "$root/.venv/bin/python -m pytest -n 0 -x -q $tests"

[cosmic-ray.distributor]
name = "local"
EOF
PATH="$copy/tool/bin:$PATH"
cosmic-ray baseline session.toml
cosmic-ray init session.toml session.sqlite
python - "$number" <<'EOF'
import random
import sqlite3
import sys

session = sqlite3.connect('session.sqlite')
ids = session.execute(
  'SELECT job_id FROM mutation_specs'
  ' ORDER BY operator_name, operator_args, occurrence'
).fetchall()
random.Random(0).shuffle(ids)
left_out = ids[int(sys.argv[1]) :]
for table in ('mutation_specs', 'work_items'):
  session.executemany(f'DELETE FROM {table} WHERE job_id = ?', left_out)
session.commit()
print(f'{len(ids) - len(left_out)} of {len(ids)} mutants')
EOF
cosmic-ray exec session.toml session.sqlite
cr-report --surviving-only --show-diff session.sqlite
"$root/.venv/bin/python" - <<'EOF'
import sqlite3

from scipy import stats

session = sqlite3.connect('session.sqlite')
outcomes = session.execute('SELECT test_outcome FROM work_results').fetchall()
survived = sum(outcome == 'SURVIVED' for (outcome,) in outcomes)
interval = stats.binomtest(survived, len(outcomes)).proportion_ci()
print(
  f'{survived} of {len(outcomes)} mutants survived: '
  f'{survived / len(outcomes):.1%} '
  f'[{interval.low:.1%}, {interval.high:.1%}] at 95 %'
)
EOF
