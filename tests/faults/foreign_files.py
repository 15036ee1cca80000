# SPDX-License-Identifier: Apache-2.0
"""Every command and config key that takes a checkpoint, given every kind of poisoned file.

    python tests/faults/foreign_files.py [--routes WORD ...] [--poisons WORD ...]

Each poison would make a file if anything in it were run. For each pair it is said what became of
it, and it is a fault if the file is there, or if the command ends in anything but success or one
line with exit code 2. ``tests/test_foreign_files.py`` takes a part of the pairs.
"""
import argparse
import contextlib
import functools
import http.server
import io
import json
import os
import pickle
import re
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT, TINY_VIT  # noqa: E402

from milan_mm.cli.main import main  # noqa: E402

CLASSES = ['group 0', 'group 1', 'group 2']
SMALL = [
    'model.backbone.img_size=32', 'train_dataloader.num_workers=0',
    'train_dataloader.batch_size=12', 'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.pipeline.1.size=32',
    *(f'model.backbone.arch.{k}={v}' for k, v in TINY_VIT.items()),
    'model.neck.decoder_embed_dim=32', 'model.neck.decoder_depth=1']


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path, by: str = 'open') -> None:
        self.mark, self.by = str(mark), by

    def __reduce__(self) -> tuple:
        if self.by == 'eval':
            return eval, (f'open({self.mark!r}, "w")', )
        if self.by == 'system':
            return os.system, (f'touch {self.mark}', )
        return open, (self.mark, 'w')


class Ground:
    """A folder with a run, a classifier, a teacher, images, and a server of its files.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = make_images(folder / 'data/train')
        self.teacher = make_teacher(folder / 'teacher')
        self.mark, self.count = folder / 'was_run', 0
        self.run = folder / 'run/epoch_1.pth'
        code, words = self.call(self.train('milan', options=[
            f'model.target_generator.pretrained={self.teacher}',
            'default_hooks.checkpoint.interval=1']), self.run.parent)
        assert code == 0, words
        self.classifier = folder / 'classifier.py'
        self.write_classifier()

    def write_classifier(self) -> None:
        from mmengine.config import Config
        from test_predict import CLASSIFIER

        from milan_mm.inference.tasks import build_model
        cfg = Config(dict(
            CLASSIFIER, test_cfg={}, test_evaluator=dict(type='mmpretrain.Accuracy'),
            custom_imports=dict(imports=['milan_mm'], allow_failed_imports=False)))
        cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 3
        cfg.test_dataloader.dataset.update(data_root=str(self.images), with_label=True)
        cfg.test_dataloader.update(batch_size=8, num_workers=0, persistent_workers=False,
                                   sampler=dict(type='DefaultSampler', shuffle=False))
        cfg.dump(self.classifier)
        model = build_model(cfg, CLASSES)
        meta = dict(dataset_meta=dict(classes=CLASSES))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), self.folder / 'classifier.pth')

    def train(self, config: str | Path, *more: Any, options: list[str] = ()) -> list[str]:
        """The words of a training; the work folder comes with :meth:`call`."""
        config = config if isinstance(config, Path) else ROOT / f'configs/quickstart/{config}.py'
        return [*map(str, ('train', config, '--data-root', self.images, '--epochs', 1, '--work-dir',
                           'WORK', *more)), '--cfg-options', *SMALL, *options]

    def labelled(self) -> list[str]:
        return ['--gallery', str(self.images), '--queries', str(self.images), '--workers', '0',
                '--knn']

    def labelled_train(self, config: Path) -> list[str]:
        return [str(self.images.parent) if word == str(self.images) else word
                for word in self.train(config) if not word.startswith('model.neck')]

    def config(self, text: str, base: str = 'mae') -> Path:
        """A config of the user's own that names a checkpoint."""
        self.count += 1
        path = self.folder / f'config_{self.count}.py'
        path.write_text(f"_base_ = '{ROOT}/configs/quickstart/{base}.py'\n{text}\n")
        return path

    def call(self, words: list[str], work: Path | None = None) -> tuple[int | str, str]:
        """Runs a command in this process: its exit code, or the error it ends in, and its words."""
        self.count += 1
        work = work or self.folder / f'work_{self.count}'
        words = [str(word).replace('WORK', str(work)) for word in words]
        told = io.StringIO()
        try:
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
                code: int | str = main(words)
        except SystemExit as exit:
            code = exit.code or 0
        except BaseException as error:
            code = f'{type(error).__name__}: {error}'.splitlines()[0]
        errors = [line for line in told.getvalue().splitlines() if line.startswith('error: ')]
        return code, '\n'.join(errors) or told.getvalue()[-600:]


