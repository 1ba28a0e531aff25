"""DeepLabCut: fixtures after its own example project, Reaching-Mackenzie-2018-08-30.

CollectedData_Mackenzie.csv of that project begins: `scorer,Mackenzie,Mackenzie,...`; `bodyparts,hand,hand,Finger1,...`;
`coords,x,y,x,y,...`; `labeled-data/reachingvideo1/img0.png,202.0,629.0,197.0,674.0,...`. config.yaml: Task, scorer,
bodyparts, `skeleton: [[Hand, Finger1], ...]`, pcutoff. Newer projects name a frame in three cells (pandas' MultiIndex),
multi-animal ones have a line `individuals`; predictions number the frames and add `likelihood`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkp.data import open_table
from mmkp.errors import InputError

HEAD = ["scorer" + ",Mac" * 6, "bodyparts,snout,snout,leftEar,leftEar,rightEar,rightEar", "coords" + ",x,y" * 3]
CONFIG = "Task: Reaching\nscorer: Mac\nskeleton: [[snout, leftEar], [snout, rightEar], [snout, gone]]\npcutoff: 0.4\n"


def frame(number: int, cells: str = "10,11,20,21.5,30,31", video: str = "v1") -> str:
    return f"labeled-data/{video}/img{number}.png,{cells}"


def write(root: Path, lines: list[str], video: str = "v1", name: str = "CollectedData_Mac.csv") -> Path:
    folder = root / "labeled-data" / video
    folder.mkdir(parents=True, exist_ok=True)
    for number in (0, 1):
        cv2.imwrite(str(folder / f"img{number}.png"), np.full((60, 80, 3), 90, np.uint8))
    (root / "config.yaml").write_text(CONFIG)
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def test_a_project(tmp_path):
    write(tmp_path, [*HEAD, frame(0), frame(1, "1,2,,,5,6")])
    write(tmp_path, [*HEAD, frame(0, video="v2")], "v2")
    table = open_table(f"deeplabcut:{tmp_path}")
    assert (table.schema.name, table.schema.keypoints) == ("Reaching", ("snout", "leftEar", "rightEar"))
    assert table.schema.edges == ((0, 1), (0, 2)) and table.schema.flip_pairs == ((1, 2),)
    first, second, third = table.rows
    np.testing.assert_array_equal(first.keypoints_xy, np.float32([[10, 11], [20, 21.5], [30, 31]]))  # as they stand
    assert second.visible.tolist() == [2, 0, 2] and first.box_xywh is None
    assert [r.group for r in table.rows] == ["v1", "v1", "v2"] and not table.faults
    assert first.image == tmp_path / "labeled-data" / "v1" / "img0.png" and third.id == "labeled-data/v2/img0.png"


def test_a_name_in_three_cells_and_a_lone_video(tmp_path):
    head = [line.replace(",", ",,,", 1) for line in HEAD]
    file = write(tmp_path, [*head, "labeled-data,v1,img0.png,1,2,3,4,5,6", "labeled-data,v1,img1.png,1,2,3,4,5,6"])
    table = open_table(f"deeplabcut:{file}")
    assert [r.id for r in table.rows] == ["labeled-data/v1/img0.png", "labeled-data/v1/img1.png"]
    assert [f.kind for f in table.faults] == ["one group"] and len({r.group for r in table.rows}) == 2


def test_several_animals_are_several_rows(tmp_path):
    lines = [
        "scorer" + ",Mac" * 10, "individuals,m1,m1,m1,m1,m2,m2,m2,m2,single,single",
        "bodyparts,snout,snout,tail,tail,snout,snout,tail,tail,corner,corner", "coords" + ",x,y" * 5,
        frame(0, "1,2,11,7,50,20,60,30,0,0"), frame(1, "1,2,11,7,,,,,0,0"),
    ]  # fmt: skip
    table = open_table(f"deeplabcut:{write(tmp_path, lines)}")
    assert table.schema.keypoints == ("snout", "tail")
    assert [r.id.split("/")[-1] for r in table.rows] == ["img0.png m1", "img0.png m2", "img1.png m1"]
    np.testing.assert_allclose(table.rows[0].box_xywh, [0, 1.5, 12, 6], atol=1e-9)  # 1.2 times 10 by 5
    assert table.rows[2].box_xywh is None


@pytest.mark.parametrize(("options", "visible"), [({}, [2, 0]), ({"cutoff": 0.1}, [2, 2]), ({"cutoff": 0.95}, [0, 0])])
def test_predictions_of_a_video(tmp_path, options, visible):
    (tmp_path / "config.yaml").write_text(CONFIG)
    lines = ["scorer" + ",DLC_net" * 6, "bodyparts,a,a,a,b,b,b", "coords" + ",x,y,likelihood" * 2, "7,1,2,0.9,3,4,0.3"]
    (tmp_path / "mouseDLC_net.csv").write_text("\n".join(lines))
    (tmp_path / "mouse.avi").write_bytes(b"a video")
    (row,) = open_table(f"deeplabcut:{tmp_path / 'mouseDLC_net.csv'}", unlabelled="keep", **options).rows
    assert (row.image, row.frame, row.group) == (tmp_path / "mouse.avi", 7, "mouse.avi")
    assert row.visible.tolist() == visible


def test_visibility_flags_as_lightning_pose_writes_them(tmp_path):
    lines = ["scorer" + ",s" * 6, "bodyparts,a,a,a,b,b,b", "coords" + ",x,y,visible" * 2, frame(0, "1,2,1,3,4,0")]
    (row,) = open_table(f"deeplabcut:{write(tmp_path, lines)}").rows
    assert row.visible.tolist() == [1, 0]


def test_h5_is_read_as_plain_arrays(tmp_path):
    """The fixed layout as pandas 3.1 and PyTables 3.11 write it (`to_hdf(path, key="df_with_missing", mode="w")`)."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    csv = write(tmp_path, [*HEAD, frame(0), frame(1, "1,2,,,5,6")])
    with h5py.File(csv.with_suffix(".h5"), "w") as store:
        group = store.create_group("df_with_missing")
        for axis in ("axis0", "block0_items"):
            for i, (words, which) in enumerate(
                [
                    ([b"Mac"], [0] * 6),
                    ([b"leftEar", b"rightEar", b"snout"], [2, 2, 0, 0, 1, 1]),
                    ([b"x", b"y"], [0, 1] * 3),
                ]
            ):
                group[f"{axis}_level{i}"], group[f"{axis}_label{i}"] = np.array(words), np.array(which, np.int8)
        group["axis1"] = np.array([frame(n, "").rstrip(",").encode() for n in (0, 1)])
        group["block0_values"] = np.array([[10, 11, 20, 21.5, 30, 31], [1, 2, np.nan, np.nan, 5, 6]])
    wanted, got = (open_table(f"deeplabcut:{csv.with_suffix(s)}") for s in (".csv", ".h5"))
    assert got.schema == wanted.schema and [r.id for r in got.rows] == [r.id for r in wanted.rows]
    for a, b in zip(wanted.rows, got.rows, strict=True):
        np.testing.assert_array_equal(a.keypoints_xy, b.keypoints_xy)
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as store:
        store["values"] = np.ones((2, 6))
    with h5py.File(csv.with_suffix(".h5"), "a") as store:
        del store["df_with_missing/block0_values"]
        store["df_with_missing/block0_values"] = h5py.ExternalLink(str(outside), "values")
    with pytest.raises(InputError, match="a link out of the file"):
        open_table(f"deeplabcut:{csv.with_suffix('.h5')}")


