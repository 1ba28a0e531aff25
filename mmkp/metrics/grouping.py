"""Rows of many images laid out in tables, so that what is done image by image is done for thousands at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

TABLE_CELLS = 1 << 17  # pairs of one batch; times 30 (areas by thresholds) this is what matching holds in memory
CHUNK_CELLS = 1 << 18  # pairs by keypoints at a time: 2 MB, which a cache holds


def rank_by_image(image: Int[np.ndarray, " D"], scores: Float[np.ndarray, " D"], most: int) -> Int[np.ndarray, " kept"]:
    """Indices by image, then falling score, the first `most` of each image.

    Equal scores keep their input order and NaN comes last: numpy's stable sort of the negated scores.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[np.argsort(image[order], kind="stable")]
    ordered = image[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[rank < most]


def chunks(pairs: Int[np.ndarray, " P"], keypoints: int) -> list[np.ndarray]:
    """`pairs` in parts that are small enough for arrays of pairs by keypoints."""
    return np.array_split(pairs, 1 + len(pairs) * keypoints // CHUNK_CELLS)


@dataclass(frozen=True)
class PairTable:
    """The pairs (row, column) of a batch of images of like size.

    Args:
        rows: (I, D) index of each image's rows in order; images with more rows come first.
        row_there: (I, D) False where the image has fewer.
        columns: (I, G) index of each image's columns in order.
        column_there: (I, G) False where the image has fewer.
    """

    rows: Int[np.ndarray, "I D"]
    row_there: Bool[np.ndarray, "I D"]
    columns: Int[np.ndarray, "I G"]
    column_there: Bool[np.ndarray, "I G"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, D, G)."""
        return (*self.rows.shape, self.columns.shape[1])

    def pairs(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """Rows (P,), columns (P,) and their places in a table of `shape`."""
        at = np.nonzero(self.row_there[:, :, None] & self.column_there[:, None, :])
        return self.rows[at[0], at[1]], self.columns[at[0], at[2]], at

    @staticmethod
    def batches(row_image: Int[np.ndarray, " D"], column_image: Int[np.ndarray, " G"]) -> Iterator[PairTable]:
        """Tables that cover every image with rows and columns.

        Args:
            row_image: ascending: rows lie image by image.
            column_image: in any order.
        """
        images = int(max(row_image.max(initial=-1), column_image.max(initial=-1))) + 1
        row_count, column_count = np.bincount(row_image, minlength=images), np.bincount(column_image, minlength=images)
        row_start, column_start = np.cumsum(row_count) - row_count, np.cumsum(column_count) - column_count
        columns = np.argsort(column_image, kind="stable")
        paired = np.flatnonzero((row_count > 0) & (column_count > 0))
        width = np.ceil(np.log2(np.maximum(column_count, 1))).astype(int)  # images of 1, 2, 3-4, 5-8 ... columns
        for power in np.unique(width[paired]):
            alike = paired[width[paired] == power]
            alike = alike[np.argsort(-row_count[alike], kind="stable")]
            while len(alike):
                many = max(1, TABLE_CELLS // (int(row_count[alike[0]]) << int(power)))
                these, alike = alike[:many], alike[many:]
                rows, row_there = _table(row_start[these], row_count[these])
                places, column_there = _table(column_start[these], column_count[these])
                yield PairTable(rows, row_there, columns[places], column_there)


def _table(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.arange(count.max()) < count[:, None]
    return np.where(there, start[:, None] + np.arange(count.max()), 0), there
