# SPDX-License-Identifier: Apache-2.0
"""Mixed precision on a CPU: which kind is taken, and what a step in bfloat16 leaves as it is."""
from collections import defaultdict

import pytest
import torch
from conftest import milan_config
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch.utils._python_dispatch import TorchDispatchMode

from milan_mm.compat import float32_products
from milan_mm.compat.cpu_attention import attention
from milan_mm.engine.precision import choose_precision, on_this_cpu, set_amp
from milan_mm.errors import MilanError
from milan_mm.registry import MODELS

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason='of machines without a GPU')


def wrapper_of(asked, **options):
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3), **options)))
    set_amp(cfg, asked)
    return cfg.optim_wrapper


@on_cpu
def test_amp_takes_what_the_processor_is_fast_at():
    choice = choose_precision()
    assert choice == choose_precision() and choice.dtype in ('bfloat16', 'float32')
    assert on_this_cpu('flags : fpu avx512f avx512_bf16 amx_bf16') == (
        'bfloat16', 'this CPU multiplies it (amx_bf16, avx512_bf16)')
    assert on_this_cpu('flags : fpu avx2').dtype == on_this_cpu('').dtype == 'float32'
    wrapper = wrapper_of(True, type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
    assert wrapper.type == dict(bfloat16='milan_mm.AutocastOptimWrapper',
                                float32='OptimWrapper')[wrapper.get('dtype', 'float32')]
    assert 'loss_scale' not in wrapper and wrapper.optimizer.type == 'AdamW'


@on_cpu
def test_float16_of_a_config_is_float32_on_the_cpu():
    wrapper = wrapper_of(False, type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
    assert wrapper == dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))


def test_a_step_in_bfloat16(teacher_folder):
    torch.manual_seed(0)
    model = MODELS.build(milan_config(teacher_folder))
    model.init_weights()
    wrapper = build_optim_wrapper(model, dict(
        type='milan_mm.AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, fused=True)))
    seen = []
    model.neck.decoder_pred.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    batch = dict(inputs=torch.randn(2, 3, 32, 32), sample_keys=torch.arange(2))
    plain = model.loss(**batch)['loss']
    before = model.neck.decoder_pred.weight.detach().clone()
    with wrapper.optim_context(model):
        loss = model.loss(**batch)['loss']
    wrapper.update_params(loss)
    assert seen == [torch.float32, torch.bfloat16]
    assert loss.dtype == torch.float32 and 0 < (loss - plain).abs() < 0.02 * plain
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.equal(model.neck.decoder_pred.weight, before)


def test_float16_needs_a_scaler(teacher_folder):
    model = MODELS.build(milan_config(teacher_folder))
    with pytest.raises(MilanError, match='needs a loss scaler'):
        build_optim_wrapper(model, dict(type='milan_mm.AutocastOptimWrapper', dtype='float16',
                                        optimizer=dict(type='AdamW', lr=1e-3)))


def test_short_attention_in_bfloat16_is_computed_in_float32(teacher_folder):
    model = MODELS.build(milan_config(teacher_folder))
    batch = dict(inputs=torch.randn(2, 3, 32, 32), sample_keys=torch.arange(2))
    with Note() as seen:
        with torch.autocast('cpu', torch.bfloat16):
            loss = model.loss(**batch)['loss']
        loss.backward()
    name = '_scaled_dot_product_flash_attention_for_cpu_backward'
    blocks = len(model.backbone.layers) + len(model.neck.decoder_blocks)
    assert seen.types[name] == [torch.float32] * blocks
    tokens = torch.randn(3, 1, 2, 8, 16).bfloat16().requires_grad_()
    mixed = attention(*tokens)
    assert mixed.dtype == torch.bfloat16
    exact = torch.nn.functional.scaled_dot_product_attention(*tokens.float())
    assert (mixed - exact).abs().max() < 0.01 * exact.abs().max()


class Note(TorchDispatchMode):
    """Which type the operations took, by their names."""

    def __init__(self):
        super().__init__()
        self.types = defaultdict(list)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor):
            self.types[func.__name__.partition('.')[0]].append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_float32_products_of_onednn_are_those_of_torch():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 7, 24), torch.randn(40, 24), torch.randn(40)
    grad = torch.randn(2, 7, 40)
    for given in (bias, None):
        results = []
        for linear in (torch.nn.functional.linear, float32_products._Linear.apply):
            tensors = [part.clone().requires_grad_() for part in (x, weight, given)
                       if part is not None]
            out = linear(*tensors, *([None] if given is None else []))
            out.backward(grad)
            results.append([out, *(part.grad for part in tensors)])
        for ours, theirs in zip(*results):
            assert torch.allclose(ours, theirs, atol=1e-4)
    assert float32_products.onednn_is_faster('vendor_id : AuthenticAMD flags : fpu avx512f')
    for info in ('vendor_id : GenuineIntel flags : avx512f', 'vendor_id : AuthenticAMD avx2', ''):
        assert not float32_products.onednn_is_faster(info)


def test_linear_maps_take_the_faster_library_in_float32_alone(teacher_folder):
    model = MODELS.build(milan_config(teacher_folder))
    with Note() as seen:
        model.loss(torch.randn(2, 3, 32, 32), sample_keys=torch.arange(2))
        with torch.autocast('cpu', torch.bfloat16):
            model.loss(torch.randn(2, 3, 32, 32), sample_keys=torch.arange(2))
    name, other = ('_linear_pointwise', 'addmm')
    if not float32_products._FASTER:
        name, other = other, name
    assert seen.types[name].count(torch.float32) > 20
    assert torch.float32 not in seen.types[other]
