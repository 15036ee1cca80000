# SPDX-License-Identifier: Apache-2.0
"""JPEGs decoded at the scale of the crop: the same boxes, nearly the same pixels, nothing lost."""
import io
import json

import numpy as np
import pytest
from PIL import Image

from milan_mm.datasets import ImageFolder, LoadPILImage, PackImageInputs, RandomResizedCropAndFlip
from milan_mm.datasets.decoding import UnreadableImageError, open_image
from milan_mm.datasets.jpegs import JPEG, open_jpeg
from milan_mm.datasets.sampler import SampleIndex
from milan_mm.lab.benchmark.data import PIPELINES, benchmark
from milan_mm.lab.benchmark.photographs import photograph

FAST = [dict(type='milan_mm.LoadPILImage', scaled_jpegs=True),
        dict(type='milan_mm.RandomResizedCropAndFlip', size=32),
        dict(type='milan_mm.PackImageInputs')]


@pytest.fixture(scope='module')
def photo():
    return photograph(1200, 900, np.random.default_rng(0))


def difference(a, b):
    return float(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).mean())


@pytest.mark.parametrize('size', [448, 224, 112, 64])  # decoded at 1, 1/2, 1/4 and 1/8
def test_pixels_are_those_of_the_whole_image(tmp_path, photo, size):
    photo.save(tmp_path / 'a.jpg', quality=90)
    decoded = open_image(tmp_path / 'a.jpg')
    crop, seen = RandomResizedCropAndFlip(size, scale=(0.5, 1)), []
    for seed in range(6):
        np.random.seed(seed)
        slow = crop(dict(img=decoded))
        np.random.seed(seed)
        lazy = open_jpeg(tmp_path / 'a.jpg')
        assert isinstance(lazy, JPEG) and lazy.size == decoded.size
        fast = crop(dict(img=lazy))
        assert fast['img_shape'] == slow['img_shape'] == fast['img'].shape[:2]
        seen.append(difference(slow['img'], fast['img']))
    assert max(seen) < (0.1 if size == 448 else 2)
    assert (max(seen) < 0.1) == (size == 448)  # the smaller ones are decoded at a smaller scale


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('size', [(40, 60), (120, 180)])
def test_turned_images_are_cut_where_they_are_upright(tmp_path, photo, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.resize((412, 300)).save(tmp_path / 'a.jpg', exif=exif, quality=95)
    lazy, box = open_jpeg(tmp_path / 'a.jpg'), (37, 20, 245, 290)
    upright = open_image(tmp_path / 'a.jpg')
    assert lazy.size == upright.size
    exact = upright.resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    assert difference(exact, lazy.cropped(box, size)) < 2
    assert difference(upright, np.asarray(lazy)) == 0


def odd_files(folder, photo):
    small = photo.resize((96, 80))
    small.convert('CMYK').save(folder / 'cmyk.jpg')
    small.convert('L').save(folder / 'grey.jpg')
    small.save(folder / 'progressive.jpg', progressive=True)
    small.save(folder / 'a_jpeg.png', 'JPEG')
    small.save(folder / 'a_png.jpg', 'PNG')
    small.quantize(16).save(folder / 'palette.png')
    small.save(folder / 'two.jpg', 'MPO', save_all=True, append_images=[small])
    alpha = small.convert('RGBA')
    alpha.putalpha(90)
    alpha.save(folder / 'alpha.png')
    Image.fromarray(np.arange(96 * 80, dtype=np.uint16).reshape(80, 96) * 8).save(
        folder / 'deep.png')
    content = (folder / 'grey.jpg').read_bytes()
    (folder / 'trailer.jpg').write_bytes(content + b'what some cameras add')
    return sorted(folder.iterdir())


def test_odd_files_come_out_as_ever(tmp_path, photo):
    crop = RandomResizedCropAndFlip(48)
    for path in odd_files(tmp_path, photo):
        outputs = []
        for scaled in (False, True):
            np.random.seed(3)
            results = crop(LoadPILImage(scaled_jpegs=scaled)(dict(img_path=str(path))))
            outputs.append(PackImageInputs()(results)['inputs'].numpy())
            assert outputs[-1].shape == (3, 48, 48) and results['ori_shape'] == (80, 96)
        assert difference(*outputs) < 0.1, path.name
    assert open_jpeg(tmp_path / 'trailer.jpg') and not open_jpeg(tmp_path / 'cmyk.jpg')


def test_spoilt_files_are_replaced_and_noted(tmp_path, photo):
    for i in range(3):
        photo.resize((90 + i, 80)).save(tmp_path / f'{i}.jpg', quality=95)
    whole = (tmp_path / '1.jpg').read_bytes()
    (tmp_path / '1.jpg').write_bytes(whole[:len(whole) // 2])
    thumbnail = io.BytesIO()
    photo.resize((16, 16)).save(thumbnail, 'JPEG')
    (tmp_path / '2.jpg').write_bytes(  # its end is missing, that of its thumbnail is there
        whole[:2] + b'\xff\xe5' + (len(thumbnail.getvalue()) + 2).to_bytes(2, 'big')
        + thumbnail.getvalue() + whole[2:len(whole) // 2])
    (tmp_path / '3.jpg').write_bytes(b'\xff\xd8 no image')
    data = ImageFolder(tmp_path, pipeline=FAST)
    for at in (1, 2, 3):
        sample = data[SampleIndex(at, seed=0, epoch=0)]['data_samples']
        assert sample.unreadable[0] == str(tmp_path / f'{at}.jpg')
        assert sample.img_path == str(tmp_path / '0.jpg')
    # A decoder that fails after a good header: the whole image decides, as without scaling.
    fooled = JPEG(tmp_path / '1.jpg', b'\xff\xd8 no image', (91, 80))
    with pytest.raises(UnreadableImageError, match='1.jpg'):
        fooled.cropped((0, 0, 80, 80), (16, 16))
    other_size = JPEG(tmp_path / '0.jpg', (tmp_path / '0.jpg').read_bytes(), (92, 80))
    assert other_size.cropped((0, 0, 90, 80), (16, 16)).shape == (16, 16, 3)


def test_benchmark_compares_with_mmpretrain(capsys, tmp_path):
    benchmark(2, 1, tmp_path / 'data.json', sizes=[(160, 120, 90, 1, 1),
                                                      (1600, 1200, 90, 1, 1)])
    rows = json.loads((tmp_path / 'data.json').read_text())['rows']
    assert [row['pipeline'] for row in rows] == 2 * list(PIPELINES)
    assert all(row['images/s'] > 0 for row in rows)
    off = [row['levels of 255 off'] for row in rows]
    assert off[1] == off[4] == 0 and off[2] is off[5] is None
    assert 0 < off[0] < .2 < off[3] < 2
    assert f'| {list(PIPELINES)[0]} |' in capsys.readouterr().out