# What is poisoned. Each gets the ground, and the good checkpoint that the route would take.
def _with(part: str, by: str = 'open', **how: Any) -> Callable:
    def write(ground: Ground, good: Path, out: Path) -> None:
        content = torch.load(good, weights_only=True)
        content[part] = Runs(ground.mark, by)
        torch.save(content, out, **how)

    return write


def _among_weights(ground: Ground, good: Path, out: Path) -> None:
    content = torch.load(good, weights_only=True)
    content['state_dict']['backbone.cls_token'] = Runs(ground.mark, 'eval')
    torch.save(content, out)


def _plain_pickle(ground: Ground, good: Path, out: Path) -> None:
    out.write_bytes(pickle.dumps(dict(state_dict=Runs(ground.mark, 'system')), protocol=2))


def _torchscript(ground: Ground, good: Path, out: Path, entries: tuple = ('data.pkl', )) -> None:
    whole = out.with_name('script.pt')
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(whole))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(out, 'w') as target:
        for name in source.namelist():
            poisoned = name.endswith(entries)
            target.writestr(name, pickle.dumps(Runs(ground.mark), protocol=2) if poisoned
                            else source.read(name))


def _in_text(key: str) -> Callable:
    def write(ground: Ground, good: Path, out: Path) -> None:
        content = torch.load(good, weights_only=True)
        text = content['meta'].get(key) or content['meta'].get('cfg') or ''
        content['meta'][key] = f'{text}\ngpu_ids = open({str(ground.mark)!r}, "w")\n'
        torch.save(content, out)

    return write


PICKLES: dict[str, Callable] = {
    'object in the archive': _with('meta'),
    'object among the weights': _among_weights,
    'object in message_hub': _with('message_hub', 'eval'),
    'object in optimizer': _with('optimizer', 'system'),
    'legacy pickle': _with('meta', _use_new_zipfile_serialization=False),
    'plain pickle': _plain_pickle,
    'TorchScript': _torchscript,
    'TorchScript constants': functools.partial(_torchscript, entries=('data.pkl', 'constants.pkl')),
}
TEXTS = {'text in meta.config': _in_text('config'), 'text in meta.cfg': _in_text('cfg')}


def _hf_vit(ground: Ground, folder: Path) -> None:
    config = dict(model_type='vit', hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                  intermediate_size=96, image_size=32, patch_size=8, hidden_act='gelu',
                  auto_map=dict(AutoModel='modeling.Model'), trust_remote_code=True)
    (folder / 'config.json').write_text(json.dumps(config))
    (folder / 'modeling.py').write_text(f'open({str(ground.mark)!r}, "w")\n')
    _plain_pickle(ground, folder, folder / 'pytorch_model.bin')


def _hf_clip(ground: Ground, folder: Path) -> None:
    _hf_vit(ground, folder)
    (folder / 'config.json').write_text(json.dumps(dict(model_type='clip', vision_config={})))


def _open_clip(ground: Ground, folder: Path) -> None:
    shutil.copy(ground.teacher / 'open_clip_config.json', folder)
    torch.save(dict(state_dict=Runs(ground.mark)), folder / 'open_clip_pytorch_model.bin')


def _timm(ground: Ground, folder: Path) -> None:
    (folder / 'config.json').write_text(json.dumps(dict(architecture='vit_tiny_patch16_224')))
    torch.save(dict(a=Runs(ground.mark)), folder / 'pytorch_model.bin')


