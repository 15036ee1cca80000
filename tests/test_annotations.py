# SPDX-License-Identifier: Apache-2.0
"""Annotated data as people have it: each way to spoil it comes out right, or is named."""
import copy
import functools
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers_processes import in_two_processes
from helpers_tasks import SMALL_DETECTOR, SMALL_SEGMENTOR, small_detector, small_segmentor
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools import mask as run_lengths

from milan_mm.config.annotations import DataCheck
from milan_mm.config.data_paths import check_data, move_data
from milan_mm.config.own_data import fill_num_classes
from milan_mm.config.read import read_config
from milan_mm.datasets import LabelMapFolder
from milan_mm.doctor.inputs import check_annotations
from milan_mm.engine.first_process import with_classes
from milan_mm.errors import MilanError
from milan_mm.inference.tasks import load_task_model
from milan_mm.registry import DATASETS

CONFIGS = dict(det='mask_rcnn/own_coco.py', seg='upernet/own_ade.py',
               cls='classification/own_finetune.py')
SIZE = (60, 40)
TURN = 0x0112


def coco(root, change=None, size=SIZE, exif=None, number=None, encoding='utf-8'):
    """4 + 2 images with two boxes each, and their outlines."""
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for part, count in (number or dict(train=4, val=2)).items():
        (root / part).mkdir()
        content = dict(images=[], annotations=[], categories=[
            dict(id=1, name='disc'), dict(id=2, name='bar')])
        for k in range(count):
            name = f'{part}_{k}.png'
            image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))
            image.save(root / part / name, **(dict(exif=exif) if exif else {}))
            content['images'].append(dict(id=k + 1, file_name=name, width=size[0], height=size[1]))
            for j in range(2):
                x, y, w, h = 4 + 28 * j, 6, 20, 24
                content['annotations'].append(dict(
                    id=len(content['annotations']) + 1, image_id=k + 1, category_id=j + 1,
                    iscrowd=0, area=w * h, bbox=[x, y, w, h],
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
        if change:
            changed = change(content, root / part)
            content = changed if isinstance(changed, list) else content
        (root / f'annotations/{part}.json').write_text(json.dumps(content), encoding=encoding)
    return root


def ade(root, number=None, suffix=lambda k: '.jpg', save_map=None, exif=None, classes=None,
        change=None):
    """6 + 2 images of a square on a ground, and their label maps."""
    rng = np.random.default_rng(0)
    for part, count in (number or dict(training=6, validation=2)).items():
        for kind in ('images', 'annotations'):
            (root / kind / part).mkdir(parents=True)
        for k in range(count):
            labels = np.zeros(SIZE[::-1], np.uint8)
            labels[8:30, 10:35] = 1
            pixels = rng.integers(0, 90, (*labels.shape, 3), np.uint8) + 150 * labels[..., None]
            Image.fromarray(pixels).save(root / f'images/{part}/{k}{suffix(k)}',
                                         **(dict(exif=exif) if exif else {}))
            path = root / f'annotations/{part}/{k}.png'
            (save_map or (lambda a, p, k: Image.fromarray(a).save(p)))(labels, path, k)
    (root / 'classes.txt').write_bytes(classes or b'ground\nsquare\n')
    if change:
        change(root)
    return root


@functools.cache
def read(task):
    return read_config(ROOT / 'configs' / CONFIGS[task])


def config(task, root, **changes):
    cfg = copy.deepcopy(read(task))
    cfg.work_dir = str(root / 'work')
    cfg.merge_from_dict(changes)
    move_data(cfg, str(root))
    return cfg


def look(task, root, **changes):
    """What training would be told: config, and each set's entries as text."""
    cfg = config(task, root, **changes)
    check_data(cfg)
    check = DataCheck(cfg)
    fill_num_classes(cfg, check)
    return cfg, {name: ' '.join(found.table().split())
                 for name, found in check.findings.items()}


def build(loader):
    return DATASETS.build(dict(loader.dataset, serialize_data=False))  # which collects garbage


def of_all(**values):
    """Sets values in every annotation; None takes the key out."""
    return each('annotations', **values)


def each(part, **values):
    def change(content, folder):
        for entry in content[part]:
            for key, value in values.items():
                entry[key] = value(entry) if callable(value) else value
                if value is None:
                    entry.pop(key)
    return change


def first(part='annotations', **values):
    def change(content, folder):
        content[part][0].update(values)
    return change


def all_of(*changes):
    def change(content, folder):
        for one in changes:
            one(content, folder)
    return change


def outline(a):
    x, y, w, h = a['bbox']
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def corners(a):
    x, y, w, h = a['bbox']
    return [x, y, x + w, y + h]


def encoded(a):
    return run_lengths.frPyObjects([outline(a)], SIZE[1], SIZE[0])[0] | dict(counts=(
        run_lengths.frPyObjects([outline(a)], SIZE[1], SIZE[0])[0]['counts'].decode()))


def into_sub(content, folder):
    (folder / 'sub').mkdir()
    for image in content['images']:
        shutil.move(folder / image['file_name'], folder / 'sub')
        image['file_name'] = f'sub\\{image["file_name"]}'


def pipe(content, folder):
    (folder / content['images'][0]['file_name']).unlink()
    os.mkfifo(folder / content['images'][0]['file_name'])


def swapped(content, folder):
    for image in content['images']:
        image.update(width=SIZE[1], height=SIZE[0])


def listed_twice(content, folder):
    content['images'].append(dict(content['images'][0]))
    content['categories'].append(dict(content['categories'][0]))


def emptied(content, folder):
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] > 1]


