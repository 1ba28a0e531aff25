"""MPJPE, N-MPJPE and P-MPJPE: values by hand, and what each must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkp import metrics
from mmkp.errors import InputError

TETRAHEDRON = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
ALL = np.ones((1, 4), bool)


@pytest.fixture(params=["numpy", "torch"])
def given(request):
    return np.array if request.param == "numpy" else lambda v: torch.from_numpy(np.array(v))


def rotation(rng):
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return turn * np.sign(np.linalg.det(turn))


def test_mpjpe_by_hand(given):
    """Errors 3, 5, 13, 7 of which the last is not labelled."""
    true = given(np.zeros((1, 4, 3)))
    predicted = given([[(3.0, 0, 0), (0, 3, 4), (3, 4, 12), (7, 0, 0)]])
    assert metrics.mpjpe(predicted, true, given([[True, True, True, False]])).tolist() == [7.0]


def test_the_root_takes_a_shift_out(given):
    true = given(TETRAHEDRON[None])
    assert metrics.mpjpe(true + 5, true, given(ALL)).tolist() == pytest.approx([75**0.5])
    assert metrics.mpjpe(true + 5, true, given(ALL), root=0).tolist() == pytest.approx([0], abs=1e-12)
    unrooted = given([[False, True, True, True]])
    assert np.isnan(np.asarray(metrics.mpjpe(true, true, unrooted, root=0))).all()


def test_n_mpjpe_takes_the_scale_out_and_nothing_else(given):
    true = given(TETRAHEDRON[None])
    assert metrics.n_mpjpe(true * 3, true, given(ALL)).tolist() == pytest.approx([0], abs=1e-12)
    stretched = given([[(1.0, 0, 0), (1, 0, 0)]])
    target = given([[(1.0, 0, 0), (3, 0, 0)]])  # best scale 2: errors 1 and 1
    assert metrics.n_mpjpe(stretched, target, given(np.ones((1, 2), bool))).tolist() == pytest.approx([1.0])


def test_p_mpjpe_takes_a_similarity_out(given, rng):
    true = rng.normal(size=(5, 17, 3))
    predicted = np.stack([0.3 * p @ rotation(rng).T + rng.normal(size=3) * 10 for p in true])
    everywhere = given(np.ones((5, 17), bool))
    assert np.asarray(metrics.p_mpjpe(given(predicted), given(true), everywhere)).max() < 1e-12
    assert np.asarray(metrics.mpjpe(given(predicted), given(true), everywhere)).min() > 1


def test_a_mirror_image_is_an_error(given):
    """Points at +-3, +-2, +-1 on the axes, z mirrored: a reflection would fit exactly.

    The best rotation is none at all, the best scale (9 + 4 - 1) / (9 + 4 + 1) = 6/7; the errors are 3/7, 2/7 and
    1 + 6/7, their mean 6/7.
    """
    arms = np.diag([3.0, 2.0, 1.0])
    cross = np.concatenate([arms, -arms])[None]
    mirrored = cross * np.array([1.0, 1.0, -1.0])
    found = metrics.p_mpjpe(given(mirrored), given(cross), given(np.ones((1, 6), bool)))
    assert found.tolist() == pytest.approx([6 / 7])


def test_an_optimum_is_not_beaten_by_other_similarities(rng):
    true, predicted = rng.normal(size=(1, 8, 3)), rng.normal(size=(1, 8, 3))
    everywhere = np.ones((1, 8), bool)
    best = ((metrics.procrustes(predicted, true, everywhere) - true) ** 2).sum()
    centre, goal = predicted.mean(1, keepdims=True), true.mean(1, keepdims=True)
    for _ in range(300):
        other = rng.uniform(0, 2) * (predicted - centre) @ rotation(rng).T + goal
        assert ((other - true) ** 2).sum() >= best - 1e-12


def test_an_unlabelled_joint_cannot_reach_the_alignment(given, rng):
    true, predicted = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 3))
    labelled = np.ones((2, 6), bool)
    labelled[:, 4] = False
    spoilt = predicted.copy()
    spoilt[:, 4] = np.nan
    for measure in (metrics.mpjpe, metrics.n_mpjpe, metrics.p_mpjpe):
        whole = measure(given(np.delete(predicted, 4, 1)), given(np.delete(true, 4, 1)), given(np.ones((2, 5), bool)))
        masked = measure(given(spoilt), given(true), given(labelled))
        np.testing.assert_allclose(np.asarray(masked), np.asarray(whole), atol=1e-12)
    moved = np.asarray(metrics.procrustes(given(spoilt), given(true), given(labelled)))
    np.testing.assert_array_equal(np.isnan(moved).any((0, 2)), [False] * 4 + [True, False])


@pytest.mark.parametrize("joints", [1, 2, 500])
def test_few_and_many_joints(given, joints, rng):
    true = rng.normal(size=(2, joints, 3))
    found = metrics.p_mpjpe(given(true * 2 + 1), given(true), given(np.ones((2, joints), bool)))
    np.testing.assert_allclose(np.asarray(found), 0, atol=1e-9)


def test_collapsed_predictions_and_unlabelled_items(given):
    """All joints on one point are moved to the truth's centre: the mean distance of the corners from it."""
    true = given(TETRAHEDRON[None])
    found = metrics.p_mpjpe(given(np.ones((1, 4, 3))), true, given(ALL))
    wanted = np.linalg.norm(TETRAHEDRON - TETRAHEDRON.mean(0), axis=-1).mean()
    assert found.tolist() == pytest.approx([wanted])
    for measure in (metrics.mpjpe, metrics.n_mpjpe, metrics.p_mpjpe):
        assert np.isnan(np.asarray(measure(true, true, given(~ALL)))).all()
        assert metrics.summary(measure(true, true, given(~ALL))) is None


def test_a_miss_in_space_is_refused(given):
    spoilt = np.zeros((2, 4, 3))
    spoilt[1, 2] = np.nan
    with pytest.raises(InputError, match="item 1: expected finite joints"):
        metrics.mpjpe(given(spoilt), given(np.zeros((2, 4, 3))), given(np.ones((2, 4), bool)))
