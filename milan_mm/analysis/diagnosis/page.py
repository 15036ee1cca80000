# SPDX-License-Identifier: Apache-2.0
"""The page: each measure with its plot, how to read it, and what it says here."""
import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...checkpoints.io import write_atomically
from .plots import draw


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        title: what was measured.
        read: how to read the plot.
        found: what it says here; or why there is no plot.
        image: a data URI, or None.
    """
    title: str
    read: str
    found: str
    image: str | None


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
_NEEDS = dict(effective_rank='spread', collapse='spread')


def write_diagnosis(result: dict[str, Any], out: str | Path) -> Path:
    """Writes ``diagnosis.json``, a PNG for each measure, and ``index.html``, which needs none.

    Args:
        result: of :func:`milan_mm.analysis.diagnosis.diagnose.diagnose`.
        out: the folder.

    Returns:
        The path of the page.
    """
    out = Path(out)
    images = draw(result)
    for name, content in images.items():
        write_atomically(out / f'{name}.png', lambda path, png=content: path.write_bytes(png))
    text = json.dumps(result, indent=1, allow_nan=False, default=str)
    write_atomically(out / 'diagnosis.json', lambda path: path.write_text(text + '\n'))
    page = render(result, images)
    # A file name that is no text in the system's encoding must not cost the page.
    write_atomically(out / 'index.html',
                     lambda path: path.write_bytes(page.encode('utf-8', 'replace')))
    return out / 'index.html'


def render(result: dict[str, Any], images: dict[str, bytes]) -> str:
    """The page as text; whatever comes from the user is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template('diagnosis.html.j2').render(
        result=result, sections=sections(result, images),
        name='/'.join(Path(result['checkpoint']).parts[-2:]))


def sections(result: dict[str, Any], images: dict[str, bytes]) -> list[Section]:
    """What the page says, measure by measure."""
    made = []
    for name, title in TITLES.items():
        measured = result[_NEEDS.get(name, name)]
        image = None
        if name in images:
            image = 'data:image/png;base64,' + base64.b64encode(images[name]).decode()
        found = (findings(result)[name] if measured else
                 f'Left out: {result["left_out"].get(name, "nothing was measured")}.')
        made.append(Section(title, READ[name], found, image))
    return made


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
    heads = sum(result['attention_distance']['pixels'], [])
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
