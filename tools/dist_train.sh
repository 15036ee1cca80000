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
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" \
    "$here/tools/${TOOL:-train.py}" "$1" --launcher pytorch "${@:3}"