BOXES_ALONE = 'boxes alone are trained'
# What is done to the file; what the table says, or '' for nothing; whether masks are trained.
RIGHT = dict(
    good=(None, '', True),
    empty_segm=(of_all(segmentation=[]), f'8 x no outline: {BOXES_ALONE}: annotation 1', False),
    four_numbers_everywhere=(
        of_all(segmentation=lambda a: [corners(a)]), f'fewer than three points: {BOXES_ALONE}',
        False),
    flat=(of_all(segmentation=outline), '8 x outline [x, y, ...] read as [[x, y', True),
    pairs=(of_all(segmentation=lambda a: np.reshape(outline(a), (-1, 2)).tolist()),
           '8 x outline of [x, y] pairs', True),
    nested_pairs=(of_all(segmentation=lambda a: [np.reshape(outline(a), (-1, 2)).tolist()]),
                  '8 x outline of [x, y] pairs', True),
    a_part_too_short=(of_all(segmentation=lambda a: [outline(a), [1, 2, 3, 4]]),
                      '8 x parts of an outline with fewer', True),
    run_lengths=(of_all(segmentation=encoded), '', True),
    mixed_ids=(each('images', id=lambda i: str(i['id'])), '8 x image ids matched as text', True),
    mixed_category_ids=(of_all(category_id=lambda a: str(a['category_id'])),
                        '8 x category ids matched as text', True),
    ids_of_both_types=(first('images', id='1'), 'image ids of several types, renumbered', True),
    folders=(each('images', file_name=lambda i: f'train/{i["file_name"]}'),
             '4 x folders in "file_name"', True),
    windows=(each('images', file_name=lambda i: f'sub\\{i["file_name"]}'),
             '4 x "\\" in "file_name" read as "/"', True),
    windows_with_the_folder=(into_sub, '4 x "\\" in "file_name"', True),
    other_machine=(each('images', file_name=lambda i: f'C:\\data\\x\\{i["file_name"]}'),
                   '4 x "\\" in "file_name"', True),
    letters=(each('images', file_name=lambda i: i['file_name'].upper()), 'in other letters', True),
    dup_ids=(of_all(id=1), '8 x annotation ids missing, double', True),
    no_ids=(of_all(id=None), '8 x annotation ids missing, double', True),
    id_0=(first(id=0), '8 x annotation ids missing, double, 0', True),
    no_iscrowd=(of_all(iscrowd=None), '8 x "iscrowd" missing', True),
    no_area=(of_all(area=None), '8 x "area" missing', True),
    no_box=(of_all(bbox=None), '8 x box missing, taken from the outline', True),
    text=(of_all(bbox=lambda a: [str(v) for v in a['bbox']]), '8 x numbers written as text', True),
    no_size=(each('images', width=None, height=None), '4 x size of an image missing', True),
    size_0=(each('images', width=0), '4 x size of an image missing', True),
    size_by_a_pixel=(each('images', width=61), '4 x size of an image, by the file', True),
    size_swapped=(swapped, '4 x size of an image, by the file', True),  # boxes reach beyond it
    corners=(of_all(bbox=corners), '8 x box that is [left, top, right, bottom]', True),
    missing_file=(lambda c, d: (d / c['images'][0]['file_name']).unlink(),
                  'left out 1 x image that is not in', True),
    broken_characters=(first('images', file_name='a\n\ud800.png'),
                       '1 x image that is not in .*: a\\n\\ud800.png', True),
    a_pipe=(pipe, '1 x image that is no regular file', True),
    a_torn_file=(lambda c, d: os.truncate(d / c['images'][1]['file_name'], 900),
                 '1 x image that cannot be read (OSError', True),
    a_broken_header=(lambda c, d: (d / c['images'][1]['file_name']).write_bytes(b'\x89PNG'),
                     '1 x image that cannot be read (its content is no image', True),
    outside=(first(bbox=[50, 30, 40, 40], segmentation=[[50, 30, 90, 30, 90, 70, 50, 70]]),
             'note 1 x box that leaves its image: annotation 1', True),
    far_outside=(first(bbox=[70, 50, 10, 10]), '1 x annotation whose box is outside', True),
    no_number=(first(bbox=[1, float('nan'), 3, 4]), '1 x annotation with the box [1, nan', True),
    huge=(first(bbox=[4, 6, 1e30, 24]), '1 x annotation whose box is far larger', True),
    narrow=(first(bbox=[4, 6, 0, 24]), '1 x annotation whose box is narrower', True),
    elsewhere=(first(bbox=[40, 6, 20, 24]), '1 x box that is not where its outline is', True),
    strange_category=(first(category_id=9), 'is of category 9, which is not listed', True),
    strange_image=(first(image_id=99), 'is of image 99, which is not listed', True),
    no_object=(lambda c, d: c['annotations'].append(3), '1 x annotation that is no object', True),
    listed_twice=(listed_twice, '1 x image listed twice: ', True),
    an_image_alone=(emptied, '1 x image without annotation, not trained on', True),
    unused_category=(lambda c, d: c['categories'].append(dict(id=3, name='thing')),
                     '1 x category without annotation: thing', True),
    string_ids=(all_of(each('images', id=lambda i: f'x_{i["id"]}'),
                       of_all(image_id=lambda a: f'x_{a["image_id"]}')), '', True),
)


