# SPDX-License-Identifier: Apache-2.0
"""The files around the code name what exists, and one version."""
import json
import re

import pytest
import yaml
from conftest import ROOT

from milan_mm import __version__

YAML = sorted(path for folder in ('.github', ) for path in (ROOT / folder).rglob('*.yml'))


@pytest.mark.parametrize('path', [*YAML, ROOT / 'CITATION.cff'], ids=lambda path: path.name)
def test_it_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_scripts_that_are_run_elsewhere_exist():
    """Workflows, container and devcontainer run the README's own commands."""
    readme = (ROOT / 'README.md').read_text() + (ROOT / 'docs/installation.md').read_text()
    places = [ROOT / 'docker/Dockerfile', ROOT / '.devcontainer/devcontainer.json',
              ROOT / '.github/workflows/tests.yml']
    found = set()
    for place in places:
        for script in re.findall(r'bash (tools/\w+\.sh)', place.read_text()):
            assert (ROOT / script).is_file() and f'bash {script}' in readme, (place, script)
            found.add(script)
    assert found == {'tools/setup_env.sh', 'tools/run_tests.sh'}
    container = json.loads((ROOT / '.devcontainer/devcontainer.json').read_text())
    assert (ROOT / '.devcontainer' / container['build']['dockerfile']).resolve().is_file()


def test_one_version():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version']
    newest = re.search(r'^## ([\d.]+)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert cited == newest[1] == __version__


def test_workflow_covers_both_lineages():
    jobs = yaml.safe_load((ROOT / '.github/workflows/tests.yml').read_text())['jobs']
    rows = jobs['tests']['strategy']['matrix']['include']
    assert {row['stack'] for row in rows} == {'onedl', 'openmmlab'} and len(
        {row['python'] for row in rows}) > 1


def test_workflow_builds_the_docs_from_their_requirements_alone():
    jobs = yaml.safe_load((ROOT / '.github/workflows/tests.yml').read_text())['jobs']
    commands = [step['run'] for step in jobs['docs']['steps'] if 'run' in step]
    assert commands == ['python -m pip install -r requirements/docs.txt',
                        'python -m mkdocs build --strict']
    names = re.findall(r'^([\w-]+)', (ROOT / 'requirements/docs.txt').read_text(), re.MULTILINE)
    assert names == ['mkdocs-material', 'mkdocstrings-python']


def test_metafiles_list_every_config_once():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    folders = {path.parent for path in (ROOT / 'configs').glob('*/*.py')}
    unlisted = {ROOT / 'configs/_base_', ROOT / 'configs/quickstart'}  # parts; of one command
    assert {(ROOT / name).parent for name in index} == folders - unlisted
    names = []
    for metafile in index:
        content = yaml.safe_load((ROOT / metafile).read_text())
        (collection,) = content['Collections']
        readme = ROOT / collection['README']
        assert readme.parent == (ROOT / metafile).parent
        models = content['Models']
        configs = sorted(model['Config'] for model in models)
        assert configs == sorted(
            path.relative_to(ROOT).as_posix() for path in readme.parent.glob('*.py'))
        assert {model['In Collection'] for model in models} == {collection['Name']}
        for model in models:
            assert f'`{model["Name"]}`' in readme.read_text()
            assert 'Results' not in model  # none is measured at full size yet
        names += [model['Name'] for model in models]
    assert len(names) == len(set(names))
