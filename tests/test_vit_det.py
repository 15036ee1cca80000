# SPDX-License-Identifier: Apache-2.0
"""The detector's backbone and pyramid, against attention written out and against the plain ViT."""
import re

import pytest
import torch
import torch.nn.functional as F
from helpers_eval import logged
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmpretrain.models.utils import MultiheadAttention
from torch import nn

from milan_mm import MaskedVisionTransformer, MilanError
from milan_mm.cli.main import main
from milan_mm.lab.benchmark import downstream as tool
from milan_mm.models import (
    SimpleFeaturePyramid,
    WindowedVisionTransformer,
    chunked_attention,
    lean_mlp,
)
from milan_mm.models.window_attention import WindowAttention

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)


def windowed(shuffled=True, **changes):
    """A small one; with ``shuffled``, nothing in it is zero or one."""
    torch.manual_seed(0)
    model = WindowedVisionTransformer(
        **{**dict(arch=ARCH, img_size=64, patch_size=8, window_size=3), **changes})
    model.init_weights()
    if shuffled:
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * .2)
    model.eval()  # mmpretrain's gives nothing back
    return model


def attention(window, table=(8, 8), kind=WindowAttention):
    torch.manual_seed(0)
    attn = kind(MultiheadAttention(32, 2), window and (window, window),
                (window, window) if window else table).double()
    with torch.no_grad():
        for p in attn.parameters():
            p.copy_(torch.randn_like(p) * .4)
    return attn


