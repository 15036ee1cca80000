# SPDX-License-Identifier: Apache-2.0
"""Measures over drawn images: they must be those of the libraries on the same images."""
import contextlib
import io
import json

import numpy as np
import pytest
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import tensor

from milan_mm import MilanError
from milan_mm.evaluation.average_precision import match_detections, mean_average_precision
from milan_mm.evaluation.hits import read_areas, write_areas, write_hits
from milan_mm.evaluation.hits_hook import areas
from milan_mm.lab.quickstart.report_tasks import task_caveat, task_charts, task_sentence
from milan_mm.lab.quickstart.task_comparisons import compare_starts

SIZE = 24


def scenes(images=12, classes=3, seed=0):
    """Objects, and detections near some of them: COCO's two lists."""
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for image in range(images):
        for _ in range(rng.integers(1, 4)):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(8, 40, 2)]
            label = int(rng.integers(classes))
            objects.append(dict(id=len(objects) + 1, image_id=image, category_id=label, bbox=box,
                                area=box[2] * box[3], iscrowd=0))
            near = (np.array(box) + rng.normal(0, 3, 4)).tolist()
            wrong = int(rng.integers(classes))
            found.append(dict(image_id=image, bbox=near, score=float(rng.random()),
                              category_id=label if rng.random() < .7 else wrong))
    return objects, found


def write_scenes(folder, objects, found, images, classes=3):
    (folder / 'truth.json').write_text(json.dumps(dict(
        images=[dict(id=i, width=100, height=100) for i in range(images)],
        categories=[dict(id=c, name=str(c)) for c in range(classes)], annotations=objects)))
    (folder / 'found.json').write_text(json.dumps(found))
    return folder / 'truth.json', folder / 'found.json'


def by_pycocotools(truth, found):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth))
        scoring = COCOeval(truth, truth.loadRes(str(found)), 'bbox')
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    return 100 * scoring.stats[0]


def drawn(rows, weights):
    """The rows of images that count several times, each time under another number."""
    new, start = [], np.concatenate([[0], np.cumsum(weights)])
    for row in rows:
        for copy in range(weights[row['image_id']]):
            new.append(dict(row, image_id=int(start[row['image_id']] + copy), id=len(new) + 1))
    return new


def test_average_precision_of_drawn_images_is_pycocotools(tmp_path):
    objects, found = scenes()
    files = write_scenes(tmp_path, objects, found, 12)
    images, matches = match_detections(*files, 'bbox')
    weights = np.random.default_rng(1).multinomial(12, [1 / 12] * 12, 3)
    weights = np.concatenate([np.ones((1, 12), int), weights])
    got = mean_average_precision(matches, weights)
    assert images == list(range(12)) and got[0] == pytest.approx(by_pycocotools(*files), abs=.01)
    assert 5 < got[0] < 95
    for sample, value in zip(weights[1:], got[1:]):
        folder = tmp_path / str(value)
        folder.mkdir()
        again = write_scenes(folder, drawn(objects, sample), drawn(found, sample), 12)
        assert value == pytest.approx(by_pycocotools(*again), abs=.01)


def test_a_detector_that_finds_nothing_scores_nothing(tmp_path):
    files = write_scenes(tmp_path, scenes()[0], [], 12)
    images, matches = match_detections(*files, 'bbox')
    assert mean_average_precision(matches, np.ones((2, len(images)))).tolist() == [0, 0]
    with pytest.raises(MilanError, match='holds no detections'):
        match_detections(files[0], tmp_path / 'missing.json', 'bbox')


def maps(seed, images=10, classes=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (images, 1, SIZE, SIZE))
    found = np.where(rng.random(truth.shape) < .5, truth, rng.integers(0, classes, truth.shape))
    truth[:, :, :2] = 255  # what is not labelled
    return truth, found


def write_tasks(work):
    """What two trainings of a segmentor and a classifier leave, and the segmentor's measures."""
    for start, seed in (('milan', 0), ('scratch', 1)):
        truth, found = maps(seed)
        (work / 'segmentation' / start).mkdir(parents=True)
        write_areas(work / 'segmentation' / start / 'hits.npz', [str(i) for i in range(10)],
                    np.stack([areas(*pair, 4) for pair in zip(truth, found)]))
        (work / 'finetune' / start).mkdir(parents=True)
        names = [f'test/a/one__thing {i // 4}__{i % 4}.png' for i in range(40)]
        right = [1] * 30 + [0] * 10 if start == 'milan' else [1] * 8 + [0] * 32
        write_hits(work / 'finetune' / start / 'hits.npz', dict(
            names=names, classes=['a', 'b'], labels=[1] * 40, top1=right))


def test_pixels_of_each_image_add_up_to_mmsegs_measures(tmp_path):
    write_tasks(tmp_path)
    found = compare_starts([tmp_path], 'demo')
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=list('abcd'))
    metric.process({}, [SegDataSample(
        pred_sem_seg=PixelData(data=tensor(guess)),
        gt_sem_seg=PixelData(data=tensor(truth))).to_dict() for truth, guess in zip(*maps(0))])
    expected = metric.compute_metrics(metric.results)
    named, pixels = read_areas(tmp_path / 'segmentation/milan/hits.npz')
    assert named == [str(i) for i in range(10)] and pixels.shape == (10, 3, 4)
    common, truth, guess = pixels.sum(axis=0)
    assert 100 * np.mean(common / (truth + guess - common)) == pytest.approx(expected['mIoU'],
                                                                            abs=.01)
    assert 100 * common.sum() / truth.sum() == pytest.approx(expected['aAcc'], abs=.01)
    low, high = found['intervals']['segmentation']['mIoU']['milan']
    assert low < expected['mIoU'] < high < low + 10
    assert found['paired']['segmentation']['mIoU']['scratch']['p'] > .05
    assert 'detection' not in found['paired']


def test_starts_are_compared_and_the_page_says_how(tmp_path):
    write_tasks(tmp_path)
    found = compare_starts([tmp_path], 'demo')
    test = found['paired']['finetune']['top1']['scratch']
    assert test['difference'] == pytest.approx(55) and test['groups'] == 10
    assert test['p'] < .05 and test['low'] > 0
    results = dict(found, groups='concepts', finetune=dict(
        milan=dict(top1=75.), scratch=dict(top1=20.)))
    assert '55.0 points more than from scratch (95 % interval' in task_sentence(results)
    assert 'images of one of the concepts are drawn together' in task_caveat(results)
    assert '75.0 (95 % interval' in task_charts(results)[0].summary
    assert 'kept nothing of each image' in task_caveat(dict(finetune=results['finetune']))
