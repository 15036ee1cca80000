# SPDX-License-Identifier: Apache-2.0
"""Small real things for the tests of what comes after training."""
import collections
import contextlib
import json
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from PIL import Image
from safetensors.torch import save_file

from milan_mm.models import MaskedVisionTransformer

ROOT = Path(__file__).resolve().parents[1]
ARCH = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64)
SIZE, PATCH = (16, 24), 8
MEAN, STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
COLOURS = dict(blue=(30, 40, 220), green=(40, 200, 50), red=(220, 40, 30))


def tiny_encoder(seed=0, img_size=SIZE):
    torch.manual_seed(seed)
    encoder = MaskedVisionTransformer(ARCH, img_size, PATCH)
    encoder.init_weights()
    encoder.eval()  # mmpretrain's backbones do not return themselves from it
    return encoder


def description(img_size=SIZE):
    return dict(encoder=dict(arch=dict(ARCH), img_size=img_size, patch_size=PATCH),
                pixel_mean=MEAN, pixel_std=STD)


def write_checkpoint(path, encoder=None, meta=True, more=()):
    """A training checkpoint, or an export if the path says safetensors."""
    encoder = encoder or tiny_encoder()
    state = {f'backbone.{k}': v for k, v in encoder.state_dict().items()}
    state.update({'neck.mask_token': torch.zeros(1, 1, 16), **dict(more)})
    described = description(tuple(encoder.img_size))
    if path.suffix == '.safetensors':
        save_file(state, path, dict(milan_mm=json.dumps(described)) if meta else None)
    else:
        torch.save(dict(state_dict=state, meta=dict(cfg='raise SystemExit(9)', **(
            dict(milan_mm=described) if meta else {}))), path)
    return path


def write_images(root, per_class=6, seed=0, classes=tuple(COLOURS), prefixes=('',), noise=40):
    """Noisy images of one colour a class; names ``<prefix><class>_<i>.png``."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for prefix in prefixes:
            for i in range(per_class):
                pixels = np.array(COLOURS[name]) + rng.normal(0, noise, (20, 30, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    root / name / f'{prefix}{name}_{i}.png')
    return root


@contextlib.contextmanager
def logged():
    """Collects what is logged: a list of messages."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


Ran = collections.namedtuple('Ran', 'returncode stdout stderr')


def point_loggers_at(stream):
    """What an earlier test's run made may write to that test's own stream, closed since."""
    for reference in logging._handlerList:
        handler = reference()
        if type(handler) is logging.StreamHandler:
            handler.stream = stream


def run_tool_here(capfd, name, *args):
    """Runs tools/<name>.py as a script in this process, which has imported everything already."""
    argv = sys.argv
    sys.argv = [f'{name}.py', *map(str, args)]
    point_loggers_at(sys.stdout)
    capfd.readouterr()
    try:
        runpy.run_path(str(ROOT / 'tools' / f'{name}.py'), run_name='__main__')
    except SystemExit as exit:
        return Ran(exit.code, *capfd.readouterr())
    finally:
        sys.argv = argv
        point_loggers_at(sys.__stdout__)
    raise AssertionError(f'tools/{name}.py ended without an exit code')


def run_tool(name, *args):
    """Runs tools/<name>.py as a user does."""
    env = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore', OMP_NUM_THREADS='1')
    return subprocess.run([sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, args)],
                          capture_output=True, text=True, env=env, timeout=300)
