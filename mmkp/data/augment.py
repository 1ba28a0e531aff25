"""Deterministic augmentation: the same generator gives the same picture, points, words and sound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from mmkp import geometry
from mmkp.data import augment_image
from mmkp.data.augment_audio import augment_audio, spec_augment
from mmkp.data.augment_config import AugmentConfig
from mmkp.data.augment_text import drop_words, swap_sides
from mmkp.data.corrupt import NUM_FACE_KEYPOINTS, can_cover, cover, under
from mmkp.data.sample import MODALITIES, Sample
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema

__all__ = ["AugmentConfig", "Augmented", "Augmenter", "rng_for", "spec_augment"]


def rng_for(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch: the same whichever worker draws it, and in whatever order."""
    return np.random.default_rng([seed, epoch, index])


@dataclass(frozen=True)
class Augmented:
    """A sample in the input frame.

    Attributes:
        image_to_input: (2, 3) image frame -> input frame, flip included.
        image: (h, w, 3) uint8 RGB, input frame; None when absent or dropped.
        keypoints_xy: (K, 2) px, input frame, left and right exchanged in a flipped picture; NaN where unlabelled.
        visible: (K,) COCO's flag; 1 (hidden) for what lies under a cover or outside the input.
        text: None when absent or dropped.
        audio: (T,) the whole recording, changed about its window; None when absent or dropped.
        rate_hz: sampling rate of `audio`.
        audio_time_s: the moment in `audio` that belongs to the picture, `audio_shift_ms` included; None for the middle.
        modality_mask: (3,) which of image, text and audio are present and not dropped.
        flipped: whether the picture is mirrored.
        people_xy: (P, K, 2) px, input frame, of all people; None where the sample has none.
        people_visible: (P, K) their flags.
    """

    image_to_input: Float[np.ndarray, "2 3"]
    image: UInt8[np.ndarray, "h w 3"] | None
    keypoints_xy: Float32[np.ndarray, "K 2"]
    visible: UInt8[np.ndarray, " K"]
    text: str | None
    audio: Float32[np.ndarray, " T"] | None
    rate_hz: int
    audio_time_s: float | None
    modality_mask: Bool[np.ndarray, " 3"]
    flipped: bool
    people_xy: Float32[np.ndarray, "P K 2"] | None = None
    people_visible: UInt8[np.ndarray, "P K"] | None = None


