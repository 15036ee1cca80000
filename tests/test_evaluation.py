# SPDX-License-Identifier: Apache-2.0
"""k-NN, linear probe and collapse against what is known of them; the hook in a real training."""
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_eval import (
    ARCH,
    MEAN,
    PATCH,
    ROOT,
    SIZE,
    STD,
    run_tool_here,
    write_checkpoint,
    write_images,
)
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import milan_mm
from milan_mm import MilanError
from milan_mm.config.data_paths import check_data, move_data
from milan_mm.config.read import read_config
from milan_mm.datasets import ImageFolder
from milan_mm.datasets.labelled import find_splits, splits_in
from milan_mm.engine.hooks import DescribeEncoderHook
from milan_mm.evaluation.collapse import collapse_measures
from milan_mm.evaluation.evaluate import Options, evaluate, measure_shift
from milan_mm.evaluation.features import (
    FeatureTable,
    collect_features,
    evaluation_mode,
    image_folder,
)
from milan_mm.evaluation.hook import FeatureEvalHook
from milan_mm.evaluation.knn import knn_accuracy
from milan_mm.evaluation.linear_probe import linear_probe
from milan_mm.reports.curves import read_run


def blobs(n, classes, dim, spread, seed):
    """Clouds around fixed centres."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return centres[labels] + spread * torch.randn(n, dim, generator=generator), labels


def brute_force_knn(gallery, gallery_labels, queries, labels, classes, k, temperature, alone):
    """The definition, one query after the other."""
    top1 = top5 = 0
    for i, query in enumerate(queries.double().numpy()):
        others = [j for j in range(len(gallery)) if not (alone and j == i)]
        rows = gallery.double().numpy()[others]
        cosine = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        votes = np.zeros(classes)
        for j in np.argsort(-cosine)[:k]:
            votes[gallery_labels[others[j]]] += np.exp(cosine[j] / temperature)
        ranked = np.argsort(-votes, kind='stable').tolist()
        top1 += ranked[0] == labels[i]
        top5 += int(labels[i]) in ranked[:5]
    return 100 * top1 / len(queries), 100 * top5 / len(queries)


@pytest.mark.parametrize('alone', [False, True])
@pytest.mark.parametrize('k', [1, 7, 40, 500])
def test_knn_is_the_definition(k, alone):
    gallery, known = blobs(90, 7, 6, 1.2, seed=1)
    queries, asked = (gallery, known) if alone else blobs(50, 7, 6, 1.2, seed=2)
    expected = brute_force_knn(gallery, known, queries, asked, 7, k, 0.3, alone)
    assert 20 < expected[0] < 95  # neither hopeless nor trivial
    got = knn_accuracy(gallery, known, queries, asked, 7, k, 0.3, leave_one_out=alone)
    if k >= 40:  # with fewer neighbours some classes have no vote, and their order is arbitrary
        assert got['top5'] == pytest.approx(expected[1])
    assert got['top1'] == pytest.approx(expected[0])


@pytest.mark.parametrize('alone', [False, True])
def test_knn_does_not_depend_on_chunks(alone):
    gallery, known = blobs(97, 5, 8, 1.5, seed=1)
    queries, asked = (gallery, known) if alone else blobs(41, 5, 8, 1.5, seed=2)
    results = [knn_accuracy(gallery, known, queries, asked, 5, 20, leave_one_out=alone,
                            query_chunk=q, gallery_chunk=g)
               for q, g in ((1000, 1000), (7, 10), (1, 3))]
    assert results[0] == results[1] == results[2]
    assert results[0]['top1'] < 100


def test_knn_tiny_temperature_and_bad_input():
    gallery, known = blobs(40, 4, 8, .5, seed=1)
    sharp = knn_accuracy(gallery, known, gallery, known, 4, temperature=1e-6)
    assert sharp == {'top1': 100.0}  # each image's nearest is itself; no top-5 of 4 classes
    with pytest.raises(MilanError, match='NaN'):
        knn_accuracy(gallery * torch.nan, known, gallery, known, 4)
    with pytest.raises(MilanError, match='k must be at least 1'):
        knn_accuracy(gallery, known, gallery, known, 4, k=0)


@pytest.mark.parametrize('solver, options', [
    ('lbfgs', {}), ('lars', dict(batch_size=60, base_lr=20.0, epochs=60))])
def test_probe_separates_what_is_separable(solver, options):
    # Scaled and shifted by dimension: BatchNorm must take that out.
    scale, shift = torch.logspace(-3, 3, 16), torch.linspace(-50, 50, 16)
    (train, known), (test, asked) = (blobs(n, 6, 16, .2, seed) for n, seed in ((240, 1), (60, 2)))
    state = torch.random.get_rng_state()
    first = linear_probe(train * scale + shift, known, test * scale + shift, asked, 6, solver,
                         **options)
    assert first['top1'] > 98 and first['top5'] > 99 and first['solver'] == solver
    assert torch.equal(state, torch.random.get_rng_state())
    assert first == linear_probe(train * scale + shift, known, test * scale + shift, asked, 6,
                                 solver, **options)


def test_probe_is_linear_and_does_not_see_noise():
    """XOR has no linear solution; features without information give chance."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(800, 2, generator=generator) - .5
    xor = (x.prod(dim=1) > 0).long()
    assert 35 < linear_probe(x[:400], xor[:400], x[400:], xor[400:], 2)['top1'] < 65
    noise = torch.randn(800, 64, generator=generator)
    labels = torch.randint(0, 4, (800,), generator=generator)
    result = linear_probe(noise[:400], labels[:400], noise[400:], labels[400:], 4)
    assert 15 < result['top1'] < 35
    assert result['l2'] >= 1e-2  # a weak penalty would fit the noise


