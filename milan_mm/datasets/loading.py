# SPDX-License-Identifier: Apache-2.0
"""Images as mmdet's and mmseg's pipelines want them; one that cannot be decoded ends no run."""
import os
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from ..registry import TRANSFORMS
from .decoding import UnreadableImageError, composite, open_image

_NOTES = 'MILAN_MM_UNREADABLE_NOTES'  # of the environment, so that workers of any kind inherit it


@TRANSFORMS.register_module()
class LoadBGRImage(BaseTransform):
    """Reads ``img_path`` into ``img``, (H, W, 3) uint8 in BGR, upright, as mmcv's loader does.

    In training an image that cannot be decoded is noted, and mmengine's dataset takes another one
    instead; :class:`UnreadableImagesHook` counts and names them.

    Args:
        skip_unreadable: False for evaluation: such an image is an error that names it.
    """

    def __init__(self, skip_unreadable: bool = True) -> None:
        self.skip_unreadable = skip_unreadable

    def transform(self, results: dict) -> dict | None:
        try:
            image = composite(open_image(results['img_path']))
        except UnreadableImageError:
            if not self.skip_unreadable:
                raise
            note_unreadable(results['img_path'])
            return None
        results['img'] = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


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
        with open(notes, 'a', encoding='utf-8', errors='surrogateescape') as file:
            file.write(f'{path}\n')


def noted_unreadable() -> list[str]:
    """The paths noted so far, by any process."""
    notes = os.environ.get(_NOTES)
    if not notes or not os.path.exists(notes):
        return []
    with open(notes, encoding='utf-8', errors='surrogateescape') as file:
        return list(dict.fromkeys(file.read().splitlines()))
