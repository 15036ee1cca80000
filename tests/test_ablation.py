# SPDX-License-Identifier: Apache-2.0
"""Ablation studies: the table's arithmetic, a study's runs, and the cells that ship."""
import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from helpers_eval import run_tool_here
from helpers_pages import check_page
from mmengine.config import Config

from milan_mm.errors import MilanError
from milan_mm.evaluation.hits import write_hits
from milan_mm.lab.ablation.differences import config_changes
from milan_mm.lab.ablation.page import verdict
from milan_mm.lab.ablation.run import StudyRunner, read_figures, visible_devices
from milan_mm.lab.ablation.study import Measurement, read_study
from milan_mm.lab.ablation.table import as_csv, as_text, compare, make_rows
from milan_mm.lab.quickstart.composition import COMPOSITIONS
from milan_mm.models import CLIPTargetGenerator
from milan_mm.registry import MODELS

# What a cell may change, by the first word of its name.
PARTS = dict(
    target=('model.target_generator', 'model.importance_generator', 'model.head.loss',
            'custom_hooks'),
    decoder=('model.neck', ), masking=('model.mask_generator', ), loss=('model.head.tokens', ),
    seen=('model.head.seen_weight', 'model.mask_generator'),
    predicted=('model.mask_generator', 'model.head.seen_weight'))
# Scale and name -> a cell that ships, and the one it is compared with.
CELLS = {f'{"imagenet" if path.stem == "imagenet" else "quickstart"}-{name}':
         (cell, study.cells[study.base])
         for path in sorted((ROOT / 'studies').glob('*.py')) for study in [read_study(path)]
         for name, cell in study.cells.items()
         if name.split('_')[0] in PARTS
         # A longer training of a config that is here already is none of its own.
         and name != study.base and not name.endswith('_long')}
# Three studies have the same cells, with other images.
SAME_CELLS = ('masking_filling', 'masking_class_ground')
OWN_PIXELS = ('target_dino', 'target_dinov2', 'target_mae', 'target_siglip')

# A training of a millisecond: writes what it was asked, fails or waits when told to.
TRAIN = '''
import pathlib, sys, time
run, options = pathlib.Path(sys.argv[1]), dict(a.split('=') for a in sys.argv[2:] if '=' in a)
(run / 'train').mkdir(exist_ok=True)
count = run.parents[1] / f'{run.parent.name}-{run.name}.count'
count.write_text(str(int(count.read_text()) + 1 if count.is_file() else 1))
if options.get('fail'):
    sys.exit('no such luck')
time.sleep(float(options.get('wait', 0)))
(run / 'train/epoch_1.pth').write_text(options['value'])
(run / 'train/last_checkpoint').write_text('/elsewhere/epoch_1.pth')
'''
MEASURE = '''
import json, pathlib, sys
value, seed = float(pathlib.Path(sys.argv[1]).read_text()), int(sys.argv[3])
pathlib.Path(sys.argv[2]).write_text(json.dumps(dict(knn=dict(top1=value + seed))))
'''


@pytest.fixture
def study_file(tmp_path):
    """A study whose tools are scripts of one's own."""
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'measure.py').write_text(MEASURE)
    (tmp_path / 'base.py').write_text('value = 0\nfail = ""\nwait = 0\n')

    def write(cells, seeds=2, train=None, **more):
        content = dict(
            title='<b>a $study</b>', base='base', seeds=seeds,
            train=train or dict(tool=str(tmp_path / 'train.py'), arguments=['{run}']),
            measure=[dict(tool=str(tmp_path / 'measure.py'),
                          arguments=['{checkpoint}', '{run}/eval.json', '{seed}'],
                          reads='{run}/eval.json', metrics={'k-NN': 'knn.top1'})],
            cells={name: dict(config=str(tmp_path / 'base.py'), options=options)
                   for name, options in cells.items()}, **more)
        path = tmp_path / 'study.py'
        path.write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()))
        return path
    return write


