# SPDX-License-Identifier: Apache-2.0
"""Suites in miniature folders of their real layout, with answers known beforehand.

The classifier looks at the mean colour alone and gives each class the colour of its number, so an
image's colour says what will be answered.
"""
import csv
import io
import json
from importlib import resources

import cv2
import numpy as np
import pytest
import torch
from helpers_eval import run_tool_here
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from milan_mm.analysis.robustness import CORRUPTIONS, corrupt
from milan_mm.analysis.robustness.imagenet import (
    ALEXNET,
    ALEXNET_CLEAN,
    candidates,
    corruption_errors,
    imagenet_classes,
)
from milan_mm.analysis.robustness.noise_and_blur import disk, streaked
from milan_mm.analysis.robustness.weather import plasma
from milan_mm.datasets import LoadPILImage, ResizeAndCenterCrop
from milan_mm.errors import MilanError
from milan_mm.inference.tasks import build_model
from milan_mm.keyed_random import sample_key

SIDE = 16
WNIDS = imagenet_classes()


@MODELS.register_module(force=True)
class MeanColour(torch.nn.Module):
    """(B, 3, H, W) to (B, 3)."""

    def forward(self, x):
        return (x.mean(dim=(2, 3)), )


def colour_of(number):
    return np.array([number // 100, number // 10 % 10, number % 10]) * 28


LOADERS = dict(
    image=[dict(type='milan_mm.LoadPILImage'),
           dict(type='milan_mm.ResizeAndCenterCrop', size=SIDE, crop_ratio=1),
           dict(type='milan_mm.PackImageInputs')],
    array=[dict(type='mmpretrain.LoadImageFromFile'),
           dict(type='mmpretrain.CenterCrop', crop_size=SIDE), dict(type='mmpretrain.PackInputs')])


def write_classifier(folder, classes=(), outputs=None, loader='image'):
    """A config and a checkpoint; gives their paths."""
    outputs = outputs or len(classes) or 1000
    cfg = Config(dict(
        default_scope='mmpretrain',
        model=dict(type='mmpretrain.ImageClassifier', backbone=dict(type='MeanColour'),
                   head=dict(type='mmpretrain.LinearClsHead', num_classes=outputs, in_channels=3)),
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=outputs,
                               mean=[0] * 3, std=[255] * 3, to_rgb=loader == 'array'),
        test_dataloader=dict(dataset=dict(type='milan_mm.ImageFolder', data_root='.',
                                          pipeline=LOADERS[loader]))))
    model = build_model(cfg, classes)
    colours = torch.tensor(np.array([colour_of(k) for k in range(outputs)]) / 255).float()
    model.head.fc.weight.data = 2 * colours  # the nearest colour has the largest logit
    model.head.fc.bias.data = -colours.square().sum(dim=1)
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(
        dataset_meta=dict(classes=list(classes)))), folder / 'epoch_1.pth')
    return folder / 'config.py', folder / 'epoch_1.pth'


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp('imagenet'))


