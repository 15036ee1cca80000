# SPDX-License-Identifier: Apache-2.0
"""Measures an encoder on labelled images: k-NN, linear probe, few shots, retrieval, collapse.

Folders are as those of ImageNet: DIR/train/<class>/<images> is the gallery of k-NN and the training
set of the probe, DIR/val or DIR/test holds the queries. Nothing of the encoder is trained; with
--partial the last blocks of a copy of it are.
"""
import argparse
import json
from typing import TYPE_CHECKING

from ..errors import MilanError
from . import options
from .encoder import add_encoder_arguments, build_extractor

if TYPE_CHECKING:
    from ..inference.encoders import Extractor

DEFAULT_SHOTS = (1, 2, 5, 10)
EXAMPLES = """\
  milan eval CHECKPOINT --data DIR
  milan eval CHECKPOINT --gallery DIR/train --queries DIR/val --knn --feature pooled
  milan eval CHECKPOINT --data DIR --few-shot --retrieval --partial 2 --out eval.json
  milan eval CHECKPOINT --data DIR --masking semantic --mask-ratio 0.75
  milan eval --teacher ViT-B-16-quickgelu:openai --data DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder_arguments(parser)
    options.add(parser, '--data', required=False, help='Folder with train/ and val/ or test/ in '
                'it.')
    parser.add_argument('--gallery', metavar='DIR', help='Folder of the gallery, instead of '
                        'DIR/train.')
    parser.add_argument('--queries', metavar='DIR', help='Folder of the queries, instead of '
                        'DIR/val or DIR/test.')
    parser.add_argument('--knn', action='store_true', help='Measure k-NN alone, or with --linear '
                        'both (the default).')
    parser.add_argument('--linear', action='store_true', help='Measure the linear probe alone.')
    parser.add_argument('--feature', choices=['cls', 'pooled', 'both'], default='cls',
                        help='Use the CLS token, the mean of the patch tokens, or measure both '
                        '(default: %(default)s).')
    parser.add_argument('--out', metavar='FILE', help='JSON file to write the results to. What was '
                        'said of each image lies beside it, as .hits.npz.')
    _add_masks(parser)
    _add_protocols(parser)


def _add_masks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('masks')
    group.add_argument('--masking', choices=['semantic', 'random'], help='Show the encoder some '
                       'patches of every image only: those important to a CLIP, or any.')
    group.add_argument('--mask-ratio', type=float, default=0.75, metavar='R', help='With '
                       '--masking: share of patches that are masked (default: %(default)s).')
    group.add_argument('--masking-teacher', metavar='SPEC', help='With --masking semantic: the '
                       'CLIP, a file, a folder or MODEL:TAG (default: the teacher of the '
                       'training).')


def _add_protocols(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('protocols')
    group.add_argument('--k', type=int, default=20, metavar='K', help='Number of neighbours '
                       '(default: %(default)s).')
    group.add_argument('--temperature', type=float, default=0.07, metavar='T', help='Temperature '
                       'of the votes of k-NN (default: %(default)s).')
    group.add_argument('--probe', choices=['lbfgs', 'lars'], default='lbfgs', help='Solver of the '
                       'linear probe. lars is the schedule of the paper, for sets of the size of '
                       'ImageNet (default: %(default)s).')
    group.add_argument('--lars-batch-size', type=int, default=16384, metavar='N', help='Batch of '
                       'lars (default: %(default)s).')
    group.add_argument('--lars-base-lr', type=float, default=0.05, metavar='LR', help='Learning '
                       'rate of lars, times batch / 256; the paper has .05 for ViT-B and .02 for '
                       'ViT-L (default: %(default)s).')
    group.add_argument('--lars-epochs', type=int, default=90, metavar='N', help='Epochs of lars '
                       '(default: %(default)s).')
    group.add_argument('--shift', nargs=2, metavar=('PREFIX_A', 'PREFIX_B'), help='Measure also '
                       'with a gallery of file names that begin with the one, queries with the '
                       'other, both ways, and their mean.')
    group.add_argument('--few-shot', type=int, nargs='*', metavar='K', help='Measure also with K '
                       'labelled images a class, drawn anew several times; gives mean and standard '
                       'deviation (without K: 1 2 5 10).')
    group.add_argument('--draws', type=int, default=5, metavar='N', help='Number of draws of '
                       '--few-shot (default: %(default)s).')
    group.add_argument('--retrieval', nargs='?', const='gallery',
                       choices=['gallery', 'leave-one-out'], help='Measure also the mean average '
                       'precision of the gallery ranked for each query, or of the other queries '
                       '(leave-one-out).')
    group.add_argument('--partial', type=int, nargs='+', default=[], metavar='N', help='Finetune '
                       'also the last N blocks, for each N given.')
    group.add_argument('--partial-epochs', type=int, default=10, metavar='N', help='Epochs of '
                       '--partial (default: %(default)s).')
    group.add_argument('--partial-lr', type=float, default=5e-4, metavar='LR', help='Learning rate '
                       'of --partial at a batch of 64; it grows with --batch-size (default: '
                       '%(default)s).')


def _behind_masks(extractor: 'Extractor', args: argparse.Namespace) -> 'Extractor':
    from ..inference.masked import masked_extractor
    if args.masking:
        return masked_extractor(extractor, args.masking, args.mask_ratio, args.checkpoint,
                                args.masking_teacher, args.seed, args.trust_checkpoint)
    if args.masking_teacher:
        raise MilanError('--masking-teacher belongs to --masking semantic')
    return extractor


def run(args: argparse.Namespace) -> None:
    from ..checkpoints.io import write_atomically
    from ..datasets.labelled import find_splits
    from ..evaluation.evaluate import Options, evaluate, summary
    from ..evaluation.hits import hits_path, write_hits
    gallery, queries = find_splits(args.data, args.gallery, args.queries)
    extractor = _behind_masks(build_extractor(args), args)
    lars = dict(batch_size=args.lars_batch_size, base_lr=args.lars_base_lr,
                epochs=args.lars_epochs)
    how = Options(
        knn=args.knn or not args.linear, linear=args.linear or not args.knn, k=args.k,
        temperature=args.temperature, probe=args.probe,
        probe_options=lars if args.probe == 'lars' else {},
        device=str(extractor.pixel_mean.device), seed=args.seed,
        few_shot=tuple((args.few_shot or DEFAULT_SHOTS) if args.few_shot is not None else ()),
        draws=args.draws, retrieval=args.retrieval, partial=tuple(args.partial),
        partial_options=dict(epochs=args.partial_epochs, lr=args.partial_lr,
                             batch_size=args.batch_size, workers=args.workers))
    result = {
        'checkpoint': args.teacher or args.checkpoint,
        'weights': 'teacher' if args.teacher else 'random' if args.random_weights else 'trained',
        **(dict(masking=args.masking, mask_ratio=args.mask_ratio) if args.masking else {}),
        'gallery': str(gallery), 'queries': str(queries),
        **evaluate(extractor, gallery, queries, args.feature, how, args.shift, args.batch_size,
                   args.workers)
    }
    print(summary(result))
    predictions = result.pop('predictions')
    if args.out:
        write_hits(hits_path(args.out), predictions)
        write_atomically(
            args.out, lambda path: path.write_text(json.dumps(result, indent=2) + '\n'))
        print(f'results: {args.out}')
