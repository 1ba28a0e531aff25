"""Start from a checkpoint: copy what two models share, whatever else differs between them.

Tensors are matched by what they are rather than by where they lie: a stage's projection by the stage, a row of the head
by its keypoint, a model-level head by the joint one. What has no counterpart keeps its fresh values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkp import hub
from mmkp.errors import InputError
from mmkp.fusion.rules import FusionRule
from mmkp.schema import KeypointSchema

# Tensors that hold something per keypoint: the axis along which, and what stands there. Keypoints may have several rows
# each; `heat` is the keypoints and the background; `fields` is x and y of every limb.
PER_KEYPOINT: dict[str, tuple[int, str]] = {
    r"heads\.\w+\.(logits|maps|last)\.(weight|bias)": (0, "points"),
    r"heads\.\w+\.heat\.\d+\.(weight|bias)": (0, "points"),
    r"heads\.\w+\.feed_heat\.\d+\.weight": (1, "points"),
    r"heads\.\w+\.refinements\.\d+\.(who|judge|bias)": (0, "points"),
    r"heads\.\w+\.stages\.\d+\.heat\.(weight|bias)": (0, "heat"),
    r"heads\.\w+\.stages\.\d+\.fields\.(weight|bias)": (0, "fields"),
    r"heads\.\w+\.stages\.\d+\.see_fields\.weight": (1, "fields"),
    r"heads\.\w+\.stages\.\d+\.enter\.weight": (1, "heat+fields"),
    r"visibility\.\w+\.(look|judge)\.(weight|bias)": (0, "points"),
}
SHARED = -1  # in the place of an axis: of all modalities together
# The same per modality, of fusions that treat each one apart: a specialist starts as its subset was among the others.
PER_MEMBER: dict[str, dict[str, int]] = {
    "gated": {
        r"fusion\.value\.(weight|bias)": 0, r"fusion\.gate\.0\.weight": 1, r"fusion\.gate\.2\.(weight|bias)": 0,
        r"fusion\.stack\.absent": 0, r"fusion\.gate\.0\.bias": SHARED,
    },
    "weighted": {r"fusion\.logits": 0},
}  # fmt: skip
OWN = ("mean_shape", "loss_weight")  # what the new data and the new recipe say
SHOWN = 8  # names in a line
ALIKE = 0.3  # correlation of weights; independent ones have none
LEAST_OUTLINE = 3  # points
ALL_OF = "+"  # joins the names of an outline; no keypoint has it in its name


@dataclass(frozen=True)
class Slot:
    """A tensor of a model; where its rows stand for keypoints, along which axis and for which."""

    tensor: Tensor
    axis: int | None = None
    rows: tuple[Hashable, ...] = ()


def start_from(model: Any, source: str, parts: Collection[str] = ()) -> list[str]:
    """Copy weights from a checkpoint into a freshly made model, in place.

    Args:
        model: MmkpForKeypointDetection, whose own schema, modalities, fusion and input size may be others.
        source: a packaged name, a folder or a Hub id.
        parts: encoders, lifts, fusion, heads; all that the checkpoint has without.

    Returns:
        Lines that say, part by part, what was taken and what starts anew.

    Raises:
        InputError: no such checkpoint, or nothing in it fits the model.
    """
    given = hub.load(source).model
    names = match_keypoints(given.schema, model.schema)
    outlines = match_outlines(given.schema, model.schema, names)
    held, wanted = (
        slots(given, {k: k for k in given.schema.keypoints}),
        slots(model, names | {k: ALL_OF.join(v) for k, v in outlines.items()}),
    )
    asked = (name for name in wanted if not parts or name.partition(".")[0] in parts)
    taken = {name for name in asked if _take(wanted[name], _counterpart(name, held, given, model))}
    if "fusion.gate.0.bias" in taken:
        _fold_absent(given, model)
    if not taken:
        raise InputError(
            "training.start_from", expected=f"a checkpoint that shares parts with the model ({_outline(model)})",
            got=f"{source} ({_outline(given)})", remedy="Take the checkpoint's own model section.",
        )  # fmt: skip
    anew = {name: _counterpart(name, held, given, model) for name in wanted if name not in taken}
    return [
        *_told(source, wanted, taken, given, model), *_told_siblings(source, wanted, anew),
        _told_keypoints(names, outlines, wanted, taken, model.schema),
    ]  # fmt: skip


def match_keypoints(source: KeypointSchema, target: KeypointSchema) -> dict[str, str]:
    """For each keypoint of `target` that `source` has too, its name there.

    The same name, or else the same phrase: what MTCNN's five call `nose_tip` is "tip of the nose" in face68 as well.
    """
    by_phrase = {p: k for p, k in zip(source.phrases, source.keypoints, strict=False) if source.phrases.count(p) == 1}
    phrases = target.phrases or ("",) * target.num_keypoints
    found: dict[str, str] = {}
    for name, phrase in zip(target.keypoints, phrases, strict=True):
        if name in source.keypoints:
            found[name] = name
        elif phrase in by_phrase and phrases.count(phrase) == 1:
            found[name] = by_phrase[phrase]
    return found


def match_outlines(source: KeypointSchema, target: KeypointSchema, names: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """For each keypoint of `target` that `source` knows by its outline alone, the outline: `right_eye` is in the middle
    of right_eye_0 ... right_eye_5, and the mean of their rows is a better start than none.

    Args:
        names: what is matched already.
    """
    found = {}
    for name in target.keypoints:
        points = tuple(k for k in source.keypoints if re.fullmatch(rf"{re.escape(name)}_\d+", k))
        if name not in names and len(points) >= LEAST_OUTLINE:
            found[name] = points
    return found


def slots(model: Any, names: dict[str, str]) -> dict[str, Slot]:
    """A model's tensors by a name that is the same in another model.

    Args:
        names: by keypoint of the model, what its rows are called; a keypoint without is nobody's counterpart.
    """
    labels = [names.get(k) for k in model.schema.keypoints]
    owned = {k for k, _ in model.named_parameters()}
    found = {}
    for name, tensor in model.state_dict().items():
        part = name.partition(".")[0]
        if name in OWN or (part in ("fusion", "criterion") and name not in owned):
            continue  # buffers of a fusion or criterion are what the recipe says
        found[_common_name(model, name)] = _slot(model, name, tensor, labels)
    return found


def _common_name(model: Any, name: str) -> str:
    """timm wraps a cut backbone once more, and the neck counts its projections from the finest stage it is given."""
    name = name.replace("encoders.image.backbone.model.", "encoders.image.backbone.")
    lateral = re.match(r"(encoders\.image\.neck\.lateral\.)(\d+)(.*)", name)
    if lateral is None:
        return name
    return f"{lateral[1]}stage_{model.encoders['image'].picked[int(lateral[2])]}{lateral[3]}"


def _slot(model: Any, name: str, tensor: Tensor, labels: list[str | None]) -> Slot:
    axis = _member_axis(model, name)
    if axis is not None and axis != SHARED:
        each = tensor.shape[axis] // len(model.modalities)
        return Slot(tensor, axis, tuple((m, i) for m in model.modalities for i in range(each)))
    found = next((place for pattern, place in PER_KEYPOINT.items() if re.fullmatch(pattern, name)), None)
    if found is None:
        return Slot(tensor)
    axis, kind = found
    if kind == "points":
        each = tensor.shape[axis] // len(labels)
        return Slot(tensor, axis, tuple(None if k is None else (k, i) for k in labels for i in range(each)))
    heat = (*labels, "background")
    fields = tuple(
        None if labels[a] is None or labels[b] is None else (labels[a], labels[b], i)
        for a, b in model.codec.limbs(len(labels))
        for i in "xy"
    )
    rows: dict[str, tuple[Hashable, ...]] = {"heat": heat, "fields": fields, "heat+fields": (*heat, *fields)}
    return Slot(tensor, axis, rows[kind])


def _member_axis(model: Any, name: str) -> int | None:
    """Along which axis a fusion's tensor has rows for each modality; None where nothing is known of it."""
    known = PER_MEMBER.get(model.config.fusion["name"], {})
    return next((axis for pattern, axis in known.items() if re.fullmatch(pattern, name)), None)


