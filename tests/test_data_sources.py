# SPDX-License-Identifier: Apache-2.0
"""Images as people have them: lists, shards, several roots with weights."""
import csv
import json
import os
import tarfile

import pyarrow
import pyarrow.parquet
import pytest
import torch
import webdataset
from conftest import milan_config
from mmengine.config import Config
from mmengine.dataset import default_collate
from PIL import Image
from torch.utils.data import DataLoader

from milan_mm.cli.main import main
from milan_mm.config.data_paths import check_data
from milan_mm.config.own_data import fill_num_classes
from milan_mm.config.read import read_config
from milan_mm.config.sources import count_images, move_to, name_kinds, open_source, split_weight
from milan_mm.datasets import EpochSampler, ImageFolder, ImageList, ImageMixture, ImageShards
from milan_mm.datasets.sampler import SampleIndex
from milan_mm.datasets.sharding import write_shards
from milan_mm.datasets.shards import ShardSampler, read_index
from milan_mm.errors import MilanError
from milan_mm.registry import DATASETS

PIPELINE = [dict(type='milan_mm.LoadPILImage'),
            dict(type='milan_mm.RandomResizedCropAndFlip', size=16),
            dict(type='milan_mm.PackImageInputs')]


@pytest.fixture(scope='module')
def shards(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('shards')
    write_shards(ImageFolder(image_folder), folder, per_shard=10, log=lambda line: None)
    return folder


@pytest.fixture
def few(tmp_path):
    for i in range(6):
        Image.new('RGB', (20 + i, 16), (40 * i, 0, 0)).save(tmp_path / f'{i}.png')
    return tmp_path


def seen(folder, rank, world_size, workers, epoch=0, buffer=15, skip=0):
    """{path: (place, pixels, key)} of what a process gets in an epoch."""
    dataset = ImageShards(folder, pipeline=PIPELINE)
    sampler = ShardSampler(dataset, seed=3, buffer=buffer)
    sampler.rank, sampler.world_size = rank, world_size
    sampler.num_samples = -(-len(dataset) // world_size)
    sampler.total_size = sampler.num_samples * world_size
    sampler.set_epoch(epoch)
    found, place = {}, 0
    for batch in DataLoader(dataset, 4, sampler=list(sampler)[skip:], num_workers=workers,
                            collate_fn=default_collate):
        for pixels, sample, key in zip(batch['inputs'], batch['data_samples'],
                                       batch['sample_key']):
            assert sample.img_path not in found
            found[sample.img_path] = (place, pixels, int(key))
            place += 1
    return found


def test_shards_hold_every_file_as_it_is(image_folder, shards):
    assert sorted(path.name for path in shards.iterdir()) == sorted(
        f'{i:06d}{suffix}' for i in range(5) for suffix in ('.tar', '.index.npy'))
    data = ImageShards(shards)
    contents = {data.get_data_info(i)['img_bytes'] for i in range(len(data))}
    assert contents == {path.read_bytes() for path in image_folder.rglob('*.png')}
    assert data.counts == [10, 10, 10, 10, 8] and '000004.tar/' in data.path(47)


def test_two_processes_with_workers_take_every_image_once(shards):
    one = seen(shards, 0, 1, 0)
    two = [seen(shards, rank, 2, workers) for rank, workers in ((0, 2), (1, 0))]
    assert len(one) == 48 and not set(two[0]) & set(two[1])
    for path, (_, pixels, key) in {**two[0], **two[1]}.items():
        assert torch.equal(pixels, one[path][1]) and key == one[path][2]
    order = list(one)
    assert [path for pair in zip(*two) for path in pair] == order  # dealt out in turn
    rest = seen(shards, 0, 1, 0, skip=20)  # from a place within the epoch
    assert list(rest) == order[20:] and all(rest[p][2] == one[p][2] for p in rest)
    assert order != list(seen(shards, 0, 1, 0, epoch=1))
    # The buffer bounds how far apart the images of a shard are read: of 15, at most 3 shards.
    tars = [path.rpartition('/')[0] for path in order[:15]]
    assert 1 < len(set(tars)) <= 3


def test_the_last_turn_is_filled_up(shards):
    five = [list(seen(shards, rank, 5, 0)) for rank in range(5)]
    assert [len(each) for each in five] == [10] * 5
    assert len({path for each in five for path in each}) == 48
    assert five[3][-1] == five[0][0] and five[4][-1] == five[1][0]  # its first ones again


def test_the_webdataset_library_reads_ours_and_we_read_its(few, shards):
    ours = webdataset.WebDataset([str(p) for p in sorted(shards.glob('*.tar'))], shardshuffle=False)
    samples = list(ours)
    data = ImageShards(shards)
    assert [s['png'] for s in samples] == [data.get_data_info(i)['img_bytes'] for i in range(48)]
    (few / 'wds').mkdir()
    with webdataset.ShardWriter(str(few / 'wds/a-%03d.tar'), maxcount=4, verbose=0) as writer:
        for i in range(6):
            writer.write({'__key__': f'x/{i}', 'png': (few / f'{i}.png').read_bytes(), 'cls': i,
                          'seg.png': b'another part of the sample'})
    theirs = ImageShards(few / 'wds', pipeline=PIPELINE)
    assert theirs.counts == [4, 2]
    assert [theirs[i]['data_samples'].ori_shape for i in range(6)] == [
        (16, 20 + i) for i in range(6)]
    os.utime(few / 'wds/a-001.tar', (2e9, 2e9))  # changed later: its index is made anew
    assert len(read_index(few / 'wds/a-001.tar')) == 2


def test_spoilt_images_and_shards(few):
    (few / 'spoilt.png').write_bytes((few / '5.png').read_bytes()[:50])
    done = write_shards(open_source(few), few / 'out', log=lambda line: None)
    assert done[:2] == (1, 6) and done.unreadable == [str(few / 'spoilt.png')]
    with pytest.raises(MilanError, match='not an empty folder'):
        write_shards(open_source(few), few / 'out')
    with tarfile.open(few / 'out/1.tar', 'w') as tar:
        tar.add(few / 'spoilt.png', '0.png')
    data = ImageShards(few / 'out', pipeline=PIPELINE)
    assert data[SampleIndex(6, 0, 0)]['data_samples'].unreadable == (
        str(few / 'out/1.tar/0.png'), )
    for name, content in (('cut.tar', (few / 'out/000000.tar').read_bytes()[:700]),
                          ('text.tar', b'no tar' * 200)):
        (few / name).write_bytes(content)
        with pytest.raises(MilanError, match=f'{name} cannot be read as an uncompressed tar'):
            ImageShards(few / name)
    with pytest.raises(MilanError, match='no shard in'):
        ImageShards(few / 'nowhere')


def test_smaller_copies(tmp_path):
    Image.new('RGB', (300, 200), (250, 0, 0)).save(tmp_path / 'a.png')
    Image.new('RGB', (90, 60)).save(tmp_path / 'b.png')
    write_shards(open_source(tmp_path), tmp_path / 'out', short_side=100, log=lambda line: None)
    data = ImageShards(tmp_path / 'out', pipeline=PIPELINE)
    assert {data[i]['data_samples'].ori_shape for i in range(2)} == {(100, 150), (60, 90)}


def write_list(path, rows):
    kind = path.suffix
    if kind in ('.csv', '.tsv'):
        with open(path, 'w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=',' if kind == '.csv' else '\t')
            writer.writeheader()
            writer.writerows(rows)
    elif kind == '.parquet':
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == '.txt':
        path.write_text('\n'.join(row['path'] for row in rows))
    else:
        path.write_text(json.dumps(rows) if kind == '.json' else '\n'.join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize('kind', ['csv', 'tsv', 'json', 'jsonl', 'parquet', 'txt'])
def test_lists(few, kind):
    rows = [dict(path=f'{i}.png', label='even' if i % 2 == 0 else 'odd') for i in (4, 1, 0)]
    path = write_list(few / f'list.{kind}', rows)
    data = ImageList(path, pipeline=PIPELINE)
    assert [data[i]['data_samples'].ori_shape[1] for i in range(3)] == [24, 21, 20]
    if kind != 'txt':
        labelled = ImageList(path, with_label=True)
        assert labelled.metainfo['classes'] == ('even', 'odd')
        assert [labelled.get_data_info(i)['gt_label'] for i in range(3)] == [0, 1, 0]
    assert count_images(path) == 3


def test_labels_of_lists(few):
    train = write_list(few / 'train.csv', [dict(file=f'{i}.png', class_id=i * 3) for i in range(5)])
    data = ImageList(train, with_label=True, columns=('file', 'class_id'))
    assert data.metainfo['classes'] == ('0', '3', '6', '9', '12')
    write_list(few / 'val.csv', [dict(file='2.png', class_id=6)])
    val = dict(data_root=few / 'val.csv', with_label=True, columns=('file', 'class_id'))
    assert ImageList(**val, classes_from='train.csv').get_data_info(0)['gt_label'] == 2
    with pytest.raises(MilanError, match='class 6, which is not among the 1 classes'):
        ImageList(**val, metainfo=dict(classes=('5', )))


def test_images_within_a_table(few):
    """As Hugging Face's datasets write them."""
    rows = [dict(image=dict(bytes=(few / f'{i}.png').read_bytes(), path=f'{i}.png'), label=i % 2)
            for i in range(4)]
    path = write_list(few / 'train-00000-of-00001.parquet', rows)
    data = ImageList(path, pipeline=PIPELINE, with_label=True)
    assert data[2]['data_samples'].ori_shape == (16, 22)
    assert data[2]['data_samples'].img_path == f'{path}/2.png'
    done = write_shards(open_source(path), few / 'out', log=lambda line: None)
    assert done.images == 4 and len(ImageShards(few / 'out')) == 4


@pytest.mark.parametrize('name, content, message', [
    ('a.csv', 'name,label\n0.png,1', 'has no column of paths: expected path, image, .*got name'),
    ('a.csv', '', 'lists no image'),
    ('a.csv', 'path,label\n9.png,1', r'lists .*9\.png, which is not there'),
    ('a.csv', 'path,label\n0.png,1\n,2', 'image 2, has no path'),
    ('a.json', '{"path": "0.png"}', 'cannot be read as json: .*expected a list of paths'),
    ('a.jsonl', '{"path": ', 'cannot be read as jsonl: JSONDecodeError'),
    ('a.parquet', 'no table', 'cannot be read as parquet'),
])
def test_bad_lists_are_one_error(few, name, content, message):
    (few / name).write_text(content)
    with pytest.raises(MilanError, match=message) as raised:
        ImageList(few / name)
    assert '\n' not in str(raised.value)


def test_an_empty_label_is_no_class(few):
    (few / 'a.csv').write_text('path,label\n0.png,cat\n1.png, \n')
    with pytest.raises(MilanError, match='image 2, has no path or no label'):
        ImageList(few / 'a.csv', with_label=True)


def test_a_list_without_labels_is_named(few):
    write_list(few / 'a.csv', [dict(path='0.png')])
    with pytest.raises(MilanError, match='has no column of labels'):
        ImageList(few / 'a.csv', with_label=True)


def test_weights(few, image_folder):
    def paths(epoch):
        return [data[SampleIndex(i, 0, epoch)]['data_samples'].img_path for i in range(len(data))]

    data = ImageMixture([dict(type='milan_mm.ImageFolder', data_root=str(few)),
                         dict(type='milan_mm.ImageFolder', data_root=str(image_folder))],
                        weights=[2, 0.25], pipeline=PIPELINE)
    assert len(data) == 24
    first, second = paths(0), paths(1)
    assert first[:6] == first[6:12] == sorted(str(p) for p in few.glob('*.png'))
    assert not set(first[12:]) & set(second[12:])  # another quarter in each epoch
    assert len({path for epoch in range(4) for path in paths(epoch)[12:]}) == 48
    keys = [data[SampleIndex(i, 0, 0)]['sample_key'] for i in (0, 6)]
    assert keys[0] != keys[1]  # the same image, augmented anew
    order = list(EpochSampler(data, seed=0))
    assert sorted(order) == list(range(24))
    with pytest.raises(MilanError, match='a weight above 0'):
        ImageMixture([{}], weights=[0])


def test_what_data_root_names(few, image_folder, shards):
    def config(**dataset):
        return Config(dict(train_dataloader=dict(
            sampler=dict(type='milan_mm.EpochSampler'),
            dataset=dict(type='milan_mm.ImageFolder', data_root='.', pipeline=[], **dataset))))

    write_list(few / 'train.csv', [dict(path='0.png', label='a')])
    (few / 'with:colon').mkdir()
    assert split_weight(few / 'with:colon') == (str(few / 'with:colon'), 1)
    assert split_weight('a:b') == ('a:b', 1) and split_weight('a:0.5') == ('a', 0.5)
    with pytest.raises(MilanError, match='must be above 0'):
        split_weight('a:0')
    cfg = config()
    move_to(cfg, [f'{few}:2', str(few / 'train.csv'), str(shards)])
    mixed = cfg.train_dataloader.dataset
    assert [d.type for d in mixed.datasets] == [
        'milan_mm.ImageFolder', 'milan_mm.ImageList', 'milan_mm.ImageShards']
    assert mixed.weights == [2, 1, 1] and count_images([f'{few}:2', shards]) == 60
    cfg = config()
    move_to(cfg, str(shards))
    name_kinds(cfg)
    assert cfg.train_dataloader.dataset.type == 'milan_mm.ImageShards'
    assert cfg.train_dataloader.sampler.type == 'milan_mm.ShardSampler'
    cfg = config(with_label=True, data_prefix=dict(img_path='train'))
    move_to(cfg, str(few))
    name_kinds(cfg)  # there is no folder few/train, but a list of that name
    assert cfg.train_dataloader.dataset.data_root == str(few / 'train.csv')
    cfg = config(with_label=True)
    move_to(cfg, str(shards))
    with pytest.raises(MilanError, match='shards, which have no labels'):
        name_kinds(cfg)
    with pytest.raises(MilanError, match='only pretraining mixes several sources'):
        move_to(Config(dict(data_root='a', train_dataloader=cfg.train_dataloader)), ['a', 'b'])


def test_one_command_for_all_of_them(few, image_folder, teacher_folder, run_here, capfd):
    """milan shard, then milan train on shards and on a mixture."""
    assert main(['shard', str(image_folder), str(few / 'shards'), '--images-per-shard', '20']) == 0
    assert '48 images in 3 shards' in capfd.readouterr().out
    write_list(few / 'list.csv', [dict(path=f'{i}.png') for i in range(6)])
    config = few / 'config.py'
    config.write_text(
        "_base_ = 'milan_mm::milan/own_images.py'\n"
        f'model = {milan_config(teacher_folder)!r}\n'.replace(
            'model = dict', 'model = dict').replace('model = {', "model = {'_delete_': True, ")
        + "train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)\n"
        "custom_hooks = []\n")
    options = ('--epochs', 1, '--cfg-options', 'train_dataloader.dataset.pipeline.1.size=32',
               'default_hooks.logger.interval=1', 'optim_wrapper.accumulative_counts=1')
    for name, roots, images in (('a', [few / 'shards'], 48),
                                ('b', [few / 'shards', f'{few / "list.csv"}:3'], 66)):
        given = [word for root in roots for word in ('--data-root', root)]
        said = run_here('train.py', config, *given, '--work-dir', few / name, *options)
        assert f'{images} images in {few}' in said and (few / name / 'epoch_1.pth').is_file()


def test_finetuning_on_lists(few):
    """train.csv and val.csv in place of folders; the classes are counted in the former."""
    write_list(few / 'train.csv', [dict(path=f'{i}.png', label=f'c{i % 3}') for i in range(6)])
    write_list(few / 'val.csv', [dict(path='1.png', label='c1')])
    cfg = read_config('milan_mm::classification/own_finetune.py')
    move_to(cfg, str(few))
    name_kinds(cfg)
    check_data(cfg)
    assert fill_num_classes(cfg) == ('c0', 'c1', 'c2') and cfg.model.head.num_classes == 3
    val = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=[]))
    assert isinstance(val, ImageList) and val.get_data_info(0)['gt_label'] == 1
    (few / 'val.csv').unlink()
    cfg = read_config('milan_mm::classification/own_finetune.py')
    move_to(cfg, str(few))
    name_kinds(cfg)
    with pytest.raises(MilanError, match='no such folder: .*val'):
        check_data(cfg)
