# SPDX-License-Identifier: Apache-2.0
"""Whether one model names more images correctly than another: paired, as both saw the same ones.

Two accuracies over the same images share what makes images easy or hard, so the difference is
known better than either of them. Images of one group (renders of one drawing, frames of one video)
are not independent: what is resampled, and what has a sign, is the group.
"""
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # of intervals
ALPHA = 0.05  # a difference with a smaller p is said to be one
REPLICATES = 4000
_NUMBERS = 1 << 22  # of the bootstrap's weights at a time


class Scores(NamedTuple):
    """What a model made of each image, in one run.

    Attributes:
        names: of the images, each once.
        values: (n,) for each image 1 if it was right and 0 if not, or a score.
    """
    names: Sequence[str]
    values: np.ndarray


class Comparison(NamedTuple):
    """A model against another on the same images.

    Attributes:
        difference: mean over runs of what ours scores more, in points (hundredths).
        low, high: 95 % interval of it, by the bootstrap over groups, and runs if several; None
            with fewer than 2 groups.
        p: two-sided, that no difference is there.
        test: by which test, in words.
        images: in a run.
        groups: of images, over all runs.
        runs: that were compared.
    """
    difference: float
    low: float | None
    high: float | None
    p: float
    test: str
    images: int
    groups: int
    runs: int

    @property
    def verdict(self) -> str:
        """'ahead', 'behind' or 'level'."""
        return verdict(self.difference, self.p)


def verdict(difference: float, p: float) -> str:
    """'ahead', 'behind', or 'level' where chance may have made the difference."""
    if p >= ALPHA or not difference:
        return 'level'
    return 'ahead' if difference > 0 else 'behind'


def compare(ours: Sequence[Scores], theirs: Sequence[Scores],
            group_of: Callable[[str], str] | None = None, seed: int = 0) -> Comparison | None:
    """Compares two models, run by run and image by image.

    One run: the exact test of McNemar, or where groups hold several images its generalisation,
    the exact test that flips the signs of the groups' differences. Several: the share of bootstrap
    samples, over runs and groups, on the other side of 0.

    Args:
        ours, theirs: of each run, in the same order. Images that only one has are left out.
        group_of: from the name of an image to its group; None takes each for itself.
        seed: of the bootstrap.

    Returns:
        The comparison; None if there is no image that both have.
    """
    pairs = [_common(mine, other) for mine, other in zip(ours, theirs)]
    if not pairs or not all(pair.names for pair in pairs):
        return None
    table = Table.of(pairs, group_of)
    replicates = table.bootstrap(seed)
    low, high = table.interval(replicates)
    singles = table.counts.sum() == (table.counts > 0).sum()
    if len(pairs) > 1:
        p, test = bootstrap_p(replicates), 'bootstrap over runs and groups'
    else:
        signs = table.sums[0]
        p, test = sign_test(signs), 'McNemar\'s exact test' if singles else (
            'exact sign-flip test over groups')
    return Comparison(table.mean(), low, high, p, test, int(table.counts[0].sum()),
                      table.counts.shape[1], len(pairs))


