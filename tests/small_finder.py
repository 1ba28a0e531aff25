"""A small model with a finder, fitted on drawn faces within seconds, and a scene for it; for the whole session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mmkp.configuration_mmkp import MmkpConfig
from mmkp.data.face import face_box
from mmkp.data.talker.mouth import MouthState, landmarks
from mmkp.data.talker.person import draw_person
from mmkp.data.talker.render import draw_scene, render
from mmkp.data.talker.view import View, place
from mmkp.hub import load, packaged
from mmkp.modeling_mmkp import MmkpForKeypointDetection
from mmkp.processing_mmkp import make_processor
from mmkp.schema import load_schema
from mmkp.training.finder import Plan, fit
from mmkp.training.scenes import Face, lay
from mmkp.training.textures import draw_texture

PLAN = Plan(scenes=100, scene_px=128, steps=150, batch_size=8, searched=12, crops=60, judge_steps=120, checked=2)
BACKBONE = "encoders.image.backbone."


def tiny_model(schema: str = "face68", backbone: str = "mobilenetv3_small_050", **image: Any) -> tuple[Any, Any]:
    """A small model of 64 px, untrained."""
    torch.manual_seed(0)
    config = MmkpConfig(
        modalities=["image"], hidden_size=16, input_size_hw=(64, 64), head={"name": "regression", "hidden": 8},
        image_config={"backbone": backbone, "stride": 16, **image}, codec={"name": "regression"},
        keypoint_schema=load_schema(schema).model_dump(mode="json"),
    )  # fmt: skip
    return MmkpForKeypointDetection(config).eval(), make_processor(config)


def seeing_model() -> tuple[Any, Any]:
    """One with the packaged grid-talker's backbone: untrained features tell no face from a wall."""
    model, processor = tiny_model(backbone="tf_efficientnet_lite0")
    with safe_open(packaged()["grid-talker"] / "model.safetensors", "pt") as file:
        state = {k: file.get_tensor(k).float() for k in file.keys() if k.startswith(BACKBONE)}  # noqa: SIM118
    model.encoders["image"].backbone.load_state_dict({k.removeprefix(BACKBONE): v for k, v in state.items()})
    return model, processor


def answer(model: Any, points: np.ndarray) -> None:
    """Make the head answer `points`, in units of the input's side from its middle, and nothing else."""
    last = model.heads["joint"].last
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.from_numpy(points.reshape(-1)).float())


def drawn_faces(count: int, seed: int) -> list[Face]:
    """Faces of the embedded data's painter, each another person, looking about straight ahead."""
    rng, faces = np.random.default_rng(seed), []
    for _ in range(count):
        person = draw_person(rng)
        points_mm = landmarks(person, MouthState())
        view = place(View(*rng.uniform(-8, 8, 3)), points_mm, 96, 0.6, rng.uniform(-0.5, 0.5, 2))
        image = render(person, MouthState(), points_mm, view, draw_scene(rng), np.zeros(2), 96)
        points = view.project(points_mm)
        faces.append(Face(image, points, face_box(points)))
    return faces


def mean_points(faces: list[Face]) -> np.ndarray:
    """(68, 2) the mean shape in the box, in its sides from its middle."""
    shapes = [(f.keypoints_xy - f.box_xywh[:2]) / f.box_xywh[2] - 0.5 for f in faces]
    return np.mean(shapes, 0)


@pytest.fixture(scope="session")
def finder(tmp_path_factory) -> tuple[Any, dict, Path]:
    """A model with a finder fitted on 60 drawn people, its state before, and the folder it was saved to."""
    torch.set_num_threads(1)
    people = drawn_faces(72, seed=0)
    model, processor = seeing_model()
    answer(model, mean_points(people))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    record = fit(model, processor, people[:60], people[60:], plan=PLAN)
    folder = tmp_path_factory.mktemp("finder") / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "record.json").write_text(json.dumps(record))
    return load(str(folder)), before, folder


@pytest.fixture(scope="session")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture with three people whom the finder has not seen, and their boxes."""
    rng = np.random.default_rng(5)
    canvas, boxes = draw_texture((240, 320), np.random.default_rng(11)), []
    for face, middle, side in zip(
        drawn_faces(3, seed=9), ((70, 80), (170, 150), (255, 70)), (90, 110, 80), strict=True
    ):
        boxes.append(lay(canvas, face, np.array(middle, float), float(side), rng))
    return canvas, np.array(boxes)


@pytest.fixture
def blind(finder, tmp_path) -> Path:
    """The same model without its finder."""
    model = MmkpForKeypointDetection(MmkpConfig.from_dict({**finder[0].model.config.to_dict(), "finder": None}))
    model.save_pretrained(tmp_path / "blind")
    finder[0].processor.save_pretrained(tmp_path / "blind")
    return tmp_path / "blind"
