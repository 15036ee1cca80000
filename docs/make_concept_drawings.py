# SPDX-License-Identifier: Apache-2.0
"""Draws docs/concepts/*.svg, the drawings of docs/concepts.md, from a trained model's tensors.

    python docs/make_concept_drawings.py CHECKPOINT IMAGES...

The first image is the example; the others appear where several say more. All figures, in drawings
and on the terminal, are computed from the tensors of this call.
"""
import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from milan_mm.analysis.visualization.tiles import Colours, colours_of
from milan_mm.analysis.visualization.views import Views, view
from milan_mm.drawing import panels
from milan_mm.errors import MilanError
from milan_mm.inference.images import load_pixels
from milan_mm.inference.pretraining import inputs_of, load_pretraining, mask_keys
from milan_mm.models import MILAN, PromptingDecoder, RandomMaskGenerator, SemanticMaskGenerator
from milan_mm.structures import MaskIds

sys.path.insert(0, str(Path(__file__).parent))
from svg_drawing import Drawing  # noqa: E402

RATIOS, TEMPERATURES = (.5, .75, .9), (.5, 1., 2.)


class Step(NamedTuple):
    """One step of the first image, from the mask to the loss.

    Attributes:
        masks: which patches are seen.
        attention: (M, 1 + V + M) of the decoder's last block, mean over heads.
        losses: (1 + N,) 2 - 2 cos of every token, CLS first, raster order.
    """
    masks: MaskIds
    attention: Tensor
    losses: Tensor


class Painter:
    """Panels of the images: what the drawings are put together from."""

    def __init__(self, views: Views, colours: Colours, step: Step) -> None:
        self.views, self.colours, self.grid = views, colours, views.grid
        self.highest = float(step.losses[1:].max())

    def photo(self, i: int = 0) -> Image.Image:
        return panels.as_image(self.views.pixels[i], self._scale())

    def importance(self, i: int = 0) -> Image.Image:
        return panels.importance_panel(self.views.pixels[i], self.views.importance[i], self.grid,
                                       self._scale())

    def mask(self, visible: Tensor, i: int = 0) -> Image.Image:
        return panels.mask_panel(self.views.pixels[i], visible, self.grid, self._scale())

    def features(self, scores: Tensor) -> Image.Image:
        return panels.feature_panel(scores, self.grid, self.grid)

    def error(self, losses: Tensor) -> Image.Image:
        return panels.error_panel(losses, self.grid, self.grid, self.highest)

    def patch(self, index: int) -> Image.Image:
        height, width = (side // count for side, count in zip(
            self.views.pixels.shape[-2:], self.grid))
        row, column = divmod(index, self.grid[1])
        return panels.as_image(self.views.pixels[
            0, :, row * height:(row + 1) * height, column * width:(column + 1) * width])

    def _scale(self) -> int:
        return max(1, round(190 / max(self.views.pixels.shape[-2:])))


@torch.no_grad()
def step_of(model: MILAN, views: Views, seed: int) -> Step:
    """Takes the training's step on the first image once more, and keeps what views leave out."""
    caught = []
    attention = model.neck.decoder_blocks[-1].attn
    handle = attention.register_forward_pre_hook(lambda _, given: caught.append(given))
    inputs = inputs_of(model, views.pixels[:1])
    target = model.teach(inputs)
    masks = model.mask_generator(target.importance, mask_keys(seed, [0]))
    predicted = model.predict(inputs, masks)
    handle.remove()
    query, context = caught[0]
    q = attention.q(query).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    k = attention.kv(context).unflatten(-1, (2, attention.num_heads, -1))[:, :, 0].transpose(1, 2)
    weights = (q @ k.transpose(-2, -1) / q.shape[-1]**.5).softmax(-1).mean(1)[0]
    losses = model.head.loss_module(predicted, target.features)[0]
    return Step(masks, weights, losses)


