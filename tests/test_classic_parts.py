"""The classic pipeline's parts: descriptors, features, shape model, regressors, against values worked out by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp.classic.descriptors import Hog, Sift, Surf, lattice, orientation_maps
from mmkp.classic.experts import Residuals, folds_of
from mmkp.classic.features import Reduction, fit_tfidf, mfcc_statistics
from mmkp.classic.fusion import evidence
from mmkp.classic.inputs import RATE_HZ
from mmkp.classic.recipe import AudioSection, TextSection
from mmkp.classic.regressors import Forest, LinearSvm, Svm
from mmkp.classic.shape import ShapeModel
from mmkp.errors import InputError, MissingExtraError

ROWS = np.arange(32, dtype=np.uint8) * 4  # a ramp of 4 grey levels a pixel


def test_a_ramp_has_its_gradient_in_one_bin():
    """Centred differences of 4 levels a pixel are 8; a ramp to the right points along 0 degrees, down along 90."""
    right = np.tile(ROWS, (1, 32, 1))
    maps = orientation_maps(right, 8)
    assert np.allclose(maps[0, 5:-5, 5:-5, 0], 8) and np.allclose(maps[0, 5:-5, 5:-5, 1:], 0)
    down = orientation_maps(right.transpose(0, 2, 1), 8)
    assert np.allclose(down[0, 5:-5, 5:-5, 4], 8) and np.allclose(down[0, 5:-5, 5:-5, :4], 0)


def test_an_orientation_between_bins_is_shared():
    """45 degrees at 6 bins of 30 lies half way between bin 1 and bin 2; at 180 - 15 between the last and the first."""
    y, x = np.mgrid[:16, :16]
    maps = orientation_maps(((x + y) * 4).astype(np.uint8)[None], 6)[0, 8, 8]
    assert np.allclose(maps, np.array([0, 1, 1, 0, 0, 0]) * np.hypot(8, 8) / 2, atol=1e-4)
    slope = np.tan(np.deg2rad(-15))
    picture = np.rint(100 + 8 * (x + slope * y)).clip(0, 255).astype(np.uint8)[None]
    maps = orientation_maps(picture, 6)[0, 4:-4, 4:-4].mean((0, 1))
    assert abs(maps[0] - maps[5]) < 0.15 * maps.sum() and maps[[0, 5]].sum() > 0.85 * maps.sum()


def test_hog_of_a_ramp_is_worked_out():
    """Every block holds four equal cells in bin 0: 1/2 each, clipped to 0.2, made 1/2 again."""
    crops = np.repeat(np.tile(ROWS, (1, 32, 1))[..., None], 3, -1)
    blocks = Hog(cell_px=8, bins=9)(crops).reshape(3, 3, 4, 9)
    assert np.allclose(blocks[1, 1, :, 0], 0.5, atol=1e-3) and np.allclose(blocks[..., 1:], 0)


def test_hog_needs_two_cells():
    with pytest.raises(InputError, match="cell_px"):
        Hog(cell_px=30)(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("descriptor", [Hog(), Sift(), pytest.param(Surf(), id="surf")])
def test_descriptors_see_gradients_and_not_brightness(descriptor, rng):
    """Two pictures that differ by a constant are alike, two different ones are not; a batch is as each one alone."""
    if isinstance(descriptor, Surf):
        pytest.importorskip("mahotas", reason="needs the extra `classic`")
    base = rng.integers(0, 200, (2, 8, 8, 3), dtype=np.uint8).repeat(6, 1).repeat(6, 2)
    made = descriptor(np.concatenate([base, base[:1] + 40]))
    assert np.isfinite(made).all()
    scale = np.abs(made[0] - made[1]).max()
    assert scale > 0.1 and np.abs(made[0] - made[2]).max() < 0.05 * scale
    assert np.array_equal(descriptor(base[1:2])[0], made[1])


def test_surf_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "mahotas.features", None)
    with pytest.raises(MissingExtraError, match=r"mmkp\[classic\]"):
        Surf()(np.zeros((1, 48, 48, 3), np.uint8))


def test_a_lattice_lies_in_the_middle():
    assert np.array_equal(lattice(8, 4), [[1.5, 1.5], [5.5, 1.5], [1.5, 5.5], [5.5, 5.5]])


def test_tfidf_tells_where_the_cursor_stands():
    tfidf = fit_tfidf(["bin bl|ue", "bin |blue", "set r|ed"], TextSection())
    a, b = tfidf.transform(["bl|ue", "blu|e"]).toarray()
    assert "l|u" in tfidf.vocabulary_ and a @ b < 0.9
    words = fit_tfidf(["bin bl|ue at a"], TextSection(analyzer="word", ngrams=(1, 1)))
    assert set(words.vocabulary_) == {"bin", "bl", "|", "ue", "at", "a"}


def test_mfcc_statistics_hear_a_moment_and_not_the_batch():
    """A constant sound has no deviation and no deltas inside; a click in the middle changes the short span more."""
    section = AudioSection(coefficients=4, spans_s=(0.5, 0.1))
    t = np.arange(8000) / RATE_HZ
    steady = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    loud = np.where(np.abs(t - 0.25) < 0.05, 3 * steady, steady).astype(np.float32)
    whole = np.array([[0, 8000]] * 2)
    made = mfcc_statistics(np.stack([steady, loud]), whole, section).reshape(2, 2, 4, 8)
    mean, deviation = 0, 1
    assert np.abs(made[0, 1, deviation]).max() < 0.05  # 10 ms hops against 440 Hz: a little ripple
    rise = made[1, :, mean, 0] - made[0, :, mean, 0]
    assert rise[1] > 2.5 * rise[0] > 0
    alone = mfcc_statistics(steady[None], whole[:1], section)
    assert np.allclose(alone.ravel(), made[0].ravel(), atol=1e-4)


def test_mfcc_statistics_leave_out_what_was_not_recorded():
    section = AudioSection(coefficients=4, spans_s=(0.5,))
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    cut = np.where(np.arange(8000) < 4000, 0, noise).astype(np.float32)
    made = mfcc_statistics(np.stack([cut, cut, cut]), np.array([[0, 8000], [4400, 8000], [0, 0]]), section)
    lowest = made.reshape(3, 4, 8)[:, 2, 0]
    assert lowest[0] < lowest[1] - 10  # the zeros' floor counts only where it was recorded
    assert np.array_equal(made[2], np.zeros(32))


def test_a_reduction_is_of_train_and_of_unit_energy(rng):
    train = rng.normal(5, 2, (50, 8)) * [1, 10, 1, 1, 1, 1, 1, 0]
    for scale in ("zscore", "unit"):
        reduce = Reduction(train, scale, 4, 0)
        made = reduce(train)
        assert np.allclose(made.mean(0), 0, atol=1e-9)
        assert np.isclose((made**2).sum(1).mean(), 49 / 50)
        assert np.allclose(reduce(train[:1]), made[:1])
    assert Reduction(train[:5], "zscore", 64, 0).dimension == 4


def shapes(rng: np.random.Generator, count: int = 40) -> np.ndarray:
    """Two directions about a mean of five points, and no noise."""
    mean, first, second = rng.uniform(10, 50, (5, 2)), rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    return mean + rng.normal(0, 3, (count, 1, 1)) * first + rng.normal(0, 2, (count, 1, 1)) * second


def test_the_shape_model_gives_back_what_it_spans(rng):
    xy = shapes(rng)
    model = ShapeModel(xy, 2)
    assert np.abs(model.decode(model.encode(xy)) - xy).max() < 1e-3
    assert np.allclose(model.mean_xy, xy.mean(0))


def test_the_shape_model_completes_a_shape(rng):
    """Two directions are told by any two points in general position: the other three need not be labelled."""
    xy = shapes(rng)
    model, part = ShapeModel(xy, 2), xy.copy()
    part[:, 2:] = np.nan
    assert np.abs(model.decode(model.encode(part)) - xy).max() < 0.05
    part[:] = np.nan
    assert np.allclose(model.encode(part), 0)


def test_the_shape_model_trusts_a_point_by_its_variance(rng):
    xy = shapes(rng)
    model, wrong = ShapeModel(xy, 2), xy.copy()
    wrong[:, 0] += 20
    variance = np.where(np.arange(5) == 0, 1e6, 0.0) * np.ones((len(xy), 1))
    assert np.abs(model.decode(model.encode(wrong, variance)) - xy).max() < 0.05


def test_a_shape_model_of_few_or_broken_shapes(rng):
    model = ShapeModel(shapes(rng, 3), 20)
    assert any("2 taken" in note for note in model.notes)
    holes = shapes(rng)
    holes[np.arange(40), np.arange(40) % 5] = np.nan
    model = ShapeModel(holes, 2)
    assert any("unlabelled points stand at the mean" in note for note in model.notes)
    assert np.isfinite(model.decode(model.encode(holes))).all()
    one = ShapeModel(rng.normal(20, 2, (30, 1, 2)), 20)
    assert one.decode(one.encode(np.full((1, 1, 2), 21.0))).shape == (1, 1, 2)
    same = ShapeModel(np.ones((1, 5, 2)), 3)
    assert np.allclose(same.decode(same.encode(np.ones((1, 5, 2)))), 1)


@pytest.mark.parametrize("regressor", [Svm(c=100, epsilon=0.01, gamma=0.3), LinearSvm(epsilon=0.01), Forest(trees=20)])
def test_a_regressor_learns_a_plane(regressor, rng):
    """Outputs of very different size; each is told by the inputs up to a tenth of its deviation (a forest: a half)."""
    x = rng.uniform(-1, 1, (300, 3))
    y = np.stack([100 + 50 * x[:, 0], 0.01 * x[:, 1] - x[:, 2] * 0.02], 1)
    predict = regressor.fit(x[:200], y[:200], 0, 1)
    error = np.abs(predict(x[200:]) - y[200:]).mean(0) / y.std(0)
    assert (error[:1] < (0.5 if isinstance(regressor, Forest) else 0.1)).all()
    if not isinstance(regressor, Forest):  # a forest splits for the output of most px, and should
        assert error[1] < 0.1
    again = regressor.fit(x[:200], y[:200], 0, 2)(x[200:])
    assert np.array_equal(again, predict(x[200:]))


def test_the_svm_is_scikit_learns(rng):
    """The shared kernel changes nothing: one output equals SVR's own."""
    from sklearn.svm import SVR

    x, y = rng.normal(size=(60, 2)), rng.normal(size=60)
    scaled = (y - y.mean()) / y.std()
    gamma = 1 / (2 * x.var(0).sum())
    theirs = SVR(C=3, epsilon=0.1, gamma=gamma).fit(x, scaled).predict(x) * y.std() + y.mean()
    assert np.allclose(Svm(c=3, epsilon=0.1).fit(x, y[:, None], 0, 1)(x)[:, 0], theirs, atol=1e-2)


def test_residuals_by_hand():
    true = np.zeros((3, 2, 2))
    true[2, 1] = np.nan
    predicted = np.array([[[3.0, 4.0], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [9, 9]]])
    found = Residuals.of(predicted, true)
    assert found.mean_px == pytest.approx(5 / 5)  # one error of 5 px among five labelled points
    assert found.sigma_px[0] == pytest.approx(np.sqrt(25 / 6))
    assert found.sure(64)[0] == pytest.approx(np.exp(-0.5 * 25 / 6 / 3.2**2))


def test_evidence_by_hand():
    """An expert of variance 1 where shapes have 4 knows 3/4 more; where it errs by more than they vary, nothing."""
    gain, weight = evidence(np.diag([1.0, 9.0]), np.diag([4.0, 4.0]))
    assert np.allclose(gain, np.diag([0.75, 0])) and np.allclose(weight, np.diag([1.0, 0]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=30), st.integers(2, 5), st.integers(0, 9))
def test_a_fold_never_divides_a_group(groups, folds, seed):
    names = np.array([f"clip{g}" for g in groups])
    found = folds_of(names, folds, seed)
    assert len(np.unique(found)) > 1
    if len(set(groups)) > 1:
        assert all(len(set(found[names == name])) == 1 for name in names)