def test_probe_minimum_is_stationary():
    """At the L-BFGS solution the penalised loss has no gradient, by double-precision algebra."""
    from milan_mm.evaluation.linear_probe import batch_norm_statistics, fit_lbfgs
    train, known = blobs(200, 5, 8, 1.0, seed=3)
    mean, scale = batch_norm_statistics(train)
    probe, said = fit_lbfgs(train, known, 5, mean, scale, 'cpu')
    norm = nn.BatchNorm1d(8, eps=1e-6, affine=False, dtype=torch.float64)
    x = norm(train.double())  # in training mode: the batch is the whole set
    p = (x @ probe.weight.double().T + probe.bias.double()).softmax(dim=1)
    error = p - torch.nn.functional.one_hot(known, 5)
    gradient = error.T @ x / 200 + said['l2'] * probe.weight.double()
    assert gradient.abs().max() < 1e-4 and error.mean(dim=0).abs().max() < 1e-4


def test_probe_does_not_depend_on_chunks(monkeypatch):
    from milan_mm.evaluation import linear_probe as module
    (train, known), (test, asked) = (blobs(n, 5, 8, 1.0, seed) for n, seed in ((150, 1), (90, 2)))
    whole = linear_probe(train, known, test, asked, 5)
    monkeypatch.setattr(module, '_CHUNK', 17)
    parts = linear_probe(train, known, test, asked, 5)
    assert parts['top1'] == pytest.approx(whole['top1'], abs=1.2) and parts['l2'] == whole['l2']


def test_collapse_measures():
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(4000, 16, generator=generator)
    got = collapse_measures(spread)
    assert got == pytest.approx(collapse_measures(spread, chunk=7))
    assert abs(got['mean_cosine']) < 0.01
    assert got['effective_rank'] == pytest.approx(16, abs=.1)
    assert got['std'] == pytest.approx(1, abs=.02)

    # Against the definitions, on features that are anything but even.
    few = torch.randn(30, 8, generator=generator) * torch.logspace(0, -3, 8) + torch.ones(8)
    unit = nn.functional.normalize(few.double(), dim=1)
    pairs = unit @ unit.T
    singular = torch.linalg.svdvals(few.double() - few.double().mean(dim=0))
    share = singular / singular.sum()
    got = collapse_measures(few)
    assert got['mean_cosine'] == pytest.approx(
        (pairs.sum() - pairs.trace()).item() / (30 * 29))
    assert got['effective_rank'] == pytest.approx((-share * share.log()).sum().exp().item())
    assert got['std'] == pytest.approx(
        (unit.std(dim=0, unbiased=False).mean() * 8**.5).item())

    line = torch.randn(100, 1, generator=generator) * torch.randn(1, 16, generator=generator)
    assert collapse_measures(line)['effective_rank'] == pytest.approx(1, abs=.01)
    point = collapse_measures(torch.randn(1, 16, generator=generator).expand(50, -1))
    assert point['mean_cosine'] == pytest.approx(1) and point['effective_rank'] == 0
    assert point['std'] == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_images(root / 'train', seed=1, prefixes=('a__', 'b__'))
    write_images(root / 'val', seed=2, prefixes=('a__', 'b__'), per_class=4)
    return root


