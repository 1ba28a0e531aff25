"""What a set of keypoints means: names, flip pairs, edges, OKS sigmas, the normalizer of its errors, groups."""

from __future__ import annotations

from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from mmkp.errors import InputError, nearest


class Normalizer(BaseModel):
    """The length, in px of the image frame, that an error is divided by.

    `distance` is the distance between two keypoints of the ground truth; `box_side` the square root of the area of
    the sample's box; `unit` is 1 px.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["distance", "box_side", "unit"]
    points: tuple[int, ...] = ()

    def __call__(self, keypoints_xy: np.ndarray, box_xywh: np.ndarray) -> np.ndarray:
        """Lengths in px.

        Args:
            keypoints_xy: (N, K, 2) ground truth, px.
            box_xywh: (N, 4) px.

        Returns:
            (N,) px; 0 or NaN where the length is not known, which metrics leave out.
        """
        if self.kind == "distance":
            a, b = self.points
            return np.linalg.norm(keypoints_xy[:, a] - keypoints_xy[:, b], axis=-1)
        if self.kind == "box_side":
            return np.sqrt(np.clip(box_xywh[:, 2] * box_xywh[:, 3], 0, None))
        return np.ones(len(keypoints_xy))


class KeypointSchema(BaseModel):
    """The typed form of a schema file. Indices refer to `keypoints`.

    Raises:
        pydantic.ValidationError: an unknown key, an index out of range, pairs that are no involution, a wrong length.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    keypoints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None
    normalizer: Normalizer = Normalizer(name="box_side", kind="box_side")
    groups: dict[str, tuple[int, ...]] = {}
    phrases: tuple[str, ...] = ()

    @field_validator("keypoints")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError("keypoints must be at least one name, and all names must differ")
        return names

    @model_validator(mode="after")
    def _indices_fit(self) -> KeypointSchema:
        count = len(self.keypoints)
        used = [i for pair in (*self.flip_pairs, *self.edges) for i in pair]
        used += [i for members in self.groups.values() for i in members] + list(self.normalizer.points)
        if any(not 0 <= i < count for i in used):
            raise ValueError(f"an index lies outside 0..{count - 1}")
        flipped = [i for pair in self.flip_pairs for i in pair]
        if len(set(flipped)) != len(flipped):
            raise ValueError("a keypoint stands in two flip pairs, so that a flip twice would not be nothing")
        if self.normalizer.kind == "distance" and len(self.normalizer.points) != 2:
            raise ValueError("a normalizer of kind 'distance' takes two points")
        for field in ("sigmas", "phrases"):
            values = getattr(self, field)
            if values and len(values) != count:
                raise ValueError(f"{field} must hold {count} entries, one per keypoint, not {len(values)}")
        return self

    @property
    def num_keypoints(self) -> int:
        """K."""
        return len(self.keypoints)

    @cached_property
    def flip_index(self) -> np.ndarray:
        """(K,) the keypoint that each one becomes in a mirrored picture; an involution."""
        index = np.arange(self.num_keypoints)
        for a, b in self.flip_pairs:
            index[a], index[b] = b, a
        return index

    def group_indices(self) -> dict[str, np.ndarray]:
        """The groups as index arrays."""
        return {name: np.asarray(members) for name, members in self.groups.items()}


def schema_names() -> list[str]:
    """The names of the built-in schemas."""
    return sorted(f.name.removesuffix(".yaml") for f in files("mmkp.schemas").iterdir() if f.name.endswith(".yaml"))


@lru_cache(maxsize=32)
def load_schema(name_or_path: str) -> KeypointSchema:
    """A built-in schema by name, or one from a YAML file.

    Raises:
        InputError: no such name or file, or the file's content is not a schema.
    """
    builtin = files("mmkp.schemas") / f"{name_or_path}.yaml"
    is_file = str(name_or_path).endswith((".yaml", ".yml"))
    if not is_file and not builtin.is_file():
        raise InputError(
            "schema", expected="a built-in name or a .yaml file", got=repr(name_or_path),
            remedy=nearest(str(name_or_path), schema_names()),
        )  # fmt: skip
    try:
        text = Path(name_or_path).read_text("utf-8-sig") if is_file else builtin.read_text("utf-8")
        return parse_schema(yaml.safe_load(text), where=str(name_or_path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"schema {name_or_path}", expected="a readable YAML file", got=str(error)) from error


def parse_schema(data: Any, where: str = "schema") -> KeypointSchema:
    """A schema from its plain form (what a YAML file or a checkpoint's config holds).

    Raises:
        InputError: with the first fault found.
    """
    try:
        return KeypointSchema.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = (Normalizer if place.startswith("normalizer.") else KeypointSchema).model_fields
            key = str(first["loc"][-1])
            raise InputError(
                f"schema {where}", expected=f"keys of {', '.join(known)}", got=repr(key), remedy=nearest(key, known)
            ) from error
        raise InputError(
            f"schema {where} {place}".strip(), expected="a schema that fits together",
            got=first["msg"].removeprefix("Value error, "), remedy="docs/custom_data.md shows one.",
        ) from error  # fmt: skip
