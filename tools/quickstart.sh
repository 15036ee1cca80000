#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up what is needed, then runs the whole method on a CPU; see --help.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$here/tools/setup_env.sh"
# One thread a core, and not many: with networks this small they only wait for each other.
cores="$(nproc 2>/dev/null || echo 2)"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores < 8 ? cores : 8))}"
# Threads that wait sleep, so that the loader and others get the core.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
export HF_HUB_OFFLINE=1
exec "$here/.venv/bin/python" "$here/tools/quickstart.py" "$@"
