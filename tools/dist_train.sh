#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains on several GPUs, of one or several machines; without CUDA, on that many CPU processes.
set -euo pipefail
if [[ $# -lt 2 || "$1" == -h || "$1" == --help ]]; then
    cat <<'HELP'
usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
  GPUS     processes on this machine, one for each GPU (without CUDA: CPU processes over gloo)
environment, as in OpenMMLab:
  NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=29500   for several machines, the same command
           on each with its own NODE_RANK
  PYTHON   the interpreter; by default the project's .venv, else python
HELP
    [[ $# -ge 1 && ( "$1" == -h || "$1" == --help ) ]] && exit 0
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-}"
if [[ -z "$python" ]]; then
    python=python
    [[ -x "$here/.venv/bin/python" ]] && python="$here/.venv/bin/python"
fi
exec "$python" "$here/tools/${TOOL:-train.py}" "$1" --devices "$2" --nodes "${NNODES:-1}" "${@:3}"