@pytest.fixture
def model(tmp_path):
    return milan_mm.get_model(write_checkpoint(tmp_path / 'a.pth'))


def test_features_of_a_folder_name_what_cannot_be_read(tmp_path, model):
    root = write_images(tmp_path / 'images', per_class=3)
    bad = root / 'green' / 'green_1.png'
    bad.write_bytes(bad.read_bytes()[:60])
    folder = image_folder(model, root, with_label=True)
    states = random.getstate(), torch.random.get_rng_state()
    one = collect_features(model, folder, ('cls', 'pooled'), batch_size=4, workers=2)
    two = collect_features(model, folder, ('cls', 'pooled'), batch_size=1, workers=0)
    assert random.getstate() == states[0]
    assert torch.equal(torch.random.get_rng_state(), states[1])
    assert one.unreadable == two.unreadable == [str(bad)]
    assert one.paths == two.paths and len(one.paths) == 8 and str(bad) not in one.paths
    assert one.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    for kind in ('cls', 'pooled'):
        torch.testing.assert_close(one.features[kind], two.features[kind])
    torch.testing.assert_close(one.features['pooled'][4], model(one.paths[4]).pooled[0])


def test_nothing_readable_is_an_error(tmp_path, model):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x' / 'a.png').write_bytes(b'no image')
    with pytest.raises(MilanError, match='none of the 1 images'):
        collect_features(model, image_folder(model, tmp_path, True), workers=0)


def test_evaluate(folders, model):
    result = evaluate(model, folders / 'train', folders / 'val', feature='pooled',
                      shift=('a__', 'b__'), workers=0, progress=False)
    assert result['sizes'] == {'gallery': 36, 'queries': 24} and result['chance'] == 100 / 3
    assert result['knn']['top1'] > 80 and result['linear']['top1'] > 80  # colours are easy
    ways = result['shift']['directions']
    assert [(w['gallery'], w['queries']) for w in ways] == [('a__', 'b__'), ('b__', 'a__')]
    assert ways[0]['sizes'] == {'gallery': 18, 'queries': 12}
    assert result['shift']['knn'] == pytest.approx(sum(w['knn']['top1'] for w in ways) / 2)


def test_both_features_are_what_each_gives_alone(folders, model):
    how = dict(workers=0, progress=False)
    both = evaluate(model, folders / 'train', folders / 'val', 'both', **how)
    alone = {kind: evaluate(model, folders / 'train', folders / 'val', kind, **how)
             for kind in ('cls', 'pooled')}
    assert both['knn'] == alone['cls']['knn'] and both['linear'] == alone['cls']['linear']
    assert both['pooled'] == {kind: alone['pooled'][kind] for kind in ('knn', 'linear')}
    assert both['feature'] == 'cls' and 'pooled' not in alone['pooled']


def test_classes_are_matched_by_name(tmp_path, folders, model):
    """The queries lack the first class, so their own labels are others than the gallery's."""
    write_images(tmp_path / 'val', seed=4, classes=('green', 'red'))
    only_knn = Options(linear=False)
    result = evaluate(model, folders / 'train', tmp_path / 'val', 'pooled', only_knn, workers=0,
                      progress=False)
    assert result['knn']['top1'] > 80 and 'linear' not in result
    write_images(tmp_path / 'train', classes=('green', 'blue'))
    with pytest.raises(MilanError, match='has 1 classes that .* has not, such as red'):
        evaluate(model, tmp_path / 'train', tmp_path / 'val', workers=0, progress=False)


