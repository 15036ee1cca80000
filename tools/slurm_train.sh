#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains on a slurm cluster.
set -euo pipefail
if [[ $# -lt 3 || "$1" == -h || "$1" == --help ]]; then
    cat <<'HELP'
usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
environment, as in OpenMMLab:
  GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=''
HELP
    [[ $# -ge 1 && ( "$1" == -h || "$1" == --help ) ]] && exit 0
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
gpus="${GPUS:-8}"
per_node="${GPUS_PER_NODE:-8}"
(( gpus < per_node )) && per_node="$gpus"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
# shellcheck disable=SC2086
exec srun -p "$1" --job-name="$2" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$here/tools/${TOOL:-train.py}" "$3" --launcher slurm "${@:4}"
