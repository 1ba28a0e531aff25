"""CVAT for images 1.1: fixtures after docs.cvat.ai and CVAT's writer.

XML annotation format, "Annotation": <image id name width height>; <box label xtl ytl xbr ybr occluded z_order>;
<points label points="x0,y0;x1,y1;..." occluded>; <attribute name>. dataset_manager/formats/cvat.py: <skeleton label
source z_order group_id> around <points label source outside occluded points>; <image subset task_id> in a project.
meta: <label> with <name>, <type>skeleton</type>, <svg>, and the points' labels with <parent>.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkp.data import open_table
from mmkp.errors import InputError

SVG = (
    '<line x1="1" data-type="edge" data-node-from="1" stroke-width="0.5" data-node-to="3"></line>'
    '<circle r="1" data-type="element node" data-node-id="1" data-label-name="nose"></circle>'
    '<circle r="1" data-type="element node" data-node-id="3" data-label-id="12"></circle>'
)
LABELS = (
    f"<label><name>cat</name><type>skeleton</type><svg>{escape(SVG)}</svg></label>"
    "<label><name>nose</name><type>points</type><parent>cat</parent></label>"
    "<label><name>earL</name><type>points</type><parent>cat</parent></label>"
    "<label><name>earR</name><type>points</type><parent>cat</parent></label>"
)


def element(name: str, pair: str, outside: str = "0", occluded: str = "0") -> str:
    return f'<points label="{name}" source="manual" outside="{outside}" occluded="{occluded}" points="{pair}"></points>'


def skeleton(points: str, **attributes: str) -> str:
    told = "".join(f" {k}={quoteattr(v)}" for k, v in ({"label": "cat", "source": "manual"} | attributes).items())
    return f'<skeleton{told} z_order="0">{points}<attribute name="text">a cat</attribute></skeleton>'


CAT = skeleton(
    element("earR", "12.00,14.00", occluded="1") + element("nose", "10.50,20.50") + element("earL", "1,1", "1")
)


def image(content: str, name: str = "x.jpg", number: str = "0", extra: str = "") -> str:
    return f'<image id="{number}" name="{name}" {extra}width="80" height="60">{content}</image>'


def write(root: Path, body: str, head: str = "", labels: str = LABELS) -> Path:
    (root / "images").mkdir(exist_ok=True)
    for name in ("x.jpg", "y.jpg"):
        cv2.imwrite(str(root / "images" / name), np.full((60, 80, 3), 90, np.uint8))
    path = root / "annotations.xml"
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations>{meta}{body}</annotations>')
    return path


def test_a_skeleton(tmp_path):
    table = open_table(
        f"cvat:{write(tmp_path, image(CAT, extra='subset=&quot;Train&quot; '.replace('&quot;', chr(34))))}"
    )
    (row,) = table.rows
    assert table.schema.keypoints == ("nose", "earL", "earR") and table.schema.name == "cat"
    assert table.schema.flip_pairs == ((1, 2),) and table.schema.edges == ((0, 2),)
    np.testing.assert_allclose(row.keypoints_xy[[0, 2]], [[10, 20], [11.5, 13.5]])  # half a pixel off
    assert row.visible.tolist() == [2, 0, 1] and np.isnan(row.keypoints_xy[1]).all()
    assert (row.text, row.split, row.box_xywh, row.group, row.id) == ("a cat", "train", None, "images/x.jpg", "0")


def test_boxes_by_group_and_extents(tmp_path):
    box = '<box label="cat" xtl="5.00" ytl="6.00" xbr="25.00" ybr="36.00" occluded="0" z_order="0" group_id="4"></box>'
    one = skeleton(element("nose", "10,20") + element("earL", "20,30"), group_id="4")
    two = skeleton(element("nose", "40.5,20.5") + element("earL", "50.5,25.5"))
    rows = open_table(f"cvat:{write(tmp_path, image(box + one + two))}").rows
    np.testing.assert_allclose(rows[0].box_xywh, [4.5, 5.5, 20, 30])
    np.testing.assert_allclose(rows[1].box_xywh, [39, 19.5, 12, 6])
    assert [r.id for r in rows] == ["0_0", "0_1"]


def test_single_points_and_their_boxes(tmp_path):
    point = '<points label="{}" source="manual" occluded="{}" points="{}" z_order="0"></points>'.format
    said = '<attribute name="text">it</attribute>'
    box = ('<box label="dog" xtl="{}" ytl="0" xbr="{}" ybr="60" occluded="0">' + said + "</box>").format
    body = box(0, 40) + box(40, 80) + point("nose", 0, "10,10") + point("nose", 1, "60,10") + point("tail", 0, "70,10")
    table = open_table(f"cvat:{write(tmp_path, image(body), labels='')}")
    assert table.schema.keypoints == ("nose", "tail") and [r.visible.tolist() for r in table.rows] == [[2, 0], [1, 2]]
    np.testing.assert_allclose(table.rows[1].box_xywh, [39.5, -0.5, 40, 60])
    assert {r.text for r in table.rows} == {"it"}


def test_a_shape_of_several_points(tmp_path):
    """The documentation's own example: wheels of a car."""
    shape = '<points label="wheel" points="57.40,9.48;17.16,7.90;13.69,45.26" occluded="0" z_order="5"></points>'
    table = open_table(f"cvat:{write(tmp_path, image(shape), labels='<label><name>wheel</name></label>')}")
    assert table.schema.keypoints == ("wheel_0", "wheel_1", "wheel_2")
    np.testing.assert_allclose(table.rows[0].keypoints_xy[0], [56.9, 8.98], rtol=1e-6)


