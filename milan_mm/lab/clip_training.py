# SPDX-License-Identifier: Apache-2.0
"""Trains a small CLIP on (image, caption) pairs, with open_clip's own model, tokenizer and loss.

The result is a folder in open_clip's own format (``open_clip_config.json`` and
``open_clip_model.safetensors``), which ``open_clip.create_model_and_transforms('local-dir:DIR')``
reads, and which the teacher of MILAN reads as it reads any other CLIP.

One choice departs from OpenAI's CLIP: images are normalised with ImageNet's mean and standard
deviation, because MILAN feeds the teacher the student's pixels. The folder says so itself.
"""
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from open_clip import CLIP, SimpleTokenizer
from open_clip.loss import ClipLoss, SigLipLoss
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.io import write_atomically
from ..compat.cpu_attention import unfused_attention
from ..compat.float32_products import use_linear
from ..datasets.decoding import UnreadableImageError, composite, open_image
from ..datasets.image_folder import find_images
from ..engine.precision import choose_precision
from ..errors import MilanError
from ..keyed_random import sample_key, uniform
from .captions import captions_of
from .clip_recipe import ClipRecipe

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IN_MEMORY_BYTES = 2 << 30
_CHUNK = 64
_MAX_LOGIT_SCALE = float(np.log(100))  # as of CLIP, Sec. 2.5


