"""PCK and its kin, AUC, EPE, normalizers and heatmap PCK against numbers worked out by hand; numpy and torch alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkp import metrics
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, Normalizer, load_schema

NAN = np.nan
BODY = KeypointSchema(
    name="body",
    keypoints=("head_top", "upper_neck", "left_shoulder", "right_hip"),
    normalizer=Normalizer(name="neck", kind="distance", points=(0, 1)),
)


@pytest.fixture(params=["numpy", "torch"])
def given(request):
    """Turns lists into what the metrics take; dtype as numpy finds it, floats in float64."""
    return np.array if request.param == "numpy" else lambda v: torch.from_numpy(np.array(v))


def same(found, wanted, **tolerance):
    np.testing.assert_allclose(np.asarray(found), wanted, **{"rtol": 0, "atol": 1e-7, **tolerance})


PREDICTED = [[(10.0, 4), (10, 18), (0, 0), (40, 40), (20, 10)]]
TRUE = [[(10.0, 0), (10, 10), (NAN, NAN), (30, 30), (0, 10)]]
LABELLED = [[True, True, False, True, True]]


def test_pck_by_keypoint_of_two_instances(given):
    predicted = given([[(10.0, 0), (20, 20), (0, 0), (30, 30), (0, 10)], [(0, 0)] * 5])
    true = given([[(10.0, 0), (10, 10), (-1, 0), (30, 30), (0, 10)], [(0, 0)] * 5])
    errors = metrics.normalized_errors(predicted, true, given(LABELLED * 2), given([10.0, 10.0]))
    by_point = [metrics.summary(metrics.pck(errors, 0.5, [k])) for k in range(5)]
    assert by_point == [1.0, 0.5, None, 1.0, 1.0]
    assert np.mean([v for v in by_point if v is not None]) == 0.875
    assert metrics.summary(metrics.pck(errors, 0.5)) == 0.875


def test_zero_normalizers_leave_nothing_to_average(given):
    errors = metrics.normalized_errors(given(PREDICTED), given(TRUE), given(LABELLED), given([0.0]))
    for per_item in (metrics.nme(errors), metrics.pck(errors, 0.5), metrics.auc(errors)):
        same(per_item, [NAN])
        assert metrics.summary(per_item) is None


def test_auc_and_epe(given):
    """Errors .2, .4, .707, 1 of the normalizer: PCK 0, 1/4, 2/4, 3/4 below 0, .25, .5, .75."""
    errors = metrics.normalized_errors(given(PREDICTED), given(TRUE), given(LABELLED), given([20.0]))
    same(metrics.auc(errors, steps=4), [0.375])
    same(metrics.auc(errors, steps=4, points=[0, 1]), [(0 + 0.5 + 1 + 1) / 4])
    same(metrics.epe(given(PREDICTED), given(TRUE), given(LABELLED)), [11.5355339])


def test_auc_is_strict_where_pck_is_not(given):
    errors = given([[0.5]])
    same(metrics.pck(errors, 0.5), [1.0])
    same(metrics.auc(errors, steps=2), [0.0])


def test_auc_of_no_curve_is_refused():
    with pytest.raises(InputError, match="at least one step"):
        metrics.auc(np.zeros((1, 1)), steps=0)


def test_epe_refuses_a_miss(given):
    with pytest.raises(InputError, match="Use nme"):
        metrics.epe(given([[(NAN, NAN)]]), given([[(0.0, 0)]]), given([[True]]))


def test_pckh_unit_is_six_tenths_of_the_head_boxes_diagonal(given):
    """Head box 30 x 40: diagonal 50, unit 30; at 0.5 an error of 15 px is still a hit, 15.01 is none."""
    predicted, true = given([[(15.0, 0), (15.01, 0)]]), given([[(0.0, 0), (0, 0)]])
    box, labelled = given([[7.0, 8, 30, 40]]), given([[True, True]])
    same(metrics.pckh(predicted, true, labelled, box), [0.5])
    same(metrics.pckh(predicted, true, labelled, box, points=[0]), [1.0])
    same(metrics.normalizer_px("head_box", true, labelled, BODY, head_box_xywh=box), [30.0])


def test_torso_pck_leaves_out_who_has_no_torso(given):
    """Torso (3, 4) -> (0, 0): 5 px; at 0.2 an error of 1 px is a hit. In the second item the hip is not labelled."""
    true = given([[(9.0, 9), (9, 9), (3, 4), (0, 0)]] * 2)
    predicted = true + given([[(1.0, 0), (0, 1.1), (0, 0), (0, 0)]])
    labelled = given([[True] * 4, [True, True, True, False]])
    same(metrics.torso_pck(predicted, true, labelled, BODY), [0.75, NAN])


def test_a_group_torso_goes_before_names():
    schema = BODY.model_copy(update={"groups": {"torso": (0, 2)}})
    assert metrics.torso_points(schema) == (0, 2)
    assert metrics.torso_points(BODY) == (2, 3)
    assert metrics.head_points(BODY) == (0, 1)


def test_named_normalizers(given):
    true = given([[(0.0, 0), (0, 2), (3, 4), (0, 0)]])
    labelled, box = given([[True] * 4]), given([[5.0, 5, 9, 4]])
    found = {n: metrics.normalizer_px(n, true, labelled, BODY, box, box) for n in metrics.NORMALIZERS}
    wanted = {
        "unit": 1, "box_side": 6, "box_diagonal": 97**0.5, "head_box": 0.6 * 97**0.5, "head_segment": 2, "torso": 5,
        "schema": 2,
    }  # fmt: skip
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        same(found[name], [value])


@pytest.mark.parametrize(
    ("name", "says"),
    [("torzo", "Did you mean 'torso'"), ("head_box", "expected head_box_xywh"), ("torso", "schema face68"),
     ("head_segment", "head_top and upper_neck")],
)  # fmt: skip
def test_a_normalizer_that_cannot_be_had_is_refused_by_name(name, says):
    with pytest.raises(InputError, match=says):
        metrics.normalizer_px(name, np.zeros((1, 68, 2)), np.ones((1, 68), bool), load_schema("face68"))


def test_face68s_own_normalizer_is_the_outer_eye_distance():
    true = np.zeros((1, 68, 2))
    true[0, 36], true[0, 45] = (10, 10), (40, 50)
    same(metrics.normalizer_px("schema", true, np.ones((1, 68), bool), load_schema("face68")), [50])


def test_heatmap_pck_of_peaks(given):
    """Peaks at (20, 20) for (10, 10): 2.2 tenths of 64; the other channel agrees; three are masked."""
    predicted, true = np.zeros((1, 5, 64, 64)), np.zeros((1, 5, 64, 64))
    predicted[0, 0, 20, 20] = true[0, 0, 10, 10] = predicted[0, 1, 30, 30] = true[0, 1, 30, 30] = 1
    found = metrics.heatmap_pck(given(predicted), given(true), given([[True, True, False, False, False]]))
    same(found, [[0, 1, NAN, NAN, NAN]])
    assert metrics.summary(found) == 0.5


def test_heatmap_pck_measures_each_axis_by_its_own_side(given):
    """3 columns of 60 are .5 of a tenth: a hit; 3 rows of 30 are a whole tenth: none. An empty truth is left out."""
    predicted, true = np.zeros((1, 3, 30, 60)), np.zeros((1, 3, 30, 60))
    true[0, :2, 10, 10] = predicted[0, 0, 10, 13] = predicted[0, 1, 13, 10] = 1
    same(metrics.heatmap_pck(given(predicted), given(true), given([[True] * 3])), [[1, 0, NAN]])


@pytest.mark.parametrize("points", [1, 500])
def test_one_and_five_hundred_keypoints(given, points, rng):
    true = rng.normal(size=(3, points, 2))
    labelled = np.ones((3, points), bool)
    errors = metrics.normalized_errors(given(true + [3, 4]), given(true), given(labelled), given([10.0, 5.0, 2.5]))
    same(metrics.nme(errors), [0.5, 1, 2])
    same(metrics.pck(errors, 0.75), [1, 0, 0])


def test_no_items_at_all(given):
    nobody, unlabelled = given(np.zeros((0, 4, 2))), given(np.zeros((0, 4), bool))
    errors = metrics.normalized_errors(nobody, nobody, unlabelled, given(np.zeros(0)))
    assert metrics.summary(metrics.nme(errors)) is None
    assert metrics.summary(metrics.auc(errors)) is None


def test_half_precision_thresholds_as_double_does():
    """0.1 px in float32 over 1 is above 0.1: computed in double, not rounded to equal."""
    errors = metrics.normalized_errors(
        torch.tensor([[[0.1, 0.0]]]), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), torch.ones(1)
    )
    assert errors.dtype == torch.float64
    assert metrics.pck(errors, 0.1).item() == 0.0


def test_numpy_and_torch_do_not_mix():
    with pytest.raises(InputError, match="all of one kind, got ndarray, ndarray, Tensor"):
        metrics.epe(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), torch.ones(1, 1, dtype=torch.bool))
