"""Streams: every row once an epoch over all processes, the same whatever the workers, and exact where a run goes on."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_recipe, train
from safetensors.torch import load_file
from shard_corpus import make_folder
from torch.utils.data import DataLoader

from mmkp.data import open_dataset, open_table
from mmkp.data.export_parquet import export_parquet
from mmkp.data.shard_write import write_webdataset
from mmkp.data.stream import MAX_PROBLEMS, Stream, StreamBatches, StreamItems
from mmkp.errors import InputError
from mmkp.recipe import Recipe
from mmkp.training import checkpoint

WRITERS = {"parquet": export_parquet, "webdataset": write_webdataset}


@pytest.fixture(scope="module", params=list(WRITERS))
def shards(request, tmp_path_factory) -> str:
    """60 rows in five shards, which two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("stream")
    WRITERS[request.param](open_table(str(make_folder(folder / "folder", 60))), folder / "out", rows_per_shard=13)
    return f"{request.param}:{folder / 'out'}"


def stream(spec: str, **options) -> Stream:
    return open_dataset(spec, "train", streaming=True, **{"buffer": 8, **options})


def ids_of(made: Stream, epoch: int, rank: int = 0, world: int = 1, seed: int = 0) -> list[str]:
    return [record.row.id for record in made.epoch(seed, epoch, rank, world)]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_no_row_twice_or_lost_over_processes(shards, world):
    """Five shards over one or five processes are shared by shards, over two or three by rows."""
    wanted = sorted(row.id for row in open_dataset(shards, "train").rows)
    for epoch in (0, 1):
        found = [ids_of(stream(shards), epoch, rank, world) for rank in range(world)]
        assert sorted(sum(found, [])) == wanted and all(found)


def test_the_splits_are_those_of_the_table(shards):
    for split in ("validation", "test"):
        held = open_dataset(shards, split, streaming=True)
        assert {r.id for r in held.rows} == {r.id for r in open_dataset(shards, split).rows}
    few = open_dataset(shards, "test", streaming=True, held=3)
    assert len(few) == 3 and few.fingerprint != open_dataset(shards, "test", streaming=True, held=2).fingerprint


def test_the_order_is_a_function_of_seed_and_epoch(shards):
    assert ids_of(stream(shards), 1) == ids_of(stream(shards), 1)
    orders = [ids_of(stream(shards), e, seed=s) for e, s in ((0, 0), (1, 0), (0, 1))]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_samples_are_those_of_the_table(shards):
    plain = {sample.id: sample for sample in open_dataset(shards, "train")}
    made = stream(shards)
    for record in made.epoch(0, 0):
        sample, other = made.decode(record), plain[record.row.id]
        for name in ("image", "audio", "keypoints_xy", "visible", "box_xywh"):
            np.testing.assert_array_equal(getattr(sample, name), getattr(other, name))
        assert (sample.text, sample.audio_time_s, sample.rate_hz) == (other.text, other.audio_time_s, other.rate_hz)
    assert made.problems == []


def loaded(made: Stream, workers: int, **options) -> list:
    sampler = StreamBatches(made, 7, 15, seed=3, **options)
    return list(DataLoader(StreamItems(made), batch_sampler=sampler, collate_fn=list, num_workers=workers))


def names(batches: list) -> list:
    return [[(key, sample.id) for key, sample in batch] for batch in batches]


def test_workers_change_nothing(shards):
    """15 batches of 7 are two and a half epochs: batches straddle their ends."""
    alone, many = loaded(stream(shards), 0), loaded(stream(shards), 2)
    assert names(alone) == names(many) and len(alone) == 15 and {len(b) for b in alone} == {7}
    for one, other in zip(sum(alone, []), sum(many, []), strict=True):
        np.testing.assert_array_equal(one[1].image, other[1].image)
    wanted = sorted(row.id for row in open_dataset(shards, "train").rows)
    for epoch in (0, 1):
        assert sorted(sample.id for (e, _), sample in sum(alone, []) if e == epoch) == wanted


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_goes_on_where_it_stopped(shards, rank):
    made = stream(shards)
    whole = StreamBatches(made, 7, 12, seed=3, rank=rank, world=2)
    expected = [[(k, r.row.id) for k, r in batch] for batch in whole]
    for stop in (1, 4, 9):
        sampler = StreamBatches(made, 7, 12, seed=3, rank=rank, world=2)
        list(islice(sampler, stop + 2))  # as workers do, it has read ahead
        place = sampler.place_after(stop)
        rest = StreamBatches(made, 7, 12, seed=3, first=stop, start=place, rank=rank, world=2)
        assert [[(k, r.row.id) for k, r in batch] for batch in rest] == expected[stop:]