def test_paired_difference_by_hand():
    """Values 1, 2, 3 better than the base: mean 2, s.d. 1, t(2, .975) = 4.3027."""
    figure = compare({0: 11., 1: 22., 2: 33.}, {0: 10., 1: 20., 2: 30.})
    assert figure.mean == 22 and figure.sd == pytest.approx(11) and figure.difference == 2
    assert figure.low == pytest.approx(2 - 4.302653 / 3**.5, abs=1e-5)
    assert figure.high == pytest.approx(2 + 4.302653 / 3**.5, abs=1e-5)
    assert figure.beyond_spread is False
    assert compare({0: 11., 1: 21.1, 2: 31.2}, {0: 10., 1: 20., 2: 30.}).beyond_spread is True
    alone = compare({0: 11.}, {0: 10.})
    assert alone.sd is None and alone.difference == 1 and alone.beyond_spread is None
    assert compare({3: 11.}, {0: 10.}).difference is None  # no seed in common


def test_one_run_a_cell_is_tested_on_its_images(study_file, tmp_path):
    study = read_study(study_file(dict(base={}, better={}, same={}, blind={}), seeds=1))
    runner = StudyRunner(study, tmp_path / 'work', log=str)
    shares = dict(base=20, better=34, same=22, blind=30)
    records = [dict(cell=name, seed=0, seconds=1., figures={'k-NN': right / .4})
               for name, right in shares.items()]
    for name, right in shares.items():
        if name != 'blind':  # whose measurement kept no hits
            run = tmp_path / f'work/runs/{name}/seed0'
            run.mkdir(parents=True)
            write_hits(run / 'eval.hits.npz', dict(
                names=[f'a/{i}.png' for i in range(40)], classes=['a', 'b'], labels=[1] * 40,
                knn=[int(i < right) for i in range(40)]))
    rows = make_rows(study, records, runner.on_images(records))
    figures = {row.name: row.figures['k-NN'] for row in rows}
    assert figures['better'].p == pytest.approx(2 / 2**14) and figures['better'].low > 0
    assert figures['better'].beyond_spread is True and '(+35.0*)' in as_text(rows, ['k-NN'])
    assert figures['same'].beyond_spread is False and figures['blind'].beyond_spread is None
    said = verdict(rows, study)
    assert '1 of 3 cells differ' in said and 'nothing about other trainings' in said
    # Renders of one concept count once, where the quickstart made the images.
    (tmp_path / 'work/data').mkdir()
    (tmp_path / 'work/data/meta.json').write_text(json.dumps(dict(kind='own')))
    assert runner.on_images(records)['better', 'k-NN'].groups == 40


def test_changes_by_hand():
    base = Config(dict(a=1, b=dict(c=2, d=[dict(e=3), dict(e=4)]), gone=5))
    cell = Config(dict(a=1, b=dict(c='x', d=[dict(e=3), dict(e=9)]), new=None))
    assert [tuple(change) for change in config_changes(base, cell)] == [
        ('b.c', '2', "'x'"), ('b.d.1.e', '4', '9'), ('gone', '5', ''), ('new', '', 'None')]


def test_a_study_from_start_to_table(study_file, tmp_path, capfd, look_at):
    path = study_file(dict(base=dict(value=10), better=dict(value=12.5), broken=dict(fail='yes')))
    work = tmp_path / 'work'
    done = run_tool_here(capfd, 'ablate', path, '--work-dir', work, '--jobs', 2)
    assert done.returncode == 1  # a cell failed, and the others are there
    assert 'broken, seed 0: FAILED: no such luck' in done.stdout
    assert 'better  13.0 ± 0.7 (+2.5*)' in done.stdout  # 12.5 and 13.5
    said = json.loads((work / 'study.json').read_text())
    rows = {row['name']: row for row in said['rows']}
    assert rows['base']['figures']['k-NN']['values'] == {'0': 10., '1': 11.}
    assert rows['better']['figures']['k-NN']['difference'] == 2.5
    assert set(rows['broken']['failures']) == {'0', '1'} and not rows['broken']['figures']
    table = list(csv.DictReader((work / 'table.csv').open()))
    assert [(line['cell'], line['mean'], line['failed']) for line in table] == [
        ('base', '10.5000', '0'), ('better', '13.0000', '0'), ('broken', '', '2')]
    page = check_page(work / 'study.html', '<b>a $study</b>').text
    assert '+ value = 12.5' in page and '- value = 10' in page and 'no such luck' in page
    assert '1 of 1 cells differ from base by more than chance would explain' in page
    assert 'better, k-NN: +2.5 points. Runs that failed: 2.' in page and 'k-NN, %' in page
    assert (work / 'plot.png').read_bytes().startswith(b'\x89PNG')
    look_at(work / 'study.html')

    again = run_tool_here(capfd, 'ablate', path, '--work-dir', work)
    assert again.returncode == 2 and '--resume' in again.stderr
    study_file(dict(base=dict(value=10), better=dict(value=12.5), broken=dict(value=1)))
    third = run_tool_here(capfd, 'ablate', path, '--work-dir', work, '--resume')
    assert third.returncode == 0 and '4 of 6 runs were finished before' in third.stdout
    assert {p.stem: p.read_text() for p in (work / 'runs').glob('*.count')} == {
        'base-seed0': '1', 'base-seed1': '1', 'better-seed0': '1', 'better-seed1': '1',
        'broken-seed0': '2', 'broken-seed1': '2'}


