# SPDX-License-Identifier: Apache-2.0
"""Plots curves of one or several training runs and prints a short table."""
import argparse
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.errors import MilanError
from milan_mm.reports.curves import check_keys, plot, read_run, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN',
                        help='work folder, one of its timestamp folders, or a scalars.json')
    parser.add_argument('--keys', nargs='+', default=['loss'], metavar='KEY',
                        help='which curves (default: loss)')
    parser.add_argument('--list', action='store_true', help='print the keys there are, and stop')
    parser.add_argument('--labels', nargs='+', metavar='LABEL',
                        help='one for each run (default: the folder\'s name)')
    parser.add_argument('--smooth', type=float, default=0.0, metavar='W',
                        help='weight of the moving average, 0 to below 1 (default: 0, none)')
    parser.add_argument('--out', metavar='FILE', help='image to write, such as curves.png')
    args = parser.parse_args()
    if not 0 <= args.smooth < 1:
        raise MilanError(f'--smooth must be in [0, 1), got {args.smooth}')
    labels = args.labels or [None] * len(args.runs)
    if len(labels) != len(args.runs):
        raise MilanError(f'got {len(labels)} labels for {len(args.runs)} runs')
    runs = [read_run(path, label) for path, label in zip(args.runs, labels)]
    if args.list:
        for run in runs:
            print(f'{run.label}: {", ".join(sorted(run.curves))}')
        return
    check_keys(runs, args.keys)
    print(table(runs, args.keys, args.smooth))
    if args.out:
        plot(runs, args.keys, args.out, args.smooth)
        print(f'curves: {args.out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