@pytest.mark.parametrize('case', RIGHT)
def test_detection_comes_out_right(case, tmp_path):
    change, words, masks = RIGHT[case]
    root = coco(tmp_path, change)
    cfg, tables = look('det', root)
    assert all(part in tables['train'] for part in words.split('.*')), tables['train']
    init_default_scope('mmdet')
    assert (cfg.model.roi_head.mask_head is not None) == masks
    assert cfg.val_evaluator.metric == (['bbox', 'segm'] if masks else ['bbox'])
    for name, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader)):
        dataset = build(loader)
        counted = re.search(r': (\d+) images, (\d+) annotations', tables[name])
        number = sum(len(dataset.get_data_info(i)['instances']) for i in range(len(dataset)))
        assert number == int(counted[2])  # mmdet drops nothing that was not named
        assert len(dataset) == int(counted[1]) - (case == 'an_image_alone' and name == 'train')
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            assert os.path.isfile(info['img_path'])
            assert (info['width'], info['height']) == SIZE
            assert not masks or all('mask' in x for x in info['instances'])
            if case not in ('outside', 'elsewhere'):
                boxes = [[4, 6, 24, 30], [32, 6, 52, 30]]
                assert all(x['bbox'] == boxes[x['bbox_label']] for x in info['instances'])
    evaluated = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    assert len(evaluated['images']) == len(dataset)
    written = json.loads((root / 'work/data_check.json').read_text())
    assert (tmp_path / 'work/data_check/train.json').exists() == any(
        found['kind'] != 'note' for found in written['train']['found'])


