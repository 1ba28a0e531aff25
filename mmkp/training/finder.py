"""Fit the finder after the keypoints: everything else stays as it is, so that features are computed only once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mmkp import geometry
from mmkp.data.corrupt import cover
from mmkp.errors import InputError
from mmkp.finding import PASSES, SMALLEST, check_findable, find, look, overlap, settled, spot
from mmkp.heads.finder import STRIDE, Finder
from mmkp.training.scenes import COVERED, Face, Scenes

Image = UInt8[np.ndarray, "h w 3"]
SIZES = {"face_px": 64, "channels": 48, "judge_channels": 32, "judge_cells": 6}
NEAR, NOT_NEAR = 0.19, 0.4  # nominal faces from cell to middle: a spot, and no spot; between them nothing is learned.
# The farthest that a middle can lie from the nearest of the cells is 0.18 of 64 px.
LIKE, UNLIKE = 0.3, 0.6  # octaves from the nominal size, likewise; the pyramid's levels are half an octave apart
SAME, OTHER = 0.5, 0.3  # intersection over union with a true box: a face, and none
FOCUS = 2.0  # of the focal loss, Lin et al. 2017: nearly all cells are easy
SIZE_WEIGHT = 2.0  # of the places and sizes beside the logits
CANDIDATE = 0.05  # of the spotter, for the judge's examples: what it nearly took for a face teaches most
JUDGE_BATCH, JUDGE_RATE = 64, 1e-3
SURE = 0.98  # what the judge is to say of a face: crops that are all told apart would make it say 1 of everything
FALSE_ALARMS = 0.01  # of validation scenes without a face, at the threshold that is chosen
LEAST_THRESHOLD = 0.5


@dataclass(frozen=True)
class Plan:
    """How much of everything; four to five minutes of one idle core for efficientnet-lite0.

    Attributes:
        scenes: that the spotter learns from, `scene_px` a side.
        steps, batch_size, learning_rate: of the spotter.
        searched: scenes that are searched for what the judge learns from, as many with faces as without.
        crops: faces shown to the judge in and beside their true box.
        judge_steps: of the judge, 64 crops each.
        checked: validation scenes with faces, and as many without, that the threshold is chosen on.
        seed: of everything.
    """

    scenes: int = 1200
    scene_px: int = 224
    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-3
    searched: int = 200
    crops: int = 1000
    judge_steps: int = 500
    checked: int = 100
    seed: int = 0


def fit(
    model: Any, processor: Any, train: Sequence[Face], validation: Sequence[Face], photographs: Sequence[Image] = (),
    plan: Plan = Plan(), say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:  # fmt: skip
    """Give a model a finder; the rest of it does not change.

    Args:
        model: with eye points and an image encoder that takes pictures of any size.
        processor: its processor.
        train, validation: faces of different people.
        photographs: pictures without a face, more backgrounds.
        plan: how much of everything.
        say: takes a line about what goes on.

    Returns:
        What was fitted and how well it does on validation, for the run's record.

    Raises:
        InputError: a model that cannot be given a finder, or no faces.
    """
    check_findable(model)
    for name, faces in (("training", train), ("validation", validation)):
        if not faces:
            raise InputError("finder", expected=f"{name} pictures with the eyes labelled", got="none")
    model.eval()
    rng = np.random.default_rng(plan.seed)
    torch.manual_seed(plan.seed)
    model.config.finder = {**SIZES, "threshold": LEAST_THRESHOLD}
    model.finder = model.make_finder().to(model.device).eval()
    scenes = Scenes(train, photographs)
    loss = fit_spotter(model, processor, scenes, plan, rng, say)
    say(f"spotter: loss {loss:.4f}")
    loss, count = fit_judge(model, processor, scenes, plan, rng, say)
    say(f"judge: loss {loss:.4f} on {count} crops")
    found = choose_threshold(model, processor, Scenes(validation, photographs), plan, say)
    model.config.finder = {**SIZES, "threshold": found["threshold"]}
    return {"plan": asdict(plan), "train_faces": len(train), "validation_faces": len(validation),
            "photographs": len(photographs), "validation": found}  # fmt: skip


def fit_spotter(
    model: Any, processor: Any, scenes: Scenes, plan: Plan, rng: np.random.Generator, say: Callable[[str], None]
) -> float:
    """Fit the spotter; the mean loss of the last hundred steps."""
    finder: Finder = model.finder
    size, grid = (plan.scene_px, plan.scene_px), (plan.scene_px // STRIDE, plan.scene_px // STRIDE)
    features, targets = [], []
    for number in range(plan.scenes):
        image, boxes = scenes.draw(size, _nominal_sides(rng, finder.face_px), rng)
        pixels = processor.image_processor.normalize(image[None]).to(model.device)
        with torch.inference_mode():
            features.append(finder.gather(model.encoders["image"].stages(pixels), size)[0].half())
        targets.append(torch.from_numpy(spot_targets(boxes, grid, finder.face_px)))
        if number % 400 == 399:
            say(f"scenes {number + 1}/{plan.scenes}")
    known, wanted = torch.stack(features), torch.stack(targets).to(model.device)
    _measure(finder.norm, known)
    last: Any = finder.spotter[-1]
    nn.init.constant_(last.bias[:1], -math.log(99))

    def loss_of(pick: Tensor) -> Tensor:
        return spot_loss(finder.spot(known[pick].float()), wanted[pick])

    return _descend(finder.spotter, loss_of, len(known), plan.steps, plan.batch_size, plan.learning_rate)


def _nominal_sides(rng: np.random.Generator, face_px: int) -> list[float]:
    """None to four faces, most of them of the size that is to be spotted."""
    spread = np.where(rng.random(rng.integers(0, 5)) < 0.7, LIKE, 1.5)
    return (face_px * 2 ** (rng.uniform(-1, 1, len(spread)) * spread)).tolist()


def spot_targets(
    boxes_xywh: Float[np.ndarray, "N 4"], grid_hw: tuple[int, int], face_px: int
) -> Float[np.ndarray, "4 h w"]:
    """What the spotter should say of every cell.

    Returns:
        First 1 for a spot, 0 for none, -1 where either will do; then offset x, y and log of the size of the nearest
        face, in units of `face_px`; they count only at a spot.
    """
    made = np.zeros((4, *grid_hw), np.float32)
    nearest = np.full(grid_hw, np.inf)
    y, x = np.mgrid[: grid_hw[0], : grid_hw[1]]
    cells = geometry.grid_to_input(np.stack([x, y], -1).astype(np.float64), STRIDE)
    for box in boxes_xywh:
        offset = (box[:2] + box[2:] / 2 - cells) / face_px
        far, log_size = np.linalg.norm(offset, axis=-1), math.log(box[2] / face_px)
        octaves = abs(log_size) / math.log(2)
        if octaves < UNLIKE:
            made[0][(far < NOT_NEAR) & (made[0] < 1)] = -1
        closer = far < nearest
        nearest[closer] = far[closer]
        made[1:, closer] = np.stack([offset[closer, 0], offset[closer, 1], np.full(closer.sum(), log_size)])
        if octaves < LIKE:
            made[0][(far < NEAR) & closer] = 1
    return made


def spot_loss(said: Float[Tensor, "B 4 h w"], wanted: Float[Tensor, "B 4 h w"]) -> Float[Tensor, ""]:
    """Focal loss of the logits, and an L1 of places and sizes at the spots, each per spot."""
    label, here = wanted[:, 0], wanted[:, 0] > 0
    entropy = F.binary_cross_entropy_with_logits(said[:, 0], label.clamp(min=0), reduction="none")
    missed = 1 - torch.exp(-entropy)  # how far the probability is from the label
    focal = (missed**FOCUS * entropy)[label >= 0].sum()
    apart = (said[:, 1:] - wanted[:, 1:]).abs().sum(1)[here].sum()
    return (focal + SIZE_WEIGHT * apart) / here.sum().clamp(min=1)


def fit_judge(
    model: Any, processor: Any, scenes: Scenes, plan: Plan, rng: np.random.Generator, say: Callable[[str], None]
) -> tuple[float, int]:
    """Fit the judge on crops of faces and on what the spotter takes for one; its mean loss, and how many crops."""
    views, labels = _own_crops(model, processor, scenes.faces, plan.crops, rng)
    for number in range(plan.searched):
        image, boxes = search_scene(scenes, number % 2 == 0, rng)
        found = spot(model, processor, image, CANDIDATE).boxes_xywh
        for _ in range(PASSES):
            if not len(found):
                break
            looked = look(model, processor, image, found)
            shared = overlap(found, boxes).max(1) if len(boxes) else np.zeros(len(found))
            clear = (shared > SAME) | (shared < OTHER)
            views.append(looked.views[torch.from_numpy(clear)].half())
            labels.append(shared[clear] > SAME)
            found = looked.boxes_xywh[settled(found, looked.boxes_xywh)]
        if number % 60 == 59:
            say(f"searched {number + 1}/{plan.searched}: {sum(map(len, labels))} crops")
    seen, wanted = torch.cat(views), torch.from_numpy(np.concatenate(labels)).float().to(model.device)
    share = wanted.mean().clamp(0.02, 0.98)
    weight = torch.where(wanted > 0, 0.5 / share, 0.5 / (1 - share))  # both kinds count alike
    finder: Finder = model.finder

    def loss_of(pick: Tensor) -> Tensor:
        logits = finder.verdict(seen[pick].float())
        target = SURE * wanted[pick] + (1 - SURE) * (1 - wanted[pick])
        return F.binary_cross_entropy_with_logits(logits, target, weight[pick])

    return _descend(finder.judge, loss_of, len(seen), plan.judge_steps, JUDGE_BATCH, JUDGE_RATE), len(seen)


def search_scene(scenes: Scenes, with_faces: bool, rng: np.random.Generator) -> tuple[Image, np.ndarray]:
    """A picture to be searched, with one to three faces from a sixth of its width on, or with none."""
    size = (int(rng.integers(160, 321)), int(rng.integers(160, 321)))
    if not with_faces:
        return scenes.draw(size, [], rng)
    largest = math.log(0.9 * min(size) / (SMALLEST * size[1]))
    sides = SMALLEST * size[1] * np.exp(rng.uniform(0, largest, rng.integers(1, 4)))
    return scenes.draw(size, sides.tolist(), rng)


def _own_crops(
    model: Any, processor: Any, faces: Sequence[Face], most: int, rng: np.random.Generator
) -> tuple[list[Tensor], list[np.ndarray]]:
    """Faces in their own pictures: about in their box, and far enough beside it to be none."""
    views, labels = [], []
    for i in rng.permutation(len(faces))[:most]:
        face, side = faces[i], faces[i].box_xywh[2]
        image = cover(face.image, face.keypoints_xy, rng)[0] if rng.random() < COVERED else face.image
        good = _jittered(face.box_xywh, rng.uniform(-0.1, 0.1, 2) * side, math.exp(rng.uniform(-0.2, 0.2)))
        away = rng.uniform(0.45, 1.2, 2) * rng.choice([-1, 1], 2) * side * rng.permutation([1.0, rng.random()])
        bad = _jittered(face.box_xywh, away, math.exp(rng.uniform(-0.7, 0.7)))
        if rng.random() < 0.3:
            bad = _jittered(face.box_xywh, rng.uniform(-0.2, 0.2, 2) * side, rng.choice([0.4, 0.3, 2.2, 3]))
        boxes = np.stack([good, bad])
        shared = overlap(boxes, face.box_xywh[None])[:, 0]
        clear = (shared > SAME) | (shared < OTHER)
        looked = look(model, processor, image, boxes[clear])
        views.append(looked.views.half())
        labels.append(shared[clear] > SAME)
    return views, labels


def _jittered(box: np.ndarray, shift_xy: np.ndarray, scale: float) -> np.ndarray:
    middle, side = box[:2] + box[2:] / 2 + shift_xy, box[2] * scale
    return np.array([*(middle - side / 2), side, side])


def choose_threshold(
    model: Any, processor: Any, scenes: Scenes, plan: Plan, say: Callable[[str], None]
) -> dict[str, Any]:
    """The least threshold with few false alarms on scenes without a face, and what is found at it."""
    rng = np.random.default_rng(plan.seed + 1)
    alarms = []
    for _ in range(plan.checked):
        image, _ = search_scene(scenes, False, rng)
        found = find(model, processor, image, threshold=0.0, most=1)
        alarms.append(float(found.scores.max(initial=0)))
    threshold = max(LEAST_THRESHOLD, float(np.quantile(alarms, 1 - FALSE_ALARMS, method="higher")))
    threshold = min(threshold, 0.99)
    faces = hits = wrong = 0
    for _ in range(plan.checked):
        image, boxes = search_scene(scenes, True, rng)
        found = find(model, processor, image, threshold=threshold)
        shared = overlap(found.boxes_xywh, boxes) > OTHER
        faces, hits, wrong = faces + len(boxes), hits + int(shared.any(0).sum()), wrong + int((~shared.any(1)).sum())
    result = {
        "threshold": round(threshold, 4), "empty_scenes": plan.checked,
        "false_alarms": int((np.array(alarms) >= threshold).sum()), "faces": faces, "found": hits, "beside": wrong,
    }  # fmt: skip
    say(f"validation: {result}")
    return result


def _measure(norm: nn.BatchNorm2d, features: Tensor) -> None:
    """The statistics of features, kept for good: the backbone is frozen, they do not drift."""
    sample = features[:: max(1, len(features) // 256)].float()
    norm.running_mean = sample.mean((0, 2, 3))
    norm.running_var = sample.var((0, 2, 3))


def _descend(
    part: nn.Module, loss_of: Callable[[Tensor], Tensor], count: int, steps: int, batch_size: int, rate: float
) -> float:
    """AdamW with a half cosine; the mean loss of the last hundred steps."""
    part.train()
    optimizer = torch.optim.AdamW(part.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in range(steps):
        loss = loss_of(torch.randint(count, (batch_size,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    part.eval()
    return float(np.mean(losses[-100:]))
