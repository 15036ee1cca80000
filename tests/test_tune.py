# SPDX-License-Identifier: Apache-2.0
"""Advice for one's own images: choices, split, plan, decision, and a whole call (slow)."""
import json
import statistics
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY_VIT
from helpers_eval import point_loggers_at, write_images
from helpers_pages import check_page
from mmengine.config import Config

from milan_mm.cli.main import main
from milan_mm.config.read import read_config
from milan_mm.engine.train import prepare_config
from milan_mm.errors import MilanError
from milan_mm.inference.encoders import get_teacher
from milan_mm.lab.tune.advice import decide, pair, start_of
from milan_mm.lab.tune.choices import DEFAULT, make_choices
from milan_mm.lab.tune.config_file import config_text, merged, nested
from milan_mm.lab.tune.images import split_images
from milan_mm.lab.tune.measure import How, Judge
from milan_mm.lab.tune.plan import (
    LEAST_STEPS,
    Pace,
    Rung,
    fit_steps,
    make_rungs,
    refuse_too_few,
    seconds_of,
)
from milan_mm.lab.tune.prepare import prepare
from milan_mm.lab.tune.run import Trial
from milan_mm.registry import MODELS

QUICK = 'milan_mm::quickstart/milan.py'


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp('labelled')
    write_images(folder, 60)
    return folder


@pytest.fixture
def tiny(tmp_path, teacher_folder):
    """A config that trains within a second."""
    path = tmp_path / 'tiny.py'
    path.write_text(config_text(QUICK, dict(
        model=dict(backbone=dict(arch=dict(_delete_=True, **TINY_VIT), img_size=32),
                   target_generator=dict(pretrained=str(teacher_folder)),
                   neck=dict(decoder_embed_dim=32, decoder_depth=1)),
        train_dataloader=dict(batch_size=8, dataset=dict(pipeline=[
            dict(type='milan_mm.LoadPILImage'),
            dict(type='milan_mm.RandomResizedCropAndFlip', size=32, scale=(.2, 1.)),
            dict(type='milan_mm.PackImageInputs')])))))
    return path


def tune(capfd, *words):
    """`milan tune` in this process; gives exit code and all it said."""
    point_loggers_at(sys.stdout)
    capfd.readouterr()
    try:
        code = main(['tune', *map(str, words)])
    finally:
        point_loggers_at(sys.__stdout__)
    return code, ''.join(capfd.readouterr())


def test_every_choice_is_a_model(tiny, tmp_path):
    """As the file says that a run is started with: each builds, and no two are the same."""
    cfg = read_config(tiny)
    choices = make_choices(cfg, True, 2, 'weights.pth')
    assert [one.name for one in choices if one.init_from] == [
        'default_from_weights', 'random_40_from_weights', 'align_random_40_from_weights']
    seen = []
    for choice in choices:
        path = tmp_path / f'{choice.name}.py'
        path.write_text(config_text(str(tiny), choice.changes))
        cfg = prepare_config(path, None, None, 'none', None, training=True)
        model = MODELS.build(cfg.model)
        masks = model.mask_generator
        seen.append((type(model).__name__, type(masks).__name__, round(masks.mask_ratio, 2),
                     getattr(masks, 'temperature', 1), masks.predicted,
                     type(model.target_generator).__name__, bool(choice.init_from)))
        assert choice.visible == pytest.approx(1 - masks.mask_ratio)
        if choice.init_from:  # a pickle that was trusted here is trusted by what is written too
            asked = start_of(choice, trust=True)['model']
            assert asked.get('trust_init_from') or asked['backbone']['init_cfg']['trust']
            MODELS.build(Config(dict(model=merged(cfg.model.to_dict(), asked))).model)
    assert len(set(seen)) == len(seen) == 15
    assert 'MaskAlign' in {one[0] for one in seen}
    assert 'semantic_75' not in {one.name for one in choices}  # it is the default
    twice = read_config(tiny)
    twice.model.mask_generator.views = 2
    assert 'semantic_75' in {one.name for one in make_choices(twice, True, 2)}
    own = make_choices(read_config('milan_mm::milan/own_images.py'), True, 2)
    assert {'semantic_75', 'random_75'} <= {one.name for one in own}
    assert 'random_75_half' not in {one.name for one in own}  # it is the default
    without = make_choices(read_config(tiny), False, None)
    assert not {'mae', 'align_random_40'} & {one.name for one in without}
    with pytest.raises(MilanError, match='tune changes the masks and the algorithm of a MILAN'):
        make_choices(read_config('milan_mm::quickstart/mae.py'), True, 2)


