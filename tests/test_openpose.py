"""OpenPose: fields by hand, people told apart on ideal targets, the head and the criterion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkp import losses
from mmkp.codecs import make_codec, paf
from mmkp.codecs.grouping import Pairs, assemble, pair_greedily
from mmkp.codecs.openpose import OpenposeCodec
from mmkp.configuration_mmkp import MmkpConfig
from mmkp.criteria import make_criterion
from mmkp.errors import InputError
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import KeypointSchema, load_schema

FACE = ((0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4))
SHAPE = torch.tensor([[-10.0, -8.0], [10.0, -8.0], [0.0, 2.0], [-8.0, 12.0], [8.0, 12.0]])
SIZE = (160, 160)
NAN = float("nan")


def codec(**options) -> OpenposeCodec:
    return OpenposeCodec(SIZE, 4, **{"edges": FACE, **options})


def faces(*middles: tuple[float, float], scale: float = 1.0) -> torch.Tensor:
    """(1, P, 5, 2) faces of 20 px between the eyes."""
    return (torch.tensor(middles)[:, None] + SHAPE * scale)[None]


def found(points: torch.Tensor, labelled: torch.Tensor | None = None, **options):
    made = codec(**options)
    return made.decode_instances(made.raw_of(made.encode(points, labelled)))[0]


def assert_same_people(one, points: torch.Tensor, tolerance: float = 0.05) -> None:
    """The same set of people, whatever their order; NaN where NaN is."""
    assert one.keypoints_xy.shape == points.shape
    left = list(range(len(points)))
    for person in one.keypoints_xy:
        fits = [i for i in left if torch.allclose(person, points[i], atol=tolerance, equal_nan=True)]
        assert len(fits) == 1, f"{person} is none of {points[left]}"
        left.remove(fits[0])


# ---- targets ----


def test_the_field_of_one_limb_by_hand():
    """From (2, 3) to (6, 3), half a cell beyond the ends, one cell to each side: 5 x 3 cells of (1, 0)."""
    start, end = torch.tensor([[[[2.0, 3.0]]]]), torch.tensor([[[[6.0, 3.0]]]])
    field = paf.draw_fields(start, end, torch.ones(1, 1, 1, dtype=torch.bool), (8, 10), width_grid=1.0)[0, 0]
    expected = torch.zeros(2, 8, 10)
    expected[0, 2:5, 2:7] = 1
    torch.testing.assert_close(field, expected)


def test_a_slanted_limb_points_along_itself():
    start, end = torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[4.0, 5.0]]]])
    field = paf.draw_fields(start, end, torch.ones(1, 1, 1, dtype=torch.bool), (8, 8), width_grid=0.5)[0, 0]
    torch.testing.assert_close(field[:, 1, 1], torch.tensor([0.6, 0.8]))
    # (2, 2): 0.8 - 0.6 = 0.2 off the axis; (3, 2): |4/5 * 2 - 3/5 * 1| = 1 off it
    torch.testing.assert_close(field[:, 2, 2], torch.tensor([0.6, 0.8]))
    assert field[:, 2, 3].tolist() == [0.0, 0.0]


def test_where_people_cross_their_vectors_are_averaged():
    start = torch.tensor([[[[0.0, 4.0]], [[4.0, 0.0]]]])
    end = torch.tensor([[[[8.0, 4.0]], [[4.0, 8.0]]]])
    field = paf.draw_fields(start, end, torch.ones(1, 2, 1, dtype=torch.bool), (9, 9), width_grid=0.4)[0, 0]
    assert field[:, 4, 4].tolist() == [0.5, 0.5]
    assert field[:, 4, 1].tolist() == [1.0, 0.0] and field[:, 1, 4].tolist() == [0.0, 1.0]


def test_memory_in_parts_changes_nothing(monkeypatch):
    points = faces((40, 40), (110, 100))
    whole = codec().encode(points)
    monkeypatch.setattr(paf, "CHUNK_CELLS", 1)
    for one, other in zip(codec().encode(points), whole, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_heat_is_the_largest_over_people_and_the_background_is_what_is_left():
    made = OpenposeCodec((32, 32), 4, edges=())
    # grid cells (1, 1) and (4, 1): input px = 4 * cell + 1.5
    points = torch.tensor([[[[5.5, 5.5]], [[17.5, 5.5]]]])
    target = made.encode(points)
    heat, background = target.heat[0]
    assert heat[1, 1] == 1 and heat[1, 4] == 1
    assert heat[1, 2].item() == pytest.approx(math.exp(-0.5))  # one cell from the nearer, two from the other
    torch.testing.assert_close(background, 1 - heat)


def test_one_person_without_the_axis_of_people_is_one_person_with_it():
    points = faces((60, 70))
    labelled = torch.tensor([[[True, True, False, True, True]]])
    for one, other in zip(codec().encode(points[:, 0], labelled[:, 0]), codec().encode(points, labelled), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("unlabelled, weight", [("ignore", 0.0), ("absent", 1.0)])
def test_what_nobody_is_labelled_for(unlabelled, weight):
    points = faces((60, 70), (110, 110))
    labelled = torch.ones(1, 2, 5, dtype=torch.bool)
    labelled[:, :, 2] = False
    labelled[:, 0, 0] = False
    target = codec(unlabelled=unlabelled).encode(points, labelled)
    assert target.weight.tolist() == [[1.0, 1.0, weight, 1.0, 1.0]]
    assert target.limb_weight.tolist() == [[1.0, weight, weight, weight, weight, 1.0]]
    assert target.background_weight.tolist() == [weight]
    assert target.heat[0, 2].max() == 0


# ---- people told apart ----


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_people_are_told_apart_on_ideal_targets(data):
    """One to five, near enough to overlap, some with parts missing that leave the rest connected."""
    cells = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True))
    shift = data.draw(st.lists(st.floats(-3, 3), min_size=10, max_size=10))
    middles = [(30 + 46 * (c % 3) + shift[i], 30 + 46 * (c // 3) + shift[i + 5]) for i, c in enumerate(cells)]
    points = faces(*middles, scale=data.draw(st.floats(0.8, 1.6)))
    # without an eye or a corner of the mouth the other edges still hold the rest together
    missing = data.draw(st.lists(st.sampled_from([None, 0, 1, 3, 4]), min_size=len(cells), max_size=len(cells)))
    for person, part in enumerate(missing):
        if part is not None:
            points[0, person, part] = NAN
    assert_same_people(found(points), points[0])


def test_the_root_of_the_tree_may_be_missing():
    """A body without its nose and one shoulder: the limbs off the tree join what is left."""
    ring = ((0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4))
    points = torch.tensor([[[NAN, NAN], [30.0, 60.0], [60.0, 60.0], [90.0, 60.0], [60.0, 90.0]]])
    assert paf.spanning_tree(ring).parent[0] == 0
    assert_same_people(found(points[None], edges=ring), points)


def test_faces_that_overlap():
    """Two faces whose boxes share two thirds: every part lies nearer to the wrong face than to its own."""
    points = faces((60, 60), (75, 66))
    assert_same_people(found(points), points[0])


def test_order_of_people_does_not_matter():
    points = faces((30, 40), (80, 60), (120, 120))
    one, other = found(points), found(points[:, [2, 0, 1]])
    torch.testing.assert_close(one.keypoints_xy, other.keypoints_xy)
    assert_same_people(other, points[0])
    assert (one.instance_scores.diff() <= 0).all()


def test_nobody_and_nothing_labelled_give_nobody():
    assert len(found(faces((60, 60))[:, :0]).scores) == 0
    assert len(found(faces((60, 60)), torch.zeros(1, 1, 5, dtype=torch.bool)).scores) == 0


def test_twenty_five_people_are_cut_to_the_most_that_are_looked_for():
    middles = [(15 + 32 * (i % 5), 15 + 32 * (i // 5)) for i in range(25)]
    points = faces(*middles, scale=0.6)
    assert_same_people(found(points, max_people=30), points[0])
    assert len(found(points).scores) <= 20


def test_two_parts_are_nobody():
    points = faces((60, 60))
    points[0, 0, 2:] = NAN
    assert len(found(points).scores) == 0
    assert len(found(points, min_parts=2).scores) == 1


def test_one_keypoint_makes_a_person():
    made = OpenposeCodec(SIZE, 4, edges=())
    points = torch.tensor([[[[20.3, 30.1]], [[90.7, 44.4]]]])
    raw = made.raw_of(made.encode(points))
    assert raw.shape[1:] == made.raw_shape(1) == (2, 40, 40)
    assert_same_people(made.decode_instances(raw)[0], points[0])


def test_decode_gives_the_best_person_and_the_hottest_cell_of_what_is_missing():
    points = faces((40, 40), (110, 110))
    points[0, 1, 3] = NAN
    made = codec()
    xy, scores = made.decode(made.raw_of(made.encode(points)))
    torch.testing.assert_close(xy[0], points[0, 0], atol=0.02, rtol=0)
    alone = made.encode(points[:, 1:])
    xy, scores = made.decode(made.raw_of(alone))
    assert torch.isfinite(xy).all() and scores[0, 3] == 0 and scores[0, 0] > 0.8


def test_pictures_do_not_see_each_other():
    made, points = codec(), torch.cat([faces((30, 40), (80, 60)), faces((60, 100), (110, 30))])
    raw = made.raw_of(made.encode(points))
    raw = raw + 0.05 * torch.randn(raw.shape, generator=torch.Generator().manual_seed(0))
    for i, together in enumerate(made.decode_instances(raw)):
        alone = made.decode_instances(raw[i : i + 1])[0]
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_whatever_the_head_says(scale, dtype):
    made = codec()
    raw = (torch.randn(2, *made.raw_shape(5), generator=torch.Generator().manual_seed(1)) * scale).to(dtype)
    xy, scores = made.decode(raw)
    assert xy.dtype == scores.dtype == torch.float32
    assert torch.isfinite(xy).all() and scores.min() >= 0 and scores.max() <= 1
    for people in made.decode_instances(raw):
        assert torch.isfinite(people.scores).all() and ((people.scores > 0).sum(1) >= 3).all()
        assert (torch.isfinite(people.keypoints_xy).all(-1) == (people.scores > 0)).all()


def test_greedy_pairing_by_hand():
    """0.9 goes first and takes start 0 and end 1; of the rest 0.7 is gone with them, 0.4 stays; 0.01 is too little."""
    score = torch.tensor([[[[0.8, 0.9, -math.inf], [0.4, 0.7, -math.inf], [-math.inf, -math.inf, 0.01]]]])
    pairs = pair_greedily(score, 0.05)
    assert pairs.end_of.tolist() == [[[1, 0, -1]]]
    assert pairs.start_of.tolist() == [[[1, 0, -1]]]


def test_halves_with_a_part_in_common_stay_apart():
    """Points 0-1-2 in a ring; two people hold a point 1 each, and the limb off the tree crosses over."""
    edges = ((0, 1), (1, 2), (2, 0))
    there = torch.ones(1, 3, 2, dtype=torch.bool)
    end_of = torch.tensor([[[0, 1], [1, 0], [0, 1]]])
    owner = assemble(Pairs(end_of, end_of.clone()), there, edges)[0]
    assert (owner[:, 0] == owner[0, 0]).all() and (owner[:, 1] == owner[0, 1]).all() and owner[0, 0] != owner[0, 1]


def test_a_schema_in_several_parts_gets_limbs_between_them():
    edges = load_schema("face68").edges
    limbs = paf.connected(edges, 68)
    assert limbs[: len(edges)] == edges and limbs[len(edges) :] == (
        (0, 17), (0, 22), (0, 27), (0, 31), (0, 36), (0, 42), (0, 48), (0, 60)
    )  # fmt: skip
    tree = paf.spanning_tree(limbs)
    assert len(tree.limb) == 67 and sorted((*tree.child, tree.parent[0])) == list(range(68))
    made = make_codec("openpose", SIZE, schema=load_schema("face68"))
    assert made.split(torch.zeros(1, *made.raw_shape(68)))[0].shape[1] == 69


# ---- errors ----


def test_what_makes_no_sense_is_refused_by_name():
    bare = KeypointSchema(name="bare", keypoints=("a", "b"))
    with pytest.raises(InputError, match=r"openpose with schema bare.*edges"):
        make_codec("openpose", SIZE, schema=bare)
    with pytest.raises(InputError, match=r"codec\.edges"):
        OpenposeCodec(SIZE).encode(torch.zeros(1, 2, 2))
    with pytest.raises(InputError, match=r"codec\.edges.*below 3"):
        codec().encode(torch.zeros(1, 3, 2))
    with pytest.raises(InputError, match=r"codec\.unlabelled"):
        codec(unlabelled="maybe")
    with pytest.raises(InputError, match=r"codec\.max_people"):
        codec(max_people=0)
    with pytest.raises(InputError, match="channels"):
        codec().split(torch.zeros(1, 17, 40, 40))


@pytest.mark.parametrize(
    "changes, where",
    [
        ({"fusion": {"name": "average", "level": "model"}}, r"fusion\.name.*openpose.*Choose the level feature"),
        ({"visibility": 0.5}, r"model\.visibility.*openpose"),
        ({"head": {"name": "openpose", "stages": 0}}, "head openpose"),
        ({"loss": {"name": "openpose", "fields": -1.0}}, "loss openpose"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes, where):
    with pytest.raises(InputError, match=where):
        model(**changes)


# ---- criterion and model ----


def test_the_losses_by_hand():
    fields = torch.zeros(1, 2, 2, 2, 2)
    target = fields.clone()
    target[0, 0, :, 0, 0] = torch.tensor([3.0, 4.0])
    assert losses.field_squares(fields, target, torch.tensor([[1.0, 1.0]])).item() == 12.5  # 25 and 0
    assert losses.field_squares(fields, target, torch.tensor([[0.0, 1.0]])).item() == 0
    assert losses.field_squares(fields, target, torch.zeros(1, 2)).item() == 0
    heat = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]]])
    assert losses.heat_squares(heat, torch.zeros_like(heat), torch.tensor([[3.0, 1.0]])).item() == 3.5


def test_the_criterion_is_zero_on_its_own_target_and_weighs_points():
    made, schema = codec(), load_schema("face5")
    criterion = make_criterion("openpose", "openpose", made, schema)
    target = made.encode(faces((60, 60), (110, 90)))
    raw = made.raw_of(target)
    assert criterion(raw, target, torch.ones(5)).item() == pytest.approx(0, abs=1e-9)
    off = raw.clone()
    off[:, 1, 0, 0] += 3.0  # heat of keypoint 1
    assert criterion(off, target, torch.ones(5)).item() == pytest.approx(9 / 6)
    assert criterion(off, target, torch.tensor([1.0, 0, 1, 1, 1])).item() == pytest.approx(0, abs=1e-9)


def model(**changes) -> MmkpForKeypointDetection:
    torch.manual_seed(0)
    settings = {
        "keypoint_schema": load_schema("face5").model_dump(mode="json"), "hidden_size": 16, "input_size_hw": (32, 32),
        "image_config": {"backbone": "test_efficientnet", "stride": 4},
        "text_config": {"layers": 1, "heads": 2, "dropout": 0.0},
        "audio_config": {"layers": 1, "heads": 2, "mel_bins": 16, "dropout": 0.0},
        "fusion": {"name": "gated", "level": "feature"}, "head": {"name": "openpose", "stages": 2, "layers": 1},
        "codec": {"name": "openpose"},
    }  # fmt: skip
    return MmkpForKeypointDetection(MmkpConfig(**{**settings, **changes}))


def test_a_model_learns_one_picture_by_heart():
    """Two people in a picture of noise, with words: found again, best first, in the picture's own frame."""
    made = model(image_config={"backbone": "test_efficientnet", "stride": 4, "deepest_stride": 8})
    processor = make_processor(made.config)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    inputs = processor(images=image, text="one|two")
    points = faces((9.0, 10.0), (22.0, 20.0), scale=0.55)
    labels = torch.cat([points, torch.full((1, 2, 5, 1), 2.0)], -1)
    labels = torch.cat([labels, torch.zeros(1, 1, 5, 3)], 1)  # a row that only fills up
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(70):
        optimizer.zero_grad()
        outputs = made(**inputs, labels=labels)
        outputs.loss.backward()
        optimizer.step()
    assert outputs.instances is None  # not while it trains
    with torch.no_grad():
        outputs = made.eval()(**inputs)
    assert_same_people(outputs.instances[0], points[0], tolerance=1.0)
    result = processor.post_process_keypoint_detection(outputs)[0]
    assert len(result["instances"]) == 2 and result["keypoints"].shape == (5, 2)
    best = result["instances"][0]
    expected = outputs.instances[0].keypoints_xy[0] * 2 + 0.5  # 64 px became 32
    torch.testing.assert_close(best["keypoints"], expected, atol=1e-3, rtol=0)
    assert best["score"] == outputs.instances[0].instance_scores[0]


def test_a_codec_for_one_person_takes_the_first():
    made = model(codec={"name": "heatmap"}, head={"name": "heatmap", "layers": 1}, fusion=None)
    labels = torch.cat([faces((12, 12), (20, 20), scale=0.5), torch.full((1, 2, 5, 1), 2.0)], -1)
    inputs = {"pixel_values": torch.randn(1, 3, 32, 32)}
    made.eval()
    assert made(**inputs, labels=labels).loss == made(**inputs, labels=labels[:, 0]).loss