def test_shift_uses_one_prefix_against_the_other():
    """Features that tell the classes apart within a style, and mislead across styles."""
    signs = torch.tensor([1., 1, -1, -1])
    table = FeatureTable(
        {'cls': torch.stack([torch.tensor([1., -1, -1, 1]), signs], 1)},
        torch.tensor([0, 1, 1, 0]), ['x/a_0.png', 'y/a_1.png', 'y/b_0.png', 'x/b_1.png'],
        ('x', 'y'), [])
    result = measure_shift(table, table, 'cls', ('a_', 'b_'), Options(linear=False, k=1))
    assert result['knn'] == 100.0
    flipped = table._replace(features={'cls': table.features['cls'] * signs[:, None]})
    result = measure_shift(flipped, flipped, 'cls', ('a_', 'b_'), Options(linear=False, k=1))
    assert result['knn'] == 0.0
    lacking = table._replace(labels=torch.tensor([0, 0, 1, 0]))
    result = measure_shift(lacking, lacking, 'cls', ('a_', 'b_'), Options(linear=False, k=1))
    assert [way['queries_left_out'] for way in result['directions']] == [1, 0]
    with pytest.raises(MilanError, match="starts with 'c_'.*a_0.png"):
        measure_shift(table, table, 'cls', ('a_', 'c_'), Options())


def test_find_splits(folders, tmp_path):
    train, val = folders / 'train', folders / 'val'
    assert find_splits(str(folders), None, None) == (train, val)
    assert find_splits(None, str(train), str(val)) == (train, val)
    assert find_splits(str(val), str(train), None) == (train, val)
    assert find_splits(str(train), None, str(val)) == (train, val)
    for given in ((str(train), None, None), (None, str(train), None), (None, None, None),
                  (str(tmp_path / 'x'), None, None), (str(folders), str(tmp_path / 'x'), None)):
        with pytest.raises(MilanError, match='no such folder|does not give both'):
            find_splits(*given)


def test_evaluation_mode_restores_every_part():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)))
    net[1][1].eval()
    with evaluation_mode(net):
        assert not any(part.training for part in net.modules())
    assert net[1].training and net[0].training and not net[1][1].training


def train(work_dir, data, hooks=(), epochs=3):
    """A real run of mmengine's: pixels by MAE's decoder, with dropout. Returns runner, losses."""
    pipeline = [dict(type='milan_mm.LoadPILImage'),
                dict(type='milan_mm.RandomResizedCropAndFlip', size=SIZE),
                dict(type='milan_mm.PackImageInputs')]
    runner = Runner(
        model=dict(
            type='milan_mm.MILAN',
            backbone=dict(type='milan_mm.MaskedVisionTransformer', arch=ARCH, img_size=SIZE,
                          patch_size=PATCH, layer_cfgs=dict(drop_rate=0.2)),
            target_generator=dict(type='milan_mm.PixelTargetGenerator', patch_size=PATCH),
            mask_generator=dict(type='milan_mm.RandomMaskGenerator', mask_ratio=0.5),
            neck=dict(type='milan_mm.MAEDecoder', decoder_embed_dim=16, decoder_depth=1,
                      decoder_num_heads=2),
            head=dict(type='milan_mm.ReconstructionHead',
                      loss=dict(type='milan_mm.MSEReconstructionLoss'), tokens='masked'),
            data_preprocessor=dict(mean=MEAN, std=STD)),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=6, num_workers=0, collate_fn=dict(type='default_collate'),
            sampler=dict(type='milan_mm.EpochSampler', shuffle=True),
            dataset=dict(type='milan_mm.ImageFolder', data_root=str(data), pipeline=pipeline)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                           checkpoint=dict(type='CheckpointHook', interval=epochs)),
        custom_hooks=[dict(type='milan_mm.DescribeEncoderHook'),
                      dict(type='milan_mm.PlainCheckpointHook'), *hooks],
        visualizer=dict(type='Visualizer', vis_backends=[
            dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]),
        log_level='WARNING',
        randomness=dict(seed=0),
        default_scope='mmpretrain',
        experiment_name=f'{work_dir.parent.name}-{work_dir.name}')
    runner.train()
    scalars = read_run(work_dir).curves
    return runner, scalars


