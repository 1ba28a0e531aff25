"""The verdict in words, from the numbers alone: does fusion help, where and by how much; also when it does not.

The rules: a fusion *helps* or *harms* when the corrected p is below alpha and every seed says the same; it *does not
help* when the interval of the ratio leaves no room for a gain that matters (below 1 - margin);
with fewer than five groups, seeds that disagree, or an interval that leaves room for both, nobody *can tell*.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """A fusion under a condition, for a part of the keypoints."""

    arm: str
    condition: str
    part: str
    found: Comparison
    finding: Finding


def find(found: Comparison, alpha: float = 0.01, margin: float = 0.05) -> Finding:
    """What a comparison with the reference says.

    Args:
        alpha: that `p_holm` is held against.
        margin: a ratio within 1 +- margin is no difference that matters.
    """
    if found.p_holm is None or found.ratio is None or found.ratio_ci95 is None:
        return Finding.CANNOT_TELL
    if found.p_holm < alpha:
        if found.seeds_better not in (0, found.seeds):
            return Finding.CANNOT_TELL  # what the bootstrap over groups cannot see: another seed, another answer
        return Finding.HELPS if found.ratio < 1 else Finding.HARMS
    return Finding.DOES_NOT if found.ratio_ci95[0] >= 1 - margin else Finding.CANNOT_TELL


def sentence(judged: Judged, reference: str, margin: float = 0.05) -> str:
    """One comparison in words, with its numbers."""
    c, what = judged.found, judged.arm
    if c.ratio is None or c.mean is None or c.base is None:
        return f"{what}: cannot tell, {c.reason or 'it was not measured'}."
    numbers = f"error {c.mean:.4f} against {c.base:.4f} of {reference}, ratio {c.ratio:.3f}"
    if c.ratio_ci95 is None or c.p_holm is None:
        return f"{what}: cannot tell, as there are too few groups ({c.reason}); {numbers}, without an interval."
    low, high = c.ratio_ci95
    numbers += f" [{low:.3f}, {high:.3f}], p {_p(c.p_holm)} after correction"
    numbers += f", dz = {c.dz:.2f}" if c.dz is not None else ""
    numbers += f", lower with {c.seeds_better} of {c.seeds} seeds" if c.seeds > 1 else ""
    percent = abs(1 - c.ratio) * 100
    words = {
        Finding.HELPS: f"helps, {percent:.0f} % less error" if percent >= 1 else "helps, by less than 1 %",
        Finding.HARMS: f"harms, {percent:.0f} % more error" if percent >= 1 else "harms, by less than 1 %",
        Finding.DOES_NOT: f"does not help: a gain of {margin * 100:.0f} % or more is ruled out",
        Finding.CANNOT_TELL: f"cannot tell: from {_change(low)} to {_change(high)} is possible",
    }[judged.finding]
    if judged.finding is Finding.CANNOT_TELL and not low <= 1 <= high:
        words = "cannot tell: the seeds disagree"
    small = judged.finding is Finding.HELPS and high > 1 - margin
    return f"{what}: {words}{' (the gain may be smaller than matters)' if small else ''}; {numbers}."


def verdict(rows: Sequence[Judged], reference: str, margin: float = 0.05) -> list[str]:
    """The verdict, a line per condition and one per fusion below it.

    Args:
        rows: of one part; all fusions under all conditions, the most important condition first.
        reference: what they are compared with.
    """
    if not rows:
        return ["Cannot tell: no fusion has finished, or nothing to compare it with has."]
    lines = []
    for condition in dict.fromkeys(r.condition for r in rows):
        here = [r for r in rows if r.condition == condition]
        where = f"{condition}, {'all keypoints' if here[0].part == 'all' else here[0].part}"
        lines.append(f"**{where}: {_answer(here)}**")
        order = sorted(here, key=lambda r: float("inf") if r.found.ratio is None else r.found.ratio)
        lines += [f"- {sentence(r, reference, margin)}" for r in order]
    return lines


def _answer(rows: Sequence[Judged]) -> str:
    count = {f: sum(r.finding is f for r in rows) for f in Finding}
    tally = ", ".join(f"{n} {_plural(f, n)}" for f, n in count.items() if n)
    of = f"of {len(rows)} fusion{'s' * (len(rows) > 1)}: {tally}"
    if count[Finding.HELPS]:
        best = min((r for r in rows if r.finding is Finding.HELPS), key=lambda r: r.found.ratio or 1)
        return f"yes, fusion helps, {best.arm} most ({of})."
    if count[Finding.CANNOT_TELL]:
        if all(r.found.reason for r in rows):
            return f"cannot tell, there are too few groups ({of})."
        return f"no gain shown, and not ruled out either ({of})."
    if count[Finding.HARMS] == len(rows):
        return f"no, fusion harms ({of})."
    return f"no, fusion does not help ({of})."


def _plural(finding: Finding, count: int) -> str:
    one = {"helps": "help", "does not help": "do not help", "harms": "harm", "cannot tell": "cannot tell"}
    return one[finding] if count > 1 else str(finding)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _change(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"{abs(percent):.0f} % {'less' if percent < 0 else 'more'}"