def test_config_file_reads_back(tmp_path):
    changes = merged(nested({'model.a.b': 1, 'model.a.c': 'x'}),
                     dict(model=dict(a=dict(_delete_=True, d={'no name': 2})), e=(1, 2)))
    assert changes == dict(model=dict(a=dict(_delete_=True, d={'no name': 2})), e=(1, 2))
    (tmp_path / 'base.py').write_text('model = dict(a=dict(b=3), f=4)\n')
    long = dict(model=dict(g=dict(h='h' * 60, i='i' * 60)))
    (tmp_path / 'own.py').write_text(
        config_text(str(tmp_path / 'base.py'), merged(changes, long), ['why', '']))
    cfg = Config.fromfile(tmp_path / 'own.py')
    assert cfg.model.to_dict() == dict(a=dict(d={'no name': 2}), f=4, g=long['model']['g'])
    assert cfg.e == (1, 2)


def test_split_is_fixed_and_apart(labelled, image_folder, tmp_path):
    """What measures is never trained on, though the labelled folder is the training folder."""
    first, again = (split_images(str(labelled), str(labelled)) for _ in range(2))
    assert first == again and len(first.queries) == 45 and len(first.gallery) == 135
    assert not {path for path, _ in first.queries} & set(first.train) and len(first.train) == 135
    (tmp_path / 'link').symlink_to(labelled)
    linked = split_images(str(tmp_path / 'link'), str(labelled))
    assert len(linked.train) == 135  # by their real path
    free = split_images(str(labelled), None)
    assert len(free.queries) == 40 and len(free.train) == 140 and not free.gallery
    with pytest.raises(MilanError, match='of which 8 are left to train on'):
        split_images(str(image_folder), None)


def test_teacher_is_measured_as_the_students_are(tiny, labelled, tmp_path):
    """Its accuracy was that of the central .875, theirs of the whole image, as the config says."""
    def crop_of(**options):
        tuner = prepare(str(labelled), None, 1, tmp_path, config=str(tiny), options=options)
        return get_teacher(*tuner.judge.teacher).crop_ratio
    assert crop_of() == 1  # of configs/_base_/quickstart.py
    assert crop_of(**{'default_hooks.describe.crop_ratio': .9}) == .9
    assert crop_of(**{'default_hooks.describe.crop_ratio': None}) == .875


def test_judge_by_hand(labelled, tmp_path, teacher_folder):
    """Colours are told apart by nearly any encoder; a teacher shares all its own neighbours."""
    teacher = (str(teacher_folder), (32, 32), 8, 1.)
    known = Judge(split_images(str(labelled), str(labelled)), tmp_path / 'a',
                  How(workers=0), teacher).teacher_scores()
    assert set(known) <= {0., 100.} and len(known) == 45 and statistics.mean(known) > 60
    judge = Judge(split_images(str(labelled), None), tmp_path / 'b', How(workers=0), teacher)
    assert judge.teacher_scores() is None

    assert judge._scores(get_teacher(*teacher)) == [100.] * 40
    torch.manual_seed(0)
    blind = get_teacher(*teacher)
    blind.encode = lambda images: SimpleNamespace(cls=torch.randn(len(images), blind.dim))
    assert 5 < statistics.mean(judge._scores(blind)) < 50  # 10 of 39 by chance


def test_plan_by_hand():
    rungs = make_rungs(11)
    assert rungs == [Rung(11, 1), Rung(6, 2), Rung(3, 4), Rung(4, 4)]
    pace = Pace(fixed=10, step=.5)
    # 24 runs of 10 s; 11 + 12 + 12 + 16 = 51 units, of which all cost the same
    assert seconds_of(30, pace, rungs, [1.] * 11) == pytest.approx(240 + 51 * 30 * .5)
    steps = fit_steps(3600, pace, rungs, [1.] * 11, most=10**6)
    assert seconds_of(steps, pace, rungs, [1.] * 11) <= 3600 < 1.1 * seconds_of(
        steps + 1, pace, rungs, [1.] * 11)
    assert fit_steps(3600, pace, rungs, [1.] * 10 + [4.], 10**6) < steps
    assert fit_steps(10**9, pace, rungs, [1.] * 11, most=400) == 100
    refuse_too_few(LEAST_STEPS, .3, 0, pace, rungs, [1.] * 11)
    with pytest.raises(MilanError, match=r'24 runs.* take 0\.32 hours'):
        refuse_too_few(12, .1, 60, pace, rungs, [1.] * 11)


