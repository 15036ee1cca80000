# SPDX-License-Identifier: Apache-2.0
"""The part of the build that pyproject.toml cannot say: what lies in ``milan_mm/.mim``."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM = ('configs', 'studies', 'demo', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Puts ``MIM`` beside the code, where mim, mmengine and milan_mm/resources.py look."""

    def run(self) -> None:
        super().run()
        mim = Path('' if self.editable_mode else self.build_lib, 'milan_mm/.mim')
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM:
            if self.editable_mode:
                (mim / name).symlink_to(Path('../..', name))
            elif Path(name).is_dir():
                shutil.copytree(name, mim / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(name, mim / name)

    def get_source_files(self) -> list[str]:
        """For the sdist; MANIFEST.in could not tell a folder from an editable install's link."""
        paths = [path for name in MIM for path in (Path(name), *Path(name).rglob('*'))]
        return [*super().get_source_files(),
                *(str(p) for p in paths if p.is_file() and '__pycache__' not in p.parts)]


setup(cmdclass=dict(build_py=BuildWithMim))
