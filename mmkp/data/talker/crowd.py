"""Several talkers in one picture, near ones before far ones, with the words and the sound of the nearest.

Made of the talker's own parts: each face is rendered onto the picture as it is so far, so that whoever comes later
hides what lies behind. Pictures are a function of (seed, index) alone and never of the talker's own samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mmkp import geometry
from mmkp.data.face import face_box
from mmkp.data.sample import Sample
from mmkp.data.talker.clip import FRAMES_PER_CLIP, Clip, make_clip, moment
from mmkp.data.talker.dataset import cache_root, load_or_write, row_features, row_of, sample_of
from mmkp.data.talker.degrade import sensor_noise
from mmkp.data.talker.generate import EXCERPT_S, excerpt, hidden_by_head
from mmkp.data.talker.head import under_locks
from mmkp.data.talker.mouth import MouthState, landmarks
from mmkp.data.talker.paint import OVERSAMPLE
from mmkp.data.talker.person import Person, draw_person
from mmkp.data.talker.phrases import SPLITS
from mmkp.data.talker.render import Scene, draw_scene, render
from mmkp.data.talker.shade import Light
from mmkp.data.talker.speech import RATE_HZ
from mmkp.data.talker.view import View, place
from mmkp.data.timing import evenly_spaced, text_at
from mmkp.errors import InputError, choose, nearest
from mmkp.schema import KeypointSchema, load_schema

VERSION = 1  # of the generator: raise it whenever a sample would change
SIZE = 128  # px
LENGTHS = {"train": 3000, "validation": 240, "test": 480}
MOST_PEOPLE = 24  # faces that small are a few pixels wide
BOX_SHARE = (0.24, 0.46)  # of the picture's side; the smallest face's eyes are 8 px apart at 128 px
NEAREST = 0.55  # how close two faces' middles may come, in means of their boxes' sides
TRIES = 40
FEWEST_SEEN = 3  # of the points of face5; a face of which less is seen carries no label
_STREAM = 211  # apart from the clip's own random numbers and those of the talker's frames
# COCO's for eyes and nose, its corners of a mouth there are none; the area is that of the face's box.
FACE5_SIGMAS = (0.025, 0.025, 0.026, 0.025, 0.025)


def _face5() -> tuple[KeypointSchema, Float[np.ndarray, "5 68"]]:
    """The schema, with sigmas, and how its points are made of the 68: middles of the eyes, nose tip, mouth corners."""
    weights = np.zeros((5, 68))
    weights[0, 36:42] = weights[1, 42:48] = 1 / 6
    weights[[2, 3, 4], [30, 48, 54]] = 1
    return load_schema("face5").model_copy(update={"sigmas": FACE5_SIGMAS}), weights


def _face68() -> tuple[KeypointSchema, Float[np.ndarray, "68 68"]]:
    return load_schema("face68"), np.eye(68)


KEYPOINTS: dict[str, Any] = {"face5": _face5, "face68": _face68}


class CrowdDataset:
    """One to five talkers in a picture; a `KeypointDataset` whose samples know all people.

    The first person is the nearest one, who speaks. The box is the whole picture.

    Args:
        split: train, validation or test, which share neither persons nor sentences.
        size: side of the pictures, px.
        n: how many samples; 8 consecutive ones share the one who speaks.
        seed: another one gives other people throughout.
        people: the fewest and the most of them.
        keypoints: `face5` (eyes, nose, corners of the mouth) or `face68`.
        cache_dir: where the rows are kept; by default $MMKP_CACHE, else ~/.cache/mmkp.
        workers: processes that generate; by default at most two.

    Raises:
        InputError: an unknown split or schema, numbers that make no picture, a cache that cannot be written.
        MissingExtraError: espeakng-loader is needed to generate and is not installed.
    """

    name = "crowd"

    def __init__(
        self, split: str = "train", size: int = SIZE, n: int | None = None, seed: int = 0,
        people: tuple[int, int] = (1, 5), keypoints: str = "face5",
        cache_dir: str | os.PathLike[str] | None = None, workers: int | None = None,
    ) -> None:  # fmt: skip
        if split not in SPLITS:
            raise InputError("crowd", expected="a split", got=repr(split), remedy=nearest(str(split), SPLITS))
        made: Any = choose("crowd.keypoints", keypoints, KEYPOINTS)
        self.schema, self._weights = made()
        n = LENGTHS[split] if n is None else n
        fewest, most = people
        if n < 1 or size < 32 or seed < 0 or not 1 <= fewest <= most <= MOST_PEOPLE:
            raise InputError(
                "crowd", expected=f"n >= 1, size >= 32 px, seed >= 0, 1 <= fewest <= most <= {MOST_PEOPLE} people",
                got=f"n={n}, size={size}, seed={seed}, people={list(people)}",
            )  # fmt: skip
        self.split, self.size, self.seed, self.people = split, size, seed, (fewest, most)
        self.problems: list[str] = []
        parameters = {"version": VERSION, "split": split, "size": size, "n": n, "seed": seed, "people": [fewest, most]}
        drawn = hashlib.sha1(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
        self.fingerprint = f"{drawn}-{keypoints}"
        path = cache_root(cache_dir) / "crowd" / f"{split}-{size}px-{n}-{drawn}"
        self._rows = load_or_write(path, parameters, workers, _rows, _features())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"crowd has {len(self)} samples, not one of index {index}")
        row = self._rows[index % len(self)]
        points = self._weights @ np.array(row["people_xy"], np.float64).reshape(-1, 68, 2)
        seen = (np.array(row["people_visible"], np.float64).reshape(-1, 68) - 1) @ self._weights.T > 0.5
        people_xy, people_visible = points.astype(np.float32), np.where(seen, 2, 1).astype(np.uint8)
        return sample_of(row).replace(
            keypoints_xy=people_xy[0], visible=people_visible[0], people_xy=people_xy, people_visible=people_visible
        )


def _features() -> Any:
    from datasets import Features, List, Value

    return Features({**row_features(), "people_xy": List(Value("float32")), "people_visible": List(Value("uint8"))})


def _rows(clips: list[int], parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of some clips; `datasets` deals the list out to its processes."""
    p = parameters
    for clip in clips:
        for index in range(clip * FRAMES_PER_CLIP, min((clip + 1) * FRAMES_PER_CLIP, p["n"])):
            sample = generate_crowd(p["seed"], index, p["size"], p["split"], tuple(p["people"]))
            assert sample.people_xy is not None and sample.people_visible is not None
            people = {"people_xy": sample.people_xy.ravel(), "people_visible": sample.people_visible.ravel()}
            yield {**row_of(sample), **people}


