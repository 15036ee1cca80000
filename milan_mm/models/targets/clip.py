# SPDX-License-Identifier: Apache-2.0
"""A frozen CLIP image tower as teacher."""
from typing import Optional, Sequence, Tuple

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from ...errors import MilanError
from ...registry import MODELS
from ...structures import TeacherOutput
from .base import TargetGenerator
from .clip_towers import ClipTower
from .clip_weights import load_clip_tower

_AMP = {None: None, 'bf16': torch.bfloat16, 'fp16': torch.float16, 'fp32': torch.float32}


@MODELS.register_module()
class CLIPTargetGenerator(TargetGenerator):
    """Features of every token, and the importance of each patch (MILAN Sec. 3.1 and 3.2).

    The importance is the attention, averaged over heads, that the CLS token of the last block
    pays to the patches; of a tower without CLS, that of its pooling query.

    Args:
        model: name of an ``open_clip`` architecture, such as 'ViT-B-16-quickgelu'. Not needed
            with a file or folder that describes itself.
        pretrained: a tag of ``open_clip`` for that architecture, such as 'openai'; or the path
            of a state dict (``.pt``, ``.safetensors``), of OpenAI's TorchScript archive, of a
            folder in ``open_clip``'s format, or of a Hugging Face CLIP folder. None leaves the
            weights random, for tests.
        quickgelu: which GELU the weights were trained with. Only needed where the file does not
            tell; a contradiction is an error.
        normalize: 'student' feeds the pixels as the student gets them (ImageNet's mean and
            standard deviation), as published; 'clip' re-normalises them with the tower's own.
        amp: 'bf16', 'fp16' or 'fp32' to run the teacher in that precision whatever the student
            runs in; None follows the student.
        tower: a tower already loaded, instead of the first three arguments.

    Raises:
        MilanError: if the tower cannot be loaded, or is of a kind without tokens and importance.
    """
    measures_importance = True

    def __init__(self,
                 model: Optional[str] = None,
                 pretrained: Optional[str] = None,
                 quickgelu: Optional[bool] = None,
                 normalize: str = 'student',
                 amp: Optional[str] = None,
                 tower: Optional[ClipTower] = None) -> None:
        super().__init__()
        if normalize not in ('student', 'clip'):
            raise MilanError(f"normalize must be 'student' or 'clip', got {normalize!r}")
        if amp not in _AMP:
            raise MilanError(f'amp must be one of {list(_AMP)}, got {amp!r}')
        self.normalize = normalize
        self.amp = _AMP[amp]
        self.register_buffer('scale', torch.ones(3, 1, 1), persistent=False)
        self.register_buffer('shift', torch.zeros(3, 1, 1), persistent=False)
        self._hold(tower or load_clip_tower(model, pretrained, quickgelu))

    def _hold(self, tower: ClipTower) -> None:
        self.tower = tower
        self.dim = tower.dim
        self.grid_size = tower.grid_size
        self.freeze()

    def match_student(self, grid_size: Tuple[int, int], pixel_mean: Optional[Sequence[float]],
                      pixel_std: Optional[Sequence[float]]) -> None:
        """Makes the tower's token grid the student's, and its input the student's pixels.

        A tower of another patch size or position grid is fed a resized picture, and its
        positions are interpolated where its grid was another.
        """
        super().match_student(grid_size, pixel_mean, pixel_std)
        if self.grid_size != self.tower.grid_size:
            print_log(
                f'Teacher: position grid {self.tower.grid_size} interpolated to the student\'s '
                f'{self.grid_size}; pictures are fed at {self.tower.input_size(self.grid_size)}',
                logger='current')
        self.tower.set_grid(self.grid_size)
        self.freeze()
        if self.normalize == 'clip':
            if pixel_mean is None or pixel_std is None:
                raise MilanError("normalize='clip' must know the data preprocessor's mean and "
                                 'std, and it has none; set them, or use normalize=\'student\'')
            as_buffer = lambda values: torch.tensor(values, dtype=torch.float32).view(3, 1, 1)  # noqa: E731, E501
            mean, std = as_buffer(pixel_mean) / 255, as_buffer(pixel_std) / 255
            tower_mean, tower_std = as_buffer(self.tower.mean), as_buffer(self.tower.std)
            self.scale.copy_(std / tower_std)
            self.shift.copy_((mean - tower_mean) / tower_std)

    def generate(self, images: Tensor) -> TeacherOutput:
        if self.normalize == 'clip':
            images = images * self.scale + self.shift
        size = self.tower.input_size(self.grid_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(
                images, size, mode='bicubic', align_corners=False, antialias=True)
        if self.amp is None:
            return TeacherOutput(*self.tower(images))
        with torch.autocast(images.device.type, self.amp, enabled=self.amp != torch.float32):
            return TeacherOutput(*self.tower(images))
