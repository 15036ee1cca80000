# SPDX-License-Identifier: Apache-2.0
"""The images that an encoder takes for the most similar to a given one."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ...evaluation.features import collect_features, evaluation_mode, image_folder
from ...evaluation.knn import nearest
from ...inference.encoders import Extractor
from ...keyed_random import sample_key


class Neighbour(NamedTuple):
    """An image of the gallery, and the cosine of its features with the query's."""
    path: Path
    cosine: float


@torch.no_grad()
def nearest_images(extractor: Extractor,
                   gallery: str | Path,
                   queries: Sequence[Path],
                   k: int = 6,
                   most: int = 800,
                   seed: int = 0,
                   name: str | None = None) -> list[list[Neighbour]]:
    """The k most similar images of a folder for each query, by the CLS token.

    Args:
        extractor: the encoder.
        gallery: a folder of images; those that cannot be decoded are left out.
        queries: paths.
        k: how many.
        most: so many images of the gallery are looked at; drawn by ``seed`` if there are more.
        seed: seed of that draw. Equal seeds give every encoder the same gallery.
        name: for the progress on the terminal; None shows none.
    """
    folder = image_folder(extractor, gallery, with_label=False)
    rng = np.random.default_rng(sample_key(seed, 0, 0, 'gallery'))
    folder.get_subset_(sorted(rng.permutation(len(folder))[:most].tolist()))
    with evaluation_mode(extractor):
        known = collect_features(extractor, folder, ('cls', ), workers=0, name=name)
        asked = F.normalize(extractor([str(path) for path in queries]).cls.float().cpu(), dim=1)
    cosines, rows = nearest(asked, known.features['cls'], k, chunk=16384)
    return [[Neighbour(Path(known.paths[row]), cosine) for row, cosine in zip(*pair)]
            for pair in zip(rows.tolist(), cosines.tolist())]