def test_a_row_is_augmented_alike_wherever_it_is_met(shards):
    """Two processes and one give a row the same key, from which its augmentation is drawn."""
    one = {r.row.id: k for batch in StreamBatches(stream(shards), 6, 7, 3) for k, r in batch if k[0] == 0}
    two = {
        r.row.id: k for rank in (0, 1) for batch in StreamBatches(stream(shards), 6, 3, 3, rank=rank, world=2)
        for k, r in batch if k[0] == 0
    }  # fmt: skip
    assert two and all(one[name] == key for name, key in two.items()) and len({k[1] for k in one.values()}) == len(one)


@pytest.fixture
def faulty(tmp_path) -> str:
    """Parquet with a sound and a picture that cannot be decoded, and a row of four keypoints."""
    table = open_table(str(make_folder(tmp_path / "folder", 20)))
    for name in ("0001.wav", "0002.png"):
        (tmp_path / "folder" / name).write_bytes(b"broken")
    rows = [row.replace(split="train") for row in table.rows]
    rows[3] = rows[3].replace(keypoints_xy=rows[3].keypoints_xy[:4], visible=rows[3].visible[:4])
    rows[4], rows[5] = rows[4].replace(split="val"), rows[5].replace(split="test")
    export_parquet(type(table)("folder", table.schema, rows), tmp_path / "out")
    return f"parquet:{tmp_path / 'out'}"


def test_what_cannot_be_used_is_reported_once(faulty, caplog):
    made = stream(faulty)
    with caplog.at_level(logging.WARNING):
        samples = {s.id: s for epoch in (0, 1) for s in map(made.decode, made.epoch(0, epoch))}
    assert len(samples) == 17 and "row-0003" not in samples
    assert samples["row-0001"].present == (True, True, False) and samples["row-0002"].present == (False, True, True)
    for word in ("keypoint count", "audio 0001.wav", "image 0002.png"):
        assert sum(word in line for line in made.problems) == 1 == sum(word in line for line in caplog.messages)


def test_problems_stay_bounded():
    made = Stream.__new__(Stream)
    made.problems = []
    made.report(f"line {i}" for i in range(10 * MAX_PROBLEMS))
    assert len(made.problems) == MAX_PROBLEMS + 1


def test_a_truncated_tar_in_a_stream(shards):
    folder = Path(shards.partition(":")[2])
    if not shards.startswith("webdataset"):
        pytest.skip("a truncated Parquet file has no index: nothing of it can be read")
    shard = sorted(folder.glob("*.tar"))[1]
    data = shard.read_bytes()
    try:
        shard.write_bytes(data[: len(data) // 2])
        made = stream(shards)
        found = ids_of(made, 0)
        assert 30 < len(found) < 42 and sum("broken shard" in line for line in made.problems) == 1
    finally:
        shard.write_bytes(data)


def test_refusals(shards, tmp_path):
    with pytest.raises(InputError, match="streaming, got another format"):
        open_dataset(str(make_folder(tmp_path / "f", 4)), "train", streaming=True)
    with pytest.raises(InputError, match="1 row or more, got 0"):
        stream(shards, buffer=0)
    for option in ({"held": 0}, {"held": "many"}, {"streaming": False, "cache_mb": -1}):
        with pytest.raises(InputError, match="whole number"):
            open_dataset(shards, "test", **{"streaming": True, **option})
    with pytest.raises(InputError, match="options that it has"):
        stream(shards, bufer=3)
    with pytest.raises(InputError, match="process 100 of 100"):
        next(stream(shards).epoch(0, 0, 99, 100))


def recipe_of(spec: str, **training) -> Recipe:
    plain = tiny_recipe(Path("none"), **{"steps": 6, "batch_size": 5, **training}).model_dump(mode="json")
    plain["data"] = {"dataset": spec, "options": {"streaming": True, "buffer": 8}, "validation_samples": 4}
    plain["augment"]["cover"] = 0.0
    return Recipe.model_validate(plain)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.found(run / "checkpoints")[0] / "state.safetensors")


def test_training_from_a_stream_is_resumed_exactly(shards, tmp_path, monkeypatch):
    whole = train(recipe_of(shards, evaluate_every=3), tmp_path / "whole")
    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        save = checkpoint.save

        def save_and_stop(*args):
            save(*args)
            raise KeyboardInterrupt

        patch.setattr(checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(shards, evaluate_every=3), cut)
    train(recipe_of(shards, evaluate_every=3, workers=2), cut, resume=True)
    one, other = weights(whole), weights(cut)
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
