# SPDX-License-Identifier: Apache-2.0
"""Weights that come with the package: made of a quickstart, found by name, taken everywhere."""
import json
import re
import runpy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, milan_config
from helpers_eval import write_images
from mmengine.config import Config
from safetensors.torch import load_file
from test_visualize import mae_config, write_run

import milan_mm
from milan_mm.analysis.explore.load import load_explorer
from milan_mm.checkpoints import zoo
from milan_mm.cli.main import main
from milan_mm.engine.train import start_from
from milan_mm.errors import MilanError
from milan_mm.models import CLIPTargetGenerator
from milan_mm.registry import MODELS

make_demo_models = runpy.run_path(str(ROOT / 'demo/make_demo_models.py'))['main']
MILAN = 'demo/milan-vit-2x48'


@pytest.fixture(scope='module')
def work(tmp_path_factory, teacher_folder):
    """What a quickstart leaves, of tiny students that have learned nothing."""
    work = tmp_path_factory.mktemp('quickstart')
    write_images(work / 'data/train')
    write_images(work / 'data/test', per_class=2, seed=1)
    (work / 'data/meta.json').write_text(json.dumps(dict(sizes=dict(train_images=18))))
    for name, model in (('milan', milan_config(teacher_folder)), ('mae', mae_config())):
        (work / name).mkdir()
        path = write_run(work / name / 'epoch_1.pth', model)
        content = torch.load(path, weights_only=True)
        backbone = model['backbone']
        content['meta']['milan_mm'] = dict(
            algorithm='MILAN', encoder=dict(arch=backbone['arch'], img_size=[32, 32],
                                            patch_size=8),
            pixel_mean=[120., 110., 100.], pixel_std=[50., 60., 70.])
        torch.save(content, path)
    return work


@pytest.fixture(scope='module')
def shipped(work, teacher_folder, tmp_path_factory):
    """A folder of resources with these weights, made by the script."""
    resources = tmp_path_factory.mktemp('resources')
    shutil.copytree(teacher_folder, resources / 'demo/teacher')
    (work / 'eval').mkdir()
    for number, name in enumerate(('milan', 'mae')):  # as milan eval writes them
        (work / f'eval/{name}.json').write_text(json.dumps(
            dict(knn=dict(top1=30 + number + 1 / 3), linear=dict(top1=40. + number))))
    (resources / 'demo/teacher/metrics.json').write_text(json.dumps(dict(knn=50., linear=60.)))
    make_demo_models([str(work), '--teacher', str(resources / 'demo/teacher'), '--out',
                      str(resources / 'demo/models')])
    return resources


@pytest.fixture(autouse=True)
def here(shipped, monkeypatch, tmp_path):
    """An empty folder to work in, of a package that has these weights."""
    monkeypatch.setattr(zoo, 'RESOURCES', shipped)
    monkeypatch.chdir(tmp_path)
    zoo.entries.cache_clear()
    yield
    zoo.entries.cache_clear()


def test_each_says_what_it_is(work):
    entries = {entry.name: entry for entry in milan_mm.list_models('demo/')}
    assert set(entries) == {MILAN, 'demo/mae-vit-2x48', 'demo/teacher'}
    milan = entries[MILAN]
    assert milan.config == 'milan_mm::quickstart/milan.py' and milan.teacher == 'demo/teacher'
    assert milan.metrics == {'held-out concepts, k-NN top-1': 30.3,
                             'held-out concepts, linear probe top-1': 40.0}
    assert entries['demo/mae-vit-2x48'].teacher is None
    for entry in entries.values():
        assert len(entry.sha256) == 64 and entry.licence and entry.data


def test_the_same_model_in_half_the_bytes(work):
    source = work / 'milan/epoch_1.pth'
    path = zoo.fetch(MILAN)
    assert path.stat().st_size < 0.7 * source.stat().st_size
    images = sorted((work / 'data/test').rglob('*.png'))
    ours, theirs = (milan_mm.get_model(one)(images).patches for one in (MILAN, source))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
    whole = torch.load(source, weights_only=True)['state_dict']
    assert set(load_file(path)) == set(whole)  # decoder too


def test_a_changed_file_is_refused():
    path = zoo.fetch(MILAN)
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        with pytest.raises(MilanError, match='is another file'):
            milan_mm.get_model(MILAN)
    finally:
        path.write_bytes(kept)
    milan_mm.get_model(MILAN)


@pytest.mark.parametrize('words', [
    'extract NAME --data DATA --out a.npz --workers 0',
    'eval --teacher demo/teacher --data WORK --knn --workers 0',
    'visualize NAME DATA --num-images 1 --num-masks 1 --ratios .5 --out a',
    'convert NAME a.pth --to timm',
    'export NAME a --to timm',
    'doctor --teacher demo/teacher --work-dir a'], ids=lambda words: ' '.join(words.split()[:2]))
def test_commands_take_the_name(words, work, capsys):
    names = dict(NAME=MILAN, DATA=str(work / 'data/test'), TRAIN=str(work / 'data/train'),
                 WORK=str(work / 'data'))
    code = main([names.get(word, word) for word in words.split()])
    said = capsys.readouterr()
    if words.startswith('doctor'):  # about the machine it has its own opinion
        assert 'demo/teacher: ' in said.out and 'targets of width 48' in said.out
        return
    assert code == 0, said.err


