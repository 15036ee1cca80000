# SPDX-License-Identifier: Apache-2.0
"""From a command line to the figures of a suite."""
import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction
from PIL import Image

from ...checkpoints import write_atomically
from ...config.read import merge_options, read_config
from ...errors import MilanError
from ...inference.device import check_device
from ...inference.tasks import Trained, load_trained
from .corruptions import CORRUPTIONS, SEVERITIES
from .imagenet import candidates
from .measure import Corrupted, count_right
from .plots import contact_sheet, plot_bars, plot_severity
from .results import as_csv, gather, table
from .suites import SUITES, Pass, plan


def robustness_parser(description: str) -> argparse.ArgumentParser:
    """The options of tools/test_robustness.py."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='of a classifier')
    parser.add_argument('checkpoints', nargs='+', metavar='[NAME=]CHECKPOINT',
                        help='of trainings with that config, compared side by side')
    parser.add_argument('--suite', required=True, choices=SUITES)
    parser.add_argument('--data', required=True, metavar='DIR',
                        help='the suite\'s folder, or for corruptions <class>/<image>')
    parser.add_argument('--clean', metavar='DIR',
                        help='also: images without corruption of the same classes, such as '
                        'ImageNet\'s val/<class>/<image> (suite corruptions has them anyway)')
    parser.add_argument('--corruptions', nargs='+', default=list(CORRUPTIONS), metavar='NAME',
                        choices=CORRUPTIONS, help='which (default: all 15): %(choices)s')
    parser.add_argument('--severities', nargs='+', type=int, default=list(SEVERITIES), metavar='S',
                        choices=SEVERITIES, help='of suite corruptions (default: 1 2 3 4 5)')
    parser.add_argument('--out', metavar='DIR',
                        help='write results.json, results.csv and plots there')
    parser.add_argument('--seed', type=int, default=0,
                        help='of what corruptions draw (default: 0)')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=2,
                        help='processes that read and corrupt (default: 2)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='load a pickle that needs more than tensors, which can run code')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change values of the config, as in the training')
    return parser


def test_robustness(args: argparse.Namespace) -> dict[str, Any]:
    """Runs what the arguments say, prints the table and gives the results.

    Raises:
        MilanError: for what is the user's to mend.
    """
    if args.batch_size < 1 or args.workers < 0:
        raise MilanError('--batch-size must be at least 1 and --workers at least 0, got '
                         f'{args.batch_size} and {args.workers}')
    names, paths = named_checkpoints(args.checkpoints)
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    device = check_device(args.device)
    models = [load_trained(cfg, path, device, args.trust_checkpoint) for path in paths]
    known, how = outputs_of(args.suite, models, names)
    passes = plan(args.suite, args.data, known, args.clean,
                  list(dict.fromkeys(args.corruptions)), sorted(set(args.severities)))
    counts = [count_right(models, part, list(known.values()), args.batch_size, args.workers,
                          args.seed) for part in passes]
    result = {
        'suite': args.suite, 'data': str(args.data), 'config': args.config,
        'checkpoints': dict(zip(names, paths)), 'seed': args.seed, 'choices': len(known),
        'outputs': how, 'chance': 100.0 / len(known),
        **gather(args.suite, passes, counts, names)}
    print(heading(result))
    print(table(result))
    if args.out:
        write(result, Path(args.out).expanduser(), models[0], passes[-1], args)
    return result


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


def outputs_of(suite: str, models: Sequence[Trained],
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
    if outputs == 1000:  # whose names load_trained has put into words; folders bear WordNet's
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
            f'classes to choose from ({result["outputs"]}), chance {result["chance"]:.2g} %')
    if result['left_out']:
        text += f'\n{result["left_out"]} images of classes the classifier does not know left out'
    return text


def write(result: dict[str, Any], out: Path, model: Trained, part: Pass,
          args: argparse.Namespace) -> None:
    """results.json, results.csv, and the plots."""
    write_atomically(out / 'results.json',
                     lambda path: path.write_text(json.dumps(result, indent=2) + '\n'))
    write_atomically(out / 'results.csv', lambda path: path.write_text(as_csv(result)))
    severe = 'accuracy' in next(iter(result['models'].values()))
    (plot_severity if severe else plot_bars)(result, out / 'accuracy.png')
    written = ['results.json', 'results.csv', 'accuracy.png']
    if args.suite == 'corruptions':
        dataset = Corrupted(model, part, args.seed)
        bad = set(result['unreadable'])
        shown = next(p for p in part.images if p.path not in bad)
        image = dataset.read(shown)['img']
        if not isinstance(image, Image.Image):
            image = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
        contact_sheet(image, out / 'corruptions.png', shown.name, args.corruptions, args.seed)
        written.append('corruptions.png')
    print(f'written: {out}/ ' + ', '.join(written))
