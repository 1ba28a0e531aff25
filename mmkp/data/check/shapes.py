"""Shapes against the mean shape: outliers, and left/right swapped. Points are complex numbers x + iy here.

A similarity (turn, scale, shift; no mirroring) that takes points z to m is a * z + b with complex a and b, so that all
rows are aligned at once: a = sum w conj(z - z0) (m - m0) / sum w |z - z0|^2 with z0, m0 the weighted means.
Source: Dryden and Mardia, "Statistical Shape Analysis" (2nd ed. 2016), section 8.2 (planar Procrustes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float

from mmkp.data.check.findings import Finding, found
from mmkp.data.check.labels import labelled
from mmkp.data.rows import Row
from mmkp.schema import KeypointSchema

MIN_ROWS = 20  # fewer do not tell what is usual
MIN_POINTS = 4  # three of them and a similarity leave next to nothing to judge
REFERENCES = 16  # rows tried as the first mean; the one that most rows resemble is taken
SAMPLE = 2000  # rows, spread evenly, that tell the mean shape and what is usual
ROUNDS = 6  # of aligning and averaging; the mean no longer moves then
CAUCHY = 2.385  # scale of the Cauchy weights, in robust standard deviations (95 % efficient; Holland and Welsch 1977)
OUTLIER_Z, OUTLIER_LEAST = 6.0, 0.1  # robust standard deviations of log residual; residual in units of the shape's size
SWAP_RATIO, SWAP_LEAST = 0.5, 0.1  # flipped, the residual must halve; and it must be worth halving
SWAP_USUAL = 2.5  # medians: what remains when flipped must be no more than many rows have
ONLY_SOME = "only some pairs"  # how the message of such a finding begins
MIXED = 0.1  # share of swapped rows above which the mean shape itself is in doubt
CROSS_LOG, CROSS_USUAL = 0.1, 0.95  # |log| of same-side over cross-side distances; share of rows that agree on its sign


@dataclass(frozen=True)
class Fit:
    """Rows against the mean shape.

    Attributes:
        mean: (K,) its points, centred, root mean square distance from the centre 1; NaN where no row has the point.
        distance: (N, K) of each point from the mean's, in units of the mean's size; NaN where unlabelled.
        residual: (N,) root mean square of them; NaN where too few points are labelled.
        flipped: (N,) the same with each point named as its mirror partner.
    """

    mean: Complex[np.ndarray, " K"]
    distance: Float[np.ndarray, "N K"]
    residual: Float[np.ndarray, " N"]
    flipped: Float[np.ndarray, " N"]


def complex_points(rows: Sequence[Row]) -> Complex[np.ndarray, "N K"]:
    """Labelled keypoints as x + iy, NaN elsewhere."""
    xy = np.stack([np.asarray(r.keypoints_xy, np.float64) for r in rows])
    known = np.stack([labelled(r) for r in rows]) & (np.abs(xy) < 1e9).all(-1)
    return np.where(known, xy[..., 0] + 1j * xy[..., 1], np.nan + 1j * np.nan)


def align(points: Complex[np.ndarray, "N K"], mean: Complex[np.ndarray, " K"], robust: bool = True) -> np.ndarray:
    """Each row moved onto the mean by the similarity that fits best, points that stray counting less and less.

    Args:
        points: px; NaN where unlabelled.
        mean: any unit; NaN where unknown.

    Returns:
        (N, K) complex, in the mean's unit; NaN where unlabelled, and all of a row that lies in one place.
    """
    both = np.isfinite(points) & np.isfinite(mean)
    z, m, weight = np.where(both, points, 0), np.where(both, mean, 0), both.astype(np.float64)
    aligned = _median_fit(points, mean) if robust else points
    for _ in range(5 if robust else 1):
        weight = _weights(aligned, mean, both) if robust else weight
        total = np.maximum(weight.sum(1, keepdims=True), 1e-12)
        z0, m0 = (weight * z).sum(1, keepdims=True) / total, (weight * m).sum(1, keepdims=True) / total
        size = (weight * np.abs(z - z0) ** 2).sum(1, keepdims=True)
        turn = (weight * np.conj(z - z0) * (m - m0)).sum(1, keepdims=True) / np.maximum(size, 1e-9)
        turn[size <= 1e-9] = np.nan
        aligned = turn * (points - z0) + m0
    return aligned


def _median_fit(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """A start that a stray point cannot pull along: the median of what single pairs of points say of turn and scale.

    Source: A. F. Siegel and R. H. Benson, "A Robust Comparison of Biological Shapes", Biometrics 38 (1982), with two
    partners for each point in place of all.
    """
    count = len(mean)
    shifts = {max(count // 2, 1), max(count // 3, 1)}
    steps = [(points - np.roll(points, s, 1), mean - np.roll(mean, s)) for s in shifts]
    with np.errstate(invalid="ignore"):
        turns = np.concatenate([to / np.where(np.abs(step) > 1e-9, step, np.nan) for step, to in steps], 1)
    turn = _median(turns.T)[:, None]
    return turn * points + _median((mean - turn * points).T)[:, None]


def _weights(aligned: np.ndarray, mean: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Cauchy's, of each point's distance in robust standard deviations of its row."""
    stray = np.abs(aligned - mean)
    scale = CAUCHY * 1.4826 * np.nan_to_num(_nan_median(stray.T), nan=1.0)[:, None]
    return np.where(both, 1 / (1 + (np.nan_to_num(stray) / np.maximum(scale, 1e-6)) ** 2), 0)


