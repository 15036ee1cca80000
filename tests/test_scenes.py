# SPDX-License-Identifier: Apache-2.0
"""Composed scenes tell the truth about themselves; own annotated images are checked and split."""
import json

import numpy as np
import pytest
from conftest import ROOT
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from milan_mm.config.data_paths import move_data
from milan_mm.config.own_data import fill_num_classes
from milan_mm.config.read import read_config
from milan_mm.errors import MilanError
from milan_mm.lab.quickstart.images import make_images
from milan_mm.lab.quickstart.scenes import OBJECTS, SCALE, VISIBLE, NoScenesError, make_all_scenes

PARTS = dict(train='training', test='validation')
CLASSES = ('blatt', 'fisch', 'stern')


def make(out, images=None, coco=None, ade=None, train=12, test=6, **options):
    return make_all_scenes(out, images, coco, ade, train, test, log=lambda line: None, **options)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp('work') / 'scenes'
    return out, make(out, train=30, test=12)


@pytest.fixture(scope='module')
def cutouts(tmp_path_factory):
    """Three classes of eight discs with alpha, each of a colour of its own; and the colours."""
    folder, colours = tmp_path_factory.mktemp('images'), {}
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for j in range(8):
            colour = (40 + 80 * i, 10 + 32 * j, 250 if j % 2 else 5)
            image = Image.new('RGBA', (60, 60))
            ImageDraw.Draw(image).ellipse((2, 2, 57, 57), fill=colour)
            image.save(folder / name / f'{j}.png')
            colours[colour] = f'{name}/{j}'
    return folder, colours


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Three classes of four images without alpha."""
    folder = tmp_path_factory.mktemp('photographs')
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for j in range(4):
            pixels = rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{j}.png')
    return folder


def read_part(out, part):
    """COCO's reader; and for each scene its id, image and label map."""
    coco = COCO(str(out / f'coco/annotations/{part}.json'))
    scenes = []
    for image in coco.loadImgs(coco.getImgIds()):
        stem = image['file_name'].removesuffix('.jpg')
        with Image.open(out / f'ade/annotations/{PARTS[part]}/{stem}.png') as file:
            assert file.mode == 'P'
            labels = np.asarray(file)
        with Image.open(out / f'coco/{part}/{stem}.jpg') as file:
            scenes.append((image['id'], np.asarray(file.convert('RGB')), labels))
    return coco, scenes


@pytest.mark.parametrize('part', PARTS)
def test_masks_and_label_maps_are_the_same_pixels(demo, part):
    out, meta = demo
    coco, scenes = read_part(out, part)
    assert len(scenes) == meta['coco']['scenes'][part] == dict(train=30, test=12)[part]
    numbers = []
    for identity, image, labels in scenes:
        annotations = coco.loadAnns(coco.getAnnIds(identity))
        numbers.append(len(annotations))
        rebuilt, covered = np.zeros_like(labels), np.zeros(labels.shape, int)
        for a in annotations:
            mask = coco.annToMask(a).astype(bool)
            rows, columns = np.nonzero(mask)
            left, top, width, height = a['bbox']
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
            assert a['area'] == mask.sum() > 0 and a['iscrowd'] == 0
            rebuilt[mask] = a['category_id']
            covered += mask
        assert covered.max() <= 1 and (rebuilt == labels).all()
        assert image.shape == (*labels.shape, 3)
        stem = coco.imgs[identity]['file_name']
        assert (out / 'coco' / part / stem).read_bytes() == (
            out / 'ade/images' / PARTS[part] / stem).read_bytes()
    assert max(numbers) <= OBJECTS[1] and min(numbers) >= 1 and len(set(numbers)) >= 3


def test_classes_have_one_order(demo):
    out, meta = demo
    names = [c['name'] for c in json.loads(
        (out / 'coco/annotations/test.json').read_text())['categories']]
    lines = (out / 'ade/classes.txt').read_text().splitlines()
    assert names == meta['coco']['classes'] and lines == ['background', *names]
    assert len(names) == 13 and meta['ade']['classes'] == lines
    assert json.loads((out / 'meta.json').read_text()) == meta


