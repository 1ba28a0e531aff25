"""DeepLabCut's .h5 as the cells of its .csv, without opening a pickle.

pandas.read_hdf would unpickle what a file tells it to, so the file is read as plain HDF5. pandas' `fixed` layout holds
everything as arrays; its `table` layout keeps the columns' names as a pickle and is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmkp.errors import InputError, MissingExtraError

LABELS, CELLS = 10_000, 100_000_000  # no project has more columns or numbers


def read_h5(file: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The header's lines and the rows, as in the .csv.

    Source: pandas' fixed format: axis0 the columns and axis1 the rows, each an array or, with several levels, level{i}
    with the words and label{i} with the numbers of the words; block0_values (rows, columns).

    Raises:
        MissingExtraError: no h5py.
        InputError: no HDF5 file, or none in that layout.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("DeepLabCut's .h5 (the .csv beside it needs nothing)", "h5py", "data") from error
    try:
        with h5py.File(file, "r") as store:
            groups = [store[key] for key in store if isinstance(store.get(key, getlink=True), h5py.HardLink)]
            frame = next((group for group in groups if isinstance(group, h5py.Group) and "axis0_level0" in group), None)
            if frame is None:
                raise ValueError("another layout, as of format='table', whose names are a Python pickle")
            arrays = {key: _plain(frame, key, h5py) for key in frame if not key.startswith("_")}
    except InputError:
        raise
    except Exception as error:  # h5py lets out whatever a broken file makes of it
        raise InputError(
            f"data deeplabcut:{file}", expected="an HDF5 file in pandas' fixed layout", got=str(error)[:200],
            remedy="Give the .csv that DeepLabCut keeps beside it.",
        ) from error  # fmt: skip
    values = arrays["block0_values"]
    columns, rows = _levels(arrays, "axis0"), _levels(arrays, "axis1")
    if "block1_values" in arrays or values.shape != (len(rows[0]), len(columns[0])):
        raise InputError(f"data deeplabcut:{file}", expected="one block of numbers", got=f"the shape {values.shape}")
    names = _names(len(columns))
    header = [[name] + [""] * (len(rows) - 1) + list(level) for name, level in zip(names, columns, strict=True)]
    numbers = [["" if np.isnan(v) else repr(float(v)) for v in line] for line in values]
    return header, [[*place, *line] for place, line in zip(zip(*rows, strict=True), numbers, strict=True)]


def _names(levels: int) -> tuple[str, ...]:
    return ("scorer", "individuals", "bodyparts", "coords") if levels == 4 else ("scorer", "bodyparts", "coords")


def _plain(group: Any, key: str, h5py: Any) -> np.ndarray:
    """An array that lies in the file itself: nothing linked, nothing of objects."""
    link = group.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{key} is a link out of the file")
    data = group[key]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual or data.dtype.kind not in "iufS":
        raise ValueError(f"{key} is no plain array of numbers or words")
    if data.size > CELLS:
        raise ValueError(f"{key} claims {data.size} values")
    return data[()]


def _levels(arrays: dict[str, np.ndarray], axis: str) -> list[list[str]]:
    """The words of an axis, level by level."""
    if axis in arrays:
        return [_words(arrays[axis])]
    count = sum(key.startswith(f"{axis}_level") for key in arrays)
    return [_words(arrays[f"{axis}_level{i}"][arrays[f"{axis}_label{i}"]]) for i in range(count)]


def _words(values: np.ndarray) -> list[str]:
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
