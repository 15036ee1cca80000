# SPDX-License-Identifier: Apache-2.0
"""The part of the build that pyproject.toml cannot say.

What lies in ``milan_mm/.mim``, and the text of the package page. A package index shows README.md by
itself, so its links and images need whole addresses there. Where the project lives is known to who
publishes it: ``PROJECT_URL`` (``https://HOST/OWNER/NAME``) and ``PROJECT_REF`` (a tag or commit;
by default HEAD) in the environment. Without the first the links stay as they are.
"""
import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM = ('configs', 'studies', 'demo', 'tools', 'model-index.yml')
# What is of use in a clone alone; styles.zip is what demo/teacher was trained on besides.
LEFT_OUT = ('__pycache__', 'setup_env.*', 'run_tests.sh', 'quickstart.sh', 'styles.zip',
            'ATTRIBUTION-styles.md', 'make_*_archive.py', 'train_teacher.py')


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


def with_addresses(text: str, url: str, ref: str) -> str:
    """Markdown whose links and images within the repository have whole addresses."""
    def whole(link: re.Match) -> str:
        kind = 'raw' if link[1].startswith('!') else 'blob'
        return f'{link[1]}({url}/{kind}/{ref}/{link[2]})'

    return re.sub(r'(!?\[[^\]]*\])\((?![a-z]+:|#|/)([^)\s]+)\)', whole, text)


def page_of_package() -> dict:
    """What ``setup`` is told about the page of the package."""
    text = Path('README.md').read_text(encoding='utf-8')
    page = dict(long_description=text, long_description_content_type='text/markdown')
    if url := os.environ.get('PROJECT_URL', '').rstrip('/'):
        ref = os.environ.get('PROJECT_REF') or 'HEAD'
        page['long_description'] = with_addresses(text, url, ref)
        page['project_urls'] = {
            'Source': url, 'Documentation': f'{url}/blob/{ref}/docs/index.md',
            'Changelog': f'{url}/blob/{ref}/CHANGELOG.md', 'Issues': f'{url}/issues'}
    return page


setup(cmdclass=dict(build_py=BuildWithMim), **page_of_package())
