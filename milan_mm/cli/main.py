# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to the command that they name."""
import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

from ..packages import __version__
from .failures import guarded
from .launch import is_launched, launch
from .old_spellings import renewed

COMMANDS = {
    'pretrain': 'Pretrain an encoder on a folder of your own images.',
    'train': 'Train what a config describes: pretraining, finetuning, detection, segmentation.',
    'test': 'Evaluate a checkpoint on the test set that a config describes.',
    'extract': 'Write the features of a folder of images into one file (also: embed).',
    'eval': 'Measure an encoder on labelled images: k-NN, linear probe, few shots, retrieval.',
    'convert': 'Write an encoder under the names that timm, Hugging Face or mmpretrain load.',
    'export': 'Write a model as ONNX or torch.export, or as a folder of timm or Transformers.',
    'push-to-hub': 'Write a folder for the Hugging Face Hub, and upload it if asked to.',
    'predict': 'Predict classes, boxes and masks, or label maps, and draw them.',
    'visualize': 'Show importance, masks, errors and features of a pretrained model.',
    'explore': 'Open a local page to play with a pretrained model: masks, patches, neighbours.',
    'report': 'Write the page of a run: curves, images, config, what to do next.',
    'diagnose': 'Measure what an encoder is like inside: layers, heads, units.',
    'zero-shot': 'Name images by text alone.',
    'robustness': 'Measure classifiers on corrupted images and on variants of ImageNet.',
    'ablate': 'Run a study: configs that differ in one part, each with several seeds.',
    'analyze-logs': 'Plot and tabulate the curves of training runs.',
    'tune': 'Say what to train with on your own images, by short runs.',
    'replay': 'Make a step with a loss that is not finite again, and say where it began.',
    'doctor': 'Say whether training can start on this machine.',
    'parity': 'Compare one training step with a recorded one, tensor by tensor.',
    'shard': 'Write images into a few large files, which train faster than many small ones.',
    'benchmark': 'Measure steps, loading and memory on this machine, beside mmpretrain.',
    'plan': 'Say what a pretraining takes on GPUs that are not here: memory, hours.',
    'train-clip': 'Train a small CLIP on images and their captions, as a teacher.',
    'quickstart': 'Run the whole method on a CPU in minutes, and measure it.',
}
ALIASES = {'embed': 'extract'}
# These work where PyTorch or mmpretrain do not, or need neither.
STAND_ALONE = ('doctor', 'analyze-logs')


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives its exit code.

    Args:
        arguments: the command and its options; None for those of this process.
    """
    return guarded(run, parse(sys.argv[1:] if arguments is None else arguments))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; besides them ``command``, ``run`` and ``words``, what was given.

    Help, the version and errors of spelling end the process, as of any ``argparse`` parser.
    """
    name, *rest = map(str, arguments or ['--help'])
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        _refuse(name)
    args = command_parser(name).parse_args(renewed(name, rest))
    args.command, args.words, args.run = name, [name, *rest], _module(name).run
    return args


def run(args: argparse.Namespace) -> int | None:
    """Runs what was parsed.

    Raises:
        MilanError: for what is the user's to mend.
    """
    if check := getattr(_module(args.command), 'check', None):
        check(args)  # before seconds of imports
    if is_launched(args):
        return launch(args)
    if args.command not in STAND_ALONE:
        from ..compat.slow_imports import import_lean
        import_lean()
        importlib.import_module('milan_mm.public')
        from ..compat.any_file_name import write_any_name
        from ..compat.no_ghostscript import forbid_ghostscript
        forbid_ghostscript()
        write_any_name()
        # Where a log cannot be written, Python would report that at length at each of its lines.
        logging.raiseExceptions = False
    return args.run(args)


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of a command; its file's text describes it."""
    module = _module(name)
    parser = argparse.ArgumentParser(
        prog=f'milan {name}', description=module.__doc__,
        epilog=f'examples:\n{module.EXAMPLES}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f'.{name.replace("-", "_")}', __package__)


def _refuse(name: str) -> None:
    """Answers ``--help`` and ``--version``; ends with an error for anything else."""
    table = '\n'.join(f'  {command:14}{text}' for command, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='milan', usage='milan COMMAND [options]\n       milan COMMAND --help',
        description='MILAN for OpenMMLab: pretrain a ViT on your own images with a CLIP teacher.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f'commands:\n{table}\n\nexamples:\n  milan pretrain DIR\n'
        '  milan eval work_dirs/own_images/epoch_400.pth --data DIR')
    parser.add_argument('--version', action='version', version=f'milan_mm {__version__}')
    parser.parse_args([name] if name.startswith('-') else [])
    near = difflib.get_close_matches(name, COMMANDS, 1)
    parser.error(f'there is no command {name!r}' + (f'; did you mean {near[0]}?' if near else
                                                    '; milan --help lists them'))
