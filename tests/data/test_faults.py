"""Five hundred generated faults: each reported by row and kind, good rows usable, nothing outside opened, no crash."""

from __future__ import annotations

import json
import sys
from itertools import cycle, islice

import pytest
from broken import FAULTS, break_folder, good_folder, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkp.data import open_dataset
from mmkp.data.check import check
from mmkp.data.clean import clean
from mmkp.errors import InputError

GOOD = 30


@pytest.fixture(scope="module")
def opened():
    """Every path that this process opens, from the first use on."""
    paths: list[str] = []
    sys.addaudithook(lambda event, args: paths.append(str(args[0])) if event in ("open", "os.listdir") else None)
    return paths


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "data"
    return folder, break_folder(folder, list(islice(cycle(FAULTS), 500)), good=GOOD)


def test_each_of_500_faults_is_reported_by_row_and_kind(broken, opened):
    folder, faults = broken
    opened.clear()
    checked = check(str(folder), workers=2)
    kinds: dict[int, set[str]] = {}
    for finding in checked.report.findings:
        kinds.setdefault(finding.row, set()).add(finding.kind)
    silent = {n: (name, kinds.get(n)) for n, name in faults.items() if not kinds.get(n, set()) & set(FAULTS[name][0])}
    assert len(faults) == 500
    assert not silent
    assert not [n for n in range(1, GOOD + 1) if kinds.get(n, set()) - {"duplicate id"}]
    assert {f"row-{i}" for i in range(GOOD)} <= {row.id for row in checked.table.rows}
    touched = [p for p in opened if "canary" in p or "hostname" in p or p.endswith("outside")]
    assert any(p.endswith("0000.jpg") for p in opened)
    assert not touched


def test_good_rows_of_a_broken_folder_are_samples(broken):
    folder, _ = broken
    samples = open_dataset(str(folder), "all")
    good = {row.id: i for i, row in enumerate(samples.rows)}
    assert all(samples[good[f"row-{i}"]].present == (True, True, True) for i in range(GOOD))
    for index in range(len(samples)):
        samples[index]


def test_the_cleaned_copy_of_a_broken_folder_has_no_errors(broken, tmp_path):
    folder, faults = broken
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    cleaned = clean(str(folder), tmp_path / "clean", workers=2)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    report = check(str(tmp_path / "clean"), workers=2).report
    assert report.errors == 0, report.counts
    assert report.rows == cleaned.rows >= GOOD
    logged = {json.loads(line)["row"] for line in (tmp_path / "clean" / "cleaning_log.jsonl").open()}
    assert set(faults) <= logged


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("0000.jpg"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("file_name", "audio", "audio_time", "audio_start", "audio_end", "text", "keypoints", "box", "group", "split",
         "id", "frame", "info")  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), plain, max_size=6), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_values_in_any_field_are_reported_not_raised(tmp_path_factory, records):
    folder, good = good_folder(tmp_path_factory.mktemp("any") / "data", 1)
    write_folder(folder, [*good, *records])
    checked = check(str(folder), workers=1)
    assert "row-0" in {row.id for row in checked.table.rows}


@given(st.binary(max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_as_a_table_are_reported_or_refused(tmp_path_factory, content):
    folder, _ = good_folder(tmp_path_factory.mktemp("bytes") / "data", 1)
    (folder / "metadata.jsonl").write_bytes(content)
    try:
        report = check(str(folder), workers=1).report
    except InputError:
        return
    assert report.rows or report.errors
