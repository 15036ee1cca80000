# SPDX-License-Identifier: Apache-2.0
"""YOLO's folders, COCO's outlines and maps of colours: as their tools write them."""
import json
import os

import numpy as np
import pytest
from helpers_tasks import SMALL_DETECTOR, SMALL_SEGMENTOR, small_detector, small_segmentor
from mmengine.config import Config
from PIL import Image

from milan_mm.cli.main import main
from milan_mm.config.formats import take_formats
from milan_mm.datasets.formats.maps import draw_coco, index_colours, read_colours
from milan_mm.datasets.formats.yolo import find_yaml, read_yolo
from milan_mm.doctor.inputs import check_annotations
from milan_mm.errors import MilanError

RNG = np.random.default_rng(0)


def images(folder, count=4, size=(80, 60)):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(RNG.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(
            folder / f'{i}.jpg')


@pytest.fixture
def yolo(tmp_path):
    """Ultralytics' layout, names by number, one image without an object."""
    root = tmp_path / 'yolo'
    for split in ('train', 'val'):
        images(root / 'images' / split)
        labels = root / 'labels' / split
        labels.mkdir(parents=True)
        for i in range(3):
            (labels / f'{i}.txt').write_text(f'{i % 2} 0.5 0.5 0.5 0.5\n1 0.25 0.3 0.4 0.4\n')
    (root / 'data.yaml').write_text(
        'path: ../datasets/elsewhere\ntrain: images/train\nval: images/val\n'
        'names:\n  0: cat\n  1: dog\n')
    return root


def test_boxes_of_yolo(yolo):
    content = read_yolo(find_yaml(yolo), 'train')
    assert [i['file_name'] for i in content['images']] == [f'images/train/{i}.jpg'
                                                           for i in range(4)]
    assert (content['images'][0]['width'], content['images'][0]['height']) == (80, 60)
    assert content['categories'] == [dict(id=0, name='cat'), dict(id=1, name='dog')]
    first, second = content['annotations'][:2]
    assert first['bbox'] == [20, 15, 40, 30] and first['area'] == 1200
    assert second['bbox'] == pytest.approx([4, 6, 32, 24])
    assert [a['image_id'] for a in content['annotations']] == [1, 1, 2, 2, 3, 3]


def test_names_of_yolo_have_their_numbers(yolo):
    description, text = yolo / 'data.yaml', (yolo / 'data.yaml').read_text()
    description.write_text(text.replace('  0: cat\n  1: dog\n', '  1: dog\n  0: cat\n'))
    assert [one['name'] for one in read_yolo(description, 'train')['categories']] == ['cat', 'dog']
    description.write_text(text.replace('  1: dog', '  2: dog'))
    with pytest.raises(MilanError, match='the keys of names are 0, 2; expected .*, 0 to 1'):
        read_yolo(description, 'train')


def test_outlines_key_points_and_roboflow(tmp_path):
    images(tmp_path / 'train/images', 2)
    (tmp_path / 'train/labels').mkdir()
    (tmp_path / 'train/labels/0.txt').write_text('0 0.25 0.5 0.75 0.5 0.75 1.0 0.25 1.0')
    (tmp_path / 'data.yaml').write_text(
        'train: ../train/images\nval: ../valid/images\nnc: 1\nnames: [cat]\n')
    (found, ) = read_yolo(tmp_path / 'data.yaml', 'train')['annotations']
    assert found['bbox'] == [20, 30, 40, 30] and found['area'] == 1200
    assert found['segmentation'] == [[20, 30, 60, 30, 60, 60, 20, 60]]
    (tmp_path / 'data.yaml').write_text(
        'train: train/images\nnames: [cat]\nkpt_shape: [2, 3]\n')
    (tmp_path / 'train/labels/0.txt').write_text('0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2')
    (found, ) = read_yolo(tmp_path / 'data.yaml', 'train')['annotations']
    assert found['bbox'] == [20, 15, 40, 30] and 'segmentation' not in found
    with pytest.raises(MilanError, match='has no val'):
        read_yolo(tmp_path / 'data.yaml', 'val')


@pytest.mark.parametrize('line, words', [
    ('2 0.5 0.5 0.1 0.1', 'of class 2, and data.yaml names 2, 0 to 1'),
    ('0 200 100 50 50', 'are these pixels'),
    ('0 0.5 0.5 0.1', 'expected class x y width height, or'),
    ('cat 0.5 0.5 0.1 0.1', 'expected numbers'),
    ('0 nan 0.5 0.1 0.1', 'none of YOLO'),
])
def test_bad_lines_of_yolo(yolo, line, words):
    (yolo / 'labels/train/1.txt').write_text(f'0 0.5 0.5 0.1 0.1\n{line}\n')
    with pytest.raises(MilanError, match=f'1.txt, line 2.*{words}') as raised:
        read_yolo(yolo / 'data.yaml', 'train')
    assert '\n' not in str(raised.value)


def test_bad_descriptions_of_yolo(yolo):
    (yolo / 'data.yaml').write_text('train: images/nowhere\nnames: [cat, dog]\n')
    with pytest.raises(MilanError, match='names images/nowhere, and there is no such folder'):
        read_yolo(yolo / 'data.yaml', 'train')
    (yolo / 'data.yaml').write_text('names: [cat')
    with pytest.raises(MilanError, match='cannot be read as YAML'):
        find_yaml(yolo)


@pytest.mark.slow
def test_a_detector_trains_on_yolo(yolo, tmp_path):
    (yolo / 'images/train/2.jpg').write_bytes(b'no image')
    config = small_detector(tmp_path / 'config.py')
    assert main(['train', str(config), '--data-root', str(yolo), '--work-dir',
                 str(tmp_path / 'run'), '--epochs', '1', '--cfg-options', *SMALL_DETECTOR]) == 0
    said = (tmp_path / 'run/data_check.txt').read_text()
    assert 'yolo_train.json: 3 images, 4 annotations' in said and '2.jpg' in said
    assert 'yolo_val.json: 4 images, 6 annotations' in said
    assert (tmp_path / 'run/epoch_1.pth').is_file()


def test_the_doctor_looks_through_yolo(yolo, tmp_path):
    (yolo / 'labels/train/0.txt').write_text('0 1.0 0.5 0.005 0.5\n')
    found = list(check_annotations(str(yolo), 'det', str(tmp_path / 'work')))
    assert [name for name, *_ in found if name == 'val'] and any(
        'narrower than a pixel' in words for _, words, _ in found)
    assert any('cat 2 annotations' in words and 'dog' in words for _, words, _ in found)


def coco_folder(root):
    """The folders of own_coco.py: a square on a larger one, in two of three images."""
    for split in ('train', 'val'):
        images(root / split, 3)
        square, large = ([v for x, y in ((a, a), (b, a), (b, b), (a, b)) for v in (x, y)]
                         for a, b in ((10, 20), (5, 50)))
        content = dict(
            categories=[dict(id=7, name='small'), dict(id=3, name='large')],
            images=[dict(id=i, file_name=f'{i}.jpg', width=80, height=60) for i in range(3)],
            annotations=[dict(id=2 * i + j, image_id=i, category_id=(7, 3)[j], iscrowd=0, area=100,
                              bbox=[5, 5, 45, 45], segmentation=[(square, large)[j]])
                         for i in range(2) for j in range(2)])
        (root / 'annotations').mkdir(exist_ok=True)
        (root / f'annotations/{split}.json').write_text(json.dumps(content))
    return root


def test_maps_of_coco(tmp_path):
    root = coco_folder(tmp_path / 'coco')
    assert draw_coco(root / 'annotations/train.json', tmp_path / 'maps') == 3
    drawn = np.asarray(Image.open(tmp_path / 'maps/0.png'))
    assert drawn.shape == (60, 80) and sorted(np.unique(drawn)) == [0, 1, 2]
    assert drawn[15, 15] == 1 and drawn[40, 40] == 2 and drawn[55, 70] == 0
    assert not np.asarray(Image.open(tmp_path / 'maps/2.png')).any()
    content = json.loads((root / 'annotations/train.json').read_text())
    del content['annotations'][0]['segmentation']
    (root / 'annotations/bad.json').write_text(json.dumps(content))
    with pytest.raises(MilanError, match="bad.json cannot be drawn .*'segmentation'"):
        draw_coco(root / 'annotations/bad.json', tmp_path / 'more')


COLOURS = ('# label:color_rgb:parts:actions\n'
           'background:0,0,0::\nroad:128,64,128::\nsky:70,130,180::\n')


def test_maps_of_colours(tmp_path):
    (tmp_path / 'labelmap.txt').write_text(COLOURS)
    colours = read_colours(tmp_path / 'labelmap.txt')
    assert list(colours) == ['background', 'road', 'sky'] and colours['sky'] == (70, 130, 180)
    labels = RNG.integers(0, 3, (6, 7))
    (tmp_path / 'maps').mkdir()
    Image.fromarray(np.array(list(colours.values()), np.uint8)[labels]).save(
        tmp_path / 'maps/a.png')
    palette = Image.fromarray(labels.astype(np.uint8))
    palette.putpalette([v for colour in colours.values() for v in colour])
    palette.save(tmp_path / 'maps/b.png')
    assert index_colours(tmp_path / 'maps', colours, tmp_path / 'out') == 2
    for name in 'ab':
        assert np.array_equal(np.asarray(Image.open(tmp_path / f'out/{name}.png')), labels)
    Image.new('RGB', (4, 4), (1, 2, 3)).save(tmp_path / 'maps/c.png')
    with pytest.raises(MilanError, match='c.png has the colour 1,2,3, which is of no class'):
        index_colours(tmp_path / 'maps', colours, tmp_path / 'out')
    for line, words in (('road 1 2 3', 'expected NAME:RED,GREEN,BLUE'),
                        ('more:0,0,0', 'has a class already')):
        (tmp_path / 'bad.txt').write_text(f'{COLOURS}{line}\n')
        with pytest.raises(MilanError, match=f'line 5.*{words}'):
            read_colours(tmp_path / 'bad.txt')


def segmentation(root, **changes):
    dataset = dict(type='milan_mm.LabelMapFolder', data_root=str(root), data_prefix=dict(
        img_path='images/training', seg_map_path='annotations/training'), **changes)
    return Config(dict(work_dir=str(root / 'run'), train_dataloader=dict(dataset=dataset)))


def test_maps_are_of_these_classes_and_images(tmp_path):
    """A work folder that had seen other data, or another order of the classes, gave its maps."""
    roots = []
    for name, colour in (('a', (128, 64, 128)), ('b', (70, 130, 180))):
        root = tmp_path / name
        images(root / 'images/training', 1)
        (root / 'annotations/training').mkdir(parents=True)
        (root / 'labelmap.txt').write_text(COLOURS)
        Image.new('RGB', (80, 60), colour).save(root / 'annotations/training/0.png')
        os.utime(root / 'annotations/training/0.png', (0, 0))  # older than any map
        roots.append(root)

    def label(root):
        cfg = segmentation(root)
        cfg.work_dir = str(tmp_path / 'run')
        take_formats(cfg)
        dataset = cfg.train_dataloader.dataset
        drawn = np.asarray(Image.open(f'{dataset.data_prefix.seg_map_path}/0.png'))
        return dataset.metainfo['classes'][drawn[0, 0]]

    assert [label(root) for root in roots] == ['road', 'sky']
    background, road, sky = COLOURS.splitlines()[1:]
    (roots[0] / 'labelmap.txt').write_text('\n'.join([sky, road, background]) + '\n')
    assert label(roots[0]) == 'road'
    (roots[0] / 'labelmap.txt').write_text('\n'.join([road, sky, background]) + '\n')
    assert label(roots[0]) == 'road'


@pytest.mark.slow
def test_a_segmentor_trains_on_coco(tmp_path, capfd):
    root = coco_folder(tmp_path / 'coco')
    config = small_segmentor(tmp_path / 'config.py')
    assert main(['train', str(config), '--data-root', str(root), '--work-dir',
                 str(tmp_path / 'run'), '--iters', '2', '--cfg-options', *SMALL_SEGMENTOR,
                 'train_dataloader.batch_size=2']) == 0
    assert '|   large' in capfd.readouterr().out and (tmp_path / 'run/iter_2.pth').is_file()
    folder, = (tmp_path / 'run/data_check').glob('maps_val_*')
    assert len(list(folder.iterdir())) == 3


def test_a_config_reads_colours(tmp_path):
    images(tmp_path / 'images/training', 2)
    (tmp_path / 'annotations/training').mkdir(parents=True)
    (tmp_path / 'labelmap.txt').write_text(COLOURS)
    for i in range(2):
        Image.new('RGB', (80, 60), (70, 130, 180)).save(
            tmp_path / f'annotations/training/{i}.png')
    cfg = segmentation(tmp_path)
    take_formats(cfg)
    dataset = cfg.train_dataloader.dataset
    assert tuple(dataset.metainfo.classes) == ('background', 'road', 'sky')
    assert np.asarray(Image.open(f'{dataset.data_prefix.seg_map_path}/1.png')).max() == 2
    (tmp_path / 'labelmap.txt').unlink()  # plain maps are read where they are
    cfg = segmentation(tmp_path)
    take_formats(cfg)
    assert cfg.train_dataloader.dataset.data_prefix.seg_map_path == 'annotations/training'
