# SPDX-License-Identifier: Apache-2.0
"""The quickstart, through its own command line."""
import json
import re
import shutil
import time
from functools import partial

import numpy as np
import pytest
from conftest import run_tool
from PIL import Image

from milan_mm import MilanError
from milan_mm.lab.quickstart.report_tasks import task_sentence
from milan_mm.lab.quickstart.results import summarise_seeds, table
from milan_mm.lab.quickstart.stages import STAGES
from milan_mm.lab.quickstart.tasks import collect_task, task_table
from milan_mm.lab.quickstart.teacher import (
    ENOUGH_PAIRS,
    SHIPPED,
    choose_teacher,
    options_of,
)
from milan_mm.lab.steps import Once, held


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
    assert set(results['seconds']) == {'images', 'teacher', 'pretrain', 'eval', 'finetune',
                                       'scenes', 'detection', 'segmentation'}
    for task, metrics in (('finetune', {'top1'}), ('detection', {'bbox_mAP', 'segm_mAP'}),
                          ('segmentation', {'mIoU', 'aAcc'})):
        assert {start: set(row) for start, row in results[task].items()} == dict.fromkeys(
            ('milan', 'mae', 'scratch'), metrics)
        assert all(0 <= value <= 100 for row in results[task].values() for value in row.values())
    assert results['chance'] > 0 and results['sizes']['test_images'] > 0
    assert 'torch' in results['versions'] and 'linear probe' in out
    assert (work / 'report.html').stat().st_size > 50_000


def test_every_figure_is_tested_on_its_images(quick):
    results = json.loads((quick[0] / 'results.json').read_text())
    concepts, images = (results['sizes'][f'test_{name}'] for name in ('concepts', 'images'))
    for block in ('classification', 'style_shift'):
        for kind in ('knn', 'linear'):
            for rival, test in results['paired'][block][kind].items():
                row = results[block][kind]
                assert test['difference'] == pytest.approx(row['milan'] - row[rival], abs=.01)
                assert (test['images'], test['groups']) == (images, concepts)
            for name, (low, high) in results['intervals'][block][kind].items():
                assert low <= results[block][kind][name] <= high
    # The libraries' own figures are those that the samples are drawn around.
    for task, metrics in (('finetune', ['top1']), ('detection', ['bbox_mAP', 'segm_mAP']),
                          ('segmentation', ['mIoU', 'aAcc'])):
        for metric in metrics:
            for start, test in results['paired'][task][metric].items():
                assert test['difference'] == pytest.approx(
                    results[task]['milan'][metric] - results[task][start][metric], abs=.15)
    assert 'MILAN, in points, against' in (quick[0] / 'report.html').read_text()


def test_the_page_and_milan_eval_give_one_figure(quick, run_here):
    work = quick[0]
    out = run_here('eval_features.py', work / 'milan/epoch_1.pth', '--data', work / 'data', '--knn',
                   '--workers', 0)
    results = json.loads((work / 'results.json').read_text())
    assert f'k-NN          top-1 {results["classification"]["knn"]["milan"]:6.2f} %' in out
    assert 'central crop 1 of what fits' in out
    assert f'always the commonest is right for {results["chance"]:.1f} %' in out


def test_progress_has_an_eta(quick):
    assert 'eta' in quick[1]
    assert '[1/9] images' in quick[1] and '[8/9] segmentation' in quick[1]


def test_each_task_takes_the_whole_encoder(quick):
    """The line that says so, in the log of every training that starts from a checkpoint."""
    logs = quick[0] / 'logs'
    for name in ('finetune_milan', 'finetune_mae', 'detection_milan', 'detection_mae',
                 'segmentation_milan'):
        assert 'encoder tensors (100 %) came from' in (logs / f'{name}.log').read_text(), name
    assert 'starts from random weights' in (logs / 'detection_scratch.log').read_text()


def test_report_shows_the_tasks(quick):
    page = (quick[0] / 'report.html').read_text()
    assert page.count('>truth<') == 10 and len(
        re.findall('>from scratch(?:: nothing found above 0.1)?</li>', page)) == 10
    assert 'Detection: box mAP, %' in page and 'The background is left as it is' in page


def test_held_out_concepts_are_held_out_in_both_styles(quick):
    split = json.loads((quick[0] / 'data/meta.json').read_text())['split']
    assert not set(split['train']) & set(split['test'])
    stems = {part: {p.name.split('__')[1] for p in (quick[0] / 'data' / part).rglob('*.png')}
             for part in ('train', 'test')}
    assert stems['train'] and stems['test'] and not stems['train'] & stems['test']


