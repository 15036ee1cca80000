# SPDX-License-Identifier: Apache-2.0
"""``milan train`` with options and configs that people get wrong, one step each.

    python tests/faults/fuzz_configs.py [--only WORD ...]

Each ends in success, or in one line with exit code 2. A traceback, another exit code, a file
outside the work folder, more than a minute, or a success where a refusal is due, is a fault.
``tests/test_broken_configs.py`` takes a part of them.
"""
import argparse
import collections
import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT, TINY_VIT  # noqa: E402
from faults.foreign_files import make_images  # noqa: E402
from faults.judging import at_most_a_minute  # noqa: E402

from milan_mm.cli.main import main  # noqa: E402

# What is meant to work.
GOOD_OPTIONS = [
    'randomness.seed=3', 'randomness.deterministic=False', 'model.backbone.drop_path_rate=.1',
    'model.neck.decoder_depth=2', 'default_hooks.features.interval=5', 'resume=True',
    'default_hooks.checkpoint.by_epoch=False', 'default_hooks.logger.interval=1',
    'train_dataloader.drop_last=True', 'train_dataloader.pin_memory=False',
    'optim_wrapper.accumulative_counts=2', 'optim_wrapper.optimizer.eps=1e-6',
    'optim_wrapper.clip_grad.norm_type=1', 'custom_hooks.0.type=EMAHook', 'log_level=WARNING',
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=.5', 'experiment_name=mine',
    'model.backbone.layer_cfgs.act_cfg.type=mmpretrain.QuickGELU', '+new.key=1', '+remark=mine',
    'visualizer.vis_backends.0.save_dir=None', 'log_processor.num_digits=3', 'custom_hooks=[]',
    'default_hooks.checkpoint.priority=LOW', 'default_hooks.checkpoint.save_optimizer=False',
    'auto_scale_lr.enable=True', 'env_cfg.mp_cfg.mp_start_method=fork']
# What names nothing.
NO_SUCH_OPTIONS = [
    'a.b.c.d=1', 'optim_wrapper.optimzer.lr=1', 'lr=1', 'batch_size=4', 'max_epoch=3',
    'model.backbon.drop_path_rate=.1', 'model.backbone.drop_path_rat=.1', 'rezume=True',
    'model.backbone.arch.num_layer=1', 'default_hooks.chekpoint.interval=3', 'randomness.sed=3',
    'default_hooks.checkpoint.intervall=3', 'train_dataloader.bach_size=3', 'env_cfg.cudnn=True',
    'train_dataloader.dataset.pipeline.9.size=3', 'train_dataloader.dataset.pipeline.1.sise=3',
    'param_scheduler.0.startfactor=.1', 'param_scheduler.7.begin=0', 'train_cfg.epochs=3',
    'optim_wrapper.optimizer.betas.0.x=1', 'custom_hooks.4.interval=1', 'load_form=x',
    'log_processor.window=3', 'model.neck.decoder_dept=1', 'auto_scale_lr.base_batch=3',
    'data_preproccessor.mean=3', 'model.headd=3', 'workdir=x', 'train_dataloader.shuffle=True',
    'optim_wrapper.clip_gradd.max_norm=1']
