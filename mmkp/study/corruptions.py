"""What a study asks of corruptions: that their names exist, and the samples that they spoil."""

from __future__ import annotations

from collections.abc import Sequence

from mmkp.data.conditions import OCCLUDER
from mmkp.data.corruptions import CORRUPTIONS, Corruption, corrupt, corruptions_for
from mmkp.data.sample import Sample
from mmkp.errors import InputError, nearest
from mmkp.schema import KeypointSchema


def check_names(where: str, names: Sequence[str], schema: KeypointSchema | None = None) -> None:
    """Refuse a corruption that does not exist; without a schema, any group may be occluded.

    Raises:
        InputError: it names the nearest.
    """
    registry = CORRUPTIONS if schema is None else corruptions_for(schema)
    for name in names:
        if name not in registry and not (schema is None and name.startswith(OCCLUDER)):
            raise InputError(where, expected="a known one", got=repr(name), remedy=nearest(name, registry))


def spoiled(
    name: str, severity: int, samples: Sequence[Sample], donors: Sequence[Sample], registry: dict[str, Corruption]
) -> list[Sample]:
    """The samples under a corruption; those to which it does not apply are left out."""
    made = (corrupt(sample, name, severity, donors, registry) for sample in samples)
    return [sample for sample in made if sample is not None]
