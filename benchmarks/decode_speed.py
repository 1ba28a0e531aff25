"""How fast are heatmaps read, and does a peer read the same from them?

    python benchmarks/decode_speed.py [--batch 64] [--repeats 15]

The codec `gaussian_heatmap` with DARK against transformers' `VitPoseImageProcessor.post_process_pose_estimation`, on
the same 64x48 heatmaps (Gaussians of standard deviation 2 cells with smooth and white noise), with the same
refinement: blurred with a window of 11 cells and 0.8 cells, one step of a second-order expansion of the logarithm.
Prints milliseconds per instance (the fastest of the repeats, one thread, both in one run), their ratio, and the
largest difference in px of a 256x192 input. Takes about a minute; needs torchvision, as that processor does.

Where the two differ by convention, and what is done about it here:
- The peer follows UDP: the grid's first and last cell centres lie on the box's edges, so that a cell is
  box / (cells - 1) wide. Here a cell covers `stride` px and its centre lies in its middle: (stride - 1) / 2 + stride i.
  At stride 4 and 64x48 cells the same cell lies up to 1.5 px from where the other puts it, 0 in the middle. The peer is
  given the box in which its answer is the position in cells; ours is carried to cells by `geometry.input_to_grid`.
- The mixed derivative: the peer takes the two diagonal neighbours of one diagonal, ours all four. The same for a
  Gaussian, and part of the difference that is printed.
- A hottest cell on the border: the peer repeats the border, ours expands about the nearest inner cell, and ours keeps
  within 1.5 cells. A point whose hottest cell lies on the border is counted and left out of the difference.
- The peer takes the second derivative as it is; where the heat is not peaked ours stays at the cell.
- The peer numbers the cells of a whole batch in float32, which ends at 2^24: from 5085 heatmaps of 64x48 in one call
  (39 instances of 133 keypoints) it looks at wrong cells, up to several px away. Its time is that of the whole batch;
  for the difference it gets as many instances a call as it can number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import VitPoseImageProcessor

from mmkp import geometry
from mmkp.codecs import make_codec

STRIDE, GRID_HW = 4, (64, 48)
INPUT_HW = (GRID_HW[0] * STRIDE, GRID_HW[1] * STRIDE)
KERNEL, BLUR_SIGMA = 11, 0.8  # cells; the peer's own
PADDING = 1.25  # by which the peer enlarges a box
PEERS_CELLS = 2**24  # that the peer can number in one call: its indices are float32


def make_heatmaps(batch: int, count: int) -> torch.Tensor:
    """(batch, count, 64, 48): peaks of 0.3 to 1 at random places of the input, smooth noise of 0.02, white of 0.002."""
    rng = np.random.default_rng(0)
    xy = torch.from_numpy(rng.uniform([0, 0], [INPUT_HW[1] - 1, INPUT_HW[0] - 1], (batch, count, 2))).float()
    heat = make_codec("gaussian_heatmap", INPUT_HW, stride=STRIDE).encode(xy).heatmap()
    coarse = torch.from_numpy(rng.normal(0, 0.02, (batch, count, GRID_HW[0] // 8, GRID_HW[1] // 8))).float()
    white = torch.from_numpy(rng.normal(0, 0.002, heat.shape)).float()
    peaks = torch.from_numpy(rng.uniform(0.3, 1, (batch, count, 1, 1))).float()
    return heat * peaks + F.interpolate(coarse, GRID_HW, mode="bicubic") + white


def peer_of(heatmaps: torch.Tensor) -> Callable[[], np.ndarray]:
    """The peer's post-processing of all heatmaps, with the box in which it answers in cells: (batch, count, 2)."""
    height, width = GRID_HW[0] - 1, GRID_HW[1] - 1
    processor: Any = VitPoseImageProcessor(size={"height": height, "width": width})
    margin_x, margin_y = width * (1 - 1 / PADDING) / 2, height * (1 - 1 / PADDING) / 2
    boxes = np.tile([margin_x, margin_y, width / PADDING, height / PADDING], (len(heatmaps), 1, 1))
    outputs = SimpleNamespace(heatmaps=heatmaps)

    def run() -> np.ndarray:
        said = processor.post_process_pose_estimation(outputs, boxes=boxes, kernel_size=KERNEL)
        return np.stack([person[0]["keypoints"].numpy() for person in said])

    return run


def ours_of(heatmaps: torch.Tensor) -> Callable[[], np.ndarray]:
    """Our decode of all heatmaps, in cells: (batch, count, 2)."""
    codec = make_codec(
        "gaussian_heatmap", INPUT_HW, stride=STRIDE, decode_by="dark", blur_kernel=KERNEL, blur_sigma_grid=BLUR_SIGMA
    )

    def run() -> np.ndarray:
        return geometry.input_to_grid(codec.decode(heatmaps)[0], STRIDE).numpy()

    return run


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Of the fastest of the repeats; the first, which warms up, does not count."""
    run()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)


def on_the_border(heatmaps: torch.Tensor) -> np.ndarray:
    """(batch, count): whether the hottest cell lies in the outermost rows or columns."""
    at = heatmaps.flatten(2).argmax(-1)
    row, column = at // GRID_HW[1], at % GRID_HW[1]
    return ((row % (GRID_HW[0] - 1) == 0) | (column % (GRID_HW[1] - 1) == 0)).numpy()


def main() -> None:
    """Measure both with 17 and 133 keypoints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'K':>4} {'peer ms':>9} {'ours ms':>9} {'ratio':>7} {'largest px':>11} {'mean px':>9} {'border':>10}")
    for count in (17, 133):
        heatmaps = make_heatmaps(options.batch, count)
        peer, ours = peer_of(heatmaps), ours_of(heatmaps)
        slow = seconds(peer, max(2, options.repeats // 5)) / options.batch * 1e3
        fast = seconds(ours, options.repeats) / options.batch * 1e3
        border = on_the_border(heatmaps)
        few = PEERS_CELLS // (count * (GRID_HW[0] + 2) * (GRID_HW[1] + 2))
        said = np.concatenate([peer_of(part)() for part in heatmaps.split(few)])
        apart = np.linalg.norm(said - ours(), axis=-1)[~border] * STRIDE
        print(
            f"{count:>4} {slow:>9.3f} {fast:>9.4f} {slow / fast:>7.1f} {apart.max():>11.4f} {apart.mean():>9.4f} "
            f"{border.sum():>5}/{border.size}"
        )


if __name__ == "__main__":
    main()
