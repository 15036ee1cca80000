# SPDX-License-Identifier: Apache-2.0
"""Writes a model so that others run it without this package.

onnx and torch-export: a graph with an open batch, of the encoder (cls, pooled, patches) or, with
--config, of a finetuned classifier or segmentor (logits); its numbers are compared with the model.
Its input is normalised pixels. timm, hf: a folder with weights, config and model card, for
timm.create_model('local-dir:FOLDER', pretrained=True) and AutoModel.from_pretrained.
"""
import argparse

from ..errors import MilanError
from . import options

TARGETS = ('onnx', 'torch-export', 'timm', 'hf', 'safetensors')
EXAMPLES = """\
  milan export CHECKPOINT encoder.onnx --to onnx
  milan export CHECKPOINT encoder_timm --to timm
  milan export CHECKPOINT classifier.onnx --to onnx --config CONFIG --quantize --data DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'checkpoint', help='A checkpoint of a training, or any file of a ViT.')
    parser.add_argument('target', metavar='TARGET', help='File to write; for timm and hf a new '
                        'folder.')
    parser.add_argument('--to', choices=TARGETS, required=True, help='What to write.')
    options.add(parser, '--config', help='Config of a finetuned classifier or segmentor, whose '
                'logits are wanted (default: the features of the encoder).')
    options.add(parser, '--img-size', nargs='+', help='Side of the images, or height and width '
                '(default: as in the training).')
    parser.add_argument('--dynamic-size', action='store_true', help='With onnx: leave height and '
                        'width open; for rotary positions only.')
    parser.add_argument('--quantize', action='store_true', help='With onnx: also write '
                        'TARGET_int8.onnx, whose linear maps have weights of 8 bits.')
    options.add(parser, '--data', required=False, help='With --quantize: labelled images, a folder '
                'a class, to measure both files on.')
    options.add(parser, '--weights', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from ..checkpoints.convert import convert
    from ..checkpoints.published import write_folder
    from ..inference import export
    from .encoder import size_of
    target = Path(args.target).expanduser()
    graph = args.to in ('onnx', 'torch-export')
    if not graph and (args.config or args.img_size):
        raise MilanError(f'--config and --img-size belong to onnx and torch-export; {args.to} '
                         'holds the encoder as it is')
    if args.to != 'onnx' and (args.quantize or args.dynamic_size):
        raise MilanError(f'--quantize and --dynamic-size belong to onnx, not to {args.to}')
    if args.to == 'safetensors':
        done = convert(args.checkpoint, target, 'milan_mm', trust=args.trust_checkpoint,
                       weights=args.weights)
        print(f'{target}: {done.kept} tensors')
        return
    if not graph:
        write_folder(args.checkpoint, target, args.to, args.weights, args.trust_checkpoint)
        print(f'{target}: README.md says how it is loaded')
        return
    config = None
    if args.config:
        from ..config.options import merge_options
        from ..config.read import read_config
        config = read_config(args.config)
        merge_options(config, args.cfg_options)
    what = export.exportable(args.checkpoint, config, size_of(args.img_size), args.weights,
                             args.trust_checkpoint)
    write = export.export_program if args.to == 'torch-export' else export.export_onnx
    more = dict(dynamic_size=True) if args.dynamic_size else {}
    worst = write(what, target, **more)
    print(f'{target}: images (batch, {len(what.told["pixel_mean"])}, {what.img_size[0]}, '
          f'{what.img_size[1]}) to {", ".join(what.outputs)}; differs from the model by at most '
          f'{worst:.1e}')
    if not args.quantize:
        return
    small = target.with_name(f'{target.stem}_int8.onnx')
    export.quantize(target, small)
    print(f'{small}: {small.stat().st_size / 2**20:.1f} MB instead of '
          f'{target.stat().st_size / 2**20:.1f} MB')
    if args.data:
        for path in (target, small):
            print(f'{path}: {export.accuracy(what, path, args.data):.1f} % of {args.data} right')
