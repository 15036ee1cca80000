# SPDX-License-Identifier: Apache-2.0
"""Models that have a name."""
import re

import pytest
from conftest import ROOT

import milan_mm
from milan_mm.checkpoints import zoo
from milan_mm.errors import MilanError


def test_every_entry_is_whole():
    for entry in milan_mm.list_models():
        assert sum(bool(place) for place in (entry.file, entry.url, entry.page)) == 1, entry.name
        assert entry.licence and entry.source, entry.name
        assert entry.file or entry.source.startswith('https://'), entry.name
        assert entry.sha256 is None or re.fullmatch(r'[0-9a-f]{8,64}', entry.sha256), entry.name
        assert all(isinstance(value, (int, float)) for value in entry.metrics.values())
        # what a file's own name says of its hash is what stands here
        named = re.search(r'-([0-9a-f]{8})\.pth$', entry.url or '')
        assert named is None or entry.sha256 == named.group(1)
        assert entry.file is None or zoo.fetch(entry.name).exists()


def test_a_model_by_its_name(monkeypatch):
    assert {entry.name for entry in milan_mm.list_models('milan')} >= {'milan-vit-b-16-mmpretrain'}
    with pytest.raises(MilanError, match='by hand from https://drive'):
        milan_mm.get_model('milan-vit-b-16-authors')
    with pytest.raises(MilanError, match='offline mode is on.*Copy the file here'):
        milan_mm.get_model('mae-vit-b-16-authors')
    with pytest.raises(MilanError, match='did you mean dino-vit-b-16'):
        milan_mm.get_model('dino-vitb-16')


def test_a_shipped_file_must_be_the_one_it_was(monkeypatch):
    there = str((ROOT / 'README.md').relative_to(ROOT))
    monkeypatch.setattr(zoo, 'RESOURCES', ROOT)
    monkeypatch.setattr(zoo, 'entries', lambda: {'x': zoo.Entry('x', 'MIT', 'https://', there,
                                                                sha256='00000000')})
    with pytest.raises(MilanError, match='is another file'):
        zoo.fetch('x')
