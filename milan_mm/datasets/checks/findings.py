# SPDX-License-Identifier: Apache-2.0
"""What a look through a data set has found, as a table and as plain values."""
from typing import Any

from ...errors import MilanError
from ...wording import some_of

MENDED, LEFT_OUT, NOTE = 'mended', 'left out', 'note'


class Findings:
    """Of one set: counts by class, and what was mended, left out or is worth a look.

    Args:
        source: file or folder that was looked through.
    """

    def __init__(self, source: object) -> None:
        self.source = str(source)
        self.counts: dict[str, int] = {}
        self.classes: dict[str, dict[str, int]] = {}
        self.entries: dict[tuple[str, str], list[str]] = {}
        self.mends: dict[str, str] = {}

    def mended(self, what: str, item: object) -> None:
        """Something that was put right without doubt."""
        self._add(MENDED, what, item)

    def left_out(self, what: str, item: object, mend: str = '') -> None:
        """A faulty item that neither training nor evaluation will see, and how to mend it."""
        self._add(LEFT_OUT, what, item)
        if mend:
            self.mends[_plain(what)] = mend

    def note(self, what: str, item: object) -> None:
        """Something that stays as it is and may not be what was meant."""
        self._add(NOTE, what, item)

    def _add(self, kind: str, what: str, item: object) -> None:
        self.entries.setdefault((kind, _plain(what)), []).append(_plain(str(item)))

    def any(self, *kinds: str) -> bool:
        """Whether there is an entry of one of the kinds."""
        return any(kind in kinds for kind, _ in self.entries)

    def refuse_if_most(self, things: str, left: int, total: int) -> None:
        """Raises MilanError, with the most frequent reason, if fewer than half are left."""
        if total and 2 * left >= total and left:
            return
        out = {what: items for (kind, what), items in self.entries.items() if kind == LEFT_OUT}
        what = max(out, key=lambda name: len(out[name]), default='')
        reason = f': {what}: {some_of(out[what], 3)}' if what else ''
        mend = self.mends.get(what)
        raise MilanError(f'{self.source}: {left} of {total} {things} can be used{reason}'
                         f'{f". {mend}" if mend else ""}')

    def table(self) -> str:
        """Counts, classes and entries, a line each."""
        counts = ', '.join(f'{number} {things}' for things, number in self.counts.items())
        rows = [f'{self.source}: {counts}']
        width = max(map(len, self.classes), default=0)
        rows += [f'  {_plain(name):{width}}  ' + '  '.join(
            f'{n:8} {what}' for what, n in numbers.items())
            for name, numbers in self.classes.items()]
        rows += [f'  {kind:8}  {len(items):6} x {what}: {some_of(items)}'
                 for (kind, what), items in self.entries.items()]
        return '\n'.join(rows)

    def as_dict(self) -> dict[str, Any]:
        """Everything, every item named."""
        return dict(source=self.source, counts=self.counts, classes=self.classes, found=[
            dict(kind=kind, what=what, number=len(items), items=items)
            for (kind, what), items in self.entries.items()])


def _plain(text: str) -> str:
    """A line that any terminal and file takes: names may hold line feeds and broken characters."""
    return text if text.isprintable() else ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
