"""Log-mel frames of the sound around a moment."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
import torchaudio
from transformers import BatchFeature, SequenceFeatureExtractor

from mmkp.data.io import check_audio
from mmkp.data.window import window
from mmkp.errors import InputError

HOP_S, FRAME_S = 0.010, 0.025  # the usual frames of speech recognition
FLOOR = 1e-6  # added to the mel power: about 16-bit quantisation noise
LOG_MEAN, LOG_STD = -5.3, 4.3  # of log-mel power over the training clips of GRID s1; fixed, so that loudness is kept


class MmkpFeatureExtractor(SequenceFeatureExtractor):
    """Mono sound -> (B, F, M) log-mel frames of the window around `audio_times`, and which frames are real.

    Args:
        feature_size: M, mel bins.
        sampling_rate: Hz that the frames are made at; other rates are resampled.
        window_s: seconds, centred on the moment.
    """

    model_input_names = ["input_features", "input_features_mask"]

    def __init__(
        self, feature_size: int = 64, sampling_rate: int = 16_000, window_s: float = 0.5, padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.window_s = window_s

    def to_dict(self) -> dict[str, Any]:
        """The plain form, without the transform that is rebuilt on demand."""
        return {k: v for k, v in super().to_dict().items() if k != "mel"}

    @cached_property
    def mel(self) -> torchaudio.transforms.MelSpectrogram:
        """torchaudio's transform, made on first use."""
        return torchaudio.transforms.MelSpectrogram(
            self.sampling_rate, n_fft=round(FRAME_S * self.sampling_rate), hop_length=round(HOP_S * self.sampling_rate),
            n_mels=self.feature_size, f_min=20.0,
        )  # fmt: skip

    def __call__(
        self,
        raw_speech: np.ndarray | list[np.ndarray],
        sampling_rate: int | list[int] | None = None,
        audio_times: list[float | None] | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Features of a batch.

        Args:
            raw_speech: one (T,) array or a list of them, in [-1, 1]; (T, 2) is mixed down.
            sampling_rate: Hz, for all or for each.
            audio_times: seconds into each sound; its middle where None.

        Raises:
            InputError: no rate, or a sound that `check_audio` refuses.
        """
        sounds = [raw_speech] if isinstance(raw_speech, np.ndarray) else list(raw_speech)
        rates = sampling_rate if isinstance(sampling_rate, list) else [sampling_rate] * len(sounds)
        times = audio_times or [None] * len(sounds)
        cut = [self.cut(s, r, t) for s, r, t in zip(sounds, rates, times, strict=True)]
        waves = torch.from_numpy(np.stack([c[0] for c in cut]))
        features, mask = self.frames(waves, [c[1] for c in cut])
        return BatchFeature({"input_features": features, "input_features_mask": mask}, tensor_type=return_tensors)

    def cut(self, sound: np.ndarray, rate_hz: int | None, time_s: float | None) -> tuple[np.ndarray, tuple[int, int]]:
        """The window of one sound at the extractor's rate, zero-padded, and the range of samples that are real."""
        if rate_hz is None:
            raise InputError("sampling_rate", expected="the sound's rate in Hz", got="none", remedy="Pass it.")
        sound = check_audio(sound, rate_hz)
        duration_s = len(sound) / rate_hz
        moment_s = time_s = duration_s / 2 if time_s is None else float(time_s)
        if not -1 <= time_s <= duration_s + 1:  # NaN and infinity too: beyond this no window touches the sound
            raise InputError(
                "audio_time", expected=f"a moment of the sound, {duration_s:.2f} s long", got=f"{time_s} s"
            )
        if rate_hz != self.sampling_rate:
            margin_s = self.window_s / 2 + 0.05  # what the resampling filter sees beyond the window
            start = max(0, int((time_s - margin_s) * rate_hz))
            piece = torch.from_numpy(np.ascontiguousarray(sound[start : int((time_s + margin_s) * rate_hz) + 1]))
            if piece.numel():
                sound = torchaudio.functional.resample(piece, rate_hz, self.sampling_rate).numpy()
                time_s -= start / rate_hz
        cut, real = window(sound, self.sampling_rate, time_s, self.window_s)
        if real[1] <= real[0]:
            raise InputError(
                "audio_time", expected=f"a moment of the sound, {duration_s:.2f} s long", got=f"{moment_s} s"
            )
        return cut, real

    def frames(self, waves: torch.Tensor, real: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (B, T) and their real ranges of samples -> frames (B, F, M) and mask (B, F), True = real."""
        features = (((self.mel(waves) + FLOOR).log() - LOG_MEAN) / LOG_STD).transpose(1, 2)
        centre = torch.arange(features.shape[1]) * round(HOP_S * self.sampling_rate)
        bounds = torch.tensor(real)
        mask = (centre >= bounds[:, :1]) & (centre <= bounds[:, 1:])
        return torch.where(mask[..., None], features, torch.full_like(features, self.padding_value)), mask
