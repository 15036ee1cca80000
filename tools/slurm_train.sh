#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains on a slurm cluster.
set -euo pipefail
if [[ $# -lt 3 || "$1" == -h || "$1" == --help ]]; then
    cat <<'HELP'
usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
environment, as in OpenMMLab:
  GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=''
as a job that saves two minutes before its time is up, queues again and goes on:
  sbatch --requeue --signal=B:USR1@120 [options of sbatch] \
    --wrap 'exec tools/slurm_train.sh PARTITION JOB_NAME CONFIG --resume'
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
command=(srun -p "$1" --job-name="$2" --gres="gpu:$per_node" --ntasks="$gpus"
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}"
    --kill-on-bad-exit=1 ${SRUN_ARGS:-}
    python -u "$here/tools/${TOOL:-train.py}" "$3" --launcher slurm "${@:4}")
[[ -z "${SLURM_JOB_ID:-}" ]] && exec "${command[@]}"

"${command[@]}" &
training=$!
trap 'kill -USR1 "$training"' USR1
trap 'kill -TERM "$training"' TERM
code=0
wait "$training" || code=$?
while kill -0 "$training" 2>/dev/null; do  # a signal ended the wait, not the training
    code=0
    wait "$training" || code=$?
done
if [[ "$code" == 138 ]]; then  # 128 + USR1: it saved, and is to go on later
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