REFUSED = dict(
    one_no_segm=(first(segmentation=None), r'1 of 8 annotations have no sound outline \(no outline'
                 r'\): annotation 1\. .*train boxes alone with --cfg-options '
                 r'model\.roi_head\.mask_head=None'),
    four_numbers=(first(segmentation=[[4, 6, 24, 30]]), 'fewer than three points.*annotation 1'),
    an_outline_as_far_as_the_moon=(
        first(segmentation=[[4, 6, 1e12, 6, 24, 30]]), 'outline far outside of its image'),
    run_lengths_of_another_image=(
        first(segmentation=dict(size=[9, 9], counts=[81])), 'run lengths for 9 x 9'),
    no_anns=(lambda c, d: c.update(annotations=[]), 'train.json has no annotation'),
    no_list=(lambda c, d: c.update(annotations=None), 'no list of annotations'),
    no_images=(lambda c, d: c.update(images=[]), 'train.json has no image'),
    a_list=(lambda c, d: [1, 2], 'train.json is no COCO file: it has no list of images and'),
    corners_without_outlines=(
        of_all(bbox=corners, segmentation=[]),
        r'4 of 8 boxes leave their images \(annotation 2, .*look like x1 y1 x2 y2'),
    fractions=(of_all(bbox=[.1, .2, .3, .4], segmentation=[]), 'within 0 and 1'),
    all_missing=(each('images', file_name='a.png'), '0 of 4 images .*not in .*train: a.png'),
    same_name_in_two_folders=(
        each('images', file_name=lambda i: f'{i["id"]}/train_0.png'), '0 of 4 images .*1/train_0'),
    counted_from_0=(of_all(category_id=lambda a: a['category_id'] - 1), 'one counts from 0'),
    no_category=(of_all(category_id=7), 'category 7, which is not listed'),
    one_id_twice=(each('images', id=1), 'several images of one id.*Whose annotations'),
    one_name_twice=(lambda c, d: c['categories'][0].update(name='bar'), 'two categories are named'),
    no_name=(lambda c, d: c['categories'][0].pop('name'), 'expected one with id, name'),
    half_size=(each('images', width=120, height=80), 'another size than stated: .*60 x 40, stated'),
)


@pytest.mark.parametrize('case', REFUSED)
def test_detection_is_refused(case, tmp_path):
    change, words = REFUSED[case]
    root = coco(tmp_path, lambda content, folder: change(content, folder)
                if folder.name == 'train' else None)
    with pytest.raises(MilanError, match=words) as error:
        look('det', root)
    assert '\n' not in str(error.value) and 'train.json' in str(error.value)


def test_detection_by_options(tmp_path):
    """What an error advises works: boxes alone, small images; byte-order marks, EXIF turns."""
    cfg, tables = look('det', coco(tmp_path / 'a', first(segmentation=None)),
                       **{'model.roi_head.mask_head': None})
    assert cfg.val_evaluator.metric == ['bbox'] and 'left out' not in tables['train']
    assert not cfg.train_dataloader.dataset.pipeline[1].with_mask
    tiny = coco(tmp_path / 'b', size=(30, 28))
    with pytest.raises(MilanError, match='no image is left .*of 4, 4 have a side below 32 pixels'):
        look('det', tiny)
    look('det', tiny, **{'train_dataloader.dataset.filter_cfg.min_size': 1})
    for encoding in ('utf-16', 'utf-8-sig'):
        _, tables = look('det', coco(tmp_path / encoding, encoding=encoding))
        assert f'1 x text in {encoding}: train.json' in tables['train']
    exif = Image.Exif()
    exif[TURN] = 6
    with pytest.raises(MilanError, match='before its EXIF orientation is applied.*40 x 60, stated '
                                         '60 x 40.*Remove the EXIF'):
        look('det', coco(tmp_path / 'c', exif=exif))
    _, tables = look('det', coco(tmp_path / 'd', exif=exif, change=all_of(
        each('images', width=40, height=60), of_all(
            bbox=[4, 6, 20, 40], segmentation=[[4, 6, 24, 6, 24, 46, 4, 46]]))))
    assert 'left out' not in tables['train'] and 'note' not in tables['train']
    _, tables = look('det', coco(tmp_path / 'e', exif=orientation(3)))
    assert '4 x image with an EXIF orientation: are its boxes' in tables['train']


def test_few_without_outlines_are_left_out(tmp_path):
    root = coco(tmp_path, lambda c, d: first(segmentation=None)(c, d)
                if d.name == 'train' else None, number=dict(train=12, val=2))
    cfg, tables = look('det', root)
    assert '1 x image with an annotation without a sound outline: train_0.png' in tables['train']
    assert '11 images, 22 annotations' in tables['train']
    assert cfg.model.roi_head.mask_head is not None


