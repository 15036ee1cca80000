#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up the environment, lints, runs the tests (see --help).
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: bash tools/run_tests.sh [--stack onedl|openmmlab] [--venv DIR] [pytest arguments]

Sets up the environment (tools/setup_env.sh), runs ruff, codespell and mypy (on the default
stack) and pytest. The exit code is that of the first that finds something.

  --stack openmmlab  upstream's last releases; leaves out what is marked onedl_only
  --venv DIR         another environment than .venv or .venv-openmmlab

examples: bash tools/run_tests.sh
          bash tools/run_tests.sh -m slow    # what is left out by default
          bash tools/run_tests.sh tests/test_masking.py -k chi_square -x
USAGE
}

die() {
  local code=${2:-$?}
  echo "run_tests.sh: error: $1" >&2
  exit "$code"
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
STACK=onedl
VENV=

while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --stack | --venv)
      (($# > 1)) || die "$1 needs a value; see --help" 2
      case $1 in --stack) STACK=$2 ;; --venv) VENV=$2 ;; esac
      shift 2
      ;;
    *) break ;; # pytest's
  esac
done

if [[ -z $VENV ]]; then
  VENV=$ROOT/.venv
  [[ $STACK == onedl ]] || VENV=$ROOT/.venv-$STACK
fi
bash "$ROOT/tools/setup_env.sh" --stack "$STACK" --venv "$VENV"
PYTHON=$(cd "$VENV" && pwd)/bin/python
cd "$ROOT"

SELECTION=()
if [[ $STACK == onedl ]]; then
  "$PYTHON" -m ruff check . || die "much of it is mended by: $PYTHON -m ruff check --fix ."
  "$PYTHON" -m mypy || die 'settings and what may be left out: pyproject.toml, [tool.mypy]'
  "$PYTHON" -m codespell_lib || die 'a word that is right goes into pyproject.toml, [tool.codespell]'
else
  SELECTION=(-m 'not onedl_only and not slow')
fi

# No test may need the network, a display, or more than two cores.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 MPLBACKEND=Agg
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
unset PYTHONPATH PYTEST_ADDOPTS

# exec: pytest's closing line is the last one, its exit code is this script's.
# Two files of tests at a time; what a file makes once is made once.
exec "$PYTHON" -m pytest -n "${TEST_WORKERS:-2}" --dist loadfile \
  --durations=15 --durations-min=1 ${SELECTION[@]+"${SELECTION[@]}"} "$@"
