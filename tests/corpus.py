"""A tiny corpus in GRID's layout, drawn and sounded here, so that no test needs the real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import cv2
import numpy as np

from mmkp.data.face import eye_frame
from mmkp.data.grid_files import spelled_words

SIZE_HW, FRAMES, RATE_HZ = (96, 96), 10, 44_100


def face_points(opening: float, shift: float) -> np.ndarray:
    """A schematic face68 shape (68, 2) px in a 96 x 96 picture, centre of the top-left pixel at (0, 0).

    Args:
        opening: px between the lips.
        shift: px to the right.
    """
    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([48 - 30 * np.cos(turn), 42 + (34 + opening / 2) * np.sin(turn)], -1)
    across = np.linspace(-8, 8, 5)
    brows = [np.stack([c + across, 28 - 2 * np.cos(across / 8)], -1) for c in (34, 62)]
    nose = np.concatenate(
        [np.stack([np.full(4, 48), np.linspace(38, 52, 4)], -1), np.stack([48 + across / 2, np.full(5, 55)], -1)]
    )
    ring = np.linspace(np.pi, -np.pi, 6, endpoint=False)
    eyes = [np.stack([c + 6 * np.cos(ring), 38 - 2.5 * np.sin(ring)], -1) for c in (35, 61)]
    around = np.linspace(np.pi, -np.pi, 12, endpoint=False)
    outer = np.stack([48 + 12 * np.cos(around), 66 - (4 + opening / 2) * np.sin(around)], -1)
    inside = np.linspace(np.pi, -np.pi, 8, endpoint=False)
    inner = np.stack([48 + 9 * np.cos(inside), 66 - (1 + opening / 2) * np.sin(inside)], -1)
    return np.concatenate([jaw, *brows, nose, *eyes, outer, inner]) + [shift, 0]


def face_picture(points: np.ndarray, skin: int = 170) -> np.ndarray:
    """The shape drawn, (96, 96, 3) uint8."""
    image = np.full((*SIZE_HW, 3), 60, np.uint8)
    middle, distance, _ = eye_frame(points)
    cv2.ellipse(
        image, (int(middle[0]), int(middle[1] + 0.4 * distance)), (32, 42), 0, 0, 360, (skin, skin - 30, skin - 50), -1
    )
    for part, colour in ((slice(36, 42), 255), (slice(42, 48), 255), (slice(48, 60), 150), (slice(60, 68), 20)):
        cv2.fillPoly(image, [np.rint(points[part]).astype(np.int32)], (colour, colour // 2, colour // 2))
    return image


def make_clip(root: Path, stem: str, seed: int, frames: int = FRAMES) -> None:
    """One clip: the louder, the wider the mouth."""
    rng = np.random.default_rng(seed)
    opening = 5 + 5 * np.sin(np.linspace(0, 6, frames) + rng.uniform(0, 6))
    shapes = [face_points(o, rng.uniform(-2, 2)) for o in opening]
    (root / "s1").mkdir(parents=True, exist_ok=True)
    with av.open(str(root / "s1" / f"{stem}.mpg"), "w", format="mpeg") as container:
        video = container.add_stream("mpeg1video", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = SIZE_HW[1], SIZE_HW[0], "yuv420p", 3_000_000
        track = container.add_stream("mp2", rate=RATE_HZ, layout="mono")
        for number, shape in enumerate(shapes):
            frame = av.VideoFrame.from_ndarray(face_picture(shape, int(rng.integers(150, 200))), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        at = np.arange(RATE_HZ * frames // 25)
        loud = np.interp(at / RATE_HZ * 25, np.arange(frames), opening) / 12
        wave = (12_000 * loud * np.sin(at * 0.05)).astype(np.int16)
        for start in range(0, len(wave), 1152):
            block = av.AudioFrame.from_ndarray(wave[None, start : start + 1152], format="s16", layout="mono")
            block.sample_rate, block.pts = RATE_HZ, start
            container.mux(track.encode(block))
        container.mux(track.encode(None))
    for folder in ("landmarks", "align"):
        (root / folder).mkdir(exist_ok=True)
    np.savez(
        root / "landmarks" / f"{stem}.npz", keypoints_xy=(np.stack(shapes) + 0.5).astype(np.float16),
        size_hw=np.array(SIZE_HW),
    )  # fmt: skip
    ends = np.linspace(0, frames * 1000, 7).astype(int)
    words = spelled_words(stem)
    lines = [f"{a} {b} {w}" for a, b, w in zip(ends[:-1], ends[1:], words, strict=True)]
    (root / "align" / f"{stem}.align").write_text("\n".join(lines) + "\n")


def stems_by_split(wanted: dict[str, int]) -> list[str]:
    """File names in GRID's grammar that the split rule puts where they are wanted."""
    found: dict[str, list[str]] = {split: [] for split in wanted}
    for command in "blps":
        for letter in "abcdefghijklmnopqrstuvxyz":
            for digit in "z123456789":
                stem = f"{command}ba{letter}{digit}n"
                place = int(hashlib.sha1(stem.encode()).hexdigest(), 16) % 10
                split = "train" if place < 7 else "validation" if place == 7 else "test"
                if split in found and len(found[split]) < wanted[split]:
                    found[split].append(stem)
    return [stem for stems in found.values() for stem in stems]


def make_grid(root: Path) -> Path:
    """Six clips to train on, two to validate, six to test."""
    for seed, stem in enumerate(stems_by_split({"train": 6, "validation": 2, "test": 6})):
        make_clip(root, stem, seed)
    return root