def test_a_second_call_runs_no_stage_again(quick, run_here):
    work, _ = quick
    before = (work / 'milan/epoch_1.pth').stat().st_mtime_ns
    start = time.time()
    out = run_here('quickstart.py', '--quick', '--work-dir', work)
    assert out.count('finished before') == 8 and time.time() - start < 120
    assert (work / 'milan/epoch_1.pth').stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name(quick, run_here):
    """They replaced the data of a finished quickstart, and its report was silently left out."""
    work, _ = quick
    before = {path: path.stat().st_mtime_ns for path in (work / 'data').rglob('*.png')}
    for other, words in ((('--full', ), ('full False, now True', )),
                         (('--full', '--stage', 'report'), ('full False, now True', ))):
        out = run_here('quickstart.py', '--quick', '--work-dir', work, *other, code=2)
        assert all(word in out for word in (*words, '--force', 'another --work-dir')), out
    out = run_here('quickstart.py', '--work-dir', work, code=2)
    assert 'quick True, now False' in out and 'variants' not in out
    assert before == {path: path.stat().st_mtime_ns for path in (work / 'data').rglob('*.png')}


def test_another_config_since_is_refused_by_name(quick, tmp_path, run_here):
    """Who changed a config got the figures of the old one, "finished before"."""
    shutil.copytree(quick[0] / 'steps', tmp_path / 'steps')
    note = tmp_path / 'steps/pretrain.json'
    held_by_note = json.loads(note.read_text())['settings']
    assert {'configs/quickstart/milan.py', 'configs/quickstart/mae.py'} <= set(held_by_note)
    digest = held_by_note['configs/quickstart/milan.py']
    note.write_text(note.read_text().replace(digest, '01234567'))
    out = run_here('quickstart.py', '--quick', '--work-dir', tmp_path, code=2)
    assert f'configs/quickstart/milan.py 01234567, now {digest}' in out and '--force' in out


def test_a_report_of_nothing_is_an_error(tmp_path, run_here):
    out = run_here('quickstart.py', '--quick', '--work-dir', tmp_path, '--stage', 'report', code=2)
    assert 'nothing to report before the stage "eval"' in out


def test_a_step_is_done_once_and_anew_with_other_settings(tmp_path):
    folder, calls = tmp_path / 'made', []

    def make(content):
        folder.mkdir(exist_ok=True)
        (folder / content).write_text(content)
        calls.append(content)
        return content

    first = Once(tmp_path / 'note.json', dict(seed=0), (folder / 'a', ), folder)
    assert not first.done and first.attempt(partial(make, 'a')) == 'a' and first.done
    assert first.read()['result'] == 'a' and first.differences() == {}
    second = Once(tmp_path / 'note.json', dict(seed=1), (folder / 'b', ), folder)
    assert not second.done and second.differences() == {'seed': 'seed 0, now 1'}
    second.attempt(partial(make, 'b'))
    assert second.done and not first.done and not (folder / 'a').exists()
    (folder / 'b').unlink()
    assert not second.done  # what it made is gone

    def fail():
        raise MilanError('no such luck')

    with pytest.raises(MilanError):
        second.attempt(fail)
    assert second.read()['failed'] == 'no such luck' and not second.done
    assert first.differences() == {}  # nothing that is finished is of other settings
    with held(tmp_path / 'lock'), pytest.raises(MilanError, match='is locked'), \
            held(tmp_path / 'lock'):
        pass


def own_images(folder, classes=3, each=8):
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f'Klasse {c}').mkdir(parents=True)
        for i in range(each):
            size = (50 + 9 * i, 70)
            pixels = rng.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
            pixels[..., c % 3] += 100
            Image.fromarray(pixels).save(folder / f'Klasse {c}' / f'bild {i} ü.jpg')
    (folder / 'Klasse 0' / 'bild 0 ü.txt').write_text('ein Bild <b>')
    (folder / 'Klasse 0' / 'broken.jpg').write_bytes(b'no image')
    return folder


