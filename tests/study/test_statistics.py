"""Paired comparisons, Holm's correction, and the verdict in words, on results worked out by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mmkp.study.statistics import Comparison, compare_family, holm, over_seeds
from mmkp.study.verdict import Finding, Judged, best_of, find, sentence, verdict

GROUPS = np.repeat([f"g{i}" for i in range(20)], 4)


def errors(ratio: float, noise: float, seeds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A reference's errors and those of an arm `ratio` times as large on average, by seed and item."""
    rng = np.random.default_rng(5)
    base = rng.uniform(0.04, 0.06, (seeds, len(GROUPS)))
    return base * ratio + rng.normal(0, noise, base.shape), base


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, and never below the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_effect_sizes_by_hand():
    """Five groups of one item: differences -1 -2 -3 -2 -2 have mean -2 and standard deviation sqrt(1/2)."""
    base = np.array([[4.0, 5, 6, 5, 5]])
    found = compare_family(np.array(list("abcde")), [(base - [1, 2, 3, 2, 2], base)])[0]
    assert found.mean == 3.0
    assert found.base == 5.0
    assert found.ratio == pytest.approx(0.6)
    assert found.difference == pytest.approx(-2.0)
    assert found.dz == pytest.approx(-2 / np.sqrt(0.5))
    assert (found.seeds_better, found.seeds) == (1, 1)
    assert found.difference_ci95 is not None
    assert -3 <= found.difference_ci95[0] < -2 < found.difference_ci95[1] <= -1


def test_intervals_are_over_groups_not_items():
    """Equal items within a group add nothing: the interval is that of 20 values."""
    rng = np.random.default_rng(0)
    base, change = rng.uniform(1, 2, 20), rng.normal(0, 0.1, 20)
    few = compare_family(np.arange(20).astype(str), [((base + change)[None], base[None])])[0]
    fourfold = [(np.repeat(base + change, 4)[None], np.repeat(base, 4)[None])]
    many = compare_family(np.repeat(np.arange(20).astype(str), 4), fourfold)[0]
    assert many.difference_ci95 == pytest.approx(few.difference_ci95)
    assert many.p == few.p


def test_the_correction_can_find_something_in_a_large_family():
    """Of 60 tests, with 10,000 draws the least p after Holm would be 0.012: there are more draws."""
    pairs = [errors(0.8, 0.001, 1)] * 60
    assert max(c.p_holm or 1 for c in compare_family(GROUPS, pairs)) < 0.01


def test_few_groups_promise_no_more_than_their_signs_do():
    """Of 5 groups that all gain, 2 of the 32 ways to exchange both errors differ as much; of 8, 2 of 256."""
    for groups, p in ((5, 2 / 32), (8, 2 / 256), (12, 2 / 4096)):
        base = np.random.default_rng(groups).uniform(1, 2, (1, groups))
        gains = base - np.linspace(0.1, 0.3, groups)
        found = compare_family(np.arange(groups).astype(str), [(gains, base)])[0]
        assert found.p == pytest.approx(max(p, 2 / 10_001))


def test_signs_are_flipped_by_hand():
    """Differences 1 1 1 1 1 -3 sum to 2: of 64 ways those with |sum| of 2 or more; a sum is even."""
    gaps = np.array([1.0, 1, 1, 1, 1, -3])
    sums = [abs(sum(g * s for g, s in zip(gaps, signs, strict=True))) for signs in product((1, -1), repeat=6)]
    base = np.full((1, 6), 10.0)
    found = compare_family(np.array(list("abcdef")), [(base + gaps, base)])[0]
    assert found.p == pytest.approx(np.mean([s >= 2 for s in sums]), rel=0.35)  # the bootstrap's may be larger
    assert found.p >= np.mean([s >= 2 for s in sums])


def test_chance_is_seldom_taken_for_a_difference_however_few_the_groups():
    """Of 300 comparisons without a difference about 3 have p < 0.01; the bootstrap alone has 15 of 8 groups."""
    rng = np.random.default_rng(0)
    for groups in (8, 20):
        base = np.full((1, groups), 10.0)
        pairs = [(base + rng.normal(0, 1, (1, groups)), base) for _ in range(300)]
        found = compare_family(np.arange(groups).astype(str), pairs, alpha=0.5)
        assert np.mean([c.p is not None and c.p < 0.01 for c in found]) < 0.025


def test_no_difference_is_not_found():
    value, base = errors(1.0, 0.004)
    found = compare_family(GROUPS, [(value, base)] * 3)
    assert all(c.p_holm is not None and c.p_holm > 0.05 for c in found)


