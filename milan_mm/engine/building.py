# SPDX-License-Identifier: Apache-2.0
"""What a config cannot be built from, said in one line that names the part."""
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import build_functions

from ..config.arguments import did_you_mean, is_known, nearest_type, takes
from ..errors import MilanError


@contextlib.contextmanager
def building(cfg: Config) -> Iterator[None]:
    """Within it, a part that cannot be built from the config is a MilanError that names it."""
    try:
        yield
    except (MilanError, OSError, MemoryError):
        raise
    except Exception as error:
        # Other kinds, such as a device without memory or a peer that is not there, are not the
        # config's fault.
        if isinstance(error, RuntimeError) and type(error) not in (
                RuntimeError, NotImplementedError, RecursionError):
            raise
        raise MilanError(_words(cfg, error)) from error


def _words(cfg: Config, error: Exception) -> str:
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error
                        ).split())
    text = text if len(text) < 400 else f'{text[:400]}…'
    scope = cfg.get('default_scope') or 'mmengine'
    part = _innermost(error)
    kind = part.get('type') if part else None
    where = _path_of(part, cfg.to_dict()) if part else None
    name = f'{where or "a part of the config"} ({getattr(kind, "__name__", kind)})' if part else (
        'the config')
    if isinstance(kind, str) and not is_known(kind, scope):
        return f'{name} cannot be built: there is no such part{nearest_type(kind)}'
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", text)
    if part and unexpected and unexpected[1] in part:
        return (f'{name} cannot be built: it takes no {unexpected[1]}'
                f'{did_you_mean(unexpected[1], takes(kind, scope))}')
    return f'{name} cannot be built: {type(error).__name__}: {text}'


def _innermost(error: BaseException) -> dict | None:
    """The part that was being built: mmengine's own function for it holds its config."""
    part, trace = None, error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code is build_functions.build_from_cfg.__code__ and isinstance(
                frame.f_locals['cfg'], (dict, Config)):
            part = dict(frame.f_locals['cfg'].items())
        trace = trace.tb_next
    return part


def _path_of(part: dict, value: Any) -> str | None:
    """The dotted name of a part in a config, by all of it or else by its type."""
    found = [(path, one) for path, one in _parts(value, '') if one.get('type') == part.get('type')]
    same = [path for path, one in found if one == part]
    return next(iter(same or [path for path, _ in found]), None)


def _parts(value: Any, name: str) -> Iterator[tuple[str, dict]]:
    if isinstance(value, dict):
        if name and 'type' in value:
            yield name, value
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, (list, tuple)) else []
    for key, item in items:
        yield from _parts(item, f'{name}.{key}' if name else str(key))
