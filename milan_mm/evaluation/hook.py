# SPDX-License-Identifier: Apache-2.0
"""k-NN and collapse of the encoder while it is being trained."""
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..architectures import IMAGENET_CROP_RATIO
from ..datasets import ImageFolder
from ..datasets.labelled import find_splits, splits_in
from ..engine.hooks import DescribeEncoderHook, describe_encoder
from ..errors import MilanError
from ..inference.encoders import FeatureExtractor
from ..registry import HOOKS
from .collapse import collapse_measures
from .evaluate import check_classes, relabelled
from .features import collect_features, evaluation_mode, image_folder
from .knn import knn_accuracy


@HOOKS.register_module()
class FeatureEvalHook(Hook):
    """Every n epochs and after the last: k-NN top-1 and the collapse measures.

    Logged as ``eval/knn_top1``, ``eval/mean_cosine``, ``eval/effective_rank``, ``eval/std`` at
    the step of the last iteration, so they lie beside the loss in TensorBoard. One process
    measures while the others wait. Training is left as it would have been: nothing is drawn from
    the global generators, and every module returns to the mode it was in.

    Args:
        data: a small labelled folder, ``DIR/<class>/<images>``, or one with ``train`` and ``val``
            or ``test`` in it, the latter classified by the former; None turns the hook off.
        queries: a second one, classified by ``data``; None classifies each image of ``data``
            by the others, unless it has such splits.
        interval: in epochs.
        feature: 'cls' or 'pooled'.
        k, temperature: see :func:`milan_mm.evaluation.knn.knn_accuracy`.
        crop_ratio: see :class:`milan_mm.datasets.ResizeAndCenterCrop`; None for that of the
            :class:`DescribeEncoderHook`, so that ``milan eval`` measures the same.
        batch_size, num_workers: for computing features.

    Raises:
        MilanError: before training, if a folder cannot be used.
    """
    priority = 'BELOW_NORMAL'  # after the iteration's own log line

    def __init__(self,
                 data: str | Path | None = None,
                 queries: str | Path | None = None,
                 interval: int = 10,
                 feature: str = 'cls',
                 k: int = 20,
                 temperature: float = 0.07,
                 crop_ratio: float | None = None,
                 batch_size: int = 64,
                 num_workers: int = 0) -> None:
        if feature not in ('cls', 'pooled'):
            raise MilanError(f"feature must be 'cls' or 'pooled', got {feature!r}")
        if data is None and queries is not None:
            raise MilanError('FeatureEvalHook: queries are classified by data, which is not given')
        self.data, self.queries, self.interval, self.feature = data, queries, interval, feature
        self._gallery: ImageFolder | None = None  # filled before training, if data is given
        self._queries: ImageFolder | None = None
        self.k, self.temperature, self.crop_ratio = k, temperature, crop_ratio
        self.batch_size, self.num_workers = batch_size, num_workers

    def before_train(self, runner: Runner) -> None:
        """Looks at the folders now, not after ten epochs."""
        if self.data is None:
            return
        if any(isinstance(part, FullyShardedDataParallel) for part in runner.model.modules()):
            runner.logger.warning(
                'FeatureEvalHook is off: the encoder is sharded over processes. Measure its '
                'checkpoints with: milan eval CHECKPOINT --data DIR')
            self.data = None
            return
        data, queries = self.data, self.queries
        if len(splits_in(data)) > 1:
            data, queries = find_splits(data, queries=queries)
        extractor = self._extractor(runner)
        self._gallery = gallery = image_folder(extractor, data, with_label=True)
        classes = gallery.metainfo['classes']
        if queries is not None:
            self._queries = image_folder(extractor, queries, with_label=True)
            check_classes(classes, self._queries.metainfo['classes'], data, queries)
        elif len(classes) < 2 or len(gallery) < 2:
            raise MilanError(f'{data} has {len(classes)} class(es) and {len(gallery)} '
                             'image(s); expected at least 2 of each')

    def after_train_epoch(self, runner: Runner) -> None:
        due = self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)
        if self.data is None or not due:
            return
        if is_main_process():
            try:
                self._log(runner, self.measure(runner))
            except MilanError as error:  # a measurement is no reason to end a training
                runner.logger.warning(f'FeatureEvalHook: nothing was measured: {error}')
        barrier()

    def measure(self, runner: Runner) -> dict[str, float]:
        """The four figures.

        Raises:
            MilanError: if features are not finite, or fewer than 2 images can be read.
        """
        extractor = self._extractor(runner)
        device = extractor.pixel_mean.device
        with evaluation_mode(extractor):
            known, asked = (
                None if folder is None else collect_features(
                    extractor, folder, (self.feature, ), self.batch_size, self.num_workers)
                for folder in (self._gallery, self._queries))
        asked = known if asked is None else relabelled(asked, known.classes)
        features = asked.features[self.feature]
        accuracy = knn_accuracy(
            known.features[self.feature], known.labels, features, asked.labels,
            len(known.classes), self.k, self.temperature, leave_one_out=asked is known,
            device=device)
        return {'knn_top1': accuracy['top1'], **collapse_measures(features)}

    def _extractor(self, runner: Runner) -> FeatureExtractor:
        model: nn.Module = runner.model
        while is_model_wrapper(model):
            model = model.module
        described = describe_encoder(model)
        extractor = FeatureExtractor(
            model.backbone, described['encoder']['img_size'], described['pixel_mean'],
            described['pixel_std'], self._crop_ratio(runner))
        return extractor.to(next(model.backbone.parameters()).device)

    def _crop_ratio(self, runner: Runner) -> float:
        stated = [hook.crop_ratio for hook in runner.hooks if isinstance(hook, DescribeEncoderHook)]
        return next((one for one in (self.crop_ratio, *stated) if one is not None),
                    IMAGENET_CROP_RATIO)

    def _log(self, runner: Runner, figures: dict[str, float]) -> None:
        tags = {f'eval/{name}': value for name, value in figures.items()}
        for tag, value in tags.items():
            runner.message_hub.update_scalar(tag, value)
        runner.visualizer.add_scalars(dict(tags, epoch=runner.epoch + 1), step=runner.iter)
        told = ', '.join(f'{tag} {value:.4g}' for tag, value in tags.items())
        runner.logger.info(f'Epoch(eval) [{runner.epoch + 1}] {told}')
