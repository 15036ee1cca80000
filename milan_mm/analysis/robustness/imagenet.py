# SPDX-License-Identifier: Apache-2.0
"""Which classes ImageNet's test suites hold, and what their errors are compared with.

ImageNet-A (Hendrycks et al., arXiv 1907.07174) and ImageNet-R (arXiv 2006.16241) hold 200 classes
each, not the same ones; a classifier of 1,000 chooses among these 200. ImageNet-Sketch (Wang et
al., arXiv 1905.13549) and ImageNet-C (arXiv 1903.12261) hold all 1,000. The lists are timm's.
"""
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from ...errors import MilanError
from ...wording import some_of
from .corruptions import CORRUPTIONS, SEVERITIES

# AlexNet's error in percent on each corruption, mean of the five severities, and on clean images:
# Hendrycks & Dietterich 2019, arXiv 1903.12261, the row of AlexNet; more digits than the paper
# prints as in its authors' repository (github.com/hendrycks/robustness).
ALEXNET: dict[str, float] = dict(
    gaussian_noise=88.6428, shot_noise=89.4468, impulse_noise=92.2640, defocus_blur=81.9880,
    glass_blur=82.6268, motion_blur=78.5948, zoom_blur=79.8360, snow=86.6816, frost=82.6572,
    fog=81.9324, brightness=56.4592, contrast=85.3204, elastic_transform=64.6056,
    pixelate=71.7840, jpeg_compression=60.6500)
ALEXNET_CLEAN = 43.5

_LISTS = dict(zip(('imagenet-a', 'imagenet-r'), ('imagenet_a_synsets', 'imagenet_r_synsets')))


@cache
def imagenet_classes(suite: str | None = None) -> tuple[str, ...]:
    """WordNet names such as 'n01440764', in ImageNet's order.

    Args:
        suite: 'imagenet-a' or 'imagenet-r' for their 200; else all 1,000.
    """
    name = _LISTS.get(suite or '', 'imagenet_synsets')
    text = resources.files('timm.data').joinpath('_info').joinpath(f'{name}.txt').read_text()
    return tuple(text.split())


def corruption_errors(accuracy: dict[tuple[str, int], float],
                      clean: float | None = None) -> dict[str, object]:
    """Errors as the paper compares them.

    CE of a corruption is the sum of the errors at all severities by AlexNet's; mCE is the mean of
    the 15 CE. The relative CE takes the error on clean images off both (its Sec. 3).

    Args:
        accuracy: percent by (corruption, severity); all five severities of each corruption in it.
        clean: percent on the same images before corruption, or None.

    Returns:
        ``ce`` in percent by corruption; ``mce``, their mean, or ``mean_ce_of`` and ``mean_ce``
        where there are fewer than 15, for that is no mCE; with ``clean`` also ``relative_ce`` and
        so on.

    Raises:
        MilanError: if a severity is missing.
    """
    names = [name for name in CORRUPTIONS if any(c == name for c, _ in accuracy)]
    for name in names:
        missing = [s for s in SEVERITIES if (name, s) not in accuracy]
        if missing:
            raise MilanError(f'{name}: severities {missing} are missing; a CE takes all of 1 to 5')
    error = {name: 100 - float(np.mean([accuracy[name, s] for s in SEVERITIES])) for name in names}
    result = _with_mean('ce', {name: 100 * error[name] / ALEXNET[name] for name in names})
    if clean is not None:
        result.update(_with_mean('relative_ce', {
            name: 100 * (error[name] - (100 - clean)) / (ALEXNET[name] - ALEXNET_CLEAN)
            for name in names}))
    return result


def _with_mean(kind: str, values: dict[str, float]) -> dict[str, object]:
    values = {name: float(value) for name, value in values.items()}
    mean = float(np.mean(list(values.values())))
    if len(values) == len(CORRUPTIONS):
        return {kind: values, kind.replace('ce', 'mce'): mean}
    return {kind: values, f'mean_{kind}': mean, f'mean_{kind}_of': list(values)}


def candidates(suite: str, classes: Sequence[str], outputs: int) -> tuple[dict[str, int], str]:
    """Where a classifier has ImageNet's classes among its outputs.

    Args:
        suite: one of ImageNet's.
        classes: the classifier's, as its checkpoint or config names them; may be empty.
        outputs: how many it has.

    Returns:
        The output of each class of the suite that it knows, by WordNet name; and, in words, how
        that was known.

    Raises:
        MilanError: if the classifier's classes are not ImageNet's.
    """
    wanted = imagenet_classes(suite)
    named = {name: i for i, name in enumerate(classes)}
    if len(classes) == outputs and any(name in named for name in wanted):
        known = {name: named[name] for name in wanted if name in named}
        return known, 'by the names in the checkpoint'
    if outputs == 1000 and (not classes or tuple(classes) == _words()):
        order = {name: i for i, name in enumerate(imagenet_classes())}
        return {name: order[name] for name in wanted}, '1,000 outputs in ImageNet\'s order'
    said = some_of(classes, 3) if classes else 'not named'
    raise MilanError(
        f'--suite {suite} needs a classifier of ImageNet: 1,000 outputs in the order of WordNet '
        f'names (n01440764 first), or classes named so. This one has {outputs} outputs ({said}). '
        'For classes of your own: --suite corruptions --data DIR/<class>/<image>')


def _words() -> tuple[str, ...]:
    """What mmpretrain's ImageNet, and load_task_model for WordNet folders, call the 1,000."""
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
    return tuple(IMAGENET_CATEGORIES)
