# SPDX-License-Identifier: Apache-2.0
"""Names of version 0.1.0 that saved configs and checkpoints hold. To be deleted after 0.2.

Those who read a config or a checkpoint here ask for today's names; whoever reads one by mmengine
alone finds the parts under their old names in the registries. Each name warns once.
"""
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from ..registry import DATASETS, HOOKS, TRANSFORMS

OLD_NAMES = {
    DATASETS: {'PictureFolder': 'ImageFolder'},
    TRANSFORMS: {'LoadPicture': 'LoadPILImage', 'LoadImage': 'LoadBGRImage',
                 'PackPicture': 'PackImageInputs'},
    HOOKS: {'UnreadablePicturesHook': 'UnreadableImagesHook'},
}
_IN_CONFIGS = {f'milan_mm.{old}': f'milan_mm.{new}'
               for names in OLD_NAMES.values() for old, new in names.items()}
_SCALARS = {'train/pictures_per_s': 'train/images_per_s'}


def register() -> None:
    """Registers the parts under their old names too."""
    for registry, names in OLD_NAMES.items():
        for old, new in names.items():
            registry.register_module(name=old, module=_renamed(registry, old, new))


def renew(value: Any) -> Any:
    """A config, or a value in one, with today's names of parts and of a study's places.

    Dicts and lists are changed in place.
    """
    if isinstance(value, (dict, Config)):
        for key in value:
            value[key] = renew(value[key])
    elif isinstance(value, list):
        value[:] = map(renew, value)
    elif isinstance(value, str) and value in _IN_CONFIGS:
        _warn(value, _IN_CONFIGS[value])
        return _IN_CONFIGS[value]
    elif isinstance(value, str) and '{pictures}' in value:
        _warn('{pictures}', '{images}')
        return value.replace('{pictures}', '{images}')
    return value


def renew_path(path: str | Path) -> str:
    """The path of a config, or where ``own_pictures*.py`` is now if it is not there any more."""
    name = str(path)
    if 'own_pictures' not in name or Path(path).is_file():
        return name
    new = name.replace('own_pictures', 'own_images')
    _warn(name, new)
    return new


def renew_scalars(scalars: dict[str, Any]) -> None:
    """Gives the logged values of a checkpoint today's names, in place."""
    for old, new in _SCALARS.items():
        if old in scalars:
            scalars[new] = scalars.pop(old)


def _renamed(registry: Registry, old: str, new: str) -> Callable[..., Any]:
    def build(*args: Any, **kwargs: Any) -> Any:
        _warn(f'milan_mm.{old}', f'milan_mm.{new}')
        return registry.get(new)(*args, **kwargs)
    return build


@functools.cache
def _warn(old: str, new: str) -> None:
    warnings.warn(f'{old} is called {new} since 0.2; the old name works until the next release',
                  FutureWarning, stacklevel=3)