def _counterpart(name: str, held: dict[str, Slot], given: Any, model: Any) -> Slot | None:
    """The tensor of the checkpoint that means what `name` means in the model."""
    old, new = given.config, model.config
    part, key = name.split(".")[:2]
    if part in ("encoders", "lifts"):
        return held.get(name) if _same_encoder(key, old, new) else None
    if part == "finder":
        return held.get(name) if _same_encoder("image", old, new) else None
    if part == "fusion":
        if given.modalities == model.modalities:
            fits = old.fusion["name"] == new.fusion["name"]
        else:  # member by member, of parts that mean the same: as wide, and with as many gates
            fits = _member_axis(model, name) is not None and old.fusion == new.fusion
        return held.get(name) if fits and old.hidden_size == new.hidden_size else None
    if part in ("heads", "visibility"):
        slot = next((held[n] for n in _head_names(name, given) if n in held), None)
        same_codec = old.codec["name"] == new.codec["name"]
        fits = part == "visibility" or old.head["name"] == new.head["name"]
        return slot if fits and slot is not None and (same_codec or slot.axis is None) else None
    return held.get(name)


def _same_encoder(modality: str, old: Any, new: Any) -> bool:
    key = "backbone" if modality == "image" else "encoder"
    return getattr(getattr(old, f"{modality}_config"), key) == getattr(getattr(new, f"{modality}_config"), key)


def _head_names(name: str, given: Any) -> Iterator[str]:
    """Where to look for a head's tensor: a head that reads one modality can start from the joint one, and the reverse.

    A joint head has seen the lifted sound or words by themselves only under a rule, where one modality alone is itself.
    """
    yield name
    part, head, rest = name.split(".", 2)
    if head == "joint":
        yield from (f"{part}.{m}.{rest}" for m in given.modalities)
    elif head == "image" or given.config.fusion["name"] in FusionRule.KINDS:
        yield f"{part}.joint.{rest}"


