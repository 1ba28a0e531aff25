"""What a safetensors file says it holds, read and checked before any library maps it into memory."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from mmkp.errors import InputError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_HEADER_BYTES = 25_000_000  # huggingface_hub's own bound
MOST_INDEX_BYTES = 10_000_000
BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "U16": 2, "U32": 4,
    "U64": 8, "BOOL": 1,
}  # fmt: skip
PICKLES = tuple((bytes((0x80, protocol)), "a pickle") for protocol in range(2, 6))
FOREIGN = (*PICKLES, (b"PK\x03\x04", "a zip archive, as torch.save writes"), (b"\x1f\x8b", "a gzip file"))
EXPECTED = "a checkpoint of mmkp, in safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors: one, or those that its index names.

    Raises:
        InputError: there are none, or the index names files outside the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"})
        raise InputError(
            f"model {folder}", expected=f"weights as {WEIGHTS}", got=", ".join(pickled[:3]) or "none",
            remedy="Pickled weights can run code and are never loaded." if pickled else "Other forms are not loaded.",
        )  # fmt: skip
    return [folder / name for name in _indexed(folder)]


def _indexed(folder: Path) -> list[str]:
    where = f"model {folder}, {INDEX}"
    if (folder / INDEX).stat().st_size > MOST_INDEX_BYTES:
        raise InputError(where, expected=f"at most {MOST_INDEX_BYTES} bytes", got="more")
    try:
        named = json.loads((folder / INDEX).read_text())["weight_map"].values()
        names = sorted({str(name) for name in named})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(where, expected="JSON with a weight_map", got=type(error).__name__) from error
    for name in names:
        if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise InputError(where, expected="names of safetensors files in the same folder", got=repr(name))
        if not (folder / name).is_file():
            raise InputError(where, expected=f"the file {name}", got="none there")
    if not names:
        raise InputError(where, expected="a weight_map that names files", got="an empty one")
    return names


def tensors_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a checkpoint, by name.

    Raises:
        InputError: a file that is no sound safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        shapes |= {name: tuple(entry["shape"]) for name, entry in read_header(path).items()}
    return shapes


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, `dtype`, `shape` and `data_offsets` by name.

    Raises:
        InputError: a pickle, a header that is too large or no JSON, tensors that overlap, leave gaps or lie outside.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        for magic, kind in FOREIGN:
            if head.startswith(magic) and not _plausible(head, size):
                raise _unsound(path, f"{kind} by that name")
        if len(head) < 8 or not _plausible(head, size):
            raise _unsound(path, f"a header said to be longer than the file or than {MOST_HEADER_BYTES:,} bytes")
        length = struct.unpack("<Q", head)[0]
        header = _parse(path, file.read(length))
    header.pop("__metadata__", None)
    _check_offsets(path, header, size - 8 - length)
    return header


def _plausible(head: bytes, size: int) -> bool:
    return len(head) == 8 and 2 <= struct.unpack("<Q", head)[0] <= min(MOST_HEADER_BYTES, size - 8)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise _unsound(path, f"a header that cannot be read ({str(error)[:80]})") from error
    if not isinstance(header, dict):
        raise _unsound(path, "a header that is no object")
    return header


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands in it twice")
    return made


def _check_offsets(path: Path, header: dict[str, Any], room: int) -> None:
    """Tensors must fill the file without gap or overlap, each as large as its shape says."""
    spans = []
    for name, entry in header.items():
        try:
            shape, (begin, end) = entry["shape"], entry["data_offsets"]
            right = all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in (*shape, begin, end))
            needed = math.prod(shape) * BYTES[entry["dtype"]] if right else -1
        except (KeyError, TypeError, ValueError) as error:
            raise _unsound(path, f"an unusable entry for {name[:80]!r}") from error
        if not right or end - begin != needed:
            raise _unsound(path, f"{name[:80]!r}, whose offsets do not fit its shape")
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            fault = "overlaps" if begin < at else "leaves a gap to"
            raise _unsound(path, f"{name[:80]!r}, which {fault} its neighbour")
        at = end
    if at != room:
        raise _unsound(path, f"{room} bytes of tensors where {at} are described")


def _unsound(path: Path, got: str) -> InputError:
    return InputError(f"model file {path}", expected=EXPECTED, got=got)
