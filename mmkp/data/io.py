"""Pictures and sounds from files, with limits: one clear error for what cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from mmkp.errors import InputError

MAX_PIXELS = 100_000_000  # a 100-megapixel camera; a header that claims more is refused before anything is decoded
MAX_CHANNELS = 2  # mono, or stereo that is mixed down; more channels are a recording of something else
MAX_SAMPLE = 16.0  # of full scale: decoders overshoot 1 a little, samples of another scale by far
MIN_SECONDS = 0.025  # one analysis window of the log-mel frames


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as RGB, turned upright by its EXIF orientation.

    Raises:
        InputError: no such file, no picture, a broken one, or one of more than 100 megapixels.
    """
    path = _existing(path, "image")
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{file.width} x {file.height} pixels")
            return pil_to_rgb(ImageOps.exif_transpose(file), path.name)
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow raises it by itself for the largest headers
        raise InputError(
            f"image {path.name}", expected=f"at most {MAX_PIXELS // 10**6} megapixels", got=str(error),
            remedy="Scale it down first.",
        ) from error  # fmt: skip
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"image {path.name}", expected="a picture (JPEG, PNG, WebP ...)", got=str(error)) from error


def pil_to_rgb(image: Image.Image, name: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """A PIL picture as RGB; 16 bits are scaled to 8, where PIL's own conversion would clip them.

    Raises:
        InputError: fractions (mode F), whose black and white nobody knows.
    """
    if image.mode == "F":
        raise InputError(
            f"image {name}".strip(), expected="a picture of 8 or 16 bits", got="one of fractions (mode F)",
            remedy="Scale it to 0 ... 255 first.",
        )  # fmt: skip
    if image.mode.startswith("I"):
        grey = (np.asarray(image).clip(0, 65_535) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def read_audio(path: str | Path) -> tuple[Float32[np.ndarray, " T"], int]:
    """A sound as mono samples in [-1, 1] and its rate in Hz: WAV, FLAC, OGG, MP3 by soundfile, a video's by PyAV.

    Raises:
        InputError: no such file, no sound, or a sound that `check_audio` refuses.
    """
    import soundfile

    path = _existing(path, "audio")
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        samples, rate_hz = _read_with_pyav(path, error)
    return check_audio(samples, rate_hz, where=f"audio {path.name}"), int(rate_hz)


def check_audio(samples: np.ndarray, rate_hz: int, where: str = "audio") -> Float32[np.ndarray, " T"]:
    """Mono samples that can be heard.

    Args:
        samples: (T,), (T, channels) or (channels, T) with one or two channels, in [-1, 1], or integers of full scale.
        rate_hz: sampling rate.

    Raises:
        InputError: no or too few samples, more than two channels, NaN or infinity, another scale, a rate that is none.
    """
    samples = _as_fractions(np.asarray(samples), where)
    if samples.ndim == 2 and samples.shape[0] <= MAX_CHANNELS < samples.shape[1]:
        samples = samples.T  # channels first, as torchaudio has them
    if not 1000 <= rate_hz <= 768_000:
        raise InputError(where, expected="a sampling rate of 1 to 768 kHz", got=f"{rate_hz} Hz")
    if samples.ndim > 2 or (samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS):
        raise InputError(
            where, expected="one channel (T,), or two (T, 2) to be mixed down", got=f"the shape {samples.shape}",
            remedy="Choose a channel.",
        )  # fmt: skip
    if samples.ndim == 2:
        samples = samples.mean(1)
    if len(samples) < MIN_SECONDS * rate_hz:
        raise InputError(
            where, expected=f"at least {MIN_SECONDS * 1000:.0f} ms of sound", got=f"{len(samples)} samples"
        )
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise InputError(where, expected="finite samples", got=f"{bad} that are NaN or infinite")
    loudest = float(np.abs(samples).max())
    if loudest > MAX_SAMPLE:
        raise InputError(
            where, expected="samples in [-1, 1]", got=f"up to {loudest:g}", remedy="Divide them by their full scale "
            "(32768 of 16 bits).",
        )  # fmt: skip
    return samples


def _as_fractions(samples: np.ndarray, where: str) -> np.ndarray:
    """Float32, full scale at 1; PCM as it comes out of many readers, of which 8 bits are unsigned around 128."""
    kind = samples.dtype.kind
    if kind not in "iuf":
        raise InputError(where, expected="samples as real numbers", got=str(samples.dtype))
    if kind != "f" and samples.dtype.itemsize > 4:  # what numpy makes of plain whole numbers, whatever they meant
        raise InputError(
            where, expected="whole numbers of 8, 16 or 32 bits, whose full scale is known", got=str(samples.dtype),
            remedy="For 16 bits: samples.astype(numpy.int16).",
        )  # fmt: skip
    if kind == "f":
        return samples.astype(np.float32, copy=False)
    half = float(2 ** (8 * samples.dtype.itemsize - 1))
    return ((samples.astype(np.float64) - (half if kind == "u" else 0.0)) / half).astype(np.float32)


def _read_with_pyav(path: Path, first_error: Exception) -> tuple[np.ndarray, int]:
    import av

    refusal = InputError(
        f"audio {path.name}", expected="a sound file (WAV, FLAC, OGG, MP3) or a video with sound", got=str(first_error)
    )
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise refusal
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate)
            frames = [f.to_ndarray()[0] for frame in container.decode(stream) for f in resampler.resample(frame)]
            return (np.concatenate(frames)[:, None] if frames else np.zeros((0, 1), np.float32)), stream.rate
    except (av.FFmpegError, OSError) as error:
        raise refusal from error


def _existing(path: str | Path, kind: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{kind} {path}", expected="a file", got="a folder" if path.is_dir() else "none there")
    return path
