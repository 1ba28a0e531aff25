"""Splits: what the data names stays, the rest goes by group, and few groups still give all three parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkp import InputError
from mmkp.data.splits import assign_splits, canonical, check_split, hash_tenth, hashed_split


def test_the_hash_is_sha1_modulo_ten():
    # sha1("a") = 86f7e437faa5a7fce15d1ddcb9eaeaea377667b8, which is 8 modulo 10 in its last decimal digit
    assert hash_tenth("a") == 0x86F7E437FAA5A7FCE15D1DDCB9EAEAEA377667B8 % 10
    assert [hashed_split(g) for g in "abc"] == [
        "train" if hash_tenth(g) < 7 else "validation" if hash_tenth(g) == 7 else "test" for g in "abc"
    ]


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=60), st.booleans())
def test_no_group_is_divided_and_three_groups_give_three_parts(groups, few):
    groups = groups[:8] if few else groups
    split = assign_splits(groups, [None] * len(groups))
    found: dict[str, set[str]] = {}
    for group, name in zip(groups, split, strict=True):
        found.setdefault(group, set()).add(name)
    assert all(len(names) == 1 for names in found.values())
    if len(found) >= 3:
        assert set(split) == {"train", "validation", "test"}


def test_names_stay_and_missing_parts_come_from_train():
    groups = [f"g{i}" for i in range(200)]
    split = assign_splits(groups, ["train"] * 150 + ["val"] * 50)
    assert split[150:] == ["validation"] * 50
    assert {split[i] for i in range(150) if hashed_split(groups[i]) == "test"} == {"test"}
    assert "validation" not in split[:150]


def test_words_for_splits():
    assert canonical(" Dev ") == "validation"
    assert canonical(None) is None
    assert check_split("val", "folder") == "validation"
    with pytest.raises(InputError, match="Did you mean 'test'"):
        check_split("tset", "folder")