def test_changes_are_in_the_config_that_is_trained(study_file, tmp_path):
    """In ``{config}``, beside what they leave; and another change is another run."""
    (tmp_path / 'base.py').write_text('value = 5\nmore = dict(kept=1, gone=2)\n')
    (tmp_path / 'trained.py').write_text(
        TRAIN.replace("options['value']", "str(said['value'] + said['more']['kept'])").replace(
            "options.get('fail')", "'gone' in said['more']").replace(
            'run, options', 'said = {}\nexec(open(sys.argv[2]).read(), said)\nrun, options'))

    def run(value):
        study = read_study(study_file(dict(base={}), seeds=1, train=dict(
            tool=str(tmp_path / 'trained.py'), arguments=['{run}', '{config}'])))
        cell = study.cells['base']._replace(
            changes={'value': value, 'more': dict(_delete_=True, kept=1)})
        runner = StudyRunner(study._replace(cells=dict(base=cell)), tmp_path / 'work', jobs=1,
                             log=lambda line: None)
        return [record['figures'] for record in runner.execute(lambda: None)]

    assert [run(20), run(20), run(30)] == [[{'k-NN': value}] for value in (21., 21., 31.)]
    assert (tmp_path / 'work/runs/base-seed0.count').read_text() == '2'


def test_another_config_makes_a_run_stale(study_file, tmp_path):
    study = read_study(study_file(dict(base=dict(value=10))))
    runner = StudyRunner(study, tmp_path / 'work', jobs=1, log=lambda line: None)
    runner.execute(lambda: None)
    assert len(runner.finished()) == 2
    (tmp_path / 'base.py').write_text('value = 0\nfail = ""\nwait = 0\nmore = 1\n')
    assert StudyRunner(study, tmp_path / 'work', log=lambda line: None).finished() == []


def test_killed_and_resumed(study_file, tmp_path, capfd):
    """After a kill the training goes on alone; a second study waits for it to be gone."""
    path = study_file(dict(base=dict(value=1), slow=dict(value=2, wait=60)), seeds=1)
    work = tmp_path / 'work'
    command = [sys.executable, str(ROOT / 'tools/ablate.py'), str(path), '--work-dir', str(work),
               '--jobs', '1']
    process = subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started = work / 'runs/slow-seed0.count'
    for _ in range(2400):
        if started.is_file():
            break
        time.sleep(.1)
    assert json.loads((work / 'runs/base/seed0/step.json').read_text())['result'] == {'k-NN': 1.0}
    process.kill()
    process.wait()
    refused = run_tool_here(capfd, 'ablate', path, '--work-dir', work, '--resume')
    assert refused.returncode == 2 and 'is locked' in refused.stderr
    subprocess.run(['pkill', '-f', str(tmp_path / 'train.py')], check=True)
    study_file(dict(base=dict(value=1), slow=dict(value=2)), seeds=1)
    for _ in range(50):
        done = run_tool_here(capfd, 'ablate', path, '--work-dir', work, '--resume')
        if 'is locked' not in done.stderr:
            break
        time.sleep(.1)
    assert done.returncode == 0 and (work / 'runs/base-seed0.count').read_text() == '1'