def equal_planes(labels, path, k):
    planes = dict(RGB=[labels] * 3, RGBA=[labels] * 3 + [labels * 0 + 255],
                  LA=[labels, labels * 0 + 255])[('RGB', 'RGBA', 'LA')[k % 3]]
    Image.fromarray(np.stack(planes, -1)).save(path)


def palette(labels, path, k):
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 200, 30, 90])
    image.save(path)


def colours(labels, path, k):
    Image.fromarray(labels[..., None] * np.array([200, 30, 90], np.uint8)).save(path)


def orientation(number):
    exif = Image.Exif()
    exif[TURN] = number
    return exif


def remove(name):
    return lambda root: (root / 'annotations/training' / name).unlink()


def empty(name):
    return lambda root: (root / 'annotations/training' / name).write_bytes(b'')


SEGMENTATION = dict(
    good=({}, ''),
    png=(dict(suffix=lambda k: '.png'), ''),
    jpeg=(dict(suffix=lambda k: '.jpeg'), ''),
    mixed=(dict(suffix=lambda k: ('.png', '.jpg', '.JPEG', '.bmp')[k % 4]), ''),
    maps_of_another_suffix=(dict(save_map=lambda a, p, k: Image.fromarray(a).save(
        p.with_suffix('.bmp' if k % 2 else '.tif'))), ''),
    equal_planes=(dict(save_map=equal_planes), '6 x label map of equal planes, read as one'),
    palette=(dict(save_map=palette), ''),
    one_bit=(dict(save_map=lambda a, p, k: Image.fromarray(a > 0).save(p)), ''),
    sixteen_bits=(dict(save_map=lambda a, p, k: Image.fromarray(a.astype(np.uint16)).save(p)), ''),
    turned=(dict(exif=orientation(6)), 'EXIF orientation, turned along: 0.png'),
    upside_down=(dict(exif=orientation(3)), '6 x image with an EXIF orientation: does its'),
    utf16=(dict(classes='ground\nsquare\n'.encode('utf-16')), ''),
    utf16_without_mark=(dict(classes='ground\nsquare\n'.encode('utf-16-le')), ''),
    mark=(dict(classes='ground\r\nsquare\r\n'.encode('utf-8-sig')), ''),
    missing_map=(dict(change=remove('3.png')), 'left out 1 x image without a label map'),
    empty_map=(dict(change=empty('3.png')), '1 x label map that cannot be used: 3.png'),
    a_colour_map=(dict(save_map=lambda a, p, k: (palette, colours)[k == 1](a, p, k)),
                  '1 x label map that cannot be used: 1.png (the file holds colours'),
    a_small_map=(dict(save_map=lambda a, p, k: Image.fromarray(a[k == 1:]).save(p)),
                 'another size than its image: 1.png (60 x 39, image 60 x 40)'),
    a_map_too_many=(dict(change=lambda root: shutil.copy(
        root / 'annotations/training/0.png', root / 'annotations/training/x.png')),
        'note 1 x label map without an image: x.png'),
    other_files=(dict(change=lambda root: (root / 'images/training/9.heic').touch()),
                 '1 x file of a kind that is not read as an image: 9.heic'),
    a_class_too_many=(dict(classes=b'ground\nsquare\nsky\n'), '1 x class without a pixel: sky'),
)


@pytest.mark.parametrize('case', SEGMENTATION)
def test_segmentation_comes_out_right(case, tmp_path):
    options, words = SEGMENTATION[case]
    cfg, tables = look('seg', ade(tmp_path, **options))
    assert words in tables['train'], tables['train']
    assert any(kind in tables['train'] for kind in (' left out ', ' mended ', ' note ')
               ) == bool(words)
    init_default_scope('mmseg')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = build(loader)
        assert isinstance(dataset, LabelMapFolder)
        assert dataset.metainfo['classes'][:2] == ('ground', 'square')
        training = loader is cfg.train_dataloader
        assert len(dataset) == (6 if training else 2) - (
            'left out' in tables['train' if training else 'val'])
        steps = dataset.pipeline.transforms
        info = steps[1 if training else 2](steps[0](dataset.get_data_info(0)))
        labels = info['gt_seg_map']
        assert labels.shape == info['img'].shape[:2] and labels.dtype == np.uint8
        bright = info['img'].mean(-1) > 120
        assert case == 'upside_down' or (bright == labels).mean() > .98