def _timm_path(ground: Ground, folder: Path) -> None:
    torch.save(dict(state_dict=Runs(ground.mark)), folder / 'other.pth')
    (folder / 'config.json').write_text(json.dumps(dict(
        architecture='vit_tiny_patch16_224',
        model_args=dict(checkpoint_path=str(folder / 'other.pth')))))
    shutil.copy(ground.teacher / 'open_clip_model.safetensors', folder / 'model.safetensors')


def _foreign_tower(ground: Ground, folder: Path) -> None:
    config = json.loads((ground.teacher / 'open_clip_config.json').read_text())
    _hf_vit(ground, folder)
    config['model_cfg']['text_cfg'].update(
        hf_model_name=str(folder), hf_tokenizer_name=str(folder),
        tokenizer_kwargs=dict(trust_remote_code=True))
    (folder / 'open_clip_config.json').write_text(json.dumps(config))
    torch.save(load_file(ground.teacher / 'open_clip_model.safetensors'),
               folder / 'open_clip_pytorch_model.bin')


FOLDERS = {'Hugging Face ViT folder': _hf_vit, 'Hugging Face CLIP folder': _hf_clip,
           'open_clip folder': _open_clip, 'timm folder': _timm,
           'timm folder naming a file': _timm_path, 'open_clip folder naming code': _foreign_tower}


class Route(NamedTuple):
    """A way for a checkpoint into a command.

    Attributes:
        words: from the ground and the poisoned file to the command's words.
        folder: whether a folder is taken too.
        classifier: whether the good checkpoint is the classifier's.
    """
    words: Callable[[Ground, Path], list]
    folder: bool = False
    classifier: bool = False


def _teacher(kind: str, key: str, more: str = '') -> Callable:
    return lambda g, f: g.train(g.config(
        f"model = dict(target_generator=dict(_delete_=True, type='milan_mm.{kind}', {key}="
        f'{str(f)!r}{more}))', 'milan'))


def _automatic(g: Ground, f: Path) -> list:
    g.count += 1
    work = g.folder / f'automatic_{g.count}'
    work.mkdir()
    shutil.copy(f, work / 'epoch_1.pth')
    (work / 'last_checkpoint').write_text(str(work / 'epoch_1.pth'))
    words = g.train('milan', '--resume', options=[f'model.target_generator.pretrained={g.teacher}'])
    return [str(work) if word == 'WORK' else word for word in words]


def _flexible(*options: str) -> Callable:
    def words(g: Ground, f: Path) -> list:
        path = g.config("runner_type = 'FlexibleRunner'\n"
                        "strategy = dict(type='SingleDeviceStrategy')", 'milan')
        return g.train(path, options=[f'model.target_generator.pretrained={g.teacher}',
                                      *(option.replace('FILE', str(f)) for option in options)])

    return words


def _backbone(init_cfg: str) -> Callable:
    return lambda g, f: g.train(g.config(
        f'model = dict(backbone=dict(init_cfg={init_cfg.format(f)}))'))


def _milan(*words: str) -> Callable:
    """A training of MILAN; FILE stands for the file, URL for its address."""
    def fill(g: Ground, f: Path) -> list:
        given = [w.replace('FILE', str(f)).replace('URL', g.address(f)) for w in words]
        more = [w for w in given if '=' not in w]
        return g.train('milan', *more, options=[
            f'model.target_generator.pretrained={g.teacher}', *(w for w in given if '=' in w)])

    return fill


def _pretrain(g: Ground, option: str, f: Path) -> list:
    teacher = f if option == '--teacher' else g.teacher
    more = () if option == '--teacher' else (option, f)
    return ['pretrain', g.images, '--teacher', teacher, '--work-dir', 'WORK', '--epochs', '1',
            *more, '--arch', 'vit-s', '--img-size', '32', '--batch-size', '8', '--workers', '0']


