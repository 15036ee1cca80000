# SPDX-License-Identifier: Apache-2.0
"""The quickstart's page, and the images on it."""
import json
import math
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
from milan_mm.lab.quickstart.advice import training_facts
from milan_mm.lab.quickstart.report import duration, write_report
from milan_mm.lab.quickstart.report_images import choose_images
from milan_mm.lab.quickstart.verdict import differences, judge
from milan_mm.models import MILAN  # noqa: F401  registers
from milan_mm.registry import MODELS
from milan_mm.reports.charts import Bar, Series, axis_end, bars, curves, svg

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


NAMES = ('random', 'mae', 'milan', 'teacher')


def make_tests(row, error, runs=1):
    """MILAN against each other one, as a comparison of 400 concepts would have found it."""
    tests = {}
    for name in NAMES:
        difference = row['milan'] - row[name]
        p = math.erfc(abs(difference) / error / 2**.5)
        tests[name] = dict(difference=difference, low=difference - 2 * error,
                           high=difference + 2 * error, p=p, images=1600, groups=400, runs=runs,
                           test='exact sign-flip test over groups')
    return {name: test for name, test in tests.items() if name != 'milan'}


def make_results(knn=(18.0, 24.0, 49.5, 50.7), linear=(26.2, 33.8, 45.8, 47.2), error=3.0, **more):
    blocks = dict(knn=dict(zip(NAMES, knn)), linear=dict(zip(NAMES, linear)))
    runs = len(more.get('seeds', [0]))
    return dict(
        dict(classification=blocks,
             paired=dict(classification={
                 kind: make_tests(row, error, runs) for kind, row in blocks.items()}),
             intervals=dict(classification={
                 kind: {name: (value - 5, value + 5) for name, value in row.items()}
                 for kind, row in blocks.items()}),
             groups='concepts', chance=12.5,
             sizes=dict(test_concepts=400, test_images=1600), seeds=[0],
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
    panel = bars('k-NN', [Bar('mae', 'A', 20.0, interval=(14, 27)), Bar('milan', 'B', 49.0, 3.0),
                          Bar('random', 'C', 5.0)], 10.0, axis_end([52]))
    axes = drawn(panel)
    assert [bar.get_width() for bar in axes.patches] == [20, 49, 5]
    assert axes.get_xlim() == (0, 60)
    lines = [list(line.get_xdata()) for line in axes.lines]
    assert lines[0] == [14, 27] and lines[3] == [46, 52] and lines[-1] == [10, 10]
    assert [text.get_text() for text in axes.texts] == ['20.0', '49.0 ± 3.0', '5.0']
    assert [label.get_text() for label in axes.get_yticklabels()] == ['A', 'B', 'C']
    assert axes.yaxis_inverted()
    assert panel.summary == 'k-NN: A 20.0 (95 % interval 14.0 to 27.0); B 49.0 ± 3.0; C 5.0'


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
    for part in ('49.5 %', '25.5 points more than on MAE', '31.5 more than on those of random',
                 '45.8 %', '12.0 more than on MAE',
                 '(95 % interval +19.5 to +31.5)'):
        assert part in verdict.sentence, part
    assert differences(make_results())[0] == (
        'MAE', ['+25.5 (+19.5 to +31.5, p < 0.001)', '+12.0 (+6.0 to +18.0, p < 0.001)'])
    for part in ('1,600 images are renders of 400 concepts', 'exact sign-flip test',
                 'bootstrap over concepts', 'p is below 0.05'):
        assert part in verdict.caveat, part


@pytest.mark.parametrize('mae,headline,sentence', [
    ((49.0, 45.0), 'MILAN is not ahead of MAE, but ahead of random weights',
     '0.5 points more than on MAE\'s (95 % interval -5.5 to +6.5: may be chance)'),
    ((70.0, 65.0), 'MILAN is behind MAE, but ahead of random weights',
     '20.5 points fewer than on MAE'),
    ((24.0, 65.0), 'MILAN is ahead of MAE in k-NN only, and ahead of random weights',
     '19.2 fewer than on MAE')])
def test_the_sentence_says_so_when_milan_is_not_ahead(mae, headline, sentence):
    verdict = judge(make_results((18.0, mae[0], 49.5, 50.7), (26.2, mae[1], 45.8, 47.2)))
    assert verdict.headline == headline
    assert sentence in verdict.sentence


def test_milan_no_better_than_random_weights_is_said():
    verdict = judge(make_results((49.0, 48.0, 49.5, 50.0), (45.0, 46.0, 45.8, 47.0)))
    assert verdict.headline == 'MILAN is not ahead of MAE, and not ahead of random weights'


def test_the_caveat_names_the_test_that_was_made():
    one = make_results()
    for kind in one['paired']['classification'].values():
        for test in kind.values():
            test.update(images=179, groups=179, test="McNemar's exact test")
    said = judge(dict(one, groups='images')).caveat
    assert "McNemar's exact test" in said and '179 images' in said and 'renders' not in said
    said = judge(make_results(seeds=[0, 1, 2])).caveat
    assert 'bootstrap over 3 runs and 400 concepts' in said and 'McNemar' not in said
    old = {key: value for key, value in one.items() if key not in ('paired', 'intervals')}
    assert 'kept no hits of each image' in judge(old).caveat
    assert '25.5 points more than on MAE\'s (not tested' in judge(old).sentence


@pytest.mark.parametrize('results,said', [
    # The teacher knows little: 36.0 against 34.1 of random weights.
    (make_results((34.1, 40.0, 42.8, 36.0)), 'knows little of these images'),
    # MILAN has all but reached it.
    (make_results(), 'The teacher bounds it: its own k-NN is 50.7 %, 1.2 points above MILAN'),
    (make_results((18.0, 24.0, 52.0, 50.7)), '1.3 points below MILAN'),
    # Much is left to learn, and it was still learning.
    (make_results((18.0, 24.0, 30.0, 50.7), (26.2, 28.0, 30.0, 47.2),
                  training=dict(milan=dict(steps=700, loss=.9, late_fall=.15))),
     'last quarter of the 700 steps brought 15% of its whole fall. Next: more steps'),
    (make_results((18.0, 24.0, 30.0, 50.7), (26.2, 28.0, 30.0, 47.2),
                  sizes=dict(train_files=563, test_files=179)), '563 different images'),
    # 4 points with an interval of +-10 and 400 concepts: (10 / 4)^2 times as many.
    (make_results((18.0, 26.0, 30.0, 50.7), (26.2, 28.0, 30.0, 47.2), error=5.0),
     'takes about 2,500 held-out concepts instead of 400'),
    (make_results((18.0, 29.5, 30.0, 50.7), (26.2, 28.0, 30.0, 47.2), error=5.0),
     'take the two as equal'),
    (make_results((18.0, 10.0, 30.0, 50.7), (26.2, 10.0, 30.0, 47.2)), 'Next: --seeds 3')])
def test_advice_follows_from_the_figures(results, said):
    advice = ' '.join(judge(results).advice)
    assert said in advice, advice


def test_no_advice_where_nothing_calls_for_it():
    calm = make_results((18.0, 24.0, 30.0, 50.7), (26.2, 28.0, 30.0, 47.2), seeds=[0, 1, 2],
                        training=dict(milan=dict(steps=700, loss=.9, late_fall=.03)),
                        sizes=dict(train_files=5000), error=1.0)
    assert judge(calm).advice == []


def test_the_late_fall_of_a_loss_is_read_from_its_curve(tmp_path):
    def run(name, loss):
        file = tmp_path / name / '20200101_000000/vis_data/scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text(''.join(json.dumps(dict(step=s, loss=loss(s))) + '\n'
                                for s in range(10, 701, 10)))
        return training_facts(tmp_path / name)

    assert run('line', lambda s: 2 - s / 700)['late_fall'] == pytest.approx(.28, abs=.03)
    assert run('flat', lambda s: 1 + math.exp(-s / 70))['late_fall'] < .01
    assert run('up', lambda s: 1 + s)['late_fall'] == 0
    assert training_facts(tmp_path / 'missing') == {}


def test_a_smoke_test_is_no_evidence():
    verdict = judge(make_results(settings=dict(quick=True)))
    assert verdict.headline.startswith('Smoke test') and 'means nothing yet' in verdict.headline
    assert 'no evidence' in verdict.caveat and 'without --quick' in verdict.advice[0]


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