def test_one_crop_ratio_for_hook_checkpoint_and_tool(tmp_path, folders, capfd):
    """The page said 42.8 and milan eval 47.0 of one checkpoint, as they cropped otherwise."""
    hooks = [dict(type='milan_mm.FeatureEvalHook', data=str(folders), k=5),
             dict(type='milan_mm.DescribeEncoderHook', crop_ratio=0.5)]
    runner, scalars = train(tmp_path / 'run', folders / 'train', hooks, epochs=1)
    checkpoint = tmp_path / 'run/epoch_1.pth'
    assert milan_mm.get_model(checkpoint).crop_ratio == 0.5
    assert milan_mm.get_model(checkpoint, crop_ratio=1).crop_ratio == 1
    assert milan_mm.get_model(write_checkpoint(tmp_path / 'a.pth')).crop_ratio == 0.875
    found = []
    for options in ((), ('--crop-ratio', 0.5), ('--crop-ratio', 0.1)):
        out = tmp_path / 'eval.json'
        done = run_tool_here(capfd, 'eval_features', checkpoint, '--data', folders, '--knn', '--k',
                             5, '--workers', 0, '--out', out, *options)
        assert done.returncode == 0, done.stderr
        result = json.loads(out.read_text())
        found.append((result['knn']['top1'], result['collapse']['mean_cosine']))
        assert ('central crop 0.5 of what fits' in done.stdout) == (0.1 not in options)
    logged = [scalars[f'eval/{name}'][1][-1] for name in ('knn_top1', 'mean_cosine')]
    assert found[0] == found[1] == pytest.approx(logged)
    assert found[2][1] != pytest.approx(found[0][1])
    with pytest.raises(MilanError, match=r'crop_ratio must be in \(0, 1\], got 2'):
        DescribeEncoderHook(2)


def test_hook_measures_and_leaves_the_training_alone(tmp_path, folders):
    hook = dict(type='milan_mm.FeatureEvalHook', data=str(folders / 'train'), interval=2,
                queries=str(folders / 'val'), feature='pooled', k=5)
    plain, without = train(tmp_path / 'plain', folders / 'train',
                           [dict(type='milan_mm.FeatureEvalHook')])  # no data: does nothing
    runner, scalars = train(tmp_path / 'hooked', folders / 'train', [hook])
    steps, losses = scalars['loss']
    assert losses.tolist() == without['loss'][1].tolist() and len(losses) == 18
    assert all(torch.equal(a, b) for a, b in zip(runner.model.state_dict().values(),
                                                 plain.model.state_dict().values()))
    assert not any(key.startswith('eval/') for key in without)

    # Every second epoch and after the last, at the step of the loss beside it.
    at, accuracy = scalars['eval/knn_top1']
    assert at.tolist() == [12, 18] and set(at) <= set(steps)
    assert {'eval/mean_cosine', 'eval/effective_rank', 'eval/std'} <= set(scalars)
    assert runner.message_hub.get_scalar('eval/knn_top1').current() == accuracy[-1]
    events = EventAccumulator(str(next((tmp_path / 'hooked').glob('*/vis_data'))))
    events.Reload()
    assert [e.step for e in events.Scalars('eval/knn_top1')] == [12, 18]

    # The last figures are those of the checkpoint, measured by the tool's function.
    model = milan_mm.get_model(tmp_path / 'hooked' / 'epoch_3.pth')
    result = evaluate(model, folders / 'train', folders / 'val', 'pooled',
                      Options(linear=False, k=5), workers=0, progress=False)
    assert result['knn']['top1'] == pytest.approx(accuracy[-1])
    for name, value in result['collapse'].items():
        assert value == pytest.approx(scalars[f'eval/{name}'][1][-1], rel=1e-4)


def test_hook_without_queries_leaves_each_image_out(tmp_path):
    data = write_images(tmp_path / 'noisy', noise=500)
    hook = dict(type='milan_mm.FeatureEvalHook', data=str(data), k=1)
    runner, scalars = train(tmp_path / 'run', data, [hook], epochs=1)
    model = milan_mm.get_model(write_checkpoint(tmp_path / 'a.pth', runner.model.backbone))
    table = collect_features(model, image_folder(model, data, True), ('cls', ), workers=0)
    args = (table.features['cls'], table.labels) * 2
    assert knn_accuracy(*args, 3, k=1)['top1'] == 100  # with itself in the gallery
    alone = knn_accuracy(*args, 3, k=1, leave_one_out=True)['top1']
    assert scalars['eval/knn_top1'][1].tolist() == [alone] and alone < 90


