"""Wild faces with mediapipe's points for labels, so that one markup serves wild faces and talkers: a teacher.

    python benchmarks/peers/setup.py FOLDER
    python benchmarks/teach_faces.py csv:PATH --peers FOLDER --out OUT

The 68 points of GRID's excerpt are mediapipe's, those of the wild faces are another's: a model of both learns two
markups for one name. Here mediapipe 0.10.21 (Apache-2.0) looks at each wild face through several crops; the median of
what it says is the label, and a face on which the crops do not agree is left out. OUT holds train.csv and val.csv in
the source's layout, with its splits, and links to its pictures; `csv:OUT` opens it.

The test people are labelled as well, so that `csv:OUT` has a test split; figures on it measure agreement with the
teacher, not accuracy. The source's own labels are read for the box in which the teacher looks, nothing else.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

VIEWS_MARGIN_PX = ((0.0, 480), (1.3, 256), (1.6, 512), (2.0, 256))  # `views.View`: crops in which it does well
AGREED = 3  # views that must have found the face
SPREAD = 0.06  # outer-eye distances: the mean distance of the views from their median, above which a face is left out
FILES = {"train.csv": ("train", "validation"), "val.csv": ("test",)}


def labels_of(cells: Any, data: Any) -> np.ndarray:
    """(N, 68, 2) px of the image frame, NaN throughout where the views do not agree."""
    from views import View

    said = np.stack([cells.peer("mediapipe", data, View(margin, side)) for margin, side in VIEWS_MARGIN_PX])
    found = np.isfinite(said).all((2, 3)).sum(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a face that no view found stays NaN
        middle = np.nanmedian(said, axis=0)
        apart = np.nanmean(np.linalg.norm(said - middle, axis=-1), axis=(0, 2))
        across = np.linalg.norm(middle[:, 45] - middle[:, 36], axis=-1)
    kept = (found >= AGREED) & (apart < SPREAD * across)
    return np.where(kept[:, None, None], middle, np.nan)


def main() -> int:
    """Read the arguments, write the folder, say what was left out."""
    from cells import Cells, Material

    from mmkp.data import open_dataset
    from mmkp.errors import MmkpError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="csv:PATH")
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    source = Path(options.data.partition(":")[2]).resolve()
    try:
        cells = Cells(options.out / "cells", options.peers)
        cells.check()
        files = {path.stem: path.name for path in (source / "images").iterdir()}
        for name, splits in FILES.items():
            rows: list[list] = []
            for split in splits:
                data = open_dataset(options.data, split)
                held = Material(f"{data.fingerprint} {split} 1", [data[i] for i in range(len(data))])
                points = labels_of(cells, held)
                known = np.isfinite(points).all((1, 2))
                for sample, xy in zip(np.array(held.samples, object)[known], points[known], strict=True):
                    rows.append([files[sample.id], *np.round(xy, 2).ravel().tolist()])
                print(f"{split}: {known.sum()} of {len(known)} faces kept, "
                      f"{len(set(held.groups[known]))} of {len(set(held.groups))} people", flush=True)  # fmt: skip
            write(options.out / name, rows)
    except MmkpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not (options.out / "images").exists():
        (options.out / "images").symlink_to(source / "images", target_is_directory=True)
    return 0


def write(path: Path, rows: list[list]) -> None:
    """A CSV in the source's layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", *(f"{axis}{i}" for i in range(68) for axis in "xy")])
        lines.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
