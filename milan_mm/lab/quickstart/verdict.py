# SPDX-License-Identifier: Apache-2.0
"""What the quickstart's figures say, in words: who is ahead, by how much, and whether it counts."""
from typing import NamedTuple

from ...evaluation.paired import ALPHA, REPLICATES, evidence, verdict
from .advice import advise

KINDS = dict(knn='k-NN', linear='linear probe')
_RIVALS = dict(mae='MAE', random='random weights')
_OF = dict(mae='on MAE\'s', random='on those of random weights')


class Verdict(NamedTuple):
    """The result for a reader.

    Attributes:
        headline: who is ahead.
        sentence: by how much, with interval and p.
        advice: what bounds it and what to do next, by the run's own figures.
        caveat: by which test "ahead" is said, or why nothing is.
    """
    headline: str
    sentence: str
    advice: list[str]
    caveat: str


def judge(results: dict) -> Verdict:
    """Reads ``classification`` and ``paired`` of ``results.json``.

    "Ahead" is said of a difference whose p is below .05, by the paired test that
    :func:`milan_mm.evaluation.paired.compare` made of the hits of each image.
    """
    blocks = {kind: results['classification'][kind] for kind in KINDS
              if 'milan' in results['classification'].get(kind, {})}
    tests = results.get('paired', {}).get('classification', {})
    sentence = '; '.join(_clause(kind, block, tests.get(kind, {}), number == 0)
                         for number, (kind, block) in enumerate(blocks.items()))
    headline = _headline({rival: {kind: status(tests[kind][rival]) for kind in blocks}
                          for rival in _RIVALS
                          if blocks and all(rival in tests.get(kind, {}) for kind in blocks)})
    if results.get('settings', {}).get('quick'):
        headline = f'Smoke test: everything runs. {headline}, which means nothing yet'
    return Verdict(headline, sentence + '.', advise(results), _caveat(results))


def status(test: dict) -> str:
    """'ahead', 'behind' or 'level', of a comparison as ``results.json`` holds it."""
    return verdict(test['difference'], test['p'])


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


def differences(results: dict) -> list[tuple[str, list[str]]]:
    """Each rival, and MILAN's difference to it by each measure, with interval and p, in words."""
    tests = results.get('paired', {}).get('classification', {})
    return [(name, [f'{tests[kind][rival]["difference"]:+.1f} '
                    f'({_evidence(tests[kind][rival])})' for kind in KINDS if kind in tests])
            for rival, name in (*_RIVALS.items(), ('teacher', 'the teacher'))
            if tests and all(rival in of_kind for of_kind in tests.values())]


def _evidence(test: dict) -> str:
    return evidence(test['low'], test['high'], test['p']).replace('95 % interval ', '')


def comparison(difference: float, test: dict | None, of: str, first: bool = True) -> str:
    """One difference in words.

    Args:
        difference: in points.
        test: as ``results.json`` holds it, or None if there is none.
        of: what it is compared with.
        first: whether points and interval are said to be such.
    """
    words = (f'{abs(difference):.1f} {"points " if first else ""}'
             f'{"more" if difference >= 0 else "fewer"} than {of}')
    if test is None:
        return f'{words} (not tested: no hits of each image are kept)'
    level = status(test) == 'level'
    if test['low'] is None:
        return f'{words} (may be chance)' if level else words
    return (f'{words} ({"95 % interval " if first else ""}{test["low"]:+.1f} to {test["high"]:+.1f}'
            + (': may be chance)' if level else ')'))


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


def _clause(kind: str, block: dict[str, float], tests: dict[str, dict], first: bool) -> str:
    """One measure: what MILAN scores, and how that compares."""
    value = f'{block["milan"]:.1f} %' + (
        f' (± {block["milan_std"]:.1f})' if 'milan_std' in block else '')
    start = (f'On MILAN\'s features, {KINDS[kind]} names {value} of the held-out images correctly'
             if first else f'{"the " if kind == "linear" else ""}{KINDS[kind]} {value}')
    parts = [comparison(block['milan'] - block[rival], tests.get(rival), _OF[rival],
                        first and number == 0)
             for number, rival in enumerate(name for name in _RIVALS if name in block)]
    return start + (': ' if first and parts else ', ' if parts else '') + ' and '.join(parts)


def _caveat(results: dict) -> str:
    if results.get('settings', {}).get('quick'):
        return ('This was a run with --quick: a dozen steps, too few to learn anything. Its '
                'figures are no evidence for or against a method.')
    tests = [test for kind in results.get('paired', {}).get('classification', {}).values()
             for test in kind.values()]
    if not tests:
        return ('No test can be made: this evaluation kept no hits of each image. Run its stage '
                'again (--force --stage eval report).')
    test, things = tests[0], results.get('groups', 'images')
    single = things == 'images' and test['images'] * test['runs'] == test['groups'] * test['runs']
    said = (f'Paired over the same held-out images. "Ahead" is said where p is below {ALPHA:g}; ')
    if test['runs'] > 1:
        return said + (
            f'intervals and p are of a paired bootstrap over {test["runs"]} runs and '
            f'{test["groups"]:,} {things} ({REPLICATES:,} samples). Figures are means of the runs, '
            '± their standard deviation.')
    if single:
        return said + (
            f'p is of McNemar\'s exact test, the intervals are of a paired bootstrap over the '
            f'{test["groups"]:,} images ({REPLICATES:,} samples). That is about other images and '
            'not about other trainings; --seeds 3 is about both.')
    return said + (
        f'as the {test["images"]:,} images are renders of {test["groups"]:,} {things}, which is '
        f'what was drawn to be held out, p is of the {test["test"]} and the intervals of a paired '
        f'bootstrap over {things} ({REPLICATES:,} samples). That is about other {things} and not '
        'about other trainings; --seeds 3 is about both.')
