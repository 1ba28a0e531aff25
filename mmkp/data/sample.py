"""One sample, the form in which every dataset hands out its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, UInt8

from mmkp.schema import KeypointSchema

MODALITIES = ("image", "text", "audio")


@dataclass(frozen=True)
class Sample:
    """One item in the image frame. Any of image, text and audio may be None: absent, not empty.

    Attributes:
        id: unique within the dataset; names the item in every report.
        group: what a split may not divide (clip, person).
        keypoints_xy: (K, 2) px, image frame; NaN where unlabelled.
        visible: (K,) COCO's flag: 0 unlabelled, 1 labelled but hidden, 2 labelled and visible.
        box_xywh: (4,) px, image frame: what the network gets to see.
        image: (H, W, 3) RGB.
        audio: (T,) mono in [-1, 1]; the part that is heard is chosen by `audio_time_s`.
        rate_hz: sampling rate of `audio`.
        audio_time_s: the moment within `audio` that belongs to the picture; the middle when None.
        text: what is said, with `|` at the picture's moment when its place in the words is known.
        text_controls: other texts for the same moment, by name: `no_times` (without cursor), `even_times` (the cursor
            where evenly spaced words would put it: a text whose timing does not come from the sound).
        info: whatever else the dataset knows; never seen by a model.
        people_xy: (P, K, 2) px, image frame: all people of the picture, the sample's own first; None where the data
            knows of one person a picture.
        people_visible: (P, K) their flags.
    """

    id: str
    group: str
    keypoints_xy: Float32[np.ndarray, "K 2"]
    visible: UInt8[np.ndarray, " K"]
    box_xywh: np.ndarray
    image: UInt8[np.ndarray, "H W 3"] | None = None
    audio: Float32[np.ndarray, " T"] | None = None
    rate_hz: int = 16_000
    audio_time_s: float | None = None
    text: str | None = None
    text_controls: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    people_xy: Float32[np.ndarray, "P K 2"] | None = None
    people_visible: UInt8[np.ndarray, "P K"] | None = None

    @property
    def present(self) -> tuple[bool, bool, bool]:
        """Which of image, text and audio are there, in the order of `MODALITIES`."""
        return (self.image is not None, self.text is not None, self.audio is not None)

    def replace(self, **changes: Any) -> Sample:
        """A copy with some fields changed."""
        return replace(self, **changes)


class KeypointDataset(Protocol):
    """What a dataset offers: samples by index, read lazily, and what they mean.

    `name` says which dataset it is, `schema` which keypoints, `fingerprint` changes whenever a sample would.
    `problems` lists what was skipped or masked while reading, one line each, by name.
    """

    name: str
    schema: KeypointSchema
    problems: Sequence[str]

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
