#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the virtual environment that everything else runs in (see --help).
#
# How it stays right: a marker file lies in the environment from before its first file until
# everything has been installed and imported; then a stamp with a key over the requirements,
# the scripts, the Python version and the paths takes its place. Marker found: an earlier call
# was interrupted; what pip was stopped in is found by its file lists and installed again, and
# where that is not enough the environment is made anew. Stamp with the same key, and installed
# versions within the ranges: nothing to do.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: bash tools/setup_env.sh [--stack onedl|openmmlab] [--venv DIR] [--python PYTHON]

Makes a virtual environment with milan_mm (editable), PyTorch, one lineage of the OpenMMLab
packages and the test tools. Needs Python 3.10, 3.11 or 3.12; no compiler, no libGL, no root.
May be called again at any time: it does nothing when all is in place, updates when the
requirements changed, and goes on where an earlier call was interrupted.

  --stack onedl      the maintained onedl-* packages, current PyTorch (default)
  --stack openmmlab  upstream's last releases: mmcv-lite 2.1.0, mmengine 0.10.7, mmpretrain 1.2.0,
                     mmdet 3.3.0, mmsegmentation 1.2.2; PyTorch below 2.6, numpy below 2
  --venv DIR         where (default: .venv, or .venv-openmmlab for that stack, in the repository).
                     An environment that this script did not make gets what it lacks; what it
                     has keeps its version. Refused where it holds the other lineage.
  --python PYTHON    the interpreter to use (default: the first suitable one of python3.11,
                     python3.12, python3.10, python3, python)

pip's own settings are honoured, for instance PIP_INDEX_URL or PIP_EXTRA_INDEX_URL for a mirror
or for an index with CPU-only builds of PyTorch (0.2 GB instead of 3 GB to download).
USAGE
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
STACK=onedl
VENV=
PYTHON=
OURS=1 # 0: an environment of somebody else, named by --venv

say() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }
die() {
  printf 'setup_env.sh: error: %s\n' "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --stack | --venv | --python)
      (($# > 1)) || die "$1 needs a value" 'see: bash tools/setup_env.sh --help'
      case $1 in --stack) STACK=$2 ;; --venv) VENV=$2 ;; --python) PYTHON=$2 ;; esac
      shift 2
      ;;
    *) die "unknown argument '$1'" 'see: bash tools/setup_env.sh --help' ;;
  esac
done

case $STACK in
  onedl) : "${VENV:=$ROOT/.venv}" ;;
  openmmlab) : "${VENV:=$ROOT/.venv-openmmlab}" ;;
  *) die "--stack is '$STACK'; expected onedl or openmmlab" ;;
esac
mkdir -p "$(dirname "$VENV")" || die "cannot make the folder of $VENV" 'choose another with --venv'
VENV=$(cd "$(dirname "$VENV")" && pwd -P)/$(basename "$VENV")
VENV_PYTHON=$VENV/bin/python
MARKER=$VENV/.milan_mm_unfinished # holds the identity once there is a Python in it
STAMP=$VENV/.milan_mm_ready # two lines: key, identity
ADDED=$VENV/.milan_mm_added # the same in somebody else's environment
LOG=$VENV/milan_mm_setup.log

# Settings of the caller's shell that would install to, or import from, somewhere else.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

state() { "$VENV_PYTHON" -I "$ROOT/tools/env_state.py" "$1" --stack "$STACK"; }

# Prints why PYTHON ($1) cannot be used, or nothing.
unsuitable() {
  command -v "$1" >/dev/null 2>&1 || { echo 'not found' && return; }
  "$1" -I - 2>/dev/null <<'PY' || echo 'does not run as Python 3'
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    print('is Python %d.%d' % sys.version_info[:2])
else:
    try:
        import ensurepip, ssl, venv
    except ImportError as error:
        print('Python %d.%d without the module %s' % (*sys.version_info[:2], error.name))
PY
}