def written_out(attn, x):
    """Window by window and head by head, every bias looked up in its table."""
    batch, height, width, dim = x.shape
    side = attn.window_size or (height, width)
    tables = []
    for table, length in ((attn.rel_pos_h, height), (attn.rel_pos_w, width)):
        if attn.window_size is None and len(table) != 2 * length - 1:
            table = F.interpolate(table.T[None], size=2 * length - 1, mode='linear')[0].T
        tables.append(table)
    bands = []
    for top in range(0, height, side[0]):
        band = []
        for left in range(0, width, side[1]):
            part = x[:, top:top + side[0], left:left + side[1]]
            rows, cols = part.shape[1:3]
            place = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
            differences = place[:, None] - place[None]  # (N, N, 2)
            bias_of = [table[differences[..., i] + (len(table) - 1) // 2]
                       for i, table in enumerate(tables)]  # (N, N, C)
            q, k, v = attn.qkv(part.flatten(1, 2)).chunk(3, dim=-1)
            heads = []
            for head in range(attn.num_heads):
                at = slice(head * attn.head_dims, (head + 1) * attn.head_dims)
                scores = q[..., at] @ k[..., at].mT / attn.head_dims**.5
                for vectors in bias_of:
                    scores = scores + torch.einsum('bic,ijc->bij', q[..., at], vectors)
                heads.append(scores.softmax(-1) @ v[..., at])
            band.append(attn.proj(torch.cat(heads, -1)).unflatten(1, (rows, cols)))
        bands.append(torch.cat(band, 2))
    return torch.cat(bands, 1)


def results(function, attn, x):
    """Output, and gradients of input and every parameter."""
    x = x.clone().requires_grad_()
    out = function(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad((out * weights).sum(), [x, *attn.parameters()])


@pytest.fixture(params=['in chunks', 'in one pass', 'by longer vectors'])
def way(request, monkeypatch):
    """How attention is computed: on a CPU, there with few tokens, and on other devices."""
    if request.param == 'in chunks':  # a row of one head's queries, and one row of windows
        monkeypatch.setattr(chunked_attention, 'CHUNK', 1)
        monkeypatch.setattr(chunked_attention, 'PART', 1)
    elif request.param == 'by longer vectors':
        monkeypatch.setattr(chunked_attention, 'suits', lambda *_: False)


# None: the whole map; 8 x 8 is the map its table is for.
@pytest.mark.parametrize('window, grid', [
    (3, (7, 5)), (4, (8, 8)), (5, (3, 9)), (2, (5, 2)), (14, (6, 4)), (None, (8, 8)),
    (None, (5, 7)), (None, (9, 12)), (1, (2, 3))])
def test_attention_equals_the_written_out(window, grid, way):
    attn = attention(window)
    x = torch.randn(2, *grid, 32, dtype=torch.double)
    got = results(attn, attn, x)
    for a, b in zip(got, results(lambda y: written_out(attn, y), attn, x)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert all(g.abs().max() > 1e-3 for g in got[1:]) or window == 1  # alone, nothing to weigh


def test_tables_of_the_memory_tool_are_the_same_attention():
    fast, slow = attention(None), attention(None, kind=tool.TableAttention)
    x = torch.randn(2, 8, 8, 32, dtype=torch.double)
    for a, b in zip(results(fast, fast, x), results(slow, slow, x)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_window_as_large_as_the_image_is_global_attention():
    wide = windowed(window_size=8, global_indices=())
    everywhere = windowed(window_size=3, global_indices=range(4))
    everywhere.load_state_dict(wide.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(wide(x)[0], everywhere(x)[0], rtol=0, atol=1e-5)
    narrow = windowed(window_size=7, global_indices=())
    state = {k: v for k, v in wide.state_dict().items() if 'rel_pos' not in k}
    narrow.load_state_dict(state, strict=False)
    assert (narrow(x)[0] - everywhere(x)[0]).abs().max() > 1e-2


@pytest.mark.parametrize('size', [(64, 64), (60, 50)])
def test_windows_do_not_see_each_other(size):
    """64 px are 8 patches, in windows of 3, 3 and 2; 60 x 50 px are padded to 8 x 7 patches."""
    model = windowed(global_indices=())
    x = torch.randn(1, 3, *size, requires_grad=True)
    out = model(x)[0]
    for rows, cols in ((slice(0, 3), slice(3, 6)), (slice(6, None), slice(6, None))):
        seen, = torch.autograd.grad(out[..., rows, cols].square().sum(), x, retain_graph=True)
        seen = seen.abs().sum((0, 1)) > 0
        inside = torch.zeros_like(seen)
        inside[rows.start * 8:(rows.stop or 99) * 8, cols.start * 8:(cols.stop or 99) * 8] = True
        assert torch.equal(seen, inside)


def test_without_windows_it_is_the_encoder_on_patch_tokens(tmp_path):
    """Weights come through the hand-over, from a file as a pretraining leaves it."""
    torch.manual_seed(1)
    encoder = MaskedVisionTransformer(arch=ARCH, img_size=64, patch_size=8)
    encoder.init_weights()
    encoder.eval()
    meta = dict(algorithm='MILAN', encoder=dict(arch=ARCH, img_size=(64, 64), patch_size=8),
                pixel_mean=[120.] * 3, pixel_std=[60.] * 3)
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in encoder.state_dict().items()},
                    meta=dict(milan_mm=meta)), tmp_path / 'epoch_1.pth')
    start = dict(type='milan_mm.PretrainedViT', checkpoint=str(tmp_path / 'epoch_1.pth'))
    model = WindowedVisionTransformer(
        arch=ARCH, img_size=64, patch_size=8, global_indices=range(4), init_cfg=start)
    with logged() as log:
        model.init_weights()
    assert '(100 %)' in log[-1] and 'new here: layers.* (8)' in log[-1]
    model.eval()
    x = torch.randn(2, 3, 64, 64)
    tokens = encoder.patch_embed(x)[0] + encoder.pos_embed[:, 1:]
    for layer in encoder.layers:
        tokens = layer(tokens)
    expected = tokens.transpose(1, 2).unflatten(2, (8, 8))
    torch.testing.assert_close(model(x)[0], expected, rtol=1e-5, atol=1e-5)
    # With windows an image of one window is the same thing, in another grid's corner of positions.
    model = WindowedVisionTransformer(
        arch=ARCH, img_size=128, patch_size=8, window_size=8, init_cfg=start)
    model.init_weights()
    assert model.pos_embed.shape == (1, 256, 32) and model.global_indices == (0, 1, 2, 3)


def test_images_of_other_sizes():
    """Pixels are padded right and below with zeros, positions resized."""
    model = windowed()
    x = torch.randn(2, 3, 52, 75)
    out, = model(x)
    assert out.shape == (2, 32, 7, 10)
    torch.testing.assert_close(out, model(F.pad(x, (0, 5, 0, 4)))[0])
    positions = model.pos_embed.unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    resized = F.interpolate(positions, size=(7, 10), mode='bicubic', align_corners=False)
    other = windowed(img_size=(56, 80))
    other.load_state_dict({k: v for k, v in model.state_dict().items() if k != 'pos_embed'
                           and not ('rel_pos' in k and len(v) == 15)}, strict=False)
    with torch.no_grad():
        other.pos_embed.copy_(resized.flatten(2).mT)
        for i in model.global_indices:
            for name, size in (('rel_pos_h', 13), ('rel_pos_w', 19)):
                table = getattr(model.layers[i].attn, name)
                getattr(other.layers[i].attn, name).copy_(
                    F.interpolate(table.T[None], size=size, mode='linear')[0].T)
    torch.testing.assert_close(out, other(F.pad(x, (0, 5, 0, 4)))[0], rtol=1e-4, atol=1e-5)


def test_relative_positions_of_other_sizes():
    """A smaller window has the middle of its table, another map the whole of it, stretched."""
    attn = attention(None)
    with torch.no_grad():
        attn.rel_pos_h.copy_(torch.arange(-7., 8)[:, None].expand(-1, 16))
    stretched = attn.relative(attn.rel_pos_h, 16)[..., 0]
    assert stretched.shape == (16, 16) and torch.equal(stretched.diag(), torch.zeros(16))
    torch.testing.assert_close(stretched, -stretched.T)
    # half as steep, up to the ends, where linear interpolation has nothing to go on
    rows = torch.arange(16.)
    torch.testing.assert_close(stretched, ((rows[:, None] - rows) * 15 / 31).clamp(-7, 7).double())
    window = attention(8)
    with torch.no_grad():
        window.rel_pos_w.copy_(torch.arange(-7., 8)[:, None].expand(-1, 16))
    differences = torch.arange(3)[:, None] - torch.arange(3)
    torch.testing.assert_close(window.relative(window.rel_pos_w, 3)[..., 0], differences.double())


@pytest.mark.parametrize('layers, expected', [
    (12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (32, (7, 15, 23, 31)), (6, (0, 2, 3, 5)),
    (2, (0, 1)), (1, (0, ))])
def test_global_blocks_end_the_quarters(layers, expected):
    with torch.device('meta'):
        model = WindowedVisionTransformer(arch=dict(ARCH, num_layers=layers), img_size=1024)
    assert model.global_indices == expected
    for i, layer in enumerate(model.layers):
        everywhere = i in expected
        assert layer.attn.window_size == (None if everywhere else (14, 14))
        assert layer.attn.rel_pos_h.shape == (127 if everywhere else 27, 16)


def test_layer_depths():
    model = windowed(final_norm=True)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
              for name in model.state_dict()}
    assert {total for _, total in depths.values()} == {6}
    for name, (depth, _) in depths.items():
        block = re.match(r'layers\.(\d+)\.', name)
        assert depth == (int(block[1]) + 1 if block else 5 if name.startswith('ln1') else 0), name
    assert model.get_layer_depth('neck.weight', 'backbone.') == (5, 6)
    relative = [n for n in depths if any(re.fullmatch(p, n) for p in model.new_parameters)]
    assert len(relative) == 8 == sum('rel_pos' in n for n in depths)
    assert not any(re.fullmatch(p, n) for p in model.unused_parameters for n in depths)
    assert not any(re.fullmatch(p, n) for p in windowed().unused_parameters
                   for n in windowed().state_dict())


def test_drop_path():
    model = windowed(drop_path_rate=.6)
    rates = [(layer.attn.out_drop.drop_prob, layer.ffn.dropout_layer.drop_prob)
             for layer in model.layers]
    assert rates == [pytest.approx((r, r)) for r in (0, .2, .4, .6)]
    attn, x = model.layers[3].attn, torch.randn(64, 4, 4, 32)
    kept = attn(x)
    model.train()
    out = attn(x)
    gone = out.flatten(1).abs().sum(1) == 0
    torch.testing.assert_close(out[~gone], kept[~gone] / .4)  # whole samples, scaled
    assert 28 <= gone.sum() <= 49  # 38 of 64 expected, about 2.6 deviations


def kept_for_backward(model, x):
    """Sizes of the tensors that a forward pass keeps, and gradients of all parameters."""
    sizes, own = {}, {t.data_ptr() for t in (x, *model.parameters())}

    def pack(t):
        if t.data_ptr() not in own:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // x.itemsize
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model(x)[0]
        held = dict(sizes)
    return held.values(), torch.autograd.grad(out.square().sum(), list(model.parameters())), out


def check_the_same(result, gradients, out, at_most=float('inf')):
    kept, again, same = result
    assert sum(kept) < at_most
    torch.testing.assert_close(same, out)
    for a, b in zip(again, gradients):
        torch.testing.assert_close(a, b)


def test_memory_grows_with_the_tokens_not_with_their_square(monkeypatch):
    """1024 tokens: a table of all pairs would have 2 x 1,048,576 numbers."""
    model = windowed(img_size=256, window_size=14, global_indices=(3, )).double()
    x = torch.randn(1, 3, 256, 256, dtype=torch.double)
    kept, gradients, out = kept_for_backward(model, x)
    assert max(kept) <= 3 * 1024 * 32  # queries, keys and values
    model.with_cp = True
    check_the_same(kept_for_backward(model, x), gradients, out, at_most=.2 * sum(kept))
    model.with_cp = False
    monkeypatch.setattr(chunked_attention, 'suits', lambda *_: False)
    longer = kept_for_backward(model, x)
    assert max(longer[0]) <= 2 * 1024 * (16 + 32 + 32)  # a longer query or key
    check_the_same(longer, gradients, out)
    assert sum(longer[0]) > sum(kept)
    monkeypatch.setattr(WindowAttention, 'remember_less', WindowAttention.attend)
    every = kept_for_backward(model, x)
    check_the_same(every, gradients, out)
    assert sum(every[0]) > 1.15 * sum(longer[0])
    monkeypatch.undo()
    model.layers[3].attn.__class__ = tool.TableAttention
    assert max(kept_for_backward(model, x)[0]) >= 2 * 1024 * 1024


def test_the_hidden_layer_is_kept_once(monkeypatch):
    model = windowed().double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.double)
    kept, gradients, out = kept_for_backward(model, x)
    monkeypatch.setattr(lean_mlp.LeanMLP, 'forward', nn.Sequential.forward)
    twice = kept_for_backward(model, x)
    check_the_same(twice, gradients, out)
    assert sum(twice[0]) - sum(kept) >= 4 * 64 * 64  # of four blocks, with 64 tokens of 64
    # What is dropped is the same when it is computed again.
    monkeypatch.undo()
    mlp = lean_mlp.LeanMLP(nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Dropout(.5)),
                           nn.Linear(64, 8), nn.Dropout(.1))
    results = []
    for forward in (mlp, lambda y: nn.Sequential.forward(mlp, y)):
        torch.manual_seed(0)
        loss = forward(torch.ones(5, 8)).square().sum()
        results.append((loss, *torch.autograd.grad(loss, list(mlp.parameters()))))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