def put(root, folder, answers):
    """Images in ``root/<folder>``, to be answered with these numbers."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for i, number in enumerate(answers):
        image = Image.fromarray(np.full((20, 24, 3), colour_of(number), dtype=np.uint8))
        image.save(root / folder / f'{i}.png')


def run(capfd, tmp_path, classifier, suite, data, *more):
    out = tmp_path / 'out'
    done = run_tool_here(capfd, 'test_robustness', *classifier, '--suite', suite, '--data', data,
                         '--workers', 0, '--device', 'cpu', '--out', out, *more)
    assert done.returncode == 0, done.stderr
    return json.loads((out / 'results.json').read_text()), done.stdout


@pytest.mark.parametrize('suite, some, not_in', [
    # stingray, junco; tench, goldfish: ImageNet-A's list begins after both
    ('imagenet-a', {6: 'n01498041', 13: 'n01534433'}, (0, 1)),
    # goldfish, white shark; tench, tiger shark
    ('imagenet-r', {1: 'n01443537', 2: 'n01484850'}, (0, 3)),
])
def test_class_lists(suite, some, not_in):
    names = imagenet_classes(suite)
    assert len(names) == len(set(names)) == 200 and len(WNIDS) == 1000
    assert list(WNIDS) == sorted(WNIDS) and set(names) < set(WNIDS)
    assert all(WNIDS[i] == name and name in names for i, name in some.items())
    assert not any(WNIDS[i] in names for i in not_in)
    listed = resources.files('timm.data').joinpath(
        '_info', f'imagenet_{suite[-1]}_indices.txt').read_text().split()
    assert [WNIDS[int(i)] for i in listed] == list(names)
    known, _ = candidates(suite, (), 1000)
    assert list(known.values()) == [int(i) for i in listed]


def test_imagenet_a(imagenet, tmp_path, capfd):
    """200 classes to choose from: number 0 is not among them, its nearest there is 11."""
    data = tmp_path / 'data' / 'imagenet-a'  # as the archive has it, a folder and a read-me
    put(data, WNIDS[6], [6, 13])
    put(data, WNIDS[11], [0])
    (data / 'README.txt').write_text('ImageNet-A')
    put(tmp_path / 'val', WNIDS[6], [6, 6, 6])
    put(tmp_path / 'val', WNIDS[11], [15])
    put(tmp_path / 'val', WNIDS[0], [0, 0])  # not of the suite, so not counted
    result, said = run(capfd, tmp_path, imagenet, 'imagenet-a', tmp_path / 'data', '--clean',
                       tmp_path / 'val')
    model = result['models']['epoch_1']
    assert model['top1'] == pytest.approx(200 / 3)
    assert model['clean'] == pytest.approx(75) and model['kept'] == pytest.approx(800 / 9)
    assert result['choices'] == 200 and result['chance'] == pytest.approx(200 / 3)
    assert result['images'] == {'clean': 4, 'imagenet-a': 3}
    assert '200 classes to choose from' in said
    assert 'always the commonest is right for 66.7 %' in said and said.count('66.7') == 2


@pytest.mark.parametrize('suite, expected', [('imagenet-r', 75.), ('imagenet-sketch', 50.)])
def test_imagenet_r_and_sketch(imagenet, tmp_path, capfd, suite, expected):
    """Number 14 is a class of Sketch, and there wrong; R has none of it, and 13 is nearest."""
    put(tmp_path / 'data', WNIDS[1], [1, 8])
    put(tmp_path / 'data', WNIDS[13], [14])
    put(tmp_path / 'data', WNIDS[4], [4])
    result, _ = run(capfd, tmp_path, imagenet, suite, tmp_path / 'data')
    assert result['models']['epoch_1']['top1'] == pytest.approx(expected)
    assert result['choices'] == (200 if suite == 'imagenet-r' else 1000)


GROUP = dict(zip(CORRUPTIONS, ['noise'] * 3 + ['blur'] * 4 + ['weather'] * 4 + ['digital'] * 4))


def write_imagenet_c(root, names=CORRUPTIONS, grouped=True):
    """The n-th corruption: two of two right up to severity n % 5, then one of two."""
    for n, name in enumerate(CORRUPTIONS):
        if name in names:
            for severity in range(1, 6):
                folder = root / (GROUP[name] if grouped else '') / name / str(severity)
                put(folder, WNIDS[123], [123])
                put(folder, WNIDS[456], [456 if severity <= n % 5 else 500])
    return root


def test_imagenet_c(imagenet, tmp_path, capfd):
    put(tmp_path / 'val', WNIDS[123], [123, 123, 123])
    put(tmp_path / 'val', WNIDS[456], [7])
    result, said = run(capfd, tmp_path, imagenet, 'imagenet-c',
                       write_imagenet_c(tmp_path / 'c'), '--clean', tmp_path / 'val')
    model = result['models']['epoch_1']
    error = {name: 50 * (5 - n % 5) / 5 for n, name in enumerate(CORRUPTIONS)}
    ce = {name: 100 * error[name] / ALEXNET[name] for name in CORRUPTIONS}
    assert error['gaussian_noise'] == 50 and ce['gaussian_noise'] == pytest.approx(56.406, abs=.01)
    assert model['ce'] == pytest.approx(ce)
    assert model['mce'] == pytest.approx(sum(ce.values()) / 15)
    assert model['accuracy']['shot_noise'] == [100, 50, 50, 50, 50]
    assert model['mean'] == pytest.approx(100 - sum(error.values()) / 15) == pytest.approx(70)
    assert model['by_severity'] == pytest.approx([90, 80, 70, 60, 50])
    relative = {name: 100 * (error[name] - 25) / (ALEXNET[name] - 43.5) for name in CORRUPTIONS}
    assert model['clean'] == 75 and model['relative_ce'] == pytest.approx(relative)
    assert model['relative_mce'] == pytest.approx(sum(relative.values()) / 15)
    assert f'{model["mce"]:.1f}' in said.split('\nmCE')[1].splitlines()[0]


def test_a_part_of_imagenet_c_gives_no_mce(imagenet, tmp_path, capfd):
    names = ['fog', 'contrast']
    data = write_imagenet_c(tmp_path / 'c', names, grouped=False)
    result, said = run(capfd, tmp_path, imagenet, 'imagenet-c', data, '--corruptions', *names)
    model = result['models']['epoch_1']
    assert 'mce' not in model and model['mean_ce_of'] == names
    # fog is the 9th (from 0), contrast the 11th
    assert model['mean_ce'] == pytest.approx(50 * (10 / 81.9324 + 40 / 85.3204))
    assert 'mean CE, not all 15' in said


def test_alexnet():
    """To the digit the paper prints; and AlexNet itself has 100 of both."""
    printed = (88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7, 82.7, 81.9, 56.5, 85.3, 64.6, 71.8,
               60.7)
    assert tuple(ALEXNET) == CORRUPTIONS
    assert list(ALEXNET.values()) == pytest.approx(printed, abs=.06)
    accuracy = {(name, s): 100 - error for name, error in ALEXNET.items() for s in range(1, 6)}
    own = corruption_errors(accuracy, 100 - ALEXNET_CLEAN)
    assert own['mce'] == pytest.approx(100) and own['relative_mce'] == pytest.approx(100)


CLASSES = ('zero', 'one', 'two')  # of colours (0, 0, 0), (0, 0, 28), (0, 0, 56)


def write_own(root):
    rng = np.random.default_rng(0)
    for i, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for j in range(2):
            pixels = colour_of(i) + rng.integers(0, 27, (SIDE, SIDE, 3)) * (0, 0, 1)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f'{j}.png')
    return root


def by_hand(root, name, severity):
    """Right answers in percent of the suite 'corruptions'."""
    right = 0
    for label, folder in enumerate(CLASSES):
        for j in range(2):
            image = LoadPILImage()(dict(img_path=str(root / folder / f'{j}.png')))
            pixels = np.asarray(ResizeAndCenterCrop(SIDE, 1)(image)['img'])
            if severity:
                key = sample_key(3, 0, 0, f'{folder}/{j}.png/{name}/{severity}')
                pixels = corrupt(pixels, name, severity, key)
            mean = pixels.reshape(-1, 3).mean(axis=0)
            right += np.argmin([((mean - colour_of(k))**2).sum() for k in range(3)]) == label
    return 100 * right / 6


@pytest.mark.parametrize('loader', ['image', 'array'])
def test_corruptions_of_own_images(tmp_path, capfd, loader):
    data = write_own(tmp_path / 'data')
    config, checkpoint = write_classifier(tmp_path / 'a', CLASSES, loader=loader)
    _, other = write_classifier(tmp_path / 'b', CLASSES, loader=loader)
    state = torch.load(other, weights_only=True)
    state['state_dict']['head.fc.bias'][1:] -= 100  # answers 'zero' whatever it sees
    torch.save(state, other)
    (data / 'two' / 'broken.png').write_bytes(b'\x89PNG')
    result, said = run(capfd, tmp_path, (config, f'seer={checkpoint}', other), 'corruptions', data,
                       '--seed', 3, '--batch-size', 7)
    seer, blind = result['models']['seer'], result['models']['b']
    assert seer['clean'] == by_hand(data, None, 0)
    for name in CORRUPTIONS:
        assert seer['accuracy'][name] == pytest.approx(
            [by_hand(data, name, s) for s in range(1, 6)]), name
    assert len({tuple(values) for values in seer['accuracy'].values()}) > 3
    assert [blind[k] for k in ('clean', 'mean', 'kept')] == pytest.approx([100 / 3, 100 / 3, 100])
    assert result['images'] == {'images': 6} and len(result['unreadable']) == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'out' / 'results.csv').read_text())))
    assert len(rows) == 2 * 76 and rows[0] == dict(
        model='seer', condition='clean', severity='0', top1=f'{seer["clean"]:.4f}')
    for name in ('accuracy.png', 'corruptions.png'):
        with Image.open(tmp_path / 'out' / name) as image:
            assert min(image.size) > 400 and len(np.unique(image.convert('L'))) > 20
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'accuracy.png', 'corruptions.png', 'results.json', 'results.csv'}
    if loader == 'image':  # neither batches nor workers change a figure
        again, _ = run(capfd, tmp_path, (config, f'seer={checkpoint}'), 'corruptions', data,
                       '--seed', 3, '--batch-size', 200, '--workers', 1, '--corruptions', 'frost',
                       'shot_noise', '--severities', 4, 2)
        part = again['models']['seer']
        assert part['severities'] == [2, 4] and part['accuracy'] == {
            name: [seer['accuracy'][name][i] for i in (1, 3)] for name in ('frost', 'shot_noise')}


@pytest.mark.parametrize('suite, prepare, said', [
    ('imagenet-a', lambda d: put(d, WNIDS[0], [0]), 'none of the suite\'s 200 classes'),
    ('imagenet-r', lambda d: put(d, '.', [0]), 'lies in no class folder'),
    ('imagenet-c', lambda d: write_imagenet_c(d, ['fog', 'snow']),
     'there are snow, fog. Measure these with --corruptions'),
    ('imagenet-c', lambda d: put(d, 'noise/gaussian_noise/1/' + WNIDS[0], [0]), 'no severity 2'),
    ('imagenet-sketch', lambda d: None, 'no such folder'),
    ('corruptions', lambda d: put(d, 'cat', [0]), 'none of the classifier\'s 1000 classes'),
])
def test_mistakes(imagenet, tmp_path, capfd, suite, prepare, said):
    prepare(tmp_path / 'data')
    done = run_tool_here(capfd, 'test_robustness', *imagenet, '--suite', suite, '--data',
                         tmp_path / 'data', '--workers', 0)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 2 and len(errors) == 1 and said in errors[0], done.stderr


def test_other_mistakes(imagenet, tmp_path, capfd):
    put(tmp_path, WNIDS[6], [6])
    own = write_classifier(tmp_path / 'own', CLASSES)
    for classifier, said in (
            (own, 'needs a classifier of ImageNet: 1,000 outputs'),
            ((imagenet[0], 'nowhere.pth'), 'no such checkpoint: nowhere.pth'),
            ((imagenet[0], f'a={imagenet[1]}', f'a={imagenet[1]}'), 'a name of its own')):
        done = run_tool_here(capfd, 'test_robustness', *classifier, '--suite', 'imagenet-a',
                             '--data', tmp_path)
        assert done.returncode == 2 and said in done.stderr
    assert 'usage:' in run_tool_here(capfd, 'test_robustness', '--help').stdout


def test_classes_by_their_wordnet_names(tmp_path, capfd):
    """A classifier of some of ImageNet's classes, in an order of its own."""
    own = write_classifier(tmp_path / 'own', (WNIDS[11], WNIDS[6], WNIDS[0]))
    put(tmp_path / 'data', WNIDS[6], [1, 1, 0])
    put(tmp_path / 'data', WNIDS[11], [2])  # not of the suite: 'nearest' is then the second, 6
    put(tmp_path / 'data', WNIDS[13], [0, 0])  # unknown to the classifier
    result, said = run(capfd, tmp_path, own, 'imagenet-a', tmp_path / 'data')
    assert result['models']['epoch_1']['top1'] == 50 and result['choices'] == 2
    assert result['left_out'] == 2 and 'classes the classifier does not know left out' in said


