# SPDX-License-Identifier: Apache-2.0
"""What a trained encoder is worth, image by image, in percent."""
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...datasets.lists import ImageList
from ...datasets.transforms import LoadPILImage, PackImageInputs, ResizeAndCenterCrop
from ...evaluation.features import FeatureTable, collect_features, evaluation_mode
from ...evaluation.knn import check_features, nearest, vote
from ...inference.encoders import Extractor, get_model, get_teacher
from .images import Split, write_list

K, TEMPERATURE = 20, 0.07  # of k-NN, as milan eval has them
NEIGHBOURS = 10  # of the teacher's that a student should have too


class How(NamedTuple):
    """How features are made: feature, batch, processes that decode, device."""
    feature: str = 'cls'
    batch_size: int = 64
    workers: int = 2
    device: str = 'cpu'


class Judge:
    """Scores of encoders on the same images.

    With labels an image's score is 100 if k-NN names its class, else 0. Without, it is the share
    of the teacher's nearest neighbours, among the held-out images, that are the student's too.

    Args:
        split: of the images.
        folder: for the lists.
        how: see :class:`How`.
        teacher: its spec, height and width of the images and the patch it is given, and the
            central crop, see :func:`get_teacher`.
    """

    def __init__(self, split: Split, folder: Path, how: How,
                 teacher: tuple[str, tuple[int, int], int, float]) -> None:
        self.how, self.teacher, self.labelled = how, teacher, bool(split.gallery)
        self.queries = write_list(folder / 'queries.csv', split.queries)
        if self.labelled:
            self.gallery = write_list(folder / 'gallery.csv', split.gallery)
        self._nearest: Tensor | None = None

    @property
    def unit(self) -> str:
        """What a score is, for people."""
        return 'k-NN accuracy, %' if self.labelled else "share of the teacher's neighbours, %"

    def scores(self, checkpoint: Path) -> list[float]:
        """Of a student, in the order of the queries; those that cannot be read are left out."""
        return self._scores(get_model(checkpoint))

    def teacher_scores(self) -> list[float] | None:
        """Of the teacher; None without labels, where it is the measure itself."""
        return self._scores(get_teacher(*self.teacher)) if self.labelled else None

    @torch.no_grad()
    def _scores(self, extractor: Extractor) -> list[float]:
        asked = self._table(extractor, self.queries)
        features = F.normalize(asked.features[self.how.feature], dim=1)
        check_features(features, asked.labels, 'queries')
        if not self.labelled:
            k = min(NEIGHBOURS, len(features) - 1)
            if self._nearest is None:
                taught = self._table(get_teacher(*self.teacher), self.queries)
                self._nearest = _neighbours(taught.features['cls'], k)
            shared = _neighbours(features, k)[:, :, None] == self._nearest[:, None, :]
            return (100. * shared.any(dim=2).float().mean(dim=1)).tolist()
        known = self._table(extractor, self.gallery)
        cosine, rows = nearest(features, known.features[self.how.feature], K, 16384)
        votes = vote(cosine, known.labels[rows], len(known.classes), TEMPERATURE)
        return (100. * (votes.argmax(dim=1) == asked.labels).float()).tolist()

    def _table(self, extractor: Extractor, path: Path) -> FeatureTable:
        extractor = extractor.to(self.how.device)
        images = ImageList(
            path, [LoadPILImage(), ResizeAndCenterCrop(extractor.img_size, extractor.crop_ratio),
                   PackImageInputs()], with_label=self.labelled, test_mode=True,
            classes_from=self.gallery.name if self.labelled else None)
        with evaluation_mode(extractor):
            kinds = ('cls', ) if self.how.feature == 'cls' else ('cls', self.how.feature)
            return collect_features(extractor, images, kinds, self.how.batch_size,
                                    self.how.workers)


def _neighbours(features: Tensor, k: int) -> Tensor:
    """(n, k) rows of the nearest other ones."""
    return nearest(F.normalize(features, dim=1), features, k, 16384, torch.arange(len(features)))[1]
