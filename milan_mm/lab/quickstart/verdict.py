# SPDX-License-Identifier: Apache-2.0
"""What the quickstart's figures say, in words: who is ahead, by how much, and whether it counts."""
import math
from typing import NamedTuple

KINDS = dict(knn='k-NN', linear='linear probe')
_RIVALS = dict(mae='MAE', random='random weights')
_OF = dict(mae='MAE\'s', random='those of random weights')


class Verdict(NamedTuple):
    """The result for a reader.

    Attributes:
        headline: who is ahead.
        sentence: by how much, and what naming always the largest class would score.
        caveat: from what difference on "ahead" is said, or why nothing is.
    """
    headline: str
    sentence: str
    caveat: str


def judge(results: dict) -> Verdict:
    """Reads ``classification`` of ``results.json``.

    "Ahead" is said of a difference that chance does not explain. With several seeds: one larger
    than its standard deviation over them (both encoders' in quadrature). With one: larger than
    twice its standard error, the held-out things (not their renders) being what was sampled.
    """
    blocks = {kind: results['classification'][kind] for kind in KINDS
              if 'milan' in results['classification'].get(kind, {})}
    statuses = {
        rival: {kind: status(block, rival, sample_size(results)) for kind, block in blocks.items()}
        for rival in _RIVALS if blocks and all(rival in block for block in blocks.values())
    }
    sentence = '; '.join(
        _clause(kind, block, {rival: s[kind] for rival, s in statuses.items()}, number == 0)
        for number, (kind, block) in enumerate(blocks.items()))
    if results.get('chance') is not None:
        sentence += (f'. Naming always the most frequent class would be right for '
                     f'{results["chance"]:.1f} %')
    headline = _headline(statuses)
    if results.get('settings', {}).get('quick'):
        headline = f'Smoke test: everything runs. {headline}, which means nothing yet'
    return Verdict(headline, sentence + '.', _caveat(results))


def status(block: dict[str, float], rival: str, sample: int | None) -> str:
    """'ahead', 'behind' or 'level': MILAN against a rival in one measure.

    Args:
        block: percent for each encoder, perhaps with ``<name>_std``.
        rival: name of the other one.
        sample: number of independent held-out things, or None if it is not known.
    """
    difference = block['milan'] - block[rival]
    if abs(difference) <= threshold(block, rival, sample):
        return 'level'
    return 'ahead' if difference > 0 else 'behind'


def threshold(block: dict[str, float], rival: str, sample: int | None) -> float:
    """The difference, in points, that chance may well make; see :func:`judge`."""
    if 'milan_std' in block:
        return math.hypot(block['milan_std'], block.get(f'{rival}_std', 0.0))
    if not sample:
        return 0.0
    shares = (min(max(block[name] / 100, 0), 1) for name in ('milan', rival))
    return 200 * math.sqrt(sum(p * (1 - p) for p in shares) / sample)


def sample_size(results: dict) -> int | None:
    """Concepts held out, or files of a user's; renders of one are not independent."""
    sizes = results.get('sizes', {})
    for name in ('test_concepts', 'test_files', 'test_images'):
        if sizes.get(name):
            return int(sizes[name])
    return None


def shift_sentence(results: dict) -> str:
    """What the other drawing style costs each of the encoders."""
    plain, shifted = results['classification'], results['style_shift']
    clauses = []
    for kind, name in KINDS.items():
        if kind not in plain or kind not in shifted:
            continue
        costs = [f'{label} {_change(shifted[kind][key] - plain[kind][key])} to '
                 f'{shifted[kind][key]:.1f} %'
                 for key, label in (('milan', 'MILAN'), ('mae', 'MAE'), ('teacher', 'the teacher'))
                 if key in shifted[kind] and key in plain[kind]]
        if costs:
            clauses.append(f'{name}: {", ".join(costs)}')
    return '; '.join(clauses) + '.' if clauses else ''


def _change(points: float) -> str:
    return f'{"rises" if points > 0 else "falls"} by {abs(points):.1f} points'


def _headline(statuses: dict[str, dict[str, str]]) -> str:
    if 'mae' not in statuses or 'random' not in statuses:
        return 'What MILAN learned on these images'
    mae, random = (set(statuses[rival].values()) for rival in ('mae', 'random'))
    if mae == random == {'ahead'}:
        return 'MILAN is ahead of MAE and of random weights'
    if 'ahead' in mae and len(mae) > 1:
        ahead = next(kind for kind, s in statuses['mae'].items() if s == 'ahead')
        text = f'MILAN is ahead of MAE in {KINDS[ahead]} only'
    elif mae == {'ahead'}:
        text = 'MILAN is ahead of MAE'
    elif mae == {'behind'}:
        text = 'MILAN is behind MAE'
    else:
        text = 'MILAN is not ahead of MAE'
    if random == {'ahead'}:
        return f'{text}, {"and" if "ahead" in mae else "but"} ahead of random weights'
    if 'ahead' in random:
        ahead = next(kind for kind, s in statuses['random'].items() if s == 'ahead')
        return f'{text}, and ahead of random weights in {KINDS[ahead]} only'
    return f'{text}, and not ahead of random weights'


def _clause(kind: str, block: dict[str, float], statuses: dict[str, str], first: bool) -> str:
    """One measure: what MILAN scores, and how that compares."""
    value = f'{block["milan"]:.1f} %' + (
        f' (± {block["milan_std"]:.1f})' if 'milan_std' in block else '')
    start = (f'With MILAN\'s features, {KINDS[kind]} names {value} of the held-out images '
             'correctly' if first else f'{"the " if kind == "linear" else ""}{KINDS[kind]} {value}')
    parts = [_comparison(block['milan'] - block[rival], s, _OF[rival])
             for rival, s in statuses.items()]
    return start + (': ' if first and parts else ', ' if parts else '') + ' and '.join(parts)


def _comparison(difference: float, verdict: str, of: str) -> str:
    if verdict == 'level':
        return f'about as many as with {of} ({difference:+.1f} points, which may be chance)'
    word = 'more' if verdict == 'ahead' else 'fewer'
    return f'{abs(difference):.1f} points {word} than with {of}'


def _caveat(results: dict) -> str:
    if results.get('settings', {}).get('quick'):
        return ('This was a run with --quick: a dozen steps, too few to learn anything. Its '
                'figures are no evidence for or against a method.')
    seeds, sample = results.get('seeds') or [], sample_size(results)
    if len(seeds) > 1:
        return (f'Means of {len(seeds)} runs with other seeds, ± their standard deviation. "Ahead" '
                'is said of a difference that exceeds its own standard deviation.')
    if sample is None:
        return 'One run; how large a difference chance can make is not known.'
    worst = 200 * math.sqrt(2 * 0.25 / sample)
    things = 'concepts' if results['sizes'].get('test_concepts') else 'images'
    return (f'One run, {sample:,} held-out {things}. "Ahead" is said of a difference that exceeds '
            f'twice its standard error (at most {worst:.1f} points here); --seeds 3 shows the '
            'spread between runs.')
