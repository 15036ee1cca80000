# SPDX-License-Identifier: Apache-2.0
"""The colours of pages and charts, by name: on light ground and on dark."""

COLOURS = dict(
    ground=('#fbfaf8', '#14171a'),
    ink=('#1d2126', '#e8e6e1'),
    soft=('#5a626c', '#a9b0b8'),  # text that is read second
    line=('#e2e0db', '#2f353b'),
    grid=('#ebe9e4', '#272c32'),
    code=('#f2f0eb', '#22272c'),
    milan=('#0a6c8f', '#4db6d6'),
    second=('#3f93ad', '#a5dcec'),
    mae=('#a45409', '#e79a4b'),
    random=('#858d96', '#878f98'),
    teacher=('#7b5ea7', '#b096dd'),
    chance=('#b3261e', '#ff8a80'),
    hit=('#2b7549', '#6cc491'))
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
SERIES = ('milan', 'mae', 'teacher', 'hit', 'chance', 'second', 'random')  # one after the other


def themed(colour: str) -> str:
    """A light colour as the style sheet's variable, which knows the dark one; others stay."""
    name = next((name for name, light in LIGHT.items() if light == colour), None)
    return colour if name is None else f'var(--{name})'
