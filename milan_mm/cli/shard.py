# SPDX-License-Identifier: Apache-2.0
"""Writes images into shards: tar files as WebDataset has them, each with an index beside it.

A file system reads a few large files faster than millions of small ones. milan pretrain and milan
train take the folder of shards in place of a folder of images, and every image keeps its own masks
and augmentation. Images that cannot be decoded are left out and named.
"""
import argparse

from . import options

EXAMPLES = """\
  milan shard DIR OUT
  milan shard DIR OUT --short-side 512        # photographs of 12 megapixels: 12 times as fast
  milan shard train.parquet OUT               # a table of Hugging Face's with a column of images
  milan pretrain OUT"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('data', metavar='DATA', help='Folder of images, sub-folders included, or a '
                        'list of images (.csv, .json, .jsonl, .parquet, .txt).')
    parser.add_argument('out', metavar='OUT', help='New folder for the shards.')
    parser.add_argument('--images-per-shard', type=int, default=10_000, metavar='N',
                        help='Number of images in a shard (default: %(default)s).')
    parser.add_argument('--short-side', type=int, metavar='PIXELS', help='Make larger images so '
                        'small that their shorter side has this many pixels, as JPEGs of quality '
                        '95 (default: files are copied as they are).')
    options.add(parser, '--seed', help='Seed of the order in the shards (default: %(default)s).')


def run(args: argparse.Namespace) -> None:
    from ..config.sources import open_source
    from ..datasets.sharding import write_shards
    from ..wording import some_of
    done = write_shards(open_source(args.data), args.out, args.images_per_shard, args.short_side,
                        args.seed)
    print(f'{args.out}: {done.images} images in {done.shards} shards'
          + (f'; {len(done.unreadable)} cannot be decoded and are left out: '
             f'{some_of(done.unreadable)}' if done.unreadable else ''))
