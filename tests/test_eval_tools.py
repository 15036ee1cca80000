# SPDX-License-Identifier: Apache-2.0
"""The tools around a trained encoder, run as a user runs them."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_eval import (
    ROOT,
    run_tool,
    run_tool_here,
    tiny_encoder,
    write_checkpoint,
    write_images,
)
from PIL import Image
from safetensors import safe_open

import milan_mm
from milan_mm import MilanError
from milan_mm.evaluation.extract import extract_features
from milan_mm.evaluation.hits import read_hits
from milan_mm.reports.curves import read_run, smooth


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp('tools')
    write_checkpoint(root / 'epoch_1.pth')
    for split, seed in (('train', 1), ('test', 2)):
        write_images(root / 'data' / split, seed=seed, prefixes=('twitter__', 'google__'))
    bad = root / 'data' / 'test' / 'red' / 'google__red_1.png'
    bad.write_bytes(b'\x89PNG cut off')
    return root


def test_eval_features(place):
    out = place / 'results' / 'milan.json'
    done = run_tool('eval_features', place / 'epoch_1.pth', '--data', place / 'data', '--feature',
                    'pooled', '--shift', 'twitter__', 'google__', '--workers', 1, '--out', out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result['knn']['top1'] > 80 and result['linear']['top1'] > 80
    assert result['knn']['k'] == 20 and result['linear']['solver'] == 'lbfgs'
    assert 0 <= result['shift']['knn'] <= 100 and len(result['shift']['directions']) == 2
    assert result['sizes'] == {'gallery': 36, 'queries': 35}
    assert [path.endswith('google__red_1.png') for path in result['unreadable']] == [True]
    assert f'{result["knn"]["top1"]:.2f} %' in done.stdout and 'right for 34.3 %' in done.stdout
    assert 'google__red_1.png' in done.stdout + done.stderr  # named in the log
    assert sorted(p.name for p in out.parent.iterdir()) == ['milan.hits.npz', 'milan.json']
    hits = read_hits(out.with_name('milan.hits.npz'))
    assert set(hits) == {'knn', 'linear', 'shift.knn', 'shift.linear'}
    for kind in ('knn', 'linear'):
        assert len(hits[kind].names) == 35 and 'red/google__red_1.png' not in hits[kind].names
        assert 100 * hits[kind].values.mean() == pytest.approx(result[kind]['top1'])
    ways = {way['queries']: way['knn']['top1'] for way in result['shift']['directions']}
    for prefix, top1 in ways.items():
        of_way = [hit for name, hit in zip(*hits['shift.knn']) if f'/{prefix}' in name]
        assert 100 * np.mean(of_way) == pytest.approx(top1)


def test_eval_features_of_random_weights_with_lars(place, capfd):
    out = place / 'random.json'
    done = run_tool_here(
        capfd, 'eval_features', place / 'epoch_1.pth', '--data', place / 'data', '--linear',
        '--probe', 'lars', '--lars-epochs', 5, '--random-weights', '--seed', 3, '--img-size', 24,
        32, '--workers', 0, '--out', out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result['weights'] == 'random' and 'knn' not in result
    assert result['linear']['solver'] == 'lars' and result['linear']['batch_size'] == 36
    assert result['img_size'] == [24, 32]


@pytest.mark.parametrize('tool, args, said', [
    ('eval_features', ['nowhere.pth', '--data', 'DATA'], 'no such checkpoint: nowhere.pth'),
    ('eval_features', ['CKPT', '--data', 'nowhere'], 'no such folder: nowhere'),
    ('eval_features', ['CKPT', '--data', 'DATA', '--img-size', '20'], 'not a multiple of 8'),
    ('eval_features', ['CKPT', '--data', 'DATA', '--shift', 'x__', 'y__'], "starts with 'x__'"),
    ('eval_features', ['CKPT', '--data', 'DATA', '--masking-teacher', 'x'], 'belongs to --masking'),
    ('eval_features', ['CKPT', '--data', 'DATA', '--masking', 'random', '--mask-ratio', '1'],
     'mask_ratio must be between 0 and 1'),
    ('eval_features', ['--teacher', 'TEACHER', '--data', 'DATA', '--masking', 'random'],
     'sees whole images'),
    ('extract_features', ['CKPT', '--data', 'DATA', '--out', 'x.csv'], '.npz or .safetensors'),
    ('extract_features', ['CKPT', '--data', 'DATA', '--out', 'x.npz', '--device', 'cuda:77'],
     'use --device cpu'),
    ('analyze_logs', ['nowhere'], 'no scalars of a run at nowhere'),
])
def test_mistakes_end_in_one_line_and_exit_2(place, capfd, tool, args, said):
    places = {'CKPT': place / 'epoch_1.pth', 'DATA': place / 'data',
              'TEACHER': ROOT / 'demo/teacher'}
    done = run_tool_here(capfd, tool, *(places.get(arg, arg) for arg in args))
    assert done.returncode == 2
    error = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(error) == 1 and said in error[0] and 'Traceback' not in done.stderr


@pytest.mark.parametrize('tool', ['eval_features', 'extract_features', 'analyze_logs'])
def test_help(tool, capfd):
    done = run_tool_here(capfd, tool, '--help')
    assert done.returncode == 0 and 'usage:' in done.stdout


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_extracted_features_come_back(place, suffix, capfd):
    out = place / 'out' / f'features{suffix}'
    done = run_tool_here(
        capfd, 'extract_features', place / 'epoch_1.pth', '--data', place / 'data' / 'test',
        '--out', out, '--kind', 'cls', 'patches', 'pooled', '--batch-size', 5)
    assert done.returncode == 0, done.stderr
    assert '1 could not be decoded' in done.stdout
    if suffix == '.npz':
        with np.load(out) as file:
            arrays, paths, grid = dict(file), file['paths'].tolist(), file['grid'].tolist()
    else:
        with safe_open(str(out), 'np') as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            paths, grid = (json.loads(file.metadata()[key]) for key in ('paths', 'grid'))
    assert len(paths) == 35 and 'red/google__red_1.png' not in paths and grid == [2, 3]
    model = milan_mm.get_model(place / 'epoch_1.pth')
    for row in (0, 17, 34):
        expected = model(place / 'data' / 'test' / paths[row])
        for kind in ('cls', 'pooled', 'patches'):
            assert arrays[kind].shape[0] == 35 and arrays[kind].dtype == np.float32
            torch.testing.assert_close(
                torch.from_numpy(arrays[kind][row]), getattr(expected, kind)[0])
    assert [p.name for p in out.parent.glob(f'*{suffix}')] == [out.name]
    assert not list(out.parent.glob('.*'))  # nothing temporary is left


def test_half_precision_and_nothing_half_written(place, tmp_path):
    model = milan_mm.get_model(place / 'epoch_1.pth')
    data = place / 'data' / 'train'
    extract_features(model, data, tmp_path / 'a.npz', ['pooled'], 'float16', workers=0,
                     progress=False)
    with np.load(tmp_path / 'a.npz') as file:
        assert file['pooled'].dtype == np.float16 and file['pooled'].shape == (36, 32)

    model.backbone.ln1.weight.data.fill_(1e6)
    with pytest.raises(MilanError, match='does not fit float16; use --dtype float32'):
        extract_features(model, data, tmp_path / 'a.npz', ['cls'], 'float16', workers=0,
                         progress=False)
    with np.load(tmp_path / 'a.npz') as file:  # the earlier file stands
        assert 'pooled' in file
    assert [p.name for p in tmp_path.iterdir()] == ['a.npz']


def test_extraction_keeps_a_batch_in_memory(tmp_path):
    """Patch features of many images, in a process whose memory could not hold them."""
    write_checkpoint(tmp_path / 'a.pth', tiny_encoder(img_size=(256, 256)))
    (tmp_path / 'data').mkdir()
    for i in range(200):
        Image.new('RGB', (8, 8), (i, 0, 0)).save(tmp_path / 'data' / f'{i:03d}.png')
    script = (
        'import resource, sys\n'
        'import milan_mm\n'
        'from milan_mm.evaluation.extract import extract_features\n'
        'model = milan_mm.get_model(sys.argv[1])\n'
        'peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n'
        'run = lambda out: extract_features(model, sys.argv[2], out, ["patches"], batch_size=2,\n'
        '                                   workers=0, progress=False)\n'
        'model([sys.argv[2] + "/000.png"] * 2)\n'
        'before = peak()\n'
        'run(sys.argv[3])\n'
        'print(peak() - before)\n')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script, *map(str, (
            tmp_path / 'a.pth', tmp_path / 'data', tmp_path / 'out.npz'))],
        capture_output=True, text=True, timeout=240,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stderr[-2000:]
    size = (tmp_path / 'out.npz').stat().st_size / 2**20
    grown = float(done.stdout.splitlines()[-1])
    assert size > 25 and grown < size / 2, (size, grown)


def write_scalars(folder, records, tail=''):
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(
        ''.join(json.dumps(record) + '\n' for record in records) + tail)


@pytest.fixture
def runs(tmp_path):
    """One run, resumed after it was killed between two log lines; and another in one piece."""
    write_scalars(tmp_path / 'milan' / '20240101_000000' / 'vis_data',
                  [dict(loss=9.0 - i, lr=1e-3, step=i) for i in range(1, 7)], '{"loss": 2.0, "st')
    write_scalars(tmp_path / 'milan' / '20240102_000000' / 'vis_data',
                  [dict(loss=0.5, step=5), {'loss': 0.25, 'step': 6, 'eval/knn_top1': 40.0}])
    write_scalars(tmp_path / 'mae' / '20240101_000001' / 'vis_data',
                  [dict(loss=float(i), note='text', step=i) for i in range(1, 4)])
    return tmp_path


def test_curves_of_a_resumed_run(runs):
    run = read_run(runs / 'milan')
    assert run.label == 'milan'
    assert run.curves['loss'][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert run.curves['loss'][1].tolist() == [8, 7, 6, 5, .5, .25]
    first = runs / 'milan' / '20240101_000000'
    for path in (first, first / 'vis_data', first / 'vis_data' / 'scalars.json'):
        assert read_run(path).curves['loss'][1].tolist() == [8, 7, 6, 5, 4, 3]
        assert read_run(path).label == 'milan'
    assert 'note' not in read_run(runs / 'mae').curves


def test_evaluations_count_in_epochs_and_cut_no_training_off(tmp_path):
    """As mmengine logs a finetuning: after a resume its curve of the loss began there."""
    def epoch(number, loss):
        return [*(dict(loss=loss, iter=100 * number + i, epoch=number, step=100 * number + i)
                  for i in (50, 100)), {'accuracy/top1': 10. * number, 'step': number + 1}]
    write_scalars(tmp_path / '20240101_000000/vis_data',
                  [r for i in range(6) for r in epoch(i, 9. - i)])
    write_scalars(tmp_path / '20240102_000000/vis_data',
                  [r for i in range(5, 7) for r in epoch(i, .5)])
    curves = read_run(tmp_path).curves
    assert curves['loss'][0].tolist() == [50 * i for i in range(1, 15)]
    assert curves['loss'][1].tolist() == [9, 9, 8, 8, 7, 7, 6, 6, 5, 5, .5, .5, .5, .5]
    assert curves['accuracy/top1'][0].tolist() == list(range(1, 8))


def test_smoothing():
    assert smooth(np.array([3.0, 3.0, 3.0]), 0.9) == pytest.approx([3, 3, 3])
    assert smooth(np.array([1.0, 2.0]), 0.0).tolist() == [1, 2]
    # Weights of the past: 1/2 · .5, 1 · .5, over their sum.
    assert smooth(np.array([0.0, 3.0]), 0.5)[1] == pytest.approx(2)
    assert smooth(np.array([1.0, np.nan, 1.0]), 0.5) == pytest.approx([1, 1, 1])


def test_analyze_logs(runs, capfd):
    out = runs / 'curves.png'
    done = run_tool_here(
        capfd, 'analyze_logs', runs / 'milan', runs / 'mae', '--keys', 'loss', 'eval/knn_top1',
        '--labels', 'A', 'B', '--smooth', .5, '--out', out)
    assert done.returncode == 0, done.stderr
    with Image.open(out) as image:
        assert image.width > image.height > 100
        assert len(set(image.convert('RGB').getdata())) > 10
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ['B', 'eval/knn_top1', *'-----'] in rows
    assert ['A', 'eval/knn_top1', '40', '40', '40', '40', '6'] in rows

    listed = run_tool_here(capfd, 'analyze_logs', runs / 'milan', '--list')
    assert listed.stdout.strip() == 'milan: eval/knn_top1, loss, lr'
    wrong = run_tool_here(capfd, 'analyze_logs', runs / 'milan', '--keys', 'los')
    assert wrong.returncode == 2 and "no run has 'los'; there are eval/knn_top1, loss, lr" in \
        wrong.stderr
