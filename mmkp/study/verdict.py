"""The verdict in words, from the numbers alone: does fusion help, where and by how much; also when it does not.

The rules: a fusion *helps* or *harms* when the corrected p is below alpha and every seed says the same; it *does not
help* when the interval of the ratio leaves no room for a gain that matters (below 1 - margin), nor has any seed one;
with fewer than five groups, seeds that disagree, or an interval that leaves room for both, nobody
*can tell*. Only arms that were judged on the same seeds are ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmkp.study.statistics import Comparison


class Finding(StrEnum):
    """What a comparison says."""

    HELPS = "helps"
    DOES_NOT = "does not help"
    HARMS = "harms"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Judged:
    """A fusion under a condition, for a part of the keypoints.

    Attributes:
        shared: the seeds that it and the reference both have.
        asked: seeds that the study asks for; 0 is unknown.
    """

    arm: str
    condition: str
    part: str
    found: Comparison
    finding: Finding
    shared: tuple[int, ...] = ()
    asked: int = 0


def find(found: Comparison, alpha: float = 0.01, margin: float = 0.05) -> Finding:
    """What a comparison with the reference says.

    Args:
        alpha: that `p_holm` is held against.
        margin: a ratio within 1 +- margin is no difference that matters.
    """
    if found.p_holm is None or found.ratio is None or found.ratio_ci95 is None:
        return Finding.CANNOT_TELL
    if found.p_holm < alpha and found.seeds_better in (0, found.seeds):
        return Finding.HELPS if found.ratio < 1 else Finding.HARMS
    # what an interval over groups cannot see: another seed, another answer
    lowest = found.ratio_ci95[0] if found.lowest_seed is None else min(found.ratio_ci95[0], found.lowest_seed)
    return Finding.DOES_NOT if lowest >= 1 - margin else Finding.CANNOT_TELL


def sentence(judged: Judged, reference: str, margin: float = 0.05) -> str:
    """One comparison in words, with its numbers."""
    c, what = judged.found, judged.arm
    if c.ratio is None or c.mean is None or c.base is None:
        return f"{what}: cannot tell, {c.reason or 'it was not measured'}."
    numbers = f"error {c.mean:.4f} against {c.base:.4f} of {reference}, ratio {c.ratio:.3f}"
    seeds = f", lower with {_of_seeds(c, judged.asked)}"
    if c.ratio_ci95 is None or c.p_holm is None:
        return f"{what}: cannot tell, {c.reason}; {numbers}, without an interval{seeds}."
    low, high = c.ratio_ci95
    numbers += f" [{low:.3f}, {high:.3f}], p {_p(c.p_holm)} after correction"
    numbers += f", dz = {c.dz:.2f}" if c.dz is not None else ""
    numbers += seeds
    percent = abs(1 - c.ratio) * 100
    words = {
        Finding.HELPS: f"helps, {percent:.0f} % less error" if percent >= 1 else "helps, by less than 1 %",
        Finding.HARMS: f"harms, {percent:.0f} % more error" if percent >= 1 else "harms, by less than 1 %",
        Finding.DOES_NOT: f"does not help: a gain of {margin * 100:.0f} % or more is ruled out",
        Finding.CANNOT_TELL: f"cannot tell: from {_change(low)} to {_change(high)} is possible",
    }[judged.finding]
    if judged.finding is Finding.CANNOT_TELL and not low <= 1 <= high:
        agree = c.seeds_better in (0, c.seeds)
        words = f"cannot tell: {'not significant after correction' if agree else 'the seeds disagree'}"
    if judged.finding is Finding.CANNOT_TELL and low >= 1 - margin and c.lowest_seed is not None:
        agree = c.seeds_better in (0, c.seeds)
        words = f"cannot tell: {'' if agree else 'the seeds disagree, '}one has {_change(c.lowest_seed)}"
    small = judged.finding is Finding.HELPS and high > 1 - margin
    return f"{what}: {words}{' (the gain may be smaller than matters)' if small else ''}; {numbers}."


def provisional(lacking: Mapping[str, tuple[int, int]]) -> str:
    """What is said before a verdict on a study that is not finished.

    Args:
        lacking: arm -> seeds with results, seeds asked for.
    """
    arms = ", ".join(f"{arm}: {have} of {asked}" for arm, (have, asked) in lacking.items())
    return f"**Provisional: not all seeds have results ({arms}).**"


def verdict(
    rows: Sequence[Judged], reference: str, margin: float = 0.05, lacking: Mapping[str, tuple[int, int]] | None = None
) -> list[str]:
    """The verdict, a line per condition and one per fusion below it.

    Args:
        rows: of one part; all fusions under all conditions, the most important condition first.
        reference: what they are compared with.
        lacking: arm -> seeds with results, seeds asked for, where the verdict waits for some; it is then provisional.
    """
    lines = [provisional(lacking), ""] if lacking else []
    if not rows:
        return [*lines, "Cannot tell: no fusion has finished, or nothing to compare it with has."]
    for condition in dict.fromkeys(r.condition for r in rows):
        here = [r for r in rows if r.condition == condition]
        where = f"{condition}, {'all keypoints' if here[0].part == 'all' else here[0].part}"
        lines.append(f"**{where}: {_answer(here)}**")
        lines += [f"- {sentence(r, reference, margin)}" for r in sorted(here, key=_rank)]
    return lines


def best_of(rows: Sequence[Judged]) -> Judged | None:
    """The fusion that helps most under a condition, of those that share most seeds, the same ones, with the reference.

    Where two sets of seeds are as large, the one that more fusions have; where those are as many too, the first's.
    """
    return min((r for r in _comparable(rows) if r.finding is Finding.HELPS), key=_rank, default=None)


def _comparable(rows: Sequence[Judged]) -> list[Judged]:
    sets = [r.shared for r in rows]
    most = max(sets, key=lambda s: (len(s), sets.count(s)), default=())
    return [r for r in rows if r.shared == most]


def _rank(row: Judged) -> tuple[int, float]:
    """Most seeds first, then the lowest ratio."""
    return -len(row.shared), float("inf") if row.found.ratio is None else row.found.ratio


def _answer(rows: Sequence[Judged]) -> str:
    count = {f: sum(r.finding is f for r in rows) for f in Finding}
    tally = ", ".join(f"{n} {_plural(f, n)}" for f, n in count.items() if n)
    of = f"of {len(rows)} fusion{'s' * (len(rows) > 1)}: {tally}"
    if count[Finding.HELPS]:
        best = best_of(rows)
        named = "" if best is None else f", {best.arm} most"
        if best is not None and len(_comparable(rows)) < len(rows):
            named += f" of those with seed{'s' * (len(best.shared) > 1)} {', '.join(map(str, best.shared))}"
        return f"yes, fusion helps{named} ({of})."
    if count[Finding.CANNOT_TELL]:
        reasons = [r.found.reason for r in rows]
        if all(reasons):
            return f"cannot tell, {'; '.join(dict.fromkeys(reasons))} ({of})."
        return f"no gain shown, and not ruled out either ({of})."
    if count[Finding.HARMS] == len(rows):
        return f"no, fusion harms ({of})."
    return f"no, fusion does not help ({of})."


def _of_seeds(found: Comparison, asked: int) -> str:
    if found.seeds < asked:
        return f"{found.seeds_better} of {found.seeds} seeds run, {asked} asked"
    return f"{found.seeds_better} of {found.seeds} seed{'s' * (found.seeds != 1)}"


def _plural(finding: Finding, count: int) -> str:
    one = {"helps": "help", "does not help": "do not help", "harms": "harm", "cannot tell": "cannot tell"}
    return one[finding] if count > 1 else str(finding)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _change(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"{abs(percent):.0f} % {'less' if percent < 0 else 'more'}"