def test_sigterm_ends_the_trainings_too(study_file, tmp_path):
    path = study_file(dict(base=dict(value=1, wait=60)), seeds=1)
    command = [sys.executable, str(ROOT / 'tools/ablate.py'), str(path), '--work-dir',
               str(tmp_path / 'work'), '--jobs', '1']
    process = subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(2400):
        if (tmp_path / 'work/runs/base-seed0.count').is_file():
            break
        time.sleep(.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and 'go on with --resume' in said
    left = subprocess.run(['pgrep', '-f', str(tmp_path / 'train.py')], stdout=subprocess.PIPE)
    assert left.returncode == 1, left.stdout


def test_dry_run_and_only(study_file, tmp_path, capfd):
    path = study_file(dict(base=dict(value=1), a=dict(value=2), b=dict(value=3)), seeds=3,
                      minutes=60, megabytes=500)
    done = run_tool_here(capfd, 'ablate', path, '--work-dir', tmp_path / 'w', '--dry-run', '--jobs',
                         2, '--only', 'b')
    assert done.returncode == 0 and '2 cells x 3 seeds = 6 runs, 2 at a time' in done.stdout
    assert 'about 3.0 h and 3.0 GB' in done.stdout and not (tmp_path / 'w').exists()
    wrong = run_tool_here(capfd, 'ablate', path, '--only', 'c')
    assert wrong.returncode == 2 and "no ['c']; its cells are base, a, b" in wrong.stderr


@pytest.mark.parametrize('change, words', [
    (dict(base='x'), 'none of its cells'), (dict(seeds='3'), 'seeds must be'),
    (dict(cells=dict(base=dict(title='no config'))), 'config'),
    (dict(train=dict(tool='nothing.py', arguments=[])), 'no such tool: nothing.py'),
    (dict(measure=[]), '1 metric'),
    (dict(train=dict(tool='train.py', arguments=['{where}'])), "names ['where']"),
    (dict(cells=dict(base=dict(config='missing.py'))), 'no such config: missing.py')])
def test_a_study_that_is_wrong(study_file, tmp_path, change, words):
    path = study_file(dict(base=dict(value=1)))
    path.write_text(path.read_text() + ''.join(f'\n{k} = {v!r}' for k, v in change.items()))
    with pytest.raises(MilanError) as error:
        StudyRunner(read_study(path), tmp_path / 'work', jobs=1)
    assert words in str(error.value)


def test_a_metric_that_is_missing(tmp_path):
    (tmp_path / 'eval.json').write_text('{"knn": {"top1": 3}}')
    one = Measurement('x', (), '{run}/eval.json', {'k-NN': 'knn.top1'})
    assert read_figures(one, dict(run=tmp_path)) == {'k-NN': 3.0}
    with pytest.raises(MilanError, match="no 'linear.top1'"):
        read_figures(one._replace(metrics={'linear': 'linear.top1'}), dict(run=tmp_path))


def test_the_base_may_be_another_cell(study_file, tmp_path, capfd):
    path = study_file(dict(base=dict(value=1), a=dict(value=5), b=dict(value=7)), seeds=1)
    work = tmp_path / 'work'
    assert run_tool_here(capfd, 'ablate', path, '--work-dir', work).returncode == 0
    again = run_tool_here(capfd, 'ablate', path, '--work-dir', work, '--resume', '--base', 'a')
    assert 'b     7.0 (+2.0)' in again.stdout and '3 of 3 runs were finished' in again.stdout
    wrong = run_tool_here(capfd, 'ablate', path, '--work-dir', work, '--resume', '--base', 'c')
    assert wrong.returncode == 2 and 'its cells are base, a, b' in wrong.stderr


def test_masking_is_studied_on_three_kinds_of_images():
    """What differs between the studies is how the images are made, and that is said to the tool."""
    first, *others = (read_study(ROOT / f'studies/{name}.py') for name in ('masking', *SAME_CELLS))
    asked = set()
    for study in (first, *others):
        assert study.cells == first.cells and study.measure == first.measure
        (images, ), = study.prepare
        asked.add(images.arguments[images.arguments.index('--composition') + 1])
    assert asked == set(COMPOSITIONS)


def test_a_part_of_the_cells_waits_for_what_it_needs_alone():
    study = read_study(ROOT / 'studies/paper.py')
    made = {cell: {step.name for stage in study.steps_for(['milan', cell]) for step in stage}
            for cell in ('decoder_mae', 'target_siglip', 'target_mae')}
    assert made == dict(decoder_mae={'images'}, target_siglip={'images', 'siglip'},
                        target_mae={'images', 'mae'})
    assert study.steps_for(study.cells) == study.prepare


def test_scalars_of_a_training_are_figures_too(tmp_path):
    (tmp_path / 'task/vis_data').mkdir(parents=True)
    (tmp_path / 'task/vis_data/scalars.json').write_text(
        '{"accuracy/top1": 40.0, "step": 1}\n{"accuracy/top1": 42.5, "step": 2}\n')
    one = Measurement('x', (), '{run}/task', {'top-1': 'accuracy/top1'})
    assert read_figures(one, dict(run=tmp_path)) == {'top-1': 42.5}


def test_gpus_are_shared_out():
    assert visible_devices(0, 1, 4, None) == {} and visible_devices(1, 2, 0, None) == {}
    assert visible_devices(1, 4, 4, None) == dict(CUDA_VISIBLE_DEVICES='1')
    assert visible_devices(1, 2, 4, '4,5,6,7') == dict(CUDA_VISIBLE_DEVICES='6,7')


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.py')), ids=lambda p: p.stem)
def test_studies_that_ship(path, tmp_path):
    study = read_study(path)
    runner = StudyRunner(study, tmp_path, log=print)
    changes = {name: config_changes(runner.configs[study.base], cfg)
               for name, cfg in runner.configs.items()}
    assert all(changes[name] or study.cells[name].arguments for name in changes
               if name != study.base)
    assert len(runner.runs) == study.seeds * len(study.cells)


def read_cell(cell):
    """Its config with its changes and options."""
    return cell.read(dict(work='work', demo='demo', seed=0))


def test_every_cell_is_tried():
    assert len([name for name in CELLS if name.startswith('imagenet')]) == 28
    assert len([name for name in CELLS if name.startswith('quickstart')]) == 36


@pytest.mark.parametrize('cell, base', CELLS.values(), ids=CELLS)
def test_a_cell_changes_the_part_it_names(cell, base):
    changes = config_changes(read_cell(base), read_cell(cell))
    parts = ('model.', ) if cell.name == 'target_alone' else PARTS[cell.name.split('_')[0]]
    assert changes and all(change.entry.startswith(parts) for change in changes), changes


@pytest.mark.parametrize('cell', [cell for name, (cell, _) in CELLS.items()
                                  if name.startswith('quickstart')], ids=lambda cell: cell.name)
def test_a_quickstart_cell_trains(cell, teacher_folder, tmp_path):
    """One step of each, with a small teacher: a finite loss and a gradient for every part."""
    whole = read_cell(cell)
    cfg = dict(whole.model.to_dict(), data_preprocessor=whole.data_preprocessor)
    cfg['backbone'].update(img_size=32)
    for part in ('target_generator', 'importance_generator'):
        if 'pretrained' in (cfg.get(part) or {}):
            cfg[part]['pretrained'] = str(teacher_folder)
    if 'checkpoint' in cfg['target_generator']:
        from helpers_eval import write_checkpoint
        cfg['target_generator']['checkpoint'] = str(write_checkpoint(tmp_path / 'mae.pth'))
    model = MODELS.build(cfg)
    model.init_weights()
    if 'EMA' in cfg['target_generator']['type']:  # what the hook does before the training
        model.target_generator.follow(model.backbone)
    losses = model(torch.randn(4, 3, 32, 32), mode='loss', sample_keys=torch.arange(4))
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert all(p.grad is not None for p in model.neck.parameters() if p.requires_grad)


def test_the_study_in_the_documentation(tmp_path):
    text = (ROOT / 'docs/studies.md').read_text()
    path = tmp_path / 'mine.py'
    path.write_text(text.split('```python\n')[1].split('```')[0])
    runner = StudyRunner(read_study(path), tmp_path / 'work', log=print)
    changes = config_changes(runner.configs['random'], runner.configs['semantic'])
    assert [change.entry for change in changes] == ['model.mask_generator.type']


def test_rows_of_a_study_in_words(study_file):
    study = read_study(study_file(dict(base=dict(value=1), other=dict(value=2))))
    records = [dict(cell='base', seed=0, figures={'k-NN': 10.}, seconds=5.),
               dict(cell='other', seed=0, figures={'k-NN': 12.}, seconds=7.)]
    rows = make_rows(study, records)
    assert as_text(rows, study.metrics).splitlines()[2] == 'other  12.0 (+2.0)'
    assert as_text(rows, study.metrics, True).splitlines()[1] == '| --- | --- |'
    assert as_csv(rows).splitlines()[2] == 'other,,other,k-NN,1,12.0000,,2.0000,,,,0'


def test_imagenet_cells_build():
    """On the meta device, but for the teachers, which their libraries build on the CPU alone."""
    teacher = CLIPTargetGenerator('ViT-B-16-quickgelu', pretrained=None)
    for name, (cell, _) in CELLS.items():
        if name.startswith('quickstart'):
            continue
        cfg = read_cell(cell)
        model = dict(cfg.model.to_dict(), data_preprocessor=MODELS.build(cfg.data_preprocessor))
        for part in ('target_generator', 'importance_generator'):
            generator = model.get(part, {})
            if generator.get('model') == 'ViT-B-16-quickgelu':
                model[part] = teacher
            elif 'pretrained' in generator:  # another architecture; its weights are not here
                model[part] = MODELS.build({**generator, 'pretrained': None})
        # A teacher that re-normalises pixels needs their numbers, which meta has not.
        with contextlib.nullcontext() if cell.name in OWN_PIXELS else torch.device('meta'):
            built = MODELS.build(model)
        assert built.backbone.grid_size == (14, 14)
        assert tuple(built.target_generator.grid_size) == (14, 14)


def write_curves(folder, values, seconds=2.):
    """A run that logs a loss and k-NN every 10 steps, each of so many seconds."""
    (folder / 'train/vis_data').mkdir(parents=True)
    lines = [dict(step=10 * n, time=seconds, loss=10 - v, **{'eval/knn_top1': v})
             for n, v in enumerate(values, start=1)]
    (folder / 'train/vis_data/scalars.json').write_text('\n'.join(map(json.dumps, lines)))


def test_time_to_the_bases_quality_and_distance_of_curves(tmp_path, capfd):
    runs = dict(exact={0: [1, 2, 3, 4], 1: [1, 2, 3, 6]}, quick={0: [3, 4, 5], 1: [3, 4, 5]},
                failed={})
    for cell, seeds in runs.items():
        for seed, values in seeds.items():
            write_curves(tmp_path / f'runs/{cell}/seed{seed}', values, 1 + (cell == 'exact'))
    study = dict(base='exact', runs=[
        *(dict(cell=cell, seed=seed, figures={}) for cell in runs for seed in runs[cell]),
        dict(cell='failed', seed=0, failed='no such luck')])
    (tmp_path / 'study.json').write_text(json.dumps(study))

    def rows(*options):
        done = run_tool_here(capfd, 'analyze_logs', tmp_path, *options)
        lines = [line for line in done.stdout.splitlines() if line.startswith('|')]
        return [line.strip('| ').split(' | ') for line in lines[2:]]

    assert rows('--time-to', 'eval/knn_top1') == [
        ['exact', '5.0 (4.0 to 6.0)', '80.0 (80.0 to 80.0)', '80.0 (80.0 to 80.0)',
         '1.00 (1.00 to 1.00)', '2 of 2'],
        ['quick', '5.0 (5.0 to 5.0)', '30.0 (30.0 to 30.0)', '20.0 (20.0 to 20.0)',
         '0.25 (0.25 to 0.25)', '1 of 2']]
    # Of seeds 0, 0, 0, 2 at four steps; of quick and exact 2, 2, 2 at the three they share.
    assert rows('--apart', 'loss') == [['quick', '2', '0.5', '4.00']]
