# SPDX-License-Identifier: Apache-2.0
"""Makes the quickstart's data folder, from the demo archive or from a user's own images."""
from collections.abc import Callable
from pathlib import Path

from ...errors import MilanError
from .data_folder import whole_folder, write_meta
from .demo_images import make_demo_images
from .own_folder import make_own_images


def make_images(out: str | Path,
                images: str | Path | None = None,
                size: int = 64,
                variants: int = 4,
                seed: int = 0,
                log: Callable[[str], None] = print,
                composition: str = 'textured') -> dict:
    """Makes the data folder; one that was made before is replaced.

    Args:
        out: the folder to make.
        images: a folder of own images, ``<class>/<image>``; None takes the demo archive.
        size: side of the images in pixels.
        variants: how often a cut-out is pasted for training, each time on another background.
        seed: of the split and of everything drawn. Equal arguments give equal files.
        log: receives lines of progress.
        composition: of the demo's images, see
            :data:`~milan_mm.lab.quickstart.composition.COMPOSITIONS`.

    Returns:
        The content of ``meta.json``.

    Raises:
        ImageDataError: if there are too few images or classes.
        MilanError: if ``out`` holds something else than an earlier data folder, or own images
            shall be composed otherwise than they are.
    """
    out = Path(out)
    if images is not None and composition != 'textured':
        raise MilanError(f'composition {composition!r} is for the drawings that come with the '
                         'project: leave it out with images of your own')
    with whole_folder(out) as part:
        if images is None:
            meta = make_demo_images(part, size, variants, seed, log,
                                    composition=composition)
        else:
            meta = make_own_images(Path(images), part, size, variants, seed, log)
        write_meta(part, meta)
    log(f'images: {meta["sizes"]["train_images"]} for training, '
        f'{meta["sizes"]["test_images"]} held out, {len(meta["classes"])} classes, in {out}')
    return meta