class Augmenter:
    """Turns samples into augmented ones of a given input size; holds no state.

    Args:
        config: what may happen, and how much.
        schema: which points change places in a mirrored picture.
        input_size_hw: height and width of the network's input, px.

    Raises:
        InputError: a cover is asked for and the schema is not face68.
    """

    def __init__(self, config: AugmentConfig, schema: KeypointSchema, input_size_hw: tuple[int, int]) -> None:
        if config.cover and not (schema.name == "face68" and schema.num_keypoints == NUM_FACE_KEYPOINTS):
            raise InputError(
                "augment.cover", expected="the schema face68", got=schema.name,
                remedy="Set augment.cover to 0 and use augment.occluders instead.",
            )  # fmt: skip
        self.config, self.schema = config, schema
        self.input_size_hw = (int(input_size_hw[0]), int(input_size_hw[1]))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Augmented:
        """Augment one sample; all chance comes from `rng`."""
        mask = self._modalities(sample, rng)
        before_flip, flipped = self._geometry(sample, bool(mask[0]), rng)
        affine, points, visible = self._points(sample.keypoints_xy, sample.visible, before_flip, flipped)
        people, seen = self._people(sample, before_flip, flipped)
        image = None
        if mask[0] and sample.image is not None:
            image = geometry.warp(sample.image, before_flip, self.input_size_hw)
            image = cv2.flip(image, 1) if flipped else image  # bits of the unflipped picture, mirrored
            image, visible = self._scene(image, points, visible, rng, people, seen)
            image = augment_image.camera(image, self.config, rng)
        text = self._text(sample, flipped, rng) if mask[1] else None
        audio, time_s = self._audio(sample, rng) if mask[2] else (None, None)
        return Augmented(
            image_to_input=affine, image=image, keypoints_xy=points.astype(np.float32), visible=visible, text=text,
            audio=audio, rate_hz=sample.rate_hz, audio_time_s=time_s, modality_mask=mask, flipped=flipped,
            people_xy=None if people is None else people.astype(np.float32), people_visible=seen,
        )  # fmt: skip

    def _modalities(self, sample: Sample, rng: np.random.Generator) -> Bool[np.ndarray, " 3"]:
        """Which modalities are present and stay; one drawn at random stays when all of them would go."""
        present = np.array(sample.present)
        chances = [getattr(self.config, f"drop_{name}") for name in MODALITIES]
        kept = present & (rng.random(len(MODALITIES)) >= chances)
        survivor = rng.random()
        if present.any() and not kept.any():
            choices = np.flatnonzero(present)
            kept[choices[int(survivor * len(choices))]] = True
        return kept

    def _geometry(self, sample: Sample, shown: bool, rng: np.random.Generator) -> tuple[Float[np.ndarray, "2 3"], bool]:
        """Image frame -> input frame without the flip, and whether to flip; the plain crop where no image is shown."""
        config, size = self.config, self.input_size_hw
        plain = geometry.crop_affine(sample.box_xywh, size)
        angle, log_scale, shift_x, shift_y = rng.uniform(-1, 1, 4)
        flip, crop = rng.random(2)
        if not shown:
            return plain, False
        turn = geometry.augment_affine(
            size, angle * config.rotate_deg, math.exp(log_scale * math.log1p(config.scale)),
            (shift_x * config.shift * size[1], shift_y * config.shift * size[0]),
        )  # fmt: skip
        affine = geometry.compose(turn, plain)
        if crop < config.crop:
            affine = geometry.compose(self._half_crop(geometry.transform(sample.keypoints_xy, affine), rng), affine)
        return affine, bool(self.schema.flip_pairs) and bool(flip < config.flip)

    def _half_crop(self, points: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, "2 3"]:
        """Enlarge a random half-sized window that lies in the input and, if it can, holds a random labelled point."""
        half = np.array(self.input_size_hw[::-1]) / 2
        known = points[np.isfinite(points).all(axis=1)]
        anchor = known[rng.integers(len(known))] if len(known) else half
        low = np.clip(anchor - rng.random(2) * half, 0, half) - 0.5
        return geometry.crop_affine(np.concatenate([low, half]), self.input_size_hw)

    def _points(
        self, keypoints_xy: np.ndarray, visible: np.ndarray, before_flip: np.ndarray, flipped: bool
    ) -> tuple[Float[np.ndarray, "2 3"], Float[np.ndarray, "*P K 2"], UInt8[np.ndarray, "*P K"]]:
        """The whole affine, the points in the input frame, and their visibility; what falls outside is hidden."""
        height, width = self.input_size_hw
        order = self.schema.flip_index if flipped else slice(None)
        affine = geometry.compose(geometry.flip_affine(width), before_flip) if flipped else before_flip
        points = geometry.transform(keypoints_xy.astype(np.float64), affine)[..., order, :]
        visible = visible[..., order].copy()
        outside = ((points < -0.5) | (points > (width - 0.5, height - 0.5))).any(axis=-1)
        visible[outside & (visible == 2)] = 1
        return affine, points, visible

    def _people(
        self, sample: Sample, before_flip: np.ndarray, flipped: bool
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """All people's points in the input frame, and their visibility."""
        if sample.people_xy is None or sample.people_visible is None:
            return None, None
        return self._points(sample.people_xy, sample.people_visible, before_flip, flipped)[1:]

    def _scene(
        self, image: np.ndarray, points: np.ndarray, visible: np.ndarray, rng: np.random.Generator,
        people: np.ndarray | None = None, seen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Lay covers and occluders before the face, and mark what they hide; `seen` is marked in place."""
        if rng.random() < self.config.cover and can_cover(points):
            image, hidden = cover(image, points, rng)
            visible[hidden & (visible == 2)] = 1
            if seen is not None:
                seen[0][hidden & (seen[0] == 2)] = 1  # the first of the people is the sample's own
        if self.config.occluder_size and rng.random() < self.config.occluders:
            image, alpha = augment_image.occlude(image, self.config, rng)
            visible[under(alpha, points) & (visible == 2)] = 1
            if people is not None and seen is not None:
                seen[under(alpha, people.reshape(-1, 2)).reshape(seen.shape) & (seen == 2)] = 1
        return image, visible

    def _text(self, sample: Sample, flipped: bool, rng: np.random.Generator) -> str:
        """The text, perhaps without times, with words lost, and left and right exchanged when flipped."""
        assert sample.text is not None
        text = sample.text
        if rng.random() < self.config.text_no_times:
            text = sample.text_controls.get("no_times", text)
        text = drop_words(text, self.config.text_drop_words, rng)
        return swap_sides(text) if flipped and self.config.flip_words else text

    def _audio(self, sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, float | None]:
        """The recording with gain and noise about its window, and the moment to listen to."""
        assert sample.audio is not None
        time_s = sample.audio_time_s
        if self.config.audio_shift_ms:
            middle_s = len(sample.audio) // 2 / sample.rate_hz
            shift_s = rng.uniform(-1, 1) * self.config.audio_shift_ms / 1000
            time_s = (middle_s if time_s is None else time_s) + shift_s
        return augment_audio(sample.audio, sample.rate_hz, time_s, self.config, rng), time_s
