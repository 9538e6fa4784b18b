#!/usr/bin/env bash
# Sets .venv up where needed, then runs every check; ends at the first failure.
# Arguments go to pytest: ./test.sh -m slow; ./test.sh tests/agents/grpo/losses_test.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage() {
  echo "=== $*"
  "$@"
}

stage ./environment.sh
export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"
stage ruff format --check
stage ruff check
stage pyrefly check
stage pytest "$@"