class ImagePairs:
    """The images below a folder and their captions.

    The captions of ``a/b.png`` are the lines of ``a/b.txt``, else the folder's and the file's
    words are its only one. What is the same image by its first caption is not contrasted.
    Images are held decoded if they fit into 2 GiB, else they are read when needed. One that
    cannot be decoded is left out, and named.

    Args:
        root: the folder.
        size: side in pixels to which images are brought: the shorter side is resized, the
            middle is cut out.
    """

    def __init__(self, root: str | Path, size: int,
                 log: Callable[[str], None] = print) -> None:
        self.root = Path(root)
        self.size = size
        self.log = log
        self.paths = [Path(path) for path in find_images(self.root)]
        self.pixels = None
        if len(self.paths) * size * size * 3 <= _IN_MEMORY_BYTES:
            loaded = [self._load(path) for path in self.paths]
            good = [i for i, image in enumerate(loaded) if image is not None]
            if not good:
                raise MilanError(f'none of the {len(self.paths)} images below {root} can be '
                                 'decoded; give a folder of readable images')
            self.paths = [self.paths[i] for i in good]
            self.pixels = torch.from_numpy(np.stack([loaded[i] for i in good]))
        self.captions = [captions_of(path, self.root) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Images (B, H, W, 3) uint8, and the indices of those that can be decoded.

        Raises:
            MilanError: if none of them can.
        """
        if self.pixels is not None:
            return self.pixels[torch.as_tensor(indices)], np.asarray(indices)
        images = {i: pixels for i in indices
                  if (pixels := self._load(self.paths[i])) is not None}
        if not images:
            raise MilanError(f'none of the {len(indices)} images of a batch below {self.root} can '
                             'be decoded any more; was the folder moved or emptied?')
        return torch.from_numpy(np.stack(list(images.values()))), np.array(list(images))

    def _load(self, path: Path) -> np.ndarray | None:
        try:
            image = composite(open_image(path))
        except UnreadableImageError as error:
            self.log(f'left out: {error}')
            return None
        ratio = self.size / min(image.size)
        if ratio != 1:
            shape = [max(self.size, round(side * ratio)) for side in image.size]
            image = image.resize(shape, Image.Resampling.BICUBIC)
        left, top = ((side - self.size) // 2 for side in image.size)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))


def draw_batches(captions: Sequence[str], batch_size: int, seed: int,
                 epoch: int) -> list[np.ndarray]:
    """An epoch's batches: every image once, equal captions spread as far apart as possible.

    Two pairs of one caption in a batch would be pushed apart as if they were different things.
    Images of one caption are therefore dealt out to rounds, and batches follow the rounds.

    Returns:
        Index arrays of ``batch_size`` each; the rest of an epoch, if any, is left to the next,
        unless it is all there is.
    """
    rng = np.random.default_rng(sample_key(seed, epoch, 0, 'clip batches'))
    order = rng.permutation(len(captions))
    seen: dict[str, int] = {}
    rounds = np.empty(len(captions), np.int64)
    for index in order:
        rounds[index] = seen[captions[index]] = seen.get(captions[index], -1) + 1
    order = order[np.argsort(rounds[order], kind='stable')]
    full = max(1, len(order) // batch_size)
    return [order[i * batch_size:(i + 1) * batch_size] for i in range(full)]


def augment(images: Tensor, keys: Tensor, crop: float, jitter: float) -> Tensor:
    """Random resized crop, mirror, brightness and contrast, then ImageNet's normalisation.

    Args:
        images: (B, H, W, 3) uint8.
        keys: (B,) int64; equal keys give equal draws.
        crop: least share of the area.
        jitter: largest relative change of brightness and contrast.

    Returns:
        (B, 3, H, W) float32.
    """
    draws = uniform(keys, 7)
    area = crop + (1 - crop) * draws[:, 0]
    aspect = torch.exp((draws[:, 1] * 2 - 1) * np.log(4 / 3))
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    mirror = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2] = (draws[:, 3] * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (draws[:, 4] * 2 - 1) * (1 - height)
    pixels = images.permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    images = F.grid_sample(pixels, grid, padding_mode='reflection', align_corners=False)
    if jitter:
        contrast, brightness = (1 + jitter * (draws[:, 5:] * 2 - 1)).T.reshape(2, -1, 1, 1, 1)
        middle = images.mean((1, 2, 3), keepdim=True)
        images = (((images - middle) * contrast + middle) * brightness).clamp(0, 1)
    return normalise(images)


def normalise(images: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in 0..1 by ImageNet's mean and standard deviation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def make_optimizer(model: CLIP, recipe: ClipRecipe) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as of CLIP (no gains, biases, logit scale)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        dict(params=[p for p in parameters if p.ndim >= 2], weight_decay=recipe.weight_decay),
        dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0.0)
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6)


def learning_rate(recipe: ClipRecipe, step: int) -> float:
    """Linear warm-up, then a cosine to 0."""
    warmup = min(recipe.warmup, recipe.steps // 5)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, recipe.steps - warmup)
    return recipe.lr * 0.5 * (1 + float(np.cos(np.pi * done)))


class CaptionTokens:
    """The captions of all images as tokens; of several of an image, one is drawn at a time.

    Args:
        captions: those of each image, at least one.
        context_length: tokens of a caption; what is longer is cut.
    """

    def __init__(self, captions: Sequence[Sequence[str]], context_length: int) -> None:
        self.counts = torch.tensor([len(of) for of in captions])
        self.starts = self.counts.cumsum(0) - self.counts
        words: dict[str, int] = {}
        number = [words.setdefault(caption, len(words)) for of in captions for caption in of]
        self.number = torch.tensor(number)
        self.tokens = SimpleTokenizer(context_length=context_length)(list(words))

    def draw(self, index: Sequence[int] | np.ndarray, keys: Tensor) -> Tensor:
        """(B, L) tokens of a caption of each image; equal keys give equal captions."""
        rows = torch.as_tensor(index)
        share = uniform(keys, 1)[:, 0]
        which = (share * self.counts[rows]).long().clamp(max=self.counts[rows] - 1)
        return self.tokens[self.number[self.starts[rows] + which]]

    @torch.no_grad()
    def forget_others(self, model: CLIP) -> None:
        """Sets the embeddings of tokens that no caption holds to 0: they are what chance made them.

        They are nine tenths of a small CLIP's weights, and zeros take no room in an archive.
        """
        others = torch.ones(len(model.token_embedding.weight), dtype=torch.bool)
        others[self.tokens.unique()] = False
        model.token_embedding.weight[others] = 0


def train_clip(pairs: ImagePairs, recipe: ClipRecipe, log: Callable[[str], None] = print,
               amp: bool = False) -> tuple[CLIP, list[dict]]:
    """Trains the model.

    Args:
        pairs: the images and their captions.
        recipe: the numbers.
        log: receives lines of progress.
        amp: compute matrix products in bfloat16, where this CPU is fast at it.

    Returns:
        The model in eval mode, and the curve: step, loss, in-batch retrieval accuracy, lr.
    """
    recipe.check()
    torch.manual_seed(recipe.seed)
    if len(pairs) < 2:
        raise MilanError(f'{pairs.root} holds {len(pairs)} readable image, at least 2 are needed')
    tokens = CaptionTokens(pairs.captions, recipe.context_length)
    names = [captions[0] for captions in pairs.captions]
    half = amp and _takes_bfloat16(log)
    model = CLIP(**recipe.model_cfg(recipe.patch_dropout)).train()
    use_linear(model)
    optimizer = make_optimizer(model, recipe)
    loss_function = SigLipLoss() if recipe.loss == 'sigmoid' else ClipLoss()
    log(f'CLIP: {len(pairs)} pairs, {len(tokens.tokens)} different captions, '
        f'{recipe.steps} steps of {min(recipe.batch_size, len(pairs))}')
    curve: list[dict] = []
    batches: list[np.ndarray] = []
    epoch, start = -1, time.time()
    for step in range(recipe.steps):
        if not batches:
            epoch += 1
            batches = draw_batches(names, recipe.batch_size, recipe.seed, epoch)[::-1]
        pixels, index = pairs.read(batches.pop())
        images = augment(pixels, _keys(recipe.seed, epoch, index, 'clip augment'), recipe.crop,
                         recipe.jitter)
        texts = tokens.draw(index, _keys(recipe.seed, epoch, index, 'clip caption'))
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(recipe, step)
        with torch.autocast('cpu', torch.bfloat16, enabled=half), unfused_attention(half):
            image_features, text_features = (
                features.float() for features in encode(model, images, texts))
        bias = () if model.logit_bias is None else (model.logit_bias, )
        loss = loss_function(image_features, text_features, model.logit_scale.exp(), *bias)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
        if step % 10 == 0 or step == recipe.steps - 1:
            hits = (image_features @ text_features.T).argmax(1) == torch.arange(len(index))
            curve.append(
                dict(step=step, loss=loss.item(), accuracy=100 * hits.float().mean().item(),
                     lr=optimizer.param_groups[0]['lr'], seconds=round(time.time() - start, 1)))
        if step % max(1, recipe.steps // 20) == 0 or step == recipe.steps - 1:
            log(_progress(curve[-1], step, recipe.steps, time.time() - start))
    tokens.forget_others(model)
    return model.eval(), curve


def _keys(seed: int, epoch: int, index: Sequence[int] | np.ndarray, purpose: str) -> Tensor:
    return torch.tensor([sample_key(seed, epoch, int(i), purpose) for i in index])


def _takes_bfloat16(log: Callable[[str], None]) -> bool:
    choice = choose_precision()
    log(f'mixed precision: {choice.dtype}, as {choice.reason}')
    return choice.dtype == 'bfloat16'


def encode(model: CLIP, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised features of images and captions, (B, T) each.

    The images go through in chunks, which changes nothing but the time: the activations of a
    chunk stay in the processor's cache (twice as fast at 256 images on 2 cores).
    """
    chunks = [model.encode_image(chunk, normalize=True) for chunk in images.split(_CHUNK)]
    return torch.cat(chunks), model.encode_text(tokens, normalize=True)


def _progress(point: dict, step: int, steps: int, seconds: float) -> str:
    left = seconds / (step + 1) * (steps - step - 1)
    return (f'CLIP step {step + 1}/{steps}  loss {point["loss"]:.3f}  '
            f'in-batch retrieval {point["accuracy"]:.1f} %  lr {point["lr"]:.1e}  '
            f'{seconds:.0f} s, {left:.0f} s left')


def save_clip(model: CLIP, recipe: ClipRecipe, curve: list[dict], out: str | Path,
              half: bool = False) -> None:
    """Writes the folder; the weights come last and whole, so a folder with weights is complete.

    Args:
        half: store the weights in float16, in half the bytes.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    size = [recipe.image_size, recipe.image_size]
    config = dict(
        model_cfg=recipe.model_cfg(),
        preprocess_cfg=dict(
            size=size, mode='RGB', mean=IMAGENET_MEAN, std=IMAGENET_STD,
            interpolation='bicubic', resize_mode='shortest', fill_color=0))
    _write_json(out / 'log.json', dict(recipe=asdict(recipe), curve=curve))
    _write_json(out / 'open_clip_config.json', config)
    state = {name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
             for name, tensor in model.state_dict().items()}
    write_atomically(out / 'open_clip_model.safetensors', lambda part: save_file(state, part))


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, lambda part: part.write_text(json.dumps(content, indent=1) + '\n',
                                                        encoding='utf-8'))