def test_decision_by_hand():
    """Better on every image by 10, with noise between the seeds that pairs take out."""
    def tuner(*differences, noise=0.):
        base = {seed: [float(50 + i % 7 + 9 * seed) for i in range(40)] for seed in (1, 2)}
        trials = []
        for seed, difference in zip((1, 2), differences):
            other = [v + difference + noise * (-1)**i for i, v in enumerate(base[seed])]
            trials += [Trial(DEFAULT, 1, 60, seed, base[seed], 1.),
                       Trial('b', 1, 60, seed, other, 1.)]
        choices = {name: SimpleNamespace(title=name) for name in (DEFAULT, 'b')}
        return SimpleNamespace(
            rungs=[None, None], best='b', choices=choices, trials=trials,
            of_rung=lambda n, name: [t for t in trials if t.rung == n and t.choice == name])
    sure = decide(tuner(10, 11))
    assert sure.choice == 'b' and sure.final.difference == pytest.approx(10.5)
    assert sure.final.by_seed == pytest.approx([10, 11]) and sure.words.startswith('Take b')
    assert decide(tuner(10, 11, noise=50)).choice == DEFAULT  # two errors are 16
    assert decide(tuner(12, -1)).choice == DEFAULT  # one seed says otherwise
    assert decide(tuner(-5, -5)).words.startswith('Keep the default')
    assert decide(tuner()).final is None
    noisy = pair([Trial('b', 0, 1, 0, [0., 100.], 1.)], [Trial(DEFAULT, 0, 1, 0, [0., 0.], 1.)])
    assert noisy.difference == 50 and noisy.error == pytest.approx(2 * 70.7107 / 2**.5, abs=1e-3)


def test_refusals(capfd, labelled, tmp_path, tiny):
    for words, why in ((['--hours', 0], '--hours must be above 0, got 0'),
                       (['--hours', 1, '--init-from', 'no.pth'], '--init-from: no such file: no'),
                       (['--hours', 1, '--only', 'no'], '--only: there is no choice no; there are '
                        'semantic_60, semantic_40, random_75')):
        code, said = tune(capfd, '--data-root', labelled, '--config', tiny, '--work-dir',
                          tmp_path / 'work', *words)
        assert code == 2 and why in said and not (tmp_path / 'work').exists()


@pytest.mark.slow
def test_a_whole_call(capfd, labelled, tmp_path, tiny, monkeypatch):
    """Too few hours say how many; then table, page, config; what is finished is kept."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    work = tmp_path / 'a <b> c'
    call = ['--data-root', labelled, '--labels', labelled, '--config', tiny, '--workers', 0,
            '--work-dir', work, '--only', 'random_40', 'align_random_40',
            '--cfg-options', 'train_cfg.max_epochs=20']
    code, said = tune(capfd, *call, '--hours', 0.001)
    assert code == 2 and 'are too few: 7 runs, the first of 30 steps' in said
    assert not (work / 'tuned.py').exists()
    code, shown = tune(capfd, *call, '--hours', 3)
    assert code == 0, shown
    assert 'fresh seeds' in shown and 'min left in this rung' in shown
    said = json.loads((work / 'tune.json').read_text())
    assert said['words'] in shown and len(said['runs']) == 7
    check_page(work / 'tune.html', 'a <b> c')
    assert (work / 'plot.png').stat().st_size > 1000
    text = (work / 'tuned.py').read_text()
    assert said['words'].split(':')[0] in text.replace('\n# ', ' ')
    assert not list(work.rglob('*.pth'))
    prepare_config(work / 'tuned.py', None, str(labelled), 'none', None, training=True)
    assert tune(capfd, *call, '--hours', 3)[1].count('finished before') == 7
    assert json.loads((work / 'tune.json').read_text())['table'] == said['table']
