"""Pictures and sounds from wherever a user has them: a path, a URL, base64, bytes, or an array."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import urlparse
from urllib.request import Request, url2pathname, urlopen

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from mmkp.data.io import read_audio, read_image
from mmkp.errors import InputError
from mmkp.image_processing_mmkp import as_rgb

TIMEOUT_S = 20.0  # without an answer for so long a server is taken for dead
MAX_BYTES = 500_000_000  # an hour of WAV at 48 kHz is 350 MB; more is no sound around a picture
SHORTEST_BASE64 = 64  # characters; the smallest PNG has 67 bytes. A shorter string is a path that was mistyped
AUDIO_FORMS = "a path, a URL, bytes, (samples, rate in Hz), or {'array': samples, 'sampling_rate': Hz}"

T = TypeVar("T")


def load_image(source: Any, timeout_s: float = TIMEOUT_S) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as RGB, upright by its EXIF orientation.

    Args:
        source: a PIL picture, a uint8 array (H, W, 3) or (H, W), a path, an http(s) or file URL, base64 (bare or as a
            data URL), a file's bytes, an open file, or what `datasets` gives undecoded, {"bytes": ..., "path": ...}.
        timeout_s: for a URL.

    Raises:
        InputError: none of these, or one that cannot be read.
    """
    if isinstance(source, Mapping) and {"bytes", "path"} & set(source):
        source = source.get("bytes") or source.get("path")
    source = _content(source)
    if isinstance(source, (str, os.PathLike, bytes)):
        return _read("image", source, read_image, timeout_s)
    return as_rgb(ImageOps.exif_transpose(source) if isinstance(source, Image.Image) else source)


def from_cli(path: Path) -> str | Path:
    """A path as it was typed: a URL, from which a path has taken a slash, becomes one again."""
    text = re.sub(r"^(https?):/+", r"\1://", str(path), flags=re.IGNORECASE)
    return path if text == str(path) else text


def load_audio(source: Any, sampling_rate: int | None = None, timeout_s: float = TIMEOUT_S) -> tuple[np.ndarray, int]:
    """Samples, (T,) or (T, 2), and their rate in Hz; whether they can be heard is checked by the feature extractor.

    Args:
        source: a path, a URL, base64, a file's bytes, an open file, a pair of samples and rate in either order, a
            mapping with `array` or `raw` and `sampling_rate` (or `bytes` or `path`), torchcodec's decoder, or bare
            samples.
        sampling_rate: Hz, of bare samples.
        timeout_s: for a URL.

    Raises:
        InputError: none of these, one that cannot be read, or samples without a rate.
    """
    if isinstance(source, Mapping):
        samples = next((source[k] for k in ("array", "raw") if source.get(k) is not None), None)
        source = (samples, source.get("sampling_rate")) if samples is not None else (
            source.get("bytes") or source.get("path")
        )  # fmt: skip
    source = _content(source)
    if isinstance(source, (str, os.PathLike, bytes)):
        return _read("audio", source, read_audio, timeout_s)
    if hasattr(source, "get_all_samples"):  # torchcodec's, as `datasets` decodes: (channels, T)
        heard = source.get_all_samples()
        source = (np.asarray(heard.data).T, heard.sample_rate)
    samples, rate = _pair(source) if isinstance(source, (tuple, list)) else (source, sampling_rate)
    samples = np.asarray(samples.cpu() if hasattr(samples, "cpu") else samples)
    if not np.issubdtype(samples.dtype, np.number) or samples.ndim == 0:
        raise InputError("audio", expected=AUDIO_FORMS, got=type(source).__name__)
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not float(rate).is_integer():
        raise InputError(
            "sampling_rate", expected="the sound's rate in Hz", got="none" if rate is None else repr(rate),
            remedy="Give it beside the samples, for example audio=(samples, 16000).",
        )  # fmt: skip
    return samples, int(rate)


def _content(source: Any) -> Any:
    """The bytes of an open file; anything else as it is."""
    content = source.read() if callable(getattr(source, "read", None)) else source
    if isinstance(content, str) and content is not source:
        raise InputError("file", expected="one that is opened for bytes, mode 'rb'", got="one that gives text")
    return content


def _pair(source: Any) -> tuple[Any, Any]:
    """(samples, rate), as soundfile gives them, out of that or of (rate, samples), as scipy and gradio do."""
    if len(source) != 2:
        raise InputError("audio", expected=AUDIO_FORMS, got=f"a {type(source).__name__} of {len(source)}")
    return (source[1], source[0]) if np.ndim(source[0]) == 0 else (source[0], source[1])


def _read(kind: str, source: str | os.PathLike | bytes, reader: Callable[[Path], T], timeout_s: float) -> T:
    """What `reader` makes of a file, or of bytes that are spooled to one."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and os.path.isfile(source)):
        return reader(Path(source))
    name, content = ("of bytes", source) if isinstance(source, bytes) else _fetch(kind, str(source), timeout_s)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "content"
        file.write_bytes(content)
        try:
            return reader(file)
        except InputError as error:  # which names the spooled file
            raise InputError(
                f"{kind} {name}", expected=error.expected, got=error.got.replace(str(file), "it"), remedy=error.remedy
            ) from error


def _fetch(kind: str, source: str, timeout_s: float) -> tuple[str, bytes]:
    """The bytes behind a URL or in base64, and a name for them."""
    if source.lower().startswith(("http://", "https://")):
        return source, _download(kind, source, timeout_s)
    if source.lower().startswith("file://"):
        path = url2pathname(urlparse(source).path)
        if not os.path.isfile(path):
            raise InputError(f"{kind} {source[:80]}", expected="a file", got="none there")
        return source, Path(path).read_bytes()
    is_data = source.startswith("data:")
    text = source.partition(",")[2] if is_data else source
    try:
        if not is_data and len(text) < SHORTEST_BASE64:
            raise ValueError("too short")
        return "in base64", base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"{kind} {source[:80]}", expected="a path, an http(s) URL or base64",
            got="a folder" if os.path.isdir(source) else "no such file",
        ) from error  # fmt: skip


def _download(kind: str, url: str, timeout_s: float) -> bytes:
    try:
        request = Request(url, headers={"User-Agent": "mmkp"})  # some servers refuse Python's own
        with urlopen(request, timeout=timeout_s) as answer:
            content = answer.read(MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:  # of the system, of the protocol, of the URL's form
        raise InputError(f"{kind} {url}", expected="a URL that answers", got=str(error)) from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{kind} {url}", expected=f"at most {MAX_BYTES // 10**6} MB", got="more")
    return content
