# SPDX-License-Identifier: Apache-2.0
"""Makes a virtual environment with milan_mm (editable), PyTorch, one lineage of the OpenMMLab
packages and the test tools. Needs Python 3.10, 3.11 or 3.12; no compiler, no libGL, no root.
May be called again at any time: it does nothing when all is in place, updates when the
requirements changed, and starts over where an earlier call was interrupted.

pip's own settings are honoured, also by uv: PIP_INDEX_URL or PIP_EXTRA_INDEX_URL for a mirror or
for an index with CPU-only builds of PyTorch (0.2 GB instead of 3 GB to download), and
PIP_CONSTRAINT=requirements/lock-onedl.txt for the versions that were tested together.
"""
# How it stays right. DIR.lock, held while this runs, tells in two lines how the environment was
# left: "unfinished" or a key over requirements, this script, paths and installed packages; then
# whose it is. Same key: nothing to do. Unfinished: an earlier call was interrupted, and it is made
# anew (uv's cache makes that cheap). Otherwise: ours is brought up to date, another's gets what it
# lacks. Standard library only: this runs before anything is installed.

import argparse
import ast
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Distributions that differ in these hold the same module: mmcv-lite, opencv-contrib-python.
VARIANTS = '-lite|-full|-contrib|-headless'
# pip's settings, and the variables in which uv reads the same.
PIP_TO_UV = {'index-url': 'UV_DEFAULT_INDEX', 'extra-index-url': 'UV_EXTRA_INDEX_URL',
             'find-links': 'UV_FIND_LINKS', 'constraint': 'UV_CONSTRAINT',
             'trusted-host': 'UV_INSECURE_HOST', 'timeout': 'UV_HTTP_TIMEOUT',
             'cert': 'SSL_CERT_FILE', 'proxy': 'ALL_PROXY'}
IMPORTS = ['cv2', 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain.models', 'mmdet', 'mmseg',
           'open_clip', 'pytest']
# What the log says, and what helps then.
REMEDIES = {
    'No space left': 'the disk is full: 8 GB are needed there and 4 GB in the temporary folder',
    'failed to fetch|dns error|ConnectionError|Temporary failure|timed out|unreachable|SSLError'
    '|ConnectionReset|ProxyError|from versions: none|not found in the package registry':
        'the package index was not reached or lacks something: check the network and HTTPS_PROXY, '
        'or set PIP_INDEX_URL to a mirror',
    'No matching distribution|ResolutionImpossible|conflicting dependencies|No solution':
        'no versions fit: are PIP_INDEX_URL and PIP_CONSTRAINT as they should be? An environment '
        'of your own (--venv) may hold what excludes them: use a new one',
    'ModuleNotFoundError|ImportError': 'what was installed does not import: remove the environment',
}
START = time.monotonic()


def say(text: str) -> None:
    print(f'[{time.monotonic() - START:3.0f}s] {text}', flush=True)


def fail(*lines: str) -> None:
    sys.exit('setup_env.sh: error: ' + '\n  '.join(lines))