# What stands at the right place and is nonsense.
NONSENSE = [
    'randomness.seed=abc', 'randomness.seed=-1', 'randomness.seed=1.5', 'randomness=3', 'env_cfg=3',
    'env_cfg.dist_cfg=3', 'env_cfg.mp_cfg.mp_start_method=teleport', 'custom_hooks=5',
    'custom_hooks=abc', 'custom_hooks.0.type=NoSuchHook', 'default_hooks=7', 'resume=maybe',
    'default_hooks.checkpoint.type=NoHook', 'default_hooks.checkpoint.interval=often',
    'default_scope=nope', 'default_scope=3', 'model=5', 'model=None', 'model.type=MILLAN',
    'model.type=milan_mm.MILLAN', 'model.type=nobody.MILAN', 'model.backbone=5',
    'model.backbone.type=NoNet', 'model.backbone.arch=vit-x', 'model.backbone.arch=3',
    'model.backbone.arch.num_heads=7', 'model.backbone.arch.num_layers=-1',
    'model.backbone.img_size=50', 'model.backbone.img_size=abc', 'model.backbone.patch_size=0',
    'model.neck=None', 'model.head.tokens=some', 'model.neck.decoder_num_heads=5',
    'model.mask_generator.mask_ratio=7', 'model.mask_generator.mask_ratio=abc',
    'model.target_generator=None',
    'train_dataloader=None', 'train_dataloader=3', 'train_dataloader.batch_size=-1',
    'train_dataloader.batch_size=0', 'train_dataloader.batch_size=x',
    'train_dataloader.batch_size=2.5', 'train_dataloader.num_workers=-1',
    'train_dataloader.num_workers=many', 'train_dataloader.dataset=None',
    'train_dataloader.dataset.type=NoData', 'train_dataloader.dataset.pipeline=3',
    'train_dataloader.dataset.pipeline.0.type=NoStep', 'train_dataloader.dataset.pipeline=None',
    'train_dataloader.sampler.type=NoSampler', 'train_dataloader.sampler=3',
    'train_dataloader.collate_fn.type=no_collate', 'train_cfg=3', 'train_cfg.max_epochs=abc',
    'train_cfg.max_epochs=0', 'train_cfg.type=NoLoop', 'train_cfg=None', 'optim_wrapper=None',
    'optim_wrapper=3', 'optim_wrapper.type=NoWrapper', 'optim_wrapper.optimizer=3',
    'optim_wrapper.optimizer.type=AdamV', 'optim_wrapper.optimizer.lr=fast',
    'optim_wrapper.optimizer.lr=None', 'optim_wrapper.optimizer.betas=2',
    'optim_wrapper.accumulative_counts=0', 'optim_wrapper.constructor=NoConstructor',
    'optim_wrapper.paramwise_cfg=3', 'param_scheduler=3', 'param_scheduler.0.type=NoSchedule',
    'param_scheduler.0.end=abc', 'log_level=LOUD', 'log_processor=3', 'visualizer=3',
    'visualizer.type=NoVisualizer', 'visualizer.vis_backends.0.type=NoBackend', 'load_from=3',
    'load_from=/no/such.pth', 'auto_scale_lr=3', 'auto_scale_lr.base_batch_size=x',
    'work_dir=3', 'data_preprocessor=3', 'data_preprocessor.mean=3', 'val_cfg.type=ValLoop',
    'model_wrapper_cfg=3', 'val_dataloader.batch_size=3', 'custom_imports.imports=3',
    'optim_wrapper.clip_grad=3', 'optim_wrapper.clip_grad.max_norm=x', 'model.neck.type=NoNeck',
    'model.head.type=NoHead', 'model.head.loss.type=NoLoss', 'param_scheduler.0.begin=x',
    'optim_wrapper.optimizer.weight_decay=much', 'default_hooks.logger.interval=0',
    'train_dataloader.sampler.shuffle=maybe', 'model.backbone.drop_path_rate=2']

BASE = """
_base_ = {config!r}
model = dict(backbone=dict(img_size=32, arch={arch}),
             neck=dict(decoder_embed_dim=32, decoder_depth=1))
train_dataloader = dict(batch_size=24, num_workers=0, persistent_workers=False, dataset=dict(
    data_root={images!r}, pipeline=[
        dict(type='milan_mm.LoadPILImage'),
        dict(type='milan_mm.RandomResizedCropAndFlip', size=32),
        dict(type='milan_mm.PackImageInputs')]))
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='LinearLR', start_factor=.1, begin=0, end=1)]
custom_hooks = [dict(type='milan_mm.DescribeEncoderHook')]
"""
# Of the others these are odd, and train.
HARMLESS = ['no sampler', 'numbers as text']
STAND = "_base_ = '{base}'\n"
# Configs that are broken; {base} is one that works.
CONFIGS = {
    'empty': '', 'comment': '# nothing yet\n', 'syntax': 'model = dict(type=\n',
    'unfinished text': "work_dir = 'abc\n", 'exit': STAND + 'import sys\nsys.exit(0)\n',
    'quit': 'raise SystemExit(0)\n', 'raises': STAND + "raise RuntimeError('no')\n",
    'no base': "_base_ = './not_there.py'\n", 'own base': "_base_ = './broken.py'\n",
    'base of no package': "_base_ = 'nobody::x.py'\n", 'base is a number': '_base_ = 3\n',
    'base is a folder': "_base_ = './'\n", 'two bases': "_base_ = ['{base}', '{base}']\n",
    'unknown name': STAND + 'model = dict(type=MILAN)\n',
    'no package': STAND + 'import no_package\n',
    'no import': STAND + "custom_imports = dict(imports=['no_package'])\n",
    'imports a number': STAND + 'custom_imports = dict(imports=3)\n',
    'no model': "train_dataloader = dict(batch_size=2)\n",
    'model deleted': STAND + 'model = dict(_delete_=True)\n', 'model is text': "model = 'MILAN'\n",
    'no type': STAND + 'model = dict(_delete_=True, backbone=dict())\n',
    'no optimizer': STAND + "optim_wrapper = dict(_delete_=True, type='OptimWrapper')\n",
    'optimizer without lr': STAND + "optim_wrapper = dict(optimizer=dict(_delete_=True, "
                                    "type='AdamW'))\n",
    'no length': STAND + "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop')\n",
    'no length and no type': STAND + 'train_cfg = dict(_delete_=True, by_epoch=True)\n',
    'no data': STAND + 'train_dataloader = dict(_delete_=True, batch_size=2)\n',
    'no sampler': STAND + 'train_dataloader = dict(sampler=None)\n',
    'no pipeline': STAND + 'train_dataloader = dict(dataset=dict(pipeline=[]))\n',
    'pipeline of numbers': STAND + 'train_dataloader = dict(dataset=dict(pipeline=[1, 2]))\n',
    'wrong argument': STAND + 'model = dict(neck=dict(decoder_dept=2))\n',
    'wrong argument of a hook': STAND + 'default_hooks = dict(logger=dict(intervall=2))\n',
    'wrong argument of a saving': STAND + 'default_hooks = dict(checkpoint=dict(intervall=2))\n',
    'wrong argument of data': STAND + 'train_dataloader = dict(dataset=dict(data_rot=2))\n',
    'wrong argument of the loader': STAND + 'train_dataloader = dict(worker=2)\n',
    'hooks without type': STAND + 'custom_hooks = [dict(interval=3)]\n',
    'hooks as a table': STAND + "custom_hooks = dict(type='EMAHook')\n",
    'hook twice': STAND + "custom_hooks = [dict(type='LoggerHook', priority='SOMETIMES')]\n",
    'validation without metric': STAND + "val_cfg = dict()\nval_dataloader = dict(batch_size=2)\n",
    'metric of no kind': STAND + "val_cfg = dict()\nval_dataloader = _base_.train_dataloader\n"
                                 "val_evaluator = dict(type='NoMetric')\n",
    'class in place of a type': STAND + 'model = dict(type=int)\n',
    'a function': STAND + 'model = dict(neck=dict(type=lambda: None))\n',
    'not UTF-8': b"work_dir = '\xff\xfe'\n", 'zeros': b'\0' * 100, 'reserved': 'filename = 3\n',
    'a loop of dicts': STAND + 'model = dict()\nmodel["neck"] = model\n',
    'runner of no kind': STAND + "runner_type = 'NoRunner'\n",
    'test as a list': STAND + 'test_dataloader = [1]\n',
    'numbers as text': STAND + "optim_wrapper = dict(optimizer=dict(lr='1e-3'))\n",
}


