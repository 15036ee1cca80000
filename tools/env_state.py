# SPDX-License-Identifier: Apache-2.0
"""What is installed in an environment, compared with requirements/*.txt.

The part of ``tools/setup_env.sh`` that is better said in Python. It runs with the interpreter of
the environment in question, uses nothing but the standard library and pip, and imports none of
the packages it asks about, so that it answers within half a second (``mend``: two).
"""

import argparse
import csv
import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    'cv2',
    'torch',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmpretrain',
    'mmdet',
    'mmseg',
    'open_clip',
    'pytest',
)
UPSTREAM = (
    'mmengine',
    'mmengine-lite',
    'mmcv',
    'mmcv-lite',
    'mmcv-full',
    'mmpretrain',
    'mmdet',
    'mmsegmentation',
)
FORKS = ('mmengine', 'mmcv', 'mmpretrain', 'mmdetection', 'mmsegmentation')
LINEAGES = {'onedl': tuple(f'onedl-{name}' for name in FORKS), 'openmmlab': UPSTREAM}
# Distributions that hold the same module; any of them fulfils a requirement for another.
SAME_MODULE = (
    {'mmcv', 'mmcv-lite', 'mmcv-full'},
    {'mmengine', 'mmengine-lite'},
    {
        f'opencv{contrib}-python{build}'
        for contrib in ('', '-contrib')
        for build in ('', '-headless')
    },
)


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_lines(*names: str) -> list[str]:
    """The requirement lines of requirements/NAME.txt, comments removed."""
    text = '\n'.join((ROOT / 'requirements' / f'{n}.txt').read_text('utf-8') for n in names)
    lines = (re.sub(r'\s*#.*', '', line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def requirement(line: str):
    """A requirement line, parsed by ``packaging`` or by the copy of it within pip."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    return Requirement(line)


def key(stack: str) -> str:
    """Changes whenever an environment made earlier may no longer be what is asked for."""
    digest = hashlib.sha256(repr((stack, str(ROOT), sys.version_info[:3])).encode())
    names = [f'requirements/{name}.txt' for name in ('runtime', stack, 'tests')]
    for name in [*names, 'setup.py', 'tools/setup_env.sh', 'tools/env_state.py']:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def identity(stack: str) -> str:
    """What an environment cannot change by an update: where it is, its Python, its stack."""
    return f'{sys.prefix} python{sys.version_info[0]}.{sys.version_info[1]} {stack}'


def lineages() -> list[str]:
    """The lineages of which at least one package is installed."""
    return [name for name, members in LINEAGES.items() if any(map(version_of, members))]


def absent_modules() -> Iterator[str]:
    """A sentence for each module that an import would not find."""
    for name in MODULES:
        if importlib.util.find_spec(name) is None:
            yield f'module {name} is missing'
    spec = importlib.util.find_spec('milan_mm')
    if spec is None or spec.origin is None or ROOT not in Path(spec.origin).resolve().parents:
        yield f'milan_mm is not installed from {ROOT}'


def differences(stack: str) -> Iterator[str]:
    """A sentence for each difference from the requirements."""
    for line in read_lines('runtime', stack, 'tests'):
        wanted = requirement(line)
        have = version_of(wanted.name)
        if have is None:
            yield f'{wanted.name} is not installed'
        elif not wanted.specifier.contains(have, prereleases=True):
            yield f'{wanted.name} is {have}, wanted is {wanted.specifier}'
    if version_of('opencv-python'):
        yield 'opencv-python (needs libGL) is installed over opencv-python-headless'
    if len(lineages()) > 1:
        yield 'packages of both OpenMMLab lineages are installed'


def unfulfilled(stack: str) -> list[str]:
    """The stack's requirement lines for modules that no installed distribution holds."""
    lines = []
    for line in read_lines(stack):
        name = requirement(line).name
        group = next((group for group in SAME_MODULE if name in group), {name})
        if not any(map(version_of, group)):
            lines.append(line)
    return lines


def constraints() -> list[str]:
    """Every installed distribution with its version, as pip constraints."""
    pairs = ((d.metadata['Name'], d.version) for d in importlib.metadata.distributions())
    return sorted({f'{name}=={version}' for name, version in pairs if name and name != 'milan_mm'})


def is_complete(dist_info: Path) -> bool:
    """Whether pip got to the end of installing: it lists INSTALLER in RECORD last of all."""
    record = dist_info / 'RECORD'
    if not record.is_file():
        return False
    with open(record, encoding='utf-8', newline='') as file:
        rows = [row for row in csv.reader(file) if row]
    sizes = {name: size for name, _, size in rows if not name.endswith('.pyc')}
    if f'{dist_info.name}/INSTALLER' not in sizes:
        return False
    for name, size in sizes.items():
        path = dist_info.parent / name
        if not path.is_file() or (size and path.stat().st_size != int(size)):
            return False
    return True


def mend() -> str:
    """Makes pip forget what it was stopped in, so that it installs that again, over the rest.

    Raises:
        SystemExit: pip itself is incomplete; the environment has to be made anew.
    """
    site = Path(sysconfig.get_path('purelib'))
    for leftover in site.glob('~*'):  # what pip moved aside to remove
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    infos = sorted(site.glob('*.dist-info'))
    broken = [info for info in infos if not is_complete(info)]
    if not infos or any(info.name.startswith('pip-') for info in broken):
        raise SystemExit('pip is incomplete')
    for info in broken:
        shutil.rmtree(info)
    return f'{len(infos) - len(broken)} packages are complete, {len(broken)} to be mended'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'question',
        choices=[
            'key',
            'identity',
            'lineages',
            'check',
            'check-added',
            'missing',
            'constraints',
            'mend',
        ],
        help='check: "ok" or what differs from requirements/*.txt; check-added: the same for an '
        "environment whose versions are its owner's; missing: requirement lines to install there; "
        'mend: remove the traces of an interrupted pip',
    )
    parser.add_argument('--stack', choices=list(LINEAGES), default='onedl')
    args = parser.parse_args()
    if args.question == 'check':
        print('; '.join([*differences(args.stack), *absent_modules()]) or 'ok')
    elif args.question == 'check-added':
        print('; '.join(absent_modules()) or 'ok')
    elif args.question == 'lineages':
        print(' '.join(lineages()))
    elif args.question == 'missing':
        print('\n'.join(unfulfilled(args.stack)))
    elif args.question == 'constraints':
        print('\n'.join(constraints()))
    elif args.question == 'mend':
        print(mend())
    else:
        print({'key': key, 'identity': identity}[args.question](args.stack))


if __name__ == '__main__':
    main()