def test_the_page_to_play_with_takes_the_name(work):
    explorer, facts = load_explorer(
        Path(MILAN), Path('demo/mae-vit-2x48'), images=work / 'data/test')
    assert explorer.names == [MILAN, 'demo/mae-vit-2x48'] and 'with its teacher' in facts[MILAN]


def test_training_starts_from_the_name_and_learns_from_the_name():
    model = MODELS.build(milan_config('demo/teacher', init_from=MILAN))
    model.init_weights()
    for name, value in load_file(zoo.fetch(MILAN)).items():
        torch.testing.assert_close(model.state_dict()[name], value.float())
    cfg = Config(dict(model=milan_config('demo/teacher')))
    start_from(cfg, MILAN, False)  # --init-from
    assert cfg.model.init_from == str(zoo.fetch(MILAN))


@pytest.mark.parametrize('words', [
    'extract demo/milan --data . --out a.npz', 'diagnose demo/milan --data .',
    'visualize demo/milan .', 'convert demo/milan a.pth --to timm',
    'explore demo/milan --port 0',
    'train milan_mm::quickstart/milan.py --init-from demo/milan',
    'tune --data-root DATA --hours 1 --teacher demo/teacher --init-from demo/milan'])
def test_an_unknown_name_gets_the_nearest(words, work, capsys):
    assert main(words.replace('DATA', str(work / 'data/train')).split()) == 2
    assert f'did you mean {MILAN}?' in capsys.readouterr().err


def test_an_unknown_teacher_gets_the_nearest():
    with pytest.raises(MilanError, match=r'not found: .demo/teachr..*did you mean demo/teacher\?'):
        CLIPTargetGenerator(pretrained='demo/teachr')


def test_an_image_tower_of_open_clip_is_an_encoder_like_others(work, teacher_folder):
    """The tower's own features before its projection, heads and pixels as its folder says."""
    images = sorted((work / 'data/test').rglob('*.png'))
    model = milan_mm.get_model('demo/teacher', crop_ratio=1)
    assert model.backbone.layers[0].attn.num_heads == 2
    np.testing.assert_allclose(model.pixel_mean.flatten(), [127.5, 102, 76.5], rtol=1e-5)
    visual = CLIPTargetGenerator(pretrained=str(teacher_folder)).tower.visual
    pixels = model.normalise(model.load(images))
    with torch.no_grad():
        visual.proj, visual.output_tokens = None, True
        cls, _ = visual(pixels)
    torch.testing.assert_close(model(pixels).cls, cls, rtol=1e-4, atol=1e-4)


def test_a_name_that_is_there_as_a_path_is_the_path(work, tmp_path):
    (tmp_path / 'demo').mkdir()
    shutil.copy(work / 'mae/epoch_1.pth', tmp_path / MILAN)
    assert zoo.located(MILAN).resolve() == tmp_path / MILAN


def test_what_the_package_has_is_whole():
    """The real ones, whichever they are."""
    shown = json.loads((ROOT / 'demo/models/models.json').read_text())
    files = {path.relative_to(ROOT).as_posix()
             for path in (ROOT / 'demo/models').glob('*.safetensors')}
    assert files == {entry['file'] for entry in shown.values()} - {'demo/teacher'}


def test_the_tour_runs(monkeypatch, tmp_path):
    """demo/milan_tour.ipynb, with the real weights where they are."""
    if list((ROOT / 'demo/models').glob('*.safetensors')):
        monkeypatch.setattr(zoo, 'RESOURCES', ROOT)
        zoo.entries.cache_clear()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    tour = runpy.run_path(str(ROOT / 'demo/run_tour.py'))
    kept = json.loads(tour['NOTEBOOK'].read_text(encoding='utf-8'))
    assert nbformat_errors(kept) == []
    made = tour['execute'](json.loads(json.dumps(kept)))
    said = [''.join(''.join(o.get('text', '')) for o in cell.get('outputs', ()))
            for cell in made['cells']]
    assert sum('image/png' in o.get('data', {}) for cell in made['cells']
               for o in cell.get('outputs', ())) == 3
    text = '\n'.join(said)
    assert 'k-NN top-1' in text and 'run/epoch_1.pth (4, 384)' in text
    difference = float(re.search('difference of the features: (.*)', text)[1])
    assert difference < 1e-4
    assert str(tmp_path) not in text and len(json.dumps(made)) < 2**20


def nbformat_errors(notebook):
    """What the format 4.5 asks of a notebook and its cells, and this one has not."""
    wrong = [key for key, value in (('nbformat', 4), ('nbformat_minor', 5))
             if notebook[key] != value]
    for cell in notebook['cells']:
        needed = {'cell_type', 'metadata', 'source', 'id'} | (
            {'outputs', 'execution_count'} if cell['cell_type'] == 'code' else set())
        wrong += [f'{cell.get("id")}: {key}' for key in needed ^ set(cell)]
    return wrong


def test_the_tour_shows_what_it_gave():
    """With the weights that the package has, so that a page can show it."""
    tour = json.loads((ROOT / 'demo/milan_tour.ipynb').read_text(encoding='utf-8'))
    text = json.dumps(tour)
    assert len(text) < 2**20 and '/tmp/' not in text and '/home/' not in text
    shown = re.findall(r'^(demo/\S+) \{\'held', '\n'.join(
        ''.join(o['text']) for cell in tour['cells'] for o in cell.get('outputs', ())
        if 'text' in o), re.MULTILINE)
    # demo/make_demo_models.py runs it.
    real = json.loads((ROOT / 'demo/models/models.json').read_text())
    assert set(shown) == (set(real) if len(real) > 1 else set())