@pytest.mark.parametrize('options, words', [
    (dict(save_map=lambda a, p, k: Image.fromarray(a * 255).save(p)),
     r'all pixels .* one class, ground: 6 of 6 have 255, .*no pixel has class 1 \(square\)'),
    (dict(save_map=lambda a, p, k: Image.fromarray(a * 0).save(p)), 'at least two classes'),
    (dict(save_map=lambda a, p, k: Image.fromarray(a + 1).save(p)),
     'has the value 2, .*They count from 1: train with reduce_zero_label=True'),
    (dict(save_map=lambda a, p, k: Image.fromarray(a).resize((30, 20), 0).save(p)),
     r'0 of 6 images can be used: label map of another size .*0.png \(30 x 20, image 60 x 40\)'),
    (dict(save_map=colours), '0 of 6 images .*holds colours'),
    (dict(classes='Erde\nStraße\n'.encode('latin-1')), 'classes.txt is not in UTF-8: byte 9'),
    (dict(change=lambda root: (root / 'classes.txt').unlink()), 'classes.txt is missing'),
    (dict(change=lambda root: [p.unlink() for p in (root / 'annotations/training').iterdir()]),
     '0 of 6 images can be used: image without a label map'),
])
def test_segmentation_is_refused(options, words, tmp_path):
    with pytest.raises(MilanError, match=words):
        look('seg', ade(tmp_path, **options))


def test_sets_that_take_one_suffix(tmp_path):
    """mmseg's own dataset class: what it passes over is named, what it cannot do is done for it."""
    root = ade(tmp_path, suffix=lambda k: '.jpg' if k % 2 else '.png')
    cfg, tables = look('seg', root, **{'train_dataloader.dataset.type': 'mmseg.BaseSegDataset'})
    assert '3 x image that does not end in .jpg, not read: ' in tables['train']
    assert cfg.train_dataloader.dataset.type == 'mmseg.BaseSegDataset'
    remove('3.png')(root)
    cfg, tables = look('seg', root, **{'train_dataloader.dataset.type': 'mmseg.BaseSegDataset'})
    assert cfg.train_dataloader.dataset.type == 'milan_mm.LabelMapFolder'
    init_default_scope('mmseg')
    assert len(build(cfg.train_dataloader)) == 2


def folders(root, classes=('ant', 'bee')):
    for part in ('train', 'val'):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for k in range(3):
                Image.new('RGB', SIZE).save(root / part / name / f'{k}.png')
    return root


def test_classification_folders(tmp_path):
    root = folders(tmp_path / 'a')
    (root / 'train/__MACOSX').mkdir()
    (root / 'train/__MACOSX/._0.png').touch()
    (root / 'train/cow').mkdir()
    (root / 'train/ant/0.png').write_bytes(b'\x89PNG')
    (root / 'train/ant/x.heic').touch()
    cfg, tables = look('cls', root)
    assert cfg.model.head.num_classes == 2
    for words in ('6 images, 2 classes', 'ant 2 images', 'bee 3 images',
                  '2 x folder without an image, no class: __MACOSX, cow',
                  '1 x image that cannot be used: another one is trained on in its place: ant/0',
                  '1 x file of a kind that is not read as an image: ant/x.heic'):
        assert words in tables['train'], tables['train']
    with pytest.raises(MilanError, match='one class only, ant'):
        look('cls', folders(tmp_path / 'b', ['ant']))


def test_a_second_look_is_cheap_and_notices_changes(tmp_path):
    root = ade(tmp_path)
    cfg = config('seg', root)

    def looked_at():
        check = DataCheck(config('seg', root))
        fill_num_classes(check.cfg, check)
        return check.facts.looked

    assert looked_at() == 16 and looked_at() == 0
    Image.fromarray(np.full(SIZE[::-1], 1, np.uint8)).save(root / 'annotations/training/2.png')
    assert looked_at() == 1
    (tmp_path / 'work/.data_check_facts.json').write_text('[broken')
    assert looked_at() == 16
    # The doctor looks only: what training would write anew it leaves.
    remove('2.png')(root)
    check = DataCheck(cfg, copies=False)
    fill_num_classes(cfg, check)
    assert check.findings['train'].any('left out') and not (tmp_path / 'work/data_check').exists()
    assert cfg.train_dataloader.dataset.get('ann_file', '') == ''
    assert 'ground' in (tmp_path / 'work/data_check.txt').read_text()


