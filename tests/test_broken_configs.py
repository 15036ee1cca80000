# SPDX-License-Identifier: Apache-2.0
"""Options and configs that people get wrong: a part of ``tests/faults/fuzz_configs.py``."""
import sys

import pytest
from faults.fuzz_configs import CONFIGS, GOOD_OPTIONS, NO_SUCH_OPTIONS, NONSENSE, Ground
from mmengine.config import Config

from milan_mm.cli.failures import guarded
from milan_mm.config.arguments import arguments_at
from milan_mm.config.options import merge_options
from milan_mm.config.read import read_config
from milan_mm.engine.building import building
from milan_mm.errors import MilanError


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp('ground'))


def refused(outcome):
    assert outcome.kind == 'one line', outcome
    return outcome.words


def test_what_is_meant_to_work_works(ground):
    options = [option for option in GOOD_OPTIONS if not option.startswith('custom_hooks')]
    outcome = ground.run(ground.base, *options)
    assert outcome.kind == 'success', outcome


@pytest.mark.parametrize('option', NO_SUCH_OPTIONS)
def test_an_option_that_names_nothing_is_refused(option, ground):
    cfg = read_config(ground.base)
    key, _, value = option.partition('=')
    with pytest.raises(MilanError, match='no such option'):
        merge_options(cfg, {key: value})


@pytest.mark.parametrize('option, near', [
    ('optim_wrapper.optimzer.lr=1', 'did you mean optim_wrapper.optimizer?'),
    ('model.backbone.drop_path_rat=.1', 'did you mean model.backbone.drop_path_rate?'),
    ('default_hooks.checkpoint.intervall=3', 'did you mean default_hooks.checkpoint.interval?'),
    ('batch_size=4', 'did you mean train_dataloader.batch_size?'),
    ('custom_hooks.4.interval=1', 'entries 0 to 0'), ('a.b.c.d=1', 'the config has ')])
def test_the_nearest_name_is_told(option, near, ground):
    assert near in refused(ground.run(ground.base, option))


def test_a_new_entry_that_is_meant(ground):
    cfg = read_config(ground.base)
    merge_options(cfg, {'+a.b.c.d': 1, '+model.backbone.nonsense': 2, '+randomness.seed': 'x'})
    assert cfg.a.b.c.d == 1 and cfg.model.backbone.nonsense == 2 and cfg.randomness.seed == 'x'


def test_an_option_is_looked_up_in_the_type_that_another_sets(ground):
    cfg = read_config(ground.base)
    merge_options(cfg, {'model.mask_generator.type': 'milan_mm.SemanticMaskGenerator',
                        'model.mask_generator.temperature': 2})
    with pytest.raises(MilanError, match='no such option: model.mask_generator.temperature'):
        merge_options(read_config(ground.base), {'model.mask_generator.temperature': 2})
    with pytest.raises(MilanError, match='no such option: model.neck.decoder_dept; did you mean'):
        merge_options(cfg, {'model': dict(neck=dict(decoder_dept=3))})
    merge_options(cfg, {'model.neck': dict(_delete_=True, type='mine', any_name=1)})


def test_arguments_go_to_the_parents_that_take_them():
    pattern = dict(type='milan_mm.MaskedVisionTransformer')
    known = arguments_at('model.backbone', pattern, 'mmpretrain')
    assert {'positions', 'drop_path_rate', 'init_cfg', 'type'} <= known and 'kwargs' not in known
    assert arguments_at('model.x', dict(type='NoSuchType'), 'mmpretrain') is None


@pytest.mark.parametrize('option', NONSENSE[::9])
def test_nonsense_is_one_line(option, ground):
    refused(ground.run(ground.base, option))


@pytest.mark.parametrize('option, said', [
    ('randomness.seed=abc', "expected a number, got 'abc'"), ('env_cfg=3', 'env_cfg.KEY=VALUE'),
    ('default_scope=nope', 'mmpretrain'), ('resume=maybe', 'True, False or a checkpoint'),
    ('model.type=milan_mm.MILLAN', 'did you mean milan_mm.MILAN?'),
    ('model.neck=None', 'model (milan_mm.MILAN) cannot be built'),
    ('model.backbone.arch.num_heads=7', '7 heads cannot share 48 channels'),
    ('param_scheduler.0.type=NoSchedule', 'param_scheduler.0 (NoSchedule) cannot be built'),
    ('train_dataloader.batch_size=0', 'a whole number from 1')])
def test_the_line_names_the_entry(option, said, ground):
    assert said in refused(ground.run(ground.base, option))


@pytest.mark.parametrize('name', [*list(CONFIGS)[::5], 'empty', 'exit', 'own base',
                                  'wrong argument', 'wrong argument of a saving'])
def test_a_broken_config_is_one_line(name, ground):
    refused(ground.run_config(name))


def test_a_missing_import_is_named_however_long_the_paths(ground, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path, *(f'/a/long/path/{i}' for i in range(100))])
    words = refused(ground.run_config('no import'))
    assert 'Failed to import no_package. Install' in words and '/a/long/path' not in words


def test_a_mistake_is_found_before_anything_is_written(ground):
    refused(ground.run(ground.base, 'custom_hooks.0.type=NoSuchHook'))
    assert not (ground.folder / f'run_{ground.count}').exists()


def test_errors_in_the_steps_are_not_swallowed():
    def fails(args):
        raise KeyError('a mistake of this program')
    with pytest.raises(KeyError):
        guarded(fails, None)
    with pytest.raises(FileNotFoundError), building(Config(dict())):
        raise FileNotFoundError(2, 'x')


def test_debug_shows_where(monkeypatch, capsys):
    def fails(args):
        raise MilanError('a mistake')
    assert guarded(fails, None) == 2 and 'Traceback' not in capsys.readouterr().err
    monkeypatch.setenv('MILAN_DEBUG', '1')
    assert guarded(fails, None) == 2
    assert 'Traceback' in (said := capsys.readouterr().err) and said.endswith('error: a mistake\n')
