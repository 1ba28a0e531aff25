"""Datasets in the custom format, sound ones and ones with every fault that files and tables can have."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from PIL import Image

from mmkp.data.rows import Row, RowTable
from mmkp.schema import load_schema

FACE5 = load_schema("face5")
# A face of 100 x 100 px, seen from the front: right eye, left eye, nose, right and left corner of the mouth.
FRONTAL = np.array([[35, 40], [65, 40], [50, 57], [40, 74], [60, 74]], dtype=np.float32)
CANARY = "words-that-only-the-file-outside-holds"

Record = dict[str, Any]
Breaker = Callable[[Path, Record, np.random.Generator], str | bytes | Record | None]


def picture(seed: int, size_hw: tuple[int, int] = (32, 32)) -> np.ndarray:
    """A smooth random picture; every seed looks different."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def jpeg(seed: int, size_hw: tuple[int, int] = (32, 32), quality: int = 90) -> bytes:
    """`picture` as a JPEG file."""
    made = io.BytesIO()
    Image.fromarray(picture(seed, size_hw)).save(made, "JPEG", quality=quality)
    return made.getvalue()


def tone(seed: int, seconds: float = 0.6, rate_hz: int = 8000) -> np.ndarray:
    """A quiet tone with noise."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).normal(0, 0.02, len(time_s))
    return (0.3 * np.sin(2 * np.pi * (200 + seed % 50) * time_s) + noise).astype(np.float32)


def face(seed: int, scale: float = 0.32) -> np.ndarray:
    """FRONTAL with a pixel of noise, `scale` times as large."""
    return ((FRONTAL + np.random.default_rng(seed).normal(0, 1, FRONTAL.shape)) * scale).astype(np.float32)


def good_record(folder: Path, index: int, size_hw: tuple[int, int] = (32, 32)) -> Record:
    """A sound row: its files written, its line returned."""
    (folder / f"{index:04d}.jpg").write_bytes(jpeg(index, size_hw))
    soundfile.write(folder / f"{index:04d}.wav", tone(index), 8000)
    points = [[round(float(x), 2), round(float(y), 2), 2] for x, y in face(index, size_hw[0] / 100)]
    name = f"{index:04d}"
    return {
        "id": f"row-{index}", "file_name": f"{name}.jpg", "audio": f"{name}.wav", "audio_time": 0.3,
        "text": f"face number {index}", "keypoints": points, "group": f"g{index}",
    }  # fmt: skip


def write_folder(folder: Path, lines: list[str | bytes | Record]) -> Path:
    """metadata.jsonl and schema.yaml (face5)."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = [json.dumps(v).encode() if isinstance(v, dict) else v.encode() if isinstance(v, str) else v for v in lines]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    (folder / "schema.yaml").write_text("schema: face5\n")
    return folder


def good_folder(folder: Path, count: int, size_hw: tuple[int, int] = (32, 32)) -> tuple[Path, list[Record]]:
    """A folder without a fault, and its records."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [good_record(folder, i, size_hw) for i in range(count)]
    write_folder(folder, list(records))
    return folder, records


def table_of(points: np.ndarray, schema_name: str = "face5", **changes: Any) -> RowTable:
    """A table without files from (N, K, 2) keypoints, NaN unlabelled."""
    rows = [
        Row(
            id=f"r{i}", group=f"g{i}", where=f"line {i + 1}", keypoints_xy=xy.astype(np.float32), text="a face",
            visible=np.where(np.isfinite(xy).all(-1), 2, 0).astype(np.uint8),
        ).replace(**changes)
        for i, xy in enumerate(points)
    ]  # fmt: skip
    return RowTable("test", load_schema(schema_name), rows)


def png_bomb(side: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes that claims side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def _file(field: str, content: Callable[[bytes, np.random.Generator], bytes]) -> Breaker:
    """Rewrites the record's file."""

    def breaker(folder: Path, record: Record, rng: np.random.Generator) -> None:
        path = folder / record[field]
        path.write_bytes(content(path.read_bytes(), rng))

    return breaker


def _field(**changes: Any) -> Breaker:
    """Changes fields; a callable is called with the generator."""

    def breaker(folder: Path, record: Record, rng: np.random.Generator) -> Record:
        return {**record, **{k: v(rng) if callable(v) else v for k, v in changes.items()}}

    return breaker


def _points(change: Callable[[list, np.random.Generator], Any]) -> Breaker:
    """Changes the keypoints."""
    return lambda folder, record, rng: {**record, "keypoints": change([list(p) for p in record["keypoints"]], rng)}


def _line(change: Callable[[str, np.random.Generator], str | bytes]) -> Breaker:
    """Changes the line as it stands in the file."""
    return lambda folder, record, rng: change(json.dumps(record), rng)


def _link(folder: Path, record: Record, rng: np.random.Generator) -> None:
    """The picture becomes a link to the canary outside."""
    (folder / record["file_name"]).unlink()
    os.symlink(folder.parent / "outside" / "canary.jpg", folder / record["file_name"])


def _replaced(points: list, at: int, value: Any) -> list:
    points[at % len(points)] = value
    return points


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data) - 2))]


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(1, 400)))


