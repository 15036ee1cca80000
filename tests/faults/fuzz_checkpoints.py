# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and teachers spoilt at random, given to what reads them.

    python tests/faults/fuzz_checkpoints.py [--count 500] [--seed 0] [--only WORD ...]

Bits are flipped, ends cut off, members of archives and headers of safetensors edited, tensors,
optimizer and meta data changed. Each file ends in success or in one error of this package, within a
minute, with no file outside the work folder. It is a fault too if altered weights are used without
a word: after bytes were changed, all tensors must be the original's; what a structural edit takes
away must be refused where it is needed. Values within safetensors carry no checksum: counted apart.
"""
import argparse
import collections
import json
import logging
import os
import random
import re
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import torch  # noqa: E402
from faults.foreign_files import ROUTES, Ground  # noqa: E402
from faults.judging import at_most_a_minute, judged  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from milan_mm.checkpoints.handover import load_pretrained  # noqa: E402
from milan_mm.checkpoints.io import read_checkpoint, state_of  # noqa: E402
from milan_mm.inference.pretraining import load_pretraining  # noqa: E402
from milan_mm.models.targets.clip_weights import load_clip_tower  # noqa: E402

WEIGHTS = ('init-from', 'resume', 'convert', 'eval')
KEY = 'backbone.layers.1.attn.qkv.weight'


def _tensor(change: Callable) -> Callable:
    def edit(content: dict) -> None:
        content['state_dict'][KEY] = change(content['state_dict'][KEY])
    return edit


def _set(*path: Any, to: Any = None, drop: bool = False) -> Callable:
    def edit(content: dict) -> None:
        for key in path[:-1]:
            content = content[key]
        if drop:
            del content[path[-1]]
        else:
            content[path[-1]] = to
    return edit


def _filled(value: float) -> Callable:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[7] = value
        return tensor
    return change


# What is edited, and the routes on which it may not pass.
EDITS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    'tensor dropped': (_set('state_dict', KEY, drop=True), WEIGHTS),
    'tensor cut': (_tensor(lambda t: t[:-1].clone()), WEIGHTS),
    'tensor turned': (_tensor(lambda t: t.t().contiguous()), WEIGHTS),
    'tensor flat': (_tensor(lambda t: t.flatten()), WEIGHTS),
    'tensor NaN': (_tensor(_filled(float('nan'))), WEIGHTS),
    'tensor inf': (_tensor(_filled(float('inf'))), WEIGHTS),
    'tensor of integers': (_tensor(lambda t: t.long()), WEIGHTS),
    'tensor complex': (_tensor(lambda t: t.cfloat()), WEIGHTS),
    'tensor sparse': (_tensor(lambda t: t.to_sparse()), WEIGHTS),
    'tensor a number': (_tensor(lambda t: 3.), WEIGHTS),
    'tensor text': (_tensor(lambda t: 'weights'), WEIGHTS),
    'tensor empty': (_tensor(lambda t: t[:0].clone()), WEIGHTS),
    'tensor half': (_tensor(lambda t: t.half()), ()),
    'tensor strided': (_tensor(lambda t: t.t().contiguous().t()), ()),
    'tensor more': (_set('state_dict', 'backbone.layers.1.attn.more', to=torch.ones(2)), WEIGHTS),
    'a block more': (_set('state_dict', 'backbone.layers.7.attn.qkv.weight', to=torch.ones(2, 2)),
                     WEIGHTS),
    'name a number': (_set('state_dict', 3, to=torch.ones(2)), ()),
    'no state': (_set('state_dict', drop=True), WEIGHTS),
    'state None': (_set('state_dict'), WEIGHTS),
    'state a list': (_set('state_dict', to=[1, 2]), WEIGHTS),
    'state empty': (_set('state_dict', to={}), WEIGHTS),
    'no optimizer': (_set('optimizer', drop=True), ('resume', )),
    'optimizer a number': (_set('optimizer', to=3), ('resume', )),
    'optimizer empty': (_set('optimizer', to={}), ('resume', )),
    'no moments': (_set('optimizer', 'state', to={}), ('resume', )),
    'moment of one': (_set('optimizer', 'state', 0, to=None), ('resume', )),
    'moment misshapen': (_set('optimizer', 'state', 0, 'exp_avg', to=torch.ones(3)), ('resume', )),
    'moment NaN': (_set('optimizer', 'state', 0, 'exp_avg_sq', to=torch.tensor(float('nan'))),
                   ('resume', )),
    'lr negative': (_set('optimizer', 'param_groups', 0, 'lr', to=-1.), ('resume', )),
    'lr text': (_set('optimizer', 'param_groups', 0, 'lr', to='fast'), ('resume', )),
    'no groups': (_set('optimizer', 'param_groups', to=[]), ('resume', )),
    'group names nobody': (_set('optimizer', 'param_groups', 0, 'params', to=[999]), ('resume', )),
    'no schedules': (_set('param_schedulers', drop=True), ('resume', )),
    'schedules a number': (_set('param_schedulers', to=3), ('resume', )),
    'no meta': (_set('meta', drop=True), ('resume', )),
    'meta a list': (_set('meta', to=[]), ('resume', )),
    'iter negative': (_set('meta', 'iter', to=-3), ('resume', )),
    'iter text': (_set('meta', 'iter', to='x'), ('resume', )),
    'epoch a tensor': (_set('meta', 'epoch', to=torch.ones(2)), ('resume', )),
    'config gone': (_set('meta', 'cfg', drop=True), ()),
    'config nonsense': (_set('meta', 'cfg', to='model = ('), ()),
    'config a number': (_set('meta', 'cfg', to=3), ()),
    'no message_hub': (_set('message_hub', drop=True), ('resume', )),
    'message_hub a list': (_set('message_hub', to=[3]), ('resume', )),
}


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 4, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_ends(data: bytes, rng: random.Random) -> bytes:
    """Where the directory of an archive and the header of a safetensors are."""
    near = min(600, len(data))
    at = rng.choice([rng.randrange(near), len(data) - 1 - rng.randrange(near)])
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1:]


BYTES: dict[str, Callable] = {
    'bits flipped': _flip, 'bits flipped at an end': _flip_ends,
    'cut': lambda data, rng: data[:rng.randrange(len(data))],
    'more behind': lambda data, rng: data + rng.randbytes(rng.choice([1, 100])),
    'zeros': lambda data, rng: (lambda at: data[:at] + bytes(min(512, len(data) - at))
                                + data[at + 512:])(rng.randrange(len(data))),
    'swapped': lambda data, rng: (lambda at: data[at:] + data[:at])(rng.randrange(len(data))),
}


def edit_member(source: Path, out: Path, rng: random.Random) -> None:
    """A member of the archive removed, doubled, renamed, cut, or swapped for another, checksums
    right."""
    with zipfile.ZipFile(source) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at, other = rng.randrange(len(members)), rng.randrange(len(members))
    name, data = members[at]
    how = rng.randrange(5)
    members[at:at + 1] = [[], [(name, data), (name, data)], [(f'../{name}', data)],
                          [(name, data[:len(data) // 2])], [(name, members[other][1])]][how]
    with zipfile.ZipFile(out, 'w') as archive:
        for name, data in members:
            archive.writestr(name, data)


def edit_header(source: Path, out: Path, rng: random.Random) -> None:
    """The header of a safetensors with another type, shape or place of a tensor."""
    data = source.read_bytes()
    size = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8:8 + size])
    name = rng.choice([name for name in header if name != '__metadata__'])
    entry = header[name]
    key, value = rng.choice([
        ('dtype', 'I32'), ('dtype', 'X9'), ('dtype', 'F64'), ('shape', [1, *entry['shape'], 1]),
        ('shape', [-1]), ('shape', [2**62, 2**62]), ('data_offsets', [0, 1]), ('shape', 'x'),
        ('data_offsets', [len(data), len(data) + 4]), ('data_offsets', [5, 2])])
    entry[key] = value
    text = json.dumps(header).encode()
    out.write_bytes(struct.pack('<Q', rng.choice([len(text), len(text), 2**60])) + text
                    + data[8 + size:])


class Checkpoints:
    """A run and its files, and what is done with spoilt ones."""

    def __init__(self, folder: Path) -> None:
        self.ground = Ground(folder)
        self.ground.address = str  # no route goes by it
        self.content = torch.load(self.ground.run, weights_only=False)
        self.model = load_pretraining(self.ground.run)
        # One file of each kind: archive, pickle of old, safetensors.
        self.seeds = {'zip': self.ground.run, 'legacy': folder / 'legacy.pth',
                      'safetensors': folder / 'bare.safetensors',
                      'teacher': self.ground.teacher / 'open_clip_model.safetensors'}
        torch.save(self.content, self.seeds['legacy'], _use_new_zipfile_serialization=False)
        save_file({key: value.contiguous() for key, value in
                   self.content['state_dict'].items()}, self.seeds['safetensors'])
        self.good = {kind: _tensors(path) for kind, path in self.seeds.items()}

    def spoil(self, number: int, rng: random.Random) -> tuple[str, str, Path]:
        """A file; which kind of, and what was done to it."""
        out = self.ground.folder / 'spoilt'
        out.mkdir(exist_ok=True)
        if number % 2:
            name = list(EDITS)[number // 2 % len(EDITS)]
            content = torch.load(self.ground.run, weights_only=False)
            EDITS[name][0](content)
            torch.save(content, out / 'epoch_1.pth')
            return 'zip', name, out / 'epoch_1.pth'
        kind = rng.choice(list(self.seeds))
        path = out / f'epoch_1{self.seeds[kind].suffix}'
        name = rng.choice([*BYTES, *BYTES, 'member'])
        if name != 'member':
            path.write_bytes(BYTES[name](self.seeds[kind].read_bytes(), rng))
        elif path.suffix == '.safetensors':
            edit_header(self.seeds[kind], path, rng)
        else:
            edit_member(self.ground.run, path, rng)
        return kind, name, path

    def take(self, route: str, path: Path) -> tuple[str, str]:
        """What becomes of a file: success, error or fault, and words."""
        def load() -> tuple[str, str] | None:
            if route == 'init-from':
                load_pretrained(self.model, path)
            elif route == 'teacher':
                load_clip_tower(None, str(path), quickgelu=True)
            else:
                way = dict(resume='train --resume').get(route, route)
                code, words = self.ground.call(ROUTES[way].words(self.ground, path))
                if code == 2 and len(words.splitlines()) == 1:
                    return 'error', words
                return ('success' if code == 0 else 'fault'), f'{code}: {words}'
            return None
        return judged(load, 60)

    def silent(self, route: str, kind: str, name: str, path: Path) -> str | None:
        """Why a success should have been none; 'unknowable' where no checksum could tell."""
        if name in EDITS:
            return f'{name} passed' if route in EDITS[name][1] else None
        state = _tensors(path)
        good = self.good[kind]
        same = state.keys() == good.keys() and all(
            torch.equal(state[key], value) for key, value in good.items())
        if same or kind in ('safetensors', 'teacher', 'legacy') or name == 'member':
            return None if same else 'unknowable'
        return 'altered weights were used'


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == '.safetensors' else state_of(read_checkpoint(path))


def fuzz(folder: Path, count: int, seed: int = 0, only: tuple[str, ...] = ('', ),
         tell: Callable[[str], None] = lambda line: None) -> collections.Counter:
    """Counts of success, error, unknowable and fault."""
    there = Checkpoints(folder)
    rng = random.Random(seed)
    known = set(folder.iterdir())
    found: collections.Counter = collections.Counter()
    for number in range(count):
        kind, name, path = there.spoil(number, rng)
        routes = ['teacher'] if kind == 'teacher' else ['init-from', 'convert', 'eval', *(
            ['resume'] if path.suffix == '.pth' else [])]
        must = [route for route in EDITS.get(name, ((), ()))[1] if route in routes]
        route = rng.choice(must or routes)
        if not any(word in f'{route} {kind} {name}' for word in only):
            continue
        outcome, words = there.take(route, path)
        if outcome == 'success' and (why := there.silent(route, kind, name, path)):
            outcome, words = ('unknowable' if why == 'unknowable' else 'fault'), why
        found[outcome] += 1
        tell(f'{outcome:11}{number:4} {route:10}{kind:12}{name:24}{words[-1500:]}')
    strange = {path.name for path in set(folder.iterdir()) - known
               if not re.fullmatch(r'spoilt|work_\d+(\.pth)?', path.name)}
    if strange:
        found['fault'] += 1
        tell(f'files at strange places: {strange}')
    return found


def walk() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=500)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='+', default=[''], help='only those with such a word')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, at_most_a_minute():
        os.chdir(name)
        found = fuzz(Path(name), args.count, args.seed, tuple(args.only),
                     lambda line: print(line, flush=True))
    print(f'{sum(found.values())} files: {dict(found)}')
    return bool(found['fault'])


if __name__ == '__main__':
    logging.disable(logging.WARNING)
    sys.exit(walk())