@dataclass(frozen=True)
class Face:
    """One person of the picture, at one moment, before painting."""

    person: Person
    state: MouthState
    view: View
    points_mm: Float[np.ndarray, "68 3"]

    def points_xy(self) -> Float[np.ndarray, "68 2"]:
        """px, image frame."""
        return self.view.project(self.points_mm)


def generate_crowd(
    seed: int, index: int, size: int = SIZE, split: str = "train", people: tuple[int, int] = (1, 5)
) -> Sample:
    """One sample with all 68 points of everybody.

    Args:
        seed: of the whole dataset.
        index: frame `index % 8` of clip `index // 8`, whose person speaks; there is no last one.
        size: side of the square picture, px.
        split: train, validation or test.
        people: the fewest and the most of them; where too many are drawn for the room, as many as it takes.
    """
    number, frame = divmod(index, FRAMES_PER_CLIP)
    clip = make_clip(seed, split, number)
    rng = np.random.default_rng([seed, SPLITS.index(split), number, _STREAM, frame])
    time_s = float(clip.frames_s[frame])
    faces = _draw_faces(clip, time_s, int(rng.integers(people[0], people[1] + 1)), size, rng)
    image, hidden = paint_faces(faces, draw_scene(rng), size, rng)
    image = sensor_noise(image, clip.scene.noise, rng)
    kept = (hidden @ _face5()[1].T <= 0.5).sum(1) >= FEWEST_SEEN
    kept[0] = True  # who speaks
    points = np.stack([face.points_xy() for face in faces])[kept].astype(np.float32)
    visible = np.where(hidden[kept], 1, 2).astype(np.uint8)
    even = evenly_spaced([word.text for word in clip.words], clip.speech.duration_s)
    group = f"crowd-{split}-{seed}-{number:06d}"
    return Sample(
        id=f"{group}-{frame}", group=group, keypoints_xy=points[0], visible=visible[0],
        box_xywh=geometry.whole_image_box((size, size)), image=image, audio=excerpt(clip, time_s), rate_hz=RATE_HZ,
        audio_time_s=EXCERPT_S / 2, text=text_at(clip.words, time_s),
        text_controls={"no_times": clip.sentence, "even_times": text_at(even, time_s)},
        info={
            "people": len(points), "people_area": [float(face_box(p)[2] ** 2) for p in points],
            "sentence": clip.sentence, "voice": clip.voice, "time_s": time_s, "covered": False, "degradation": "none",
        },
        people_xy=points, people_visible=visible,
    )  # fmt: skip


