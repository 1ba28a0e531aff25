"""A small dataset of pictures, sounds and texts in the custom format, from which shards are written."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import soundfile

RATE_HZ = 8000


def make_folder(folder: Path, rows: int = 40) -> Path:
    """`rows` samples of face5: every fourth without a picture, every fifth without a sound, the rest with both."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = []
    for i in range(rows):
        points = rng.uniform(0, 30, (5, 2)).round(2)
        line = {
            "id": f"row-{i:04d}", "group": f"group-{i:04d}", "text": f"say left {i}", "box": [1.5, 2, 30, 24],
            "keypoints": [[x, y, int(v)] for (x, y), v in zip(points.tolist(), rng.integers(1, 3, 5), strict=True)],
        }  # fmt: skip
        if i % 4:
            image = cv2.resize(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8), (40, 32))
            cv2.imwrite(str(folder / f"{i:04d}.png"), image)
            line["file_name"] = f"{i:04d}.png"
        if i % 5:
            wave = rng.integers(-9000, 9000, RATE_HZ).astype(np.int16)
            soundfile.write(folder / f"{i:04d}.wav", wave, RATE_HZ)
            line |= {"audio": f"{i:04d}.wav", "audio_time": 0.25}
        lines.append(line)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (folder / "schema.yaml").write_text("schema: face5\n")
    return folder
