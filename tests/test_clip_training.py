# SPDX-License-Identifier: Apache-2.0
"""The small CLIP, trained with either loss, is a folder of open_clip and a teacher."""
import math
import shutil

import open_clip
import pytest
import torch
from helpers_eval import run_tool_here
from PIL import Image

from milan_mm.errors import MilanError
from milan_mm.lab import clip_training
from milan_mm.models import CLIPTargetGenerator

SMALL = ('--steps', 3, '--batch-size', 16, '--width', 32, '--layers', 2, '--text-width', 32,
         '--text-layers', 1, '--embed-dim', 24, '--img-size', 32)


@pytest.mark.parametrize('loss', ['softmax', 'sigmoid'])
def test_a_trained_clip_is_a_teacher(loss, image_folder, tmp_path, capfd):
    done = run_tool_here(capfd, 'train_clip', '--data-root', image_folder, '--out',
                         tmp_path / 'clip', '--loss', loss, *SMALL)
    assert done.returncode == 0, done.stderr
    model = open_clip.create_model(f'local-dir:{tmp_path / "clip"}')
    assert (model.logit_bias is not None) == (loss == 'sigmoid')
    if loss == 'sigmoid':  # both are trained, from where SigLIP starts them
        assert abs(model.logit_scale.item() - math.log(10)) < .1 and -11 < model.logit_bias < -9
    teacher = CLIPTargetGenerator(pretrained=str(tmp_path / 'clip'))
    teacher.match_student((4, 4), None, None)
    images = torch.randn(2, 3, 32, 32)
    features = teacher(images).features
    assert features.shape == (2, 17, 24)
    torch.testing.assert_close(features[:, 0], model.eval().encode_image(images).detach())


def test_losses_differ_and_others_are_refused(image_folder, tmp_path, capfd):
    first = {}
    for loss in ('softmax', 'sigmoid'):
        done = run_tool_here(capfd, 'train_clip', '--data-root', image_folder, '--out',
                             tmp_path / loss, '--loss', loss, *SMALL)
        line = next(line for line in done.stdout.splitlines() if 'CLIP step 1/3' in line)
        first[loss] = float(line.split('loss ')[1].split()[0])
    # Softmax over 16 captions cannot be better than ln 16 before training; the sigmoid's loss is a
    # sum over an image's 16 pairs, of which the right one costs about 10, less 10 cos.
    assert math.log(16) < first['softmax'] < 7 and 7 < first['sigmoid'] < 13
    done = run_tool_here(capfd, 'train_clip', '--data-root', image_folder, '--out', tmp_path / 'x',
                         '--loss', 'hinge')
    assert done.returncode == 2 and "loss must be one of ('softmax', 'sigmoid')" in done.stderr


def test_an_image_that_breaks_later_is_left_out(image_folder, tmp_path, monkeypatch):
    """Read when needed; nothing black stands in its place."""
    shutil.copytree(image_folder, tmp_path / 'images')
    monkeypatch.setattr(clip_training, '_IN_MEMORY_BYTES', 0)
    pairs = clip_training.ImagePairs(tmp_path / 'images', 16, lambda line: None)
    pairs.paths[3].write_bytes(b'no image')
    pixels, kept = pairs.read([2, 3, 4])
    assert kept.tolist() == [2, 4] and pixels.shape == (2, 16, 16, 3) and pixels.max() > 0
    with pytest.raises(MilanError, match='none of the 1 images of a batch'):
        pairs.read([3])


def test_each_line_is_a_caption(tmp_path):
    (tmp_path / 'a').mkdir()
    for name in 'bc':
        Image.new('RGB', (8, 8)).save(tmp_path / f'a/{name}.png')
    (tmp_path / 'a/b.txt').write_text('a red  cat\n\nan animal\n')
    pairs = clip_training.ImagePairs(tmp_path, 8)
    assert pairs.captions == [['a red cat', 'an animal'], ['a c']]
    tokens = clip_training.CaptionTokens(pairs.captions, 8)
    drawn = tokens.draw([0] * 64 + [1] * 64, torch.arange(128))
    known = open_clip.SimpleTokenizer(context_length=8)(['a red cat', 'an animal', 'a c'])
    counts = [int((drawn == one).all(1).sum()) for one in known]
    assert 16 < counts[0] < 48 and counts[0] + counts[1] == 64 and counts[2] == 64


def test_bfloat16_learns_and_half_halves_the_bytes(image_folder, tmp_path, capfd):
    for name, options in (('plain', ()), ('small', ('--amp', '--half'))):
        done = run_tool_here(capfd, 'train_clip', '--data-root', image_folder, '--out',
                             tmp_path / name, *SMALL, *options)
        assert done.returncode == 0, done.stderr
    assert 'mixed precision: ' in done.stdout
    files = [tmp_path / name / 'open_clip_model.safetensors' for name in ('plain', 'small')]
    assert files[1].stat().st_size < .51 * files[0].stat().st_size
    whole, half = (open_clip.create_model(f'local-dir:{path.parent}') for path in files)
    for a, b in zip(whole.state_dict().values(), half.state_dict().values()):
        assert b.dtype == torch.float32 and (a - b).abs().max() < .02
