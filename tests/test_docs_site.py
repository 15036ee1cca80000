# SPDX-License-Identifier: Apache-2.0
"""The documentation builds without a warning, asks no other machine, and names what exists."""
import ast
import os
import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import milan_mm
from milan_mm.cli.main import ALIASES, COMMANDS, command_parser

PAGES = sorted([*(ROOT / 'docs').glob('*.md'), ROOT / 'README.md'])


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Built with warnings as errors: links, anchors, pages in no menu, names in the API."""
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(folder)], cwd=ROOT,
        env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_page_and_the_api(site):
    built = {path.stem for path in site.glob('*.html')}
    assert {path.stem for path in PAGES} - {'README'} <= built
    api = (site / 'api.html').read_text()
    assert 'id="milan_mm.models.milan.MILAN"' in api and 'mask_generator' in api
    shown = set(re.findall(r'<h3 id="milan_mm[.\w]*\.(\w+)"', api))
    assert not set(milan_mm.__all__) - shown and ':class:<code>' not in api


def test_it_can_be_read_and_searched_without_a_network(site):
    loaded = set()
    for page in site.glob('*.html'):
        text = page.read_text()
        loaded |= set(re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"', text))
        loaded |= set(re.findall(
            r'<link\b[^>]*rel="(?:stylesheet|preload|preconnect)"[^>]*href="([^"]+)"', text))
    assert loaded and not [one for one in loaded if re.match(r'(https?:)?//', one)]
    assert (site / 'search/search_index.json').is_file()


@pytest.mark.parametrize('name', ['index', 'concepts', 'recipes', 'troubleshooting'])
def test_pages_on_a_desk_and_on_a_phone(name, site, browser):
    for width, dark in ((1280, False), (390, True)):
        browser.open((site / f'{name}.html').as_uri(), width, dark)
        assert browser.findings() == []
        assert browser.run('document.documentElement.scrollWidth') <= width
        assert browser.run('[...document.images].every(one => one.naturalWidth && one.alt)')
        assert not [address for address in browser.asked if not address.startswith('file:')]


def test_search_works_in_pages_opened_as_files(site, browser):
    browser.open((site / 'index.html').as_uri())
    browser.run("""const asked = document.querySelector('.md-search__input'); asked.focus();
                   asked.value = 'temperature'; asked.dispatchEvent(new Event('keyup'));""")
    found, ends = '', time.monotonic() + 30
    while 'Concepts' not in found and time.monotonic() < ends:
        time.sleep(.2)
        found = browser.run("document.querySelector('.md-search-result__list').textContent")
    assert 'Concepts' in found
    assert not [address for address in browser.asked if not address.startswith('file:')]


def shell_commands():
    for page in PAGES:
        for block in re.findall(r'^```(?:bash|shell)\n(.*?)^```', page.read_text(), re.S | re.M):
            for line in block.replace('\\\n', ' ').splitlines():
                if found := re.match(r'\s*milan ([a-z-]+)(.*)', line.partition(' #')[0]):
                    yield page.name, found[1], found[2]


def test_commands_and_options_in_the_docs_exist():
    seen = set()
    for page, name, rest in shell_commands():
        if name.startswith('-'):
            continue
        name = ALIASES.get(name, name)
        assert name in COMMANDS, f'{page}: milan {name}'
        seen.add(name)
        parser = command_parser(name)
        known = {option for action in parser._actions for option in action.option_strings}
        for action in parser._actions:
            for sub in getattr(action, 'choices', None) or ():
                if hasattr(action.choices, 'get') and hasattr(action.choices[sub], '_actions'):
                    known |= {option for one in action.choices[sub]._actions
                              for option in one.option_strings}
        for option in re.findall(r'(?<!\S)(--[a-z][a-z-]*)', rest):
            assert option in known, f'{page}: milan {name} has no {option}'
    assert len(seen) > 15


def test_every_command_is_in_the_docs():
    table = (ROOT / 'docs/commands.md').read_text()
    assert sorted(re.findall(r'^\| `milan ([\w-]+)', table, re.MULTILINE)) == sorted(COMMANDS)


def test_python_blocks_are_python():
    for page in PAGES:
        for block in re.findall(r'^```python\n(.*?)^```', page.read_text(), re.S | re.M):
            compile(block, page.name, 'exec')


def said_in(folder):
    """Every text in the sources, with a mark for each value that is put into it."""
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield ''.join(part.value if isinstance(part, ast.Constant) else '\0'
                              for part in node.values)


def test_messages_in_troubleshooting_are_said_by_the_code():
    """Word by word between the places of values; those of Python, PyTorch and the system aside."""
    others = {"ModuleNotFoundError: No module named 'mmengine'", 'CUDA out of memory',
              'No space left on device'}
    table = (ROOT / 'docs/troubleshooting.md').read_text()
    messages = set(re.findall(r'^\| `([^`]+)` \|', table, re.MULTILINE))
    assert others < messages and len(messages) >= 30
    texts = set(said_in(ROOT / 'milan_mm'))
    for message in sorted(messages - others):
        words = [re.escape(part) for part in message.split('…')]
        found = re.compile(r'[^\n]*'.join(words))
        assert any(found.search(text) for text in texts), message
