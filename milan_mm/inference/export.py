# SPDX-License-Identifier: Apache-2.0
"""An encoder or a finetuned model as a graph that runs without this package: ONNX, torch.export."""
import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ..checkpoints.io import first_line, write_atomically
from ..datasets import ImageFolder, LoadPILImage
from ..errors import MilanError
from ..structures import pair
from .encoders import FeatureExtractor, get_model
from .tasks import load_task_model

#: How far the graph's numbers may be from the model's.
TOLERANCE = 1e-4


class Exportable(NamedTuple):
    """A model of normalised pixels (B, C, H, W), and what its user must know.

    Attributes:
        module: gives a tuple of tensors.
        outputs: their names.
        img_size: height and width in pixels.
        told: pixel mean and standard deviation in 0..255 (RGB), classes.
        prepare: from the path of an image to normalised pixels (C, H, W).
    """
    module: nn.Module
    outputs: tuple[str, ...]
    img_size: tuple[int, int]
    told: dict[str, Any]
    prepare: Any


class _Features(nn.Module):
    """``cls`` (B, D), ``pooled`` (B, D) and ``patches`` (B, N, D) of an extractor."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.extractor.encode(images)[:3]


class _Logits(nn.Module):
    """Of a classifier (B, classes), of a segmentor (B, classes, h, w)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.model(images, mode='tensor'), )


def exportable(checkpoint: str | Path, config: Config | None = None,
               img_size: tuple[int, int] | None = None, weights: str | None = None,
               trust: bool = False) -> Exportable:
    """The encoder of a checkpoint; with a config, the finetuned model that it describes.

    Raises:
        MilanError: if it cannot be read, or the model is a detector, whose heads pick boxes by
            what they see.
    """
    if config is None:
        model = get_model(checkpoint, img_size=img_size, weights=weights, trust_checkpoint=trust)
        told = dict(pixel_mean=model.pixel_mean.flatten().tolist(),
                    pixel_std=model.pixel_std.flatten().tolist(), crop_ratio=model.crop_ratio)
        return Exportable(_Features(model).eval(), ('cls', 'pooled', 'patches'), model.img_size,
                          told, lambda path: model.normalise(model.load([path]))[0])
    if weights is not None:
        raise MilanError('--weights chooses for an encoder; with --config the file is read as the '
                         'training of that config saves it, averaged weights first')
    task = load_task_model(config, checkpoint, trust=trust)
    if task.task == 'detection':
        raise MilanError('a detector cannot be exported: its heads pick boxes by what they see, '
                         'which needs operators of its own. Use mmdeploy, or export its encoder: '
                         'leave --config out')
    pixels = task.model.data_preprocessor
    told = dict(pixel_mean=pixels.mean.flatten().tolist(), pixel_std=pixels.std.flatten().tolist(),
                classes=list(task.classes))

    def prepare(path: str) -> Tensor:
        image = LoadPILImage()(dict(img_path=path))['img']
        array = np.ascontiguousarray(np.asarray(image)[..., ::-1]) if task.as_array else image
        packed = task.pipeline(dict(img=array, img_path=path, img_id=0,
                                    ori_shape=image.size[::-1], img_shape=image.size[::-1]))
        return pixels(pseudo_collate([packed]))['inputs'][0]

    side = img_size or tuple(task.model.backbone.img_size)
    return Exportable(_Logits(task.model).eval(), ('logits', ), side, told, prepare)


def export_onnx(what: Exportable, target: Path, dynamic_size: bool = False) -> float:
    """Writes an ONNX file whose batch is of any size, and compares it with the model.

    Args:
        what: see :func:`exportable`.
        target: file to write.
        dynamic_size: whether height and width are open too; only rotary positions allow it.

    Returns:
        The largest difference that onnxruntime's numbers had.

    Raises:
        MilanError: if a library is missing, the model cannot be traced, or the numbers differ.
    """
    onnx = _library('onnx')
    _library('onnxscript')
    images = _example(what, 2)
    shapes = _open_batch()
    if dynamic_size:
        shapes.update({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO})
    try:
        with _quietly(), torch.no_grad():
            program: Any = torch.onnx.export(
                what.module, (images, ), dynamo=True, input_names=['images'],
                output_names=list(what.outputs), dynamic_shapes=(shapes, ), verbose=False)
    except Exception as error:  # of many kinds
        hint = '; leave --dynamic-size out: only rotary positions allow it' * dynamic_size
        raise MilanError(f'the model cannot be exported to ONNX ({type(error).__name__}: '
                         f'{first_line(error)}){hint}') from error

    def write(path: Path) -> None:
        model = program.model_proto
        for key, value in what.told.items():
            model.metadata_props.add(key=key, value=json.dumps(value))
        onnx.save(model, str(path))

    write_atomically(target, write)
    sizes = [what.img_size] + [pair(2 * side for side in what.img_size)] * dynamic_size
    worst = max(_difference(what, target, _example(what, 3, size)) for size in sizes)
    if worst > TOLERANCE:
        raise MilanError(f'{target} differs from the model by {worst:.1e}, more than '
                         f'{TOLERANCE:g}; do not use it')
    return worst