def test_bfloat16():
    model = windowed(shuffled=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        half = model(x)[0]
    full = model(x)[0]
    assert (half - full).abs().max() < .05 * full.abs().max()


def test_frozen_blocks_stay_frozen():
    model = windowed(frozen_stages=2)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all(n.startswith(('layers.2', 'layers.3')) for n in trained)
    assert {f'layers.{i}.attn.rel_pos_h' for i in (2, 3)} <= trained


@pytest.mark.parametrize('options, words', [
    (dict(arch='vit-x'), "unknown architecture 'vit-x'; known are .*'vit-b'"),
    (dict(img_size=60), 'multiple of 8. Set img_size to 56 or 64'),
    (dict(window_size=0), 'whole number from 1 .*got 0'),
    (dict(global_indices=(1, 4)), 'names block 4, but the blocks are 0 to 3')])
def test_mistakes_are_named(options, words):
    with pytest.raises(MilanError, match=words):
        windowed(**options)


def test_norm_over_channels():
    norm = build_norm_layer(dict(type='milan_mm.LN2d', eps=1e-6, requires_grad=True), 6)
    assert norm[0].startswith('ln') and norm[1].eps == 1e-6
    norm = norm[1]
    x = torch.randn(2, 6, 3, 5) * 4 + 7
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    expected = ((x - mean) / (var + 1e-6).sqrt() * norm.weight.view(6, 1, 1)
                + norm.bias.view(6, 1, 1))
    torch.testing.assert_close(norm(x), expected)
    assert norm(torch.empty(0, 6, 7, 7)).shape == (0, 6, 7, 7)  # no RoI at all


def test_pyramid():
    neck = MODELS.build(dict(type='milan_mm.SimpleFeaturePyramid', in_channels=32, out_channels=12))
    neck.init_weights()
    assert isinstance(neck, SimpleFeaturePyramid)
    levels = neck((torch.randn(2, 32, 8, 6), ))
    assert [tuple(level.shape) for level in levels] == [
        (2, 12, 32, 24), (2, 12, 16, 12), (2, 12, 8, 6), (2, 12, 4, 3), (2, 12, 2, 2)]
    assert torch.equal(levels[4], levels[3][..., ::2, ::2])
    for level in levels:  # each ends in a norm
        torch.testing.assert_close(level.mean(1), torch.zeros_like(level[:, 0]), atol=1e-5, rtol=0)
        assert (level.var(1, correction=0).median() - 1).abs() < 1e-2
    torch.stack([level.square().sum() + level[:, 0].sum() for level in levels]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neck.parameters())
    kinds = {}
    for module in neck.modules():
        kinds[type(module)] = kinds.get(type(module), 0) + 1
    assert (kinds[nn.ConvTranspose2d], kinds[nn.Conv2d], kinds[nn.MaxPool2d]) == (3, 8, 1)
    assert all(m.bias is None for m in neck.modules() if isinstance(m, nn.Conv2d))


def test_memory_tool(capsys):
    assert main(['benchmark', 'downstream', '--arch', 'vit-s', '--img-size', '64', '--variants',
                 'windowed']) == 0
    out = capsys.readouterr().out
    peak = re.search(r'\| windows of 14 .* \| ([\d.]+) \| [\d.]+ \|', out)
    assert .3 < float(peak[1]) < 3 and 'threads, torch' in out
    assert tool.table_bytes('vit-b', 1024, 1) == 12 * 12 * 4096**2 * 4
    assert tool.table_bytes('vit-b', 1024, 1, 'windowed') == 0
    assert tool.measure('mmpretrain', 'vit-s', 32, 1)['peak_mb'] > 200
    with pytest.raises(MilanError, match='multiple of 16. Set img_size to 96 or 112'):
        tool.benchmark(img_size=100)
