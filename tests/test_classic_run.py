"""The classic pipeline as a whole: fusion's contract, methods that find points, runs, and bad inputs."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from mmkp import classic
from mmkp.classic.experts import Regression, Tools
from mmkp.classic.features import View
from mmkp.classic.fusion import FeatureLevel, ModelLevel
from mmkp.classic.inputs import Labels, training_samples
from mmkp.classic.matching import Matching
from mmkp.classic.patches import PatchForest, PatchSvm
from mmkp.classic.pipeline import fit, predict_dataset
from mmkp.classic.recipe import FitSection, FusionSection, load_classic_recipe, parse_classic_recipe
from mmkp.classic.regressors import LinearSvm
from mmkp.classic.runner import _check_folder
from mmkp.classic.shape import ShapeModel
from mmkp.data import open_dataset
from mmkp.data.sample import MODALITIES, Sample
from mmkp.errors import InputError
from mmkp.evaluation.predictions import FILE
from mmkp.schema import KeypointSchema

RECIPES = sorted(p for p in (Path(__file__).parents[1] / "recipes").glob("*.yaml") if classic.is_classic(p))
RULES = [("model", k) for k in ("average", "weighted", "product")]
RULES += [("feature", k) for k in ("average", "weighted", "product", "concat")]
POINTS = 3


def views_and_labels(rng: np.random.Generator, count: int = 60) -> tuple[dict[str, View], Labels]:
    """Points that follow from two hidden numbers; the picture shows both, words and sound the second alone."""
    hidden = rng.normal(0, 2, (count, 2))
    directions = rng.normal(size=(2, POINTS * 2))
    xy = (30 + hidden @ directions).reshape(count, POINTS, 2)
    crops = np.zeros((count, 4, 4, 3), np.uint8)
    seen = {"image": hidden, "text": hidden[:, 1:] + rng.normal(0, 0.5, (count, 1)), "audio": hidden[:, 1:]}
    views = {m: View(np.column_stack([v, rng.normal(0, 0.1, (count, 2))]), crops) for m, v in seen.items()}
    visible = np.full((count, POINTS), 2, np.uint8)
    return views, Labels(xy, visible, np.array([f"g{i // 3}" for i in range(count)]))


def system(level: str, name: str, views: dict[str, View], present: np.ndarray, labels: Labels) -> Any:
    tools = Tools(ShapeModel(labels.xy, 4), LinearSvm(), 64, 0, 1)
    fusion = FusionSection(name=name, level=level)
    if level == "feature":
        return FeatureLevel(views, present, labels, fusion, FitSection(), tools)
    return ModelLevel(views, present, labels, Regression(), fusion, FitSection(), tools)


@pytest.mark.parametrize(("level", "name"), RULES)
def test_an_absent_modality_cannot_change_the_output(level, name, rng):
    """Whatever it holds, NaN included, in all seven subsets; one alone is itself; none at all is no answer."""
    views, labels = views_and_labels(rng)
    made = system(level, name, views, np.ones((60, 3), bool), labels)
    clean = {m: made.see(m, v.rows(np.arange(8))) for m, v in views.items()}
    alone = {}
    for on in itertools.product([False, True], repeat=3):
        present = np.tile(on, (8, 1))
        spoiled = {}
        for (m, part), here in zip(clean.items(), on, strict=True):
            features = part.features if level == "feature" else part[0]
            bad = features if here else np.full_like(features, np.nan)
            spoiled[m] = View(bad, part.crops) if level == "feature" else (bad, part[1])
        xy, scores, answered = made.join(clean, present)
        again = made.join(spoiled, present)
        assert answered.tolist() == [any(on)] * 8
        assert np.isfinite(xy).all() and ((scores >= 0) & (scores <= 1)).all()
        assert np.array_equal(xy, again[0]) and np.array_equal(scores, again[1])
        if sum(on) == 1:
            alone[MODALITIES[on.index(True)]] = xy
    if level == "model":
        assert all(np.allclose(alone[m], clean[m][0]) for m in MODALITIES)


def test_model_average_and_weighted_are_means(rng):
    """Average of two is their middle; weights renormalise to 1 over what is there."""
    views, labels = views_and_labels(rng)
    present = np.array([[True, False, True]] * 5)
    for name in ("average", "weighted"):
        made = system("model", name, views, np.ones((60, 3), bool), labels)
        parts = {m: made.see(m, v.rows(np.arange(5))) for m, v in views.items()}
        weights = {m: 1.0 if name == "average" else 1 / made.residuals[m].mean_px for m in ("image", "audio")}
        expected = sum(weights[m] * parts[m][0] for m in weights) / sum(weights.values())
        assert np.allclose(made.join(parts, present)[0], expected)


def test_product_takes_from_each_expert_what_it_knows(rng):
    """Sound alone cannot place the face: joined with a picture that can, it must not pull it away."""
    views, labels = views_and_labels(rng, 240)
    views["image"].features[:, 1] = 0.0  # now the picture shows the first number alone, and sound the second
    made = system("model", "product", views, np.ones((240, 3), bool), labels)
    parts = {m: made.see(m, v) for m, v in views.items()}

    def error(on: tuple[bool, bool, bool]) -> float:
        return float(np.abs(made.join(parts, np.tile(on, (240, 1)))[0] - labels.xy).mean())

    both, image, audio = error((True, False, True)), error((True, False, False)), error((False, False, True))
    assert both < 0.2 * min(image, audio)


def test_a_combination_that_train_lacks_is_answered_by_what_it_holds(rng):
    views, labels = views_and_labels(rng)
    present = np.array([[True, False, True], [True, True, False]] * 30)
    made = system("feature", "concat", views, present, labels)
    assert (True, True, True) not in made.experts
    xy, _, answered = made.join(views, np.ones((60, 3), bool))
    assert answered.all() and np.abs(xy - labels.xy).mean() < 1


def cross_pictures(rng: np.random.Generator, count: int) -> tuple[View, Labels]:
    """A bright square and a dark disc, each a keypoint in its middle, anywhere near their mean places."""
    crops = np.full((count, 32, 32, 3), 110, np.uint8)
    xy = np.array([[10.0, 12.0], [22.0, 19.0]]) + rng.integers(-3, 4, (count, 1, 2))
    for crop, (square, disc) in zip(crops, xy.astype(int), strict=True):
        cv2.rectangle(crop, tuple(int(v) for v in square - 2), tuple(int(v) for v in square + 2), (240,) * 3, -1)
        cv2.circle(crop, tuple(int(v) for v in disc), 3, (10,) * 3, -1)
    visible = np.full((count, 2), 2, np.uint8)
    return View(np.zeros((count, 1)), crops), Labels(xy, visible, np.array([str(i) for i in range(count)]))


@pytest.mark.parametrize(
    "method", [PatchForest(patch_px=12, trees=10, step_px=1), PatchSvm(patch_px=12, step_px=1)], ids=["forest", "svm"]
)
def test_patches_are_found(method, rng):
    """To about a pixel, where the mean shape is 2.4 px off; and not half a pixel beside."""
    view, labels = cross_pictures(rng, 80)
    tools = Tools(ShapeModel(labels.xy, 2), LinearSvm(), 32, 0, 1)
    xy, sure = method.fit(view.rows(np.arange(60)), labels.rows(np.arange(60)), tools)(view.rows(np.arange(60, 80)))
    error = xy - labels.xy[60:]
    assert np.linalg.norm(error, axis=-1).mean() < 1.2
    assert np.linalg.norm(labels.xy[60:] - tools.shape.mean_xy, axis=-1).mean() > 2.4
    assert np.abs(error.mean((0, 1))).max() < 0.4
    assert ((sure >= 0) & (sure <= 1.0001)).all() and sure.mean() > 0.5


def test_patches_without_visible_points_are_refused(rng):
    view, labels = cross_pictures(rng, 8)
    hidden = Labels(labels.xy, np.ones((8, 2), np.uint8), labels.groups)
    with pytest.raises(InputError, match="regression"):
        PatchForest(patch_px=12).fit(view, hidden, Tools(ShapeModel(labels.xy, 2), LinearSvm(), 32, 0, 1))


@pytest.mark.parametrize("kind", ["similarity", "homography"])
def test_matching_carries_points_through_a_known_transform(kind, rng):
    """The exemplar turned by 10 degrees about the middle: within half a pixel; a blank picture: the mean, score 0."""
    picture = cv2.GaussianBlur(rng.integers(0, 256, (96, 96), dtype=np.uint8), (0, 0), 2)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    turn = cv2.getRotationMatrix2D((47.5, 47.5), 10, 1.0)
    crops = np.stack([picture, cv2.warpAffine(picture, turn, (96, 96)), np.full_like(picture, 90)])
    crops = np.repeat(crops[..., None], 3, -1)
    xy = np.array([[30.0, 40.0], [60.0, 42.0], [45.0, 70.0]])
    labels = Labels(xy[None], np.full((1, 3), 2, np.uint8), np.array(["a"]))
    shape = ShapeModel(np.stack([xy + 3, xy + 5]), 1)
    ask = Matching(exemplars=1, transform=kind).fit(
        View(np.zeros((1, 1)), crops[:1]), labels, Tools(shape, LinearSvm(), 96, 0, 1)
    )
    found, sure = ask(View(np.zeros((3, 1)), crops))
    assert np.abs(found[0] - xy).max() < 0.1 and sure[0, 0] > 0.95
    assert np.abs(found[1] - (xy @ turn[:, :2].T + turn[:, 2])).max() < 0.5
    assert np.allclose(found[2], xy + 4) and not sure[2].any()


class Tiny:
    """Squares with K keypoints, words and sound where asked for; a KeypointDataset."""

    name, fingerprint, problems = "tiny", "tiny-0", ()

    def __init__(self, count: int, keypoints: int, text: bool = True, unlabelled: int = 0) -> None:
        self.schema = KeypointSchema(name="tiny", keypoints=tuple(f"p{i}" for i in range(keypoints)))
        self.count, self.text, self.unlabelled = count, text, unlabelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        centre = rng.uniform(15, 35, 2)
        image = np.full((50, 50, 3), 80, np.uint8)
        cv2.circle(image, tuple(int(round(v)) for v in centre), 5, (250, 250, 250), -1)
        count = self.schema.num_keypoints
        labelled = index >= self.unlabelled
        points = (centre + np.arange(count)[:, None]).astype(np.float32)
        return Sample(
            id=str(index), group=f"g{index // 2}",
            keypoints_xy=points if labelled else np.full_like(points, np.nan),
            visible=np.full(count, 2 if labelled else 0, np.uint8), box_xywh=np.array([-0.5, -0.5, 50, 50]),
            image=None if index % 5 == 4 else image, text=f"at {int(centre[0])}" if self.text else None,
            audio=rng.normal(0, 0.1, 8000).astype(np.float32),
        )  # fmt: skip


def tiny_recipe(**changes: Any) -> Any:
    plain = {"kind": "classic", "name": "t", "data": {"dataset": "talker"}, "features": {"size_px": 32}}
    plain |= {"regressor": {"name": "linear_svm"}, "training": {"workers": 1}}
    return parse_classic_recipe(plain | changes)


@pytest.mark.parametrize("level", ["model", "feature"])
@pytest.mark.parametrize("keypoints", [1, 30])
def test_data_with_holes(level, keypoints):
    """Some items without labels, some without picture, none with words, PCA of more dimensions than items."""
    name = "concat" if level == "feature" else "product"
    recipe = tiny_recipe(fusion={"name": name, "level": level})
    pipeline = fit(recipe, Tiny(60, keypoints, text=False, unlabelled=6))
    assert pipeline.modalities == ("image", "audio")
    notes = "\n".join(pipeline.notes)
    assert "text: 0 training items have it" in notes
    assert "96 PCA dimensions asked for" in notes
    found = predict_dataset(pipeline, Tiny(20, keypoints, unlabelled=3), ["clear"])
    assert set(found.keypoints_xy) == {("clear", s) for s in ("image", "audio", "image+audio")}
    xy = found.keypoints_xy["clear", "image"]
    assert np.isfinite(xy).all() and np.isnan(found.true_xy[:3]).all()
    blind = np.arange(20) % 5 == 4
    assert np.allclose(xy[blind], found.mean_shape_xy[blind]) and not found.scores["clear", "image"][blind].any()
    error = np.nanmean(np.linalg.norm(xy - found.true_xy, axis=-1)[~blind])
    assert error < 0.5 * np.nanmean(np.linalg.norm(found.mean_shape_xy - found.true_xy, axis=-1))


def test_unlabelled_items_are_not_trained_on():
    assert len(training_samples(Tiny(20, 2, unlabelled=8), 100, 0.0, 0)) == 12
    assert [s.id for s in training_samples(Tiny(20, 2), 7, 0.0, 0)] != [str(i) for i in range(7)]
    with pytest.raises(InputError, match="2 labelled training items"):
        fit(tiny_recipe(), Tiny(8, 2, unlabelled=8))


def test_matching_needs_a_whole_shape(rng):
    view, labels = cross_pictures(rng, 4)
    labels.xy[:, 0] = np.nan
    with pytest.raises(InputError, match="all keypoints labelled"):
        Matching().fit(view, labels, Tools(ShapeModel(labels.xy, 2), LinearSvm(), 32, 0, 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": {"image": {"name": "hgo"}}}, "'hog'"),
        ({"regressor": {"name": "forrest"}}, "'forest'"),
        ({"method": {"name": "patchforest"}, }, "'patch_forest'"),
        ({"regressor": {"name": "svm", "gama": 1}}, "'gamma'"),
        ({"features": {"image": {"name": "hog", "cell": 8}}}, "'cell_px'"),
        ({"regresor": {"name": "svm"}}, "'regressor'"),
        ({"features": {"pca": {"image": 0}}}, "greater than or equal to 1"),
        ({"method": {"name": "matching"}, "fusion": {"level": "feature", "name": "concat"}}, "fusion.level: model"),
        ({"fusion": {"name": "concat"}}, "average, weighted or product"),
        ({"fusion": {"name": "product", "weights": {"image": 1}}}, "the rule weighted"),
        ({"modalities": ["image", "image"]}, "each once"),
        ({"features": {"text": {"ngrams": [3, 1]}}}, "shorter first"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_by_name(changes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        tiny_recipe(**changes)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_complete_and_says_what_it_costs_and_gives(path):
    recipe = load_classic_recipe(path)
    assert recipe.name == path.stem and recipe.data.dataset == "talker"
    assert parse_classic_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    text = path.read_text()
    header = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert all(any(line.startswith(word) for line in header) for word in ("Command:", "Cost:", "Result:"))
    assert path.name in text and re.search(r"\[0\.\d+, 0\.\d+\]", text)


def test_there_are_recipes():
    names = ("hog_svm", "matching", "patch_forest", "sift_forest", "surf_svm")
    assert [p.stem for p in RECIPES] == [f"classic_{n}" for n in names]


def toy(path: Path) -> list[str]:
    """Overrides that make a recipe run in seconds."""
    made = ["data.options={size: 48, n: 16}", "data.train_options={n: 24}", "training.workers=1", "features.size_px=48"]
    method = load_classic_recipe(path).method.name
    return made + (["method.trees=4", "method.patches=2000", "method.step_px=6"] if "patch" in method else [])


def needs(path: Path) -> None:
    """Skip where the recipe's extras are not installed."""
    if importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("needs the extra `talker` (pip install 'mmkp[talker]')")
    if "surf" in path.stem and importlib.util.find_spec("mahotas") is None:
        pytest.skip("needs the extra `classic` (pip install 'mmkp[classic]')")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_fitted_and_predicts(path):
    """At toy size: every subset has finite points with scores in 0 to 1, and the same ones if fitted again."""
    needs(path)
    recipe = load_classic_recipe(path, toy(path))
    data = recipe.data
    train_set = open_dataset(data.dataset, "train", **{**data.options, **data.train_options})
    test_set = open_dataset(data.dataset, "test", **data.options)
    first = predict_dataset(fit(recipe, train_set), test_set, ["clear", "covered"])
    again = predict_dataset(fit(recipe, train_set), test_set, ["clear", "covered"]) if "patch" in path.stem else first
    assert len([1 for condition, _ in first.keypoints_xy if condition == "clear"]) == 7
    for cell, xy in first.keypoints_xy.items():
        assert np.isfinite(xy).all() and np.array_equal(xy, again.keypoints_xy[cell])
        assert (first.scores[cell] >= 0).all() and (first.scores[cell] <= 1.0001).all()