def _draw_faces(clip: Clip, time_s: float, count: int, size: int, rng: np.random.Generator) -> list[Face]:
    """The one who speaks, who is the nearest, and listeners, ever smaller, none too close to another."""
    shares = np.sort(rng.uniform(*BOX_SHARE, count))[::-1] * min(1.0, (6 / (count + 1)) ** 0.5)
    state, held = moment(clip, time_s, rng)
    faces: list[Face] = []
    for share in shares:
        person = draw_person(rng) if faces else clip.person
        if faces:
            state, held = _listener(rng)
        points_mm = landmarks(person, state)
        for _ in range(TRIES):
            view = place(held, points_mm, size, float(share), rng.uniform(-1, 1, 2))
            if all(_apart(view.project(points_mm), other.points_xy()) for other in faces):
                faces.append(Face(person, state, view, points_mm))
                break
    return faces


def _listener(rng: np.random.Generator) -> tuple[MouthState, View]:
    """Somebody who is in the picture: a mouth mostly closed, any pose."""
    opened = float(rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0)
    state = MouthState(
        opened, *([0.0] * 5), smile=float(np.clip(rng.normal(0.12, 0.42), -0.45, 0.9)),
        skew=float(np.clip(rng.normal(0, 0.2), -1, 1)), brows=float(np.clip(rng.normal(0, 0.4), -0.9, 0.9)),
        lids=float(rng.uniform(0.8, 1.05)),
    )  # fmt: skip
    yaw, pitch, roll = np.clip(rng.normal(0, [14.0, 7.0, 7.0]), [-38, -18, -22], [38, 18, 22])
    return state, View(float(yaw), float(pitch), float(roll))


def _apart(one_xy: np.ndarray, other_xy: np.ndarray) -> bool:
    a, b = face_box(one_xy), face_box(other_xy)
    distance = np.linalg.norm((a[:2] + a[2:] / 2) - (b[:2] + b[2:] / 2))
    return bool(distance >= NEAREST * (a[2] + b[2]) / 2)


def paint_faces(
    faces: list[Face], scene: Scene, size: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "P 68"]]:
    """The picture, the last of the list painted first; and which points something hides.

    What a face covers are the pixels that painting it changed: a later face's light leaves the rest as it is.
    """
    hidden = np.stack([_by_itself(face, size) for face in faces])
    image: np.ndarray | None = None
    for at in reversed(range(len(faces))):
        face, gaze = faces[at], np.clip(rng.normal(0, [1.8, 0.9]), -4, 4)
        if image is None:
            image = render(face.person, face.state, face.points_mm, face.view, scene, gaze, size)
            continue
        behind = np.repeat(np.repeat(image, OVERSAMPLE, 0), OVERSAMPLE, 1)  # comes back bit by bit where unpainted
        plain = Light(scene.light.direction, scene.light.ambient, np.ones(3), 1.0)
        lit = replace(scene, light=plain, background=behind)
        after = render(face.person, face.state, face.points_mm, face.view, lit, gaze, size)
        covers = (after != image).any(-1)
        for behind_it in range(at + 1, len(faces)):
            x, y = np.clip(np.rint(faces[behind_it].points_xy()).astype(int), 0, size - 1).T
            hidden[behind_it] |= covers[y, x]
        image = after
    assert image is not None
    return image, hidden


def _by_itself(face: Face, size: int) -> Bool[np.ndarray, " 68"]:
    points_xy = face.points_xy()
    return hidden_by_head(face.view, face.points_mm) | under_locks(face.person, face.view, points_xy, size)
