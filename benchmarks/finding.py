"""Does a model find the faces of a photograph, and nothing where there is none?

    python benchmarks/finding.py --model M [--faces csv:PATH] [--others grid:PATH] [--photographs FOLDER] [--most 200]

One line for each question, with n and misses. A face counts as found when a box shares half (intersection over union)
with the one laid from its labelled eyes; a box that shares less than a third with every labelled face is a stray.
Covered: the mouth hidden as `mmkp evaluate` hides it. Photographs: pictures of streets or rooms; people in them who are
nobody's label count as strays, so look at the sheet that --out draws. scikit-image's pictures are used where it is
installed (`pip install scikit-image pooch`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mmkp.data import open_dataset
from mmkp.data.corrupt import cover
from mmkp.data.face import face_box
from mmkp.data.io import read_image
from mmkp.evaluation.draw import caption, sheet
from mmkp.evaluation.figures import save_png
from mmkp.finding import Found, find, overlap
from mmkp.hub import Loaded, load
from mmkp.training.scenes import Face, collect, lay
from mmkp.training.textures import draw_texture

OBJECTS = (
    "brick", "grass", "gravel", "coins", "coffee", "rocket", "chelsea", "hubble_deep_field", "moon", "page", "clock",
    "text", "stereo_motorcycle", "horse", "immunohistochemistry", "retina", "cell", "checkerboard", "colorwheel",
)  # fmt: skip
SHARES = (1 / 6, 1 / 4, 1 / 2, 1.0)  # of the picture's width that a face's width takes
FACE_OF_BOX = 1 / 1.5  # a frontal face, jaw to jaw, of the side of its box
SEED = 77


class Tally:
    """Counts over pictures, and pictures worth a look."""

    def __init__(self, loaded: Loaded, name: str) -> None:
        self.loaded, self.name = loaded, name
        self.pictures = self.faces = self.found = self.strays = self.with_strays = 0
        self.apart: list[float] = []
        self.shown: list[np.ndarray] = []

    def add(self, image: np.ndarray, boxes: np.ndarray, label: str = "") -> Found:
        """Search a picture and compare with the boxes of its faces."""
        found = find(self.loaded.model, self.loaded.processor, image)
        shared = overlap(found.boxes_xywh, boxes) if len(boxes) and len(found) else np.zeros((len(found), len(boxes)))
        hits = shared.max(0, initial=0) > 0.5
        stray = shared.max(1, initial=0) < 1 / 3
        self.pictures, self.faces, self.found = self.pictures + 1, self.faces + len(boxes), self.found + hits.sum()
        self.strays, self.with_strays = self.strays + stray.sum(), self.with_strays + stray.any()
        if stray.any() or not hits.all():
            self.shown.append(_drawn(image, found, boxes, f"{self.name} {label}"))
        return found

    def row(self) -> dict[str, Any]:
        """The counts."""
        row = {"pictures": self.pictures, "faces": self.faces, "found": int(self.found),
               "missed": int(self.faces - self.found), "strays": int(self.strays),
               "pictures with strays": int(self.with_strays)}  # fmt: skip
        print(f"{self.name:<34} " + "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        return row


def _drawn(image: np.ndarray, found: Found, boxes: np.ndarray, label: str, side: int = 220) -> np.ndarray:
    canvas = image.copy()
    size = max(1, max(image.shape[:2]) // 150)
    for known, colour in ((boxes, (60, 220, 90)), (found.boxes_xywh, (255, 140, 0))):
        for x, y, w, h in known:
            cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), colour, size)
    scale = side / max(canvas.shape[:2])
    small = cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.full((side, side, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small[:side, :side]
    return caption(tile, label + " " + " ".join(f"{s:.2f}" for s in found.scores[:4]))


def own_pictures(dataset: Any, indices: Iterable[int], covered: bool, tally: Tally) -> None:
    """People in their own pictures."""
    for i in indices:
        sample = dataset[int(i)]
        points = sample.keypoints_xy.astype(float)
        image = cover(sample.image, points, np.random.default_rng(int(i)))[0] if covered else sample.image
        tally.add(image, face_box(points)[None], sample.id)


def composed(faces: list[Face], grounds: list[np.ndarray], share: float, tally: Tally) -> None:
    """People laid at a random place of a photograph or texture, so wide of its width."""
    rng = np.random.default_rng(SEED)
    for number, face in enumerate(faces):
        canvas = _fitted(grounds[number % len(grounds)])
        side = share / FACE_OF_BOX * canvas.shape[1]
        room = np.maximum(0, np.array(canvas.shape[1::-1]) - 0.75 * side)
        middle = np.array(canvas.shape[1::-1]) / 2 + rng.uniform(-0.5, 0.5, 2) * room
        tally.add(canvas, lay(canvas, face, middle, side, rng)[None], f"{number}")


def collages(faces: list[Face], grounds: list[np.ndarray], count: int, tally: Tally) -> None:
    """Four people each, in the quarters of a picture."""
    rng = np.random.default_rng(SEED)
    for number in range(count):
        canvas, boxes = _fitted(grounds[number % len(grounds)]), []
        quarter = np.array(canvas.shape[1::-1]) / 2
        for place in ((0, 0), (1, 0), (0, 1), (1, 1)):
            face = faces[rng.integers(len(faces))]
            boxes.append(lay(canvas, face, (np.array(place) + 0.5) * quarter, rng.uniform(0.25, 0.4) * canvas.shape[1],
                             rng))  # fmt: skip
        tally.add(canvas, np.array(boxes), f"{number}")


def _fitted(image: np.ndarray, side: int = 512) -> np.ndarray:
    """The middle square of a picture at `side` px."""
    low = min(image.shape[:2])
    top, left = (image.shape[0] - low) // 2, (image.shape[1] - low) // 2
    return cv2.resize(image[top : top + low, left : left + low], (side, side), interpolation=cv2.INTER_AREA)


def objects() -> dict[str, np.ndarray]:
    """scikit-image's pictures that hold no human face; none where it is not installed."""
    try:
        from skimage import data
    except ImportError:
        return {}
    made = {}
    for name in OBJECTS:
        try:
            image = getattr(data, name)()
        except Exception as error:  # not among those that the package carries
            print(f"skimage {name} left out: {type(error).__name__}")
            continue
        image = np.asarray(image[0] if isinstance(image, tuple) else image)[:1024, :1024]
        image = (image * 255).astype(np.uint8) if image.dtype == bool else image.astype(np.uint8)
        made[name] = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])
    return made