def test_a_run_leaves_what_a_networks_run_leaves(tmp_path):
    """But for a model's files; another recipe is kept out of its folder."""
    path, out = next(p for p in RECIPES if "hog" in p.stem), tmp_path / "run"
    needs(path)
    summary = classic.run(path, toy(path), out)
    written = {p.name for p in out.iterdir()}
    assert written >= {"recipe.yaml", "environment.json", "summary.json", "report.md", FILE, "clear_worst.png"}
    assert not [p for p in written if p.endswith((".pkl", ".joblib", ".pickle"))]
    assert json.loads((out / "summary.json").read_text()) == summary
    assert set(summary["conditions"]) >= {"clear", "covered"}
    assert len(summary["conditions"]["clear"]) == 8  # seven subsets and the mean shape
    _check_folder(out, load_classic_recipe(path, toy(path)))  # the same recipe may be run again
    with pytest.raises(InputError, match="another run"):
        classic.run(path, [*toy(path), "training.seed=1"], out)


def test_the_same_mean_shape_and_conditions_as_a_network(tmp_path, grid_root):
    """GRID's own readers and conditions, no extra: what stands beside the subsets is the network's mean shape."""
    from mmkp.training.build import mean_shape

    recipe = tiny_recipe(data={"dataset": f"grid:{grid_root}"})
    train_set, test_set = (open_dataset(recipe.data.dataset, split) for split in ("train", "test"))
    found = predict_dataset(fit(recipe, train_set), test_set, ["clear", "covered", "even_times"])
    assert ("even_times", "text") in found.keypoints_xy and ("even_times", "image") not in found.keypoints_xy
    assert np.array_equal(found.keypoints_xy["covered", "audio"], found.keypoints_xy["clear", "audio"])
    assert not np.array_equal(found.keypoints_xy["covered", "image"], found.keypoints_xy["clear", "image"])
    share = mean_shape(train_set, (32, 32)).numpy()
    box = found.boxes[0]
    side = max(box[2:])
    corner = box[:2] + (box[2:] - side) / 2
    assert np.allclose(found.mean_shape_xy[0], corner + share * side, atol=1e-3)


def test_a_file_that_is_no_recipe_is_not_classic(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert not classic.is_classic(broken) and not classic.is_classic(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="readable YAML"):
        load_classic_recipe(broken)
