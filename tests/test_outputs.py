"""Results in the forms of others: a drawing, supervision, COCO; read back by the others' own code."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import mmkp
from mmkp import InputError
from mmkp.errors import MissingExtraError
from mmkp.evaluation.draw import PEOPLE, draw_keypoints
from mmkp.metrics.coco_dicts import read_coco

SCHEMA = mmkp.load_schema("face5")
NAMES = SCHEMA.keypoints
POINTS = np.array([[10.0, 20.0], [30.0, 20.0], [20.0, 30.0], [12.0, 40.0], [28.0, 40.0]])


def instance(shift: float = 0.0, leave_out: tuple[int, ...] = (), score: float = 0.75, schema: str = "face5") -> dict:
    """A face with its points at POINTS + shift, scores 0.1 to 0.5, in a box of 40 x 50 px."""
    points = [
        {"name": NAMES[k], "x": float(x), "y": float(y), "score": 0.1 * (k + 1)}
        for k, (x, y) in enumerate(POINTS + shift) if k not in leave_out
    ]  # fmt: skip
    box = {"x": shift, "y": 5.0 + shift, "width": 40.0, "height": 50.0}
    return {"score": score, "schema": schema, "box": box, "keypoints": points}


def test_a_drawing_has_each_instance_in_its_colour_where_it_lies():
    image = np.zeros((120, 160, 3), np.uint8)
    result = [instance(leave_out=(4,)), instance(60.0)]
    for one in result:
        for point in one["keypoints"]:
            point["score"] = 1.0
    drawn = mmkp.draw(image, result)
    assert not image.any()
    for k, (x, y) in enumerate(POINTS.astype(int)):
        assert tuple(drawn[y + 60, x + 60]) == PEOPLE[1]
        assert tuple(drawn[y, x]) == (PEOPLE[0] if k != 4 else (0, 0, 0))
    boxed = mmkp.draw(image, result, boxes=True)
    assert tuple(boxed[5, 20]) == PEOPLE[0] and not drawn[5, 20].any()
    assert (mmkp.draw(image, []) == image).all()
    assert mmkp.draw(None, result[0]).shape == (512, 512, 3)


def test_edges_of_a_schema_that_is_not_built_in_are_drawn_where_it_is_given():
    own = mmkp.KeypointSchema(name="own", keypoints=NAMES, edges=((0, 1),))
    image, result = np.zeros((60, 60, 3), np.uint8), [instance(schema="own")]
    assert mmkp.draw(image, result, own)[20, 20].any()
    assert not mmkp.draw(image, result)[20, 20].any()
    assert mmkp.draw(image, result)[20, 10].any()


def test_supervision_gets_a_column_for_each_keypoint():
    supervision = pytest.importorskip("supervision")
    made = mmkp.to_supervision([instance(leave_out=(1,)), instance(60.0, score=0.5)])
    assert made.xy.shape == (2, 5, 2)
    np.testing.assert_array_equal(made.xy[1], POINTS + 60)
    np.testing.assert_array_equal(made.xy[0], np.where(np.arange(5)[:, None] == 1, 0, POINTS))
    assert made.visible.tolist() == [[True, False, True, True, True], [True] * 5]
    np.testing.assert_allclose(
        made.keypoint_confidence, [[0.1, 0, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]], atol=1e-6
    )
    np.testing.assert_allclose(made.detection_confidence, [0.75, 0.5])
    assert made[np.array([False, True])].data["class_name"].tolist() == ["face5"]
    assert len(mmkp.to_supervision([])) == 0
    red = supervision.Color(255, 0, 0)
    scene = supervision.VertexAnnotator(color=red, radius=2).annotate(np.zeros((120, 160, 3), np.uint8), made)
    assert scene[20, 10].any() and scene[80, 90].any()
    assert not scene[20, 30].any() and not scene[0, 0].any()  # the one left out is drawn nowhere
    edges = [(a + 1, b + 1) for a, b in [(0, 2)]]
    scene = supervision.EdgeAnnotator(color=red, edges=edges).annotate(np.zeros((120, 160, 3), np.uint8), made)
    assert scene[25, 15].any()  # midway between the right eye and the nose


def test_without_supervision_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"mmkp\[outputs\]"):
        mmkp.to_supervision([instance()])


RESULTS = [[instance(leave_out=(1,)), instance(60.0, score=0.5)], [], [instance(3.0)]]


def test_an_annotation_file_by_hand():
    made = json.loads(json.dumps(mmkp.to_coco(RESULTS, ["a.jpg", "b.jpg", {"id": 9, "width": 160, "height": 120}])))
    assert made["images"] == [
        {"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 9, "width": 160, "height": 120}
    ]  # fmt: skip
    assert made["categories"][0]["keypoints"] == list(NAMES)
    assert made["categories"][0]["skeleton"] == [[a + 1, b + 1] for a, b in SCHEMA.edges]
    first = made["annotations"][0]
    assert first["keypoints"] == [10, 20, 2, 0, 0, 0, 20, 30, 2, 12, 40, 2, 28, 40, 2]
    assert (first["num_keypoints"], first["area"], first["bbox"]) == (4, 2000, [0.5, 5.5, 40, 50])
    assert [a["image_id"] for a in made["annotations"]] == [1, 1, 9]
    assert [a["score"] for a in made["annotations"]] == [0.75, 0.5, 0.75]


def test_pycocotools_reads_both_forms_and_finds_them_equal(tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    full = [[instance(), instance(60.0, score=0.5)], [], [instance(3.0)]]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(mmkp.to_coco(full, [4, 5, 6])))
    truth = coco.COCO(str(path))
    assert len(truth.getAnnIds(imgIds=[4])) == 2
    found = truth.loadRes(json.loads(json.dumps(mmkp.coco_results(full, [4, 5, 6]))))
    judge = evaluation.COCOeval(truth, found, "keypoints")
    judge.params.kpt_oks_sigmas = np.full(5, 0.05)
    judge.evaluate(), judge.accumulate(), judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0)
    capsys.readouterr()


def test_our_own_reader_takes_them():
    truth, found = read_coco(mmkp.to_coco(RESULTS, [4, 5, 6]), mmkp.coco_results(RESULTS, [4, 5, 6]))
    np.testing.assert_array_equal(found.keypoints_xy[1], POINTS + 60)
    np.testing.assert_array_equal(truth.visible[0], [2, 0, 2, 2, 2])
    np.testing.assert_array_equal(found.image_ids, [4, 4, 6])


def test_no_instance_anywhere_is_a_file_all_the_same():
    made = mmkp.to_coco([[], []], ["a.jpg", "b.jpg"], SCHEMA)
    assert made["annotations"] == [] and len(made["images"]) == 2
    assert mmkp.coco_results([[], []], [1, 2], SCHEMA) == []


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: mmkp.to_coco(RESULTS, ["a.jpg"]), "images"),
        (lambda: mmkp.to_coco(RESULTS, [1, 2, 2]), "images"),
        (lambda: mmkp.to_coco(RESULTS, [1, 2, 2.5]), "image 3"),
        (lambda: mmkp.to_coco(RESULTS[0], [1, 2]), "results"),
        (lambda: mmkp.to_coco([[]], [1]), "schema"),
        (lambda: mmkp.to_coco([[instance()], [instance(schema="face68")]], [1, 2]), "result"),
        (lambda: mmkp.coco_results(RESULTS, [1, 2, 3], mmkp.load_schema("face68")), "result"),
        (lambda: mmkp.to_supervision(RESULTS), "result"),
        (lambda: mmkp.draw(np.zeros((9, 9, 3), np.uint8), RESULTS), "result"),
        (lambda: mmkp.draw(np.zeros((9, 9, 3), np.uint8), "face"), "result"),
        (lambda: mmkp.draw(np.zeros((9, 9), float), []), "image"),
        (lambda: mmkp.draw(None, [{"score": 1.0}]), "result"),
    ],
)
def test_what_is_no_result_is_named(call, where):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.where == where


def test_an_iterator_of_results_and_paths_of_pictures(tmp_path):
    results = [[instance()], [], [instance(5.0)]]
    names = ["a.png", "b.png", "c.png"]
    lazy = mmkp.to_coco((one for one in results), (tmp_path / name for name in names))
    assert lazy == mmkp.to_coco(results, [str(tmp_path / name) for name in names])
    assert [a["image_id"] for a in lazy["annotations"]] == [1, 3]


def test_dots_fit_the_face_not_the_picture():
    """A small face in a large picture: dots of the picture's size would cover it."""
    dots = mmkp.KeypointSchema(name="dots", keypoints=NAMES)
    small = draw_keypoints(np.zeros((1100, 1100, 3), np.uint8), POINTS + 500, dots)
    one = mmkp.KeypointSchema(name="one", keypoints=("a",))
    alone = draw_keypoints(np.zeros((1100, 1100, 3), np.uint8), POINTS[:1] + 500, one)
    large = draw_keypoints(np.zeros((1100, 1100, 3), np.uint8), POINTS * 20, dots)
    around = [tuple(int(v) for v in p) for p in POINTS + 500]
    assert all(small[y, x].any() for x, y in around)
    assert not any(small[y + 3, x + 3].any() for x, y in around)
    assert alone[520 + 4, 510].any()  # the picture's radius, 5 px: a lone point has no size
    assert large[400 + 4, 200].any()


def test_instances_of_an_own_schema_that_differ_need_the_schema():
    """A threshold took other points from each: without the schema the columns would have no order."""
    pytest.importorskip("supervision")
    result = [instance(leave_out=(0,), schema="own"), instance(leave_out=(4,), schema="own")]
    with pytest.raises(InputError, match="the instances differ in their keypoints.*schema=pipe.model.schema"):
        mmkp.to_supervision(result)
    made = mmkp.to_supervision(result, mmkp.KeypointSchema(name="own", keypoints=NAMES))
    assert made.visible.tolist() == [[False, True, True, True, True], [True, True, True, True, False]]
    assert mmkp.to_supervision(result[:1]).xy.shape == (1, 4, 2)
