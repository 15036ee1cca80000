# SPDX-License-Identifier: Apache-2.0
"""The quickstart, through its own command line."""
import json
import time

import numpy as np
import pytest
from conftest import run_tool
from PIL import Image

from milan_mm.quickstart.results import summarise_seeds, table


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    """--quick on the drawings that come with the project."""
    work = tmp_path_factory.mktemp('quickstart')
    out = run_tool('quickstart.py', '--quick', '--work-dir', work, timeout=600)
    return work, out


def test_results(quick):
    work, out = quick
    results = json.loads((work / 'results.json').read_text())
    for kind in ('knn', 'linear'):
        row = results['classification'][kind]
        assert set(row) == {'milan', 'mae', 'random', 'teacher'}
        assert all(0 <= value <= 100 for value in row.values())
        assert set(results['style_shift'][kind]) == set(row)
    assert set(results['seconds']) == {'pictures', 'teacher', 'milan', 'mae', 'eval'}
    assert results['chance'] > 0 and results['sizes']['test_pictures'] > 0
    assert 'torch' in results['versions'] and 'linear probe' in out
    assert (work / 'report.html').stat().st_size > 50_000


def test_progress_has_an_eta(quick):
    assert 'eta' in quick[1] and 'left' in quick[1]
    assert '[1/6] pictures' in quick[1] and '[5/6] eval' in quick[1]


def test_held_out_concepts_are_held_out_in_both_styles(quick):
    split = json.loads((quick[0] / 'data/meta.json').read_text())['split']
    assert not set(split['train']) & set(split['test'])
    stems = {part: {p.name.split('__')[1] for p in (quick[0] / 'data' / part).rglob('*.png')}
             for part in ('train', 'test')}
    assert stems['train'] and stems['test'] and not stems['train'] & stems['test']


def test_a_second_call_runs_no_stage_again(quick):
    work, _ = quick
    before = (work / 'milan/epoch_1.pth').stat().st_mtime_ns
    start = time.time()
    out = run_tool('quickstart.py', '--quick', '--work-dir', work)
    assert out.count('finished before') == 5 and time.time() - start < 120
    assert (work / 'milan/epoch_1.pth').stat().st_mtime_ns == before


def own_pictures(folder, classes=3, each=8):
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f'Klasse {c}').mkdir(parents=True)
        for i in range(each):
            size = (50 + 9 * i, 70)
            pixels = rng.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
            pixels[..., c % 3] += 100
            Image.fromarray(pixels).save(folder / f'Klasse {c}' / f'bild {i} ü.jpg')
    (folder / 'Klasse 0' / 'bild 0 ü.txt').write_text('ein Bild <b>')
    (folder / 'Klasse 0' / 'broken.jpg').write_bytes(b'no picture')
    return folder


def test_own_pictures(tmp_path):
    folder = own_pictures(tmp_path / 'mine')
    out = run_tool('quickstart.py', '--quick', '--pictures', folder, '--work-dir',
                   tmp_path / 'work', timeout=400)
    results = json.loads((tmp_path / 'work/results.json').read_text())
    assert results['sizes']['train_pictures'] + results['sizes']['test_pictures'] == 24
    assert 'style_shift' not in results and 'broken.jpg' in out
    page = (tmp_path / 'work/report.html').read_text()
    assert 'Klasse 0' in page and '<b>' not in page.split('ein Bild')[-1][:5]


def test_too_few_pictures_say_how_many_are_needed(tmp_path):
    folder = own_pictures(tmp_path / 'mine', classes=1)
    out = run_tool('quickstart.py', '--quick', '--pictures', folder, '--work-dir',
                   tmp_path / 'work', code=2)
    assert 'at least 2' in out and 'Traceback' not in out
    out = run_tool('quickstart.py', '--pictures', tmp_path / 'absent', '--work-dir',
                   tmp_path / 'work', code=2)
    assert 'absent' in out and 'Traceback' not in out


def test_seeds_are_summarised():
    def one(seed, value):
        row = dict(milan=value, mae=1., random=2., teacher=3.)
        return dict(classification=dict(knn=row, linear=row), seconds=dict(eval=2.), seeds=[seed],
                    chance=5.)

    summary = summarise_seeds([one(0, 40.), one(1, 44.)])
    assert summary['classification']['knn']['milan'] == 42
    assert summary['classification']['knn']['milan_std'] == pytest.approx(8**.5)
    assert summary['seeds'] == [0, 1] and summary['seconds']['eval'] == 4
    assert '42.0 ±2.8' in table(summary)
