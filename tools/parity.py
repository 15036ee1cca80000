# SPDX-License-Identifier: Apache-2.0
"""Holds one recorded training step against this code, tensor by tensor."""
import argparse
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.evaluation.parity import TOLERANCE, parity_errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', help='recorded step in safetensors: images, weights of teacher '
                        'and student, masks, features, importance, predictions, loss, gradients')
    args = parser.parse_args()
    errors = parity_errors(args.file)
    for name, error in errors.items():
        print(f'{error:9.2e}  {"ok  " if error <= TOLERANCE else "FAIL"}  {name}')
    worst = max(errors, key=errors.get)
    print(f'largest difference, relative to the tensor\'s largest absolute value: '
          f'{errors[worst]:.2e} ({worst}); allowed {TOLERANCE:.0e}')
    return int(errors[worst] > TOLERANCE)


if __name__ == '__main__':
    sys.exit(run_tool(main))
