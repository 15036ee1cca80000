#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluates a checkpoint on a slurm cluster.
set -euo pipefail
if [[ $# -lt 4 || "$1" == -h || "$1" == --help ]]; then
    cat <<'HELP'
usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
environment as for tools/slurm_train.sh
HELP
    [[ $# -ge 1 && ( "$1" == -h || "$1" == --help ) ]] && exit 0
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
TOOL=test.py exec bash "$here/slurm_train.sh" "$@"