def test_own_images(tmp_path):
    folder = own_images(tmp_path / 'mine')
    stages = [stage for stage in STAGES if stage != 'finetune']  # as with the drawings
    out = run_tool('quickstart.py', '--quick', '--data-root', folder, '--work-dir',
                   tmp_path / 'work', '--stage', *stages, timeout=400)
    results = json.loads((tmp_path / 'work/results.json').read_text())
    assert results['sizes']['train_images'] + results['sizes']['test_images'] == 24
    assert 'style_shift' not in results and 'broken.jpg' in out
    # One caption does not make a CLIP: the package's teaches, and the page says so.
    assert results['teacher'] == dict(spec=str(SHIPPED), reason=results['teacher']['reason'])
    assert 'with 1 captioned images' in results['teacher']['reason']
    # Photographs without transparency: no scenes can be composed of them, and it is said how else.
    assert 'detection' not in results and 'segmentation' not in results
    assert set(results['skipped']) == {'scenes', 'detection', 'segmentation'}
    assert '--coco JSON IMAGES' in out and '--ade DIR' in out
    page = (tmp_path / 'work/report.html').read_text()
    assert 'Klasse 0' in page and '<b>' not in page.split('ein Bild')[-1][:5]


def test_the_teacher_suits_the_images():
    demo, few, many = (dict(kind=kind, sizes=dict(captioned_files=captions)) for kind, captions in (
        ('demo', 0), ('own', ENOUGH_PAIRS - 1), ('own', ENOUGH_PAIRS)))
    assert choose_teacher(None, False, demo).spec == str(SHIPPED)
    assert choose_teacher(None, False, few).spec == str(SHIPPED)
    assert choose_teacher(None, False, many).spec is None
    assert choose_teacher(None, True, demo).spec is None
    assert choose_teacher('ViT-B-16:openai', False, many).spec == 'ViT-B-16:openai'
    assert options_of('ViT-B-16:openai') == ['model.target_generator.pretrained=openai',
                                             'model.target_generator.model=ViT-B-16']


def test_a_teacher_that_cannot_be_had_is_said_before_any_image_is_made(tmp_path, run_here):
    for teacher, words in (('no_such_file.pt', ('no_such_file.pt', )),
                           (SHIPPED, ('--train-teacher exclude each other', ))):
        more = ('--train-teacher', ) if teacher == SHIPPED else ()
        out = run_here('quickstart.py', '--quick', '--teacher', teacher, *more, '--work-dir',
                       tmp_path / 'work', code=2)
        assert all(word in out for word in words) and not (tmp_path / 'work/data').exists()


def test_too_few_images_say_how_many_are_needed(tmp_path, run_here):
    folder = own_images(tmp_path / 'mine', classes=1)
    out = run_here('quickstart.py', '--quick', '--data-root', folder, '--work-dir',
                   tmp_path / 'work', code=2)
    assert 'at least 2' in out and 'Traceback' not in out
    out = run_here('quickstart.py', '--data-root', tmp_path / 'absent', '--work-dir',
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


def test_tasks_are_read_from_their_runs(tmp_path):
    for start, points in (('milan', (.1, .25)), ('scratch', (.05, .125))):
        log = tmp_path / f'detection/{start}/20260101_000000/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text(''.join(json.dumps({'coco/bbox_mAP': p, 'step': i}) + '\n'
                               for i, p in enumerate(points)))
    found = collect_task('detection', tmp_path)
    assert found == dict(milan=dict(bbox_mAP=25.0, segm_mAP=0.0),
                         scratch=dict(bbox_mAP=12.5, segm_mAP=0.0))
    lines = task_table(dict(detection=found))
    assert [line.split() for line in lines if 'box mAP' in line] == [
        ['detection,', 'box', 'mAP', '25.0', '-', '12.5']]
    assert task_sentence(dict(detection=found)) == (
        "From MILAN's encoder: detection 25.0 % box mAP, 12.5 points more than from scratch.")
    behind = dict(detection=dict(milan=dict(bbox_mAP=1.), scratch=dict(bbox_mAP=3.)))
    assert '2.0 points fewer than from scratch' in task_sentence(behind)
    assert collect_task('segmentation', tmp_path) == {}


def test_tasks_over_seeds():
    def one(seed, value):
        row = dict(milan=1., mae=1., random=2., teacher=3.)
        return dict(classification=dict(knn=row, linear=row), seconds=dict(eval=2.), seeds=[seed],
                    finetune=dict(milan=dict(top1=value)))

    summary = summarise_seeds([one(0, 10.), one(1, 14.)])
    assert summary['finetune']['milan'] == dict(top1=12., top1_std=pytest.approx(8**.5))
    first = one(0, 10.)
    second = {k: v for k, v in one(1, 0.).items() if k != 'finetune'}
    assert summarise_seeds([first, second])['finetune'] == first['finetune']
