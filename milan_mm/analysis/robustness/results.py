# SPDX-License-Identifier: Apache-2.0
"""From counts to the figures of a suite: plain data, a table for the terminal, CSV."""
import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .corruptions import GROUPS
from .imagenet import corruption_errors
from .measure import Counts
from .suites import CLEAN, Condition, Pass


def figures(suite: str, accuracy: dict[Condition, float]) -> dict[str, Any]:
    """One classifier's figures.

    Args:
        suite: its name.
        accuracy: percent by condition.

    Returns:
        ``top1`` of a suite without severities, else ``accuracy`` (a list over severities by
        corruption), ``mean`` over corruptions and severities, ``by_severity``, ``by_group``, for
        ImageNet-C also the corruption errors; ``clean`` where measured, and ``kept``, the accuracy
        by that on clean images.
    """
    rest = {c: a for c, a in accuracy.items() if c != CLEAN}
    clean = accuracy.get(CLEAN)
    result: dict[str, Any] = {} if clean is None else {'clean': clean}
    if (suite, 0) in rest:
        result['top1'] = mean = rest[suite, 0]
    else:
        names = list(dict.fromkeys(name for name, _ in rest))
        severities = sorted({severity for _, severity in rest})
        table = {name: [rest[name, s] for s in severities] for name in names}
        mean = float(np.mean(list(table.values())))
        result.update(
            severities=severities, accuracy=table, mean=mean,
            by_severity=[float(column) for column in np.mean(list(table.values()), axis=0)],
            by_group={group: float(np.mean([table[name] for name in members if name in table]))
                      for group, members in GROUPS.items() if set(members) & set(table)})
    if clean:
        result['kept'] = 100 * mean / clean
    if suite == 'imagenet-c':
        result.update(corruption_errors(rest, clean))
    return result


def gather(suite: str, passes: Sequence[Pass], counts: Sequence[Counts],
           names: Sequence[str]) -> dict[str, Any]:
    """The figures of all classifiers by name, and what they were measured on."""
    models = {}
    for i, name in enumerate(names):
        accuracy = {condition: 100.0 * right / count.total
                    for count in counts for condition, right in count.right[i].items()}
        models[name] = figures(suite, accuracy)
    return {
        'images': {part.title: count.total for part, count in zip(passes, counts)},
        'left_out': sum(part.left_out for part in passes),
        'unreadable': [path for count in counts for path in count.unreadable],
        'models': models,
    }


def table(result: dict[str, Any]) -> str:
    """For the terminal: one column a classifier."""
    models = result['models']
    first = next(iter(models.values()))
    rows: list[Sequence[str]] = [('top-1, %', *models)]

    def add(title: str, of: Any) -> None:
        rows.append((title, *(f'{of(model):.1f}' for model in models.values())))

    if 'clean' in first:
        add('clean', lambda m: m['clean'])
    if 'top1' in first:
        add(result['suite'], lambda m: m['top1'])
    for name in first.get('accuracy', ()):
        add(name, lambda m, name=name: float(np.mean(m['accuracy'][name])))
    if 'accuracy' in first:
        add('mean of these', lambda m: m['mean'])
    for i, severity in enumerate(first.get('severities', ())):
        add(f'severity {severity}', lambda m, i=i: m['by_severity'][i])
    if 'kept' in first:
        add('kept of clean', lambda m: m['kept'])
    for key, title in (('mce', 'mCE'), ('mean_ce', 'mean CE, not all 15'),
                       ('relative_mce', 'relative mCE'),
                       ('mean_relative_ce', 'mean relative CE')):
        if key in first:
            add(title, lambda m, key=key: m[key])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join('  '.join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width)
                               in enumerate(zip(row, widths))) for row in rows)


def as_csv(result: dict[str, Any]) -> str:
    """One line a classifier, corruption and severity."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(('model', 'condition', 'severity', 'top1'))
    for name, model in result['models'].items():
        if 'clean' in model:
            writer.writerow((name, 'clean', 0, f'{model["clean"]:.4f}'))
        if 'top1' in model:
            writer.writerow((name, result['suite'], 0, f'{model["top1"]:.4f}'))
        for corruption, values in model.get('accuracy', {}).items():
            writer.writerows((name, corruption, severity, f'{value:.4f}')
                             for severity, value in zip(model['severities'], values))
    return out.getvalue()