def test_scenes_hold_what_their_part_of_the_images_holds(cutouts, tmp_path):
    """Each disc is known by its colour; discs are drawn whole, so areas tell what was hidden."""
    folder, colours = cutouts
    split = make_images(tmp_path / 'data', folder, log=lambda line: None)['split']
    meta = make(tmp_path / 'scenes', str(folder), train=60, test=30, size=128)
    palette = np.array(list(colours))
    for part in PARTS:
        coco, scenes = read_part(tmp_path / 'scenes', part)
        shown, areas = set(), []
        for identity, image, _ in scenes:
            for a in coco.loadAnns(coco.getAnnIds(identity)):
                pixels = image[coco.annToMask(a).astype(bool)]
                distance = np.abs(palette - np.median(pixels, axis=0)).sum(1)
                name = list(colours.values())[distance.argmin()]
                assert distance.min() < 8
                assert name.split('/')[0] == coco.cats[a['category_id']]['name']
                shown.add(name)
                areas.append(a['area'])
        assert shown <= set(split[part]) and len(shown) >= 5
        smallest, largest = (np.pi * (share * 128 / 2)**2 for share in SCALE)
        assert 0.95 * VISIBLE * smallest < min(areas) and max(areas) < 1.05 * largest
        assert meta['coco']['cutouts'][part] == len(split[part])


def test_without_alpha_it_says_what_is_needed(photographs, tmp_path):
    with pytest.raises(NoScenesError, match=r'alpha.*--coco JSON IMAGES.*--ade DIR'):
        make(tmp_path / 'scenes', str(photographs))
    assert not list(tmp_path.iterdir())


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('precious')
    with pytest.raises(MilanError, match='was not made by the quickstart'):
        make(tmp_path)
    assert (tmp_path / 'mine.txt').is_file()


@pytest.fixture
def own_coco(tmp_path):
    """Twelve images, one of them without annotations, and a function that writes the JSON."""
    images = tmp_path / 'images'
    (images / 'deep').mkdir(parents=True)
    content = dict(images=[], annotations=[], categories=[
        dict(id=7, name='tree'), dict(id=3, name='house')])
    for i in range(12):
        name = f'{"deep/" if i % 2 else ""}{i}.png'
        Image.new('RGB', (40, 30), (20 * i, 0, 0)).save(images / name)
        content['images'].append(dict(id=100 + i, file_name=name, width=40, height=30))
        if i:
            content['annotations'].append(dict(
                id=i, image_id=100 + i, category_id=7 if i % 2 else 3, bbox=[5, 5, 10, 10],
                area=100, iscrowd=0, segmentation=[[5, 5, 15, 5, 15, 15, 5, 15]]))

    def write():
        (tmp_path / 'own.json').write_text(json.dumps(content))
        return str(tmp_path / 'own.json'), str(images)

    return content, write


def test_own_coco_is_split(own_coco, photographs, tmp_path):
    meta = make(tmp_path / 'scenes', str(photographs), coco=own_coco[1]())
    assert meta['coco']['scenes'] == dict(train=9, test=2)
    assert '--ade DIR' in meta['skipped']['ade'] and not (tmp_path / 'scenes/ade').exists()
    names = {}
    for part in PARTS:
        coco = COCO(str(tmp_path / f'scenes/coco/annotations/{part}.json'))
        images = coco.loadImgs(coco.getImgIds())
        names[part] = {image['file_name'] for image in images}
        assert all((tmp_path / 'scenes/coco' / part / name).is_file() for name in names[part])
        assert len(coco.anns) == len(images) and list(coco.cats) == [3, 7]
    assert not names['train'] & names['test'] and '0.png' not in names['train'] | names['test']
    small = make(tmp_path / 'few', str(photographs), coco=own_coco[1](), train=5, test=2)
    assert small['coco']['scenes'] == dict(train=5, test=2)


@pytest.mark.parametrize('change, message', [
    (lambda c: c['annotations'][3].pop('segmentation'),
     r'without a sound outline: 4.png \(annotation 4\)'),
    (lambda c: c['annotations'][0].update(category_id=9), 'category 9, which is not listed'),
    (lambda c: c['annotations'][0].update(image_id=9), 'image 9, which is not listed'),
    (lambda c: c['annotations'][0].update(bbox=[1, 2, 3]), r'the box \[1, 2, 3\]'),
    (lambda c: c['images'][5].update(file_name='absent.png'),
     'image that is not in .*images: absent.png'),
    (lambda c: c.pop('annotations'), 'no list of annotations'),
    (lambda c: c.update(annotations=c['annotations'][:7]), '7 images .*at least 8'),
])
def test_broken_coco_is_named(own_coco, tmp_path, change, message):
    content, write = own_coco
    change(content)
    with pytest.raises(MilanError, match=message):
        make(tmp_path / 'scenes', coco=write())
    assert not (tmp_path / 'scenes').exists()