def test_h5_that_is_none_or_holds_pickles_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "CollectedData_Mac.h5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"fixed layout.*\.csv"):
        open_table(f"deeplabcut:{path}")
    with h5py.File(path, "w") as store:
        store["df_with_missing/table"] = np.zeros(2)
        store["df_with_missing"].attrs["non_index_axes"] = b"cos\nsystem\n(S'touch pwned'\ntR."
    with pytest.raises(InputError, match="Python pickle"):
        open_table(f"deeplabcut:{path}")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (frame(0, "1,2,3"), "keypoint count"), (frame(0, "a,b,c,d,e,f"), "not a number"),
        (frame(0, ",,,,,"), "no keypoints"), (frame(7), "missing file"), ("../../x.png,1,2,3,4,5,6", "path escape"),
        ("/etc/passwd,1,2,3,4,5,6", "path escape"), ("12,1,2,3,4,5,6", "missing file"), (frame(1), "duplicate id"),
        (",1,2,3,4,5,6", "bad row"),
    ],
)  # fmt: skip
def test_a_bad_line_costs_itself(tmp_path, bad, kind):
    table = open_table(f"deeplabcut:{write(tmp_path, [*HEAD, frame(1), bad])}")
    assert len(table.rows) == 1 and [(f.kind, f.row) for f in table.faults] == [(kind, 5)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.lists(st.one_of(st.binary(max_size=30), st.text(max_size=30).map(str.encode)), min_size=1, max_size=8))
def test_junk_leaves_the_good_frames(tmp_path, junk):
    file = write(tmp_path, HEAD)
    cells = b",".join(part.replace(b"\n", b" ") for part in junk)
    file.write_bytes("\n".join([*HEAD, frame(1)]).encode() + b"\n" + cells + b"\nlabeled-data/v1/img0.png," + cells)
    assert open_table(f"deeplabcut:{file}").rows[0].id == "labeled-data/v1/img1.png"


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "CollectedData.csv"
    path.write_text("image,x0,y0\na.png,1,2\n")
    with pytest.raises(InputError, match="bodyparts, coords"):
        open_table(f"deeplabcut:{path}")
    with pytest.raises(InputError, match="CollectedData_"):
        open_table(f"deeplabcut:{tmp_path / 'none'}")
    file = write(tmp_path, [*HEAD, frame(0)])
    with pytest.raises(InputError, match="names of the schema face5"):
        open_table(f"deeplabcut:{file}", schema="face5")
    (tmp_path / "config.yaml").write_text("skeleton: [")
    assert [f.where for f in open_table(f"deeplabcut:{file}").faults] == ["config.yaml"]


def test_a_file_named_from_within_its_folder(tmp_path, monkeypatch):
    write(tmp_path, [*HEAD, frame(0)])
    monkeypatch.chdir(tmp_path / "labeled-data" / "v1")
    table = open_table("deeplabcut:CollectedData_Mac.csv")
    assert table.rows[0].group == "v1" and table.schema.edges == ((0, 1), (0, 2))
