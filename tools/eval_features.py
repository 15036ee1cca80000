# SPDX-License-Identifier: Apache-2.0
"""Measures an encoder on labelled images: k-NN, linear probe, few-shot, retrieval, collapse.

Folders as of ImageNet: DIR/train/<class>/<images> is the gallery (k-NN) and the training set
(probe), DIR/val or DIR/test holds the queries. Nothing of the encoder is trained, except with
--partial the last blocks of a copy of it.
"""
import argparse
import json
import sys

from milan_mm.checkpoints.io import write_atomically
from milan_mm.datasets.labelled import find_splits
from milan_mm.engine.cli import run_tool
from milan_mm.evaluation.cli import add_encoder_arguments, build_extractor
from milan_mm.evaluation.evaluate import Options, evaluate, summary

DEFAULT_SHOTS = (1, 2, 5, 10)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_encoder_arguments(parser)
    parser.add_argument('--data', metavar='DIR', help='folder with train/ and val/ or test/')
    parser.add_argument('--gallery', '--train', metavar='DIR', help='instead of DIR/train')
    parser.add_argument('--queries', '--test', metavar='DIR', help='instead of DIR/val or DIR/test')
    parser.add_argument('--knn', action='store_true', help='only k-NN, unless --linear too')
    parser.add_argument('--linear', action='store_true', help='only the probe, unless --knn too')
    parser.add_argument('--feature', choices=['cls', 'pooled', 'both'], default='cls',
                        help='CLS token, mean of the patch tokens, or both beside each other '
                        '(default: cls)')
    parser.add_argument('--k', type=int, default=20, help='neighbours (default: 20)')
    parser.add_argument('--temperature', type=float, default=0.07, help='of k-NN (default: .07)')
    parser.add_argument('--probe', choices=['lbfgs', 'lars'], default='lbfgs',
                        help='solver of the linear probe; lars is the paper\'s schedule, for sets '
                        'of ImageNet\'s size (default: lbfgs)')
    parser.add_argument('--lars-batch', type=int, default=16384, help='(default: 16384)')
    parser.add_argument('--lars-base-lr', type=float, default=0.05,
                        help='times batch / 256; the paper: ViT-B .05, ViT-L .02 (default: .05)')
    parser.add_argument('--lars-epochs', type=int, default=90, help='(default: 90)')
    parser.add_argument('--shift', nargs=2, metavar=('PREFIX_A', 'PREFIX_B'),
                        help='also: gallery limited to file names that start with the one, '
                        'queries with the other, both ways, and the mean')
    parser.add_argument('--few-shot', type=int, nargs='*', metavar='K',
                        help='also: K labelled images a class, drawn anew several times; mean '
                        'and standard deviation (without K: 1 2 5 10)')
    parser.add_argument('--draws', type=int, default=5, help='of --few-shot (default: 5)')
    parser.add_argument('--retrieval', nargs='?', const='gallery',
                        choices=['gallery', 'leave-one-out'],
                        help='also: mean average precision of the gallery ranked for each query; '
                        'or of the other queries (leave-one-out)')
    parser.add_argument('--partial', type=int, nargs='+', default=[], metavar='N',
                        help='also: finetune the last N blocks, for each N given')
    parser.add_argument('--partial-epochs', type=int, default=10, help='(default: 10)')
    parser.add_argument('--partial-lr', type=float, default=5e-4,
                        help='at a batch of 64; it grows with --batch-size (default: 5e-4)')
    parser.add_argument('--out', metavar='FILE', help='JSON to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    gallery, queries = find_splits(args.data, args.gallery, args.queries)
    extractor = build_extractor(args)
    lars = dict(batch_size=args.lars_batch, base_lr=args.lars_base_lr, epochs=args.lars_epochs)
    options = Options(
        knn=args.knn or not args.linear, linear=args.linear or not args.knn, k=args.k,
        temperature=args.temperature, probe=args.probe,
        probe_options=lars if args.probe == 'lars' else {}, device=args.device, seed=args.seed,
        few_shot=tuple((args.few_shot or DEFAULT_SHOTS) if args.few_shot is not None else ()),
        draws=args.draws, retrieval=args.retrieval, partial=tuple(args.partial),
        partial_options=dict(epochs=args.partial_epochs, lr=args.partial_lr,
                             batch_size=args.batch_size, workers=args.workers))
    result = {
        'checkpoint': args.checkpoint,
        'weights': 'teacher' if args.teacher else 'random' if args.random_weights else 'trained',
        'gallery': str(gallery), 'queries': str(queries),
        **evaluate(extractor, gallery, queries, args.feature, options, args.shift,
                   args.batch_size, args.workers)
    }
    print(summary(result))
    if args.out:
        write_atomically(
            args.out, lambda path: path.write_text(json.dumps(result, indent=2) + '\n'))
        print(f'results: {args.out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
