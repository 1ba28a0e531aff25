"""What does a checkpoint save who has 50 labelled pictures? `mmkp finetune` beside the same network from scratch.

    python benchmarks/finetune.py --faces PATH --face-model M --grid PATH --talker-model M [--seeds 0 1 2] [a.b=c ...]

(a) faces: 50 pictures of the training people of a face68 set (csv:PATH, data_cards/youtube_faces.md), one a person as
    far as they go, with the five points of face5: the eyes' centres are the mean of their six points, the tip of the
    nose and the corners of the mouth points 30, 48 and 54. Ten of the 50 are validation; tested on all test people.
(b) talker: 50 frames of one new person of GRID (grid:PATH, data_cards/grid.md), a clip of `others/`, with 12 points out
    of face68: the first 40 of the clip for training, the next 10 for validation, the last 25 for test. One person and
    one clip, so no interval can be given.

Prints a line per seed: NME of the mean shape, from scratch (all weights at random), from the checkpoint's parents
(ImageNet's encoder) and fine-tuned; the ratios to the two with paired intervals; and the minutes of the whole command,
all networks together. Each seed draws other pictures and other weights. It uses two threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from mmkp.data import open_dataset
from mmkp.data.export import export_folder
from mmkp.data.sample import Sample
from mmkp.finetune.run import finetune
from mmkp.schema import KeypointSchema, load_schema, parse_schema

TRAIN, VALIDATION = 40, 10
EYES = (range(36, 42), range(42, 48))
# A dubbing artist's twelve: corners and middles of the lips, the nose's base, the eyes' corners, the chin.
TWELVE = {
    "right_eye_0": 36, "right_eye_3": 39, "left_eye_0": 42, "left_eye_3": 45, "nostril_2": 33, "jaw_8": 8,
    "outer_lip_0": 48, "outer_lip_3": 51, "outer_lip_6": 54, "outer_lip_9": 57, "inner_lip_2": 62, "inner_lip_6": 66,
}  # fmt: skip


def talker12() -> KeypointSchema:
    """Twelve points under their names in face68."""
    return parse_schema({
        "name": "talker12", "keypoints": list(TWELVE), "flip_pairs": [[0, 3], [1, 2], [6, 8]],
        "normalizer": {"name": "outer_eye_distance", "kind": "distance", "points": [0, 3]},
        "groups": {"eyes": [0, 1, 2, 3], "lips": [6, 7, 8, 9, 10, 11]},
    })  # fmt: skip


class Samples:
    """Samples in memory as a dataset."""

    def __init__(self, name: str, schema: KeypointSchema, samples: list[Sample]) -> None:
        self.name, self.schema, self.samples = name, schema, samples
        self.problems: list[str] = []

    @property
    def fingerprint(self) -> str:
        return self.name

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def five_points(sample: Sample) -> Sample:
    """face68 -> face5; a centre is known where all of its points are."""
    xy, seen = sample.keypoints_xy, sample.visible
    eyes = [(xy[list(e)].mean(0), seen[list(e)].min()) for e in EYES]
    points = [*eyes, *((xy[i], seen[i]) for i in (30, 48, 54))]
    return sample.replace(
        keypoints_xy=np.stack([p for p, _ in points]).astype(np.float32),
        visible=np.array([v for _, v in points], np.uint8), info={},
    )  # fmt: skip


def write(samples: dict[str, list[Sample]], schema: KeypointSchema, out: Path) -> str:
    """A folder in the custom format, with named splits."""
    parts = []
    for split, members in samples.items():
        export_folder(Samples("part", schema, members), out / split, split)
        rows = [json.loads(line) for line in (out / split / "metadata.jsonl").read_text().splitlines()]
        for row in rows:
            row |= {k: f"{split}/{row[k]}" for k in ("file_name", "audio") if row.get(k)}
        parts += [json.dumps(row) for row in rows]
    (out / "metadata.jsonl").write_text("\n".join(parts) + "\n")
    (out / split / "schema.yaml").replace(out / "schema.yaml")
    for split in samples:
        (out / split / "metadata.jsonl").unlink()
        (out / split / "schema.yaml").unlink(missing_ok=True)
    return str(out)


def faces(path: str, seed: int, out: Path) -> str:
    """50 faces, and all of the test people."""
    train, test = open_dataset(f"csv:{path}", "train"), open_dataset(f"csv:{path}", "test")
    order = np.random.default_rng(seed).permutation(len(train)).tolist()
    by_person: dict[str, int] = {}
    for i in order:
        by_person.setdefault(train.rows[i].group, i)  # type: ignore[attr-defined]
    first = list(by_person.values())
    chosen = (first + [i for i in order if i not in set(first)])[: TRAIN + VALIDATION]
    parts = {"train": chosen[:TRAIN], "validation": chosen[TRAIN:]}
    made = {split: [five_points(train[i]) for i in members] for split, members in parts.items()}
    return write({**made, "test": [five_points(test[i]) for i in range(len(test))]}, load_schema("face5"), out)


def talker(path: str, seed: int, out: Path) -> str:
    """50 frames of one new person, and the rest of the clip."""
    data = open_dataset(f"grid:{path}", "others")
    clips = sorted({data[i].group for i in range(len(data))})
    clip = clips[seed % len(clips)]
    frames = [data[i] for i in range(len(data)) if data[i].group == clip]
    index = list(TWELVE.values())
    cut = [s.replace(keypoints_xy=s.keypoints_xy[index], visible=s.visible[index], info={}) for s in frames]
    parts = {"train": cut[:TRAIN], "validation": cut[TRAIN : TRAIN + VALIDATION], "test": cut[TRAIN + VALIDATION :]}
    return write(parts, talker12(), out)


def line(title: str, seed: int, found: Any, minutes: float) -> str:
    """The clear condition of a run."""
    rows = found.rows["clear"]
    names = [n for n in ("mean shape", "scratch", "parents", "fine-tuned") if n in rows]
    means = "  ".join(f"{name} {rows[name]['nme']['mean']:.4f}" for name in names)
    ratios = "  ".join(f"to {name} {told(rows[name]['ratio'])}" for name in names if name in ("scratch", "parents"))
    return (
        f"{title} seed {seed}: {means}  ratio {ratios}  n = {found.n} in {found.groups} groups  {minutes:.1f} min"
    )  # fmt: skip


def told(ratio: dict[str, Any]) -> str:
    """A ratio with its interval, where there is one."""
    if ratio["ci95"] is None:
        return f"{ratio['ratio']:.3f}"
    return f"{ratio['ratio']:.3f} [{ratio['ci95'][0]:.3f}, {ratio['ci95'][1]:.3f}]"


def main() -> None:
    """A line per task and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--faces", "--face-model", "--grid", "--talker-model"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="Keep the runs here.")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(2)
    logging.disable_progress_bar()
    tasks = [
        ("faces", faces, options.faces, options.face_model),
        ("talker", talker, options.grid, options.talker_model),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        root = options.keep or Path(scratch)
        for title, make, path, model in tasks:
            for seed in options.seeds if path and model else ():
                data = make(path, seed, root / f"{title}-{seed}" / "data")
                began = time.monotonic()
                found = finetune(
                    data, model, root / f"{title}-{seed}" / "run",
                    [f"training.seed={seed}", "training.threads=2", *options.overrides],
                )  # fmt: skip
                print(line(title, seed, found, (time.monotonic() - began) / 60), flush=True)


if __name__ == "__main__":
    main()
