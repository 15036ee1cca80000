# SPDX-License-Identifier: Apache-2.0
"""Every kind of image file comes out right; what cannot be decoded is replaced and named."""
import argparse

import numpy as np
import pytest
from mmcv import imfrombytes
from PIL import EpsImagePlugin, Image

from milan_mm.cli.main import run
from milan_mm.datasets import ImageFolder, RandomResizedCropAndFlip, ResizeAndCenterCrop
from milan_mm.datasets.decoding import UnreadableImageError, composite, open_image
from milan_mm.datasets.sampler import SampleIndex
from milan_mm.errors import MilanError

RED, GREEN, WHITE = (255, 0, 0), (0, 128, 0), (255, 255, 255)


def pixel(path, at=(0, 0)):
    image = composite(open_image(path))
    assert image.mode == 'RGB'
    return image.getpixel(at)


def near(a, b, tolerance=3):
    return all(abs(x - y) <= tolerance for x, y in zip(a, b))


def test_palette_grey_bilevel_and_cmyk(tmp_path):
    red = Image.new('RGB', (8, 6), RED)
    red.quantize(4).save(tmp_path / 'palette.png')
    red.quantize(4).save(tmp_path / 'palette.gif')
    red.convert('CMYK').save(tmp_path / 'cmyk.jpg', quality=95)
    red.convert('CMYK').save(tmp_path / 'cmyk.tif')
    Image.new('L', (8, 6), 77).save(tmp_path / 'grey.png')
    Image.new('1', (8, 6), 1).save(tmp_path / 'bilevel.png')
    for name in ('palette.png', 'palette.gif', 'cmyk.jpg', 'cmyk.tif'):
        assert near(pixel(tmp_path / name), RED), name
    assert pixel(tmp_path / 'grey.png') == (77, 77, 77)
    assert pixel(tmp_path / 'bilevel.png') == WHITE


def test_sixteen_bits(tmp_path):
    values = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    for name in ('deep.png', 'deep.tif'):
        Image.fromarray(values).save(tmp_path / name)
        assert [pixel(tmp_path / name, (x, 0))[0] for x in range(3)] == [0, 100, 255], name
    Image.fromarray(np.array([[0., .5, 1.]], dtype=np.float32)).save(tmp_path / 'float.tif')
    assert [pixel(tmp_path / 'float.tif', (x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_alpha_is_composited(tmp_path):
    image = Image.new('RGBA', (4, 4), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (*RED, 128))
    image.save(tmp_path / 'rgba.png')
    image.convert('LA').save(tmp_path / 'la.png')
    assert pixel(tmp_path / 'rgba.png') == RED
    assert pixel(tmp_path / 'rgba.png', (1, 0)) == WHITE
    assert near(pixel(tmp_path / 'rgba.png', (2, 0)), (255, 127, 127))
    assert pixel(tmp_path / 'la.png', (1, 0)) == WHITE
    assert open_image(tmp_path / 'rgba.png').mode == 'RGBA'
    transparent = Image.new('P', (2, 1))
    transparent.putpalette([255, 0, 0, 0, 255, 0])
    transparent.putpixel((1, 0), 1)
    transparent.save(tmp_path / 'p.png', transparency=1)
    assert pixel(tmp_path / 'p.png') == RED and pixel(tmp_path / 'p.png', (1, 0)) == WHITE
    Image.new('RGBA', (2, 2), (*RED, 255)).save(tmp_path / 'opaque.png')
    assert open_image(tmp_path / 'opaque.png').mode == 'RGB'


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['jpg', 'png'])
def test_exif_orientation(tmp_path, orientation, kind):
    """A image stored turned by each of the eight orientations comes out upright."""
    upright = Image.new('RGB', (16, 8), WHITE)
    upright.paste(RED, (0, 0, 8, 8))
    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
             4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
             6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
             8: Image.Transpose.ROTATE_270}
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f'x.{kind}', exif=exif)
    image = open_image(tmp_path / f'x.{kind}')
    assert image.size == (16, 8)
    assert near(image.getpixel((2, 4)), RED, 10) and near(image.getpixel((13, 4)), WHITE, 10)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / 'text.jpg').write_text('hello')
    whole = tmp_path / 'whole.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        whole)
    (tmp_path / 'cut.png').write_bytes(whole.read_bytes()[:2000])
    for name in ('text.jpg', 'cut.png', 'absent.png'):
        with pytest.raises(UnreadableImageError, match=name):
            open_image(tmp_path / name)


