"""How a process that trains on a CPU handles memory; neither changes a result."""

from __future__ import annotations

import ctypes
import os
import sys

# oneDNN compiles a convolution for each shape and keeps 1024. A step's pictures are as many as were not withheld, so
# that there are several thousand shapes, and compiling them again and again took a good part of a step.
PRIMITIVES = "16384"
# glibc's malloc gives large blocks back to the system as soon as they are free (mallopt(3)), and the next step asks for
# them again, page by page.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_FREE, LARGEST = 2**31 - 1, 32 << 20  # bytes; the second is the largest that glibc takes


def prepare_cpu() -> None:
    """Keep compiled convolutions and freed memory for the next step. An environment that says otherwise is heeded."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    change = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if change is not None:
        change(MMAP_THRESHOLD, LARGEST)
        change(TRIM_THRESHOLD, KEPT_FREE)
