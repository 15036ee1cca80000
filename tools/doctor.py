# SPDX-License-Identifier: Apache-2.0
"""Says whether training can start here, with a remedy beside each line that fails.

Exit code 0: it can (warnings do not count); 1: it cannot.
"""
import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def load_doctor() -> ModuleType:
    """The checks without ``milan_mm/__init__.py``, which may be just what is broken."""
    package = ModuleType('milan_mm_by_path')
    package.__path__ = [str(ROOT / 'milan_mm')]
    sys.modules[package.__name__] = package
    return importlib.import_module(f'{package.__name__}.doctor.checks')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--teacher', metavar='NAME_OR_FILE',
                        help='also load this teacher: a file, a folder, MODEL:TAG such as '
                        'ViT-B-16-quickgelu:openai (may download), or MODEL:FILE')
    parser.add_argument('--data', metavar='DIR', help='also look through this folder of images')
    parser.add_argument('--work-dir', default='work_dirs', metavar='DIR',
                        help='where runs will be written (default: %(default)s)')
    parser.add_argument('--json', action='store_true', help='the report as JSON')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    sys.path.insert(0, str(ROOT))
    doctor = load_doctor()
    checks = []
    for check in doctor.run_checks(args.teacher, args.data, args.work_dir):
        checks.append(check)
        if not args.json:
            print(f'{check.status:5} {check.name:13} {check.detail}', flush=True)
            if check.remedy:
                print(f'{"":5} {"":13} -> {check.remedy}', flush=True)
    failed = [check.name for check in checks if check.status == doctor.FAIL]
    if args.json:
        print(json.dumps(dict(ok=not failed, checks=[c._asdict() for c in checks]), indent=2))
    else:
        print(f'training cannot start: {", ".join(failed)}' if failed else 'training can start')
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
