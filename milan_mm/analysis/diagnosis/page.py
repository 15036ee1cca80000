# SPDX-License-Identifier: Apache-2.0
"""The page: each measure with its plot, how to read it, and what it says here."""
import json
from pathlib import Path
from typing import Any, NamedTuple

from ...checkpoints.io import write_atomically
from ...reports.charts import Panel, save
from ...reports.page import write_page
from .plots import panels_of

_COLLAPSED = 0.99  # mean cosine of two images' outputs; ViTs that work sit at 0.3 to 0.9
_CLOSER = 0.05  # of CKA, from which on a difference is spoken of


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        title: what was measured.
        read: how to read the plot.
        found: what it says here; or why there is no plot.
        panels: panels of the plot; none where nothing was measured.
    """
    title: str
    read: str
    found: str
    panels: list[Panel]


TITLES = dict(
    cka='Which layers are alike',
    attention_distance='How far heads look',
    effective_rank='How many directions carry something',
    collapse='Has anything collapsed?',
    units='Dead units',
    deciles='Loss by importance')
READ = dict(
    cka='Linear CKA of each student layer (rows) with each teacher layer (columns): 1 means the '
    'same up to rotation and scale, 0 unrelated, and what an untrained encoder reaches stands in '
    'the last row; a student that took over the teacher is bright in the lower right corner, and a '
    'column that is no brighter than that row holds what it did not take over.',
    attention_distance='Each dot is a head: the mean distance between a patch and the patches it '
    'attends to; low dots are local heads, dots on the dashed line look everywhere alike, and '
    'layers in which all heads sit on it do not tell places apart.',
    effective_rank='How many directions the features of a layer really use (the exponential of '
    'the entropy of their singular values); a line that falls towards 1 is a layer that says '
    'little, and the teacher\'s is what there was to be learned.',
    collapse='Solid for CLS, dotted for patches: when the mean cosine of two different images '
    'nears 1, or the spread nears 0, all of them get the same features; a high cosine early on is '
    'common and harmless, one that stays high up to the output is not.',
    units='On how many tokens a unit of an MLP is on (has a positive input to its activation); '
    'units that are never on do nothing, and units that are always on are nearly linear: '
    'many of either are width that is paid for and not used.',
    deciles='Patches of each image by the teacher\'s importance: a masked line that rises to the '
    'right says that what matters is harder to predict, the gap between the lines is what seeing a '
    'patch is worth, and the bars say how much of each tenth the mask showed (bars on the lines '
    'are standard errors).')


def write_diagnosis(result: dict[str, Any], out: str | Path) -> Path:
    """Writes ``diagnosis.json``, a PNG for each measure, and ``index.html``, which needs none.

    Args:
        result: of :func:`milan_mm.analysis.diagnosis.diagnose.diagnose`.
        out: the folder.

    Returns:
        The path of the page.
    """
    out = Path(out)
    panels = panels_of(result)
    for name, drawn in panels.items():
        save(drawn, out / f'{name}.png')
    text = json.dumps(result, indent=1, allow_nan=False, default=str)
    write_atomically(out / 'diagnosis.json', lambda path: path.write_text(text + '\n'))
    found = findings(result)
    return write_page(
        out / 'index.html', 'diagnosis', result=result, headline=headline(result),
        name='/'.join(Path(result['checkpoint']).parts[-2:]),
        sections=[Section(title, READ[name], found[name] if name in found else
                          f'Left out: {result["left_out"].get(name, "nothing was measured")}.',
                          panels.get(name, [])) for name, title in TITLES.items()])


def headline(result: dict[str, Any]) -> str:
    """What matters most, in a line: whether the output says anything, and whose it resembles."""
    output = {kind: result['spread']['student'][kind][-1]['mean_cosine']
              for kind in ('cls', 'patches')}
    collapsed = [word for kind, word in (('cls', 'the CLS token is'), ('patches', 'patches are'))
                 if output[kind] is not None and output[kind] > _COLLAPSED]
    if collapsed:
        return f'The output has collapsed: {" and ".join(collapsed)} nearly the same for all images'
    text = 'The output has not collapsed'
    if not result['cka']:
        return text
    ours, fresh = result['cka']['patches'][-1][-1], result['cka']['random']['patches'][-1]
    if ours is None or fresh is None:
        return text
    return text + (f', and is closer to the {result["teacher"]} than random weights are'
                   if ours > fresh + _CLOSER else
                   f', but is hardly closer to the {result["teacher"]} than random weights are')


def findings(result: dict[str, Any]) -> dict[str, str]:
    """A sentence for each measure that was taken, with its figures."""
    found = {}
    if result['cka']:
        cka = result['cka']
        target = {kind: [row[-1] for row in cka[kind]] for kind in ('cls', 'patches')}
        nearest = {kind: cka['rows'][_largest(values)] for kind, values in target.items()}
        found['cka'] = (
            f'The student\'s output and the teacher\'s {cka["columns"][-1]}: '
            f'{_two(target["cls"][-1])} for CLS, {_two(target["patches"][-1])} for patches; '
            f'the student\'s layer nearest to it is {nearest["cls"]} for CLS, {nearest["patches"]} '
            f'for patches. The same encoder with random weights: {_two(cka["random"]["cls"][-1])} '
            f'and {_two(cka["random"]["patches"][-1])}. '
            f'{cka["batches"]} batches of {cka["batch"]} images.')
    heads = [head for block in result['attention_distance']['pixels'] for head in block]
    even = result['attention_distance']['even']
    local = sum(head < 0.75 * even for head in heads)
    found['attention_distance'] = (
        f'Heads look {min(heads):.1f} to {max(heads):.1f} pixels far; even attention would be '
        f'{even:.1f}. {local} of {len(heads)} heads stay below three quarters of that.')
    found.update(_spread_words(result['spread']))
    if result['units']:
        units = result['units']
        found['units'] = (
            f'Of {sum(units["units"])} units {sum(units["never"])} are never on and '
            f'{sum(units["always"])} always, on {max(units["tokens"])} tokens.')
    if result['deciles']:
        deciles = result['deciles']
        found['deciles'] = '. '.join(
            f'{name.capitalize()} patches: loss {_two(deciles[name][0])} in the least important '
            f'tenth, {_two(deciles[name][-1])} in the most important'
            for name in ('masked', 'seen')) + (
                f'. The mask showed {deciles["share_seen"][0]:.0%} of the one and '
                f'{deciles["share_seen"][-1]:.0%} of the other.')
        if deciles['trained_on'] == 'masked':
            found['deciles'] += ' No loss taught this decoder seen patches: that line is idle.'
    return found


def _spread_words(spread: dict[str, Any]) -> dict[str, str]:
    names = dict(student='The student\'s output', teacher='The teacher\'s target')
    rank, cosine = [], []
    for tower, rows in spread.items():
        cls, patches = rows['cls'][-1], rows['patches'][-1]
        rank.append(f'{names[tower]}: {cls["effective_rank"]:.1f} of at most {cls["most"]} for '
                    f'CLS, {patches["effective_rank"]:.1f} of {patches["most"]} for patches.')
        cosine.append(f'{names[tower]}: mean cosine {_two(cls["mean_cosine"])} for CLS, '
                      f'{_two(patches["mean_cosine"])} for patches.')
    return dict(effective_rank=' '.join(rank), collapse=' '.join(cosine))


def _largest(values: list[float]) -> int:
    return max(range(len(values)), key=lambda i: -1.0 if values[i] is None else values[i])


def _two(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'
