"""How fast is `mmkp data check`?

    python benchmarks/data_check.py [--n 600] [--workers 2] [--size 480 640]

Makes a folder of JPEGs with five keypoints each, checks it as a whole (annotation, decoding, hashes, duplicates,
shapes), and decodes the same files in a plain loop with Pillow. Prints images per second of both and their ratio.
Takes about half a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmkp.data.check import check

FACE = np.array([[0.35, 0.40], [0.65, 0.40], [0.50, 0.57], [0.40, 0.74], [0.60, 0.74]])  # of face5, shares of a square


def make(folder: Path, n: int, size_hw: tuple[int, int]) -> float:
    """Pictures with the detail of photos and their labels; returns their mean size in KiB."""
    (folder / "images").mkdir()
    (folder / "schema.yaml").write_text("schema: face5\n")
    rng = np.random.default_rng(0)
    lines, sizes = [], []
    for i in range(n):
        coarse = rng.integers(0, 255, (size_hw[0] // 16, size_hw[1] // 16, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
        noisy = smooth.astype(np.int16) + rng.integers(-8, 9, smooth.shape, dtype=np.int16)
        path = folder / "images" / f"{i:06d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        sizes.append(path.stat().st_size / 1024)
        points = (FACE + rng.normal(0, 0.01, FACE.shape)) * min(size_hw)
        lines.append({"file_name": f"images/{path.name}", "keypoints": [[*p, 2] for p in points.round(2).tolist()]})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return float(np.mean(sizes))


def plain_loop(folder: Path) -> float:
    """Images per second of Pillow, one after the other, in full."""
    files = sorted((folder / "images").iterdir())
    started = time.perf_counter()
    for file in files:
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))
    return len(files) / (time.perf_counter() - started)


def main() -> None:
    """Measure both, the files already in the page cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("H", "W"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        kib = make(Path(place), options.n, (options.size[0], options.size[1]))
        plain = plain_loop(Path(place))
        started = time.perf_counter()
        report = check(place, workers=options.workers).report
        checked = options.n / (time.perf_counter() - started)
    print(f"{options.n} JPEGs of {options.size[1]} x {options.size[0]}, {kib:.0f} KiB each; {options.workers} threads")
    print(f"plain Pillow loop   {plain:7.0f} images/s")
    print(f"mmkp data check     {checked:7.0f} images/s, {checked / plain:.2f} times the loop")
    print(f"findings: {report.counts or 'none'}")


if __name__ == "__main__":
    main()