def test_items_that_only_one_knows_are_left_out():
    base = np.array([[1.0, 1, 1, 1, 1, 9]])
    value = np.array([[2.0, 2, 2, 2, 2, np.nan]])
    found = compare_family(np.array(list("abcdef")), [(value, base)])[0]
    assert (found.ratio, found.groups) == (2.0, 5)
    nothing = compare_family(np.array(list("abcdef")), [(value * np.nan, base)])[0]
    assert nothing.ratio is None
    assert "no item" in nothing.reason
    assert over_seeds(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()[0] == 2.0


def test_two_groups_have_no_interval_but_a_reason():
    value, base = errors(0.5, 0.0001)
    found = compare_family(np.where(np.arange(len(GROUPS)) < 40, "a", "b"), [(value, base)])[0]
    assert found.ratio == pytest.approx(0.5, abs=0.01)
    assert (found.ratio_ci95, found.p, found.p_holm) == (None, None, None)
    assert found.reason == "2 groups; a test needs at least 5"


@pytest.mark.parametrize(
    ("ratio", "noise", "finding", "words"),
    [
        (0.8, 0.002, Finding.HELPS, "helps, 20 % less error"),
        (0.98, 0.0002, Finding.HELPS, "may be smaller than matters"),
        (1.3, 0.002, Finding.HARMS, "harms, 30 % more error"),
        (1.0, 0.001, Finding.DOES_NOT, "does not help: a gain of 5 % or more is ruled out"),
        (1.0, 0.05, Finding.CANNOT_TELL, "is possible"),
    ],
)
def test_findings(ratio, noise, finding, words):
    found = compare_family(GROUPS, [errors(ratio, noise)])[0]
    assert find(found) is finding
    said = sentence(Judged("gated", "covered", "lips", found, find(found)), "image")
    assert words in said
    assert f"ratio {found.ratio:.3f} [" in said
    assert "of 3 seeds" in said


@pytest.mark.parametrize(
    ("gains", "loses", "finding"),
    [(0.9, 1.05, Finding.CANNOT_TELL), (0.99, 1.08, Finding.DOES_NOT)],
    ids=["a gain that matters", "no seed gains what matters"],
)
def test_seeds_that_disagree(gains, loses, finding):
    """Significant over the groups, but one of two seeds says the opposite."""
    value, base = errors(gains, 0.0001, 2)
    value[1] = base[1] * loses
    found = compare_family(GROUPS, [(value, base)])[0]
    assert found.p_holm is not None
    assert found.p_holm < 0.01
    assert (found.seeds_better, find(found)) == (1, finding)
    assert found.lowest_seed == pytest.approx(gains, abs=0.002)
    said = sentence(Judged("a", "clear", "lips", found, finding), "image")
    assert ("the seeds disagree" in said) == (finding is Finding.CANNOT_TELL)


def test_a_seed_that_gains_is_not_ruled_out_whatever_p_says():
    """Nothing significant, an interval about 1, but one seed has 8 % less error."""
    plain = {"ratio_ci95": (0.997, 1.025), "p": 0.1, "p_holm": 0.4, "seeds": 3, "seeds_better": 1}
    found = Comparison(0.0351, 0.0347, 1.011, 120, lowest_seed=0.92, **plain)
    assert find(found) is Finding.CANNOT_TELL
    said = sentence(Judged("a", "c", "p", found, find(found)), "b")
    assert "cannot tell: the seeds disagree, one has 8 % less;" in said
    assert find(Comparison(0.0351, 0.0347, 1.011, 120, lowest_seed=0.96, **plain)) is Finding.DOES_NOT


def test_seeds_that_agree_are_not_blamed_for_what_the_correction_takes():
    """Interval below 1, both seeds lower, but a p of 0.02 after correction."""
    plain = {"ratio_ci95": (0.9, 0.98), "p": 0.004, "p_holm": 0.02, "seeds": 2}
    agreed = Comparison(0.047, 0.05, 0.94, 20, seeds_better=2, **plain)
    assert find(agreed) is Finding.CANNOT_TELL
    said = sentence(Judged("a", "c", "p", agreed, find(agreed)), "b")
    assert "cannot tell: not significant after correction;" in said
    split = Comparison(0.047, 0.05, 0.94, 20, seeds_better=1, **plain)
    assert "cannot tell: the seeds disagree;" in sentence(Judged("a", "c", "p", split, find(split)), "b")


def test_only_the_seeds_that_know_both_are_averaged():
    """Item 0 is 9 in the arm's second seed, where the reference does not know it: it says nothing."""
    value = np.array([[1.0, 1, 1, 1, 1], [9.0, 1, 1, 1, 1]])
    base = np.array([[2.0, 2, 2, 2, 2], [np.nan, 2, 2, 2, 2]])
    found = compare_family(np.array(list("abcde")), [(value, base)])[0]
    assert (found.mean, found.base, found.seeds_better, found.seeds) == (1.0, 2.0, 2, 2)
    none = compare_family(np.array(list("abcde")), [(value[:0], base[:0])])[0]
    assert (none.ratio, none.reason) == (None, "no seed in common")


def judged(
    arm: str, ratio: float, finding: Finding, condition: str = "covered", reason: str = "",
    shared: tuple[int, ...] = (), asked: int = 0,
) -> Judged:  # fmt: skip
    known = {} if reason else {"ratio_ci95": (ratio - 0.02, ratio + 0.02), "p": 0.001, "p_holm": 0.002}
    seeds = {"seeds_better": len(shared), "seeds": len(shared)}
    found = Comparison(0.05 * ratio, 0.05, ratio, 2 if reason else 20, reason=reason, **known, **seeds)
    return Judged(arm, condition, "lips", found, finding, shared, asked)


def test_the_verdict_says_yes_and_names_the_best():
    rows = [judged("a", 0.9, Finding.HELPS), judged("b", 0.8, Finding.HELPS), judged("c", 1.2, Finding.HARMS)]
    rows.append(judged("a", 1.0, Finding.DOES_NOT, "clear"))
    lines = verdict(rows, "image")
    assert lines[0] == "**covered, lips: yes, fusion helps, b most (of 3 fusions: 2 help, 1 harms).**"
    assert [line.split(":")[0] for line in lines[1:4]] == ["- b", "- a", "- c"]
    assert lines[4].startswith("**clear, lips: no, fusion does not help (of 1 fusion: 1 does not help)")


@pytest.mark.parametrize(
    ("findings", "answer"),
    [
        ([Finding.HARMS, Finding.HARMS], "no, fusion harms"),
        ([Finding.DOES_NOT, Finding.HARMS], "no, fusion does not help"),
        ([Finding.DOES_NOT, Finding.CANNOT_TELL], "no gain shown, and not ruled out either"),
    ],
)
def test_the_verdict_when_the_answer_is_no(findings, answer):
    rows = [judged(f"a{i}", 1.1, f) for i, f in enumerate(findings)]
    assert f"lips: {answer} (" in verdict(rows, "image")[0]


def test_the_verdict_cannot_tell_of_too_few_groups():
    reason = "2 groups; a test needs at least 5"
    lines = verdict([judged("a", 0.5, Finding.CANNOT_TELL, reason=reason)], "image")
    assert f"cannot tell, {reason} (of 1 fusion" in lines[0]
    assert f"a: cannot tell, {reason}; error" in lines[1]
    assert "p =" not in lines[1]
    assert "nothing to compare" in verdict([], "image")[0]


def test_an_unfinished_study_has_a_provisional_verdict():
    rows = [judged("a", 0.9, Finding.HELPS, shared=(0, 1), asked=3)]
    lines = verdict(rows, "image", lacking={"a": (2, 3), "b": (0, 3)})
    assert lines[0] == "**Provisional: not all seeds have results (a: 2 of 3, b: 0 of 3).**"
    assert lines[1] == ""
    assert "lower with 2 of 2 seeds run, 3 asked" in lines[3]
    assert verdict([], "image", lacking={"b": (0, 3)})[0].startswith("**Provisional: ")
    finished = judged("a", 0.9, Finding.HELPS, shared=(0, 1, 2), asked=3)
    assert sentence(finished, "image").endswith("lower with 3 of 3 seeds.")
    assert "Provisional" not in verdict([finished], "image")[0]


def test_the_best_is_named_among_arms_of_the_same_seeds():
    rows = [judged("lucky", 0.5, Finding.HELPS, shared=(0,)), judged("b", 0.8, Finding.HELPS, shared=(0, 1))]
    rows += [judged("c", 0.9, Finding.HELPS, shared=(0, 1)), judged("d", 0.7, Finding.HELPS, shared=(1, 2))]
    best = best_of(rows)
    assert best is not None
    assert best.arm == "b"
    lines = verdict(rows, "image")
    assert "fusion helps, b most of those with seeds 0, 1 (of 4 fusions" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == ["- d", "- b", "- c", "- lucky"]
    rows[1:] = [judged("b", 1.1, Finding.HARMS, shared=(0, 1))]  # only an arm of fewer seeds helps
    assert best_of(rows) is None
    assert "yes, fusion helps (of 2 fusions: 1 helps, 1 harms)" in verdict(rows, "image")[0]