find_python() {
  local candidate reason candidates=(python3.11 python3.12 python3.10 python3 python) tried=()
  [[ -z $PYTHON ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    reason=$(unsuitable "$candidate")
    if [[ -z $reason ]]; then
      PYTHON=$(command -v "$candidate")
      return
    fi
    tried+=("$candidate: $reason")
  done
  die 'no suitable Python: 3.10, 3.11 or 3.12 with venv and ensurepip is needed; tried' \
    "${tried[@]}" \
    'Debian, Ubuntu: apt-get install python3 python3-venv' \
    'Fedora, RHEL:   dnf install python3.11' \
    'without root:   conda create -n py311 python=3.11, or pyenv install 3.11' \
    'then:           bash tools/setup_env.sh --python /path/to/python3.11'
}

same_python() {
  local code='import sys; print(sys.version)'
  [[ $("$PYTHON" -I -c "$code" 2>/dev/null) == "$("$VENV_PYTHON" -I -c "$code" 2>/dev/null)" ]]
}

count_packages() { find "$VENV"/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l; }

pip_progress() {
  local line have want
  line=$(grep -E '^ *(Collecting|Downloading|Building|Preparing|Installing|import)' "$LOG" |
    tail -n 1) || true
  if [[ $line == Installing\ collected* ]]; then
    want=$(tr ',' '\n' <<<"$line" | wc -l)
    have=$(($(count_packages) - PACKAGES_BEFORE))
    echo "installing, $((have > want ? want : have)) of $want packages"
  else
    sed -E 's/^ *//; s/ \(from .*//' <<<"$line" | cut -c 1-90
  fi
}

# Where the system can: a killed set-up takes its pip along, instead of leaving it at work.
TETHER=()
! setpriv --pdeathsig KILL true 2>/dev/null || TETHER=(setpriv --pdeathsig KILL)

CHILD=
trap '[[ -z $CHILD ]] || kill "$CHILD" 2>/dev/null' EXIT
trap 'exit 130' INT TERM HUP

# logged COMMAND...: its output goes to the log; a line every 10 seconds shows that it goes on.
logged() {
  local next=$((SECONDS + 10)) code=0
  ${TETHER[@]+"${TETHER[@]}"} "$@" >>"$LOG" 2>&1 &
  CHILD=$!
  while kill -0 "$CHILD" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS >= next)); then
      say "  ... $(pip_progress)"
      next=$((SECONDS + 10))
    fi
  done
  wait "$CHILD" || code=$?
  CHILD=
  return "$code"
}

pip_failed() {
  local remedy='read the lines above and the log'
  if grep -q 'No space left' "$LOG"; then
    remedy="the disk is full: 8 GB are needed here and 4 GB in ${TMPDIR:-/tmp} for a while"
  elif grep -qE 'ConnectionError|Temporary failure|timed out|unreachable|ConnectionReset|SSLError|ProxyError|from versions: none' "$LOG"; then
    remedy='the package index was not reached or is empty: check the network and HTTPS_PROXY, or set PIP_INDEX_URL to a mirror'
  elif grep -qE 'No matching distribution|ResolutionImpossible|conflicting dependencies' "$LOG"; then
    remedy="no versions fit for $("$VENV_PYTHON" -V), $(uname -sm): are PIP_INDEX_URL and PIP_CONSTRAINT as they should be?"
    ((OURS)) || remedy='what this environment holds excludes what is needed: use a new one, --venv DIR'
  elif [[ $1 == 137 ]]; then
    remedy='pip was killed, perhaps for want of memory: 4 GB are needed'
  fi
  tail -n 15 "$LOG" | cut -c 1-300 | sed 's/^/  | /' >&2
  die "the installation failed (exit code $1)" "$remedy" "log: $LOG" 'then call the same command again'
}

# Without .pyc files: they come at the first import of what is really used.
pip_install() {
  PACKAGES_BEFORE=$(count_packages)
  logged "$VENV_PYTHON" -m pip install --prefer-binary --no-compile "$@" || pip_failed "$?"
}

lock() {
  # A pip that outlived its killed setup_env.sh holds the lock as well, through the open file.
  command -v flock >/dev/null 2>&1 || return 0
  exec 9>"$VENV.lock" || die "cannot write to $(dirname "$VENV")" 'choose another with --venv'
  if ! flock -n 9; then
    say "another set-up of $VENV is under way; waiting for it"
    flock -w 900 9 || die 'still under way after 15 minutes' "who it is: fuser $VENV.lock"
  fi
}

is_ready() {
  local check=check stamp=$STAMP found
  [[ -f $ADDED ]] && check=check-added stamp=$ADDED
  [[ -x $VENV_PYTHON && -f $stamp && ! -f $MARKER ]] || return 1
  [[ $(head -n 1 "$stamp") == "$(state key 2>/dev/null)" ]] || return 1
  [[ -z $PYTHON ]] || same_python || return 1
  found=$(state "$check" 2>&1)
  [[ $found == ok ]] || { say "$VENV is not as it was left: $found" && return 1; }
}

# What a killed set-up had started through pip (builds, ensurepip) may still be writing.
wait_for_orphans() {
  local seconds
  command -v pgrep >/dev/null 2>&1 || return 0
  for ((seconds = 0; seconds < 60; seconds++)); do
    pgrep -f "^$VENV/bin/python[^ ]* .*pip" >/dev/null || return 0
    sleep 1
  done
}

