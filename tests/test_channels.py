# SPDX-License-Identifier: Apache-2.0
"""Images of 1, 2 and N channels and of more than 8 bits, from the file to the teacher."""
import numpy as np
import pytest
import tifffile
import torch
from conftest import milan_config
from mmengine.dataset import default_collate
from PIL import Image
from torch.utils.data import DataLoader

import milan_mm
from milan_mm.cli.main import main
from milan_mm.config.sources import open_source
from milan_mm.datasets import ImageFolder, LoadChannels, PackImageInputs, RandomResizedCropAndFlip
from milan_mm.datasets.channels import SUFFIXES, channel_statistics, read_channels
from milan_mm.datasets.sampler import SampleIndex
from milan_mm.errors import MilanError, UnreadableImageError
from milan_mm.registry import MODELS

RNG = np.random.default_rng(0)
BANDS = RNG.integers(0, 60_000, (20, 24, 6), dtype=np.uint16)


def test_every_way_of_writing_channels(tmp_path):
    np.save(tmp_path / 'last.npy', BANDS)
    np.save(tmp_path / 'first.npy', BANDS.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / 'planes.tif', BANDS.transpose(2, 0, 1), planarconfig='separate')
    tifffile.imwrite(tmp_path / 'pixels.tif', BANDS, planarconfig='contig',
                     photometric='minisblack')
    tifffile.imwrite(tmp_path / 'pages.tif', BANDS.transpose(2, 0, 1), photometric='minisblack')
    for path in tmp_path.iterdir():
        assert np.array_equal(read_channels(path), BANDS), path.name
    np.save(tmp_path / 'grey.npy', BANDS[..., 0])
    Image.fromarray(BANDS[..., 0]).save(tmp_path / 'grey.png')
    for name in ('grey.npy', 'grey.png'):
        assert np.array_equal(read_channels(tmp_path / name), BANDS[..., :1])
    colours = RNG.integers(0, 255, (5, 6, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / 'rgba.png')
    assert np.array_equal(read_channels(tmp_path / 'rgba.png'), colours)
    np.save(tmp_path / 'two.npy', BANDS[..., :2])
    assert read_channels(tmp_path / 'two.npy').shape == (20, 24, 2)


def test_sixteen_bits_stay_sixteen(tmp_path):
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) + 30_000).save(
        tmp_path / 'a.png')
    sample = LoadChannels(1)(dict(img_path=str(tmp_path / 'a.png')))
    assert len(np.unique(sample['img'])) == 256 and sample['img'].max() < 118
    cut = RandomResizedCropAndFlip(8)(sample)
    inputs = PackImageInputs()(cut)['inputs']
    assert inputs.dtype == torch.float32 and inputs.shape == (1, 8, 8)
    assert 116 < inputs.min() and len(inputs.unique()) > 50  # of one level of 8 bits
    window = LoadChannels(1, value_range=(30_000, 30_255))(dict(img_path=str(tmp_path / 'a.png')))
    assert window['img'].min() == 0 and window['img'].max() == 255


def test_a_batch_of_eight_and_sixteen_bits(tmp_path):
    """The first of 8 bits and the next of 16 ended a run in a worker."""
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(tmp_path / 'a.png')
    Image.fromarray(np.full((16, 16), 257 * 9, np.uint16)).save(tmp_path / 'b.png')
    data = ImageFolder(tmp_path, pipeline=[LoadChannels(1), RandomResizedCropAndFlip(8),
                                           PackImageInputs()], suffixes=SUFFIXES)
    batch, = DataLoader(data, 2, num_workers=1, collate_fn=default_collate)
    assert [int(one.unique()) for one in batch['inputs'].round()] == [7, 9]


def test_what_cannot_be_taken_is_named(tmp_path):
    np.save(tmp_path / 'fractions.npy', BANDS / 7)
    np.save(tmp_path / 'four.npy', BANDS[None])
    np.save(tmp_path / 'objects.npy', np.array([dict()], dtype=object))
    (tmp_path / 'text.tif').write_bytes(b'II*\0 no image')
    (tmp_path / 'text.png').write_bytes(b'no image')
    for name, words in (('fractions.npy', 'values are float64: say which become'),
                        ('four.npy', r'shape \(1, 20, 24, 6\)'), ('objects.npy', 'pickle'),
                        ('text.tif', 'text.tif'), ('text.png', 'no image that is read')):
        with pytest.raises(UnreadableImageError, match=words):
            LoadChannels(6)(dict(img_path=str(tmp_path / name)))
    np.save(tmp_path / 'good.npy', BANDS)
    with pytest.raises(UnreadableImageError, match='has 6 channels, expected 5'):
        LoadChannels(5)(dict(img_path=str(tmp_path / 'good.npy')))
    data = ImageFolder(tmp_path, pipeline=[LoadChannels(6)], suffixes=SUFFIXES)
    taken = data[SampleIndex(0, 0, 0)]
    assert taken['img'].shape == (20, 24, 6) and taken['img_path'].endswith('good.npy')