@torch.no_grad()
def _fold_absent(given: Any, model: Any) -> None:
    """Put what the gates heard of a modality's absence, the same everywhere, into their bias, where it is no member."""
    channels = given.config.hidden_size
    weight = given.fusion.gate[0].weight[:, :, 0, 0].unflatten(1, (-1, channels))
    for number, m in enumerate(given.modalities):
        if m not in model.modalities:
            model.fusion.gate[0].bias += weight[:, number] @ given.fusion.stack.absent[number]


def _take(slot: Slot, from_slot: Slot | None) -> bool:
    """Copy a tensor, or its shared rows; whether anything was."""
    if from_slot is None or slot.tensor.ndim != from_slot.tensor.ndim or slot.axis != from_slot.axis:
        return False
    if slot.axis is None:
        if slot.tensor.shape != from_slot.tensor.shape:
            return False
        slot.tensor.copy_(from_slot.tensor)
        return True
    place = {label: i for i, label in enumerate(from_slot.rows)}
    pairs = [(i, found) for i, label in enumerate(slot.rows) if (found := _places(label, place))]
    to, at = slot.tensor.movedim(slot.axis, 0), from_slot.tensor.movedim(slot.axis, 0)
    if not pairs or to.shape[1:] != at.shape[1:]:
        return False
    into = torch.tensor([i for i, _ in pairs])
    to[into] = torch.stack([at[found].mean(0) if len(found) > 1 else at[found[0]] for _, found in pairs]).to(to.dtype)
    return True


def _places(label: Hashable, place: dict[Hashable, int]) -> list[int]:
    """The rows that a row starts from: its counterpart, or those of the outline around it; none."""
    if label is not None and label in place:
        return [place[label]]
    if isinstance(label, tuple) and len(label) == 2 and isinstance(label[0], str) and ALL_OF in label[0]:
        around: list[Hashable] = [(k, label[1]) for k in label[0].split(ALL_OF)]
        return [place[k] for k in around if k in place]
    return []


def _told(source: str, wanted: dict[str, Slot], taken: set[str], given: Any, model: Any) -> list[str]:
    parts: dict[str, list[str]] = {}
    for name in wanted:
        first, second = name.split(".")[:2]
        parts.setdefault(f"{first}.{second}" if first in ("encoders", "lifts", "heads") else first, []).append(name)
    lines = []
    for part, members in parts.items():
        count = sum(name in taken for name in members)
        state = "starts anew" if not count else f"{count} of {len(members)} tensors" if count < len(members) else "all"
        lines.append(f"start_from {source}: {part}: {state}")
    unused = [m for m in given.modalities if m not in model.modalities]
    return [*lines, *([f"start_from {source}: not used: {', '.join(unused)}"] if unused else [])]


def _told_siblings(source: str, wanted: dict[str, Slot], anew: dict[str, Slot | None]) -> Iterator[str]:
    """Parts that start anew, but from the very values that the checkpoint's began with: it had the same seed.

    What was trained beside them fits them still, so that such a start is no independent one.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, other in anew.items():
        own = wanted[name].tensor
        if other is not None and own.ndim > 1 and own.shape == other.tensor.shape:
            pairs.setdefault(name.partition(".")[0], []).append((own.flatten(), other.tensor.flatten()))
    for part, found in pairs.items():
        fresh, trained = (torch.cat([t.float() for t in side]) for side in zip(*found, strict=True))
        alike = torch.nn.functional.cosine_similarity(fresh, trained, dim=0).item()
        if alike > ALIKE:
            yield (
                f"note: {part} starts anew from the values that {source}'s began with (correlation {alike:.2f}); "
                "another training.seed is independent of it"
            )


def _told_keypoints(
    names: dict[str, str], outlines: dict[str, tuple[str, ...]], wanted: dict[str, Slot], taken: set[str],
    schema: KeypointSchema,
) -> str:  # fmt: skip
    rows = ((name.partition(".")[0], slot.axis) for name, slot in wanted.items() if name in taken)
    by_row = any(part in ("heads", "visibility") and axis is not None for part, axis in rows)
    known, around = ({k: v for k, v in found.items() if by_row} for found in (names, outlines))
    anew = [k for k in schema.keypoints if k not in known and k not in around]
    renamed = [f"{k} from {v}" for k, v in known.items() if k != v]
    line = f"keypoints: {len(known)} of {schema.num_keypoints} keep their weights"
    line += f" ({_listed(renamed)}, by the same phrase)" if renamed else ""
    middles = [f"{k} from {v[0]} ... {v[-1]}" for k, v in around.items()]
    line += f"; from the mean of their outline: {_listed(middles)}" if middles else ""
    return f"{line}; anew: {_listed(anew)}" if anew else line


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def _outline(model: Any) -> str:
    config = model.config
    own = [config.image_config.backbone] if "image" in model.modalities else []
    return ", ".join(
        ["+".join(model.modalities), *own, f"hidden_size {config.hidden_size}", f"head {config.head['name']}"]
    )
