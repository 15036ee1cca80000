# SPDX-License-Identifier: Apache-2.0
"""Classification by text alone: the trained decoder maps the encoder into CLIP's space."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...datasets import ImageFolder
from ...datasets.labelled import commonest_share
from ...datasets.stream import ImageStream, central_crops
from ...errors import MilanError
from ...inference.pretraining import inputs_of, mask_keys
from ...models import MILAN, CLIPTargetGenerator
from .prompts import Texts

WAYS = ('student', 'student_masked', 'teacher')


def labelled_folder(model: MILAN, data: str | Path) -> ImageFolder:
    """``DATA/<class>/<images>`` as the model wants them: the largest central crop.

    Raises:
        MilanError: if there are fewer than 2 classes.
    """
    folder = central_crops(data, tuple(model.backbone.img_size), with_label=True)
    if len(folder.metainfo['classes']) < 2:
        raise MilanError(f'{data} has the class {folder.metainfo["classes"][0]} alone; expected '
                         f'at least 2 folders {data}/<class>/<images>')
    return folder


def check_model(model: Any) -> None:
    """Raises MilanError unless the model predicts a CLIP's features of every token."""
    if not isinstance(model, MILAN) or not model.predicts:
        raise MilanError('zero-shot classification needs the decoder that predicts the teacher\'s '
                         f'CLS feature, and {type(model).__name__} has none. Give a checkpoint of '
                         'a MILAN pretraining, not of a finetuning and not an export')
    target = model.target_generator
    if not isinstance(target, CLIPTargetGenerator):
        raise MilanError(f'this model learned from a {type(target).__name__}, whose features are '
                         'not in the space of a CLIP\'s texts; zero-shot classification needs one '
                         'pretrained with a CLIPTargetGenerator')


def check_texts(model: MILAN, texts: Texts) -> None:
    """Raises MilanError unless the texts are in the space of the teacher's features."""
    width, dim = texts.directions.shape[1], model.target_generator.dim
    if width != dim:
        raise MilanError(f'the texts of {texts.source} are {width} wide and the teacher\'s '
                         f'features {dim}: they are of another CLIP. Name the teacher\'s own text '
                         'tower')


@torch.no_grad()
def image_features(model: MILAN, inputs: Tensor, keys: Tensor) -> dict[str, Tensor]:
    """The CLS feature of each image, in the teacher's space, in three ways.

    Args:
        model: a pretraining with a CLIP teacher.
        inputs: (B, 3, H, W) normalised pixels.
        keys: (B,) int64, for the masks of 'student_masked'.

    Returns:
        (B, T) each: 'student', the decoder's CLS prediction from the whole image, nothing
        masked; 'student_masked', from the patches that a training step shows; 'teacher', its own.
    """
    target = model.teach(inputs)
    masks = model.mask_generator(target.importance, keys)
    return dict(student=model.predict(inputs)[:, 0], teacher=target.features[:, 0],
                student_masked=model.predict(inputs, masks)[:, 0])


def zero_shot(model: MILAN,
              folder: ImageFolder,
              texts: Texts,
              batch_size: int = 64,
              seed: int = 0,
              log: Callable[[str], None] = print) -> dict[str, Any]:
    """Names each image by the text whose direction is nearest to its feature.

    Args:
        model: in eval mode, on the device to compute on.
        folder: what :func:`labelled_folder` gave.
        texts: texts of the folder's classes, in their order.
        batch_size: images at a time.
        seed: seed of the masks.
        log: receives lines of progress.

    Returns:
        Plain data for JSON: for 'student', 'student_masked' and 'teacher' ``top1``, its standard
        error ``top1_error``, ``top5`` with more than 5 classes, ``per_class`` (recall) and its
        mean ``balanced``; ``chance``, what always naming the commonest class gets right;
        ``agreement``, images that student and teacher name alike. In percent.

    Raises:
        MilanError: if model or texts are of another space.
    """
    check_model(model)
    check_texts(model, texts)
    directions = texts.directions.to(next(model.parameters()).device)
    scores: dict[str, list[Tensor]] = {way: [] for way in WAYS}
    labels: list[int] = []
    stream = ImageStream(folder, batch_size, title='images', log=log)
    for numbers, pixels in stream:
        inputs = inputs_of(model, pixels)
        keys = mask_keys(seed, numbers).to(inputs.device)
        for way, features in image_features(model, inputs, keys).items():
            scores[way].append((F.normalize(features.float(), dim=-1) @ directions.T).cpu())
        labels += [folder.get_data_info(i)['gt_label'] for i in numbers]
    truth = torch.tensor(labels)
    tables = {way: torch.cat(parts) for way, parts in scores.items()}
    named = {way: table.argmax(dim=1) for way, table in tables.items()}
    return dict(
        classes=list(texts.classes), prompts=list(texts.prompts), text=texts.source,
        images=len(labels), unreadable=stream.unreadable, seed=seed,
        chance=commonest_share(truth.bincount().tolist()),
        agreement=_percent(named['student'] == named['teacher']),
        **{way: accuracy(table, truth) for way, table in tables.items()})


def accuracy(scores: Tensor, truth: Tensor) -> dict[str, Any]:
    """How often the best of the scores (n, C) is the label (n,); in percent."""
    hit = scores.argmax(dim=1) == truth
    top1 = _percent(hit)
    classes = scores.shape[1]
    recall = [_percent(hit[truth == label]) if (truth == label).any() else None
              for label in range(classes)]
    there = [value for value in recall if value is not None]
    result = dict(top1=top1, top1_error=(top1 * (100 - top1) / len(hit))**0.5,
                  balanced=sum(there) / len(there), per_class=recall)
    if classes > 5:
        result['top5'] = _percent((scores.topk(5, dim=1).indices == truth[:, None]).any(dim=1))
    return result


def summary(result: dict[str, Any]) -> str:
    """The result of :func:`zero_shot` as a small table."""
    titles = dict(student='student', student_masked='student, masked as in training',
                  teacher='teacher')
    lines = [f'{result["images"]} images, {len(result["classes"])} classes, '
             f'{len(result["prompts"])} prompt{"s" if len(result["prompts"]) > 1 else ""}, texts '
             f'of {result["text"]}']
    for way, title in titles.items():
        row = result[way]
        top5 = f'   top-5 {row["top5"]:5.1f} %' if 'top5' in row else ''
        lines.append(f'{title:<31} top-1 {row["top1"]:5.1f} ± {row["top1_error"]:.1f} %{top5}'
                     f'   mean of classes {row["balanced"]:5.1f} %')
    lines.append(f'{"always the commonest class":<31} top-1 {result["chance"]:5.1f} %')
    lines.append(f'student and teacher name {result["agreement"]:.1f} % of the images alike')
    if result['unreadable']:
        lines.append(f'{len(result["unreadable"])} images could not be decoded and are left out')
    return '\n'.join(lines)


def _percent(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()
