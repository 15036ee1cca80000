# SPDX-License-Identifier: Apache-2.0
"""Opens a local web page on which one plays with a pretrained model.

Drop an image or choose one of a folder: the teacher's importance, masks at any ratio and
temperature, the decoder's error by patch, features as colours, patches alike to the one that is
clicked, the nearest images of the folder, and where in the image a text is. The page is for this
machine alone and asks no other.
"""
import argparse
from pathlib import Path

from ..errors import MilanError
from . import options

EXAMPLES = """\
  milan explore CHECKPOINT --images DIR
  milan explore CHECKPOINT --compare CHECKPOINT2 --teacher DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'checkpoint', help='Checkpoint of a pretraining, as it was written; or any '
                'encoder, for what needs no decoder.')
    parser.add_argument('--images', metavar='DIR', help='Folder of images to choose from, and in '
                        'which the nearest are looked for.')
    options.add(parser, '--num-images', default=300, help='Number of images to take of --images '
                '(default: %(default)s).')
    options.add(parser, '--teacher', help='Where the teacher is now, if not where the config says: '
                'a file, a folder, or MODEL:TAG; for an encoder alone, a CLIP to compare with.')
    parser.add_argument('--compare', metavar='CHECKPOINT', help='A second checkpoint, shown beside '
                        'the first.')
    parser.add_argument('--text-tower', metavar='SPEC', help='CLIP whose text tower is used: a '
                        'folder, or MODEL:TAG (default: the teacher).')
    parser.add_argument('--port', type=int, default=7860, metavar='N', help='Port on this machine; '
                        '0 takes any that is free (default: %(default)s).')
    options.add(parser, '--config', '--device', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from ..analysis.explore.load import load_explorer
    from ..analysis.explore.server import Application, check_port, serve
    from ..inference.device import check_device
    if args.num_images < 1:
        raise MilanError(f'--num-images must be at least 1, got {args.num_images}')
    check_port(args.port)  # before anything takes its time
    explorer, facts = load_explorer(
        Path(args.checkpoint), args.compare and Path(args.compare), images=args.images,
        most=args.num_images, config=args.config, teacher=args.teacher, texts=args.text_tower,
        options=args.cfg_options, device=check_device(args.device), trust=args.trust_checkpoint)
    application = Application(explorer, facts)
    server = serve(application, args.port)
    print(f'open http://127.0.0.1:{server.port}/{application.secret}/ in a browser on this '
          'machine; Ctrl-C ends it', flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