# Leaves an environment to be updated, or none; sets OURS.
prepare_folder() {
  local found
  if [[ ! -e $VENV || (-d $VENV && -z $(ls -A "$VENV")) ]]; then
    return
  elif [[ -f $MARKER ]]; then
    wait_for_orphans
    if [[ -s $MARKER && $(cat "$MARKER") == "$(state identity 2>/dev/null)" ]] &&
      { [[ -z $PYTHON ]] || same_python; } && found=$(state mend 2>/dev/null); then
      say "an earlier set-up of $VENV was interrupted; going on from there ($found)"
      return
    fi
    say "an earlier set-up of $VENV was interrupted; starting over"
  elif [[ -f $STAMP ]]; then
    if [[ $(tail -n 1 "$STAMP") == "$(state identity 2>/dev/null)" ]] &&
      [[ $(state lineages) == "$STACK" ]] && { [[ -z $PYTHON ]] || same_python; }; then
      say "bringing $VENV up to date"
      state identity >"$MARKER"
      return
    fi
    say "$VENV was moved, mixed, or made for another Python or stack; starting over"
  elif [[ -f $VENV/pyvenv.cfg || -d $VENV/conda-meta ]]; then
    OURS=0
    return
  else
    die "$VENV exists and is not a virtual environment" 'choose another folder with --venv'
  fi
  say 'removing its files (deleting 6 GB can take a minute or two)'
  : >"$MARKER"
  # The marker stays: a call interrupted here leaves a folder that is known to be unfinished.
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name "$(basename "$MARKER")" -exec rm -rf {} +
}

make_venv() {
  local free
  find_python
  say "making $VENV with $PYTHON ($("$PYTHON" -V 2>&1))"
  { mkdir -p "$VENV" && : >"$MARKER"; } || die "cannot write to $VENV" 'choose another with --venv'
  free=$(df -Pk "$VENV" | awk 'NR == 2 {print int($4 / 1048576)}')
  ((free >= 8)) || say "warning: $free GB free on this disk, a CUDA build of PyTorch needs 8"
  : >"$LOG"
  logged "$PYTHON" -m venv "$VENV" || pip_failed "$?"
  state identity >"$MARKER"
}

# opencv-python and the headless build write to the same folder: both go, one comes back.
keep_headless_cv2() {
  local version code='import sys; from importlib.metadata import version; print(version(sys.argv[1]))'
  "$VENV_PYTHON" -I -c "$code" opencv-python >/dev/null 2>&1 || return 0
  version=$("$VENV_PYTHON" -I -c "$code" opencv-python-headless)
  say 'keeping only the OpenCV build that needs no libGL'
  logged "$VENV_PYTHON" -m pip uninstall -y opencv-python opencv-python-headless || pip_failed "$?"
  pip_install --no-deps "opencv-python-headless==$version"
}

install_all() {
  say "installing the $STACK stack (1 to 4 minutes; log: $LOG)"
  pip_install -r "$ROOT/requirements/runtime.txt" -r "$ROOT/requirements/$STACK.txt" \
    -r "$ROOT/requirements/tests.txt"
  keep_headless_cv2
}

# Nothing that the environment has gets another version.
install_missing() {
  local reason found
  reason=$(unsuitable "$VENV_PYTHON")
  [[ -z $reason ]] || die "$VENV_PYTHON: $reason; 3.10 to 3.12 is needed" 'choose another with --venv'
  found=$(state lineages)
  [[ -z $found || $found == "$STACK" ]] ||
    die "$VENV holds the lineage '$found' and --stack is $STACK; they share import names" \
      'use --stack accordingly, or another --venv'
  say "adding what is missing to the existing environment $VENV (log: $LOG)"
  : >"$LOG"
  state missing >"$VENV/.milan_mm_missing.txt"
  state constraints >"$VENV/.milan_mm_constraints.txt"
  pip_install -c "$VENV/.milan_mm_constraints.txt" -r "$VENV/.milan_mm_missing.txt" \
    -r "$ROOT/requirements/runtime.txt" -r "$ROOT/requirements/tests.txt"
}

check_imports() {
  say 'importing everything once'
  logged "$VENV_PYTHON" -I -c '
import importlib
for name in "cv2 torch torchvision mmengine mmcv mmpretrain.models mmdet mmseg open_clip".split():
    print("import", name, flush=True)
    importlib.import_module(name)' && return
  ((OURS == 0)) || : >"$MARKER"
  tail -n 15 "$LOG" | sed 's/^/  | /' >&2
  die 'what was installed does not import' "log: $LOG" \
    "$( ((OURS)) && echo 'call the same command again: it starts over' || echo 'use a new environment: --venv DIR')"
}

main() {
  local check=check stamp=$STAMP isolation=(--no-build-isolation) found
  lock
  if is_ready; then
    say "$VENV is ready ($STACK)"
    return
  fi
  prepare_folder
  [[ -x $VENV_PYTHON ]] || make_venv
  if ((OURS)); then
    install_all
  else
    check=check-added stamp=$ADDED isolation=()
    install_missing
  fi
  say 'installing milan_mm itself (editable)'
  # Its own environment holds a setuptools that can; another may have any.
  pip_install --no-deps ${isolation[@]+"${isolation[@]}"} -e "$ROOT"
  check_imports
  found=$(state "$check")
  [[ $found == ok ]] || die "after the installation: $found" "log: $LOG"
  { state key && state identity; } >"$stamp"
  rm -f "$MARKER"
  say "ready: source $VENV/bin/activate"
}

main
