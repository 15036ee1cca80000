# SPDX-License-Identifier: Apache-2.0
"""Says whether training can start here, with a remedy beside each line that fails.

Exit code 0: it can (warnings do not count); 1: it cannot.
"""
import argparse
import json

from ..errors import MilanError
from . import options

EXAMPLES = """\
  milan doctor
  milan doctor --teacher ViT-B-16-quickgelu:openai --data DIR
  milan doctor --data DIR --task det"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--teacher', help='Load this teacher, too: a file, a folder, MODEL:TAG '
                'such as ViT-B-16-quickgelu:openai (may download), or MODEL:FILE.')
    options.add(parser, '--data', required=False, help='Look through this folder of images, too.')
    parser.add_argument('--task', choices=('det', 'seg', 'cls'), help='Look through all '
                        'of --data as annotated for this task, as a training with own_coco.py, '
                        'own_ade.py or own_finetune.py would before it starts.')
    options.add(parser, '--work-dir', default='work_dirs', help='Folder that runs will be written '
                'to (default: %(default)s).')
    parser.add_argument('--json', action='store_true', help='Print the report as JSON.')


def run(args: argparse.Namespace) -> int:
    from ..doctor.checks import FAIL, run_checks  # standard library only, whatever is broken
    if args.task and not args.data:
        raise MilanError(f'--task {args.task} needs the folder: --data DIR')
    checks = []
    for check in run_checks(args.teacher, args.data, args.work_dir, args.task):
        checks.append(check)
        if not args.json:
            print(f'{check.status:5} {check.name:13} {check.detail}', flush=True)
            if check.remedy:
                print(f'{"":5} {"":13} -> {check.remedy}', flush=True)
    failed = [check.name for check in checks if check.status == FAIL]
    if args.json:
        print(json.dumps(dict(ok=not failed, checks=[c._asdict() for c in checks]), indent=2))
    else:
        print(f'training cannot start: {", ".join(failed)}' if failed else 'training can start')
    return int(bool(failed))
