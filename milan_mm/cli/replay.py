# SPDX-License-Identifier: Apache-2.0
"""Makes a step again that was left out for numbers that are not finite, and says where they began.

RECORD is bad_numbers.jsonl, which a pretraining writes, or its work folder. The same images are
augmented and masked as they were; the step is computed in float32 and changes nothing.
"""
import argparse

from . import options

EXAMPLES = """\
  milan replay work_dirs/vitb_pretrain
  milan replay work_dirs/vitb_pretrain/bad_numbers.jsonl --line 3 --checkpoint CHECKPOINT --anomaly
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('record', metavar='RECORD', help='File bad_numbers.jsonl, or the folder '
                        'that it is in.')
    parser.add_argument('--line', type=int, metavar='N', help='Which line of the record, from 1 '
                        '(default: the first).')
    parser.add_argument('--checkpoint', metavar='FILE', help='Checkpoint whose weights to take '
                        '(default: the last one beside the record from before the step).')
    options.add(parser, '--config')
    options.add(parser, '--data-root', action='append', help='The training data, where they are '
                'not where the config says.')
    options.add(parser, '--teacher', help='Where the teacher is now, if not where the config says: '
                'a file, a folder, or MODEL:TAG.')
    parser.add_argument('--anomaly', action='store_true', help='Let autograd look for the '
                        'operation whose gradient is NaN, which is slow.')
    options.add(parser, '--device', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from ..analysis.replay import replay
    from ..inference.device import check_device
    from ..wording import printable
    made = replay(args.record, number=args.line, checkpoint=args.checkpoint, config=args.config,
                  data_root=args.data_root, teacher=args.teacher, anomaly=args.anomaly,
                  device=check_device(args.device), options=args.cfg_options,
                  trust=args.trust_checkpoint)
    line = made.line
    print(f'iteration {line["iter"] + 1}, process {line["rank"]}: {line.get("fault", "loss")} not '
          f'finite (loss {line.get("loss", "?")}); weights of {made.checkpoint}, after '
          f'{made.trained} iterations')
    for image, loss in zip(line['images'], made.losses):
        print(f'  {loss:<12.6g} {printable(image)}'
              + ('  is not finite itself' if image in made.images else ''))
    print(f'loss of the batch: {made.loss:.6g}')
    for what, name in (('output', made.output), ('gradient at an output', made.gradient)):
        print(f'first {what} that is not finite: {name or "none"}')
    if not (made.output or made.gradient or made.images):
        print('in float32, with these weights, all is finite: the cause was the precision of the '
              'training, or its weights at that step')
