# SPDX-License-Identifier: Apache-2.0
"""The part of the build that pyproject.toml cannot say: what lies in ``milan_mm/.mim``."""
import shutil
from fnmatch import fnmatch
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM = ('configs', 'studies', 'demo', 'tools', 'model-index.yml')
# The last three are of use in a clone alone.
LEFT_OUT = ('__pycache__', 'setup_env.*', 'run_tests.sh', 'quickstart.sh')


def packed() -> list[Path]:
    """The files of ``MIM``."""
    paths = [path for name in MIM for path in (Path(name), *Path(name).rglob('*'))]
    return [path for path in paths if path.is_file() and not any(
        fnmatch(part, pattern) for part in path.parts for pattern in LEFT_OUT)]


class BuildWithMim(build_py):
    """Puts ``MIM`` beside the code, where mim, mmengine and milan_mm/resources.py look."""

    def run(self) -> None:
        super().run()
        mim = Path('' if self.editable_mode else self.build_lib, 'milan_mm/.mim')
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        if self.editable_mode:
            for name in MIM:
                (mim / name).symlink_to(Path('../..', name))
            return
        for path in packed():
            (mim / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, mim / path)

    def get_source_files(self) -> list[str]:
        """For the sdist; MANIFEST.in could not tell a folder from an editable install's link."""
        return [*super().get_source_files(), *map(str, packed())]


setup(cmdclass=dict(build_py=BuildWithMim))
