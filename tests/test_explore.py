# SPDX-License-Identifier: Apache-2.0
"""The page one plays with: what it answers, whom it answers, and what it is like in a browser."""
import http.client
import json
import threading
import time
import urllib.parse

import numpy as np
import open_clip
import pytest
import torch
from conftest import ROOT, milan_config
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file
from test_visualize import mae_config, write_run
from torch.nn import functional as F

from milan_mm import MilanError
from milan_mm.analysis.explore.load import load_explorer
from milan_mm.analysis.explore.server import (
    MOST_BYTES,
    Application,
    check_port,
    serve,
)
from milan_mm.datasets.decoding import open_image

EVIL = '<img src=x onerror=alert(1)> & "q".png'


@pytest.fixture(scope='module')
def folder(tmp_path_factory, teacher_folder):
    folder = tmp_path_factory.mktemp('explore')
    write_run(folder / 'milan.pth', milan_config(teacher_folder))
    write_run(folder / 'mae.pth', mae_config())
    rng = np.random.default_rng(0)
    (folder / 'data').mkdir()
    for name in (EVIL, 'a.png', 'b.png', 'c.png', 'd.png'):
        blocks = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((50, 40), 0).save(folder / 'data' / name)
    return folder


@pytest.fixture(scope='module')
def explorer(folder):
    return load_explorer(folder / 'milan.pth', folder / 'mae.pth', images=folder / 'data')[0]


