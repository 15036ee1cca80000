# SPDX-License-Identifier: Apache-2.0
"""Images as mmdet's and mmseg's pipelines want them; one that cannot be decoded ends no run."""
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from ..errors import MilanError
from ..registry import TRANSFORMS
from .decoding import MAX_PIXELS, UnreadableImageError, composite, open_image
from .depth import check_range

MAX_TRIES = 20
"""So many images in a row that cannot be decoded end a run."""
_NOTES = 'MILAN_MM_UNREADABLE_NOTES'  # of the environment, so that workers of any kind inherit it


@TRANSFORMS.register_module()
class LoadBGRImage(BaseTransform):
    """Reads ``img_path`` into ``img``, (H, W, 3) uint8 in BGR, upright, as mmcv's loader does.

    In training an image that cannot be decoded is noted, and mmengine's dataset takes another one
    instead; :class:`UnreadableImagesHook` counts and names them.

    Args:
        skip_unreadable: False for evaluation: such an image is an error that names it.
        max_pixels, value_range: see :func:`open_image`.

    Raises:
        MilanError: if one image after the other cannot be decoded.
    """

    def __init__(self, skip_unreadable: bool = True, max_pixels: int = MAX_PIXELS,
                 value_range: Sequence[float] | None = None) -> None:
        self.skip_unreadable, self.in_a_row = skip_unreadable, 0
        self.open = functools.partial(
            open_image, max_pixels=max_pixels, value_range=check_range(value_range))

    def transform(self, results: dict) -> dict | None:
        try:
            image = composite(self.open(results['img_path']))
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                raise
            note_unreadable(results['img_path'])
            self.in_a_row += 1
            if self.in_a_row == MAX_TRIES:
                raise all_unreadable(error) from error
            return None
        self.in_a_row = 0
        results['img'] = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


def all_unreadable(last: UnreadableImageError) -> MilanError:
    """What to raise after :data:`MAX_TRIES` images."""
    return MilanError(f'{MAX_TRIES} images in a row cannot be used; the last of them: {last}')


def keep_notes(work_dir: str | Path) -> None:
    """Before any worker starts: where unreadable images are noted, afresh."""
    path = Path(work_dir) / '.unreadable_notes'
    if os.environ.get('RANK', '0') == '0':
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    os.environ[_NOTES] = str(path)


def note_unreadable(path: str) -> None:
    """Appends a path; a short line is written whole, whichever process writes beside."""
    notes = os.environ.get(_NOTES)
    if notes:
        with open(notes, 'a', encoding='ascii') as file:
            file.write(json.dumps(path) + '\n')  # in one line, whatever the name


def noted_unreadable() -> list[str]:
    """The paths noted so far, by any process."""
    notes = os.environ.get(_NOTES)
    if not notes or not os.path.exists(notes):
        return []
    with open(notes, encoding='ascii') as file:
        return list(dict.fromkeys(map(json.loads, file)))