def test_boxes_alone_are_trained_and_tested(tmp_path, run_here):
    """Of a file that only has boxes and much to put right; the losses are those of boxes."""
    root = coco(tmp_path / 'data', all_of(
        of_all(segmentation=[], iscrowd=None, id=1),
        each('images', width=None, height=None, id=lambda i: str(i['id']),
             file_name=lambda i: f'sub\\{i["file_name"]}')))
    small = small_detector(tmp_path / 'mine.py')
    options = ['--data-root', root, '--cfg-options', *SMALL_DETECTOR]
    out = run_here('train.py', small, '--work-dir', tmp_path / 'work', '--epochs', 1, *options)
    assert out.count('8 x no outline: boxes alone are trained') == 1
    assert 'loss_bbox' in out and 'loss_mask' not in out
    assert 'coco/bbox_mAP: ' in out and 'segm' not in out.split('loss_bbox')[1]
    shutil.rmtree(root / 'train')  # an evaluation needs the categories of its file only
    told = run_here('test.py', small, tmp_path / 'work/epoch_1.pth', '--work-dir',
                    tmp_path / 'test', *options)
    trained = re.findall(r'coco/bbox_mAP: (-?[\d.]+)', out)
    assert re.findall(r'coco/bbox_mAP: (-?[\d.]+)', told) == trained and trained
    cfg = read_config(small)
    cfg.merge_from_dict({'test_dataloader.dataset.pipeline.1.scale': (64, 64)})
    model = load_task_model(cfg, tmp_path / 'work/epoch_1.pth')
    found = model(Image.open(root / 'val/val_0.png')).pred_instances
    assert model.classes == ('disc', 'bar') and len(found.bboxes) and 'masks' not in found


def test_mixed_images_and_maps_are_trained(tmp_path, run_here):
    """Suffixes, planes, EXIF turns and a missing map in one folder, in training and evaluation."""
    root = ade(tmp_path / 'data', suffix=lambda k: ('.png', '.jpg')[k % 2], exif=orientation(6),
               save_map=equal_planes, change=remove('3.png'))
    out = run_here('train.py', small_segmentor(tmp_path / 'mine.py'), '--data-root', root,
                   '--work-dir', tmp_path / 'work', '--iters', 4, '--cfg-options',
                   *SMALL_SEGMENTOR, 'train_dataloader.dataset.pipeline.2.ratio_range=(1.,1.)')
    assert 'training: 5 images' in out and 'mIoU: ' in out
    assert '1 x image without a label map' in out and out.count('turned along: ') == 2


def test_doctor(tmp_path, run_here):
    root = ade(tmp_path / 'a', change=remove('3.png'))
    lines = list(check_annotations(str(root), 'seg', str(tmp_path / 'work')))
    assert lines[0][0] == 'train' and '5 images' in lines[0][1] and lines[0][2] == ''
    assert 'left out: 1 x image without a label map' in lines[1][1] and lines[1][2]
    assert sorted(p.name for p in (tmp_path / 'work').iterdir()) == [
        '.data_check_facts.json', 'data_check.json', 'data_check.txt']
    said = run_here('doctor.py', '--data', coco(tmp_path / 'b', of_all(category_id=9)), '--task',
                    'det', '--work-dir', tmp_path / 'work', code=1)
    assert re.search(r'FAIL +annotations +.*train.json: 0 of 8 annotations can be used', said)
    assert 'training cannot start: annotations' in said


def one_of_two(rank, folder, cfg):
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank,
                                         world_size=2)
    try:
        said = with_classes(cfg).model.head.num_classes
    except MilanError as error:
        said = str(error)
    (folder / f'{rank}.json').write_text(json.dumps([said, cfg.model.head.num_classes]))


@pytest.mark.parametrize('sound', [True, False])
def test_the_first_of_two_processes_looks_for_both(sound, image_folder, tmp_path):
    cfg = Config(dict(
        launcher='pytorch', work_dir=str(tmp_path / 'work'), model=dict(head=dict(
            num_classes=None)), train_dataloader=dict(dataset=dict(
                type='milan_mm.ImageFolder', with_label=True,
                data_root=str(image_folder if sound else tmp_path / 'nothing')))))
    assert in_two_processes(one_of_two, tmp_path, cfg) == [0, 0]
    one, two = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert one[0] == two[0] and two[1] is None  # the second looked at nothing itself
    assert one == [3, 3] if sound else 'nothing' in one[0]
