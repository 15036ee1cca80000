# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint's name, whatever its scheme, to its content, by the one safe reader."""
import difflib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import urlopen

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner import checkpoint as tables

from ..compat.zoo_folder import zoo_folder
from ..errors import MilanError
from .io import first_line, read_checkpoint, write_atomically

_TABLES: dict[str, Callable[[], dict[str, str]]] = {
    'torchvision': tables.get_torchvision_models, 'modelzoo': tables.get_torchvision_models,
    'openmmlab': tables.get_external_models, 'open-mmlab': tables.get_external_models,
    'mmcls': tables.get_mmcls_models}
_HERE = 'Copy the file here and give its path'


def read_from_anywhere(name: str, trust: bool = False) -> dict[str, Any]:
    """Reads a checkpoint from a path, an address, or a name of OpenMMLab's model zoos.

    Args:
        name: a path, or ``SCHEME://...`` with http, https, s3, petrel, pavi, torchvision,
            modelzoo, openmmlab, open-mmlab or mmcls.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if it cannot be had, or :func:`read_checkpoint` refuses it.
    """
    scheme, is_remote, rest = str(name).partition('://')
    if not is_remote:
        return read_checkpoint(name, trust)
    if scheme in ('http', 'https'):
        return _read_kept(name, download(name, trust), trust)
    if scheme in _TABLES:
        found = _look_up(scheme, rest)
        if '://' in found:
            checkpoint = _read_kept(found, download(found, trust), trust)
        else:
            checkpoint = read_checkpoint(zoo_folder() / found, trust)
        return _backbone_of(checkpoint) if scheme == 'mmcls' else checkpoint
    if scheme == 'pavi' or re.fullmatch(r'(\S+:)?(s3|petrel)', scheme):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'checkpoint.pth'
            _fetch_by_client(name, scheme, path)
            return _read_kept(name, path, trust)
    raise MilanError(f'{name}: unknown scheme {scheme}://; known are http, https, s3, petrel, pavi '
                     f'and {", ".join(_TABLES)}. {_HERE}')


def download(url: str, trust: bool = False, sha256: str | None = None) -> Path:
    """Fetches a file, once, and gives where it lies.

    A sha256 that the file's name carries, as in ``resnet50-0676ba61.pth``, must be the file's.

    Args:
        url: of http or https; it is logged first.
        trust: whether a file of another sha256 is taken.
        sha256: what it must be or begin with, where the name does not say so.

    Raises:
        MilanError: if there is no connection, offline mode is on (``HF_HUB_OFFLINE=1``), or the
            file is another one than its name says.
    """
    name = Path(unquote(url.partition('?')[0])).name.strip('.') or 'checkpoint'
    whose = hashlib.sha256(url.encode()).hexdigest()[:12]
    target = Path(torch.hub.get_dir()) / 'checkpoints' / whose / name
    if get_rank() == 0 and not target.is_file():
        _fetch(url, target, trust, sha256)
    barrier()  # the first process fetches for the others of its machine
    if not target.is_file():
        _fetch(url, target, trust, sha256)
    return target


def announce(url: str) -> None:
    """Says where another library is about to download from.

    Raises:
        MilanError: if offline mode is on, and the file is in none of the libraries' caches. (Those
            of the Hugging Face Hub know offline mode themselves.)
    """
    print_log(f'weights of {url} (downloaded at first use)', logger='current')
    caches = (Path(torch.hub.get_dir()) / 'checkpoints', Path('~/.cache/clip').expanduser())
    if is_offline() and not url.startswith('https://huggingface.co/') and not any(
            (cache / Path(url).name).is_file() for cache in caches):
        raise _offline(url)


def is_offline() -> bool:
    """Whether the user asked, as Hugging Face's libraries know it, that nothing be downloaded."""
    return any(os.environ.get(name, '').lower() in ('1', 'on', 'yes', 'true')
               for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'))


def _offline(url: str) -> MilanError:
    return MilanError(f'{url} is not here yet, and offline mode is on (HF_HUB_OFFLINE or '
                      f'TRANSFORMERS_OFFLINE). {_HERE}')


def _fetch(url: str, target: Path, trust: bool, sha256: str | None = None) -> None:
    if is_offline():
        raise _offline(url)
    print_log(f'downloading {url} to {target}', logger='current')

    def write(path: Path) -> None:
        with urlopen(url, timeout=30) as source, open(path, 'wb') as file:
            shutil.copyfileobj(source, file, 2**20)
            promised = source.headers.get('Content-Length')
        if promised and int(promised) != path.stat().st_size:
            raise OSError(f'{path.stat().st_size} of {promised} bytes came')
        promised_hash = sha256 or _hash_in(target.name)
        if promised_hash and not trust:
            check_hash(url, path, promised_hash)

    try:
        write_atomically(target, write)
    except MilanError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise MilanError(f'{url} cannot be had ({type(error).__name__}: {first_line(error)}). '
                         f'Without a connection: {_HERE[0].lower()}{_HERE[1:]}') from error


def _hash_in(name: str) -> str | None:
    found = re.search(r'-([0-9a-f]{8,64})\.', name)
    is_date = found and re.fullmatch(r'20\d{6}', found.group(1))
    return found.group(1) if found and not is_date else None


def check_hash(source: str, path: Path, sha256: str) -> None:
    """Raises MilanError if the sha256 of a file does not begin as it should."""
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256') if hasattr(
            hashlib, 'file_digest') else hashlib.sha256(file.read())
    if not digest.hexdigest().startswith(sha256):
        raise MilanError(f'{source} is another file than its name says: its sha256 begins with '
                         f'{digest.hexdigest()[:8]}, expected {sha256[:8]}. Download it '
                         'again, or, if you know where it comes from, pass --trust-checkpoint')


def _look_up(scheme: str, name: str) -> str:
    known = _TABLES[scheme]()
    if scheme.startswith('open'):
        name = tables.get_deprecated_model_names().get(name, name)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise MilanError(f'{scheme}:// knows no model {name!r}'
                         + (f'; near to it are {near}' if near else f' among its {len(known)}'))
    return known[name]


def _backbone_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What ``mmcls://`` stands for: a classifier's backbone, without that prefix."""
    state = checkpoint.get('state_dict', checkpoint)
    return dict(state_dict={key.removeprefix('backbone.'): value for key, value in state.items()
                            if key.startswith('backbone.')})


def _fetch_by_client(name: str, scheme: str, path: Path) -> None:
    package = 'pavi' if scheme == 'pavi' else 'petrel_client'
    try:
        if package == 'pavi':
            from pavi import modelcloud
            modelcloud.get(name.partition('://')[2]).download(str(path))
        else:
            path.write_bytes(get_file_backend(
                name, backend_args=dict(backend='petrel')).get(name))
    except ImportError as error:
        raise MilanError(f'{name} cannot be had: {scheme}:// needs the package {package}, which '
                         f'is not installed. {_HERE}') from error
    except Exception as error:
        raise MilanError(f'{name} cannot be had ({type(error).__name__}: {first_line(error)}). '
                         f'{_HERE}') from error


def _read_kept(name: str, path: Path, trust: bool) -> dict[str, Any]:
    try:
        return read_checkpoint(path, trust)
    except MilanError as error:
        raise MilanError(str(error).replace(str(path), f'{name} (kept as {path})', 1)) from error
