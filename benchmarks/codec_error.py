"""How far is a keypoint moved by encoding and decoding it?

    python benchmarks/codec_error.py [--n 2000] [--size 256] [--strides 1 2 4 8]

Every registered codec encodes random points between the pixels, at least 4 sigma of its Gaussian from the border, and
decodes what a perfect head would put out. Prints the largest and the mean error, the bias (the larger of the two axes'
mean differences) and the resolution that the codec declares, px of the input. Where cells are not divided (`argmax`,
`quarter`) what stands under bias is chance: the mean of so many errors. Takes about a quarter of a minute on one core.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from mmkp.codecs import CODECS, make_codec

BATCH = 50  # points at a time: at stride 1 each is a map of the input's size
WAYS = {  # of those that have several, the ways to decode; the others are taken as they come
    "heatmap": ("soft_argmax", "dark"),
    "gaussian_heatmap": ("dark", "quarter", "argmax"),
    "simcc": ("argmax", "soft_argmax"),
}


def margin_px(codec: Any) -> float:
    """4 sigma and a cell, px of the input."""
    if hasattr(codec, "sigma_grid"):
        return (4 * codec.sigma_grid + 1) * codec.stride
    if hasattr(codec, "sigma_bins"):
        return 4 * codec.sigma_bins / codec.split_ratio + 1
    return 0.0


def errors_px(codec: Any, count: int, seed: int = 0) -> torch.Tensor:
    """(count, 2): decoded less true, px of the input."""
    height, width = codec.input_size_hw
    margin = margin_px(codec)
    made = torch.Generator().manual_seed(seed)
    room = torch.tensor([width - 1.0, height - 1.0]) - 2 * margin
    points = margin + torch.rand(count // BATCH, BATCH, 2, generator=made) * room
    moved = [codec.decode(codec.raw_of(codec.encode(part[None])))[0][0] - part for part in points]
    return torch.cat(moved)


def main() -> None:
    """A table: a line per codec, way to decode and stride."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--strides", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"input {options.size}x{options.size} px, {options.n // BATCH * BATCH} points a line; px of the input")
    print(f"{'codec':<30} {'stride':>6} {'max':>9} {'mean':>9} {'bias':>9} {'declared':>9}")
    for name, factory in CODECS.items():
        if getattr(factory, "multi_instance", False):
            print(f"{name:<30} several instances per picture: measured by tests of its own")
            continue
        for way in WAYS.get(name, ("",)):
            chosen: dict[str, Any] = {"decode_by": way} if way else {}
            for stride in options.strides:
                codec = make_codec(name, (options.size, options.size), stride=stride, **chosen)
                moved = errors_px(codec, options.n)
                largest, mean, bias = moved.abs().max(), moved.norm(dim=-1).mean(), moved.mean(0).abs().max()
                label = f"{name} {way}"
                line = f"{label:<30} {stride:>6} {largest:>9.5f} {mean:>9.5f} {bias:>9.5f}"
                print(f"{line} {codec.resolution_px:>9.3f}", flush=True)


if __name__ == "__main__":
    main()