def fit_shapes(points: Complex[np.ndarray, "N K"], flip_index: np.ndarray) -> Fit:
    """The mean shape (point by point the median of the aligned rows) and how far each row is from it."""
    some = points[np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(int)]
    mean = _first_mean(some)
    for _ in range(ROUNDS):
        mean = _normalised(_median(align(some, mean)))
    distance, residual = _residual(align(points, mean), mean)
    _, flipped = _residual(align(points[:, flip_index], mean), mean)
    in_one_place = _extent(points) < 1e-6
    return Fit(
        mean, distance, np.where(in_one_place, np.inf, residual), np.where(in_one_place, np.inf, flipped)
    )  # fmt: skip


def outliers(fit: Fit) -> Bool[np.ndarray, " N"]:
    """Rows whose residual lies OUTLIER_Z robust deviations (1.4826 MAD) above the median, of its logarithm.

    Labels that are only swapped are no outliers: the better of the two ways counts. All points in one place are.
    """
    residual = np.fmin(fit.residual, fit.flipped)
    judged = np.isfinite(residual)
    if judged.sum() < MIN_ROWS:
        return np.isinf(residual)
    logs = np.log(np.maximum(residual, 1e-6))
    middle = np.median(logs[judged])
    spread = max(1.4826 * float(np.median(np.abs(logs[judged] - middle))), 0.1)
    return np.isinf(residual) | (judged & (logs > middle + OUTLIER_Z * spread) & (residual > OUTLIER_LEAST))


def swapped(fit: Fit) -> Bool[np.ndarray, " N"]:
    """Rows that fit the mean better, by a margin, with every point named as its mirror partner."""
    judged = np.isfinite(fit.residual)
    if judged.sum() < MIN_ROWS:
        return np.zeros(len(fit.residual), bool)
    usual = SWAP_USUAL * np.median(np.fmin(fit.residual, fit.flipped)[judged])
    with np.errstate(invalid="ignore"):
        halved = (fit.flipped < SWAP_RATIO * fit.residual) & (fit.residual > SWAP_LEAST)
        return halved & (fit.flipped < max(usual, SWAP_LEAST))


def crossed_pairs(points: Complex[np.ndarray, "N K"], pairs: Sequence[tuple[int, int]]) -> Bool[np.ndarray, "N P"]:
    """Single flip pairs that are swapped against the others, told from symmetric distances alone.

    For two pairs (a, b) and (c, d) the same-side distances |ac| + |bd| and the cross-side ones |ad| + |bc| compare the
    same way in nearly all rows of most subjects; naming a and b the other way round exchanges them. A pair is crossed
    when it disagrees so with most of the pairs that it can be compared with.
    """
    index = np.asarray(pairs).reshape(-1, 2)
    sides = _side_logs(points[np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(int)], index)
    usual, known = np.sign(_nan_median(sides)), np.isfinite(sides).sum(0)
    agree = (np.nan_to_num(sides) * np.nan_to_num(usual) > 0).sum(0) / np.maximum(known, 1)
    usual = np.where((agree >= CROSS_USUAL) & (known >= MIN_ROWS), usual, 0)
    crossed = []
    for start in range(0, len(points), SAMPLE):  # (rows, P, P) at a time
        sides = np.nan_to_num(_side_logs(points[start : start + SAMPLE], index)) * usual
        clear, against = np.abs(sides) > CROSS_LOG, sides < -CROSS_LOG
        crossed.append((against.sum(2) > clear.sum(2) / 2) & (against.sum(2) >= 2))
    return np.concatenate(crossed)