def test_hook_tells_splits_from_classes(tmp_path, folders):
    """Of DIR/train/<class> and DIR/val/<class> it made two classes, train and val."""
    given = dict(type='milan_mm.FeatureEvalHook', feature='pooled', k=5)
    _, expected = train(tmp_path / 'a', folders / 'train', [
        dict(given, data=str(folders / 'train'), queries=str(folders / 'val'))], epochs=1)
    runner, found = train(tmp_path / 'b', folders / 'train', [dict(given, data=str(folders))],
                          epochs=1)
    assert found['eval/knn_top1'][1].tolist() == expected['eval/knn_top1'][1].tolist()
    hook = next(hook for hook in runner.hooks if isinstance(hook, FeatureEvalHook))
    assert hook._gallery.metainfo['classes'] == ('blue', 'green', 'red')


def test_splits_are_no_classes(tmp_path, folders):
    with pytest.raises(MilanError, match='train, val in it, which hold .*give .*train'):
        ImageFolder(folders, with_label=True)
    mixed = tmp_path / 'mixed'
    shutil.copytree(folders / 'train', mixed / 'test')  # a class of this name, with folders in it
    shutil.copytree(folders / 'train/red', mixed / 'car')
    assert ImageFolder(mixed, with_label=True).metainfo['classes'] == ('car', 'test')
    shutil.copytree(folders / 'train/red', tmp_path / 'vehicles/train')
    shutil.copytree(folders / 'train/red', tmp_path / 'vehicles/tram')
    assert splits_in(tmp_path / 'vehicles') == {}
    assert ImageFolder(tmp_path / 'vehicles', with_label=True).metainfo['classes'] == (
        'train', 'tram')


def test_finetuning_takes_val_or_test(tmp_path, folders):
    shutil.copytree(folders / 'train', tmp_path / 'train')
    shutil.copytree(folders / 'val', tmp_path / 'test')
    cfg = read_config(ROOT / 'configs/classification/own_finetune.py')
    move_data(cfg, str(tmp_path))
    check_data(cfg)
    assert cfg.val_dataloader.dataset.data_prefix.img_path == 'test'
    assert cfg.train_dataloader.dataset.data_prefix.img_path == 'train'


def test_hook_says_before_training_what_is_wrong(tmp_path, folders):
    with pytest.raises(MilanError, match='no such folder'):
        train(tmp_path / 'a', folders / 'train',
              [FeatureEvalHook(data=str(tmp_path / 'nowhere'))], epochs=1)
    with pytest.raises(MilanError, match='images outside any class folder'):
        train(tmp_path / 'b', folders / 'train', [FeatureEvalHook(data=str(folders / 'val/red'))],
              epochs=1)


def test_hook_survives_a_diverged_encoder(tmp_path, folders):
    class Diverge(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            runner.model.backbone.cls_token.data.fill_(torch.nan)
    runner, scalars = train(tmp_path / 'run', folders / 'val', [
        Diverge(), FeatureEvalHook(data=str(folders / 'val'), interval=1)], epochs=1)
    assert runner.epoch == 1 and 'eval/knn_top1' not in scalars


def test_two_processes_measure_once(tmp_path, folders):
    """One process measures, the other waits; both go on."""
    script = tmp_path / 'two.py'
    script.write_text(
        'import sys, torch.distributed as dist\n'
        'from pathlib import Path\n'
        'from test_evaluation import train\n'
        'dist.init_process_group("gloo")\n'
        'data, work = Path(sys.argv[1]), Path(sys.argv[2])\n'
        'hook = dict(type="milan_mm.FeatureEvalHook", data=str(data), interval=1, k=3)\n'
        'runner, scalars = train(work, data, [hook], epochs=2)\n'
        'assert runner.world_size == 2\n'
        '(work / f"done{dist.get_rank()}").write_text(str(scalars["eval/knn_top1"][0].tolist()))\n'
    )
    env = dict(os.environ, PYTHONPATH=f'{ROOT}:{ROOT / "tests"}', OMP_NUM_THREADS='1',
               PYTHONWARNINGS='ignore')
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
         str(script), str(folders / 'val'), str(tmp_path / 'run')],
        env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'run/done0').read_text() == '[2.0, 4.0]'
    assert (tmp_path / 'run/done1').is_file()
