"""How fast is the talking face drawn, and how fast is it read back?

    python benchmarks/talker_speed.py [--n 640] [--sizes 64 96 128]

Prints samples per second: generated in this process, generated into an empty cache by two processes, and read from
the cache. Takes about half a minute on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import cv2
import datasets

from mmkp.data.talker import TalkerDataset, generate


def per_second(count: int, started: float) -> float:
    """Items per second since a reading of the clock."""
    return count / (time.perf_counter() - started)


def measure(size: int, n: int) -> tuple[float, float, float]:
    """One process, two processes with writing, reading."""
    for index in range(8):  # imports and tables
        generate(1, index, size)
    started = time.perf_counter()
    for index in range(n):
        generate(0, index, size)
    alone = per_second(n, started)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rows = TalkerDataset("train", size=size, n=n, cache_dir=folder, workers=2)
        together = per_second(n, started)
        started = time.perf_counter()
        for index in range(n):
            rows[index]
        return alone, together, per_second(n, started)


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=640)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    datasets.disable_progress_bars()
    print(f"{'size':>6} {'1 process':>12} {'2 and cache':>12} {'read':>8}   samples/s")
    for size in options.sizes:
        alone, together, read = measure(size, options.n)
        print(f"{size:>4}px {alone:>12.0f} {together:>12.0f} {read:>8.0f}")


if __name__ == "__main__":
    main()
