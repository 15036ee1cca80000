# SPDX-License-Identifier: Apache-2.0
"""Few-shot, retrieval and partial finetuning against their definitions; the tool's one result."""
import itertools
import json

import numpy as np
import pytest
import torch
from helpers_eval import run_tool_here, write_checkpoint, write_images

import milan_mm
from milan_mm import MilanError
from milan_mm.evaluation.evaluate import Options, evaluate
from milan_mm.evaluation.few_shot import L2, centroid_accuracy, draw_rows, few_shot
from milan_mm.evaluation.linear_probe import linear_probe
from milan_mm.evaluation.partial import partial_finetune
from milan_mm.evaluation.retrieval import retrieval_map


def blobs(n, classes, dim, spread, seed):
    """Clouds around fixed centres."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return centres[labels] + spread * torch.randn(n, dim, generator=generator), labels


def test_draws_are_nested_and_differ():
    labels = torch.tensor([0] * 9 + [1] * 4 + [3] * 9)  # no class 2
    few, more = (draw_rows(labels, count, 1, seed=7) for count in (2, 5))
    assert labels[few].tolist() == [0, 0, 1, 1, 3, 3]
    assert labels[more].tolist() == [0] * 5 + [1] * 4 + [3] * 5  # class 1 has four alone
    assert set(few.tolist()) < set(more.tolist()) and len(set(more.tolist())) == 14
    assert draw_rows(labels, 2, 1, seed=7).tolist() == few.tolist()
    assert draw_rows(labels, 2, 2, seed=7).tolist() != few.tolist()
    assert draw_rows(labels, 2, 1, seed=8).tolist() != few.tolist()


def test_few_shot_is_the_probe_on_each_draw():
    train, labels = blobs(60, 4, 8, 1.5, seed=1)
    test, asked = blobs(40, 4, 8, 1.5, seed=2)
    result = few_shot(train, labels, test, asked, 4, shots=(5, 1, 20), draws=3, seed=9)
    assert [row['shots'] for row in result['shots']] == [1, 5, 20] and result['l2'] == L2
    one, five, twenty = result['shots']
    assert [row['images'] for row in result['shots']] == [4, 20, 60]
    assert twenty['short'] == 4 and five['short'] == 0
    expected = []
    for draw in range(3):
        chosen = draw_rows(labels, 5, draw, 9)
        expected.append(linear_probe(train[chosen], labels[chosen], test, asked, 4, l2=L2)['top1'])
    assert five['linear']['draws'] == expected
    assert five['linear']['top1'] == pytest.approx(np.mean(expected))
    assert five['linear']['sd'] == pytest.approx(np.std(expected, ddof=1))
    assert one['centroid']['top1'] < twenty['centroid']['top1']
    assert twenty['centroid']['sd'] == 0  # all images, each time


def test_nearest_class_mean_by_hand():
    """Means of unit features: class 0 at (1, 0), class 2 at (0, 1); lengths do not count."""
    train = torch.tensor([[9., 0.], [1., 0.], [0., .1]])
    test = torch.tensor([[2., 1.], [1., 2.], [5., 4.9]])
    assert centroid_accuracy(train, torch.tensor([0, 0, 2]), test, torch.tensor([0, 2, 2]),
                             3) == pytest.approx(200 / 3)


def test_average_precision_by_hand():
    """One query; by cosine its class is at ranks 1, 3 and 4: (1 + 2/3 + 3/4) / 3."""
    angles = torch.tensor([.1, .21, .33, .47, .62])
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[3.]])
    labels = torch.tensor([1, 0, 1, 1, 0])
    found = retrieval_map(gallery, labels, torch.tensor([[1., 0.]]), torch.tensor([1]))
    assert found['map'] == pytest.approx(100 * (1 + 2 / 3 + 3 / 4) / 3)
    assert found['first'] == 100 and found['queries'] == 1
    alone = retrieval_map(gallery, labels, gallery, labels, leave_one_out=True)
    precisions = []
    for i in range(5):  # on an arc the cosine falls with the distance
        near = sorted((j for j in range(5) if j != i), key=lambda j: abs(angles[j] - angles[i]))
        hits = [labels[j] == labels[i] for j in near]
        precisions.append(np.mean([np.mean(hits[:k + 1]) for k, hit in enumerate(hits) if hit]))
    assert alone['map'] == pytest.approx(100 * np.mean(precisions)) and alone['queries'] == 5


def test_a_query_without_company_is_left_out():
    gallery, labels = torch.eye(3), torch.tensor([0, 0, 1])
    found = retrieval_map(gallery, labels, gallery, labels, leave_one_out=True)
    assert (found['queries'], found['left_out'], found['map']) == (2, 1, 100)
    with pytest.raises(MilanError, match='no query has another image of its class'):
        retrieval_map(gallery, labels, gallery, labels + 5)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp('few')
    write_images(root / 'data/train', per_class=8, seed=1)
    write_images(root / 'data/val', per_class=4, seed=2)
    return root, write_checkpoint(root / 'epoch_1.pth')


def folder(root):
    paths = sorted(str(p) for p in root.rglob('*.png'))
    names = sorted({p.split('/')[-2] for p in paths})
    return paths, torch.tensor([names.index(p.split('/')[-2]) for p in paths])


def test_partial_finetuning(place):
    """The last block is trained, in a copy; equal arguments give equal figures."""
    root, checkpoint = place
    model = milan_mm.get_model(str(checkpoint))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sets = folder(root / 'data/train'), folder(root / 'data/val')
    how = dict(epochs=8, batch_size=8, lr=4e-3, workers=0, progress=False)
    found = {blocks: partial_finetune(model, *sets, 3, blocks, **how) for blocks in (0, 1, 2)}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert partial_finetune(model, *sets, 3, 1, **how) == found[1]
    assert found[1]['top1'] > 90 and found[1]['of'] == 2  # colours are easy
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())  # noqa: E731
    head = 32 * 3 + 3
    backbone = model.backbone
    assert found[0]['parameters'] == head
    assert found[1]['parameters'] == head + count(backbone.layers[1], backbone.ln1)
    assert found[2]['parameters'] == head + count(
        *backbone.layers, backbone.ln1, backbone.patch_embed) + backbone.cls_token.numel()
    with pytest.raises(MilanError, match='0 to 2 blocks'):
        partial_finetune(model, *sets, 3, 3, **how)


def test_one_result_with_everything(place, capfd):
    root, checkpoint = place
    done = run_tool_here(
        capfd, 'eval_features', checkpoint, '--data', root / 'data', '--few-shot', 1, 4,
        '--draws', 2, '--retrieval', '--partial', 1, '--partial-epochs', 1, '--feature', 'pooled',
        '--batch-size', 8, '--workers', 0, '--out', root / 'eval.json')
    assert done.returncode == 0, done.stderr
    said = json.loads((root / 'eval.json').read_text())
    assert {'knn', 'linear', 'few_shot', 'retrieval', 'partial', 'collapse'} <= set(said)
    assert [row['shots'] for row in said['few_shot']['shots']] == [1, 4]
    assert said['retrieval']['mode'] == 'gallery' and said['partial'][0]['blocks'] == 1
    assert f'mAP   {said["retrieval"]["map"]:6.2f} %' in done.stdout
    assert f'last block    top-1 {said["partial"][0]["top1"]:6.2f} %' in done.stdout
    alone = evaluate(milan_mm.get_model(str(checkpoint)), root / 'data/train', root / 'data/val',
                     'pooled', Options(), workers=0, progress=False)
    assert alone['knn'] == said['knn'] and 'few_shot' not in alone


@pytest.mark.parametrize('arguments, said', [
    (('--few-shot', 0), 'shots and draws must be at least 1'),
    (('--few-shot', '--draws', 0), 'shots and draws must be at least 1'),
    (('--k', 0), 'k must be at least 1'),
    (('--shift', 'x__', 'y__'), "starts with 'x__'"),
    (('--partial', 9), '0 to 2 blocks')])
def test_mistakes_are_told_before_an_image_is_read(place, tmp_path, capfd, arguments, said):
    for split, label in itertools.product(('train', 'val'), 'ab'):
        (tmp_path / split / label).mkdir(parents=True)
        (tmp_path / split / label / '0.png').write_bytes(b'no image')
    done = run_tool_here(capfd, 'eval_features', place[1], '--data', tmp_path, '--workers', 0,
                         *arguments)
    assert done.returncode == 2 and said in done.stderr


def test_partial_finetuning_of_what_has_no_last_norm(place, tmp_path):
    """As classifiers that pool by the mean have none."""
    model = milan_mm.get_model(str(place[1]))
    model.backbone.final_norm = False
    del model.backbone.ln1
    sets = folder(place[0] / 'data/train'), folder(place[0] / 'data/val')
    found = partial_finetune(model, *sets, 3, 1, epochs=1, batch_size=8, workers=0, progress=False)
    assert found['parameters'] == 32 * 3 + 3 + sum(
        p.numel() for p in model.backbone.layers[1].parameters())
    images = torch.randn(2, 3, 32, 32)
    everything = torch.arange(16).expand(2, -1)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(images, everything), model.backbone(images)[-1])
