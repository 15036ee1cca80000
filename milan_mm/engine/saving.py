# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive: whole or absent, and the last good one never given up for the next.

mmengine writes a checkpoint under its final name, and before that deletes the one it replaces: a
run that is killed in between loses both.
"""
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from ..checkpoints.io import first_line, sync, verify_archive, write_atomically
from ..errors import MilanError
from ..registry import HOOKS


def save_wholly(cfg: Config) -> None:
    """Puts :class:`WholeCheckpointHook` in the place of mmengine's hook in a config."""
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    if str(hook.get('type', '')).rpartition('.')[2] == 'CheckpointHook':
        hook['type'] = 'milan_mm.WholeCheckpointHook'


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that writes beside, reads back, renames, and only then deletes.

    The arguments are those of mmengine's. What is kept on other storage than this machine's disks
    is written as mmengine does.
    """

    def before_train(self, runner: Any) -> None:
        super().before_train(runner)
        if is_main_process():  # what a killed run left behind
            for part in Path(self.out_dir).glob('.*.pth.part'):
                _remove(part)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        if not isinstance(self.file_backend, LocalBackend):
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        outdated = None
        if self.max_keep_ckpts > 0 and not (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner = runner if isinstance(runner, _Whole) else _Whole(runner)
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        if is_main_process():
            write_atomically(Path(runner.work_dir) / 'last_checkpoint',
                             lambda path: path.write_text(self.last_ckpt))
            if outdated is not None:
                _remove(Path(self.out_dir) / self.filename_tmpl.format(outdated))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        """mmengine's, with the removal of the earlier best put off until the new one is there."""
        if not self.save_best or not isinstance(self.file_backend, LocalBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        with _removals_at_the_end(self):
            super()._save_best_checkpoint(_Whole(runner), metrics)


def save_now(runner: Any, by_epoch: bool) -> Path:
    """A checkpoint beside those that are due, after a step or after an epoch; gives its file."""
    name = f'epoch_{runner.epoch + 1}.pth' if by_epoch else f'iter_{runner.iter + 1}.pth'
    path = Path(runner.work_dir) / name
    _Whole(runner).save_checkpoint(runner.work_dir, name, by_epoch=by_epoch)
    if is_main_process():
        write_atomically(path.parent / 'last_checkpoint', lambda file: file.write_text(str(path)))
    return path


class _Whole:
    """A runner whose checkpoints are whole or absent."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        target = Path(out_dir) / filename
        part = target.with_name(f'.{target.stem}.pth.part')
        self._runner.call_hook('before_writing')
        try:
            self._runner.save_checkpoint(out_dir, part.name, *args, **kwargs)
            barrier()  # of sharded states each process writes its own file, in a folder
            if is_main_process():
                for file in sorted(part.iterdir()) if part.is_dir() else [part]:
                    sync(file)
                    verify_archive(file)
                if part.is_dir():
                    _remove(target)  # a folder cannot take another's place
                os.replace(part, target)
                sync(target.parent)
        except MilanError:  # of a hook that looks at what is to be saved
            raise
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                _remove(part)
            raise MilanError(
                f'the checkpoint {target} could not be written ({type(error).__name__}: '
                f'{first_line(error)}); those before it are as they were. Make room, or give '
                'another --work-dir, and go on with --resume') from error


@contextlib.contextmanager
def _removals_at_the_end(hook: CheckpointHook) -> Iterator[None]:
    backend, removed = hook.file_backend, []

    class Later(LocalBackend):

        def remove(self, path: str) -> None:
            removed.append(Path(path))

        rmtree = remove

    hook.file_backend = Later()
    try:
        yield
    finally:
        hook.file_backend = backend
    best = (hook.best_ckpt_path, ) if len(hook.key_indicators) == 1 else (
        hook.best_ckpt_path_dict.values())
    for path in removed:
        if str(path) not in map(str, best):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
