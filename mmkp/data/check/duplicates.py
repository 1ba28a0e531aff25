"""The same picture twice, by its bytes or by its looks; the same group in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from mmkp.data.check.findings import Finding, found
from mmkp.data.check.probe import Picture, Probes, image_key
from mmkp.data.rows import Row
from mmkp.data.splits import canonical

BANDS = 4  # of 16 bits: two hashes that differ in at most BANDS - 1 bits agree in at least one band
NEAR_BITS = BANDS - 1
# Correlation of two 16 x 16 thumbnails. COCO pictures saved again (JPEG 30 to 80, down to a quarter of their size) have
# 0.9993 and more; frames of different GRID clips of one speaker 0.9979 at the 99th percentile.
ALIKE = 0.999
FLAT = 4.0  # grey levels: the spread below which a thumbnail has no looks to go by
BUCKET = 256  # pictures compared with at most, per band: keeps a film of one scene from going quadratic


def difference_hash(thumb: UInt8[np.ndarray, "16 16"]) -> int:
    """64 bits: is each cell of 8 x 9 darker than its neighbour on the right?

    Source: N. Krawetz, "Kind of Like That" (2013), dHash.
    """
    small = cv2.resize(thumb, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def duplicates(rows: Sequence[Row], probes: Probes) -> list[int]:
    """(N,) for each row the earlier row whose picture file has the same bytes, -1 where there is none.

    Rows that share a file (people in one photo) are no duplicates, unless nothing at all tells them apart; nor are
    frames of one video.
    """
    first_by_digest: dict[str, int] = {}
    first_by_content: dict[tuple, int] = {}
    earlier = []
    for i, row in enumerate(rows):
        picture = probes.picture(row)
        if not isinstance(picture, Picture):
            earlier.append(-1)
            continue
        keypoints = np.asarray(row.keypoints_xy, np.float32).tobytes()
        content = (image_key(row), keypoints, row.text, row.audio, row.audio_start_s, row.audio_end_s, row.audio_time_s)
        same = first_by_content.setdefault(content, i)
        if same == i:
            same = first_by_digest.setdefault(picture.digest, i)
            if row.image == rows[same].image:
                same = i
        earlier.append(same if same != i else -1)
    return earlier


def judge_duplicates(rows: Sequence[Row], numbers: Sequence[int], probes: Probes) -> Iterator[Finding]:
    """Exact duplicates, then near ones: pictures that look the same though they belong to different groups."""
    same = duplicates(rows, probes)
    for i, j in enumerate(same):
        if j >= 0:
            message = f"the same picture as {rows[j].where} ({rows[j].id}){_across(rows[i], rows[j])}"
            yield found("duplicate image", rows[i], numbers[i], message)
    for i, j in _near(rows, probes, same):
        message = f"looks like {rows[j].where} ({rows[j].id}){_across(rows[i], rows[j])}"
        yield found("near duplicate", rows[i], numbers[i], message)


def _near(rows: Sequence[Row], probes: Probes, same: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of rows that show nearly the same picture.

    Within a group likeness is what one expects (a clip's frames), and so it is between rows of one file. A group is
    named once, by its first such picture.
    """
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    kept: dict[int, tuple[int, np.ndarray]] = {}
    seen, named = set(), set()
    for i, row in enumerate(rows):
        picture = probes.picture(row)
        if same[i] >= 0 or not isinstance(picture, Picture) or image_key(row) in seen:
            continue
        seen.add(image_key(row))
        if (spread := float(picture.thumb.std())) < FLAT:
            continue
        bits = difference_hash(picture.thumb)
        looks = (picture.thumb.ravel() - picture.thumb.mean()).astype(np.float32) / np.float32(spread * 16)
        bands = [(band, bits >> (16 * band) & 0xFFFF) for band in range(BANDS)]
        candidates = dict.fromkeys(j for band in bands for j in buckets[band])
        alike = [j for j in candidates if (kept[j][0] ^ bits).bit_count() <= NEAR_BITS and kept[j][1] @ looks >= ALIKE]
        others = [j for j in alike if rows[j].group != row.group and row.group not in named]
        if others:
            named.add(row.group)
            yield i, others[0]
        if not alike:
            kept[i] = (bits, looks)
            for band in bands:
                if len(buckets[band]) < BUCKET:
                    buckets[band].append(i)


def _across(row: Row, other: Row) -> str:
    splits = canonical(other.split), canonical(row.split)
    return f"; one is in {splits[0]}, the other in {splits[1]}" if None not in splits and splits[0] != splits[1] else ""


def home_splits(rows: Sequence[Row]) -> dict[str, str]:
    """For every group in more than one split the one that holds most of its rows; on a tie the first named."""
    named: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if split := canonical(row.split):
            named[row.group][split] += 1
    return {group: counts.most_common(1)[0][0] for group, counts in named.items() if len(counts) > 1}


def judge_groups(rows: Sequence[Row], numbers: Sequence[int]) -> Iterator[Finding]:
    """One finding per row that lies in another split than most of its group."""
    homes = home_splits(rows)
    for row, number in zip(rows, numbers, strict=True):
        home, split = homes.get(row.group), canonical(row.split)
        if home and split and split != home:
            yield found(
                "group in two splits", row, number, f"group {row.group!r} is in {home} too, this row in {split}"
            )