ROUTES = {
    'train --init-from': Route(_milan('--init-from', 'FILE'), folder=True),
    'pretrain --init-from': Route(lambda g, f: _pretrain(g, '--init-from', f), folder=True),
    'pretrain --teacher': Route(lambda g, f: _pretrain(g, '--teacher', f), folder=True),
    'pretrain --resume': Route(lambda g, f: _pretrain(g, '--resume', f)),
    'train --resume': Route(_milan('--resume', 'FILE')),
    'train --resume, trusted': Route(_milan('--resume', 'FILE', '--trust-checkpoint')),
    'train --resume by itself': Route(_automatic),
    'train --resume URL': Route(_milan('--resume', 'URL')),
    'load_from': Route(_milan('load_from=FILE')),
    'load_from URL': Route(_milan('load_from=URL')),
    'model.init_from': Route(_milan('model.init_from=FILE'), folder=True),
    'FlexibleRunner resume': Route(_flexible('load_from=FILE', 'resume=True')),
    'FlexibleRunner resume by name': Route(_flexible('resume=FILE')),
    'FlexibleRunner load_from': Route(_flexible('load_from=FILE')),
    'init_cfg Pretrained': Route(_backbone(
        "dict(type='Pretrained', checkpoint={0!r}, prefix='backbone.')".replace('{0!r}', '"{0}"'))),
    'init_cfg PretrainedViT': Route(lambda g, f: g.labelled_train(g.config(
        "model = dict(_delete_=True, type='mmpretrain.ImageClassifier', backbone=dict(type="
        f"'milan_mm.MaskedVisionTransformer', arch={TINY_VIT}, img_size=32, patch_size=8, "
        f"out_type='cls_token', init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint={str(f)!r}"
        ")), head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=48))",
        'finetune')), folder=True),
    'CLIPTargetGenerator': Route(_teacher('CLIPTargetGenerator', 'pretrained',
                                          ', quickgelu=True'), folder=True),
    'EncoderTargetGenerator': Route(_teacher('EncoderTargetGenerator', 'checkpoint'), folder=True),
    'TimmTargetGenerator': Route(_teacher(
        'TimmTargetGenerator', 'pretrained', ", model='vit_tiny_patch16_224'"), folder=True),
    'test': Route(lambda g, f: ['test', g.classifier, f, '--work-dir', 'WORK'], classifier=True),
    'predict': Route(lambda g, f: ['predict', g.classifier, f, g.images, '--out', 'WORK'],
                     classifier=True),
    'robustness': Route(lambda g, f: [
        'robustness', g.classifier, f, '--suite', 'corruptions', '--data', g.images, '--out',
        'WORK', '--corruptions', 'contrast', '--severities', '1', '--workers', '0'],
        classifier=True),
    'convert': Route(lambda g, f: ['convert', f, 'WORK.pth', '--to', 'timm'], folder=True),
    'extract': Route(lambda g, f: ['extract', f, '--data', g.images, '--out', 'WORK.npz',
                                   '--workers', '0'], folder=True),
    'eval': Route(lambda g, f: ['eval', f, *g.labelled()],
                  folder=True),
    'eval --teacher': Route(lambda g, f: [
        'eval', '--teacher', f, '--quickgelu', *g.labelled()], folder=True),
    'visualize': Route(lambda g, f: ['visualize', f, g.images, '--num-images', '1', '--out',
                                     'WORK', '--teacher', g.teacher]),
    'visualize --teacher': Route(lambda g, f: [
        'visualize', g.run, g.images, '--num-images', '1', '--out', 'WORK', '--teacher', f],
        folder=True),
    'diagnose': Route(lambda g, f: ['diagnose', f, '--data', g.images, '--num-images', '8',
                                    '--out', 'WORK', '--teacher', g.teacher]),
    'diagnose --teacher': Route(lambda g, f: [
        'diagnose', g.run, '--data', g.images, '--num-images', '8', '--out', 'WORK', '--teacher',
        f], folder=True),
    'zero-shot': Route(lambda g, f: ['zero-shot', f, '--data', g.images, '--teacher', g.teacher]),
    'zero-shot --teacher': Route(lambda g, f: ['zero-shot', g.run, '--data', g.images, '--teacher',
                                               f], folder=True),
    'zero-shot --text-tower': Route(lambda g, f: [
        'zero-shot', g.run, '--data', g.images, '--teacher', g.teacher, '--text-tower',
        f if f.is_dir() else f'ViT-B-32:{f}'], folder=True),
    'doctor --teacher': Route(lambda g, f: ['doctor', '--teacher', f, '--work-dir', 'WORK'],
                              folder=True),
}


