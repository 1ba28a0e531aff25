"""Does the talker look like a face? A contact sheet of 64, and how many of them dlib's detector finds.

    pip install dlib-bin
    python benchmarks/talker_faces.py --out talker_faces.png [--size 128]

The faces are clear and near frontal: yaw within 15 degrees, pitch within 10.
"""

from __future__ import annotations

import argparse
from itertools import count, islice
from pathlib import Path

import dlib
import numpy as np

from mmkp.data.talker import generate
from mmkp.evaluation.draw import sheet
from mmkp.evaluation.figures import save_png


def frontal(size: int, wanted: int) -> list[np.ndarray]:
    """Clear pictures of `wanted` different persons who look about straight ahead."""
    samples = (generate(0, 8 * clip + clip % 8, size, split="test", degrade=False) for clip in count())
    found = (s for s in samples if abs(s.info["yaw"]) < 15 and abs(s.info["pitch"]) < 10)
    return [s.image for s in islice(found, wanted) if s.image is not None]


def main() -> None:
    """Draw the sheet and print the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("talker_faces.png"))
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    pictures = frontal(arguments.size, 64)
    detect = dlib.get_frontal_face_detector()
    found = sum(len(detect(picture, 1)) > 0 for picture in pictures)  # enlarged once: the detector starts at 80 px
    save_png(sheet(pictures, columns=8), arguments.out)
    print(f"dlib finds {found} of {len(pictures)} clear frontal faces at {arguments.size} px; sheet: {arguments.out}")


if __name__ == "__main__":
    main()
