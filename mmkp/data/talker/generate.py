"""A sample from (seed, index, size) and nothing else: the same whatever the process, the order or the workers."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from mmkp.data.face import face_box
from mmkp.data.sample import Sample
from mmkp.data.talker.clip import FRAMES_PER_CLIP, Clip, make_clip, moment
from mmkp.data.talker.degrade import Plan, add_noise, draw_plan, sensor_noise, spoil_picture
from mmkp.data.talker.head import under_locks
from mmkp.data.talker.mouth import landmarks
from mmkp.data.talker.phrases import SPLITS
from mmkp.data.talker.render import render
from mmkp.data.talker.speech import RATE_HZ
from mmkp.data.talker.view import View, place
from mmkp.data.timing import evenly_spaced, text_at

SIZE = 96  # px: the face's box then has about 75 px
EXCERPT_S = 0.8  # of sound around the picture: the protocol hears 0.5 s, the rest is room for shifts
BOX_SHARE = (0.70, 0.85)
_FRAME_STREAM, _COVER_STREAM = 101, 102  # apart from the clip's own random numbers, whatever is drawn there


def generate(seed: int, index: int, size: int = SIZE, split: str = "train", degrade: bool = True) -> Sample:
    """One sample.

    Args:
        seed: of the whole dataset.
        index: frame `index % 8` of clip `index // 8`; there is no last one.
        size: side of the square picture, px.
        split: train, validation or test, which share neither persons nor sentences.
        degrade: whether a part of the samples is covered, blurred, dark, coarse, noisy or lacks a modality.
    """
    number, frame = divmod(index, FRAMES_PER_CLIP)
    clip = make_clip(seed, split, number)
    rng = np.random.default_rng([seed, SPLITS.index(split), number, _FRAME_STREAM, frame])
    time_s = float(clip.frames_s[frame])
    plan = draw_plan(rng) if degrade else Plan()
    state, held = moment(clip, time_s, rng)
    points_mm = landmarks(clip.person, state)
    view = place(held, points_mm, size, rng.uniform(*BOX_SHARE), rng.uniform(-0.9, 0.9, 2))
    gaze = np.clip(rng.normal(0, [1.8, 0.9]), -4, 4)
    image = render(clip.person, state, points_mm, view, clip.scene, gaze, size)
    image = spoil_picture(image, plan.picture, rng)
    image = sensor_noise(image, clip.scene.noise, rng)
    keypoints_xy = view.project(points_mm).astype(np.float32)
    hidden = hidden_by_head(view, points_mm) | under_locks(clip.person, view, keypoints_xy, size)
    group = f"talker-{split}-{seed}-{number:06d}"
    if plan.picture == "cover":
        image, under = _cover(image, keypoints_xy, [seed, SPLITS.index(split), number, _COVER_STREAM])
        hidden |= under
    sound = excerpt(clip, time_s)
    if plan.noise_db is not None:
        sound = add_noise(sound, plan.noise_db, rng)
    texts = _texts(clip, time_s)
    return Sample(
        id=f"{group}-{frame}", group=group, keypoints_xy=keypoints_xy, visible=np.where(hidden, 1, 2).astype(np.uint8),
        box_xywh=face_box(keypoints_xy),
        image=None if plan.lacking == "image" else image,
        audio=None if plan.lacking == "audio" else sound, rate_hz=RATE_HZ, audio_time_s=EXCERPT_S / 2,
        text=None if plan.lacking == "text" else texts.pop("text"),
        text_controls={} if plan.lacking == "text" else texts,
        info={
            "person": f"{split}-{seed}-{number}", "sentence": clip.sentence, "voice": clip.voice, "time_s": time_s,
            "yaw": view.yaw, "pitch": view.pitch, "roll": view.roll, "mouth": state.as_dict(),
            "degradation": plan.name, "snr_db": plan.noise_db, "covered": plan.picture == "cover",
        },
    )  # fmt: skip


def excerpt(clip: Clip, time_s: float) -> np.ndarray:
    """The `EXCERPT_S` of the clip's sound centred on a moment, silence beyond its ends."""
    length = round(EXCERPT_S * RATE_HZ)
    start = round(time_s * RATE_HZ) - length // 2
    sound = np.zeros(length, np.float32)
    low, high = max(0, start), min(len(clip.sound), start + length)
    sound[low - start : high - start] = clip.sound[low:high]
    return sound


def hidden_by_head(view: View, points_mm: np.ndarray) -> np.ndarray:
    """(68,) which points the head itself hides: jaw and brows that face away, nose and eyes behind the bridge."""
    away = np.zeros(68, bool)
    outward = points_mm - np.array([0.0, 20.0, -80.0])  # from the middle of the skull: near enough to the normal
    outward[:17, 2] *= 0.55  # the jaw's skin faces more to the side than the way from the middle does
    facing = (outward @ view.rotation.T)[:, 2]
    away[:27] = facing[:27] < 0
    tip = view.project(points_mm[30])[0]
    side = np.sign(view.yaw)
    behind = (view.project(points_mm)[:, 0] - tip) * side < 0
    far = points_mm[:, 0] * side > 0
    nose = np.zeros(68, bool)
    nose[31:48] = True
    return away | (behind & far & nose)


def _texts(clip: Clip, time_s: float) -> dict[str, str]:
    even = evenly_spaced([word.text for word in clip.words], clip.speech.duration_s)
    return {"text": text_at(clip.words, time_s), "no_times": clip.sentence, "even_times": text_at(even, time_s)}


def _cover(
    image: UInt8[np.ndarray, "S S 3"], keypoints_xy: np.ndarray, seed: list[int]
) -> tuple[UInt8[np.ndarray, "S S 3"], np.ndarray]:
    """The protocol's cover, one design per clip."""
    from mmkp.data.corrupt import cover

    return cover(image, keypoints_xy, np.random.default_rng(seed))
