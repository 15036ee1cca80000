# SPDX-License-Identifier: Apache-2.0
"""A folder's images, encoded once, and the most similar among them."""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...datasets.stream import ImageStream, central_crops
from ...evaluation.knn import nearest
from ...keyed_random import sample_key
from ..diagnosis.subject import Subject
from ..visualization.neighbours import Neighbour
from .seen import Tokens, image_size, tokens_of


class Gallery(NamedTuple):
    """Some images of a folder.

    Attributes:
        root: the folder.
        paths: of the images.
        left_out: how many more the folder has.
        features: of each subject, by whom it is said: (n, D) CLS tokens.
    """
    root: Path
    paths: list[Path]
    left_out: int
    features: list[dict[str, Tensor]]

    def name(self, path: Path) -> str:
        """What an image is called."""
        return path.relative_to(self.root).as_posix()

    def nearest(self, subject: int, who: str, asked: Tensor, k: int,
                skip: Path | None) -> list[Neighbour]:
        """The k most similar images.

        Args:
            subject: number of the subject.
            who: 'student' or 'teacher'.
            asked: (D,) what it says of the image asked for.
            k: how many.
            skip: the image itself, if it is of this folder.
        """
        rows = torch.tensor([self.paths.index(skip)]) if skip in self.paths else None
        cosines, found = nearest(F.normalize(asked.float(), dim=0)[None].cpu(),
                                 self.features[subject][who], k, 16384, rows)
        return [Neighbour(self.paths[row], cosine) for row, cosine in zip(
            found[0].tolist(), cosines[0].tolist()) if cosine > -1.5]


@torch.no_grad()
def encode_folder(root: str | Path, subjects: list[Subject], most: int) -> Gallery:
    """Reads and encodes a folder; shows how far it is.

    Args:
        root: the folder; what cannot be decoded is left out.
        subjects: encode all images, their teachers too.
        most: so many images are taken, drawn if there are more.

    Raises:
        MilanError: if there is no image.
    """
    root = Path(root).expanduser()
    features = []
    for subject in subjects:
        folder = central_crops(root, image_size(subject))
        total = len(folder)
        rng = np.random.default_rng(sample_key(0, 0, 0, 'gallery'))
        folder.get_subset_(sorted(rng.permutation(total)[:most].tolist()))
        numbers: list[int] = []
        parts: list[dict[str, Tensor]] = []
        for some, pixels in ImageStream(folder, 16, title=f'images of {root.name}'):
            numbers += some
            parts.append(image_vectors(tokens_of(subject, subject.normalise(pixels))))
        features.append({who: torch.cat([part[who] for part in parts]) for who in parts[0]})
    return Gallery(root, [Path(folder.path(number)) for number in numbers],
                   max(0, total - most), features)


def image_vectors(tokens: Tokens) -> dict[str, Tensor]:
    """(B, D) of whoever has a CLS token: 'student', and perhaps 'teacher'."""
    found = dict(student=tokens.student[:, 0].float().cpu())
    if tokens.teacher is not None and tokens.teacher.shape[1] == tokens.student.shape[1]:
        found['teacher'] = tokens.teacher[:, 0].float().cpu()
    return found
