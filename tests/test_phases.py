# SPDX-License-Identifier: Apache-2.0
"""Smaller images in the first epochs: what the parts make of them, and that nothing stays."""
from types import SimpleNamespace

import pytest
import torch
from conftest import milan_config
from torch.utils.data import DataLoader

import milan_mm
from milan_mm import MilanError
from milan_mm.datasets import EpochSampler, ImageFolder, RandomResizedCropAndFlip
from milan_mm.engine.phases import check_phases
from milan_mm.registry import MODELS

CLIP, TIMM = 'CLIPTargetGenerator', 'TimmTargetGenerator'


def loss_of(model, *size):
    """The loss of two images of a size, drawn by it."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(size[0]))
    with torch.no_grad():
        return model(images, sample_keys=torch.arange(2), mode='loss')


def configs(teacher):
    """A model for each decoder, algorithm and kind of teacher that has positions of its own."""
    mae = dict(type='milan_mm.PixelTargetGenerator', patch_size=8)
    eva = dict(type=f'milan_mm.{TIMM}', model='eva02_tiny_patch14_224', normalize='student',
               model_args=dict(img_size=28, embed_dim=48, depth=2, num_heads=4))
    yield 'MILAN', milan_config(teacher)
    yield 'a teacher of larger patches, rotary', milan_config(teacher, target_generator=eva)
    yield 'MAE', dict(milan_config(teacher, target_generator=mae, mask_generator=dict(
        type='milan_mm.BlockwiseMaskGenerator')), neck=dict(
            type='milan_mm.MAEDecoder', decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4))
    both = dict(type='milan_mm.ConcatTargetGenerator', generators=[
        dict(type=f'milan_mm.{CLIP}', pretrained=str(teacher)), eva])
    yield 'MaskAlign', dict(
        milan_config(teacher, target_generator=both), type='milan_mm.MaskAlign',
        neck=dict(type='milan_mm.DynamicAlignment'), head=dict(
            type='milan_mm.AlignmentHead', loss=dict(type='milan_mm.SmoothL1AlignmentLoss')))


def test_another_size_and_back(teacher_folder):
    for name, config in configs(teacher_folder):
        torch.manual_seed(0)
        model = MODELS.build(config).train()
        model.init_weights()
        state = {key: value.clone() for key, value in model.state_dict().items()}
        before, small = loss_of(model, 32, 32), loss_of(model, 24, 16)
        assert small['loss'].isfinite() and small['loss'] != before['loss'], name
        loss_of(model, 16, 16)
        assert loss_of(model, 24, 16) == small, name  # whatever was in between
        assert loss_of(model, 32, 32) == before, name
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_a_smaller_image_has_the_same_places(teacher_folder):
    """Positions of a map of 2 x 2 are those between four of 4 x 4."""
    neck = MODELS.build(milan_config(teacher_folder)).neck
    seen = []
    neck.decoder_norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for block in neck.decoder_blocks:
        block.register_forward_hook(lambda module, inputs, output: inputs[0])
    torch.nn.init.zeros_(neck.decoder_embed.weight)
    torch.nn.init.zeros_(neck.decoder_embed.bias)
    neck.set_grid((2, 2))
    ids = torch.arange(4)[None]
    neck(torch.zeros(1, 3, 48), milan_mm.MaskIds(ids[:, :2], ids[:, 2:]))
    full = milan_mm.sincos_positions(32, (4, 4))[0, 1:].view(2, 2, 2, 2, 32)
    between = full.mean(dim=(1, 3)).view(4, 32)
    assert torch.allclose(seen[0][0, 1:], between, atol=.2)
    assert (seen[0][0, 1:] - milan_mm.sincos_positions(32, (2, 2))[0, 1:]).abs().max() > .4


def test_the_same_crops_in_the_size_of_the_epoch(image_folder):
    def crops(**phases):
        dataset = ImageFolder(image_folder, pipeline=[
            dict(type='milan_mm.LoadPILImage'),
            dict(type='milan_mm.RandomResizedCropAndFlip', size=32, **phases),
            dict(type='milan_mm.PackImageInputs')])
        return dataset, EpochSampler(dataset, seed=1)

    dataset, sampler = crops(phases=((16, 1), ((24, 32), 2)))
    loader = DataLoader(dataset, 16, sampler=sampler, num_workers=1, persistent_workers=True,
                        collate_fn=lambda samples: torch.stack([s['inputs'] for s in samples]))
    sizes, batches = [], []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        batches.append(next(iter(loader)))
        sizes.append(tuple(batches[-1].shape[-2:]))
    assert sizes == [(16, 16), (24, 32), (24, 32), (32, 32)]
    whole, sampler = crops()
    sampler.set_epoch(0)
    large = torch.stack([whole[index]['inputs'] for index, _ in zip(sampler, range(16))])
    shrunk = torch.nn.functional.interpolate(large / 255, (16, 16), mode='area')
    assert (shrunk - batches[0] / 255).abs().mean() < .03
    assert RandomResizedCropAndFlip(32, phases=((16, 1), )).size_in(None) == (32, 32)


def test_refusals(image_folder, teacher_folder):
    model = MODELS.build(milan_config(teacher_folder))
    for phases, epochs, words in (
            (((20, 1), ), 2, 'patches of 8 do not tile images of 20 x 20, take 16 or 24'),
            (((16, 2), ), 2, 'take 2 epochs and the training has 2: leave some for 32 x 32'),
            (((8, 1), ), 2, 'leaves 0 of 1 patches visible')):
        pipeline = [dict(type='milan_mm.RandomResizedCropAndFlip', size=32, phases=phases)]
        runner = SimpleNamespace(
            model=model, max_epochs=epochs, train_loop=SimpleNamespace(max_epochs=epochs),
            train_dataloader=DataLoader(ImageFolder(image_folder, pipeline=pipeline)))
        with pytest.raises(MilanError, match=words):
            check_phases(runner)
        runner.model = model.backbone
        with pytest.raises(MilanError, match='are for pretraining'):
            check_phases(runner)
    for wrong in (((16, 0), ), ((16, ), ), 16, (('a', 1), )):
        with pytest.raises(MilanError, match='a size in pixels and a number of epochs'):
            RandomResizedCropAndFlip(32, phases=wrong)
    with pytest.raises(MilanError, match='20 is not a multiple of 8'):
        loss_of(model, 20, 32)
    model.target_generator.__class__ = type('Own', (milan_mm.TargetGenerator, ), {})
    with pytest.raises(MilanError, match=r'Own takes images of \(4, 4\) patches only'):
        loss_of(model, 16, 16)
