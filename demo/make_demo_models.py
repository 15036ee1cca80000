# SPDX-License-Identifier: Apache-2.0
"""Makes demo/models, the weights that come with the package, of a quickstart that has run.

  milan quickstart
  python demo/make_demo_models.py work_dirs/quickstart

Each student becomes one file of safetensors: encoder and decoder, with what describes the encoder
and the config of its training in the metadata, matrices in float16. models.json beside them has
what milan_mm.list_models() says: figures are those of WORK/eval, hashes those of the files. A
student without figures is measured first, as the quickstart measures. The teacher is demo/teacher,
a folder that is there already. Then the notebook is run with them.
"""
import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from milan_mm.checkpoints.io import last_checkpoint, write_atomically
from milan_mm.checkpoints.spec import describe_spec
from milan_mm.inference.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[1]
STUDENTS = ('milan', 'mae', 'mask_align')
TEACHER = 'demo/teacher'
FIGURES = dict(knn='k-NN top-1', linear='linear probe top-1')
LICENCE = 'Apache-2.0; the drawings it was trained on: demo/ATTRIBUTION.md'


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured(work: Path, name: str, subject: list) -> dict[str, float]:
    """Top-1 on the concepts held out, in percent."""
    path = work / f'eval/{name}.json'
    if not path.is_file():
        subprocess.run([sys.executable, '-m', 'milan_mm', 'eval', *map(str, subject), '--data',
                        str(work / 'data'), '--crop-ratio', '1', '--workers', '0', '--out',
                        str(path)], check=True)
    told = json.loads(path.read_text())
    return in_words({kind: told[kind]['top1'] for kind in FIGURES})


def in_words(figures: dict[str, float]) -> dict[str, float]:
    return {f'held-out concepts, {FIGURES[kind]}': round(value, 1)
            for kind, value in figures.items()}


def small(name: str, value: torch.Tensor) -> torch.Tensor:
    """Half the bytes, where the values are many and need no more digits."""
    keep = value.ndim < 2 or 'pos' in name or not value.is_floating_point()
    return (value if keep else value.half()).contiguous()


def write_student(source: Path, target: Path, teacher: str | None) -> None:
    """Everything of a student's last checkpoint that is not of its training's state."""
    checkpoint = Checkpoint(source)
    vit = checkpoint.vit()
    config = checkpoint.config
    if teacher:
        config.model.target_generator.pretrained = teacher
    # Only what the viewers build: no path of the machine that trained it.
    kept = type(config)({key: config[key] for key in ('model', 'data_preprocessor')
                         if key in config})
    metadata = dict(milan_mm=json.dumps(vit.described or describe_spec(vit.spec)),
                    cfg=kept.pretty_text, format='pt')
    state = {name: small(name, value)
             for name, value in checkpoint.content['state_dict'].items()}
    write_atomically(target, lambda path: save_file(state, path, metadata))
    target.chmod(0o644)  # safetensors leaves a file that only its owner may read


def make(work: Path, out: Path, name: str) -> dict[str, dict]:
    """A student's file, and what is known of it."""
    source = last_checkpoint(work / name)
    if source is None:
        raise SystemExit(f'{work / name} has no checkpoint')
    taught = name != 'mae'
    arch = Checkpoint(source).vit().spec.arch
    full = f'{name}-vit-{arch["num_layers"]}x{arch["embed_dims"]}'
    target = out / f'{full}.safetensors'
    write_student(source, target, TEACHER if taught else None)
    meta = json.loads((work / 'data/meta.json').read_text(encoding='utf-8'))
    return {f'demo/{full}': dict(
        file=f'demo/models/{target.name}', sha256=digest(target),
        config=f'milan_mm::quickstart/{name}.py', **(dict(teacher=TEACHER) if taught else {}),
        data=f'{meta["sizes"]["train_images"]:,} drawings of demo/emoji.zip on textures, 64 px',
        licence=LICENCE, source='milan quickstart, then demo/make_demo_models.py',
        metrics=measured(work, name, [source]))}


def describe_teacher(teacher: Path) -> dict[str, dict]:
    """Its figures are those of its own folder, measured by the same command."""
    weights = teacher / 'open_clip_model.safetensors'
    told = json.loads((teacher / 'metrics.json').read_text())
    return {TEACHER: dict(
        file=TEACHER, sha256=digest(weights),
        data='drawings of the demo and captions of their Unicode names, 64 px', licence=LICENCE,
        source='demo/teacher/README.md',
        metrics=in_words({kind: told[kind] for kind in FIGURES}))}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path, nargs='?', metavar='WORK', help='folder of a '
                        'quickstart; a folder mask_align in it, a training of configs/quickstart/'
                        'mask_align.py, is taken too; without it the teacher alone is listed')
    parser.add_argument('--teacher', type=Path, default=ROOT / TEACHER,
                        help='the folder that taught (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'demo/models',
                        help='where to (default: %(default)s)')
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.out.glob('*.safetensors'):
        path.unlink()
    entries = {}
    for name in STUDENTS:
        if args.work and (args.work / name).is_dir():
            entries.update(make(args.work, args.out, name))
    students = bool(entries)
    entries.update(describe_teacher(args.teacher))
    text = json.dumps(entries, indent=2) + '\n'
    write_atomically(args.out / 'models.json', lambda path: path.write_text(text))
    for name, entry in entries.items():
        print(name, entry['sha256'][:8], entry['metrics'])
    if students and args.out.resolve() == ROOT / 'demo/models':
        subprocess.run([sys.executable, str(ROOT / 'demo/run_tour.py')], check=True)


if __name__ == '__main__':
    main()
