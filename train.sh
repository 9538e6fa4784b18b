#!/usr/bin/env bash
# Sets .venv up where needed, then trains. Arguments go to launchers/train.py:
#   ./train.sh --config=configs/grpo.py:smoke --config.seed=1
# Paths are relative to this folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./environment.sh

# --config can be given once only if fields of it are overridden, and a resumed
# run has its own.
config=(--config=configs/grpo.py)
for argument in "$@"; do
  case "$argument" in
    --config | --config=* | -config | -config=*) config=() ;;
    --resume | -resume | --resume_step=* | -resume_step=*) config=() ;;
  esac
done
exec .venv/bin/python launchers/train.py ${config[@]+"${config[@]}"} "$@"
