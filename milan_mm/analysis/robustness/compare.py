# SPDX-License-Identifier: Apache-2.0
"""Classifiers side by side on a suite: from their checkpoints to its figures."""
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...checkpoints import write_atomically
from ...config.options import merge_options
from ...config.read import read_config
from ...datasets.labelled import commonest_share
from ...errors import MilanError
from ...inference.device import check_device
from ...inference.tasks import TaskModel, load_task_model
from .corruptions import CORRUPTIONS, SEVERITIES
from .imagenet import candidates
from .measure import Corrupted, count_right
from .plots import contact_sheet, plot_bars, plot_severity
from .results import as_csv, gather, table
from .suites import Pass, plan


def compare_classifiers(config: str | Path, checkpoints: Sequence[str], suite: str,
                        data: str | Path, *, clean: str | Path | None = None,
                        corruptions: Sequence[str] = CORRUPTIONS,
                        severities: Sequence[int] = SEVERITIES, out: str | Path | None = None,
                        seed: int = 0, batch_size: int = 64, workers: int = 2,
                        device: str | None = None, cfg_options: dict | None = None,
                        trust_checkpoint: bool = False) -> dict[str, Any]:
    """Measures classifiers on a suite, prints the table and gives the results.

    Args:
        config: config of the classifiers.
        checkpoints: checkpoints of trainings with that config, ``[NAME=]PATH``.
        suite: one of :data:`SUITES`.
        data: the folder of the suite; for 'corruptions' ``<class>/<image>``.
        clean: images without corruption of the same classes, to be measured too.
        corruptions, severities: those of the suite 'corruptions'.
        out: folder for results and plots.
        seed: seed of the corruptions.
        batch_size, workers, device: how to compute.
        cfg_options: changes of the config, dotted keys to values.
        trust_checkpoint: see :func:`read_checkpoint`.

    Raises:
        MilanError: for what is the user's to mend.
    """
    if batch_size < 1 or workers < 0:
        raise MilanError('--batch-size must be at least 1 and --workers at least 0, got '
                         f'{batch_size} and {workers}')
    names, paths = named_checkpoints(checkpoints)
    cfg = read_config(config)
    merge_options(cfg, cfg_options)
    place = check_device(device)
    models = [load_task_model(cfg, path, place, trust_checkpoint) for path in paths]
    known, how = outputs_of(suite, models, names)
    corruptions = list(dict.fromkeys(corruptions))
    passes = plan(suite, data, known, clean, corruptions, sorted(set(severities)))
    counts = [count_right(models, part, list(known.values()), batch_size, workers, seed)
              for part in passes]
    result = {
        'suite': suite, 'data': str(data), 'config': str(config),
        'checkpoints': dict(zip(names, paths)), 'seed': seed, 'choices': len(known),
        'outputs': how, 'chance': _chance(passes),
        **gather(suite, passes, counts, names)}
    print(heading(result))
    print(table(result))
    if out:
        out = Path(out).expanduser()
        write(result, out)
        if suite == 'corruptions':
            write_contact_sheet(result, out, Corrupted(models[0], passes[-1], seed), corruptions)
    return result


def _chance(passes: Sequence[Pass]) -> float:
    """Of the suite's images; those without corruption may be others."""
    labels = Counter(case.label for part in passes if part.title != 'clean'
                     for case in part.images)
    return commonest_share(list(labels.values()))


def named_checkpoints(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names and paths; the name of a path without one is that of its folder, or of the file."""
    names, paths = [], []
    for text in given:
        name, equals, path = text.partition('=')
        if not equals or Path(text).exists():
            path = text
            name = Path(path).stem if len(given) == 1 else Path(path).absolute().parent.name
        if not Path(path).expanduser().is_file():
            raise MilanError(f'no such checkpoint: {path}')
        if not name or name in names:
            raise MilanError(f'{text}: every checkpoint needs a name of its own, this one is '
                             f'{name!r}; give NAME=CHECKPOINT')
        names.append(name)
        paths.append(path)
    return names, paths


def outputs_of(suite: str, models: Sequence[TaskModel],
               names: Sequence[str]) -> tuple[dict[str, int], str]:
    """The output of each class by its folder's name, which must be the same of all models."""
    found = []
    for model, name in zip(models, names):
        if model.task != 'classification':
            raise MilanError(f'{name} is a {model.task} model; expected a classifier')
        outputs = getattr(model.model.head, 'num_classes', None) or len(model.classes)
        found.append(_outputs_of_one(suite, model.classes, outputs))
        if found[-1][0] != found[0][0]:
            raise MilanError(f'{name} has other classes than {names[0]}; compare checkpoints that '
                             'were trained on the same classes')
    return found[0]


def _outputs_of_one(suite: str, classes: tuple[str, ...],
                    outputs: int) -> tuple[dict[str, int], str]:
    if suite != 'corruptions':
        return candidates(suite, classes, outputs)
    if outputs == 1000:  # whose names load_task_model has put into words; folders bear WordNet's
        try:
            return candidates(suite, classes, outputs)
        except MilanError:
            pass
    if not classes:
        raise MilanError('neither checkpoint nor config names the classes; set them with '
                         '--cfg-options test_dataloader.dataset.metainfo.classes=[a,b,…]')
    return {name: i for i, name in enumerate(classes)}, 'by the names in the checkpoint'


def heading(result: dict[str, Any]) -> str:
    """What was measured, in a line or two."""
    sizes = result['images']
    several = f' in {len(sizes)} sets' if len(sizes) > 2 else ''
    text = (f'{result["suite"]}: {sum(sizes.values())} images{several}, {result["choices"]} '
            f'classes to choose from ({result["outputs"]}); naming always the commonest is right '
            f'for {result["chance"]:.1f} %')
    if result['left_out']:
        text += f'\n{result["left_out"]} images of classes the classifier does not know left out'
    return text


def write(result: dict[str, Any], out: Path) -> None:
    """results.json, results.csv, and the plot."""
    write_atomically(out / 'results.json',
                     lambda path: path.write_text(json.dumps(result, indent=2) + '\n'))
    write_atomically(out / 'results.csv', lambda path: path.write_text(as_csv(result)))
    severe = 'accuracy' in next(iter(result['models'].values()))
    (plot_severity if severe else plot_bars)(result, out / 'accuracy.png')
    print(f'written: {out}/ results.json, results.csv, accuracy.png')


def write_contact_sheet(result: dict[str, Any], out: Path, dataset: Corrupted,
                        corruptions: Sequence[str]) -> None:
    """corruptions.png: what the corruptions make of the first image that can be read."""
    bad = set(result['unreadable'])
    shown = next(p for p in dataset.part.images if p.path not in bad)
    image = dataset.read(shown)['img']
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    contact_sheet(image, out / 'corruptions.png', shown.name, corruptions, dataset.seed)
    print(f'written: {out}/corruptions.png')
