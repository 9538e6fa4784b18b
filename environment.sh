#!/usr/bin/env bash
# Makes .venv what requirements.txt says; does nothing where it is already.
# train.sh and test.sh call it first. PYTHON=python3.12 chooses the Python.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
venv="$root/.venv"
stamp="$venv/made_from"

fail() { echo "environment.sh: $*" >&2; exit 1; }

# What a .venv is made from: a Python, a place (a .venv cannot be moved), a list.
fingerprint() {
  "$1" -c 'import sys; print(sys.version)' && echo "$root" &&
    cat "$root/requirements.txt"
}

# The stamp is written last, so a half-made .venv has none.
is_current() {
  [[ -f "$stamp" && -x "$venv/bin/python" ]] &&
    fingerprint "${PYTHON:-$venv/bin/python}" 2>/dev/null | cmp -s - "$stamp"
}

# Prints the interpreter behind the command $1 (behind an activated .venv: the
# one that made it); fails where the command is no good.
interpreter() {
  "$1" -c 'import ensurepip, sys, venv
if not (3, 11) <= sys.version_info[:2] < (3, 14): sys.exit(1)
print(sys._base_executable)' 2>/dev/null
}

choose_python() {
  if [[ -n "${PYTHON:-}" ]]; then
    interpreter "$PYTHON" ||
      fail "PYTHON=$PYTHON is not a Python 3.11 to 3.13 with the venv module"
    return
  fi
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    interpreter "$candidate" && return
  done
  fail 'found no Python 3.11 to 3.13 with the venv module; set PYTHON to one'
}

is_current && exit 0
python="$(choose_python)"

# One set-up at a time. The lock is on file descriptor 9 and ends with the last
# process that holds it, pip included, however that process ends.
exec 9>"$root/.venv.lock"
lock() { "$python" -c "import fcntl; fcntl.flock(9, $1)" 2>/dev/null; }
if ! lock 'fcntl.LOCK_EX | fcntl.LOCK_NB'; then
  echo 'environment.sh: waiting for another set-up to end'
  lock 'fcntl.LOCK_EX' || fail "cannot lock $root/.venv.lock"
fi
is_current && exit 0

echo "environment.sh: making .venv with $("$python" -V)"
rm -rf "$venv"
"$python" -m venv "$venv"
echo 'environment.sh: installing requirements.txt into .venv (some minutes)'
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
# requirements.txt lists everything: --no-deps keeps it so, check proves it.
"${pip[@]}" install --quiet --no-deps -r "$root/requirements.txt"
"${pip[@]}" check
fingerprint "$venv/bin/python" >"$stamp.new"
mv "$stamp.new" "$stamp"
echo 'environment.sh: .venv is ready'