def test_statistics_of_channels(tmp_path):
    for i in range(3):
        np.save(tmp_path / f'{i}.npy', BANDS // (i + 1))
    mean, std = channel_statistics(open_source(tmp_path, SUFFIXES), LoadChannels(6))
    pixels = np.concatenate([BANDS.reshape(-1, 6) // (i + 1) for i in range(3)]) * (255 / 65535)
    assert np.allclose([mean, std], [pixels.mean(0), pixels.std(0)], rtol=1e-4)


def test_the_teacher_gets_the_channels_named(teacher_folder):
    def model(**changes):
        config = milan_config(teacher_folder, data_preprocessor=dict(
            mean=[10., 20., 30., 40.], std=[1., 2., 3., 4.]), **changes)
        config['backbone']['in_channels'] = 4
        return MODELS.build(config)

    milan = model(teacher_channels=(3, 0, 2))
    seen = []
    milan.target_generator.tower.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = milan.data_preprocessor(dict(inputs=torch.full((2, 4, 32, 32), 40.), data_samples=None))
    milan.loss(batch['inputs'])['loss'].backward()
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([0, 30, 10 / 3])
    assert milan.backbone.patch_embed.projection.weight.grad.shape[1] == 4
    for changes, words in ((dict(), 'takes 3 channels and would get 4'),
                           (dict(teacher_channels=(0, 1, 4)), 'have channels 0 to 3'),
                           (dict(teacher_channels=(0, 1)), 'takes 3 channels and would get 2')):
        with pytest.raises(MilanError, match=words):
            model(**changes)
    with pytest.raises(MilanError, match='a mean of 3'):
        MODELS.build(milan_config(
            teacher_folder, data_preprocessor=dict(mean=[1., 2., 3.], std=[1., 1., 1.]),
            backbone=dict(type='milan_mm.MaskedVisionTransformer', arch='vit-s', in_channels=4)))


@pytest.mark.parametrize('channels, teacher', [
    (2, None), pytest.param(6, ('5', '3', '1'), marks=pytest.mark.slow)])
def test_pretrain_on_channels(tmp_path, teacher_folder, channels, teacher):
    """The command line, a tiny teacher, two steps."""
    for i in range(4):
        tifffile.imwrite(tmp_path / f'{i}.tif', BANDS[..., :channels].transpose(2, 0, 1),
                         photometric='minisblack')
    chosen = ('--teacher-channels', *teacher) if teacher else ()
    assert main([
        'pretrain', str(tmp_path), '--channels', str(channels), *chosen, '--arch', 'vit-s',
        '--teacher', str(teacher_folder), '--work-dir', str(tmp_path / 'run'), '--epochs', '1',
        '--batch-size', '2', '--img-size', '32', '--workers', '0', '--cfg-options',
        'model.backbone.patch_size=8', 'model.neck.decoder_depth=1']) == 0
    weights = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['state_dict']
    assert weights['backbone.patch_embed.projection.weight'].shape[1] == channels
    model = milan_mm.get_model(tmp_path / 'run/epoch_1.pth')
    assert len(model.pixel_mean) == channels
    assert model(model.normalise(torch.zeros(2, channels, 32, 32))).cls.shape == (2, 384)
    with pytest.raises(MilanError, match=f'takes {channels} channels, and images are read as RGB'):
        model([str(tmp_path / '0.tif')])


def test_a_message_for_images_that_are_none(tmp_path, teacher_folder, capfd):
    np.save(tmp_path / 'a.npy', BANDS)
    assert main(['pretrain', str(tmp_path), '--channels', '5', '--teacher',
                 str(teacher_folder)]) == 2
    assert 'has 6 channels, expected 5' in capfd.readouterr().err