def test_other_labels_are_counted_and_can_be_taken(tmp_path):
    dog = skeleton(element("snout", "3,3"), label="dog")
    path = write(tmp_path, image(CAT + dog) + image(CAT, "y.jpg", "1"))
    table = open_table(f"cvat:{path}")
    assert len(table.rows) == 2 and [f.kind for f in table.faults] == ["unknown field"]
    assert open_table(f"cvat:{path}", label="dog").schema.keypoints == ("snout",)


def test_a_billion_laughs_are_refused(tmp_path):
    lines = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    path = write(tmp_path, image("&l9;"), f'<!DOCTYPE annotations [<!ENTITY l0 "lol">{lines}]>')
    with pytest.raises(InputError, match="DOCTYPE"):
        open_table(f"cvat:{path}")
    secret = tmp_path / "secret.txt"
    secret.write_text("x.jpg")
    path = write(tmp_path, image("", "&s;"), f'<!DOCTYPE a [<!ENTITY s SYSTEM "{secret.as_uri()}">]>')
    with pytest.raises(InputError, match="DOCTYPE"):
        open_table(f"cvat:{path}")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (image(CAT, "gone.jpg", "1"), "missing file"), (image(CAT, "../../x.jpg", "1"), "path escape"),
        (image(CAT, "/etc/passwd", "1"), "path escape"), (image(CAT, "", "1"), "bad row"),
        (image(skeleton(element("nose", "a,b")), "y.jpg", "1"), "not a number"),
        (image(skeleton(element("nose", "1,2,3")), "y.jpg", "1"), "keypoint count"),
        (image(skeleton(element("nose", "1,2") * 2), "y.jpg", "1"), "keypoint count"),
        (image(skeleton(element("nose", "1,2", "1")), "y.jpg", "1"), "no keypoints"),
        (image(CAT, "y.jpg", "0"), "duplicate id"),
    ],
)  # fmt: skip
def test_a_bad_image_costs_itself(tmp_path, bad, kind):
    table = open_table(f"cvat:{write(tmp_path, image(CAT) + bad)}")
    assert [r.image.name for r in table.rows] == ["x.jpg"] and [(f.kind, f.row) for f in table.faults] == [(kind, 2)]


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=WORDS, where=st.sampled_from(("name", "points", "outside", "label", "box", "element")))
def test_junk_in_any_attribute_leaves_the_good_image(tmp_path, junk, where):
    word = quoteattr(junk)
    bad = {
        "name": f'<image id="1" name={word}>{CAT}</image>',
        "points": image(f'<skeleton label="cat"><points label="nose" points={word}/></skeleton>', "y.jpg", "1"),
        "outside": f'<image id="1" name="y.jpg"><skeleton label="cat"><points label="nose" points="1,2" outside={word} '
        f"occluded={word}/></skeleton></image>",
        "label": f'<image id="1" name="y.jpg"><skeleton label={word}/><points label={word} points={word}/></image>',
        "box": f'<image id={word} name="y.jpg"><box xtl={word} ytl="1" group_id={word}/>{CAT}</image>',
        "element": image(f'<skeleton label="cat"><points label={word} points="1,2"/></skeleton>', "y.jpg", "1"),
    }[where]
    table = open_table(f"cvat:{write(tmp_path, bad + image(CAT, number='good'))}", label="cat")
    assert table.rows[-1].id == "good"


def test_other_files_are_refused(tmp_path):
    path = write(tmp_path, '<track id="0" label="car"><points frame="0" points="1,2"/></track>')
    with pytest.raises(InputError, match="tracks of a video.*CVAT for images"):
        open_table(f"cvat:{path}")
    path.write_text("<annotations><image")
    with pytest.raises(InputError, match="readable XML"):
        open_table(f"cvat:{path}")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="readable XML"):
        open_table(f"cvat:{path}")
