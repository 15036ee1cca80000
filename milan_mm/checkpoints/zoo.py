# SPDX-License-Identifier: Apache-2.0
"""The models that have a name: what is known of each, and where its weights are.

They stand in ``models.json`` beside this file, an entry a name, with the keys of :class:`Entry`:

- one of ``file`` (comes with the package, relative to the folder that holds configs/ and demo/),
  ``url`` (downloaded at first use) or ``page`` (to be downloaded by hand);
- ``sha256``: of the file, whole or its first digits as published; left out where nobody published
  one, never made up;
- ``config``, ``teacher``, ``data``, ``licence``, ``source``: words; ``licence`` and ``source`` are
  needed, the others are left out where they say nothing;
- ``metrics``: what was measured to its value, as the source or a command of this package prints it.
"""
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


class Entry(NamedTuple):
    """What is known of a model.

    Attributes:
        name: as :func:`milan_mm.get_model` takes it.
        licence: of the weights.
        source: page of who published them.
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
    return {name: Entry(name, **entry)
            for name, entry in json.loads(_FILE.read_text(encoding='utf-8')).items()}


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
    if entry.file and not path.is_file():
        raise MilanError(f'{path} is missing: was the package installed whole?')
    if entry.file and entry.sha256:
        check_hash(str(path), path, entry.sha256)
    return path