class Bench:
    """One model, the questions asked of it, and what it answered."""

    def __init__(self, model: str, most: int) -> None:
        self.loaded, self.most = load(model), most
        self.tallies: list[Tally] = []
        self.rows: dict[str, Any] = {}
        self.grounds = [draw_texture((512, 512), np.random.default_rng([SEED, i])) for i in range(min(most, 100))]

    def ask(self, name: str, question: Callable[[Tally], Any]) -> None:
        """Put a question and keep the answer."""
        self.tallies.append(Tally(self.loaded, name))
        question(self.tallies[-1])
        self.rows[name] = self.tallies[-1].row()

    def nothing_there(self, photographs: Path | None) -> None:
        """Pictures without a face."""
        self.ask("textures", lambda t: [t.add(image, np.zeros((0, 4))) for image in self.grounds])
        self.ask("scikit-image's objects", lambda t: [t.add(v, np.zeros((0, 4)), k) for k, v in objects().items()])
        if photographs is not None:
            files = sorted(p for p in photographs.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
            pictures = {p.stem: read_image(p) for p in files[: self.most]}
            self.ask("photographs", lambda t: [t.add(v, np.zeros((0, 4)), k) for k, v in pictures.items()])
            self.grounds = list(pictures.values())

    def astronaut(self) -> None:
        """The one face of scikit-image's astronaut, and how long it takes to find it."""
        try:
            from skimage.data import astronaut
        except ImportError:
            return
        image, times = astronaut(), []
        for _ in range(5):
            begin = time.perf_counter()
            found = find(self.loaded.model, self.loaded.processor, image)
            times.append(time.perf_counter() - begin)
        self.rows["astronaut"] = {"boxes": found.boxes_xywh.round(1).tolist(), "scores": found.scores.round(3).tolist(),
                                  "seconds, one thread": round(min(times), 3)}  # fmt: skip
        print("astronaut", self.rows["astronaut"], flush=True)

    def people(self, spec: str) -> None:
        """Test people in their own pictures, and laid into others."""
        dataset = open_dataset(spec, "test")
        self.labelled(dataset, "own pictures", self.most)
        faces = collect(dataset, min(self.most, 100))
        for share in SHARES:
            self.ask(f"laid in, {share:.2f} of the width", partial(composed, faces, self.grounds, share))
        self.ask("collages of four", partial(collages, faces, self.grounds, min(self.most, 40)))

    def labelled(self, dataset: Any, name: str, most: int) -> None:
        """The people of a dataset as they come, and with the mouth covered."""
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
        for covered in (False, True):
            kind = f"{name}, {'covered' if covered else 'clear'}"
            self.ask(kind, partial(own_pictures, dataset, chosen, covered))


def main() -> None:
    """Answer every question for which there is data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--faces", help="people to find, such as csv:PATH; the test split")
    parser.add_argument("--others", help="a grid:PATH; its speakers other than s1")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs without large faces")
    parser.add_argument("--most", type=int, default=200, help="pictures for each question")
    parser.add_argument("--out", type=Path, default=Path("finding"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.model, arguments.most)
    bench.astronaut()
    bench.nothing_there(arguments.photographs)
    if arguments.faces:
        bench.people(arguments.faces)
    if arguments.others:
        bench.labelled(open_dataset(arguments.others, "others"), "other speakers", min(arguments.most, 60))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "finding.json").write_text(json.dumps(bench.rows, indent=1))
    shown = [tile for t in bench.tallies for tile in t.shown[:24]]
    if shown:
        save_png(sheet(shown, 8), arguments.out / "finding.png")


if __name__ == "__main__":
    main()
