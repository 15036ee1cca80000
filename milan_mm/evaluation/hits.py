# SPDX-License-Identifier: Apache-2.0
"""What was said of each image, kept beside the figures: with it two models can be compared paired.

An ``.npz`` file: ``names`` of the images, relative to the folder of the queries; ``labels`` and
``classes``; and for each measurement, such as ``knn`` or ``shift.linear``, the label that was given
to each image, -1 where it was not asked. Nothing in it is pickled.
"""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.io import write_atomically
from ..errors import MilanError
from .paired import Scores

SUFFIX = '.hits.npz'
_TEXTS = ('names', 'classes')


def hits_path(results: str | Path) -> Path:
    """Where the hits of a file of results lie: ``eval.json`` has ``eval.hits.npz`` beside it."""
    return Path(results).with_suffix(SUFFIX)


def write_hits(path: str | Path, predictions: Mapping[str, Any]) -> None:
    """Writes ``predictions`` of :func:`milan_mm.evaluation.evaluate.evaluate`."""
    arrays = {name: np.array(values, dtype=str if name in _TEXTS else np.int32)
              for name, values in predictions.items()}

    def write(part: Path) -> None:
        with open(part, 'wb') as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(Path(path), write)


def read_hits(path: str | Path) -> dict[str, Scores]:
    """For each measurement, which images were right.

    Raises:
        MilanError: if the file is not there or is not what :func:`write_hits` wrote.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        names, labels = arrays.pop('names').tolist(), arrays.pop('labels')
        arrays.pop('classes', None)
        found = {}
        for name, given in arrays.items():
            asked = given >= 0
            found[name] = Scores([n for n, yes in zip(names, asked.tolist()) if yes],
                                 (given == labels)[asked])
        return found
    except OSError as error:
        raise MilanError(f'{path} cannot be read ({error}); milan eval --out writes it beside '
                         'its results') from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise MilanError(f'{path} holds no hits per image ({error}); expected a file that milan '
                         'eval --out wrote') from error


def write_areas(path: str | Path, names: Sequence[str], areas: np.ndarray) -> None:
    """Writes a segmentor's pixels of each image.

    Args:
        path: of the file.
        names: of the n images.
        areas: (n, 3, C) pixels that are the class and were named so, that are it, that were named
            so.
    """
    def write(part: Path) -> None:
        with open(part, 'wb') as file:
            np.savez_compressed(file, names=np.array(names, dtype=str), areas=areas)

    write_atomically(Path(path), write)


def read_areas(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Names and areas that :func:`write_areas` wrote.

    Raises:
        MilanError: if they are not there.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return file['names'].tolist(), file['areas']
    except (OSError, ValueError, KeyError) as error:
        raise MilanError(f'{path} holds no pixels per image ({error}); the hook ImageHitsHook '
                         'writes them when a segmentor is evaluated') from error