def mean_interval(runs: Sequence[Scores], group_of: Callable[[str], str] | None = None,
                  seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of a model's mean score, in percent, by the same bootstrap.

    None where there are fewer than 2 groups.
    """
    if not runs or not all(len(run.names) for run in runs):
        return None
    table = Table.of(runs, group_of)
    low, high = table.interval(table.bootstrap(seed))
    return None if low is None or high is None else (low, high)


class Table(NamedTuple):
    """Scores added up by run and group.

    Attributes:
        sums: (runs, groups).
        counts: (runs, groups) of images; 0 where a run had none of a group.
    """
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Scores], group_of: Callable[[str], str] | None) -> 'Table':
        """Of the scores of runs."""
        names = [[group_of(name) for name in run.names] if group_of else run.names for run in runs]
        number = {group: i for i, group in enumerate(sorted({g for row in names for g in row}))}
        sums, counts = np.zeros((2, len(runs), len(number)))
        for i, (run, groups) in enumerate(zip(runs, names)):
            column = [number[group] for group in groups]
            np.add.at(sums[i], column, run.values)
            np.add.at(counts[i], column, 1)
        return cls(sums, counts)

    def mean(self) -> float:
        """Mean over runs of their means, in percent."""
        return float(100 * (self.sums.sum(axis=1) / self.counts.sum(axis=1)).mean())

    def bootstrap(self, seed: int) -> np.ndarray:
        """That mean in so many samples of runs and groups, drawn with replacement."""
        means = []
        number, width = self.counts.shape
        for runs, groups in bootstrap_weights(number, width, seed):
            with np.errstate(invalid='ignore'):  # of a run none of whose groups was drawn
                each = (groups @ self.sums.T) / (groups @ self.counts.T)
            weight = np.where(np.isnan(each), 0, runs)
            means.append((np.nan_to_num(each) * weight).sum(axis=1)
                         / np.maximum(weight.sum(axis=1), 1))
        return 100 * np.concatenate(means)

    def interval(self, replicates: np.ndarray) -> tuple[float | None, float | None]:
        """Of the bootstrap's means; nothing is known of the spread of one group."""
        return percentiles(replicates) if self.counts.shape[1] > 1 else (None, None)


def bootstrap_weights(runs: int, groups: int, seed: int, replicates: int = REPLICATES,
                      ) -> list[tuple[np.ndarray, np.ndarray]]:
    """How often each run and each group is drawn, (r, runs) and (r, groups), a chunk at a time.

    Runs are drawn beside groups, and a group is drawn in all runs alike (Owen's pigeonhole
    bootstrap), so that what is common to a group counts as such.
    """
    rng = np.random.default_rng([seed, runs, groups])
    chunk = max(1, min(replicates, _NUMBERS // groups))
    sizes = [min(chunk, replicates - start) for start in range(0, replicates, chunk)]
    return [(rng.multinomial(runs, np.full(runs, 1 / runs), size),
             rng.multinomial(groups, np.full(groups, 1 / groups), size)) for size in sizes]


def percentiles(replicates: np.ndarray) -> tuple[float, float]:
    """The interval that holds 95 % of the samples."""
    low, high = np.percentile(replicates, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def bootstrap_p(replicates: np.ndarray) -> float:
    """Two-sided, from the share of samples on the other side of 0."""
    side = min((replicates <= 0).sum(), (replicates >= 0).sum())
    return float(min(1.0, 2 * (side + 1) / (len(replicates) + 1)))


def sign_test(differences: np.ndarray) -> float:
    """Exact two-sided p of a sum whose terms might as well have had the other sign.

    Of terms of equal size it is the binomial test, and so McNemar's.

    Args:
        differences: whole numbers, one a group.
    """
    from scipy.stats import binomtest  # slow to import
    sizes = np.abs(np.rint(differences)).astype(int)
    sizes, total = sizes[sizes > 0], int(np.rint(differences).sum())
    if not len(sizes):
        return 1.0
    if sizes.min() == sizes.max():
        return float(binomtest(int((np.asarray(differences) > 0.5).sum()), len(sizes)).pvalue)
    # Distribution of the sum of those with a plus, doubled and shifted to be the signed sum.
    chances = functools.reduce(_or_not, sizes.tolist(), np.ones(1))
    signed = 2 * np.arange(len(chances)) - sizes.sum()
    return float(min(1.0, chances[np.abs(signed) >= abs(total)].sum()))


def _or_not(chances: np.ndarray, size: int) -> np.ndarray:
    """Chances of a sum after one more term, which is ``size`` or 0."""
    longer = np.zeros(len(chances) + size)
    longer[:len(chances)] += chances / 2
    longer[size:] += chances / 2
    return longer


def _common(ours: Scores, theirs: Scores) -> Scores:
    """Differences on the images that both have."""
    place = {name: i for i, name in enumerate(theirs.names)}
    rows = [(i, place[name]) for i, name in enumerate(ours.names) if name in place]
    mine, other = (np.asarray(part.values, float) for part in (ours, theirs))
    return Scores([ours.names[i] for i, _ in rows],
                  np.array([mine[i] - other[j] for i, j in rows]))


def evidence(low: float | None, high: float | None, p: float) -> str:
    """Interval and p in words, such as '95 % interval -1.2 to +7.4, p = 0.16'."""
    chance = 'p < 0.001' if p < 0.001 else f'p = {p:.3f}' if p < 0.1 else f'p = {p:.2f}'
    if low is None or high is None:
        return chance
    return f'95 % interval {low:+.1f} to {high:+.1f}, {chance}'