@pytest.fixture
def own_ade(tmp_path):
    """Ten images of two sizes with label maps of the values 0, 1, 2 and 255."""
    root = tmp_path / 'own'
    for kind in ('images', 'annotations'):
        (root / kind / 'training').mkdir(parents=True)
    for i in range(10):
        size = (40, 30) if i % 2 else (30, 40)
        ending = '.png' if i % 3 else '.jpg'
        Image.new('RGB', size, (20 * i, 0, 0)).save(root / f'images/training/{i}{ending}')
        labels = np.zeros(size[::-1], np.uint8)
        labels[:5], labels[5:9], labels[9:12] = 1, 2, 255
        Image.fromarray(labels).save(root / f'annotations/training/{i}.png')
    return root


def test_own_label_maps_are_split_and_read(own_ade, photographs, tmp_path):
    meta = make(tmp_path / 'scenes', str(photographs), ade=str(own_ade))
    assert meta['ade']['classes'] == ['background', 'class 1', 'class 2']
    assert meta['ade']['scenes'] == dict(train=8, test=2) and 'coco' in meta['skipped']
    targets = [p.resolve() for p in (tmp_path / 'scenes/ade/images').rglob('*.jpg')]
    assert len(set(targets)) == 10 and all(own_ade in p.parents for p in targets)
    (own_ade / 'classes.txt').write_text('ground\nwall\nroof\n')
    for kind, name in (('images', '4.png'), ('annotations', '4.png')):
        (own_ade / kind / 'validation').mkdir()
        (own_ade / kind / 'training' / name).rename(own_ade / kind / 'validation' / name)
    meta = make(tmp_path / 'scenes', str(photographs), ade=str(own_ade))
    assert meta['ade']['classes'] == ['ground', 'wall', 'roof']
    assert meta['ade']['scenes'] == dict(train=9, test=1)


@pytest.mark.parametrize('change, message', [
    (lambda root: (root / 'annotations/training/4.png').unlink(), '1 of 10 .*4.png'),
    (lambda root: (root / 'classes.txt').write_text('a\nb\n'), 'label 2, but .* 0 to 1'),
    (lambda root: Image.new('L', (9, 9)).save(root / 'annotations/training/5.png'),
     '5.png is of mode L and 9 x 9; .* 40 x 30'),
    (lambda root: Image.new('RGB', (40, 30)).save(root / 'annotations/training/5.png'),
     'mode RGB'),
    (lambda root: [(root / f'images/training/{i}').unlink() for i in ('1.png', '2.png', '4.png')],
     '7 images, at least 8'),
])
def test_broken_label_maps_are_named(own_ade, tmp_path, change, message):
    change(own_ade)
    with pytest.raises(MilanError, match=message):
        make(tmp_path / 'scenes', ade=str(own_ade))


@pytest.mark.parametrize('task, folder', [('detection', 'coco'), ('segmentation', 'ade')])
def test_the_configs_read_them(demo, task, folder):
    """The pipelines of configs/quickstart give the masks and label maps that were written."""
    out, meta = demo
    cfg = read_config(ROOT / f'configs/quickstart/{task}.py')
    move_data(cfg, str(out / folder))
    assert fill_num_classes(cfg) == tuple(meta[folder]['classes'])
    cfg.train_dataloader.dataset.pipeline[-2].prob = 0.  # of mirroring
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 30 and len(DATASETS.build(cfg.val_dataloader.dataset)) == 12
    coco, scenes = read_part(out, 'train')
    sample = dataset[4]
    identity, image, labels = scenes[4]
    assert (sample['inputs'].numpy()[::-1].transpose(1, 2, 0) == image).all()
    if task == 'segmentation':
        assert (sample['data_samples'].gt_sem_seg.data[0].numpy() == labels).all()
        return
    annotations = coco.loadAnns(coco.getAnnIds(identity))
    truth = sample['data_samples'].gt_instances
    assert truth.labels.tolist() == [a['category_id'] - 1 for a in annotations]
    for mask, a in zip(truth.masks.masks, annotations):
        assert (mask == coco.annToMask(a)).all()


def test_equal_seeds_give_equal_scenes(demo, tmp_path):
    make(tmp_path / 'again', train=30, test=12)
    make(tmp_path / 'other', train=30, test=12, seed=1)
    same, files = [], sorted(p for p in demo[0].rglob('*') if p.is_file() and p.stem != 'meta')
    assert len(files) == 3 * 42 + 3
    for path in files:
        name = path.relative_to(demo[0])
        assert (tmp_path / 'again' / name).read_bytes() == path.read_bytes()
        same.append((tmp_path / 'other' / name).read_bytes() == path.read_bytes())
    assert sum(same) == 1  # classes.txt