def export_program(what: Exportable, target: Path) -> float:
    """Writes ``torch.export``'s program, batch open; gives its largest difference to the model."""
    images = _example(what, 2)
    with _quietly(), torch.no_grad():
        program = torch.export.export(what.module, (images, ), strict=False,
                                      dynamic_shapes=(_open_batch(), ))
    write_atomically(target, lambda path: torch.export.save(program, path))
    images = _example(what, 3)
    with torch.no_grad():
        again = torch.export.load(target).module()(images)
        return max(float((a - b).abs().max()) for a, b in zip(again, what.module(images)))


def _open_batch() -> dict[int, Any]:
    """Which dimensions of the images are of any size.

    Raises:
        MilanError: if this PyTorch takes the batch of a ViT for a fixed one.
    """
    version = torch.__version__
    if tuple(map(int, version.split('.')[:2])) < (2, 6):
        raise MilanError('--to onnx and --to torch-export need PyTorch 2.6 or later, and this is '
                         f'{version}; --to timm, hf and safetensors do not')
    return {0: torch.export.Dim('batch', min=1)}


def quantize(source: Path, target: Path) -> None:
    """Writes an ONNX file whose linear maps have int8 weights (dynamic quantisation)."""
    _library('onnxruntime')
    from onnxruntime.quantization import QuantType, quantize_dynamic
    with _quietly():
        write_atomically(target, lambda path: quantize_dynamic(
            str(source), str(path), op_types_to_quantize=['MatMul', 'Gemm'],
            weight_type=QuantType.QInt8))


def accuracy(what: Exportable, path: Path, data: str | Path, batch_size: int = 16) -> float:
    """Share, in percent, of the images of a folder per class that an ONNX file gets right.

    A classifier's own classes are compared by name; an encoder's images are given the class of
    their nearest neighbour (cosine of the mean patch) among the others.

    Raises:
        MilanError: if the folder has other classes than the classifier.
    """
    folder = ImageFolder(str(data), with_label=True, pipeline=[])
    entries = [folder.get_data_info(i) for i in range(len(folder))]
    labels = np.array([entry['gt_label'] for entry in entries])
    session = _session(path)
    found = [session.run([what.outputs[-1] if what.outputs == ('logits', ) else 'pooled'], dict(
        images=torch.stack([what.prepare(entry['img_path'])
                            for entry in entries[start:start + batch_size]]).numpy()))[0]
        for start in range(0, len(entries), batch_size)]
    outputs = np.concatenate(found)
    if what.outputs != ('logits', ):
        outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
        similar = outputs @ outputs.T
        np.fill_diagonal(similar, -2)
        return float((labels[similar.argmax(1)] == labels).mean() * 100)
    classes, own = list(folder.metainfo['classes']), what.told['classes']
    if set(classes) - set(own):
        raise MilanError(f'{data} has the class {sorted(set(classes) - set(own))[0]!r}, which the '
                         'classifier does not know')
    wanted = np.array([own.index(classes[label]) for label in labels])
    return float((outputs.argmax(1) == wanted).mean() * 100)


def _example(what: Exportable, batch: int, size: tuple[int, int] | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    channels = len(what.told['pixel_mean'])
    return torch.randn(batch, channels, *(size or what.img_size), generator=generator)


def _difference(what: Exportable, path: Path, images: Tensor) -> float:
    with torch.no_grad():
        wanted = what.module(images)
    given = _session(path).run(list(what.outputs), dict(images=images.numpy()))
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(given, wanted))


def _session(path: Path) -> Any:
    return _library('onnxruntime').InferenceSession(str(path), providers=['CPUExecutionProvider'])


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MilanError(f"this needs {name}: pip install 'milan_mm[export]' ({error})") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)

