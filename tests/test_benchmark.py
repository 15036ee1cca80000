# SPDX-License-Identifier: Apache-2.0
"""What is counted and how it is told; the figures themselves are this machine's."""
import json

import pytest
import torch
from conftest import ROOT, TINY_VIT
from torch import nn
from torch.nn import functional as F

from milan_mm.cli import benchmark as command
from milan_mm.cli import plan as plan_command
from milan_mm.cli.main import main
from milan_mm.errors import MilanError
from milan_mm.lab.benchmark import contenders, plan, processes, scale
from milan_mm.lab.benchmark.counting import count_flops, peak_flops, products
from milan_mm.lab.benchmark.measuring import faster, report, take_turns


def test_operations_are_counted():
    layer, x = nn.Linear(6, 5), torch.randn(4, 6, requires_grad=True)
    assert count_flops(lambda: layer(x)) == 2 * 4 * 6 * 5
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * 2 * 4 * 6 * 5
    q = torch.randn(2, 3, 7, 8, requires_grad=True)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * 2 * 2 * 3 * 7 * 7 * 8
    with torch.no_grad():  # what torch would run as one operator of its own
        attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
        x = torch.randn(2, 7, 8)
        assert count_flops(lambda: attention(x, x, x)) == 2 * 2 * 7 * 8 * 32 + 2 * 2 * 2 * 7 * 7 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_peak_is_of_the_products_of_a_step():
    layer = nn.Linear(6, 5)
    found = products(lambda: layer(torch.randn(4, 6, requires_grad=True)).sum().backward())
    assert found == {(4, 6, 5): 1, (4, 5, 6): 1, (5, 4, 6): 1}
    assert peak_flops(found, torch.float32, torch.device('cpu'), repeats=2) > 0


def test_exponent():
    assert scale.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_contenders_alternate(tmp_path, capsys):
    order = []
    takers = {name: lambda name=name: order.append(name) or len(order) for name in 'AB'}
    seconds = take_turns(takers, rounds=2)
    assert ''.join(order) == 'ABABAB' and seconds == dict(A=[3, 5], B=[4, 6])
    assert str(faster([1, 2, 4], [2, 2, 2])) == '1.00 (0.50 to 2.00)'
    report('A title', [dict(who='A', rate=1.2345, memory=None)], tmp_path / 'x.json',
           seconds=seconds)
    assert '| A | 1.23 | - |' in capsys.readouterr().out
    written = json.loads((tmp_path / 'x.json').read_text())
    assert written['rows'][0]['rate'] == 1.2345 and written['seconds']['A'] == [3, 5]
    assert written['machine']['torch'] == torch.__version__ and written['machine']['threads'] >= 1


def test_plan(tmp_path, capsys):
    (tmp_path / 'small.py').write_text(
        f"_base_ = '{ROOT}/configs/milan/vitb_pretrain.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_VIT})), '
        'neck=dict(decoder_depth=1))\n')
    assert main(['plan', str(tmp_path / 'small.py'), '--gpus', '4', '--share', '.5']) == 0
    out = capsys.readouterr().out
    assert '256 images x 4 a100-40g x 2 accumulated = 2048 an update (the recipe has 4096)' in out
    assert '512,466,800 images in 400 epochs' in out and 'IF 50% of the peak of 312 TFLOP/s' in out
    half, whole = (plan.plan(tmp_path / 'small.py', 8, share=share) for share in (.25, .5))
    assert half.hours == pytest.approx(2 * whole.hours) and whole.gflop > 30
    with pytest.raises(MilanError, match='is no pretraining'):
        plan.plan('milan_mm::upernet/vitb_ade20k_512_160k.py')
    with pytest.raises(MilanError, match='--share'):
        plan.plan('milan_mm::milan/vitb_pretrain.py', share=2)


def test_the_papers_hours():
    """39 hours on 8 A100, from the operations counted: 87.3 GFLOP an image."""
    rate = 8 * plan.GPUS['a100-40g'].half * 1e12 * plan.USUAL_SHARE
    assert abs(87.3e9 * 1281167 * 400 / rate / 3600 / 39 - 1) < .25


def test_command_line_names_what_there_is():
    assert command.CONTENDERS == tuple(contenders.CONTENDERS)
    assert command.COMPARED == tuple(contenders.LETTERS)
    assert command.GRIDS == tuple(scale.GRIDS)
    assert plan_command.GPUS == tuple(plan.GPUS) and plan_command.USUAL_SHARE == plan.USUAL_SHARE
    for one in contenders.CONTENDERS.values():
        assert not one.plain or contenders.CONTENDERS[one.plain].build is one.build


def test_steps_in_processes():
    """One here, as each takes long to import; more than there are cores are refused."""
    what = dict(arch=dict(TINY_VIT), batch_size=1, img_size=32, mask_ratio=.5)
    found = processes.measure(1, what, 1, torch.device('cpu'))
    assert found['seconds'] > 0 and found['MB'] > 100
    with pytest.raises(MilanError, match='9999 processes take 9999 cores, here are'):
        processes.measure(9999, what, 1, torch.device('cpu'))
