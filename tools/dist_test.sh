#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluates a checkpoint on several GPUs; without CUDA, on that many CPU processes.
set -euo pipefail
if [[ $# -lt 3 || "$1" == -h || "$1" == --help ]]; then
    cat <<'HELP'
usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
  GPUS     processes on this machine; several machines and PYTHON as for tools/dist_train.sh
HELP
    [[ $# -ge 1 && ( "$1" == -h || "$1" == --help ) ]] && exit 0
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
TOOL=test.py exec bash "$here/dist_train.sh" "$1" "$3" "$2" "${@:4}"
