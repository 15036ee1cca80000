# SPDX-License-Identifier: Apache-2.0
"""A step that :class:`BadNumbersHook` left out, made once more and watched.

The record keeps seed, epoch and the keys of the masks; from these come the same images, crops,
masks and draws within the model. Computed in float32, without an update.
"""
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from torch import Tensor, nn

from ..checkpoints.io import read_checkpoint, run_checkpoints
from ..checkpoints.saved_config import check_types
from ..checkpoints.strict import is_finite
from ..config.sources import Roots, move_to
from ..datasets.keyed_images import KeyedImages
from ..datasets.sampler import SampleIndex
from ..engine.bad_numbers import RECORD
from ..errors import MilanError, UnreadableImageError
from ..inference.checkpoint import Checkpoint
from ..inference.pretraining import build_pretraining
from ..keyed_random import sample_key, seed_globals
from ..models import MILAN
from ..registry import DATASETS, TRANSFORMS


class Replayed(NamedTuple):
    """What came of a step.

    Attributes:
        line: of the record.
        checkpoint: whose weights were taken.
        trained: iterations that these had been trained for.
        losses: of each image by itself, in the order of the record.
        loss: of the batch.
        output: name of the first module whose output is not finite, or None.
        gradient: the same of the gradient at its output; backward, so the last module is first.
        images: those that are not finite after augmentation.
    """
    line: dict[str, Any]
    checkpoint: Path
    trained: int
    losses: list[float]
    loss: float
    output: str | None
    gradient: str | None
    images: list[str]


def replay(record: str | Path, *, number: int | None = None, checkpoint: str | Path | None = None,
           config: str | Path | None = None, data_root: Roots | None = None,
           teacher: str | None = None, anomaly: bool = False,
           device: torch.device | str = 'cpu', options: dict | None = None,
           trust: bool = False) -> Replayed:
    """Makes a recorded step of a pretraining again.

    Args:
        record: ``bad_numbers.jsonl``, or the work folder that it is in.
        number: its line, from 1; None for the first.
        checkpoint: whose weights to take; None for the last in that folder from before the step.
        config: see :func:`load_pretraining`.
        data_root: see :func:`train`.
        teacher: see :func:`load_pretraining`.
        anomaly: whether autograd looks for the operation, which it then names in its error.
        device: to compute on.
        options: changes of the config.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if the record, the checkpoint or the images are not those of the step.
    """
    path = Path(record).expanduser()
    path = path / RECORD if path.is_dir() else path
    line = read_line(path, number)
    checkpoint = Path(checkpoint) if checkpoint else _before(path.parent, line)
    read = Checkpoint(checkpoint, config, options, trust)
    if data_root:
        move_to(read.config, data_root)
    model = build_pretraining(read, teacher).to(device)
    batch = _batch(read.config, read.config_name, line, config is None)
    model.requires_grad_(True)
    model.train()
    bad = [name for name, pixels in zip(line['images'], batch['inputs'])
           if not is_finite(pixels.float())]
    losses = [_step(model, batch, line, slice(i, i + 1), [], [])
              for i in range(len(line['images']))]
    outputs: list[str] = []
    gradients: list[str] = []
    with torch.autograd.set_detect_anomaly(anomaly, check_nan=anomaly):
        loss = _step(model, batch, line, slice(None), outputs, gradients, backward=True)
    meta = read.content.get('meta')
    trained = meta.get('iter', 0) if isinstance(meta, dict) else 0
    return Replayed(line, checkpoint, trained, losses, loss, next(iter(outputs), None),
                    next(iter(gradients), None), bad)


def read_line(path: Path, number: int | None = None) -> dict[str, Any]:
    """A line of a record.

    Raises:
        MilanError: if there is none of that number, or it is not one of a pretraining.
    """
    if not path.is_file():
        raise MilanError(f'no such file: {path}; expected {RECORD}, which a training writes when a '
                         'loss or gradient is not finite')
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
        if not 1 <= (number or 1) <= len(lines):
            raise MilanError(f'{path} has {len(lines)} lines, --line is {number or 1}')
        line = json.loads(lines[(number or 1) - 1])
        integers = [line['iter'], line['epoch'], line['rank'], line['seed'], *line['sample_keys']]
        sound = (all(type(value) is int for value in integers)
                 and all(type(image) is str for image in line['images']))
    except (ValueError, TypeError, KeyError) as error:
        raise MilanError(f'{path}, line {number or 1}: no record of a left out update '
                         f'({type(error).__name__}: {error})') from error
    if not sound or not line['images'] or len(line['images']) != len(line['sample_keys']):
        raise MilanError(f'{path}, line {number or 1}: expected images and a key for each, as '
                         'pretraining writes them; other trainings are not made again')
    return line


