# SPDX-License-Identifier: Apache-2.0
"""What a run goes on from is whole and fits it, or it is one clear line that says what is amiss."""
import copy
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from test_train import SMALL

from milan_mm import WholeCheckpointHook
from milan_mm.checkpoints.io import read_checkpoint, run_checkpoints
from milan_mm.cli.main import main
from milan_mm.engine.resume import CheckedLoadingHook, find_resumed
from milan_mm.errors import MilanError


def train_mae(image_folder, work, *more, keep=2):
    return main(['train', 'configs/quickstart/mae.py', '--data-root', str(image_folder),
                 '--work-dir', str(work), '--epochs', '2', *map(str, more), '--cfg-options', *SMALL,
                 'train_dataloader.batch_size=24', 'default_hooks.checkpoint.interval=1',
                 f'default_hooks.checkpoint.max_keep_ckpts={keep}'])


@pytest.fixture(scope='module')
def work(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    assert train_mae(image_folder, folder) == 0
    return folder


@pytest.fixture(scope='module')
def runner(work, tmp_path_factory):
    """The run that would go on, as it is when mmengine loads a checkpoint into it."""
    cfg = Config.fromfile(work / 'mae.py')
    cfg.work_dir = str(tmp_path_factory.mktemp('resumed'))
    cfg.visualizer = None
    runner = Runner.from_cfg(cfg)
    _ = runner.train_loop
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    return runner


def remove(name):
    return lambda c: c.pop(name)


def put(path, value):
    """Sets what stands at ``a/b/0``; a function gets what stood there."""

    def change(content):
        *way, last = (int(p) if p.isdigit() else p for p in path.split('/'))
        for part in way:
            content = content[part]
        content[last] = value(content[last]) if callable(value) else value

    return change


def with_nan(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = math.nan
    return tensor


WEIGHT = 'state_dict/backbone.layers.1.attn.qkv.weight'
MOMENT = 'optimizer/state/3/exp_avg'
FAULTS = {
    'no weights': (remove('state_dict'), 'holds no weights'),
    'weights of no tensors': (put('state_dict', {'a': 1}), 'holds no weights'),
    'a list of weights': (put('state_dict', list), 'holds no weights'),
    'a missing tensor': (lambda c: c['state_dict'].pop('backbone.layers.1.attn.qkv.weight'),
                         r'missing 1 \(backbone.layers.1.attn.qkv.weight\)'),
    'a tensor too many': (lambda c: c['state_dict'].update(extra=torch.ones(1)),
                          r'left over 1 \(extra\)'),
    'a misshapen tensor': (put(WEIGHT, lambda t: t[:-1]), 'qkv.weight is .* should be'),
    'a tensor with NaN': (put(WEIGHT, with_nan), 'qkv.weight holds NaN'),
    'a tensor of integers': (put(WEIGHT, lambda t: t.long()), 'qkv.weight is of torch.int64'),
    'no tensor': (put(WEIGHT, 'abc'), 'qkv.weight is no plain tensor'),
    'no optimizer': (remove('optimizer'), 'no state of the optimizer'),
    'no moments': (put('optimizer/state', {}), 'keeps no moments'),
    'no groups': (lambda c: c['optimizer'].pop('param_groups'), 'no param_groups'),
    'a group too few': (lambda c: c['optimizer']['param_groups'].pop(), 'in groups of'),
    'a parameter too few': (lambda c: c['optimizer']['param_groups'][0]['params'].pop(),
                            'in groups of|counts a parameter'),
    'a parameter twice': (lambda c: c['optimizer']['param_groups'][-1].update(params=[0]),
                          'in groups of|counts a parameter twice'),
    'a negative learning rate': (put('optimizer/param_groups/0/lr', -1e-3), 'lr is -0.001'),
    'a learning rate of NaN': (put('optimizer/param_groups/0/lr', math.nan), 'lr is nan'),
    'a learning rate in words': (put('optimizer/param_groups/0/lr', 'fast'), "lr is 'fast'"),
    'a beta above 1': (put('optimizer/param_groups/0/betas', (0.9, 1.5)), 'betas is'),
    'one beta': (put('optimizer/param_groups/0/betas', (0.9, )), 'betas is .*expected 2'),
    'a misshapen moment': (put(MOMENT, lambda t: t.flatten()[1:]), 'exp_avg of parameter 3'),
    'a moment with NaN': (put(MOMENT, with_nan), 'optimizer.state.3.exp_avg holds NaN'),
    'a moment of no parameter': (lambda c: c['optimizer']['state'].update({9999: {}}),
                                 'state of no parameter'),
    'a negative step': (put('optimizer/state/3/step', torch.tensor(-5.)), 'step of parameter 3'),
    'no schedules': (remove('param_schedulers'), 'keeps no schedules'),
    'a schedule too few': (lambda c: c['param_schedulers'].pop(), 'schedules of the learning'),
    'a schedule of another kind': (put('param_schedulers/0', {'a': 1}), 'is of another kind'),
    'a schedule that has no step': (put('param_schedulers/0/last_step', None), 'last_step is None'),
    'no meta': (remove('meta'), 'how far it came'),
    'no epoch': (lambda c: c['meta'].pop('epoch'), 'meta.epoch is None'),
    'a negative iteration': (put('meta/iter', -3), 'meta.iter is -3'),
    'epochs without iterations': (put('meta/iter', 0), 'no iteration'),
    'a seed in words': (put('meta/seed', 'abc'), "meta.seed is 'abc'"),
    'a place in words': (put('place', 'there'), 'does not say where its run was'),
    'a negative batch': (put('place/batch', -1), 'place.batch is -1'),
    'no images a step': (put('place/images', 0), 'place.images is 0'),
    'a seed of the order in words': (put('place/seed', 'abc'), "place.seed is 'abc'"),
    'a misshapen gradient': (put('place/sums', lambda s: [{WEIGHT[11:]: torch.ones(2)}]),
                             'no gradient of backbone.layers.1.attn.qkv.weight'),
    'no log': (remove('message_hub'), 'no log of its run'),
    'half a log': (lambda c: c['message_hub'].pop('runtime_info'), 'no log of its run'),
    'a log of words': (lambda c: c['message_hub']['log_scalars'].update({'train/loss': 'x'}),
                       'log of train/loss is none'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_structural_faults_are_named(fault, work, runner):
    change, words = FAULTS[fault]
    checkpoint = copy.deepcopy(read_checkpoint(work / 'epoch_1.pth'))
    change(checkpoint)
    with pytest.raises(MilanError, match=words) as caught:
        CheckedLoadingHook('epoch_1.pth', True).after_load_checkpoint(runner, checkpoint)
    assert '\n' not in str(caught.value) and 'epoch_1.pth is nothing to resume from' in str(
        caught.value)


def test_a_sound_checkpoint_is_taken(work, runner):
    checkpoint = read_checkpoint(work / 'epoch_1.pth')
    checkpoint['message_hub']['log_scalars']['more'] = HistoryBuffer([1.0], [1])
    checkpoint['state_dict'] = {f'module.{k}': v for k, v in checkpoint['state_dict'].items()}
    CheckedLoadingHook('epoch_1.pth', True).after_load_checkpoint(runner, checkpoint)


def test_a_checkpoint_names_no_file_to_be_removed(work, runner, tmp_path):
    """mmengine deletes the best checkpoint so far, by the path that the checkpoint gives."""
    checkpoint = read_checkpoint(work / 'epoch_1.pth')
    own = f'{runner.work_dir}/best_top1_epoch_1.pth'
    checkpoint['message_hub']['runtime_info'].update(
        best_ckpt=str(tmp_path / 'precious'), best_ckpt_a=own, keep_ckpt_ids=['../../x'])
    CheckedLoadingHook('epoch_1.pth', True).after_load_checkpoint(runner, checkpoint)
    info = checkpoint['message_hub']['runtime_info']
    assert info.get('best_ckpt_a') == own and not {'best_ckpt', 'keep_ckpt_ids'} & set(info)


def test_load_from_takes_what_fits_and_no_nonsense(work, runner):
    state = read_checkpoint(work / 'epoch_1.pth')['state_dict']
    key = 'backbone.layers.1.attn.qkv.weight'

    def load(content):
        CheckedLoadingHook('x.pth', False).after_load_checkpoint(runner, content)
        return content

    assert load(dict(model=dict(state)))['state_dict'].keys() == state.keys()
    load(dict(state_dict={k: v for k, v in state.items() if k != key}))
    for content, words in ((dict(state_dict={key: with_nan(state[key])}), 'holds NaN'),
                           (dict(state_dict={'foreign': state[key]}), 'none of its tensors'),
                           (dict(epoch=3), 'holds no weights')):
        with pytest.raises(MilanError, match=words):
            load(content)


@pytest.mark.parametrize('newest, pointer', [
    ('torn', 'own'), ('garbage', b'\xff\xfe\x00nonsense'), ('empty', b''), ('whole', b'/no/such'),
    ('whole', None)])
def test_the_newest_whole_checkpoint_is_taken(newest, pointer, work, tmp_path):
    one, two = tmp_path / 'epoch_9.pth', tmp_path / 'epoch_10.pth'
    whole = (work / 'epoch_1.pth').read_bytes()
    one.write_bytes(whole)
    two.write_bytes(dict(torn=whole[:len(whole) // 2], garbage=b'\x01' * 999, empty=b'',
                         whole=whole)[newest])
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_bytes(
            str(two).encode() if pointer == 'own' else pointer)
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(tmp_path)))
    find_resumed(cfg)
    assert cfg.load_from == str(two if newest == 'whole' else one)
    one.write_bytes(b'')
    two.write_bytes(b'')
    with pytest.raises(MilanError, match='no checkpoint in .* is whole: epoch_10.pth, epoch_9.pth'):
        cfg.load_from = None
        find_resumed(cfg)


def test_nothing_to_resume_starts_anew(work, tmp_path):
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(tmp_path)))
    find_resumed(cfg)
    assert cfg.resume is False
    (tmp_path / 'last_checkpoint').write_text(str(work / 'epoch_2.pth'))  # kept elsewhere
    assert run_checkpoints(tmp_path)[0] == work / 'epoch_2.pth'


def test_a_sharded_run_is_not_resumed(work, tmp_path):
    cfg = Config(dict(resume=True, work_dir=str(work), strategy=dict(type='FSDPStrategy')))
    with pytest.raises(MilanError, match='sharded run .* cannot go on .* --init-from CHECKPOINT'):
        find_resumed(cfg)
    cfg.work_dir = str(tmp_path)  # by itself, in a new folder
    find_resumed(cfg)
    assert cfg.resume is False


def test_resuming_on_the_command_line(work, image_folder, tmp_path, capfd):
    """Automatically past a torn file; and by name from one that lacks its optimizer."""
    checkpoint = torch.load(work / 'epoch_1.pth', weights_only=True)
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    (tmp_path / 'epoch_2.pth').write_bytes((work / 'epoch_2.pth').read_bytes()[:5000])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    assert train_mae(image_folder, tmp_path, '--resume') == 0
    one, two = (read_checkpoint(f / 'epoch_2.pth')['state_dict'] for f in (work, tmp_path))
    assert all(torch.equal(one[key], two[key]) for key in one)
    del checkpoint['optimizer']
    torch.save(checkpoint, tmp_path / 'x.pth')
    capfd.readouterr()
    assert train_mae(image_folder, tmp_path / 'other', '--resume', tmp_path / 'x.pth') == 2
    error = capfd.readouterr().err
    assert 'x.pth is nothing to resume from: it keeps no state of the optimizer' in error
    assert 'Traceback' not in error

def test_the_best_checkpoint_outlives_a_failed_better_one(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, '_work_dir', str(tmp_path))
    hook = WholeCheckpointHook(interval=1, save_best='accuracy', rule='greater')
    hook.before_train(runner)
    for epoch, accuracy in ((1, .5), (2, .4), (3, .7)):
        runner.train_loop._epoch = epoch
        hook.after_val_epoch(runner, dict(accuracy=accuracy))
        assert [p.name for p in tmp_path.glob('best*')] == [
            f'best_accuracy_epoch_{3 if epoch == 3 else 1}.pth']
    runner.train_loop._epoch = 4
    monkeypatch.setattr(LocalBackend, 'put', lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hook.after_val_epoch(runner, dict(accuracy=.9))
    assert [p.name for p in tmp_path.glob('best*')] == ['best_accuracy_epoch_3.pth']
