#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks in minutes that everything trains on one GPU: milan benchmark check.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    cat <<'HELP'
usage: bash tools/gpu_check.sh [--device DEVICE] [--quick] [--json FILE]
  writes work_dirs/gpu_check.json and prints its table; nothing is downloaded
  without a GPU: bash tools/gpu_check.sh --device cpu --quick
HELP
    exit 0
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-}"
if [[ -z "$python" ]]; then
    python=python
    [[ -x "$here/.venv/bin/python" ]] && python="$here/.venv/bin/python"
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$here/work_dirs"
exec "$python" -m milan_mm benchmark check --json "$here/work_dirs/gpu_check.json" "$@"