def draw_overview(paint: Painter, step: Step) -> Drawing:
    """The whole step in six panels."""
    drawing, side = Drawing('One training step of MILAN, from an image to the loss', 424), 124
    left = [12, 178, 344]
    names = (('image', 'importance', 'target'), ('seen', 'predicted', 'loss'))
    rows = ((paint.photo(), paint.importance(), paint.features(paint.colours.teacher[0])),
            (paint.mask(step.masks.visible[0]), paint.features(predicted_colours(paint)[0]),
             paint.error(step.losses[1:])))
    for top, words, images in zip((44, 254), names, rows):
        for x, word, image in zip(left, words, images):
            drawing.image(x, top, side, image, photo=word in ('image', 'seen', 'importance'))
            drawing.text(x + side / 2, top + side + 18, word, anchor='middle')
    drawing.line((74, 40), (74, 28), (240, 28), (240, 40), arrow=True)
    drawing.line((240, 28), (406, 28), (406, 40), arrow=True)
    drawing.text(160, 20, 'teacher, frozen', 'soft', 'middle')
    drawing.line((74, 190), (74, 250), arrow=True)
    drawing.line((240, 190), (240, 218), (82, 218), (82, 250), arrow=True)
    drawing.text(160, 212, 'draw a mask', 'soft', 'middle')
    drawing.line((406, 190), (406, 250), arrow=True)
    drawing.text(398, 240, 'compare', 'soft', 'end')
    drawing.line((138, 316), (174, 316), arrow=True)
    drawing.line((304, 316), (340, 316), arrow=True)
    drawing.line((74, 398), (74, 410), (160, 410), dashed=True)
    drawing.text(166, 415, 'ViT encoder, then decoder', 'soft')
    return drawing


def draw_importance(paint: Painter) -> Drawing:
    """The importance over the image, and its patches from most to least."""
    importance = paint.views.importance[0].sort(descending=True).values
    count, quarter = len(importance), len(importance) // 4
    share = float(importance[:quarter].sum())
    drawing = Drawing('Importance of the patches of an image, and how unequal it is', 208)
    drawing.image(10, 12, 140, paint.photo(), photo=True)
    drawing.text(80, 172, 'image', anchor='middle')
    drawing.image(160, 12, 140, paint.importance(), photo=True)
    drawing.text(230, 172, 'importance', anchor='middle')
    left, wide, high = 320, 150, 140
    for i, value in enumerate(importance.tolist()):
        tall = high * value / float(importance[0])
        drawing.box(left + i * wide / count, 12 + high - tall, wide / count * .8, tall,
                    'milan' if i < quarter else 'random')
    even = 12 + high - high / count / float(importance[0])
    drawing.line((left, even), (left + wide, even), kind='chance-line', dashed=True)
    drawing.text(left + wide, even - 6, 'if all were alike', 'chance', 'end', 13)
    drawing.text(left + wide / 2, 172, f'{count} patches, sorted', anchor='middle')
    drawing.text(left + wide / 2, 194, f'a quarter has {share:.0%}', 'milan', 'middle')
    print(f'importance: {quarter} of {count} patches have {share:.1%}, '
          f'the first one {float(importance[0]):.1%}')
    return drawing


def draw_masks(paint: Painter, seed: int) -> Drawing:
    """Draws at several ratios and temperatures, with the share of the importance that is seen."""
    importance, side = paint.views.importance[:1], 94
    drawing = Drawing('Masks drawn at three ratios, three temperatures, and at random', 434)
    columns = [*(f't = {t:g}' for t in TEMPERATURES), 'random']
    for column, word in enumerate(columns):
        drawing.text(71 + column * 102 + side / 2, 24, word, anchor='middle')
    for row, ratio in enumerate(RATIOS):
        top = 34 + row * 132
        drawing.text(8, top + 42, f'{ratio:.0%}')
        drawing.text(8, top + 60, 'masked', 'soft')
        for column in range(4):
            generator = RandomMaskGenerator(ratio) if column == 3 else SemanticMaskGenerator(
                ratio, TEMPERATURES[column])
            masks = generator(importance, mask_keys(seed, [0]))
            share = float(masks.share_seen(importance))
            x = 71 + column * 102
            drawing.image(x, top, side, paint.mask(masks.visible[0]), photo=True)
            drawing.text(x + side / 2, top + side + 18, f'{share:.0%}', 'soft', 'middle')
            print(f'masks: {ratio:.0%} masked, {columns[column]}: '
                  f'{share:.1%} of the importance is seen')
    return drawing


