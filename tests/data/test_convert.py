"""Conversion between schemas: what is shared keeps its place, what is lacking is unlabelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmkp import InputError, load_schema
from mmkp.data.convert import ALIASES, convert_table, sources_of
from mmkp.data.rows import Row, RowTable
from mmkp.schema import schema_names

ALL_NAMES = {name for schema in schema_names() for name in load_schema(schema).keypoints}


def table(name: str, visible: int = 2) -> RowTable:
    schema = load_schema(name)
    count = schema.num_keypoints
    points_xy = np.stack([np.arange(count) * 2.0, np.arange(count) ** 2], 1).astype(np.float32)
    row = Row("a", "g", "line 1", points_xy, np.full(count, visible, np.uint8), image=Path("a.png"), text="hello")
    return RowTable("folder", schema, [row])


def test_face68_to_face5():
    made = convert_table(table("face68"), load_schema("face5"))
    assert made.schema.name == "face5"
    row = made.rows[0]
    assert (row.text, row.image, row.id) == ("hello", Path("a.png"), "a")
    right = np.mean([(2 * i, i**2) for i in range(36, 42)], axis=0)
    left = np.mean([(2 * i, i**2) for i in range(42, 48)], axis=0)
    np.testing.assert_allclose(row.keypoints_xy, [right, left, (60, 900), (96, 2304), (108, 2916)], rtol=1e-6)
    assert row.keypoints_xy.dtype == np.float32
    assert row.visible.tolist() == [2, 2, 2, 2, 2]


def test_a_mean_is_labelled_only_where_all_its_points_are():
    source = table("face68")
    source.rows[0].visible[[36, 43]] = [0, 1]
    source.rows[0].keypoints_xy[36] = np.nan
    row = convert_table(source, load_schema("face5")).rows[0]
    assert row.visible.tolist() == [0, 1, 2, 2, 2]
    assert np.isnan(row.keypoints_xy[0]).all()
    assert np.isfinite(row.keypoints_xy[1:]).all()


def test_coco17_to_mpii16_shares_twelve_names():
    row = convert_table(table("coco17", visible=1), load_schema("mpii16")).rows[0]
    assert row.visible.tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert row.keypoints_xy[0].tolist() == [32, 256]  # the right ankle is COCO's 16th
    assert np.isnan(row.keypoints_xy[6:10]).all()


def test_wflw98_to_face68_is_the_known_selection():
    found = sources_of(load_schema("wflw98"), load_schema("face68"))
    brows = [*range(33, 38), *range(42, 47)]
    eyes = [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75]
    assert found == [(i,) for i in [*range(0, 33, 2), *brows, *range(51, 60), *eyes, *range(76, 96)]]


def test_wholebody_holds_its_face():
    source = table("wholebody133")
    row = convert_table(source, load_schema("face68")).rows[0]
    np.testing.assert_array_equal(row.keypoints_xy, source.rows[0].keypoints_xy[23:91])


@pytest.mark.parametrize("source", schema_names())
@pytest.mark.parametrize("target", schema_names())
def test_conversion_and_flip_can_change_places(source, target):
    a, b = load_schema(source), load_schema(target)
    found = sources_of(a, b)
    for i, members in enumerate(found):
        assert {int(a.flip_index[m]) for m in members} == set(found[b.flip_index[i]])


def test_the_table_of_aliases_names_points_that_exist():
    assert set(ALIASES) <= ALL_NAMES
    assert {name for choices in ALIASES.values() for choice in choices for name in choice} <= ALL_NAMES


def test_nothing_shared_is_refused_with_both_names():
    with pytest.raises(InputError, match="from quad4 to coco17"):
        convert_table(table("quad4"), load_schema("coco17"))


def test_the_same_schema_is_the_same_table():
    source = table("face5")
    assert convert_table(source, load_schema("face5")) is source
