#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Finds a Python for tools/setup_env.py, which makes the environment (see --help).
set -euo pipefail

CANDIDATES=(python3.11 python3.12 python3.10 python3 python)
ARGUMENTS=("$@")
for ((i = 0; i + 1 < $#; i++)); do
  [[ ${ARGUMENTS[i]} != --python ]] || CANDIDATES=("${ARGUMENTS[i + 1]}")
done
CHECK='import ensurepip, ssl, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
for python in "${CANDIDATES[@]}"; do
  if "$python" -Ic "$CHECK" >/dev/null 2>&1; then
    exec "$python" -I "$(dirname "${BASH_SOURCE[0]}")/setup_env.py" "$@"
  fi
done
cat >&2 <<MESSAGE
setup_env.sh: error: Python 3.10, 3.11 or 3.12 with venv and ensurepip is needed; tried ${CANDIDATES[*]}
  Debian, Ubuntu: apt-get install python3 python3-venv
  Fedora, RHEL:   dnf install python3.11
  without root:   conda create -n py311 python=3.11, or pyenv install 3.11
  then:           bash tools/setup_env.sh --python /path/to/python3.11
MESSAGE
exit 1
