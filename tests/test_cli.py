# SPDX-License-Identifier: Apache-2.0
"""One command line: help at once, a tool a command, old spellings, exit codes, Python's own way."""
import argparse
import errno
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_VIT

import milan_mm
from milan_mm.analysis.robustness import corruptions, suites
from milan_mm.analysis.visualization import views
from milan_mm.api import RECIPES, recipe_options
from milan_mm.checkpoints import convert as checkpoint_convert
from milan_mm.checkpoints import vit
from milan_mm.cli import benchmark, convert, extract, quickstart, robustness, visualize
from milan_mm.cli import pretrain as pretrain_command
from milan_mm.cli.failures import guarded, in_words
from milan_mm.cli.main import ALIASES, COMMANDS, command_parser, main, parse
from milan_mm.cli.options import SHARED
from milan_mm.evaluation import extract as feature_files
from milan_mm.lab.benchmark import downstream
from milan_mm.lab.quickstart import stages

TOOLS = {path.stem: path for path in sorted((ROOT / 'tools').glob('*.py'))
         if path.stem != 'setup_env'}
HEAVY = ('torch', 'numpy', 'mmengine', 'PIL')
SMALL = {
    'default_hooks.logger.interval': 1, 'model.neck.decoder_embed_dim': 32,
    'model.neck.decoder_depth': 1, 'model.backbone.patch_size': 8,
    'model.backbone.arch': dict(TINY_VIT, _delete_=True)}


