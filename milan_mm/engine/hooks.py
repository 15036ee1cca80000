# SPDX-License-Identifier: Apache-2.0
"""What a pretraining run reports, beside what mmengine's hooks do."""
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.hooks import Hook

from ..compat.pixel_statistics import pixel_statistics
from ..datasets.decoding import open_image
from ..datasets.loading import noted_unreadable
from ..errors import MilanError, UnreadableImageError
from ..registry import HOOKS
from ..unwrapped import unwrapped
from ..wording import printable, some_of


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Says at the start what will be done, and while it is done how fast."""
    priority = 'NORMAL'

    def before_train(self, runner: Any) -> None:
        loader = runner.train_dataloader
        check_batches(loader)
        epochs = f', {runner.max_epochs} epochs' if runner.train_loop.max_epochs > 1 else ''
        runner.logger.info(
            f'data: {len(loader.dataset)} images in {getattr(loader.dataset, "data_root", "?")}, '
            f'{len(loader)} batches an epoch{epochs}, {runner.max_iters} batches in all')

    def after_train_iter(self,
                         runner: Any,
                         batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        hub = runner.message_hub
        seconds = hub.get_scalar('train/time').current()
        images = runner.train_dataloader.batch_size * get_world_size()
        hub.update_scalar('train/images_per_s', images / max(seconds, 1e-9))
        if not torch.cuda.is_available():  # on CUDA mmengine logs the device's memory
            hub.update_scalar('train/memory_mb', peak_memory_mb())


def check_batches(loader: Any) -> None:
    """Raises MilanError if the images do not fill one batch, which would train nothing."""
    if len(loader):
        return
    images, processes = len(loader.dataset), get_world_size()
    raise MilanError(
        f'{images} images do not fill one batch of {loader.batch_size} on each of {processes} '
        'processes; lower the batch size (--cfg-options '
        f'train_dataloader.batch_size={max(images // processes, 1)})')


def peak_memory_mb() -> float:
    """Largest resident memory this process has had, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Counts and names images that could not be decoded, and ends a run that has too many.

    :class:`ImageFolder` and :class:`LoadBGRImage` have such an image replaced and note its path.
    The names go to ``unreadable_images.txt`` in the work folder. One image never ends a run.

    Args:
        max_share: share of the dataset, in 0..1, above which the run stops.
        interval: batches between two looks; processes tell each other then.
    """

    def __init__(self, max_share: float = 0.01, interval: int = 50) -> None:
        self.max_share, self.interval = max_share, interval
        self.named: dict[str, None] = {}
        self.new: list[str] = []
        self.evaluated: dict[str, None] = {}

    def after_train_iter(self,
                         runner: Any,
                         batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        for sample in (data_batch or {}).get('data_samples') or []:
            for path in sample.metainfo.get('unreadable', ()):
                if path not in self.named and path not in self.new:
                    self.new.append(path)
        if self.every_n_train_iters(runner, self.interval) or self.end_of_epoch(
                runner.train_dataloader, batch_idx):
            self.report(runner)

    def after_val_iter(self,
                       runner: Any,
                       batch_idx: int,
                       data_batch: dict | None = None,
                       outputs: Sequence[Any] | None = None) -> None:
        """An evaluation goes on too, and says which image it counts another one for."""
        for sample in (data_batch or {}).get('data_samples') or []:
            for path in sample.metainfo.get('unreadable', ()):
                if path not in self.evaluated:
                    self.evaluated[path] = None
                    runner.logger.warning(f'{printable(path)} cannot be decoded; the evaluation '
                                          'counts another image in its place')

    after_test_iter = after_val_iter

    def report(self, runner: Any) -> None:
        new = dict.fromkeys(p for paths in all_gather_object(self.new + noted_unreadable())
                            for p in paths if p not in self.named)
        self.new = []
        if not new:
            return
        self.named.update(new)
        total = len(runner.train_dataloader.dataset)
        record = Path(runner.work_dir) / 'unreadable_images.txt'
        if is_main_process():
            with open(record, 'a', encoding='utf-8', errors='surrogateescape') as file:
                file.writelines(_in_one_line(path) for path in new)
            runner.logger.warning(
                f'{len(self.named)} of {total} images cannot be decoded and were replaced by '
                f'others; new: {some_of(list(new), 3)}; all of them in {record}. '
                f'{_reason(next(iter(new)))}')
        if len(self.named) > max(1, self.max_share * total):
            raise MilanError(
                f'{len(self.named)} of {total} images cannot be decoded '
                f'({some_of(list(self.named), 3)}), more than the share allowed, '
                f'{self.max_share:.1%}. {_reason(next(iter(self.named)))}. They are listed in '
                f'{record}: mend or remove them, or '
                'raise --cfg-options default_hooks.unreadable.max_share')


def _in_one_line(path: str) -> str:
    """For the record, which keeps all other bytes of a name as they are."""
    return path.replace('\n', '\\n').replace('\r', '\\r') + '\n'


def _reason(path: str) -> str:
    """Why an image cannot be decoded; tried again, as the worker that knew kept only its name."""
    try:
        if any(parent.is_file() for parent in Path(path).parents):  # of a shard or a table
            raise UnreadableImageError(f'cannot decode {printable(path)}')
        open_image(path)
    except UnreadableImageError as error:
        return str(error)
    return f'{printable(path)} can be read now'


@HOOKS.register_module()
class DescribeEncoderHook(Hook):
    """Writes into each checkpoint, as plain data, what is needed to use its encoder alone.

    Args:
        crop_ratio: of the central crop that the encoder shall be evaluated with, see
            :class:`milan_mm.datasets.ResizeAndCenterCrop`; ``milan eval`` and the hook that
            measures features take it. None for ImageNet's .875; 1 for images without a margin.

    Raises:
        MilanError: if it is none.
    """

    def __init__(self, crop_ratio: float | None = None) -> None:
        if crop_ratio is not None and not 0 < crop_ratio <= 1:
            raise MilanError(f'DescribeEncoderHook: crop_ratio must be in (0, 1], got {crop_ratio}')
        self.crop_ratio = crop_ratio

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model = unwrapped(runner.model)
        checkpoint['meta']['milan_mm'] = {**describe_encoder(model), **(
            {} if self.crop_ratio is None else dict(crop_ratio=float(self.crop_ratio)))}


def describe_encoder(model: torch.nn.Module) -> dict:
    """Architecture and pixel normalisation of a model's ``backbone``, as plain values."""
    encoder = model.backbone
    arch = encoder.arch_settings
    names = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
    channels = encoder.patch_embed.projection.in_channels
    mean, std = (values * channels if len(values) == 1 else values  # one for all channels
                 for values in pixel_statistics(model.data_preprocessor))
    return dict(
        algorithm=type(model).__name__,
        encoder=dict(
            arch={name: int(arch[name]) for name in names},
            img_size=tuple(int(side) for side in encoder.img_size),
            patch_size=int(encoder.patch_size),
            **_activation(encoder)),
        pixel_mean=mean,
        pixel_std=std)


def _activation(encoder: torch.nn.Module) -> dict:
    quick = any(type(part).__name__ == 'QuickGELU' for part in encoder.modules())
    eps = next((part.eps for part in encoder.modules() if isinstance(part, torch.nn.LayerNorm)),
               1e-6)
    return {**(dict(quick_gelu=True) if quick else {}),
            **(dict(norm_eps=eps) if eps != 1e-6 else {})}
