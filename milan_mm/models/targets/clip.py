# SPDX-License-Identifier: Apache-2.0
"""A frozen CLIP image tower as teacher."""

from ...registry import MODELS
from .clip_weights import load_clip_tower
from .tower import Tower, TowerTargetGenerator, check_options


@MODELS.register_module()
class CLIPTargetGenerator(TowerTargetGenerator):
    """Features of every token, and the importance of each patch (MILAN Sec. 3.1 and 3.2).

    The importance is the attention, averaged over heads, that the CLS token of the last block
    pays to the patches. SigLIP, EVA and PE are towers of timm's: what they pool by says what
    importance is, see :class:`~milan_mm.models.targets.timm_towers.TimmTower`.

    Args:
        model: name of an ``open_clip`` architecture, such as 'ViT-B-16-quickgelu'. Not needed
            with a file or folder that describes itself.
        pretrained: a tag of ``open_clip`` for that architecture, such as 'openai'; or the path
            of a state dict (``.pt``, ``.safetensors``), of OpenAI's TorchScript archive, of a
            folder in ``open_clip``'s format, or of a Hugging Face CLIP folder; or a name of
            :func:`list_models`, such as 'demo/teacher'. None leaves the weights random, for
            tests.
        quickgelu: which GELU the weights were trained with. Only needed where the file does not
            tell; a contradiction is an error.
        normalize: 'student' feeds the pixels as the student gets them (ImageNet's mean and
            standard deviation), as published; 'clip' (or 'own') re-normalises them with the
            tower's own.
        amp: 'bf16', 'fp16' or 'fp32' to run the teacher in that precision whatever the student
            runs in; None follows the student.
        tower: a tower already loaded, instead of the first three arguments.

    Raises:
        MilanError: if the tower cannot be loaded, or is of a kind without tokens and importance.
    """

    def __init__(self,
                 model: str | None = None,
                 pretrained: str | None = None,
                 quickgelu: bool | None = None,
                 normalize: str = 'student',
                 amp: str | None = None,
                 tower: Tower | None = None) -> None:
        check_options(normalize, amp, ('student', 'clip', 'own'))  # before anything is loaded
        super().__init__(
            tower or load_clip_tower(model, pretrained, quickgelu),
            'own' if normalize == 'clip' else normalize, amp)