@pytest.fixture(scope='module')
def served(explorer):
    """Host and port, and the path that the page is at."""
    application = Application(explorer, {'words': 'some'})
    server = serve(application, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address, f'/{application.secret}/'
    server.shutdown()
    server.server_close()


@pytest.fixture
def shown(explorer, folder):
    return explorer.show(open_image(folder / 'data/a.png'), 'a', folder / 'data/a.png')


def ask(served, path, body=None, **headers):
    """Status and text of an answer."""
    address, root = served
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request('GET' if body is None else 'POST',
                       root + path if not path.startswith('/') else path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode('utf-8', 'replace')
    connection.close()
    return answer.status, text


# ------------------------------------------------------------------------------------------ answers


def test_a_patch_is_compared_with_all_others(explorer, shown):
    answer = explorer.patch(shown, 0.3, 0.8)  # row 2, column 4 of 4 by 4
    seen = explorer._asked[shown].seen[0]
    tokens = F.normalize(seen.tokens.student[0, 1:], dim=1)
    low = (tokens @ tokens[1 * 4 + 3]).min().item()
    encoder, teacher, second = answer.rows[0].tiles
    assert encoder.caption == f'encoder, {explorer.names[0]}: {low:.2f} to 1.00'
    assert 'patch in row 2, column 4; the most in row 2, column 4' in encoder.alt
    assert teacher.caption.startswith('teacher: ') and explorer.names[1] in second.caption
    assert explorer.patch(shown, 1, 1).rows[0].tiles[0].alt.endswith('the most in row 4, column 4')


def test_masks_are_redrawn_without_asking_the_teacher(explorer, shown):
    asked = []
    hook = explorer.subjects[0].reference.tower.register_forward_hook(lambda *_: asked.append(1))
    answers = [explorer.masks(shown, *values) for values in (
        (0.75, 1, 0), (0.75, 1, 0), (0.75, 1, 1), (0.5, 1, 0), (0.75, 0.01, 0))]
    hook.remove()
    assert not asked
    masks = [np.asarray(answer.rows[0].tiles[0].image) for answer in answers]
    assert (masks[0] == masks[1]).all() and (masks[0] != masks[2]).any()
    assert '4 of 16 patches' in answers[0].rows[0].tiles[0].alt
    assert '8 of 16 patches' in answers[3].rows[0].tiles[0].alt
    # At hardly any temperature the most important patches are drawn.
    importance = explorer._asked[shown].seen[0].tokens.importance[0]
    most = importance.topk(4).values.sum() / importance.sum()
    assert dict(answers[4].facts)['importance seen'] == f'{most:.2f}'
    # Both models see the same mask, each error in its own measure.
    assert (np.asarray(answers[0].rows[1].tiles[0].image) == masks[0]).all()
    assert {name.split()[0] for name, _ in answers[0].facts} == {'cos', 'mse', 'importance'}
    with pytest.raises(MilanError, match='must be between 0 and 1'):
        explorer.masks(shown, 1.5, 1, 0)
    with pytest.raises(MilanError, match='choose it again'):
        explorer.masks('gone', 0.5, 1, 0)


def test_the_nearest_images_are_others(explorer, shown, folder):
    rows = explorer.near(shown).rows
    assert [row.title.split(',')[0] for row in rows] == [
        'By the encoder', 'By the teacher', 'By the encoder']
    for row in rows:
        cosines = [float(tile.caption.split()[0]) for tile in row.tiles]
        assert len(cosines) == 4 and cosines == sorted(cosines, reverse=True)
        assert not any(tile.caption.endswith(' a.png') for tile in row.tiles)
    elsewhere = explorer.show(Image.new('RGB', (40, 40), 'red'), 'red')
    assert len(explorer.near(elsewhere).rows[0].tiles) == 5


def test_words_are_found_in_the_space_of_the_teacher(explorer, shown, monkeypatch):
    # The tiny tower has 64 tokens; the tokenizer of the real ones knows more.
    monkeypatch.setattr(explorer, 'texts', explorer.texts._replace(
        tokenize=lambda texts: torch.tensor([[len(text) % 60] * 16 for text in texts])))
    answer = explorer.words(shown, ' a dog ')
    assert answer.rows[0].title == '“a dog”'
    assert [tile.caption.split(':')[0] for tile in answer.rows[0].tiles] == [
        'teacher', 'decoder, nothing masked']
    with pytest.raises(MilanError, match='expected some words'):
        explorer.words(shown, ' ')


def test_what_lacks_a_teacher_is_left_out(folder, teacher_folder):
    pixels, facts = load_explorer(folder / 'mae.pth')
    assert pixels.draws_masks and not pixels.masks_by_importance and not pixels.texts
    assert facts['words'] == 'none: the teacher is no CLIP'
    torch.save(dict(
        state_dict=torch.load(folder / 'milan.pth', weights_only=True)['state_dict']),
        folder / 'bare.pth')
    image = Image.new('RGB', (40, 40), 'red')
    alone, _ = load_explorer(folder / 'bare.pth')
    assert not alone.draws_masks and alone.masks(alone.show(image, 'x'), 0.5, 1, 0).rows == []
    assert 'id="masks"' not in Application(alone, {})._page()
    taught, _ = load_explorer(folder / 'bare.pth', teacher=str(teacher_folder))
    key = taught.show(image, 'x')
    assert [tile.caption for tile in taught.masks(key, 0.5, 1, 0).rows[0].tiles] == ['mask']
    assert taught.image(key).rows[0].tiles[1].caption == "teacher's importance"
    with pytest.raises(MilanError, match='--text-tower needs a CLIP teacher'):
        load_explorer(folder / 'bare.pth', texts='x')


# ----------------------------------------------------------------------------- whom it answers


def test_only_this_machine_and_this_page_are_answered(served):
    (host, port), root = served
    assert host == '127.0.0.1'
    code, page = ask(served, '')
    assert code == 200 and EVIL not in page and '&lt;img src=x' in page
    assert ask(served, '', Host=f'localhost:{port}')[0] == 200
    assert ask(served, '', Host=f'evil.example:{port}')[0] == 400
    assert ask(served, '', Origin='http://evil.example')[0] == 403
    assert ask(served, '', Origin='null')[0] == 403
    assert ask(served, '/')[0] == 404 and ask(served, '/guess/')[0] == 404
    for path in ('gallery/../../etc/passwd', 'gallery/99', 'gallery/-1', 'thumbnail/x', 'other'):
        assert ask(served, path)[0] == 404
    assert ask(served, 'masks?image=x&ratio=nan&temperature=1&draw=0')[0] == 400


def test_only_sane_images_are_decoded(served, tmp_path):
    code, text = ask(served, 'image?name=x', b'no image at all')
    assert code == 400 and text.startswith('cannot decode this file: its content is no image')
    assert ask(served, 'image', b'', **{'Content-Length': str(MOST_BYTES + 1)})[0] == 413
    bomb = tmp_path / 'bomb.png'
    Image.new('1', (10000, 10000)).save(bomb)
    code, text = ask(served, 'image', bomb.read_bytes())
    assert code == 400 and '10000 x 10000 pixels are more than' in text and 'config' not in text
    good = tmp_path / 'good.png'
    Image.new('RGBA', (30, 50), (255, 0, 0, 90)).save(good)
    code, text = ask(served, f'image?name={urllib.parse.quote(EVIL)}', good.read_bytes())
    answer = json.loads(text)
    assert code == 200 and EVIL in answer['rows'][0]['tiles'][0]['alt']


def test_a_port_that_cannot_be_had(served):
    with pytest.raises(MilanError, match='--port .* cannot be used .*; give another, or 0'):
        check_port(served[0][1])
    with pytest.raises(MilanError, match='must be from 0 to 65535'):
        check_port(99999)


# ------------------------------------------------------------------------------------------ browser


def test_in_a_browser_one_plays_with_it(browser, served, folder, explorer, monkeypatch,
                                        tmp_path):
    monkeypatch.setattr(explorer, 'texts', explorer.texts._replace(
        tokenize=lambda texts: torch.tensor([[len(text) % 60] * 16 for text in texts])))
    (host, port), root = served
    browser.open(f'http://{host}:{port}{root}')
    assert browser.run('document.getElementById("seen").hidden') and browser.findings() == []

    def source(place, number=0):
        return browser.run(f'document.querySelectorAll("#{place} img")[{number}].src')

    def changes(place, act, number=0):
        before = source(place, number)
        act()
        browser.wait(f'!busy.{place}')  # a variable of the page's script
        assert source(place, number) != before

    def chosen():
        return browser.run('document.getElementById("chosen").textContent')

    browser.run("""new Promise(done => {
        const canvas = Object.assign(document.createElement('canvas'), {width: 9, height: 9});
        canvas.toBlob(blob => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([blob], 'dropped.png'));
            document.body.dispatchEvent(
                new DragEvent('drop', {dataTransfer: dropped, bubbles: true}));
            done();
        });
    })""")
    browser.wait('document.getElementById("status").textContent == "Shown: dropped.png"')
    browser.give_file('#file', folder / 'data/b.png')
    browser.wait('document.getElementById("status").textContent == "Shown: b.png"')
    browser.click('#pick', 0.05, 0.95)
    assert chosen() == 'Chosen: row 4 of 4, column 1 of 4'
    # From here on by the keyboard alone.
    changes('patch', lambda: browser.press('ArrowRight'))
    browser.press('ArrowUp', 2)
    assert chosen() == 'Chosen: row 2 of 4, column 2 of 4'
    browser.press('Tab')
    assert browser.run('document.activeElement.id') == 'ratio'
    changes('masks', lambda: browser.press('ArrowLeft', 20))
    assert browser.run('document.getElementById("ratio-is").textContent') == '55 %'
    browser.press('Tab')
    for key in ('ArrowLeft', 'ArrowRight'):  # to a temperature at which chance has little to say
        changes('masks', lambda key=key: browser.press(key, 9))
    browser.press('Tab')
    changes('masks', lambda: browser.press('Enter'))
    browser.press('Tab')
    assert browser.run('document.activeElement.id') == 'text'
    browser.run('document.activeElement.value = "a dog"')
    browser.press('Enter')
    browser.wait('document.querySelectorAll("#words img").length == 2')
    browser.click('#gallery li:nth-child(1) button')
    browser.wait('document.getElementById("status").textContent.startsWith("Shown: <img")')
    for width, dark in ((1280, False), (1280, True), (390, False)):
        browser.look(width, dark)
        assert browser.findings() == []
        assert browser.run('document.documentElement.scrollWidth') <= width
        browser.wait('[...document.images].every(i => i.alt && i.naturalWidth)')
    assert browser.console == []
    assert {urllib.parse.urlsplit(address).netloc for address in browser.asked} == {
        f'{host}:{port}'}
    # An answer that is refused is said.
    (tmp_path / 'not.png').write_text('no image')
    browser.give_file('#file', tmp_path / 'not.png')
    browser.wait('document.getElementById("status").textContent.startsWith("cannot decode")')


@pytest.mark.slow
def test_answers_come_within_half_a_second(tmp_path):
    """ViT-S/16 at 224 pixels and a CLIP ViT-B/16 with random weights, two threads.

    Counted is the processor's time, so that others' work on the machine does not matter.
    """
    clip = open_clip.get_model_config('ViT-B-16-quickgelu')
    (tmp_path / 'clip').mkdir()
    save_file(open_clip.CLIP(**clip).state_dict(), tmp_path / 'clip/open_clip_model.safetensors')
    (tmp_path / 'clip/open_clip_config.json').write_text(json.dumps(dict(
        model_cfg=clip, preprocess_cfg=dict(mean=[.5] * 3, std=[.5] * 3))))
    cfg = Config.fromfile(ROOT / 'configs/milan/vitb_pretrain.py')
    cfg.model.backbone.arch = 'vit-s'
    cfg.model.target_generator.update(model=None, pretrained=str(tmp_path / 'clip'))
    write_run(tmp_path / 'milan.pth', cfg.model.to_dict())
    explorer, _ = load_explorer(tmp_path / 'milan.pth')
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    seconds = {}
    for i in range(3):
        image = Image.effect_noise((1600, 1200), 40 + i).convert('RGB')
        for name, ask_it in dict(
                image=explorer.image, patch=lambda key: explorer.patch(key, 0.5, 0.5),
                masks=lambda key: explorer.masks(key, 0.75, 1, 0),
                words=lambda key: explorer.words(key, 'a dog')).items():
            start = time.process_time()
            ask_it(explorer.show(image, 'x'))
            seconds.setdefault(name, []).append((time.process_time() - start) / 2)
    torch.set_num_threads(threads)
    assert all(min(taken) < 0.5 for taken in seconds.values()), seconds
