# SPDX-License-Identifier: Apache-2.0
"""A checkpoint, read once for whatever is made of it."""
import functools
from pathlib import Path
from typing import Any

from mmengine.config import Config
from safetensors import safe_open
from torch import nn

from ..checkpoints.io import read_checkpoint, state_of
from ..checkpoints.saved_config import saved_config
from ..checkpoints.strict import load_strictly
from ..checkpoints.vit import ViTWeights, read_vit
from ..checkpoints.zoo import located
from ..config.options import merge_options
from ..config.read import read_config


class Checkpoint:
    """What a file holds, and the config of its training; nothing in either is executed.

    Args:
        path: the file, or a folder of weights as Hugging Face has them; or a name of
            :func:`list_models`.
        config: config of the training, as a path or as it was read; None takes the one that the
            checkpoint keeps, see :func:`saved_config`.
        options: changes of the config, as ``--cfg-options`` gives them.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if the file cannot be read.
    """

    def __init__(self, path: str | Path, config: str | Path | Config | None = None,
                 options: dict | None = None, trust: bool = False) -> None:
        self.path, self.trust = located(path), trust
        self.content = {} if self.path.is_dir() else read_checkpoint(self.path, trust)
        if self.path.suffix == '.safetensors':
            self.content = _with_config(self.content, self.path)
        self._config, self._options = config, options

    @functools.cached_property
    def config(self) -> Config:
        """The config of the training, with the changes.

        Raises:
            MilanError: if none was given and the checkpoint keeps none, or it cannot be read.
        """
        cfg = self._config
        if cfg is None:
            cfg = saved_config(self.content, str(self.path))
        elif not isinstance(cfg, Config):
            cfg = read_config(cfg)
        merge_options(cfg, self._options)
        return cfg

    @property
    def has_config(self) -> bool:
        """Whether a config was given, or the checkpoint keeps one."""
        return self._config is not None or bool(self.meta.get('cfg'))

    @property
    def config_name(self) -> str:
        """What messages call the config."""
        if self._config is None:
            return f'the config in {self.path}'
        return str(getattr(self._config, 'filename', self._config) or 'the config')

    @property
    def meta(self) -> dict[str, Any]:
        """What mmengine writes beside the weights; empty if it did not write the file."""
        meta = self.content.get('meta')
        return meta if isinstance(meta, dict) else {}

    @property
    def is_pretraining(self) -> bool:
        """Whether a training with a teacher or another target wrote it, as far as it is known."""
        return self.has_config and 'target_generator' in (self.config.get('model') or {})

    @property
    def has_boxes_alone(self) -> bool:
        """Whether it is of a two-stage detector that was trained without masks."""
        names = [name for name in state_of(self.content) if name.startswith('roi_head.')]
        return bool(names) and not any('mask_head' in name for name in names)

    def load_into(self, model: nn.Module) -> None:
        """Gives a model exactly the weights of the checkpoint.

        Raises:
            MilanError: naming the first tensor that is missing, left over or misshapen.
        """
        load_strictly(model, state_of(self.content),
                      f'{self.path} does not hold the model of {self.config_name}',
                      'Give the config that it was trained with, and its --cfg-options')

    def vit(self) -> ViTWeights:
        """Its encoder, as :func:`read_vit` gives it."""
        return read_vit(self.path, self.trust, content=self.content)


def _with_config(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Tensors and the config's text, where the file keeps one in its metadata, as mmengine's."""
    with safe_open(str(path), 'pt') as file:
        text = (file.metadata() or {}).get('cfg')
    return dict(state_dict=content, meta=dict(cfg=text)) if text else content
