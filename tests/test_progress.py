# SPDX-License-Identifier: Apache-2.0
"""Progress of loops, and the turns of phrase that messages share."""
import pytest

from milan_mm.progress import Progress
from milan_mm.wording import some_of


@pytest.fixture
def clock(monkeypatch):
    """tqdm's clock; calling it with seconds makes them pass."""
    now = [1000.0]
    monkeypatch.setattr('tqdm.std.time', lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_line_now_and_then_where_there_is_no_terminal(clock, capsys):
    lines = []
    for _ in Progress('images', range(1000), lines.append):
        clock(1 / 64)  # 15.6 s in all
    assert lines[0] == 'images: 192/1000, 64.00/s, 00:12 left'
    assert 5 <= len(lines) <= 6 and all('\r' not in line for line in lines)
    for _ in Progress('images', range(1000)):
        clock(1 / 16)
    told = capsys.readouterr()
    assert told.out == '' and told.err.startswith('images: 160/1000, 16.00/s, 00:52 left\n')
    assert told.err.count('\n') <= 7


def test_a_short_loop_says_nothing_and_none_is_silent(clock, capsys):
    lines = []
    progress = Progress('batches', 3, lines.append)
    for _ in range(3):
        clock(0.5)
        progress.update()
    progress.close()
    for _ in Progress(None, range(3)):
        clock(100)
    assert lines == [] and capsys.readouterr() == ('', '')


def test_some_names_of_many():
    assert some_of(['a', 'b', 'c']) == 'a, b, c'
    assert some_of(['a', 'b', 'c'], 2) == 'a, b and 1 more'
    assert some_of([]) == ''
