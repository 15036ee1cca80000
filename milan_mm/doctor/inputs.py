# SPDX-License-Identifier: Apache-2.0
"""Whether a teacher and a folder of images can be used."""
import time
from pathlib import Path

import torch

from ..datasets.decoding import UnreadableImageError, open_image
from ..datasets.image_folder import find_images
from ..errors import MilanError
from ..inference.teachers import split_spec
from ..models.targets import CLIPTargetGenerator


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
    if not (model and pretrained) and not Path(teacher).expanduser().exists():
        raise MilanError(f'{teacher!r} is no file or folder here, nor MODEL:TAG. Give an existing '
                         'path, or for instance ViT-B-16-quickgelu:openai; with a file that does '
                         'not describe itself, MODEL:FILE')
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
