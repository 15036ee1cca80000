# SPDX-License-Identifier: Apache-2.0
"""Paired comparisons of two models on the same images."""
import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from milan_mm import MilanError
from milan_mm.evaluation import paired
from milan_mm.evaluation.hits import hits_path, read_hits, write_hits
from milan_mm.evaluation.paired import Scores, compare, evidence, mean_interval, sign_test


def scores(values, names=None):
    return Scores(names or [f'{i:04d}' for i in range(len(values))], np.asarray(values))


def four_cells(both, ours, theirs, neither):
    """Two models by how many images both, one, or none of them had right."""
    mine = [1] * both + [1] * ours + [0] * theirs + [0] * neither
    other = [1] * both + [0] * ours + [1] * theirs + [0] * neither
    return scores(mine), scores(other)


def test_one_run_of_single_images_is_mcnemars_exact_test():
    ours, theirs = four_cells(40, 21, 8, 31)
    found = compare([ours], [theirs])
    assert found.difference == pytest.approx(13) and found.verdict == 'ahead'
    assert found.p == pytest.approx(binomtest(21, 29).pvalue)
    assert found.test == "McNemar's exact test" and (found.images, found.groups) == (100, 100)
    # The bootstrap's interval is that of the paired differences' standard error.
    error = 100 * np.std([1] * 21 + [-1] * 8 + [0] * 71) / 10
    assert found.low == pytest.approx(13 - 1.96 * error, abs=.7)
    assert found.high == pytest.approx(13 + 1.96 * error, abs=.7)
    assert compare([theirs], [ours]).verdict == 'behind'
    assert compare([ours], [ours]).p == 1 and compare([ours], [ours]).verdict == 'level'


def test_pairing_finds_what_unpaired_errors_hide():
    """42.8 against 33.8 % of 179 images: two unpaired standard errors are 10.2 points."""
    ours, theirs = four_cells(58, 19, 3, 99)
    found = compare([ours], [theirs])
    shares = [np.mean(one.values) for one in (ours, theirs)]
    assert found.difference < 200 * np.sqrt(sum(p * (1 - p) for p in shares) / 179)
    assert found.verdict == 'ahead' and found.low > 0


def test_signs_of_groups_are_flipped_exactly():
    differences = np.array([3, -1, 2, 2, 0, 1, -2, 4, 1])
    sums = [abs(sum(s * d for s, d in zip(signs, differences)))
            for signs in itertools.product((1, -1), repeat=len(differences))]
    assert sign_test(differences) == pytest.approx(np.mean(np.array(sums) >= 10))
    reference = permutation_test((differences, ), np.sum, permutation_type='samples',
                                 n_resamples=np.inf)
    assert sign_test(differences) == pytest.approx(reference.pvalue)
    assert sign_test(np.zeros(5)) == 1 and sign_test(np.array([2., 2, 2, 2, 2])) == 2 / 32


def test_alike_images_of_a_group_are_no_evidence_of_their_own():
    """The same answers for four renders of each thing say what one render says."""
    ours, theirs = four_cells(20, 9, 2, 9)
    alone = compare([ours], [theirs])
    names = [f'{name}_{render}' for render in range(4) for name in ours.names]
    four = [Scores(names, np.tile(one.values, 4)) for one in (ours, theirs)]
    grouped = compare([four[0]], [four[1]], lambda name: name.split('_')[0])
    assert (grouped.images, grouped.groups) == (160, 40)
    assert grouped.p == pytest.approx(alone.p) and 'over groups' in grouped.test
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=.01)
    assert compare([four[0]], [four[1]]).p < alone.p / 100  # what is wrong without groups


def test_several_runs_count_their_own_spread():
    rng = np.random.default_rng(0)
    base = [scores(rng.random(300) < .4) for _ in range(3)]

    def better_by(*shares):
        return [scores(one.values | (rng.random(300) < share))
                for one, share in zip(base, shares)]

    steady, shaky = (compare(better_by(*s), base) for s in ((.1, .1, .1), (.3, .0, .0)))
    assert steady.runs == 3 and steady.verdict == 'ahead' and 'runs' in steady.test
    assert shaky.high - shaky.low > 1.5 * (steady.high - steady.low)
    assert shaky.verdict == 'level'


def test_runs_may_have_other_images_and_only_common_ones_count():
    first = scores([1, 0, 1], ['a', 'b', 'c']), scores([0, 0, 1], ['c', 'b', 'a'])
    second = scores([1, 1], ['d', 'e']), scores([0, 1, 1], ['d', 'e', 'f'])
    found = compare([first[0], second[0]], [first[1], second[1]])
    assert found.difference == pytest.approx((100 / 3 + 50) / 2) and found.groups == 5
    assert compare([scores([1], ['a'])], [scores([1], ['b'])]) is None
    assert compare([scores([1], ['a'])], [scores([0], ['a'])]).low is None  # one group alone


def test_intervals_of_a_model_alone():
    low, high = mean_interval([scores([1] * 40 + [0] * 60)])
    assert (low, high) == pytest.approx((30.4, 49.6), abs=1)
    halves = mean_interval([scores([1] * 40 + [0] * 60)], lambda name: name[:3])
    assert halves[1] - halves[0] > 1.5 * (high - low)
    assert mean_interval([scores([1, 0])], lambda name: 'all') is None
    assert mean_interval([scores([1] * 40 + [0] * 60)]) == (low, high)  # drawn alike each time


def test_memory_of_many_images_is_bounded(monkeypatch):
    monkeypatch.setattr(paired, '_NUMBERS', 1000)
    sizes = [runs.shape[0] for runs, _ in paired.bootstrap_weights(1, 300, 0, 10)]
    assert sum(sizes) == 10 and max(sizes) == 3


def test_words():
    assert evidence(-1.23, 7.4, .161) == '95 % interval -1.2 to +7.4, p = 0.16'
    assert evidence(1, 7, .0002) == '95 % interval +1.0 to +7.0, p < 0.001'
    assert evidence(None, None, .0123) == 'p = 0.012'


def test_hits_come_back_and_nothing_else_is_loaded(tmp_path):
    path = hits_path(tmp_path / 'eval.json')
    assert path.name == 'eval.hits.npz'
    write_hits(path, dict(names=['a/ü.png', 'b/x.png'], classes=['a', 'b'], labels=[0, 1],
                          knn=[0, 0], **{'shift.knn': [-1, 1]}))
    found = read_hits(path)
    assert list(found['knn'].names) == ['a/ü.png', 'b/x.png']
    assert found['knn'].values.tolist() == [True, False]
    assert list(found['shift.knn'].names) == ['b/x.png'] and found['shift.knn'].values.all()
    np.savez(tmp_path / 'pickled.npz', names=np.array([{}], dtype=object), labels=np.zeros(1))
    (tmp_path / 'text.npz').write_text('no archive')
    for name in ('pickled', 'text', 'missing'):
        with pytest.raises(MilanError, match='milan eval --out'):
            read_hits(tmp_path / f'{name}.npz')
