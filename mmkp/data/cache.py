"""Pictures and sounds decoded once: a bounded piece of memory that a dataset shares with its loading workers."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

if TYPE_CHECKING:
    from mmkp.data.rows import Row

DEFAULT_MB = 512  # about five hundred pictures of COCO's size; pages that are never written cost nothing
FIELDS = 6  # of an entry: state, offset, dtype, height or samples, width, the sound's rate in Hz
EMPTY, READY = 0, 1
DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))
ALIGN = 64  # bytes, a cache line
LARGEST = 8  # an item may take this fraction of the memory; one hour of sound shall not push all pictures out


class DecodedCache:
    """Arrays by number, kept as they are until the memory is full; then nothing is added and nothing dropped.

    An order that is drawn anew each epoch asks for every item once: what stays from the last epoch is worth more than
    what came last, so that nothing is ever replaced. Workers that are forked (the default on Linux) share one memory;
    those that are spawned get their part of the limit each.

    Args:
        slots: how many different items there can be.
        limit_mb: of memory for all of them together, MiB.
    """

    def __init__(self, slots: int, limit_mb: int) -> None:
        self.slots, self.limit_mb = slots, limit_mb
        self._make(limit_mb)

    def _make(self, limit_mb: int) -> None:
        self.size = limit_mb << 20
        begin = -(-(self.slots + 1) * FIELDS * 8 // ALIGN) * ALIGN
        self._memory: mmap.mmap | None = mmap.mmap(-1, begin + self.size)
        table = np.frombuffer(self._memory, np.int64, (self.slots + 1) * FIELDS).reshape(-1, FIELDS)
        self._used, self._entries = table[0], table[1:]  # the first entry's first number: bytes taken
        self._bytes = np.frombuffer(self._memory, np.uint8, self.size, begin)
        self._lock: Any = multiprocessing.Lock()

    def get(self, slot: int) -> tuple[np.ndarray, int] | None:
        """An array, read-only, and the number kept with it; None where there is none (yet)."""
        self._wake()
        with self._lock:
            state, offset, dtype, first, second, extra = self._entries[slot].tolist()
        if state != READY:
            return None
        shape = (first, second, 3) if DTYPES[dtype] == np.uint8 else (first,)
        stop = offset + int(np.prod(shape)) * DTYPES[dtype].itemsize
        kept = self._bytes[offset:stop].view(DTYPES[dtype]).reshape(shape)
        kept.flags.writeable = False
        return kept, extra

    def put(self, slot: int, array: np.ndarray, extra: int = 0) -> bool:
        """Keep (H, W, 3) uint8 or (T,) float32 with a number. Returns whether there was room."""
        self._wake()
        wanted = -(-array.nbytes // ALIGN) * ALIGN
        if wanted > self.size // LARGEST:
            return False
        with self._lock:
            offset = int(self._used[0])
            if self._entries[slot, 0] == READY or offset + wanted > self.size:
                return False
            self._used[0] = offset + wanted
        self._bytes[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        width = array.shape[1] if array.ndim == 3 else 0
        with self._lock:
            self._entries[slot] = (READY, offset, DTYPES.index(array.dtype), array.shape[0], width, extra)
        return True

    @property
    def used_mb(self) -> float:
        """MiB taken."""
        self._wake()
        return float(self._used[0]) / (1 << 20)

    def _wake(self) -> None:
        if self._memory is None:
            from torch.utils.data import get_worker_info

            worker = get_worker_info()
            self._make(self.limit_mb // (worker.num_workers if worker else 1))

    def __getstate__(self) -> dict[str, Any]:
        return {"slots": self.slots, "limit_mb": self.limit_mb, "_memory": None}


class RowCache:
    """The decoded pictures and sounds of rows; rows of one file (people of one picture) share what they share.

    Args:
        rows: of the dataset.
        limit_mb: of memory, MiB.
    """

    def __init__(self, rows: Sequence[Row], limit_mb: int = DEFAULT_MB) -> None:
        keys = [_image_key(row) for row in rows if row.image is not None]
        keys += [_audio_key(row) for row in rows if row.audio is not None]
        self._slots = {key: slot for slot, key in enumerate(dict.fromkeys(keys))}
        self._kept = DecodedCache(len(self._slots), limit_mb)

    def image(self, row: Row, read: Callable[[Row], UInt8[np.ndarray, "H W 3"]]) -> UInt8[np.ndarray, "H W 3"]:
        """The row's picture as `read` gives it, read-only."""
        slot = self._slots[_image_key(row)]
        kept = self._kept.get(slot)
        if kept is not None:
            return kept[0]
        image = read(row)
        self._kept.put(slot, image)
        return image

    def audio(
        self, row: Row, read: Callable[[Row], tuple[Float32[np.ndarray, " T"], int, float | None]]
    ) -> tuple[Float32[np.ndarray, " T"], int, float | None]:
        """The row's sound as `read` gives it: samples, rate in Hz, the picture's moment within it, s."""
        slot = self._slots[_audio_key(row)]
        kept = self._kept.get(slot)
        if kept is not None:
            time_s = None if row.audio_time_s is None else row.audio_time_s - (row.audio_start_s or 0.0)
            return kept[0].copy(), kept[1], time_s
        samples, rate_hz, time_s = read(row)
        self._kept.put(slot, samples, rate_hz)
        return samples, rate_hz, time_s


def _image_key(row: Row) -> tuple:
    return ("image", str(row.image), row.frame)


def _audio_key(row: Row) -> tuple:
    return ("audio", str(row.audio), row.audio_start_s, row.audio_end_s)