class Outcome(NamedTuple):
    kind: str  # success, one line, traceback, exit code, hang
    words: str


class Ground:
    """A folder with images and a config that works."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.images = make_images(folder / 'data/train')
        self.base = folder / 'base.py'
        self.base.write_text(BASE.format(
            config=str(ROOT / 'configs/quickstart/mae.py'), arch=TINY_VIT, images=str(self.images)))

    def run(self, config: Path, *options: str) -> Outcome:
        """One step of a training in this process."""
        self.count += 1
        said = io.StringIO()
        words = ['train', config, '--work-dir', self.folder / f'run_{self.count}',
                 *(['--cfg-options', *options] if options else [])]
        signal.alarm(60)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = main(words)
        except TimeoutError:
            return Outcome('hang', '')
        except SystemExit as error:
            return Outcome('exit code', str(error.code))
        except BaseException:
            return Outcome('traceback', traceback.format_exc())
        finally:
            signal.alarm(0)
        errors = [line for line in said.getvalue().splitlines() if line.startswith('error: ')]
        if code == 0:
            return Outcome('success', '')
        after = said.getvalue().partition('error: ')[2].strip().splitlines()
        fine = code == 2 and len(errors) == 1 and len(after) == 1 and len(after[0]) < 1000
        return Outcome('one line' if fine else 'exit code', f'{code}: {"|".join(after)}')

    def run_config(self, name: str) -> Outcome:
        """The config of that name of the table."""
        path = self.folder / 'broken.py'
        text = CONFIGS[name]
        path.write_bytes(text if isinstance(text, bytes) else
                         text.replace('{base}', str(self.base)).encode())
        return self.run(path)


def walk() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', default=[''], help='only those with such a word')
    words = parser.parse_args().only
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    faults = 0
    with tempfile.TemporaryDirectory() as name, at_most_a_minute():
        os.chdir(name)
        ground = Ground(Path(name))
        cases = [(group, option) for group, options in dict(
            good=GOOD_OPTIONS, none=NO_SUCH_OPTIONS, nonsense=NONSENSE, config=CONFIGS).items()
            for option in options if any(word in option for word in words)]
        for group, case in cases:
            outcome = (ground.run_config(case) if group == 'config' else
                       ground.run(ground.base, case))
            counts[group][outcome.kind] += 1
            fault = outcome.kind != ('success' if group == 'good' else 'one line') and not (
                outcome.kind == 'success' and case in HARMLESS)
            faults += fault
            print(f'{"FAULT" if fault else "ok":6}{group:9}{case:46}{outcome.kind:11}'
                  f'{outcome.words[-1500:]}', flush=True)
        strange = {path.name for path in Path(name).iterdir()} - {
            'data', 'base.py', 'broken.py', *(f'run_{i}' for i in range(ground.count + 1))}
    for group, found in counts.items():
        print(f'{group:9}', dict(found))
    print(f'{len(cases)} cases, {faults} faults, files at strange places: {strange or "none"}')
    return bool(faults or strange)


if __name__ == '__main__':
    logging.disable(logging.WARNING)
    sys.exit(walk())
