# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of every scheme come through the one safe reader; the network is this machine's."""
import functools
import hashlib
import http.server
import os
import threading

import pytest
import torch
from helpers_eval import logged
from mmengine.runner import CheckpointLoader

from milan_mm.checkpoints.io import read_checkpoint
from milan_mm.checkpoints.remote import download, read_from_anywhere
from milan_mm.compat.safe_load import FORCE_WEIGHTS_ONLY, install_safe_loading
from milan_mm.errors import MilanError


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, 'w')


@pytest.fixture
def safely(monkeypatch):
    """mmengine's loading as the command lines have it, and as it was afterwards."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    monkeypatch.setenv(FORCE_WEIGHTS_ONLY, '0')
    install_safe_loading(read_from_anywhere)
    return CheckpointLoader.load_checkpoint


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of the test's folder, and a cache of its own."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'):
        monkeypatch.setenv(name, '0')

    class Quiet(http.server.SimpleHTTPRequestHandler):

        def log_message(self, *arguments):
            pass

    served = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{served.server_port}'
    served.shutdown()
    served.server_close()


def test_http_is_read_safely(server, safely, tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / 'good.pth')
    with logged() as messages:
        assert torch.equal(safely(f'{server}/good.pth')['state_dict']['w'], torch.ones(2))
    assert any(f'downloading {server}/good.pth' in message for message in messages)
    (tmp_path / 'good.pth').unlink()
    assert 'state_dict' in safely(f'{server}/good.pth')  # out of the cache
    torch.save(dict(state_dict=Poison(tmp_path / 'was_run')), tmp_path / 'bad.pth')
    with pytest.raises(MilanError, match='bad.pth.*is refused.*--trust-checkpoint'):
        safely(f'{server}/bad.pth')
    assert not (tmp_path / 'was_run').exists()


def test_a_download_is_what_its_name_says(server, tmp_path):
    torch.save(dict(w=torch.ones(2)), tmp_path / 'x.pth')
    content = (tmp_path / 'x.pth').read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    for name in (f'm-{digest}.pth', 'm-20230101.pth', 'm-deadbeef.pth'):
        (tmp_path / name).write_bytes(content)
    assert download(f'{server}/m-{digest}.pth').read_bytes() == content
    assert download(f'{server}/m-20230101.pth').read_bytes() == content  # a date
    with pytest.raises(MilanError, match=f'begins with {digest}, expected deadbeef'):
        download(f'{server}/m-deadbeef.pth')
    assert not list((tmp_path / 'cache').rglob('*deadbeef*'))
    assert download(f'{server}/m-deadbeef.pth', trust=True).read_bytes() == content


def test_offline_mode_downloads_nothing(server, tmp_path, monkeypatch):
    torch.save(dict(w=torch.ones(2)), tmp_path / 'x.pth')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(MilanError, match='offline mode is on'):
        download(f'{server}/x.pth')


@pytest.mark.parametrize('name, words', [
    ('http://127.0.0.1:9/x.pth', 'cannot be had'), ('http://[/x.pth', 'cannot be had'),
    ('mmcls://x', 'mmcls:// knows no model'), ('modelzoo://x', 'modelzoo:// knows no model'),
    ('torchvision://resnet5', "near to it are .*'resnet50'"),
    ('torchvision://resnet18', 'resnet18-.*cannot be had|resnet18-.*offline mode is on'),
    ('open-mmlab://x', 'knows no model'), ('openmmlab://x', 'knows no model'),
    ('s3://bucket/x.pth', 'package petrel_client, which is not installed'),
    ('a:s3://bucket/x.pth', 'petrel_client'), ('petrel://bucket/x.pth', 'petrel_client'),
    ('pavi://x', 'package pavi, which is not installed'),
    ('local://x.pth', 'unknown scheme local'), ('file:///x.pth', 'unknown scheme file'),
    ('/no/such.pth', 'no such file')])
def test_what_cannot_be_had_is_one_line(name, words, safely, monkeypatch):
    local = name.startswith('http')
    monkeypatch.setenv('HF_HUB_OFFLINE', '0' if local else '1')
    monkeypatch.setenv('TRANSFORMERS_OFFLINE', '0')
    with pytest.raises(MilanError, match=words) as caught:
        safely(name)
    assert '\n' not in str(caught.value)


def test_nothing_else_in_the_process_unpickles(safely, tmp_path):
    """What calls torch.load by itself is held by torch, unless a file was opted in to by name."""
    torch.save(dict(a=Poison(tmp_path / 'was_run')), tmp_path / 'x.pth')
    with pytest.raises(Exception, match='[Ww]eights'):
        torch.load(tmp_path / 'x.pth', weights_only=False)
    assert not (tmp_path / 'was_run').exists()
    read_checkpoint(tmp_path / 'x.pth', trust=True)
    assert (tmp_path / 'was_run').exists() and os.environ[FORCE_WEIGHTS_ONLY] == '1'


def test_the_config_in_a_checkpoint_is_never_run(safely, tmp_path, monkeypatch):
    meta = dict(epoch=1, iter=1, config=f'open({str(tmp_path / "was_run")!r}, "w")')
    torch.save(dict(state_dict=dict(w=torch.ones(1)), meta=meta), tmp_path / 'x.pth')
    for trust in (False, True):
        install_safe_loading(read_from_anywhere, trust)
        assert 'config' not in CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))['meta']