@pytest.fixture(scope='module')
def photo():
    """Smooth shapes and edges, 96 x 128."""
    rng = np.random.default_rng(1)
    clouds = np.stack([plasma((96, 128), 2., rng) for _ in range(3)], axis=-1)
    clouds[31:61, 41:91] = (.9, .3, .2)  # no edge where blocks of any size have one
    return (clouds * 255).astype(np.uint8)


def distance(a, b):
    return np.sqrt(((a.astype(float) - b)**2).mean())


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_a_corruption_follows_from_its_key(photo, name):
    first = corrupt(photo, name, 3, 11)
    assert first.shape == photo.shape and first.dtype == np.uint8
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    assert (corrupt(photo, name, 3, 11) == first).all()
    assert (np.random.get_state()[1] == state).all()
    still = ('defocus_blur', 'zoom_blur', 'brightness', 'contrast', 'pixelate', 'jpeg_compression')
    assert (corrupt(photo, name, 3, 12) == first).all() == (name in still)
    change = [np.mean([distance(corrupt(photo, name, s, key), photo) for key in range(4)])
              for s in range(1, 6)]
    assert change[4] > change[0] > 1
    # Several numbers change at once, or (pixelate) blocks meet an edge by chance.
    if name not in ('glass_blur', 'snow', 'frost', 'fog', 'pixelate'):
        assert change == sorted(change)
    for shape in ((8, 8, 3), (9, 40, 3)):  # tiny and long images
        assert corrupt(np.full(shape, 90, np.uint8), name, 5, 0).shape == shape