def folder(tmp_path, good=6, bad=('broken.jpg', )):
    for i in range(good):
        Image.new('RGB', (40, 40), (40 * i, 0, 0)).save(tmp_path / f'{i}.png')
    for name in bad:
        (tmp_path / name).write_bytes(b'\xff\xd8 no image')
    return tmp_path


PIPELINE = [dict(type='milan_mm.LoadPILImage'),
            dict(type='milan_mm.RandomResizedCropAndFlip', size=16),
            dict(type='milan_mm.PackImageInputs')]


def test_a_broken_image_is_replaced_and_noted(tmp_path):
    data = ImageFolder(folder(tmp_path), pipeline=PIPELINE)
    at = 6  # after 0.png to 5.png
    replaced = [data[SampleIndex(at, seed=0, epoch=e)]['data_samples'] for e in range(8)]
    assert all(sample.unreadable == (str(tmp_path / 'broken.jpg'), ) for sample in replaced)
    assert len({sample.img_path for sample in replaced}) > 1  # not always the same substitute
    again = data[SampleIndex(at, seed=0, epoch=3)]['data_samples']
    assert again.img_path == replaced[3].img_path
    assert data[SampleIndex(0, seed=0, epoch=0)]['data_samples'].unreadable == ()


def test_evaluation_gets_no_substitute(tmp_path):
    data = ImageFolder(folder(tmp_path), pipeline=PIPELINE, test_mode=True)
    assert data[6] is None and data[0] is not None


def test_only_broken_images_is_an_error(tmp_path):
    data = ImageFolder(folder(tmp_path, good=0, bad=('a.jpg', 'b.jpg')), pipeline=PIPELINE)
    with pytest.raises(MilanError, match='in a row'):
        data[0]


def test_labels_are_folders(tmp_path):
    for name in ('cat', 'dog'):
        (tmp_path / name / 'more').mkdir(parents=True)
        Image.new('RGB', (8, 8)).save(tmp_path / name / 'more' / 'x.PNG')
    data = ImageFolder(tmp_path, with_label=True)
    assert data.metainfo['classes'] == ('cat', 'dog')
    assert [data.get_data_info(i)['gt_label'] for i in range(2)] == [0, 1]
    Image.new('RGB', (8, 8)).save(tmp_path / 'loose.png')
    with pytest.raises(MilanError, match='loose.png'):
        len(ImageFolder(tmp_path, with_label=True))


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(MilanError, match='no such folder'):
        len(ImageFolder(tmp_path / 'absent'))
    with pytest.raises(MilanError, match='no image below'):
        len(ImageFolder(tmp_path))


def test_crops_keep_to_their_ranges():
    transform = RandomResizedCropAndFlip(224)
    for width, height in ((640, 480), (31, 400), (1, 1), (400, 30)):
        for _ in range(200):
            left, top, right, bottom = transform.random_box(width, height)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            w, h = right - left, bottom - top
            if (width, height) == (640, 480):
                assert 0.195 < w * h / (width * height) < 1.0001
                assert 0.74 < w / h < 1.345


def test_evaluation_crop_is_central_and_fills():
    image = Image.new('RGB', (100, 50), WHITE)
    image.paste(GREEN, (25, 0, 75, 50))
    out = ResizeAndCenterCrop((20, 20), crop_ratio=1)(dict(img=image))['img']
    assert out.size == (20, 20) and out.getpixel((10, 10)) == GREEN
    assert near(out.getpixel((2, 10)), GREEN, 12)


@pytest.mark.parametrize('reader', ['ours', 'mmcv'])
def test_postscript_named_png_reaches_no_program(reader, tmp_path, monkeypatch):
    """Pillow would hand it to Ghostscript, which runs what it says."""
    program = tmp_path / 'gs'
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/was_run\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', EpsImagePlugin.Ghostscript)
    Image.new('RGB', (8, 8), RED).save(tmp_path / 'a.png', 'EPS')
    if reader == 'ours':
        with pytest.raises(UnreadableImageError, match='a.png'):
            open_image(tmp_path / 'a.png')
    else:  # as mmseg opens label maps, in a process of ours
        def read(args):
            imfrombytes((tmp_path / 'a.png').read_bytes(), backend='pillow')

        with pytest.raises(OSError, match='Ghostscript'):
            run(argparse.Namespace(command='train', run=read))
    assert not (tmp_path / 'was_run').exists()
