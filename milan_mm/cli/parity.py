# SPDX-License-Identifier: Apache-2.0
"""Compares one recorded training step with this code, tensor by tensor.

Exit code 1: a difference is larger than allowed.
"""
import argparse

EXAMPLES = '  milan parity tests/data/reference_tiny.safetensors'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('file', metavar='FILE', help='Recorded step in safetensors: images, '
                        'weights of teacher and student, masks, features, importance, predictions, '
                        'loss, gradients.')


def run(args: argparse.Namespace) -> int:
    from ..evaluation.parity import TOLERANCE, parity_errors
    errors = parity_errors(args.file)
    for name, error in errors.items():
        print(f'{error:9.2e}  {"ok  " if error <= TOLERANCE else "FAIL"}  {name}')
    worst = max(errors, key=errors.__getitem__)
    print(f'largest difference, relative to the tensor\'s largest absolute value: '
          f'{errors[worst]:.2e} ({worst}); allowed {TOLERANCE:.0e}')
    return int(errors[worst] > TOLERANCE)
