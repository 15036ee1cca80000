# SPDX-License-Identifier: Apache-2.0
"""Packaging of milan_mm.

The mm* packages are extras and never among the requirements: two lineages of them share the
same import names, and ``pip install .`` must not put one over the other.
"""

import ast
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The literal assigned to ``__version__`` in milan_mm/packages.py, without importing it."""
    path = ROOT / 'milan_mm' / 'packages.py'
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and '__version__' in (
            target.id for target in node.targets if isinstance(target, ast.Name)
        ):
            return ast.literal_eval(node.value)
    raise RuntimeError(f"{path} has no line `__version__ = '...'`; setup.py reads it there")


def read_requirements(name: str) -> list[str]:
    """The requirement lines of requirements/NAME.txt, comments removed."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def read_readme() -> str:
    """The README, or nothing in a tree that has none yet."""
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


setup(
    name='milan_mm',
    version=read_version(),
    description='MILAN (masked image pretraining on language-assisted features) for OpenMMLab',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['milan_mm', 'milan_mm.*']),
    py_modules=['milan_mm_cli'],
    entry_points={'console_scripts': ['milan = milan_mm_cli:main']},
    package_data={'milan_mm': ['**/*.j2', '**/*.html', '**/*.css', '**/*.js', '**/*.json']},
    python_requires='>=3.10,<3.13',
    install_requires=read_requirements('runtime'),
    extras_require={name: read_requirements(name) for name in ('onedl', 'openmmlab', 'tests')},
    zip_safe=False,
)