class Outcome(NamedTuple):
    ran: bool
    code: int | str
    words: str
    pickle: bool

    @property
    def fault(self) -> str | None:
        if self.ran:
            return 'CODE WAS RUN'
        if self.code not in (0, 1, 2):
            return f'ended in {self.code}'
        if self.code == 2 and len(self.words.splitlines()) > 1:
            return 'more than one line'
        if self.pickle and not re.search('is refused|is not a readable|is whole', self.words):
            return 'the file was never read'
        return None


def attempt(ground: Ground, route: str, poison: str) -> Outcome | None:
    """What becomes of a poison on a route; None for one that the route does not take."""
    way = ROUTES[route]
    ground.count += 1
    place = ground.folder / f'poison_{ground.count}'
    place.mkdir()
    good = ground.folder / 'classifier.pth' if way.classifier else ground.run
    path = place / 'epoch_1.pth'
    if poison in FOLDERS:
        if not way.folder:
            return None
        FOLDERS[poison](ground, place)
        path = place
    else:
        if 'trusted' in route and poison in PICKLES:
            return None  # which then runs, as the user asked
        {**PICKLES, **TEXTS}[poison](ground, good, path)
    ground.mark.unlink(missing_ok=True)
    code, words = ground.call(way.words(ground, path))
    return Outcome(ground.mark.exists(), code, words, poison in PICKLES)


@contextlib.contextmanager
def served(ground: Ground):
    """Serves the ground's files on this machine; routes by address need it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Quiet, directory=str(ground.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = {key: os.environ.get(key) for key in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE',
                                                   'TORCH_HOME')}
    os.environ.update(HF_HUB_OFFLINE='0', TRANSFORMERS_OFFLINE='0',
                      TORCH_HOME=str(ground.folder / 'cache'))
    ground.address = lambda path: (f'http://127.0.0.1:{server.server_port}/'
                                   f'{path.relative_to(ground.folder)}')
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        server.shutdown()
        server.server_close()


def make_images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(24):
        path = folder / f'{CLASSES[i % 3]}/{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 70, 3), dtype=np.uint8)).save(path)
    for name in ('val', 'test'):
        folder.with_name(name).symlink_to(folder)
    return folder


def make_teacher(folder: Path) -> Path:
    import open_clip
    from conftest import TINY_CLIP
    from safetensors.torch import save_file
    folder.mkdir()
    config = {**TINY_CLIP, 'text_cfg': {**TINY_CLIP['text_cfg'], 'vocab_size': 49408}}
    save_file(open_clip.CLIP(**config).state_dict(), folder / 'open_clip_model.safetensors')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=config)))
    return folder


def walk() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--routes', nargs='+', default=[''], help='only those with such a word')
    parser.add_argument('--poisons', nargs='+', default=[''], help='only those with such a word')
    args = parser.parse_args()
    pairs = [(route, poison) for route in ROUTES for poison in (*PICKLES, *TEXTS, *FOLDERS)
             if any(word in route for word in args.routes)
             and any(word in poison for word in args.poisons)]
    faults, done = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ground = Ground(folder)
        with served(ground):
            for route, poison in pairs:
                outcome = attempt(ground, route, poison)
                if outcome is None:
                    continue
                done += 1
                print(f'{route:30} {poison:30} {outcome.fault or "ok":12} {outcome.code}  '
                      f'{outcome.words[-200:]}', flush=True)
                if outcome.fault:
                    faults.append((route, poison, outcome.fault))
    print(f'{done} pairs of {len(ROUTES)} routes and {len(PICKLES) + len(TEXTS) + len(FOLDERS)} '
          f'poisons: {sum("RUN" in f[2] for f in faults)} ran code, '
          f'{len(faults)} faults')
    return bool(faults)


if __name__ == '__main__':
    sys.exit(walk())
