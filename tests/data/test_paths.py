"""No file name of a dataset leads out of its folder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkp.data.paths import PathFault, inside


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(b"a")
    (folder / "ä b.png").write_bytes(b"b")
    (tmp_path / "secret.txt").write_text("s")
    return folder


@pytest.mark.parametrize("name", ["sub/a.png", "./sub/a.png", "sub//a.png", "sub\\a.png", "ä b.png"])
def test_names_within_the_folder_are_found(root, name):
    assert inside(root, name).is_file()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "sub/../../secret.txt",
        "sub/../sub/a.png",
        "/etc/passwd",
        "C:\\x",
        "\\\\host\\x",
        "..\\secret.txt",
    ],
)
def test_names_that_lead_out_are_refused(root, name):
    with pytest.raises(PathFault) as caught:
        inside(root, name)
    assert caught.value.kind == "path escape"


@pytest.mark.parametrize(
    "name", ["", " ", ".", "sub", "none.png", "a\0b", "x" * 5000, "sub/a.png/b", "file:///etc/passwd"]
)
def test_names_of_nothing_are_missing(root, name):
    with pytest.raises(PathFault) as caught:
        inside(root, name)
    assert caught.value.kind == "missing file"


def test_links(root, tmp_path):
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "in.png").symlink_to(root / "sub" / "a.png")
    (root / "ring").symlink_to(root / "ring")
    for name in ("out.txt", "up/secret.txt"):
        with pytest.raises(PathFault) as caught:
            inside(root, name)
        assert caught.value.kind == "path escape"
    with pytest.raises(PathFault):
        inside(root, "ring")
    assert inside(root, "in.png").read_bytes() == b"a"
    (tmp_path / "link").symlink_to(root)
    assert inside(tmp_path / "link", "sub/a.png").read_bytes() == b"a"


@given(st.text(alphabet="./\\ab:~ \x00é", max_size=30))
def test_whatever_the_name_nothing_outside_is_given(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    try:
        found = inside(root, name)
    except PathFault:
        return
    assert found.resolve().is_relative_to(root.resolve())
