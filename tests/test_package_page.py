# SPDX-License-Identifier: Apache-2.0
"""The page of the package at an index: README.md with links that lead somewhere from there."""
import os
import re
import shutil
import subprocess
import sys
from email import message_from_string

import pytest
from conftest import ROOT

NEEDED = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'requirements',
          'milan_mm/packages.py', 'milan_mm/__init__.py')
LINK = r'(!?)\[[^\]]*\]\(([^)\s]+)\)'


@pytest.fixture(scope='module')
def page_of(tmp_path_factory):
    """Builds the metadata as pip and build do, with other variables; gives it parsed."""
    clone = tmp_path_factory.mktemp('clone')
    (clone / 'milan_mm').mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)

    def build(**variables):
        code = ('import sys; from setuptools import build_meta; '
                'build_meta.prepare_metadata_for_build_wheel(sys.argv[1])')
        out = tmp_path_factory.mktemp('metadata')
        rest = {key: value for key, value in os.environ.items() if not key.startswith('PROJECT_')}
        done = subprocess.run([sys.executable, '-c', code, str(out)], cwd=clone, text=True,
                              env={**rest, **variables}, capture_output=True)
        assert done.returncode == 0, done.stderr
        [found] = out.glob('*/METADATA')
        return message_from_string(found.read_text(encoding='utf-8'))
    return build


def test_links_and_images_have_whole_addresses(page_of):
    url = 'https://code.example/owner/milan_mm'
    page = page_of(PROJECT_URL=url + '/', PROJECT_REF='v1')
    text = page.get_payload()
    assert page['Description-Content-Type'] == 'text/markdown' and 'Two commands' in text
    links = re.findall(LINK, text)
    assert len(links) > 5 and {image for image, _ in links} == {'', '!'}
    for image, link in links:
        start = f'{url}/{"raw" if image else "blob"}/v1/'
        if link.startswith(url):
            name, _, anchor = link.removeprefix(start).partition('#')
            assert link.startswith(start) and (ROOT / name).is_file(), link
            heads = re.findall(r'^#+ (.*)', (ROOT / name).read_text(), re.M) if anchor else ()
            assert not anchor or anchor in [head.lower().replace(' ', '-') for head in heads], link
        else:
            assert link.startswith('https://'), link
    assert f'Source, {url}' in page.get_all('Project-URL')


def test_without_an_address_the_page_is_the_readme(page_of):
    page = page_of()
    assert page.get_payload().strip() == (ROOT / 'README.md').read_text().strip()
    assert page.get_all('Project-URL') is None


def test_the_workflow_says_where_the_project_lives():
    workflow = (ROOT / '.github/workflows/tests.yml').read_text()
    assert 'PROJECT_URL: ${{ github.server_url }}/${{ github.repository }}' in workflow