def _before(folder: Path, line: dict[str, Any]) -> Path:
    """The run's last checkpoint from before a step, else its first one."""
    found = run_checkpoints(folder)
    if not found:
        raise MilanError(f'{folder} has no checkpoint: name one with --checkpoint')
    for path in found:
        meta = read_checkpoint(path).get('meta')
        if isinstance(meta, dict) and meta.get('iter', 0) <= line['iter']:
            return path
    return found[-1]


def _batch(cfg: Config, source: str, line: dict[str, Any], saved: bool) -> dict[str, Any]:
    """The step's images, augmented as they were, with the keys of their masks."""
    loader: Any = cfg.get('train_dataloader')
    if not loader or not isinstance(loader.get('dataset'), dict):
        raise MilanError(f'{source} has no train_dataloader.dataset. Give --config CONFIG, the '
                         'file that it was trained with')
    if saved:
        check_types(loader.dataset, source, (
            DATASETS, TRANSFORMS, MMENGINE_DATASETS, MMENGINE_TRANSFORMS, FUNCTIONS))
    data = DATASETS.build(loader.dataset)
    if not isinstance(data, KeyedImages):
        raise MilanError(f'{type(data).__name__} draws its samples without keys; expected a data '
                         'set of this package, such as ImageFolder')
    data.full_init()
    wanted, places = set(line['sample_keys']), dict[int, int]()
    for i in range(len(data)):
        key = sample_key(line['seed'], line['epoch'], i, 'mask')
        if key in wanted:
            places[key] = i
    samples = []
    for image, key in zip(line['images'], line['sample_keys']):
        sample = None
        if key in places:
            try:
                sample = data[SampleIndex(places[key], line['seed'], line['epoch'])]
            except UnreadableImageError:
                sample = None
        found = sample and sample['data_samples'].metainfo.get('img_path')
        if found != image:
            raise MilanError(f'the data are not those of the step: expected {image}, found '
                             f'{found or "no image of its key"} in {data.data_root}. Were files '
                             'added, removed or renamed since?')
        samples.append(sample)
    return dict(inputs=torch.stack([sample['inputs'] for sample in samples]),
                data_samples=[sample['data_samples'] for sample in samples],
                sample_key=torch.tensor(line['sample_keys']))


def _step(model: MILAN, batch: dict[str, Any], line: dict[str, Any], part: slice,
          outputs: list[str], gradients: list[str], backward: bool = False) -> float:
    """The loss of some of the images; the lists get names of modules as they turn out bad."""
    seed_globals(sample_key(line['seed'], line['iter'], line['rank'], 'step'))
    chosen = {key: values[part] for key, values in batch.items()}
    model.zero_grad()
    with watched(model, outputs, gradients), torch.set_grad_enabled(backward):
        parsed = model.data_preprocessor(chosen, training=True)
        loss, _ = model.parse_losses(model(**parsed, mode='loss'))
        if backward:
            try:
                loss.backward()
            except RuntimeError as error:  # of the detection of anomalies: the operation
                gradients.append(' '.join(str(error).split()))
    if backward and not gradients:
        gradients += [name for name, weight in model.named_parameters()
                      if weight.grad is not None and not is_finite(weight.grad)]
    return float(loss.detach())


@contextmanager
def watched(model: MILAN, outputs: list[str], gradients: list[str]) -> Iterator[None]:
    """Within it, modules whose outputs or their gradients are not finite are listed as they come.

    The parts of a module come before the module itself.
    """
    names = [*model.named_modules(), *(
        (f'target_generator.{name}'.rstrip('.'), module) for name, module
        in model.target_generator.named_modules())]
    handles = [module.register_forward_hook(_watch(name or type(model).__name__, outputs,
                                                   gradients)) for name, module in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(name: str, outputs: list[str], gradients: list[str]) -> Callable:
    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in _floats(output):
            if not is_finite(tensor.detach()):
                outputs.append(name)
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: None if is_finite(gradient)
                                     else gradients.append(name))

    return look


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, (dict, Sequence)) and not isinstance(value, str):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _floats(part)
