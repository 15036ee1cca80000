# SPDX-License-Identifier: Apache-2.0
"""Plots curves of one or several training runs and prints a short table."""
import argparse

from ..errors import MilanError

EXAMPLES = """\
  milan analyze-logs work_dirs/own_images --list
  milan analyze-logs work_dirs/a work_dirs/b --keys loss cos_masked --smooth .9 --out curves.png
  milan analyze-logs work_dirs/studies/fast --time-to eval/knn_top1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('runs', nargs='+', metavar='RUN', help='Work folders, their timestamp '
                        'folders, or scalars.json files.')
    parser.add_argument('--keys', nargs='+', default=['loss'], metavar='KEY',
                        help='Which curves (default: loss).')
    parser.add_argument('--list', action='store_true', help='Print the keys there are, and stop.')
    parser.add_argument('--labels', nargs='+', metavar='LABEL', help='A label for each run '
                        '(default: the name of its folder).')
    parser.add_argument('--smooth', type=float, default=0.0, metavar='W', help='Weight of the '
                        'moving average, 0 to below 1 (default: 0, none).')
    study = parser.add_mutually_exclusive_group()
    study.add_argument('--time-to', metavar='KEY', help='RUN is the folder of a study (milan '
                       'ablate): print the seconds of training of each cell until KEY is what it '
                       'is at the end of the base.')
    study.add_argument('--apart', metavar='KEY', help='RUN is the folder of a study: print how far '
                       'KEY is apart from the base, beside how far seeds are apart.')
    parser.add_argument('--out', metavar='FILE', help='Image file to write, such as curves.png.')


def run(args: argparse.Namespace) -> None:
    from ..reports.curves import check_keys, plot, read_run, table
    if not 0 <= args.smooth < 1:
        raise MilanError(f'--smooth must be in [0, 1), got {args.smooth}')
    if args.time_to or args.apart:
        _print_study(args)
        return
    labels = args.labels or [None] * len(args.runs)
    if len(labels) != len(args.runs):
        raise MilanError(f'got {len(labels)} labels for {len(args.runs)} runs')
    runs = [read_run(path, label) for path, label in zip(args.runs, labels)]
    if args.list:
        for one in runs:
            print(f'{one.label}: {", ".join(sorted(one.curves))}')
        return
    check_keys(runs, args.keys)
    print(table(runs, args.keys, args.smooth))
    if args.out:
        plot(runs, args.keys, args.out, args.smooth)
        print(f'curves: {args.out}')


def _print_study(args: argparse.Namespace) -> None:
    from ..lab.ablation.curves import apart_table, read_curves, times_table
    if len(args.runs) != 1:
        raise MilanError('--time-to and --apart take the folder of one study, got '
                         f'{len(args.runs)}')
    base, curves = read_curves(args.runs[0])
    rows = (times_table(base, curves, args.time_to) if args.time_to else
            apart_table(base, curves, args.apart, args.smooth))
    for row in (rows[0], ['---'] * len(rows[0]), *rows[1:]):
        print(f'| {" | ".join(row)} |')
