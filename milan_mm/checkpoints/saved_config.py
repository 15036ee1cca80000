# SPDX-License-Identifier: Apache-2.0
"""The config that a checkpoint was trained with, read out of the checkpoint itself.

mmengine writes the config into ``meta['cfg']`` as Python source, and ``Config.fromstring`` would
run it. A checkpoint may come from anywhere, so here the source is only parsed: literals and calls
of ``dict``, ``list`` and ``tuple`` become values, and anything else is refused. The registries
need care as well: where they know no class of a name, they import whatever module it names.
"""
import ast
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_INITIALIZERS
from mmengine.registry import Registry

from ..compat.old_names import renew
from ..errors import MilanError
from ..registry import MODELS, WEIGHT_INITIALIZERS
from .io import first_line, read_checkpoint

_INSTEAD = ('Give --config CONFIG, the file that it was trained with; a training leaves it beside '
            'its checkpoints')
_CALLS = dict(dict=dict, list=list, tuple=tuple)
_NAMES = dict(inf=math.inf, nan=math.nan)  # how Python prints these floats


def saved_config(checkpoint: str | Path | Mapping[str, Any], source: str = '') -> Config:
    """The config of a training, from its checkpoint; nothing in it is executed.

    What the classes of ``model`` are called must be registered in this package, mmpretrain or
    mmengine, and options that trust files are switched off; the other parts of the config are
    values to look at, not to build.

    Args:
        checkpoint: path, or what :func:`read_checkpoint` gave for it.
        source: path of what was read already, for messages.

    Raises:
        MilanError: if there is no config in it, or one that is more than literals, or one whose
            model is made of unknown classes.
    """
    source = source or 'the checkpoint'
    if not isinstance(checkpoint, Mapping):
        source, checkpoint = str(checkpoint), read_checkpoint(checkpoint)
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise MilanError(f'{source} does not hold the config of its training, as checkpoints of '
                         f'mmengine do. {_INSTEAD}')
    try:
        cfg = renew(Config(parse_literals(text)))
    except MilanError as error:
        raise MilanError(f'the config in {source} is not read, because {error}. {_INSTEAD}'
                         ) from error
    except Exception as error:  # of Config: a reserved name
        raise MilanError(f'the config in {source} is none of mmengine: {first_line(error)}. '
                         f'{_INSTEAD}') from error
    check_types(cfg.get('model'), source)
    _distrust(cfg.get('model'))
    return cfg


def check_types(part: Any, source: str, registries: Sequence[Registry] = ()) -> None:
    """Lets nothing be built of a config that would import a module to find its class.

    Args:
        part: of the config.
        source: what messages call the config's file.
        registries: those that may know the classes; none for those of models.

    Raises:
        MilanError: naming a class that none of them knows.
    """
    unknown = next((name for name in _types(part) if not _is_registered(name, registries)), None)
    if unknown is not None:
        raise MilanError(f'the config in {source} wants a {unknown!r}, which neither '
                         'milan_mm nor mmpretrain nor mmengine registers. If it is a class of '
                         f'your own: {_INSTEAD[0].lower()}{_INSTEAD[1:]}')


def parse_literals(text: str) -> dict[str, Any]:
    """The assignments of a Python source whose values are literals, as a dict.

    Known are numbers, strings, None, booleans, lists, tuples, dicts, and ``dict``, ``list`` and
    ``tuple`` called as in ``dict(a=1)``.

    Raises:
        MilanError: saying in which line there is more than that.
    """
    try:
        body = ast.parse(text).body
        values = {}
        for node in body:
            if not isinstance(node, ast.Assign) or len(node.targets) != 1 \
                    or not isinstance(node.targets[0], ast.Name):
                raise _refused(node)
            values[node.targets[0].id] = _value(node.value)
        return values
    except MilanError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MilanError(f'it is no Python source ({first_line(error)})') from error


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        if type(value) in (int, float):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, (ast.List, ast.Tuple)):
        return (list if isinstance(node, ast.List) else tuple)(map(_value, node.elts))
    if isinstance(node, ast.Dict):
        keys = [_key(key) for key in node.keys if key is not None]  # None stands for **
        if len(keys) == len(node.values):
            return dict(zip(keys, map(_value, node.values)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return _called(node, _CALLS[node.func.id])
    raise _refused(node)


def _called(node: ast.Call, kind: type) -> Any:
    """``dict(a=1)``, ``dict({'a': 1})``, ``list([1])``, ``tuple([1])``."""
    if len(node.args) > 1 or (kind is not dict and node.keywords):
        raise _refused(node)
    given = [_value(argument) for argument in node.args]
    if given and not isinstance(given[0], dict if kind is dict else (list, tuple)):
        raise _refused(node)
    named = {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    if len(named) < len(node.keywords):  # ** among them
        raise _refused(node)
    return kind(*given, **named)


def _key(node: ast.AST) -> Any:
    key = _value(node)
    if not isinstance(key, (str, int, float, bool, tuple, type(None))):
        raise _refused(node)
    return key


def _refused(node: ast.AST) -> MilanError:
    return MilanError(f'line {getattr(node, "lineno", "?")} is more than values '
                      f'({type(node).__name__}) and would have to be run')


def _types(value: Any) -> Iterator[Any]:
    """Every ``type`` within a config, at any depth."""
    if isinstance(value, Mapping):
        if 'type' in value:
            yield value['type']
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for part in value:
        yield from _types(part)


def _is_registered(name: Any, registries: Sequence[Registry] = ()) -> bool:
    """Whether a registry of this package, mmpretrain or mmengine holds ``[scope.]name``."""
    from mmpretrain.registry import BATCH_AUGMENTS
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
    scope: str | None
    scope, dot, name = str(name).rpartition('.')
    for registry in registries or (MODELS, WEIGHT_INITIALIZERS, MMPRETRAIN_MODELS, BATCH_AUGMENTS,
                                   MMENGINE_MODELS, MMENGINE_INITIALIZERS):
        if not dot or scope == registry.scope:
            registry.import_from_location()
            if name in registry.module_dict:
                return True
    return False


def _distrust(value: Any) -> None:
    """Switches off, in place, what would let a named file run code."""
    if isinstance(value, MutableMapping):
        for key in value:
            if str(key).startswith('trust'):
                value[key] = False
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for part in value:
        _distrust(part)
