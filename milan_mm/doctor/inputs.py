# SPDX-License-Identifier: Apache-2.0
"""Whether a teacher and a folder of images can be used."""
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ..checkpoints.zoo import named, nearest
from ..config.annotations import DataCheck
from ..config.data_paths import check_data as check_places
from ..config.data_paths import move_data
from ..config.formats import take_formats
from ..config.own_data import fill_num_classes
from ..config.read import read_config
from ..config.sources import name_kinds
from ..datasets.checks.findings import MENDED
from ..datasets.decoding import UnreadableImageError, open_image
from ..datasets.image_folder import find_images
from ..errors import MilanError
from ..inference.teachers import split_spec
from ..models.targets import CLIPTargetGenerator
from ..wording import some_of

TASKS = dict(det='mask_rcnn/own_coco.py', seg='upernet/own_ade.py',
             cls='classification/own_finetune.py')
"""The configs for data of one's own."""


def check_teacher(teacher: str) -> tuple[str, str]:
    """Loads the teacher as training would, and lets it look at one image.

    Args:
        teacher: file or folder, MODEL:TAG or MODEL:FILE.

    Returns:
        What was found, and how to mend it: '' where it is good.

    Raises:
        MilanError: if it gives no targets.
    """
    model, pretrained = split_spec(teacher)
    if not (model and pretrained) and not named(teacher).exists():
        raise MilanError(f'{teacher!r} is no file or folder here, nor a name of '
                         f'milan_mm.list_models(){nearest(teacher)}, nor MODEL:TAG. Give an '
                         'existing path, or for instance ViT-B-16-quickgelu:openai; with a file '
                         'that does not describe itself, MODEL:FILE')
    try:
        generator = CLIPTargetGenerator(model, pretrained)
        grid = generator.tower.grid_size
        size = generator.tower.input_size(grid)
        generator.match_student(grid, None, None)
        features, importance = generator(torch.zeros(1, 3, *size))
    except MilanError:
        raise
    except Exception as error:
        raise MilanError(f'{teacher} gives no targets, {type(error).__name__}: {error}. Name '
                         'another file or tag') from error
    if not bool(features.isfinite().all() & importance.isfinite().all()):
        raise MilanError(f'{teacher} loads, and its features of a grey image are not finite: the '
                         'weights are damaged. Fetch them again')
    count = sum(p.numel() for p in generator.parameters()) / 1e6
    return (f'{teacher}: {count:.1f} M parameters, targets of width {generator.dim}, '
            f'{grid[0]}x{grid[1]} patches at {size[0]}x{size[1]} px', '')


def check_data(data: str, sample: int = 32) -> tuple[str, str]:
    """Counts the images below a folder, and decodes some of them.

    Args:
        data: the folder.
        sample: how many to decode, evenly spaced over the sorted paths.

    Returns:
        What was found, and how to mend it: '' where it is good.

    Raises:
        MilanError: if there is no image that can be decoded.
    """
    root = Path(data).expanduser()
    paths = find_images(root)
    tried = sorted({paths[i * len(paths) // sample] for i in range(sample)})
    bad, sizes, start = [], [], time.perf_counter()
    for path in tried:
        try:
            sizes.append(open_image(path).size)
        except UnreadableImageError as error:
            bad.append(str(error))
    seconds = max(time.perf_counter() - start, 1e-6)
    folders = {Path(path).relative_to(root).parts[0] for path in paths
               if Path(path).parent != root}
    found = f'{root}: {len(paths)} images, {len(folders)} sub-folders; '
    if bad:
        found += f'{len(bad)} of {len(tried)} tried cannot be decoded: {"; ".join(bad[:3])}'
        remedy = 'replace or remove them: a run stops when their share exceeds its limit (1 %)'
        if len(bad) == len(tried):
            raise MilanError(f'{found}: {remedy}')
        return found, remedy
    middle = sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]
    return (f'{found}{len(tried)} tried, all decode, {len(tried) / seconds:.0f} images/s on a '
            f'core, median {middle[0]}x{middle[1]} px', '')


def check_annotations(data: str, task: str, work_dir: str) -> Iterator[tuple[str, str, str]]:
    """Looks through all of an annotated data set, as a training with the task's config would.

    Tables and names go to ``data_check.txt`` and ``data_check.json`` in the work folder, and what
    was learned of files, so that the next look is short.

    Args:
        data: the folder, as the configs of :data:`TASKS` say.
        task: one of these.
        work_dir: where runs will be written.

    Yields:
        The set and a line each of what was found, and how to mend it: '' where it is good.

    Raises:
        MilanError: if training cannot start.
    """
    cfg = read_config(f'milan_mm::{TASKS[task]}')
    cfg.work_dir = work_dir
    move_data(cfg, data)
    name_kinds(cfg)
    take_formats(cfg)
    check_places(cfg)
    # The report's own streams are held back while a check runs.
    check = DataCheck(cfg, lambda line: print(line, file=sys.__stderr__, flush=True),
                      copies=False)
    fill_num_classes(cfg, check)
    for name, findings in check.findings.items():
        counts = [f'{number} {things}' for things, number in findings.counts.items()]
        classes = [f'{label} {" ".join(f"{n} {what}" for what, n in numbers.items())}'
                   for label, numbers in findings.classes.items()]
        yield name, f'{findings.source}: {", ".join(counts)}; {some_of(classes, 10)}', ''
        for (kind, what), items in findings.entries.items():
            remedy = '' if kind == MENDED else findings.mends.get(
                what, f'all names are in {Path(work_dir) / "data_check.json"}')
            yield name, f'{kind}: {len(items)} x {what}: {some_of(items, 3)}', remedy