class Environment:
    """A virtual environment: what is in it and what is put there."""

    def __init__(self, folder: Path, stack: str, tool: str) -> None:
        self.folder, self.stack, self.tool = folder, stack, tool
        self.python, self.log = folder / 'bin' / 'python', folder / 'milan_mm_setup.log'
        self.ours = True  # False: somebody else's, whose packages keep their versions
        self.lock = Path(f'{folder}.lock')
        file = os.open(self.lock, os.O_CREAT | os.O_RDWR)
        os.set_inheritable(file, True)  # held to the end of this process and of what it starts
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f'another set-up of {folder} is under way; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        self.left = (self.lock.read_text() + '\n\n').split('\n')[:2]
        self.before = self.packages()

    def owner(self) -> str:
        return f'{"ours" if self.ours else "not ours"} {self.folder.stat().st_ino}'

    def note(self, key: str, owner: str) -> None:
        self.lock.write_text(f'{key}\n{owner}')

    def packages(self) -> list[str]:
        return sorted(p.name for p in self.folder.glob('lib/python3*/site-packages/*.dist-info'))

    def key(self) -> str:
        files = [ROOT / f'requirements/{name}.txt'
                 for name in ('runtime', self.stack, 'tests', 'docs')]
        files += [ROOT / 'setup.py', ROOT / 'pyproject.toml', Path(__file__)]
        files += self.folder.glob('lib/python3*/site-packages/milan_mm-*/direct_url.json')
        contents = [path.read_bytes() for path in files if path.exists()]
        state = (self.folder, self.stack, ROOT, self.packages(), contents)
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def ask(self, *question: str) -> str:
        command = [self.python, '-I', *question]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def installed(self) -> dict[str, str]:
        lines = self.ask('-c', 'from importlib.metadata import distributions\n'
                         'for d in distributions(): print(d.metadata["Name"], d.version)')
        pairs = (line.split() for line in lines.splitlines())
        return {re.sub('[-_.]+', '-', name).lower(): version for name, version in pairs}

    def lineages(self) -> list[str]:
        found = re.findall(r'^(onedl-)?mm(?:engine|cv|pretrain|det|segmentation)',
                           '\n'.join(self.installed()), re.M)
        return ['onedl' if prefix else 'openmmlab' for prefix in set(found)]

    def run(self, *command: str | Path, **variables: str) -> int:
        """Runs it, output to the log; a line every 10 seconds shows that it goes on."""
        env = {**variables, **os.environ}
        with open(self.log, 'ab') as log:
            # It inherits the lock: should it outlive this script, a later call waits for it.
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env, close_fds=False)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(10)
                lines = self.log.read_text('utf-8', 'replace').strip().splitlines()
                line = lines[-1].strip()[:80] if lines else ''
                say(f'  ... {line} ({len(self.packages())} packages are there)')
        finally:
            process.kill()

    def check(self, code: int) -> None:
        """Ends with the remedy where a command that ``run`` ran has failed."""
        if code == 0:
            return
        text = self.log.read_text('utf-8', 'replace')
        remedies = [remedy for what, remedy in REMEDIES.items() if re.search(what, text, re.I)]
        print(*(f'  | {line[:300]}' for line in text.splitlines()[-15:]), sep='\n', file=sys.stderr)
        if self.packages() == self.before:
            self.note(*self.left)  # as usable as it was
        fail(f'the installation failed (exit code {code})',
             *(remedies or ['read the lines above and the log'])[:1],
             f'log: {self.log}', 'then call the same command again')

    def pip_settings(self) -> dict[str, str]:
        """What pip's configuration files and PIP_* variables say, the stronger ones last."""
        listed = self.ask('-m', 'pip', 'config', 'list')
        return {name: ast.literal_eval(value) for section in ('global', 'install', ':env:')
                for name, value in re.findall(rf'^{section}\.([\w-]+)=(.*)$', listed, re.M)}

    def install(self, *what: str) -> None:
        if self.tool == 'pip':  # .pyc files come at the first import of what is really used
            command = [self.python, '-m', 'pip', 'install', '--prefer-binary', '--no-compile']
            return self.check(self.run(*command, *what))
        # uv chooses among several indexes as pip does, and is told what pip would know.
        command = [self.tool, 'pip', 'install', '--python', self.python, '--project', ROOT,
                   '--index-strategy', 'unsafe-best-match']
        settings = self.pip_settings()
        variables = {PIP_TO_UV[name]: (',' if name == 'find-links' else ' ').join(value.split())
                     for name, value in settings.items() if name in PIP_TO_UV}
        if settings.get('no-index', '').lower() in ('1', 'true', 'yes', 'on'):
            command.append('--no-index')
        self.check(self.run(*command, *what, **variables))

    def prepare(self, same_python: bool) -> None:
        """Leaves an environment to be updated, or a fresh one; finds out whose it is."""
        if self.left == ['unfinished', self.owner()]:
            say(f'an earlier set-up of {self.folder} was interrupted; starting over')
        elif self.left[1] == self.owner() and self.python.exists():
            if same_python and self.lineages() == [self.stack]:
                say(f'bringing {self.folder} up to date')
                return self.note('unfinished', self.owner())
            say(f'{self.folder} was made for another Python or stack; starting over')
        elif (self.folder / 'pyvenv.cfg').exists() or (self.folder / 'conda-meta').exists():
            self.ours = False
            others = set(self.lineages()) - {self.stack}
            if others:
                fail(f'{self.folder} holds the lineage {others.pop()} and --stack is {self.stack}; '
                     'they share import names', 'use --stack accordingly, or another --venv')
            return None
        elif os.listdir(self.folder):
            fail(f'{self.folder} exists and is not a virtual environment', 'choose another: --venv')
        self.note('unfinished', self.owner())
        say(f'making {self.folder} with {sys.executable} (Python {sys.version.split()[0]})')
        command = [sys.executable, '-m', 'venv', '--clear', self.folder]
        if subprocess.run(command, close_fds=False).returncode:
            fail('python -m venv failed; read the lines above')
        self.before = []

    def choose_tool(self) -> None:
        """Takes uv from the PATH, else from the package index into our environment, else pip."""
        found = shutil.which('uv') or self.folder / 'bin' / 'uv'
        if self.tool == 'uv' and not os.access(found, os.X_OK) and self.ours:
            self.run(self.python, '-m', 'pip', 'install', 'uv>=0.5,<1')
        self.tool = str(found) if self.tool == 'uv' and os.access(found, os.X_OK) else 'pip'

    def fill(self) -> None:
        if not self.ours:
            say(f'adding what is missing to the existing {self.folder} (log: {self.log})')
            have, lines = self.installed(), (ROOT / f'requirements/{self.stack}.txt').read_text()
            wanted = re.findall('^([a-z_-]+)([<>=].*?)(?: *#.*)?$', lines, re.M)
            modules = {re.sub(VARIANTS, '', name) for name in have}
            missing = [name + versions for name, versions in wanted
                       if re.sub(VARIANTS, '', name).replace('_', '-') not in modules]
            pins = self.folder / 'milan_mm_constraints.txt'
            pins.write_text('\n'.join(f'{name}=={version}' for name, version in have.items()
                                      if name not in ('milan-mm', 'setuptools')))
            return self.install('-c', str(pins), *missing, '-e', f'{ROOT}[tests]')
        say(f'installing the {self.stack} stack with {self.tool} (1 to 4 minutes; log: {self.log})')
        self.install('-e', f'{ROOT}[{self.stack},tests]')
        have = self.installed()
        if 'opencv-python' in have:  # in the folder of the headless build: both go, one comes
            names = ['opencv-python', 'opencv-python-headless']
            self.check(self.run(self.python, '-m', 'pip', 'uninstall', '-y', *names))
            self.install('--no-deps', f'{names[1]}=={have[names[1]]}')


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='bash tools/setup_env.sh', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--stack', choices=['onedl', 'openmmlab'], default='onedl',
                        help="the maintained onedl-* packages, or upstream's last releases")
    parser.add_argument('--venv', type=Path, metavar='DIR', help='where (default: .venv, or '
                        '.venv-openmmlab for that stack, in the repository). An environment that '
                        'this script did not make gets what it lacks; what it has keeps its '
                        'version. Refused where it holds the other lineage.')
    parser.add_argument('--python', help='the interpreter to use (default: the first suitable one '
                        'of python3.11, python3.12, python3.10, python3, python)')
    parser.add_argument('--pip', dest='tool', action='store_const', const='pip', default='uv',
                        help='install with pip; else uv is used where it is found or can be had')
    args = parser.parse_args()
    default = ROOT / ('.venv' if args.stack == 'onedl' else '.venv-openmmlab')
    folder = Path(os.path.abspath(args.venv or default))
    # Settings of the caller's shell that would install to, or import from, somewhere else.
    for name in ('PYTHONHOME', 'PYTHONPATH', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT'):
        os.environ.pop(name, None)
    os.environ.update(PIP_USER='0', PIP_NO_INPUT='1', PIP_DISABLE_PIP_VERSION_CHECK='1')
    folder.mkdir(parents=True, exist_ok=True)
    env = Environment(folder, args.stack, args.tool)
    # What is not there yet cannot be asked.
    same = not args.python or (env.python.exists() and sys.version == env.ask(
        '-c', 'import sys; print(sys.version)').strip())
    if same and env.python.exists() and env.left[0] == env.key():
        return say(f'{folder} is ready ({args.stack})')
    env.prepare(same)
    env.log.write_bytes(b'')
    env.choose_tool()
    env.fill()
    if env.packages() != env.before:
        say('importing everything once')
        env.check(env.run(env.python, '-Ic', 'import importlib\n'
                          f'for name in {IMPORTS}:\n    print("importing", name, flush=True)\n'
                          '    importlib.import_module(name)'))
    env.note(env.key(), env.owner())
    say(f'ready: source {folder}/bin/activate')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(str(error), 'is the disk full, or the folder not writable? Choose another with --venv')