def draw_decoder(paint: Painter, step: Step) -> Drawing:
    """Two groups of tokens, and which of them attend to which."""
    visible, masked = step.masks.visible[0].tolist(), step.masks.masked[0]
    prompts, asking = 1 + len(visible), len(masked)
    drawing = Drawing('Tokens and attention of the prompting decoder', 556)
    cell = 360 / (prompts + asking)
    left, top = 96, 106
    edge = left + prompts * cell
    drawing.text(12, 24, f'{prompts} prompts: CLS and the {len(visible)} patches seen', 'milan')
    drawing.text(12, 44, f'{asking} mask tokens: one for each patch to predict', 'mae')
    drawing.text(left, 76, 'keys and values: all tokens', 'soft')
    _strip(drawing, paint, visible, asking, (left, top - 22), cell, across=True)
    _strip(drawing, paint, visible, asking, (left - 22, top), cell, across=False)
    drawing.box(left, top, 360, prompts * cell, 'code')
    drawing.text(left + 180, top + prompts * cell / 2 - 4, 'prompts are never queries:',
                 'soft', 'middle')
    drawing.text(left + 180, top + prompts * cell / 2 + 15, 'no block changes them', 'soft',
                 'middle')
    strength = (step.attention / step.attention.quantile(.99)).clamp(0, 1)
    drawing.image(left, top + prompts * cell, 360, panels.coloured(
        strength.flatten(), tuple(step.attention.shape), 'viridis'), height=asking * cell)
    drawing.line((edge, top + prompts * cell), (edge, top + 360), kind='ground-line')
    drawing.text(58, top + prompts * cell + asking * cell / 2, 'queries: mask tokens', 'soft',
                 'middle', turn=-90)
    share = float(step.attention[:, :prompts].sum(1).mean())
    bottom = top + 360
    drawing.text(left + 180, bottom + 28, f'{share:.0%} of the attention goes to the prompts,',
                 anchor='middle')
    drawing.text(left + 180, bottom + 48, f'which are {prompts / (prompts + asking):.0%} of the '
                 'tokens', anchor='middle')
    drawing.text(left + 180, bottom + 72, 'last block, mean over heads; yellow is most', 'soft',
                 'middle', 13)
    print(f'decoder: {share:.1%} of the last block\'s attention goes to {prompts} prompts of '
          f'{prompts + asking} tokens')
    return drawing


def _strip(drawing: Drawing, paint: Painter, visible: list[int], asking: int,
           at: tuple[float, float], cell: float, across: bool) -> None:
    """The tokens along a side of the attention: CLS, patches, mask tokens."""
    for i in range(1 + len(visible) + asking):
        x, y = (at[0] + i * cell, at[1]) if across else (at[0], at[1] + i * cell)
        wide, high = (cell * .86, 18) if across else (18, cell * .86)
        if 0 < i <= len(visible):
            drawing.image(x, y, wide, paint.patch(visible[i - 1]), photo=True, height=high)
        else:
            drawing.box(x, y, wide, high, 'mae' if i else 'milan')


def draw_features(paint: Painter, names: list[str]) -> Drawing:
    """Target, prediction and the encoder's own features as colours, for each image."""
    count, side = len(names), 108
    drawing = Drawing('Features of teacher, decoder and encoder as colours', 40 + count * 116)
    for column, word in enumerate(('image', 'target', 'predicted', 'encoder')):
        drawing.text(12 + column * 116 + side / 2, 24, word, anchor='middle')
    predicted = predicted_colours(paint)
    for i in range(count):
        row = (paint.photo(i), paint.features(paint.colours.teacher[i]),
               paint.features(predicted[i]), paint.features(paint.colours.student[i]))
        for column, image in enumerate(row):
            drawing.image(12 + column * 116, 36 + i * 116, side, image, photo=column == 0)
    return drawing


