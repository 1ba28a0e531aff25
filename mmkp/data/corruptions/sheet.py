"""All corruptions of the picture at all severities, as one picture to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from mmkp.data.corruptions import NUM_SEVERITIES, corrupt, corruptions_for
from mmkp.data.sample import Sample
from mmkp.evaluation.draw import TRUE, caption, crop_to_box, draw_keypoints, sheet
from mmkp.schema import KeypointSchema


def contact_sheet(
    sample: Sample, schema: KeypointSchema, donors: Sequence[Sample] = (), side: int = 112, labels: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """A row per image corruption that applies: clear first, then severities 1 to 5, each as the network sees it.

    Args:
        sample: with an image.
        schema: of its keypoints.
        donors: see `mmkp.data.corruptions.donor_pool`.
        side: of a tile, px.
        labels: draw the keypoints, where they are said to be visible.
    """
    registry = corruptions_for(schema)
    tiles: list[np.ndarray] = []
    for name, corruption in registry.items():
        if corruption.modality != "image" or name == "missing_image" or (corruption.needs_donors and not donors):
            continue
        for severity in range(NUM_SEVERITIES + 1):
            changed = corrupt(sample, name, severity, donors, registry)
            text = f"{name} {corruption.severities[severity - 1]:g}" if severity else "clear"
            tiles.append(caption(_tile(changed, schema, side, labels), text))
    return sheet(tiles, NUM_SEVERITIES + 1)


def _tile(sample: Sample | None, schema: KeypointSchema, side: int, labels: bool) -> UInt8[np.ndarray, "S S 3"]:
    """The box of a sample; grey where there is nothing to see."""
    if sample is None or sample.image is None:
        return np.full((side, side, 3), 128, np.uint8)
    shown = np.where(sample.visible[:, None] == 2, sample.keypoints_xy, np.nan)
    tile, (points,) = crop_to_box(sample.image, sample.box_xywh, side, shown)
    return draw_keypoints(tile, points, schema, TRUE) if labels else tile