# name -> the kind that must be reported (one of them, where readers may choose), and how the row is broken.
FAULTS: dict[str, tuple[tuple[str, ...], Breaker]] = {
    "truncated jpeg": (("undecodable image",), _file("file_name", _cut)),
    "noise named jpg": (("undecodable image",), _file("file_name", _noise)),
    "empty picture": (("undecodable image",), _file("file_name", lambda data, rng: b"")),
    "png bomb": (("undecodable image",), _file("file_name", lambda data, rng: png_bomb())),
    "text named wav": (("undecodable audio",), _file("audio", lambda data, rng: b"hello, I am a text\n" * 20)),
    "empty sound": (("undecodable audio",), _file("audio", lambda data, rng: b"")),
    "noise named wav": (("undecodable audio",), _file("audio", _noise)),
    "moment outside": (("audio time",), _field(audio_time=lambda rng: float(rng.uniform(2, 1e6)))),
    "silent": (("silent audio",), _file("audio", lambda data, rng: data[:44] + bytes(len(data) - 44))),
    "missing picture": (("missing file",), _field(file_name=lambda rng: f"gone-{rng.integers(99)}.jpg")),
    "missing sound": (("missing file",), _field(audio="gone.wav")),
    "null byte in a name": (("missing file",), _field(file_name="a\0b.jpg")),
    "long name": (("missing file",), _field(file_name="n" * 5000 + ".jpg")),
    "path with ..": (("path escape",), _field(file_name="../outside/canary.jpg")),
    "deep path with ..": (("path escape",), _field(audio="a/../../outside/canary.wav")),
    "windows path": (("path escape",), _field(file_name="..\\outside\\canary.jpg")),
    "absolute path": (("path escape",), _field(file_name="/etc/hostname")),
    "drive": (("path escape",), _field(file_name="C:\\pictures\\a.jpg")),
    "link out": (("path escape",), _link),
    "trailing comma": (("bad json",), _line(lambda line, rng: line[:-1] + ",}")),
    "cut line": (("bad json",), _line(lambda line, rng: line[: int(rng.integers(2, len(line) - 1))])),
    "not an object": (("bad row",), _line(lambda line, rng: ["[1, 2]", "3", '"row"', "null"][rng.integers(4)])),
    "wrong nesting": (("bad json", "bad row"), _line(lambda line, rng: "[" * 3000 + "]" * 3000)),
    "null bytes": (("bad json",), _line(lambda line, rng: b"\0" * int(rng.integers(1, 50)))),
    "latin-1": (("encoding",), lambda f, r, g: json.dumps({**r, "text": "käse"}, ensure_ascii=False).encode("latin-1")),
    "too few points": (("keypoint count",), _points(lambda p, rng: p[: int(rng.integers(1, 5))])),
    "too many points": (("keypoint count",), _points(lambda p, rng: p + [[1, 1, 2]])),
    "ragged points": (("keypoint count", "not a number"), _points(lambda p, rng: _replaced(p, 1, [3]))),
    "deep points": (("keypoint count", "not a number"), _points(lambda p, rng: [p])),
    "words for points": (("not a number",), _points(lambda p, rng: _replaced(p, 0, ["left", "eye", 2]))),
    "a word for all": (("not a number",), _field(keypoints="none of them")),
    "nan": (("not a number",), _points(lambda p, rng: _replaced(p, 2, [float("nan"), 3, 2]))),
    "infinite": (("not a number",), _points(lambda p, rng: _replaced(p, 2, [3, float("inf"), 2]))),
    "huge": (("not a number", "outside image"), _points(lambda p, rng: _replaced(p, 2, [1e300, 3, 2]))),
    "huge integer": (("not a number", "outside image"), _points(lambda p, rng: _replaced(p, 2, [10**400, 3, 2]))),
    "outside": (("outside image",), _points(lambda p, rng: _replaced(p, 3, [float(rng.uniform(34, 1e5)), 3, 2]))),
    "negative place": (("outside image",), _points(lambda p, rng: _replaced(p, 3, [-rng.uniform(2, 999), 3, 2]))),
    "no points": (("no keypoints",), _field(keypoints=None)),
    "negative size": (("bad box",), _field(box=[1, 1, -5, 9])),
    "empty box": (("bad box",), _field(box=[1, 1, 0, 0])),
    "box of words": (("bad box", "not a number"), _field(box=["a", "b", "c", "d"])),
    "box beside": (("bad box",), _field(box=[500, 500, 9, 9])),
    "empty text": (("empty text",), _field(text=lambda rng: " " * int(rng.integers(0, 4)))),
    "text of a list": (("bad row", "empty text"), _field(text=["a", "list"])),
    "two rows one id": (("duplicate id",), _field(id="row-0")),
    "strange flag": (("bad flag",), _points(lambda p, rng: _replaced(p, 2, [3, 3, 7]))),
    "start after end": (("bad row",), _field(audio_start=0.5, audio_end=0.2)),
    "nothing but labels": (("bad row",), _field(file_name=None, audio=None, text=None)),
    "strange split": (("bad row",), _field(split="sometimes")),
}  # fmt: skip


def break_folder(folder: Path, faults: list[str], seed: int = 0, good: int = 30) -> dict[int, str]:
    """A folder of `good` sound rows and one row for each fault; returns the faults by line number."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "canary.jpg").write_bytes(jpeg(10**6) + CANARY.encode())
    soundfile.write(outside / "canary.wav", tone(1), 8000)
    lines: list[str | bytes | Record] = [good_record(folder, i) for i in range(good)]
    for number, name in enumerate(faults, good):
        record = good_record(folder, number)
        changed = FAULTS[name][1](folder, record, rng)
        lines.append(record if changed is None else changed)
    write_folder(folder, lines)
    return {good + 1 + i: name for i, name in enumerate(faults)}
