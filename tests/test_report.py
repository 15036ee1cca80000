# SPDX-License-Identifier: Apache-2.0
"""The quickstart's page, and the images on it."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_browser import check_in_browser
from helpers_pages import Elements, check_page
from matplotlib.figure import Figure
from mmengine.config import Config
from open_clip import CLIP
from PIL import Image

from milan_mm import MilanError
from milan_mm.analysis.visualization.views import view
from milan_mm.drawing import panels
from milan_mm.engine.hooks import describe_encoder
from milan_mm.inference.images import load_pixels
from milan_mm.inference.pretraining import load_pretraining
from milan_mm.keyed_random import sample_key
from milan_mm.lab.clip_training import ClipRecipe, save_clip
from milan_mm.lab.quickstart.report import duration, write_report
from milan_mm.lab.quickstart.report_images import choose_images
from milan_mm.lab.quickstart.verdict import judge
from milan_mm.models import MILAN  # noqa: F401  registers
from milan_mm.registry import MODELS
from milan_mm.reports.charts import Series, axis_end, bars, curves, svg

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs/quickstart'
GRID = (4, 6)
EVIL_CLASS = '<img src=x onerror=alert(1)>'
EVIL_TEXT = '<script>alert(1)</script> "a\' & b'
CLASSES = ('plain', 'a "b\' &amp; <i>c', EVIL_CLASS)


# --------------------------------------------------------------------------- a quickstart's folder


def write_folder(root, per_class, seed):
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.normal((40, 220, 120)[number], 60, (70, 64, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f'one__{i}.png')
            (root / name / f'one__{i}.txt').write_text(EVIL_TEXT)


def write_run(folder, config, **target):
    """A checkpoint of a quickstart model that was not trained, and a few logged scalars."""
    cfg = Config.fromfile(CONFIGS / config)
    cfg.model.target_generator.update(target)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    folder.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(milan_mm=describe_encoder(model))),
               folder / 'epoch_2.pth')
    log = folder / '20200101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(''.join(json.dumps(dict(
        step=s, loss=2 - s / 10, cos_visible=s / 9, cos_masked=s / 10, importance_seen=0.4)) + '\n'
                           for s in range(1, 7)))


def make_results(knn=(18.0, 24.0, 49.5, 50.7), linear=(26.2, 33.8, 45.8, 47.2), **more):
    names = ('random', 'mae', 'milan', 'teacher')
    return dict(
        dict(classification=dict(knn=dict(zip(names, knn)), linear=dict(zip(names, linear))),
             chance=12.5, sizes=dict(test_concepts=400, test_images=1600), seeds=[0],
             seconds=dict(images=2.0, teacher=200.0), versions=dict(torch='1'),
             settings=dict(quick=False, images='demo', styles=[])), **more)


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp('quickstart')
    write_folder(work / 'data/train', 3, seed=0)
    write_folder(work / 'data/test', 2, seed=1)
    (work / 'data/meta.json').write_text(json.dumps(dict(
        kind='own', classes=[*CLASSES, EVIL_TEXT], styles=[], chance=12.5)))
    recipe = ClipRecipe(width=32, layers=2, text_width=32, text_layers=1, embed_dim=32)
    torch.manual_seed(0)
    save_clip(CLIP(**recipe.model_cfg()), recipe,
              [dict(step=s, loss=5 - s, accuracy=10 * s, lr=1e-3) for s in range(4)],
              work / 'teacher')
    write_run(work / 'milan', 'milan.py', pretrained=str(work / 'teacher'))
    write_run(work / 'mae', 'mae.py')
    (work / 'results.json').write_text(json.dumps(make_results()))
    return work


@pytest.fixture(scope='module')
def page(work):
    return write_report(work)


# ------------------------------------------------------------------------------------------- panels


def patch_means(image, grid):
    grey = np.asarray(image.convert('L'), dtype=float)
    rows, columns = grid
    return grey.reshape(rows, grey.shape[0] // rows, columns, -1).mean(axis=(1, 3)).flatten()


def random_pixels(seed=0, grid=GRID, patch=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, grid[0] * patch, grid[1] * patch), generator=generator,
                         dtype=torch.uint8)


def test_heat_map_is_brightest_at_the_most_important_patch():
    importance = torch.linspace(0.01, 0.05, 24)[torch.randperm(24)]
    importance[17] = 0.5
    image = panels.importance_panel(random_pixels(), importance, GRID, scale=3)
    assert image.size == (6 * 8 * 3, 4 * 8 * 3) and image.mode == 'RGB'
    assert patch_means(image, GRID).argmax() == 17


def test_mask_panel_shows_the_visible_patches_and_nothing_of_the_others():
    pixels, visible = random_pixels(), torch.tensor([3, 0, 23])
    image = np.asarray(panels.mask_panel(pixels, visible, GRID))
    expected = pixels.permute(1, 2, 0).numpy()
    for index in range(24):
        row, column = divmod(index, 6)
        part = np.s_[row * 8:row * 8 + 8, column * 8:column * 8 + 8]
        if index in visible.tolist():
            assert (image[part] == expected[part]).all()
        else:
            assert len(np.unique(image[part].reshape(-1, 3), axis=0)) == 1


def test_error_panel_brightens_with_the_error_and_marks_visible_patches():
    errors = torch.linspace(0, 2, 24)
    plain = panels.error_panel(errors, GRID, (64, 96), highest=1.5)
    means = patch_means(plain, GRID)
    assert (np.diff(means[:18]) > 0).all() and np.ptp(means[19:]) == 0  # clipped above
    marked = panels.error_panel(errors, GRID, (64, 96), 1.5, visible=torch.tensor([5]))
    changed = (np.asarray(marked) != np.asarray(plain)).any(axis=2)
    assert changed[:16, 80:].any()
    changed[:16, 80:] = False
    assert not changed.any()


def test_feature_colours_do_not_depend_on_the_axes_of_the_feature_space():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 16, generator=generator) * torch.linspace(3, 0.1, 16) + 1
    turn, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    basis = panels.fit_colours(features)
    scores = basis.scores(features)
    torch.testing.assert_close(scores.var(dim=0, unbiased=False), torch.ones(3))
    other = panels.turn_colours(panels.fit_colours(features @ turn), features @ turn, scores)
    torch.testing.assert_close(other.scores(features @ turn), scores, atol=1e-3, rtol=0)


def test_alike_patches_get_alike_colours_and_constant_features_none():
    features = torch.eye(8)[torch.tensor([0, 0, 1, 1, 2, 2, 3, 3] * 3)]
    scores = panels.fit_colours(features).scores(features)
    colours = np.asarray(panels.feature_panel(scores, GRID, (4, 6))).reshape(24, 3)
    assert (colours[0] == colours[1]).all() and len(np.unique(colours, axis=0)) == 4
    for constant in (torch.ones(24, 8), torch.zeros(24, 8), torch.ones(24, 2)):
        assert (panels.fit_colours(constant).scores(constant).abs() < 1e-3).all()


def test_a_panel_says_what_does_not_fit():
    with pytest.raises(MilanError, match='4 x 6 patches, got 25; leave the CLS'):
        panels.error_panel(torch.zeros(25), GRID, (64, 96), 1.0)
    with pytest.raises(MilanError, match='at least 2 patches'):
        panels.fit_colours(torch.zeros(2, 3, 4))


# --------------------------------------------------------------------------------------------- step


def test_views_are_the_training_step(work):
    model = load_pretraining(work / 'milan/epoch_2.pth', CONFIGS / 'milan.py', work / 'teacher')
    paths = choose_images(work / 'data/test', 4)
    pixels = load_pixels(paths, (64, 64))
    views, again = (view(model, pixels, seed=5) for _ in range(2))
    seen = views.trained
    assert all(torch.equal(a, b) for a, b in zip(seen[1:5], again.trained[1:5]))
    assert all(torch.equal(a, b) for a, b in zip((views.importance, views.target, views.student),
                                                 (again.importance, again.target, again.student)))
    assert not torch.equal(view(model, pixels, seed=6).trained.visible, seen.visible)
    assert seen.visible.shape == (4, 16) and not torch.equal(seen.visible[0], seen.visible[1])
    keys = torch.tensor([sample_key(5, 0, i, 'look') for i in range(4)])
    inputs = model.data_preprocessor(dict(inputs=pixels))['inputs']
    losses = model.loss(inputs, sample_keys=keys)
    is_seen = torch.zeros(4, 64, dtype=torch.bool).scatter_(1, seen.visible, True)
    for name, chosen in (('cos_visible', is_seen), ('cos_masked', ~is_seen)):
        torch.testing.assert_close(seen.measure[chosen].mean(), losses[name])
    torch.testing.assert_close(views.importance[is_seen].sum() / 4, losses['importance_seen'])


def test_a_checkpoint_of_another_model_is_refused(work, tmp_path):
    with pytest.raises(MilanError, match='does not hold the model of .*milan.py'):
        load_pretraining(work / 'mae/epoch_2.pth', CONFIGS / 'milan.py', work / 'teacher')


def test_images_are_of_many_classes_and_can_be_read(tmp_path):
    write_folder(tmp_path, 3, seed=0)
    (tmp_path / 'plain/one__0.png').write_bytes(b'not an image')
    chosen = choose_images(tmp_path, 3)
    assert {path.parent.name for path in chosen} == set(CLASSES)
    assert len(choose_images(tmp_path, 99)) == 8
    assert choose_images(tmp_path / 'missing', 3) == []


# ------------------------------------------------------------------------------------------- charts


def drawn(panel):
    axes = Figure().subplots()
    panel.draw(axes)
    return axes


def test_bars_are_as_long_as_their_values():
    panel = bars('k-NN', [('mae', 'A', 20.0, None), ('milan', 'B', 49.0, 3.0)], 10.0,
                 axis_end([52]))
    axes = drawn(panel)
    assert [bar.get_width() for bar in axes.patches] == [20, 49] and axes.get_xlim() == (0, 60)
    whisker, *_, reference = [list(line.get_xdata()) for line in axes.lines]
    assert whisker == [46, 52] and reference == [10, 10]
    assert [text.get_text() for text in axes.texts] == ['20.0', '49.0 ± 3.0']
    assert [label.get_text() for label in axes.get_yticklabels()] == ['A', 'B']
    assert axes.yaxis_inverted() and panel.summary == 'k-NN: A 20.0; B 49.0 ± 3.0'


def test_curves_leave_out_what_is_not_finite_and_reach_what_they_shall():
    values = [3.0, float('nan'), 1.0, float('inf'), 2.0]
    panel = curves('loss', '', [Series('x', 'milan', range(5), values),
                                Series('empty', 'mae', [], [])], include=(0, ))
    axes = drawn(panel)
    line, end = axes.lines
    assert line.get_xydata().tolist() == [[0, 3], [2, 1], [4, 2]]
    assert end.get_xydata().tolist() == [[4, 2]]
    assert axes.get_ylim()[0] <= 0 and axes.get_ylim()[1] > 3
    assert axes.get_legend_handles_labels()[1] == ['x 2']
    assert 'from 3 to 2 over 4 steps' in panel.summary
    assert curves('loss', '', [Series('x', 'milan', [0], [float('nan')])]) is None
    assert 'x 0 %' in svg(curves('loss', '', [Series('x', 'milan', [0], [0.0])], percent=True))


def test_durations_are_readable():
    assert [duration(s) for s in (0.42, 42, 201.4, 3599.7, 7260)] == [
        '0.4 s', '42 s', '3 min 21 s', '1 h 0 min', '2 h 1 min']


# ------------------------------------------------------------------------------------------ verdict


def test_the_sentence_says_who_is_ahead_and_by_how_much():
    verdict = judge(make_results())
    assert verdict.headline == 'MILAN is ahead of MAE and of random weights'
    for part in ('49.5 %', '25.5 points more than with MAE', '31.5 points more', '45.8 %',
                 '12.0 points more than with MAE', '12.5 %'):
        assert part in verdict.sentence
    assert '400 held-out concepts' in verdict.caveat


@pytest.mark.parametrize('mae,headline,sentence', [
    ((49.0, 45.0), 'MILAN is not ahead of MAE, but ahead of random weights',
     '(+0.5 points, which may be chance)'),
    ((70.0, 65.0), 'MILAN is behind MAE, but ahead of random weights',
     '20.5 points fewer than with MAE'),
    ((24.0, 65.0), 'MILAN is ahead of MAE in k-NN only, and ahead of random weights',
     '19.2 points fewer than with MAE')])
def test_the_sentence_says_so_when_milan_is_not_ahead(mae, headline, sentence):
    verdict = judge(make_results((18.0, mae[0], 49.5, 50.7), (26.2, mae[1], 45.8, 47.2)))
    assert verdict.headline == headline
    assert sentence in verdict.sentence


def test_milan_no_better_than_random_weights_is_said():
    verdict = judge(make_results((49.0, 48.0, 49.5, 50.0), (45.0, 46.0, 45.8, 47.0)))
    assert verdict.headline == 'MILAN is not ahead of MAE, and not ahead of random weights'


def test_few_held_out_images_prove_little_and_many_seeds_more():
    knn, linear = (30.0, 42.0, 49.5, 50.0), (26.0, 39.0, 45.8, 47.0)
    few = make_results(knn, linear, sizes=dict(test_files=40, test_images=4000))
    assert judge(few).headline.startswith('MILAN is not ahead of MAE')
    seeds = make_results(knn, linear, sizes=dict(test_files=40), seeds=[0, 1, 2])
    for block in seeds['classification'].values():
        block.update({f'{name}_std': 2.0 for name in list(block)})
    assert judge(seeds).headline == 'MILAN is ahead of MAE and of random weights'
    assert '± 2.0' in judge(seeds).sentence and 'Means of 3 runs' in judge(seeds).caveat
    for block in seeds['classification'].values():
        block['mae_std'] = 9.0
    assert judge(seeds).headline.startswith('MILAN is not ahead of MAE')


def test_a_smoke_test_is_no_evidence():
    verdict = judge(make_results(settings=dict(quick=True)))
    assert verdict.headline.startswith('Smoke test') and 'means nothing yet' in verdict.headline
    assert 'no evidence' in verdict.caveat


# --------------------------------------------------------------------------------------------- page


def test_page_holds_every_part(page):
    parsed = Elements(page.read_text(encoding='utf-8'))
    for part in ('MILAN is ahead of MAE', 'k-NN', 'linear probe', 'What MILAN was asked to do',
                 'The most similar training images', 'Training', 'What was run', '3 min 20 s',
                 'What to do next', 'tools/quickstart.sh'):
        assert part in parsed.text, part
    tiles = [attrs for tag, attrs in parsed.elements if tag == 'img']
    # 6 held-out images: 8 panels each; each also asked with 3 encoders' 6 neighbours.
    assert len(tiles) == 6 * 8 + 6 * (1 + 3 * 6)
    assert all(attrs['alt'] for attrs in tiles)
    assert 'In the other drawing style' not in parsed.text
    assert [p.name for p in page.parent.iterdir() if p.name.startswith('.')] == []


def test_page_keeps_to_what_every_page_does(page):
    check_page(page, EVIL_CLASS)
    check_page(page, EVIL_TEXT)


def test_names_and_captions_are_text_and_never_markup(page):
    parsed = Elements(page.read_text(encoding='utf-8'))
    assert EVIL_CLASS in parsed.text and EVIL_TEXT in parsed.text
    assert any(EVIL_TEXT in alt for alt in parsed.attributes('alt'))
    assert not [name for _, attrs in parsed.elements for name in attrs if name.startswith('on')]
    assert 'x' not in parsed.attributes('src')
    assert not [tag for tag, _ in parsed.elements if tag in ('script', 'i"', 'amp')]


def test_parts_that_are_missing_are_left_out(work, tmp_path):
    copy = tmp_path / 'work'
    shutil.copytree(work / 'data', copy / 'data')
    shutil.copytree(work / 'teacher', copy / 'teacher')
    shutil.copytree(work / 'milan', copy / 'milan')
    results = make_results(style_shift=make_results()['classification'])
    del results['versions'], results['classification']['linear'], results['sizes']
    (copy / 'results.json').write_text(json.dumps(results))
    text = Elements(write_report(copy).read_text(encoding='utf-8')).text
    assert 'In the other drawing style' in text and 'MAE: loss' not in text
    whole = (copy / 'milan/epoch_2.pth').read_bytes()
    (copy / 'milan/epoch_2.pth').write_bytes(whole[:len(whole) // 2])
    text = Elements(write_report(copy).read_text(encoding='utf-8')).text
    assert 'These images could not be made' in text and 'was it copied to the end?' in text
    shutil.rmtree(copy / 'milan')
    shutil.rmtree(copy / 'teacher')
    shutil.rmtree(copy / 'data/test')
    text = Elements(write_report(copy).read_text(encoding='utf-8')).text
    assert 'could not be' not in text and 'What MILAN was asked' not in text
    assert 'What was run' in text and 'Over steps' not in text
    (copy / 'results.json').unlink()
    with pytest.raises(MilanError, match=r'results.json is missing.*--stage eval'):
        write_report(copy)


# ------------------------------------------------------------------------------------------ browser


def test_in_a_browser_the_page_is_quiet_and_serves_everybody(browser, page, tmp_path):
    check_in_browser(browser, page)
    assert 'What to do next' in browser.run('document.body.innerText')
    # The same look at a page that is none of that, so that silence means something.
    loud = tmp_path / 'loud.html'
    loud.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("loud")</script>')
    browser.open(loud.as_uri())
    assert any('loud' in line for line in browser.console)
    assert browser.asked == [loud.as_uri(), 'http://127.0.0.1:9/x.png']
    assert {'image-alt', 'html-has-lang'} <= {rule for rule, _ in browser.findings()}
