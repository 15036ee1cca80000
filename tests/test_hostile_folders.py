# SPDX-License-Identifier: Apache-2.0
"""Folders and images as they should not be: no hang, no traceback, nothing black in silence."""
import ast
import logging
import os
import shutil
import socket
import struct
import sys
import zlib

import numpy as np
import pytest
from conftest import ROOT
from faults.fuzz_images import fuzz
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader

from milan_mm.config.data_paths import settle_workers
from milan_mm.datasets import ImageFolder, LoadBGRImage, LoadPILImage
from milan_mm.datasets.decoding import SUFFIXES, open_image
from milan_mm.datasets.image_folder import find_images
from milan_mm.datasets.listings import keep_listings
from milan_mm.datasets.loading import keep_notes, note_unreadable, noted_unreadable
from milan_mm.datasets.stream import ImageStream, central_crops
from milan_mm.engine.hooks import UnreadableImagesHook, peak_memory_mb
from milan_mm.errors import MilanError, UnreadableImageError

STRANGE = os.fsdecode(b'line\nfeed \xff.png')


def save(path, colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (20, 16), colour).save(path)
    return path


@pytest.fixture
def told(monkeypatch):
    """Lines that the log of the process receives."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger, keep = MMLogger.get_current_instance(), Keep()
    logger.addHandler(keep)
    yield lines
    logger.removeHandler(keep)


def names(root):
    return [os.path.relpath(path, root) for path in find_images(root)]


def test_only_regular_files_are_images(tmp_path, told, monkeypatch):
    save(tmp_path / 'a.png')
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'device.png').symlink_to('/dev/zero')
    (tmp_path / 'missing.png').symlink_to('nothing')
    (tmp_path / 'itself.png').symlink_to('itself.png')
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        listener.bind('socket.png')
        # What is not there is an image that cannot be read, and counts as one.
        assert names(tmp_path) == ['a.png', 'itself.png', 'missing.png']
    [line] = [line for line in told if str(tmp_path) in line]
    assert 'no regular file' in line and ', 3: ' in line and 'pipe.png' in line
    for name in ('pipe.png', 'device.png', 'missing.png', 'itself.png'):
        with pytest.raises(UnreadableImageError, match=name):
            open_image(tmp_path / name)


def test_each_real_folder_is_gone_through_once(tmp_path):
    for name in ('a', 'b'):
        save(tmp_path / f'data/{name}/1.png')
        (tmp_path / f'data/{name}/up').symlink_to('..')
    (tmp_path / 'data/a/other').symlink_to('../b')
    (tmp_path / 'data/b/other').symlink_to('../a')
    save(tmp_path / 'outside/2.png')
    (tmp_path / 'data/0').symlink_to('../outside')
    (tmp_path / 'data/c').symlink_to('../outside')
    assert names(tmp_path / 'data') == ['0/2.png', 'a/1.png', 'b/1.png']


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root reads all')
def test_a_closed_folder_is_named(tmp_path, told):
    save(tmp_path / 'a.png')
    (tmp_path / 'closed').mkdir(mode=0)
    assert names(tmp_path) == ['a.png']
    assert 'closed (Permission denied)' in told[-1]


def test_other_kinds_of_images_are_counted(tmp_path, told):
    for name in ('a.HEIC', 'b.heic', 'c.cr2', 'caption.txt'):
        (tmp_path / name).touch()
    with pytest.raises(MilanError, match='found .heic 2, .cr2 1'):
        find_images(tmp_path)
    Image.new('RGB', (8, 8), 'red').save(tmp_path / 'd.jfif', 'JPEG')
    assert names(tmp_path) == ['d.jfif']
    assert '.heic 2, .cr2 1; convert them to PNG or JPEG' in told[-1]
    assert open_image(tmp_path / 'd.jfif').getpixel((4, 4))[0] > 250


@pytest.mark.skipif('.avif' not in SUFFIXES, reason='this Pillow reads no AVIF')
def test_avif_is_read(tmp_path):
    Image.new('RGB', (32, 32), (250, 0, 0)).save(tmp_path / 'a.avif')
    assert names(tmp_path) == ['a.avif']
    assert open_image(tmp_path / 'a.avif').getpixel((4, 4))[0] > 240


def test_any_bytes_in_a_name(tmp_path):
    path = save(tmp_path / STRANGE)
    assert find_images(tmp_path) == [str(path)] and open_image(path).size == (20, 16)
    path.write_bytes(b'nothing')
    with pytest.raises(UnreadableImageError) as error:
        open_image(path)
    str(error.value).encode()  # valid, and in one line
    assert r'line\nfeed \udcff.png' in str(error.value) and '\n' not in str(error.value)


def test_notes_and_record_keep_a_name_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, 'MILAN_MM_UNREADABLE_NOTES', '')
    save(tmp_path / 'good.png')
    keep_notes(tmp_path / 'work')
    path = str(tmp_path / 'absent' / STRANGE)
    note_unreadable(path)
    assert noted_unreadable() == [path]

    class Runner:
        work_dir = str(tmp_path / 'work')
        logger = logging.getLogger('test')

        class train_dataloader:
            dataset = range(9)

    with pytest.raises(MilanError, match='No such file or directory'):  # says why
        hook = UnreadableImagesHook()
        hook.new = ['another']
        hook.report(Runner)
    written = (tmp_path / 'work/unreadable_images.txt').read_bytes()
    assert os.fsencode(path).replace(b'\n', rb'\n') + b'\n' in written
    assert written.count(b'\n') == 2


def test_the_log_takes_any_name(tmp_path):
    from milan_mm.compat.any_file_name import write_any_name
    logger, handler = logging.Logger('any'), logging.FileHandler(tmp_path / 'log', encoding='utf-8')
    logger.addHandler(handler)
    write_any_name(logger)
    logger.warning(STRANGE)
    handler.close()
    assert r'feed \udcff.png' in (tmp_path / 'log').read_text(encoding='utf-8')


class Scenes(BaseDataset):

    def load_data_list(self):
        return [dict(img_path=path) for path in self.metainfo['paths']]


@pytest.mark.parametrize('workers', [0, 1])
def test_images_that_vanish_are_counted(tmp_path, workers, monkeypatch):
    monkeypatch.setitem(os.environ, 'MILAN_MM_UNREADABLE_NOTES', '')
    for i in range(24):
        save(tmp_path / f'{i % 2}/{i:02}.png')
    images = central_crops(tmp_path, (16, 16))
    stream = ImageStream(images, 4, workers)
    assert len(images) == 24
    training = ImageFolder(tmp_path, pipeline=[LoadPILImage()])
    scenes = Scenes(metainfo=dict(paths=[training.path(i) for i in range(24)]),
                    pipeline=[LoadBGRImage()], serialize_data=False)
    shutil.rmtree(tmp_path / '1')
    assert len([n for numbers, _ in stream for n in numbers]) == 12
    assert len(stream.unreadable) == 12
    shutil.rmtree(tmp_path / '0')
    with pytest.raises(MilanError, match='none of the 24'):
        list(ImageStream(images, 4, workers))
    for dataset in (training, scenes):
        with pytest.raises(MilanError, match='20 images in a row .*No such file'):
            next(iter(DataLoader(dataset, num_workers=workers)))


def png(width, height, bits, colour, rows):
    def chunk(kind, data):
        return (struct.pack('>I', len(data)) + kind + data
                + struct.pack('>I', zlib.crc32(kind + data)))

    header = struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(rows, 1)) + chunk(b'IEND', b''))


def test_a_bound_on_pixels(tmp_path):
    for name, side in (('bomb.png', 13000), ('worse.png', 60000)):  # the latter above Pillow's own
        (tmp_path / name).write_bytes(png(side, side, 8, 2, b''))
        with pytest.raises(UnreadableImageError, match='pixels'):
            open_image(tmp_path / name)
    save(tmp_path / 'a.png')
    assert open_image(tmp_path / 'a.png', max_pixels=320).size == (20, 16)
    for loader in (LoadPILImage(max_pixels=319), LoadBGRImage(False, max_pixels=319)):
        with pytest.raises(UnreadableImageError, match='20 x 16 pixels are more than 319'):
            loader(dict(img_path=str(tmp_path / 'a.png')))


GRADIENT = np.arange(64).reshape(8, 8) / 63
REFUSED = dict(
    twelve_bits=((GRADIENT * 4095).astype(np.uint16), 'from 0 to 4095.*nearly black'),
    eight_bits=((GRADIENT * 255).astype(np.uint16), 'from 0 to 255.*nearly black'),
    tomography=((GRADIENT * 3000 - 1000).astype(np.int32), 'from -1000 to 2000.*black'),
    int32=((GRADIENT * 1e6).astype(np.int32), 'to 1e[+]06.*white'),
    small_int32=((GRADIENT * 255).astype(np.int32), 'nearly black'),
    nan=(np.where(GRADIENT > .5, np.nan, GRADIENT).astype(np.float32), 'no finite'),
    inf=(np.where(GRADIENT > .5, np.inf, GRADIENT).astype(np.float32), 'no finite'),
    negative=((GRADIENT - .5).astype(np.float32), 'from -0.5'),
    bright=((GRADIENT * 4000).astype(np.float32), 'white'),
    reflectance=((GRADIENT * 1.3).astype(np.float32), 'nearly black'),
    dark_reflectance=((GRADIENT * .05).astype(np.float32), 'nearly black'))


@pytest.mark.parametrize('case', REFUSED)
def test_no_image_turns_black_or_white_in_silence(case, tmp_path):
    values, words = REFUSED[case]
    Image.fromarray(values).save(tmp_path / 'a.tif')
    with pytest.raises(UnreadableImageError, match=words):
        open_image(tmp_path / 'a.tif')
    if np.isfinite(values).all():  # and a window makes it right
        window = [float(values.min()), float(values.max())]
        image = LoadPILImage(value_range=window)(dict(img_path=str(tmp_path / 'a.tif')))['img']
        assert np.abs(np.asarray(image)[..., 0] - GRADIENT * 255).max() <= 1.1


def test_what_is_right_stays(tmp_path):
    for values, most in (((GRADIENT * 65535).astype(np.uint16), 255),
                         (np.zeros((8, 8), np.uint16), 0), (np.zeros((8, 8), np.float32), 0),
                         (GRADIENT.astype(np.float32), 255),
                         ((GRADIENT * 200).astype(np.float32), 200)):
        Image.fromarray(values).save(tmp_path / 'a.tif')
        assert np.asarray(open_image(tmp_path / 'a.tif')).max() == most


def test_colours_of_sixteen_bits(tmp_path):
    """Pillow keeps their upper 8 bits."""
    for most, fine in ((65535, True), (4095, False), (255, False)):
        values = np.repeat((GRADIENT * most)[..., None], 3, 2).astype('>u2')
        rows = b''.join(b'\0' + row.tobytes() for row in values)
        (tmp_path / 'a.png').write_bytes(png(8, 8, 16, 2, rows))
        if fine:
            assert np.asarray(open_image(tmp_path / 'a.png')).max() == 255
        else:
            with pytest.raises(UnreadableImageError, match='4096 of 65535'):
                open_image(tmp_path / 'a.png')


def test_spoilt_images_end_decoded_or_in_one_error():
    """A part of what ``tests/faults/fuzz_images.py`` tries."""
    counts = fuzz(300, seed=1, keep=None)
    assert counts['fault'] == 0 and counts['refused'] > 100 and counts['decoded'] > 50


@pytest.mark.parametrize('value_range', ['0,1', (3, ), (2, 2)])
def test_a_range_that_is_none(value_range):
    with pytest.raises(MilanError, match='two different numbers'):
        LoadPILImage(value_range=value_range)


def test_a_loader_without_workers(told):
    cfg = Config(dict(train_dataloader=dict(num_workers=0, persistent_workers=True),
                      val_dataloader=dict(num_workers=2, persistent_workers=True)))
    settle_workers(cfg)
    assert 'persistent_workers' not in cfg.train_dataloader
    assert cfg.val_dataloader.persistent_workers
    assert 'train_dataloader has no workers: persistent_workers set aside' in told[-1]


def test_nothing_that_only_posix_has_is_imported_first(monkeypatch):
    """``import milan_mm`` works on Windows; the lab, which runs shell scripts, may not."""
    for path in (ROOT / 'milan_mm').rglob('*.py'):
        if 'lab' in path.parts:
            continue
        top = ast.parse(path.read_text(encoding='utf-8')).body
        imported = {name.name for node in top if isinstance(node, ast.Import)
                    for name in node.names} | {node.module for node in top
                                               if isinstance(node, ast.ImportFrom)}
        assert not imported & {'resource', 'fcntl', 'pwd', 'grp', 'termios', 'pty'}, path
    monkeypatch.setitem(sys.modules, 'resource', None)
    assert peak_memory_mb() == 0


def test_all_images_come_through_one_door():
    """Whatever opens or looks for images does so by decoding.py and finding.py."""
    doors = {'Image.open(': {'datasets/decoding.py', 'lab/quickstart/demo_images.py',
                             'analysis/robustness/digital.py'},
             'os.walk(': {'datasets/checks/class_folders.py'}, 'followlinks': set()}
    for words, allowed in doors.items():
        found = {path.relative_to(ROOT / 'milan_mm').as_posix()
                 for path in (ROOT / 'milan_mm').rglob('*.py')
                 if words in path.read_text(encoding='utf-8') and 'compat' not in path.parts}
        assert found <= allowed, words




def test_a_relative_work_folder_is_that_of_the_start(tmp_path, monkeypatch):
    """It was another one wherever the process went, as where an earlier run had left it."""
    monkeypatch.setenv('MILAN_MM_LISTINGS', '')
    save(tmp_path / 'images/one.png')
    os.utime(tmp_path / 'images', (1e9, 1e9))
    monkeypatch.chdir(tmp_path)
    keep_listings('work')
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert names(tmp_path / 'images') == ['one.png']
    assert len(list((tmp_path / 'work').glob('.listing_*'))) == 1
    assert not any((tmp_path / 'elsewhere').iterdir())


def test_a_list_is_kept_until_something_changes(tmp_path, monkeypatch):
    """Files and folders added, removed, renamed, turned into links or of another root are seen."""
    monkeypatch.setenv('MILAN_MM_LISTINGS', '')
    root, kept = tmp_path / 'ima ges', tmp_path / 'work'
    for name in ('a/1.png', 'a/2.png', 'é ü/deep/3.png', 'é ü/4.png', 'b/写真.png'):
        save(root / name)

    def settle():
        for folder in [root, *(p for p in root.rglob('*') if p.is_dir())]:
            os.utime(folder, (1e9 + len(str(folder)), ) * 2)

    def both():
        """What is found by the list that was kept; how many folders had to be read for it."""
        read = []
        monkeypatch.setattr(os, 'scandir', lambda path: read.append(path) or scan(path))
        monkeypatch.setenv('MILAN_MM_LISTINGS', str(kept))
        found = names(root)
        count = len(read)
        monkeypatch.setenv('MILAN_MM_LISTINGS', '')
        assert found == names(root)
        monkeypatch.setattr(os, 'scandir', scan)
        return count

    scan = os.scandir
    settle()
    assert both() == 5 and both() == 0
    save(root / 'a/5.png')
    assert both() == 1
    settle()
    both()
    (root / 'a/1.png').rename(root / 'a/6.png')
    assert both() == 1
    (root / 'é ü/deep').rename(root / 'é ü/other')
    assert both() >= 2
    shutil.rmtree(root / 'b')
    settle()
    both()
    os.replace(root / 'a', tmp_path / 'was')
    save(root / 'a/7.png')
    settle()
    assert both() >= 2 and both() == 0
    (root / 'a/link.png').symlink_to(tmp_path / 'was/2.png')
    settle()
    both()
    assert both() == 1  # whose target may change
    [file] = kept.glob('.listing_*')
    for damage in (b'[', b'{}', file.read_bytes().replace(b'7.png', b'8.png').replace(
            b'ima ges', b'other')):
        file.write_bytes(damage)
        assert both() == 4
    kept.chmod(0o500)
    both()
    kept.chmod(0o700)
