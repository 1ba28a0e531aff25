"""Metrics and losses against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkp import losses, metrics
from mmkp.codecs import make_codec

NAN = np.nan


def batch(*instances):
    return np.array(instances, dtype=float)


def test_pck_of_two_instances_of_five_points():
    predicted = batch([(10, 0), (20, 20), (0, 0), (30, 30), (0, 10)], [(0, 0)] * 5)
    true = batch([(10, 0), (10, 10), (-1, 0), (30, 30), (0, 10)], [(0, 0)] * 5)
    labelled = np.array([[True, True, False, True, True]] * 2)
    errors = metrics.normalized_errors(predicted, true, labelled, np.array([10.0, 10.0]))
    hits = np.where(np.isnan(errors), NAN, errors <= 0.5)
    np.testing.assert_array_equal(np.nanmean(hits[:, [0, 1, 3, 4]], axis=0), [1, 0.5, 1, 1])
    assert np.isnan(hits[:, 2]).all()
    assert metrics.pck(errors, 0.5).tolist() == [0.75, 1.0]


def test_a_zero_normalizer_drops_the_instance_and_passes_no_nan_into_others():
    points = np.zeros((2, 3, 2))
    errors = metrics.normalized_errors(points + 1, points, np.ones((2, 3), bool), np.array([0.0, 2.0]))
    assert np.isnan(metrics.nme(errors)[0])
    assert metrics.nme(errors)[1] == pytest.approx(np.sqrt(2) / 2)
    assert np.isnan(metrics.pck(errors, 0.1)[0])


def test_nme_of_one_instance():
    predicted = batch([(10, 4), (10, 18), (0, 0), (40, 40), (20, 10)])
    true = batch([(10, 0), (10, 10), (NAN, NAN), (30, 30), (0, 10)])
    labelled = np.array([[True, True, False, True, True]])
    errors = metrics.normalized_errors(predicted, true, labelled, np.ones(1))
    assert metrics.nme(errors)[0] == pytest.approx(11.5355339, abs=1e-7)
    assert metrics.nme(errors, np.array([0, 1]))[0] == pytest.approx(6.0)


def test_a_miss_counts_one_normalizer():
    errors = metrics.normalized_errors(
        np.full((1, 2, 2), NAN), np.zeros((1, 2, 2)), np.ones((1, 2), bool), np.array([5.0])
    )
    assert errors.tolist() == [[1.0, 1.0]]


def test_no_labelled_point_is_nan_without_a_warning(recwarn):
    errors = metrics.normalized_errors(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2), bool), np.ones(1))
    assert np.isnan(metrics.nme(errors)).all()
    assert np.isnan(metrics.pck(errors, 0.1)).all()
    assert not list(recwarn)


@pytest.fixture
def target():
    codec = make_codec("heatmap", (32, 32), stride=4)
    points = torch.tensor([[[10.3, 12.9], [20.0, 8.0]], [[15.0, 15.0], [3.0, 28.0]]])
    return codec, codec.encode(points, torch.tensor([[True, True], [True, False]]))


def test_the_losses_are_zero_at_the_target(target):
    codec, wanted = target
    perfect = wanted.heatmap().clamp_min(1e-30).log()
    for loss in (losses.heatmap_cross_entropy, losses.heatmap_mse):
        assert loss(perfect, wanted, wanted.weight).abs().max() < 1e-4


def test_cross_entropy_of_a_uniform_map(target):
    """KL to the uniform distribution over 64 cells is log 64 less the target's entropy."""
    _, wanted = target
    heat = wanted.heatmap()
    entropy = -(heat * heat.clamp_min(1e-30).log()).sum((-1, -2))
    uniform = torch.full_like(heat, 1 / 64).log()
    expected = np.log(64) - entropy
    found = losses.heatmap_cross_entropy(uniform, wanted, wanted.weight)
    torch.testing.assert_close(found, torch.stack([expected[0].mean(), expected[1, 0]]))


def test_an_unweighted_point_cannot_reach_the_loss(target):
    codec, wanted = target
    log_density = torch.log_softmax(torch.randn(2, 2, 64), -1).view(2, 2, 8, 8).requires_grad_()
    losses.heatmap_cross_entropy(log_density, wanted, wanted.weight).sum().backward()
    assert log_density.grad[1, 1].abs().max() == 0
    assert log_density.grad[1, 0].abs().max() > 0


def test_euclidean_value_and_gradient():
    xy = torch.tensor([[[3.0, 4.0], [9.0, 9.0]]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0]])
    loss = losses.euclidean(xy, torch.zeros(1, 2, 2), weight)
    assert loss.item() == pytest.approx(5.0 - 0.01, abs=1e-4)
    loss.sum().backward()
    torch.testing.assert_close(xy.grad, torch.tensor([[[0.6, 0.8], [0.0, 0.0]]]), atol=1e-4, rtol=0)


def test_all_points_hidden_gives_a_loss_of_zero_not_nan(target):
    codec, _ = target
    wanted = codec.encode(torch.full((1, 2, 2), float("nan")))
    log_density = torch.log_softmax(torch.randn(1, 2, 64), -1).view(1, 2, 8, 8)
    assert losses.heatmap_cross_entropy(log_density, wanted, wanted.weight).tolist() == [0.0]
