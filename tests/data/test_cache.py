"""What was decoded is kept within its memory, shared by workers, and changes nothing."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_corpus import make_folder
from torch.utils.data import DataLoader, Dataset

from mmkp.data import open_dataset, open_table
from mmkp.data.cache import DecodedCache
from mmkp.data.prefetch import prefetched
from mmkp.data.rows import RowDataset
from mmkp.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("cache") / "folder", 24)


def test_arrays_come_back_as_they_went_in(rng):
    cache = DecodedCache(slots=3, limit_mb=1)
    image, sound = rng.integers(0, 255, (37, 53, 3), dtype=np.uint8), rng.normal(size=1001).astype(np.float32)
    assert cache.get(0) is None
    assert cache.put(0, image) and cache.put(2, sound, 44_100)
    kept, _ = cache.get(0)
    np.testing.assert_array_equal(kept, image)
    assert not kept.flags.writeable and cache.get(1) is None
    kept, rate_hz = cache.get(2)
    np.testing.assert_array_equal(kept, sound)
    assert rate_hz == 44_100


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_the_memory_is_never_exceeded_and_nothing_is_replaced(sizes):
    cache = DecodedCache(len(sizes), limit_mb=1)
    arrays = [np.full((size, 100, 3), i % 256, np.uint8) for i, size in enumerate(sizes)]
    stayed = [cache.put(i, array) for i, array in enumerate(arrays)]
    assert cache.used_mb <= 1
    assert all(stayed) or sum(a.nbytes for a in arrays) > 0.85 * (1 << 20) or max(sizes) > 400
    for i, array in enumerate(arrays):
        kept = cache.get(i)
        assert (kept is not None) == stayed[i]
        assert kept is None or np.array_equal(kept[0], array)


def test_what_is_too_large_for_the_whole_is_not_kept():
    cache = DecodedCache(2, limit_mb=1)
    assert not cache.put(0, np.zeros((300, 300, 3), np.uint8)) and cache.put(1, np.zeros((200, 200, 3), np.uint8))


def same(one, other) -> None:
    for name in ("image", "audio", "keypoints_xy", "visible", "box_xywh"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.id, one.rate_hz, one.audio_time_s, one.text) == (
        other.id,
        other.rate_hz,
        other.audio_time_s,
        other.text,
    )


def test_a_dataset_gives_the_same_twice_and_decodes_once(folder, monkeypatch):
    table = open_table(str(folder))
    plain, cached = RowDataset(table, "all"), RowDataset(table, "all", cache_mb=8)
    before = [plain[i] for i in range(len(plain))]
    for sample, i in zip(before, range(len(plain)), strict=True):
        same(cached[i], sample)
    monkeypatch.setattr("mmkp.data.rows.read_image", lambda path: pytest.fail("decoded again"))
    monkeypatch.setattr("mmkp.data.rows.read_audio", lambda path: pytest.fail("decoded again"))
    for sample, i in zip(before, range(len(plain)), strict=True):
        same(cached[i], sample)


def test_rows_of_one_picture_share_it(folder):
    table = open_table(str(folder))
    first = next(row for row in table.rows if row.image is not None and row.audio is not None)
    start = {"audio_start_s": 0.1, "audio_time_s": 0.3}
    rows = [first, first.replace(id="other", text="b"), first.replace(id="part", **start)]
    made = RowDataset(type(table)("folder", table.schema, rows), "all", cache_mb=8)
    samples = [made[i] for i in (0, 1, 2, 2)]
    assert np.shares_memory(made[0].image, made[1].image)
    assert len(samples[2].audio) == 7200 and samples[3].audio_time_s == pytest.approx(0.2)
    assert samples[0].audio_time_s == 0.25
    np.testing.assert_array_equal(samples[3].audio, samples[0].audio[800:])


def test_changing_a_sample_does_not_change_the_cache(folder):
    made = RowDataset(open_table(str(folder)), "all", cache_mb=8)
    made[1], made[1].audio.fill(0)
    assert made[1].audio.any()


class Counted(Dataset):
    """Says for each index how many bytes the cache held before it was read."""

    def __init__(self, rows: RowDataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[float, int]:
        before = self.rows._cache._kept.used_mb
        sample = self.rows[index]
        return self.rows._cache._kept.used_mb - before, int(sample.keypoints_xy[0, 0])


def test_forked_workers_fill_one_memory(folder):
    rows = RowDataset(open_table(str(folder)), "all", cache_mb=8)
    loader = DataLoader(Counted(rows), num_workers=2, collate_fn=list)
    list(loader)
    full = rows._cache._kept.used_mb
    assert full > 0
    list(loader)
    assert rows._cache._kept.used_mb == full  # the second epoch decodes nothing, in whichever worker
    same(rows[1], RowDataset(rows.table, "all")[1])


def test_a_spawned_worker_gets_a_memory_of_its_own(folder):
    rows = RowDataset(open_table(str(folder)), "all", cache_mb=8)
    rows[1]
    copy = pickle.loads(pickle.dumps(rows))
    assert copy._cache._kept.used_mb == 0
    same(copy[1], rows[1])
    assert copy._cache._kept.used_mb > 0


def test_the_option_of_a_dataset(folder):
    assert open_dataset(str(folder), "train")._cache is not None
    assert open_dataset(str(folder), "train", cache_mb=0)._cache is None


def test_prefetched_items_keep_their_order_and_errors_their_place():
    def source():
        yield from range(5)
        raise InputError("item 5")

    made = prefetched(source())
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="item 5"):
        next(made)


def test_prefetching_runs_no_further_ahead_than_asked():
    taken = []

    def source():
        for i in range(100):
            taken.append(i)
            yield i

    made = prefetched(source(), depth=2)
    assert next(made) == 0
    made.close()
    assert len(taken) <= 4
