"""Right and wrong decisions about keypoints: accuracy, precision, recall and F1 at a threshold, and of visibility."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmkp.metrics.arrays import Array, as_double, namespace


class Counts(NamedTuple):
    """Decisions of each item, (N,) each, and the ratios of them; a ratio is NaN where nothing was to be judged.

    `wrong` counts the points judged wrongly once, where a misplaced point is both a false alarm and a miss.
    """

    true_positive: Any
    false_positive: Any
    false_negative: Any
    true_negative: Any
    wrong: Any

    @property
    def accuracy(self) -> Any:
        """Share of all judged points that are right."""
        right = self.true_positive + self.true_negative
        return _ratio(right, right + self.wrong)

    @property
    def precision(self) -> Any:
        """Share of what was detected that is right."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Any:
        """Share of what is there that was found."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> Any:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)


def detection_counts(
    scores: Float[Array, "N K"],
    errors: Float[Array, "N K"],
    present: Bool[Array, "N K"],
    score_threshold: float,
    error_threshold: float,
    judged: Bool[Array, "N K"] | None = None,
) -> Counts:
    """Keypoints as a detector's output: detected where score >= threshold, right where error <= threshold.

    Args:
        scores: NaN is not detected.
        errors: of `normalized_errors` (or in px); NaN is not right.
        present: the point is in the picture.
        score_threshold: in the unit of scores.
        error_threshold: in the unit of errors.
        judged: False leaves a point out. COCO's v = 0 says "not there" and "not annotated" with one word: with such
            labels give `visible > 0` for both, and precision then speaks of annotated points only.
    """
    detected, near = scores >= score_threshold, errors <= error_threshold
    return _counts(detected, present, near, present | True if judged is None else judged)


def visibility_counts(
    predicted_visible: Bool[Array, "N K"], true_visible: Bool[Array, "N K"], judged: Bool[Array, "N K"] | None = None
) -> Counts:
    """Visibility as a decision per keypoint; `judged` False leaves a point out (one without a label)."""
    everywhere = true_visible | True
    return _counts(predicted_visible, true_visible, everywhere, everywhere if judged is None else judged)


def pooled(counts: Counts) -> dict[str, float | None]:
    """Summary: accuracy, precision, recall and f1 of all items' decisions together; None where there was none."""
    whole = Counts(*(as_double(c).sum()[None] for c in counts))
    ratios = {name: float(getattr(whole, name)[0]) for name in ("accuracy", "precision", "recall", "f1")}
    return {name: None if np.isnan(value) else value for name, value in ratios.items()}


def _counts(detected: Any, present: Any, near: Any, judged: Any) -> Counts:
    namespace(detected, present, near, judged)
    right = detected & present & near
    alarm, missed, quiet = detected & ~right, present & ~right, ~detected & ~present
    return Counts(*((part & judged).sum(-1) for part in (right, alarm, missed, quiet, alarm | missed)))


def _ratio(part: Any, whole: Any) -> Any:
    return namespace(part, whole).where(whole > 0, as_double(part) / whole.clip(1), np.nan)
