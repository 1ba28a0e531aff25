"""What in one picture, text and sound an answer went by: integrated gradients and Grad-CAM, with captum."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmkp.errors import InputError, MissingExtraError
from mmkp.modeling_mmkp import MmkpForKeypointDetection

STEPS = 64  # of the path: they missed 4 % of the change in the lips' mean y on a face of GRID, 256 missed 2 %
BATCH = 16  # steps at a time, so that memory does not grow with the steps
Answer = Callable[[Float[Tensor, "B k 2"], Float[Tensor, "B k"]], Float[Tensor, " B"]]

# What is explained: of the group's keypoints (px, input frame) and scores, one number for each item.
TARGETS: dict[str, Answer] = {
    "score": lambda xy, scores: scores.mean(-1),
    "x": lambda xy, scores: xy[..., 0].mean(-1),
    "y": lambda xy, scores: xy[..., 1].mean(-1),
    "height": lambda xy, scores: xy[..., 1].amax(-1) - xy[..., 1].amin(-1),
}
UNITS = {"score": "", "x": "px", "y": "px", "height": "px"}


@dataclass(frozen=True)
class Question:
    """One item's inputs and what is asked of the answer.

    Attributes:
        inputs: of the processor, for one item.
        baseline: inputs of the same shapes that say nothing: the mean colour, blanks, silence.
        points: indices of the keypoints.
        target: a name in `TARGETS`.
    """

    model: MmkpForKeypointDetection
    inputs: dict[str, Tensor]
    baseline: dict[str, Tensor]
    points: np.ndarray
    target: str

    @property
    def modalities(self) -> list[str]:
        """Those that are there, in the model's order."""
        keys = {"image": "pixel_values", "text": "input_ids", "audio": "input_features"}
        return [m for m in self.model.modalities if keys[m] in self.inputs]


@dataclass(frozen=True)
class Attributions:
    """What each part of the inputs contributed, in the target's unit.

    Attributes:
        value, baseline_value: the target for the item and for inputs that say nothing.
        error: what the contributions sum to, less value - baseline_value: 0 for an endlessly fine path.
        parts: image (H, W), summed over the colours; text (L,) a token, summed over the embedding's channels; audio as
            the features are, (F, M).
        grad_cam: (h, w) on the encoder's grid, at least 0.
    """

    value: float
    baseline_value: float
    error: float
    parts: dict[str, np.ndarray]
    grad_cam: Float[np.ndarray, "h w"] | None

    @property
    def relative_error(self) -> float | None:
        """|error| over |value - baseline_value|; None where nothing changes."""
        change = abs(self.value - self.baseline_value)
        return abs(self.error) / change if change > 1e-9 else None


def check_captum() -> None:
    """Refuse early.

    Raises:
        MissingExtraError: captum is not installed.
    """
    if importlib.util.find_spec("captum") is None:
        raise MissingExtraError("explain", "captum", "explain")


def attribute_inputs(question: Question, steps: int = STEPS) -> Attributions:
    """Integrated gradients over all modalities at once, along one straight path, and Grad-CAM of the picture.

    One path for all lets their contributions be compared: together they sum to what the answer changed.

    Args:
        steps: of the path.

    Raises:
        MissingExtraError: captum is not installed.
        InputError: an answer that does not depend on the inputs, as the scores of plain coordinates.

    Source: Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017; Selvaraju et al., Grad-CAM, ICCV
    2017; captum.
    """
    check_captum()
    from captum.attr import IntegratedGradients

    names = question.modalities
    values, baselines = _starts(question, question.inputs), _starts(question, question.baseline)
    with _embeddings_given(question) as give:

        def answer(*parts: Tensor) -> Float[Tensor, " B"]:
            return _answer(question, dict(zip(names, parts, strict=True)), give)

        value, from_nothing = answer(*values), float(answer(*baselines).detach())
        if not value.requires_grad:
            raise InputError(
                f"--target {question.target}", expected="a number that depends on the inputs",
                got=f"a constant of the codec {question.model.config.codec['name']}", remedy="Take --target y.",
            )  # fmt: skip
        made, error = IntegratedGradients(answer).attribute(
            values, baselines, n_steps=steps, internal_batch_size=BATCH, return_convergence_delta=True
        )
        cam = _grad_cam(question, answer, values)
    parts = {m: p.detach()[0].float().cpu().numpy() for m, p in zip(names, made, strict=True)}
    sums = {"image": 0, "text": -1}
    parts = {m: p.sum(sums[m]) if m in sums else p for m, p in parts.items()}
    return Attributions(float(value.detach()), from_nothing, float(error), parts, cam)


def _grad_cam(
    question: Question, answer: Callable[..., Tensor], values: tuple[Tensor, ...]
) -> Float[np.ndarray, "h w"] | None:
    from captum.attr import LayerGradCam

    if "image" not in question.modalities:
        return None
    encoder: Any = question.model.encoders["image"]
    layer = encoder.join if hasattr(encoder, "join") else encoder.neck  # what ends in the grid, called once
    found = LayerGradCam(answer, layer).attribute(values, relu_attributions=True)
    return found[0, 0].detach().float().cpu().numpy()


def embedding_of(model: MmkpForKeypointDetection) -> nn.Module:
    """The layer that turns the text's ids into vectors."""
    encoder: Any = model.encoders["text"]
    return encoder.encoder.get_input_embeddings() if hasattr(encoder, "encoder") else encoder.embed


def _starts(question: Question, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What the path runs over: pixels, embeddings, features."""
    found: dict[str, Tensor] = {}
    for m in question.modalities:
        if m == "text":
            with torch.no_grad():
                found[m] = embedding_of(question.model)(inputs["input_ids"]).detach()
        else:
            found[m] = inputs[{"image": "pixel_values", "audio": "input_features"}[m]]
    return tuple(v.clone().requires_grad_() for v in found.values())


@contextmanager
def _embeddings_given(question: Question) -> Iterator[dict[str, Tensor]]:
    """While it lasts, the text's embedding gives what lies under `text` in the dict."""
    given: dict[str, Tensor] = {}
    if "text" not in question.modalities:
        yield given
        return
    handle = embedding_of(question.model).register_forward_hook(lambda *_: given["text"])
    try:
        yield given
    finally:
        handle.remove()


def _answer(question: Question, parts: dict[str, Tensor], give: dict[str, Tensor]) -> Float[Tensor, " B"]:
    count = len(next(iter(parts.values())))
    rows = {k: v.expand(count, *v.shape[1:]) for k, v in question.inputs.items() if v.ndim}
    if "text" in parts:
        give["text"] = parts["text"]
    model = question.model
    given = {
        "image": (parts.get("image"),),
        "text": (rows["input_ids"] if "text" in parts else None, rows.get("attention_mask")),
        "audio": (parts.get("audio"), rows.get("input_features_mask")),
    }
    xy, scores = model.read(model.detect(model.encode(given)))
    return TARGETS[question.target](xy[:, question.points], scores[:, question.points])
