"""A cell's results as a Parquet file: a row per item, condition, severity, subset and part; all else in its metadata.

Numbers are rounded to what they are worth, so that a file stays small: an error to 9 bits of mantissa (0.1 %), a score
to 1/256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmkp import metrics
from mmkp.errors import InputError
from mmkp.evaluation.predictions import Predictions
from mmkp.evaluation.score import PCK_MAIN
from mmkp.schema import KeypointSchema

VERSION = 1  # of the file's form
ALL = "all"  # the part that is no group of the schema but every keypoint
META = b"mmkp"
CEILINGS = "ceilings.json"  # beside the folder of cells: what `mmkp ceilings` said
DICTIONARY = ("id", "group", "condition", "subset", "part")
NUMBERS = ("error", "score", "right")
MANTISSA_BITS, SCORE_STEPS = 9, 256
Block = tuple[str, int, str, str]  # condition or corruption, severity (0: a condition), subset, part


@dataclass
class Items:
    """The items of one or more blocks and their numbers, (N,) each.

    Attributes:
        error: NME over the part's labelled points; NaN where there is none.
        score: mean confidence over the same points.
        right: share of them within `PCK_MAIN`.
    """

    id: np.ndarray
    group: np.ndarray
    error: np.ndarray
    score: np.ndarray
    right: np.ndarray


@dataclass
class CellResults:
    """A cell.

    Attributes:
        meta: arm, seed, key, status (done or failed), error, cost, command, commit and all else that the report tells.
        blocks: the items by condition, severity, subset and part.
    """

    meta: dict[str, Any]
    blocks: dict[Block, Items] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether it has results."""
        return self.meta["status"] == "done"

    def save(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        columns: dict[str, list[np.ndarray]] = {k: [] for k in (*DICTIONARY, "severity", *NUMBERS)}
        for (condition, severity, subset, part), items in self.blocks.items():
            count = len(items.id)
            same = {"condition": condition, "subset": subset, "part": part, "severity": np.int8(severity)}
            for name, value in same.items():
                columns[name].append(np.full(count, value))
            for name in ("id", "group", *NUMBERS):
                columns[name].append(getattr(items, name))
        table = pa.table({k: _column(k, v) for k, v in columns.items()})
        table = table.replace_schema_metadata({META: json.dumps({"version": VERSION, **self.meta}).encode()})
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                table, draft, compression="zstd", compression_level=19, use_dictionary=[*DICTIONARY, "score", "right"],
                use_byte_stream_split=["error"], write_statistics=False, row_group_size=1 << 22,
            )  # fmt: skip
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: Path) -> CellResults:
        """Read a cell back.

        Raises:
            InputError: no such file, or not one of a study's.
        """
        try:
            table = pq.read_table(path)
            meta = json.loads(table.schema.metadata[META])
            arrays = {k: table[k].to_numpy(zero_copy_only=False) for k in ("id", "group", *NUMBERS)}
            codes = {k: table[k].combine_chunks().dictionary_encode() for k in ("condition", "subset", "part")}
            severity = table["severity"].to_numpy()
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise InputError(f"cell {path}", expected="a file that `mmkp study` wrote", got=str(error)) from error
        return cls(meta, dict(_blocks(arrays, codes, severity)))


def read_meta(path: Path) -> dict[str, Any] | None:
    """A cell's metadata without its rows; None where there is no whole file."""
    try:
        return json.loads(pq.read_schema(path).metadata[META])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def is_whole(path: Path) -> bool:
    """Whether a cell can be read to its end; its metadata stand in the footer, which outlives a damaged body."""
    try:
        CellResults.load(path)
    except InputError:
        return False
    return True


def blocks_of(
    predictions: Predictions,
    schema: KeypointSchema,
    condition: str,
    severity: int = 0,
    parts: Iterable[str] | None = None,
) -> dict[Block, Items]:
    """Per-item figures of predictions made under one condition, by subset and part.

    Args:
        condition: as stored; the predictions' own name is the same, or `clear` where a corruption came before.
        parts: `all` and groups of the schema; every one without.
    """
    own = condition if condition in predictions.visible else "clear"
    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    labelled = predictions.visible[own] > 0
    groups: dict[str, Any] = {ALL: None, **schema.group_indices()}
    made: dict[Block, Items] = {}
    for (of, subset), xy in predictions.keypoints_xy.items():
        if of != own:
            continue
        errors = metrics.normalized_errors(xy, predictions.true_xy, labelled, length)
        scores = np.where(np.isnan(errors), np.nan, predictions.scores[of, subset].astype(np.float64))
        for part in groups if parts is None else parts:
            points = groups[part]
            made[condition, severity, subset, part] = Items(
                predictions.ids, predictions.groups, metrics.nme(errors, points), metrics.nme(scores, points),
                metrics.pck(errors, PCK_MAIN, points),
            )  # fmt: skip
    return made


def _column(name: str, parts: list[np.ndarray]) -> pa.Array:
    if name == "severity":
        return pa.array(np.concatenate(parts) if parts else [], pa.int8())
    if name in DICTIONARY:
        words: Any = np.concatenate([np.asarray(p, object) for p in parts]) if parts else []
        return pa.array(words, pa.string()).dictionary_encode()
    values = np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
    rounded = _short(values) if name == "error" else values
    return pa.array(np.rint(values * SCORE_STEPS) / SCORE_STEPS if name == "score" else rounded, pa.float32())


def _short(values: np.ndarray) -> np.ndarray:
    """float32 rounded to nearest at `MANTISSA_BITS`; NaN stays NaN."""
    drop = 23 - MANTISSA_BITS
    bits = np.where(np.isnan(values), np.float32(0), values).astype(np.float32).view(np.uint32)
    bits = ((bits.astype(np.uint64) + (1 << (drop - 1))) >> drop << drop).astype(np.uint32)
    return np.where(np.isnan(values), np.float32(np.nan), bits.view(np.float32))


def _blocks(
    arrays: dict[str, np.ndarray], codes: dict[str, Any], severity: np.ndarray
) -> Iterable[tuple[Block, Items]]:
    if not len(severity):
        return
    index = {k: np.asarray(v.indices) for k, v in codes.items()}
    words = {k: v.dictionary.to_pylist() for k, v in codes.items()}
    stacked = np.stack([*index.values(), severity.astype(np.int64)])
    edges = np.flatnonzero(np.any(np.diff(stacked, axis=1), axis=0)) + 1
    for begin, end in zip([0, *edges], [*edges, len(severity)], strict=True):
        condition, subset, part = (words[k][index[k][begin]] for k in ("condition", "subset", "part"))
        rows = {k: v[begin:end] for k, v in arrays.items()}
        numbers = {k: rows[k].astype(np.float64) for k in NUMBERS}
        yield (condition, int(severity[begin]), subset, part), Items(rows["id"], rows["group"], **numbers)
