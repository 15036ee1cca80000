# SPDX-License-Identifier: Apache-2.0
"""The models that have a name: what is known of each, and where its weights are.

They stand in ``models.json`` beside this file, and those that come with the package in
``demo/models/models.json`` beside their weights; an entry a name, with the keys of :class:`Entry`:

- one of ``file`` (comes with the package, relative to the folder that holds configs/ and demo/; a
  file, or a folder of open_clip),
  ``url`` (downloaded at first use) or ``page`` (to be downloaded by hand);
- ``sha256``: of the file, of a folder its weights, whole or its first digits as published; left
  out where nobody published one, never made up;
- ``config``, ``teacher``, ``data``, ``licence``, ``source``: words; ``licence`` and ``source`` are
  needed, the others are left out where they say nothing;
- ``metrics``: what was measured to its value, as the source or a command of this package prints it.
"""
import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..errors import MilanError
from ..resources import RESOURCES
from .remote import check_hash, download

_FILE = Path(__file__).with_name('models.json')
_SHIPPED = 'demo/models/models.json'
_WEIGHTS_OF_A_FOLDER = 'open_clip_model.safetensors'


class Entry(NamedTuple):
    """What is known of a model.

    Attributes:
        name: as :func:`milan_mm.get_model` takes it.
        licence: of the weights.
        source: page of who published them; of those that come with the package, what made them.
        file, url, page: where the weights are, one of the three.
        sha256: of the file, or its first digits; None where none is published.
        config, teacher, data: what it was trained with; None where there is nothing to say.
        metrics: what was measured, to its value.
    """
    name: str
    licence: str
    source: str
    file: str | None = None
    url: str | None = None
    page: str | None = None
    sha256: str | None = None
    config: str | None = None
    teacher: str | None = None
    data: str | None = None
    metrics: Mapping[str, float] = MappingProxyType({})


@functools.cache
def entries() -> dict[str, Entry]:
    """All the models that have a name."""
    files = [path for path in (RESOURCES / _SHIPPED, _FILE) if path.is_file()]
    return {name: Entry(name, **entry) for path in files
            for name, entry in json.loads(path.read_text(encoding='utf-8')).items()}


def list_models(words: str = '') -> list[Entry]:
    """The models that :func:`get_model` knows by name, with what is known of each.

    Args:
        words: only those whose names contain it, such as 'milan' or 'vit-b'.
    """
    return [entry for name, entry in entries().items() if words in name]


def fetch(name: str) -> Path:
    """The file with the weights of a model, downloaded at its first use.

    Raises:
        MilanError: if it has to be downloaded by hand, cannot be had, or is another file than its
            sha256 says.
    """
    entry = entries()[name]
    if entry.page:
        raise MilanError(f'{name} has to be downloaded by hand from {entry.page}; give the path of '
                         f'the file then (licence: {entry.licence})')
    path = RESOURCES / entry.file if entry.file else download(str(entry.url), sha256=entry.sha256)
    if entry.file and not path.exists():
        raise MilanError(f'{path} is missing: was the package installed whole?')
    if entry.file and entry.sha256:
        file = path / _WEIGHTS_OF_A_FOLDER if path.is_dir() else path
        check_hash(str(file), file, entry.sha256)
    return path


def named(given: str | Path) -> Path:
    """What a user gave for a file or folder: a path, or a name of :func:`list_models`.

    Something that is there comes before a name.

    Returns:
        The path; as it was given where nothing is there and nothing is called so.

    Raises:
        MilanError: see :func:`fetch`.
    """
    path = Path(given).expanduser()
    name = Path(given).as_posix()
    return fetch(name) if name in entries() and not path.exists() else path


def located(given: str | Path) -> Path:
    """:func:`named`, where something must be there.

    Raises:
        MilanError: if there is nothing, with the nearest name; see also :func:`fetch`.
    """
    path = named(given)
    if not path.exists():
        raise MilanError(f'no such file: {path}. Give the path of a checkpoint (.pth, .pt or '
                         f'.safetensors), or a name of milan_mm.list_models(){nearest(given)}')
    return path


def nearest(given: str | Path) -> str:
    """A question for the end of a message: the name that is meant, perhaps; '' if none is near."""
    near = difflib.get_close_matches(Path(given).as_posix(), entries(), 1)
    return f' (did you mean {near[0]}?)' if near else ''
