"""The next batches, made while the last one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2  # batches ahead: a slow one is bridged, and little is made in vain when a run ends


def prefetched(source: Iterator[T], depth: int = DEPTH) -> Iterator[T]:
    """The same items in the same order, made by one thread up to `depth` ahead.

    Decoding, warping and spectrograms let other threads run, so that one thread goes far without a worker process. An
    error comes out where its item would have.

    Args:
        source: an iterator that no one else advances; its items are not None.
        depth: how many may wait.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="mmkp-batches")
    try:
        waiting = deque(pool.submit(next, source, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