def _side_logs(points: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(N, P, P) log of cross-side over same-side distances of every two pairs: above 0 where sides hold together."""
    a, b = points[:, index[:, 0]], points[:, index[:, 1]]
    same = np.abs(a[:, :, None] - a[:, None]) + np.abs(b[:, :, None] - b[:, None])
    cross = np.abs(a[:, :, None] - b[:, None]) + np.abs(b[:, :, None] - a[:, None])
    logs = np.log((cross + 1e-9) / (same + 1e-9))
    logs[:, np.eye(len(index), dtype=bool)] = np.nan
    return logs


def judge_shapes(rows: Sequence[Row], numbers: Sequence[int], schema: KeypointSchema) -> Iterator[Finding]:
    """Swapped sides and outliers; every row has the schema's number of points."""
    if len(rows) < MIN_ROWS or schema.num_keypoints < MIN_POINTS:
        return
    points = complex_points(rows)
    if not np.isfinite(points).any():
        return
    fit = fit_shapes(points, schema.flip_index)
    for i, message in _swaps(points, fit, schema):
        yield found("left right swapped", rows[i], numbers[i], message)
    for i, message in _strays(fit, schema):
        yield found("shape outlier", rows[i], numbers[i], message)


def _swaps(points: np.ndarray, fit: Fit, schema: KeypointSchema) -> Iterator[tuple[int, str]]:
    if not schema.flip_pairs:
        return
    whole, judged, hint = swapped(fit), int(np.isfinite(fit.residual).sum()), ""
    if whole.sum() > MIXED * judged:
        hint = f"; so do {whole.sum()} of {judged} rows: subjects seen from both sides, or labelled in two ways?"
    for i in np.flatnonzero(whole):
        yield i, f"{fit.residual[i]:.2f} from the mean shape, {fit.flipped[i]:.2f} with left and right exchanged{hint}"
    if len(schema.flip_pairs) < 3:  # of two pairs that disagree, either may be the wrong one
        return
    crossed = crossed_pairs(points, schema.flip_pairs)
    for i in np.flatnonzero(crossed.any(1) & ~whole):
        chosen = [schema.flip_pairs[p] for p in np.flatnonzero(crossed[i])]
        pairs = ", ".join(f"{schema.keypoints[a]} / {schema.keypoints[b]}" for a, b in chosen[:2])
        yield i, f"{ONLY_SOME}: {pairs}{f' and {len(chosen) - 2} more' if len(chosen) > 2 else ''}"


def _strays(fit: Fit, schema: KeypointSchema) -> Iterator[tuple[int, str]]:
    finite = np.isfinite(fit.residual)
    middle = float(np.median(fit.residual[finite])) if finite.any() else 0.0
    for i in np.flatnonzero(outliers(fit)):
        if np.isinf(fit.residual[i]):
            yield i, "all labelled points lie in one place"
            continue
        worst = schema.keypoints[int(np.nanargmax(fit.distance[i]))]
        least = min(fit.residual[i], fit.flipped[i])
        yield i, f"{least:.2f} shape sizes from the mean shape, {middle:.2f} is usual; furthest: {worst}"


def _first_mean(points: np.ndarray) -> np.ndarray:
    """The row, of a few with the most labels, that most rows resemble."""
    count = np.isfinite(points).sum(1)
    best = np.argsort(-count, kind="stable")[: max(REFERENCES, int((count == count.max()).sum()))]
    tried = [points[i] for i in best[np.linspace(0, len(best) - 1, min(REFERENCES, len(best))).astype(int)]]
    means = [_normalised(shape) for shape in tried if _extent(shape[None])[0] > 1e-6] or [_normalised(tried[0])]
    scores = [np.median(np.nan_to_num(_residual(align(points, m, False), m)[1], nan=np.inf)) for m in means]
    return means[int(np.argmin(scores))]


def _extent(points: np.ndarray) -> np.ndarray:
    """(N,) the largest distance from the first labelled point, px; infinite where nothing is labelled."""
    known = np.isfinite(points)
    first = np.take_along_axis(points, known.argmax(1)[:, None], 1)
    return np.where(known.any(1), np.where(known, np.abs(points - first), 0).max(1), np.inf)


def _residual(aligned: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = np.abs(aligned - mean)
    count = np.isfinite(distance).sum(1)
    enough = count >= max(MIN_POINTS, np.isfinite(mean).sum() / 2)
    total = np.where(np.isfinite(distance), distance, 0) ** 2
    return distance, np.where(enough, np.sqrt(total.sum(1) / np.maximum(count, 1)), np.nan)


def _normalised(shape: np.ndarray) -> np.ndarray:
    centred = shape - np.mean(shape[np.isfinite(shape)])
    size = np.sqrt(np.mean(np.abs(centred[np.isfinite(centred)]) ** 2))
    return centred / (size if size > 0 else 1)


def _median(points: np.ndarray) -> np.ndarray:
    return _nan_median(points.real) + 1j * _nan_median(points.imag)


def _nan_median(values: np.ndarray) -> np.ndarray:
    """Over the rows; NaN, without a warning, where nothing is known."""
    ordered = np.sort(values, 0)  # NaN last
    count = np.isfinite(values).sum(0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    picked = [np.take_along_axis(ordered, k[None], 0)[0] for k in (low, np.minimum(high, len(values) - 1))]
    return np.where(count > 0, (picked[0] + picked[1]) / 2, np.nan)