def fresh(code, *arguments):
    """Runs code in a process that has imported nothing yet."""
    done = subprocess.run([sys.executable, '-c', code, *arguments], cwd=ROOT, timeout=100,
                          capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_command_imports_nothing_heavy():
    out = fresh(f"""
import sys
from milan_mm_cli import main
for words in ([], ['--version'], *([name] for name in {list(COMMANDS)}), ['benchmark', 'step'],
              ['benchmark', 'downstream']):
    try:
        main([*words, *(['--help'] if words != ['--version'] else [])])
    except SystemExit as exit:
        assert exit.code == 0, words
heavy = set({HEAVY}) & set(sys.modules)
assert not heavy, heavy
""")
    assert f'milan_mm {milan_mm.__version__}' in out
    for name, text in COMMANDS.items():
        assert f'  {name:14}{text}' in out and f'usage: milan {name} ' in out
        assert f'examples:\n  milan {name}' in out


def test_python_m_imports_nothing_heavy_either():
    done = subprocess.run([sys.executable, '-X', 'importtime', '-m', 'milan_mm', 'train', '--help'],
                          cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and 'usage: milan train' in done.stdout
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert 'milan_mm.cli.options' in imported and not imported & set(HEAVY)


def test_import_registers_everything_wherever_it_starts():
    assert fresh('import socket; socket.socket.connect = socket.getaddrinfo = None;'  # offline
                 'import milan_mm_cli, milan_mm, sys; from mmengine.registry import MODELS;'
                 "print('milan_mm.public' in sys.modules, MODELS.get('milan_mm.MILAN').__name__)"
                 ).split() == ['True', 'MILAN']


WITHOUT = '''
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == 'mmengine':
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Absent())
from milan_mm_cli import main
sys.exit(main(sys.argv[1:]))
'''


def test_without_the_openmmlab_packages_a_line_says_how_to_get_them():
    done = subprocess.run([sys.executable, '-c', WITHOUT, 'plan', 'configs/milan/own_images.py'],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith("error: mmengine is not installed. pip install 'milan_mm[onedl]'")
    assert done.stderr.count('\n') == 1


def test_every_tool_is_a_command():
    told = {}
    for path in TOOLS.values():
        words = path.read_text().partition('main([')[2].partition(', *sys.argv')[0]
        told[path.stem] = [word.strip("'") for word in words.split(', ')]
    for words in told.values():
        assert words[0] in COMMANDS
    assert set(COMMANDS) - {words[0] for words in told.values()} == {
        'explore', 'export', 'pretrain', 'push-to-hub', 'replay', 'report', 'shard', 'tune'}
    assert set(ALIASES.values()) <= set(COMMANDS)
    assert told['measure_memory'] == ['benchmark', 'downstream']


def test_a_tool_runs_from_anywhere(tmp_path, golden):
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, TOOLS['parity'], golden], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and 'grad mask_token' in done.stdout, done.stderr


@pytest.mark.parametrize('tool', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_launchers_help(tool):
    done = subprocess.run(['bash', ROOT / f'tools/{tool}.sh', '--help'], capture_output=True,
                          text=True)
    assert done.returncode == 0 and f'usage: tools/{tool}.sh' in done.stdout


def options_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from options_of(sub)
        elif action.help is not argparse.SUPPRESS and action.dest != 'help':
            yield action


def test_one_meaning_an_option():
    """Shared options take the same kind of value everywhere; help is a sentence."""
    seen = {}
    for name in COMMANDS:
        for action in options_of(command_parser(name)):
            label = action.option_strings[0] if action.option_strings else action.dest
            text = action.help
            if not isinstance(action, argparse.BooleanOptionalAction):
                assert text[0].isupper() or text[0] in '.<' or text.startswith('softmax'), label
                assert text.rstrip().endswith('.'), (name, label, text)
            if action.option_strings:
                kind = 'number' if action.type in (int, float) else 'text'
                seen.setdefault(label, {})[name] = (kind, type(action.nargs))
            if action.option_strings and label in SHARED and label != '--work-dir':
                assert action.metavar in (SHARED[label].get('metavar'), 'X'), (name, label)
    for label, kinds in seen.items():
        assert len({kind for kind, _ in kinds.values()}) == 1, (label, kinds)
        if label.startswith('--num-'):
            assert {kind for kind, _ in kinds.values()} == {'number'}
    reads_checkpoint = {name for name in COMMANDS
                        if any(action.dest in ('checkpoint', 'checkpoints', 'init_from')
                               for action in options_of(command_parser(name)))}
    assert reads_checkpoint <= set(seen['--trust-checkpoint'])


def test_choices_are_those_of_the_code():
    """The parsers repeat them, because the code that knows them imports PyTorch."""
    assert convert.TARGETS == checkpoint_convert.TARGETS and convert.FORMATS == vit.FORMATS
    assert extract.KINDS == feature_files.KINDS and set(extract.DTYPES) == set(feature_files.DTYPES)
    assert robustness.SUITES == suites.SUITES
    assert (robustness.CORRUPTIONS, robustness.SEVERITIES) == (
        corruptions.CORRUPTIONS, corruptions.SEVERITIES)
    assert benchmark.VARIANTS == tuple(downstream.VARIANTS)
    assert set(benchmark.ARCHS) == set(downstream.ARCHITECTURES)
    assert pretrain_command.ARCHS == tuple(RECIPES)
    assert quickstart.STAGES == stages.STAGES and tuple(visualize.RATIOS) == tuple(views.RATIOS)


@pytest.mark.parametrize('old, new', [
    ('ablate S --pictures D', dict(data_root='D')),
    ('quickstart --pictures=D', dict(data_root='D')),
    ('diagnose C --data D --pictures 9', dict(num_images=9, data='D')),
    ('visualize C I --folder D --gallery 7 --most 3 --masks 2',
     dict(gallery='D', num_gallery=7, num_images=3, num_masks=2)),
    ('eval C --train A --test B --lars-batch 4',
     dict(gallery='A', queries='B', lars_batch_size=4, checkpoint='C')),
    ('eval T --data D --teacher --quickgelu', dict(teacher='T', checkpoint=None, quickgelu=True)),
    ('extract --data D --out x.npz T --teacher', dict(teacher='T', checkpoint=None, data='D')),
    ('train-clip --data D --out O --image-size 32', dict(data_root='D', image_size=32)),
    ('benchmark memory --size 32 --batch 2', dict(img_size=32, batch_size=2)),
])
def test_old_spellings_warn_and_work(old, new, capsys):
    args = vars(parse(old.split()))
    assert {key: args[key] for key in new} == new
    said = capsys.readouterr().err.splitlines()
    assert said and all(line.startswith('warning: ') and 'is now spelt' in line for line in said)


@pytest.mark.parametrize('now', [
    'eval C --data D', 'eval --teacher T --data D', 'extract --data D --out x --teacher T',
    'visualize C I --gallery D --num-gallery 7', 'train C --data-root D --cfg-options a=1 b=[2,3]'])
def test_todays_spellings_say_nothing(now, capsys):
    args = parse(now.split())
    assert capsys.readouterr().err == ''
    if args.command == 'train':
        assert args.cfg_options == dict(a=1, b=[2, 3])


@pytest.mark.parametrize('words, said', [
    ('trian', 'did you mean train?'), ('train', 'CONFIG'), ('train C --cfg-options a', 'KEY=VALUE'),
    ('extract C --teacher T --data D --out x.npz', 'one of them; got both'),
    ('extract --data D --out x.npz', 'got neither')])
def test_mistakes_on_the_command_line(words, said, capsys):
    try:
        code = main(words.split())
    except SystemExit as exit:
        code = exit.code
    assert code == 2 and said in capsys.readouterr().err


class Failing(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 'disk':
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/x')
        raise milan_mm.MilanError('got a, expected b')


def test_errors_become_exit_codes_and_a_line(capsys):
    def code_of(error):
        def fail(args):
            raise error
        return guarded(fail, None)

    assert code_of(milan_mm.MilanError('a is wrong')) == 2
    assert capsys.readouterr().err == 'error: a is wrong\n'
    assert code_of(KeyboardInterrupt()) == 130
    assert code_of(PermissionError(errno.EACCES, 'Permission denied', '/x/y')) == 2
    assert '/x/y' in (said := capsys.readouterr().err) and 'another path' in said
    assert code_of(OSError(errno.ENOSPC, 'No space left on device')) == 2
    assert 'free some space' in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        code_of(ZeroDivisionError())
    with pytest.raises(OSError, match='no number'):
        code_of(OSError('no number'))


@pytest.mark.parametrize('sampler, said', [
    ([0, 1], 'got a, expected b'),
    (['disk', 'disk'], "[Errno 28] No space left on device: '/x'; free some space")])
def test_errors_of_a_worker_are_a_line_too(sampler, said):
    loader = torch.utils.data.DataLoader(Failing(), sampler=sampler, num_workers=1)
    with pytest.raises((milan_mm.MilanError, OSError)) as caught:
        list(loader)
    assert '\n' not in (words := in_words(caught.value)) and words.startswith(said)


def test_the_whole_job_from_python(image_folder, teacher_folder, tmp_path):
    checkpoint = milan_mm.pretrain(
        image_folder, tmp_path / 'run', teacher=teacher_folder, epochs=1, img_size=32, workers=0,
        cfg_options=SMALL)
    assert checkpoint == tmp_path / 'run/epoch_1.pth'
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'batch: 48 images x 1 processes x 1 accumulated = 48 per update' in log
    model = milan_mm.get_model(checkpoint)
    table = milan_mm.embed(image_folder, checkpoint, workers=0)
    assert table.features['cls'].shape == (48, 48) and len(table.paths) == 48
    out = model(table.paths[0])
    torch.testing.assert_close(out.cls[0], table.features['cls'][0], atol=1e-4, rtol=1e-4)
    file = milan_mm.embed(image_folder, checkpoint, tmp_path / 'f.npz', kinds=('pooled', ),
                          workers=0)
    assert file == tmp_path / 'f.npz' and file.is_file()


@pytest.mark.parametrize('more, said', [
    (['--teacher', 'CLIP', '--epochs', 0], '--epochs must be at least 1'),
    (['--teacher', 'CLIP', '--init-from', 'no.pth', '--epochs', 1],
     '--init-from: no such file: no.pth'),
    (['--teacher', 'no_folder'], "weights not found: 'no_folder'"),
    (['--teacher', 'ViT-B-16:no_tag'], 'no_tag'),
    (['--img-size', 100, '--arch', 'vit-s', '--teacher', 'CLIP'], '100'),
    (['--teacher', 'CLIP', '--cfg-options', 'model.backbone.arch.num_layers=1'],
     '--cfg-options')])
def test_milan_pretrain_takes_the_same_route(more, said, image_folder, teacher_folder, tmp_path,
                                             capfd):
    more = [teacher_folder if word == 'CLIP' else word for word in more]
    assert main(['pretrain', image_folder, '--out', tmp_path / 'run', *more]) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(error) == 1 and said in error[0]


@pytest.mark.parametrize('arch, more, expected', [
    ('vit-b', dict(images=10**6), (128, 4, 16, 'ViT-B-16-quickgelu')),
    ('vit-h', dict(images=10**6, processes=8), (32, 2, 14, 'ViT-L-14-quickgelu')),
    ('vit-s', dict(images=300), (128, 2, 16, 'ViT-B-16-quickgelu')),
    ('vit-l', dict(images=20, batch_size=5), (5, 4, 16, 'ViT-L-14-quickgelu'))])
def test_the_recipe_follows_size_and_data(arch, more, expected):
    options = recipe_options(arch, **more)
    assert tuple(options[key] for key in (
        'train_dataloader.batch_size', 'optim_wrapper.accumulative_counts',
        'model.backbone.patch_size', 'model.target_generator.model')) == expected
