"""What an augmentation may do, and how much of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]


class AugmentConfig(BaseModel):
    """Ranges and probabilities. A range of 0 or a probability of 0 turns a thing off.

    Geometry is drawn only for samples that show their image: nobody could tell a turn from sound or words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 15.0  # uniform in +-
    scale: Fraction = 0.10  # log-uniform between 1 / (1 + scale) and 1 + scale
    shift: Fraction = 0.05  # uniform in +-, fraction of the input's sides
    flip: Probability = 0.5  # nothing for a schema without flip pairs
    flip_words: bool = True  # a flip swaps left and right in the text; off where words are not about the picture
    crop: Probability = 0.0  # enlarge a half of the input twofold, one that holds a keypoint

    brightness: Fraction = 0.2  # factor uniform in 1 +-
    contrast: Fraction = 0.2  # about mid-grey, factor uniform in 1 +-
    saturation: Fraction = 0.2  # factor uniform in 1 +-
    hue_deg: Annotated[float, Field(ge=0, le=180)] = 6.0  # turn of the colour circle, uniform in +-
    grey: Probability = 0.05
    blur: Probability = 0.1
    blur_sigma_px: Amount = 1.5  # at most; input px
    noise_std: Amount = 4.0  # at most; levels of 255
    jpeg: Probability = 0.1
    jpeg_quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (30, 90)
    low_resolution: Probability = 0.05
    low_resolution_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0  # at most
    occluders: Probability = 0.1  # up to three opaque shapes anywhere
    occluder_size: Fraction = 0.25  # at most, half width or height as a fraction of the input's side
    cover: Probability = 0.0  # face68 only: the cover of `mmkp.data.corrupt`

    gain_db: Amount = 6.0  # uniform in +-
    audio_noise: Probability = 0.3  # white, pink, or babble made of the recording itself
    snr_db: tuple[float, float] = (5.0, 30.0)  # against the mean power of the whole recording
    audio_shift_ms: Amount = 0.0  # uniform in +-: the window misses the picture by so much
    time_masks: Count = 1
    time_mask_frames: Count = 4  # at most, each
    freq_masks: Count = 1
    freq_mask_bins: Count = 8  # at most, each

    text_drop_words: Probability = 0.0  # per word; at least one word stays
    text_no_times: Probability = 0.0  # takes the sample's `no_times` text where it has one

    drop_image: Probability = 0.0
    drop_text: Probability = 0.0
    drop_audio: Probability = 0.0
    conflict: Probability = 0.0  # a clear picture's words, sound or both are another clip's: learns to doubt them

    @model_validator(mode="after")
    def _ranges_ordered(self) -> AugmentConfig:
        for name in ("jpeg_quality", "snr_db"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"{name} must be (low, high), not ({low}, {high})")
        return self

    @classmethod
    def off(cls) -> AugmentConfig:
        """The configuration that changes nothing: `Augmenter` then gives the plain crop."""
        names = set(cls.model_fields) - {"flip_words", "jpeg_quality", "snr_db", "low_resolution_factor"}
        return cls.model_validate(dict.fromkeys(names, 0))