def draw_loss(paint: Painter, step: Step) -> Drawing:
    """The loss of every token: where it is, and how seen and masked patches differ."""
    drawing = Drawing('The loss of every token of an image', 300)
    drawing.image(10, 12, 200, paint.error(step.losses[1:]))
    rows, columns = paint.grid
    for index in step.masks.visible[0].tolist():
        row, column = divmod(index, columns)
        drawing.parts.append(f'<circle cx="{10 + (column + .5) * 200 / columns:g}" '
                             f'cy="{12 + (row + .5) * 200 / rows:g}" r="{40 / columns:g}" '
                             'fill="#fff" stroke="#000"/>')
    drawing.text(110, 234, 'loss by patch', anchor='middle')
    drawing.text(110, 254, 'dots: patches seen', 'soft', 'middle')
    scale = panels.coloured(torch.arange(64) / 63, (1, 64), panels.ERROR_COLOURS)
    drawing.image(30, 264, 160, scale, height=8)
    drawing.text(30, 290, '0', 'soft', size=13)
    drawing.text(190, 290, f'{paint.highest:.2f}', 'soft', 'end', size=13)
    left, wide, high = 270, 200, 200
    most = float(step.losses.max()) * 1.05
    for value in (x / 4 for x in range(int(most * 4) + 1)):
        y = 12 + high - high * value / most
        drawing.line((left, y), (left + wide, y), kind='grid-line')
        drawing.text(left - 6, y + 5, f'{value:g}', 'soft', 'end', 13)
    groups = (('CLS', 'teacher', step.losses[:1]),
              ('seen', 'milan', step.losses[1:][step.masks.visible[0]]),
              ('masked', 'mae', step.losses[1:][step.masks.masked[0]]))
    for column, (name, kind, losses) in enumerate(groups):
        x, mean = left + 34 + column * 66, float(losses.mean())
        for i, value in enumerate(losses.tolist()):
            y = 12 + high - high * value / most
            drawing.parts.append(f'<circle cx="{x + (i * 7 % 25 - 12) * (len(losses) > 1):g}" '
                                 f'cy="{y:g}" r="3" class="{kind}" fill-opacity=".7"/>')
        drawing.line(*((x + d, 12 + high - high * mean / most) for d in (-26, 26)),
                     kind='ink-line')
        drawing.text(x, 234, name, kind, 'middle')
        drawing.text(x, 254, f'{mean:.2f}', anchor='middle')
        print(f'loss: {name} {mean:.3f} (cosine {1 - mean / 2:.3f}), {len(losses)} tokens')
    drawing.text(left + wide / 2, 290, f'mean of all: {float(step.losses.mean()):.2f}',
                 anchor='middle')
    print(f'loss: mean of all tokens {float(step.losses.mean()):.3f}')
    return drawing


def predicted_colours(paint: Painter) -> Tensor:
    """(B, N, 3) of the predictions at the training's own ratio."""
    at = [one.ratio for one in paint.views.attempts].index(paint.views.trained.ratio)
    return paint.colours.predicted[at]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='of a pretraining with MILAN')
    parser.add_argument('images', nargs='+', help='files')
    parser.add_argument('--teacher', help='where the teacher is now; as of milan visualize')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'concepts')
    parser.add_argument('--seed', type=int, default=0, help='of the masks')
    args = parser.parse_args()
    model = load_pretraining(args.checkpoint, teacher=args.teacher)
    if not isinstance(model.neck, PromptingDecoder) or not model.measures_importance:
        parser.error('expected a pretraining with a teacher and the prompting decoder')
    try:
        views = view(model, load_pixels(args.images, tuple(model.backbone.img_size)), args.seed)
    except MilanError as error:
        parser.error(str(error))
    step = step_of(model, views, args.seed)
    paint = Painter(views, colours_of(views), step)
    args.out.mkdir(parents=True, exist_ok=True)
    drawings = dict(
        step=draw_overview(paint, step), importance=draw_importance(paint),
        masks=draw_masks(paint, args.seed), decoder=draw_decoder(paint, step),
        features=draw_features(paint, args.images), loss=draw_loss(paint, step))
    for name, drawing in drawings.items():
        drawing.save(args.out / f'{name}.svg')
    print(f'{len(drawings)} drawings in {args.out}')


if __name__ == '__main__':
    main()