def test_corruptions_against_their_definitions(photo):
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = corrupt(grey, 'gaussian_noise', 2, 0) / 255 - 128 / 255
    assert noise.std() == pytest.approx(.12, abs=.002) and abs(noise.mean()) < .002
    shot = corrupt(grey, 'shot_noise', 1, 0) / 255
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 60), abs=.003)
    salt = corrupt(grey, 'impulse_noise', 5, 0)
    assert (salt == 0).mean() == pytest.approx(.135, abs=.005) == pytest.approx(
        (salt == 255).mean(), abs=.005)
    assert np.abs(corrupt(grey, 'brightness', 3, 0) - (128 + .3 * 255)).max() < .51
    bars = np.repeat(np.array([100, 200], np.uint8), 50).reshape(1, 100, 1) * np.ones(
        (100, 1, 3), np.uint8)
    assert np.unique(corrupt(bars, 'contrast', 1, 0)).tolist() == [130, 170]
    assert np.unique(corrupt(bars, 'contrast', 4, 0)).tolist() == [145, 155]
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, 'JPEG', quality=18)
    assert (corrupt(photo, 'jpeg_compression', 2, 0) == np.asarray(Image.open(buffer))).all()
    blocks = corrupt(photo, 'pixelate', 5, 0).reshape(24, 4, 32, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()  # a quarter of the side: blocks of 4
    mean = photo.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(blocks[:, 0, :, 0] - mean).max() < 1.01
    for name in ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur', 'elastic_transform'):
        assert np.abs(corrupt(grey, name, 5, 3).astype(int) - 128).max() <= 1, name  # adds no light


def test_lengths_grow_with_the_image():
    """A point of 224 px becomes a disk of radius 6 at severity 3; of 112 px, of radius 3."""
    for side, radius in ((224, 6), (112, 3)):
        point = np.zeros((side, side, 3), np.uint8)
        point[side // 2, side // 2] = 255
        kernel = disk(radius)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        expected = cv2.filter2D(point[..., 0].astype(np.float32), -1, kernel)
        assert np.abs(corrupt(point, 'defocus_blur', 3, 0)[..., 0] - expected).max() < .51
        assert 1 / kernel.max() == pytest.approx(np.pi * radius**2, rel=.03)


def test_motion_leaves_a_fading_line():
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    line = streaked(point, 10, 5, 0)
    assert line.sum() == pytest.approx(1, abs=1e-4)
    assert line[20].sum() == pytest.approx(1, abs=1e-4)  # all of it in the row
    along = line[20][20:9:-1] if line[20, 10:20].sum() > .5 else line[20][20:31]
    assert along[1] / along[6] == pytest.approx(np.exp((6**2 - 1) / 50), rel=.05)


def test_corrupt_refuses():
    image = np.zeros((8, 8, 3), np.uint8)
    for args, said in (((image, 'rain', 1, 0), "no corruption is named 'rain'"),
                       ((image, 'fog', 0, 0), 'severities are 1 to 5'),
                       ((image / 255, 'fog', 1, 0), 'in uint8')):
        with pytest.raises(MilanError, match=said):
            corrupt(*args)
