"""Dense image descriptors of crops: HOG, SIFT, SURF. Each is a recipe's part with its own options, and is called."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from mmkp.errors import InputError, MissingExtraError
from mmkp.recipe import Section

Pixels = Annotated[int, Field(ge=2, le=256)]


def grey(crops: UInt8[np.ndarray, "N S S 3"]) -> UInt8[np.ndarray, "N S S"]:
    """Luma of ITU-R BT.601, as OpenCV has it."""
    count, side = crops.shape[:2]
    if not count:
        return crops[..., 0]
    return cv2.cvtColor(crops.reshape(count * side, -1, 3), cv2.COLOR_RGB2GRAY).reshape(count, side, -1)


def orientation_maps(pictures: UInt8[np.ndarray, "N S S"], bins: int) -> Float32[np.ndarray, "N S S bins"]:
    """Gradient magnitude by unsigned orientation, shared linearly between the two nearest of `bins` over 180 degrees.

    Centred differences without smoothing, the border repeated.

    Source: Dalal and Triggs, CVPR 2005, sections 6.2 and 6.3.
    """
    padded = np.pad(pictures.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    magnitude = np.hypot(across, down)
    place = np.mod(np.arctan2(down, across), np.pi) * (bins / np.pi)
    low = np.floor(place)
    upper_share = (place - low).astype(np.float32)
    lower = low.astype(np.int64) % bins
    maps = np.zeros((*pictures.shape, bins), np.float32)
    np.put_along_axis(maps, lower[..., None], (magnitude * (1 - upper_share))[..., None], -1)
    upper = (lower + 1) % bins
    held = np.take_along_axis(maps, upper[..., None], -1)
    np.put_along_axis(maps, upper[..., None], held + (magnitude * upper_share)[..., None], -1)
    return maps


class Hog(Section):
    """Histograms of oriented gradients: square cells, blocks of 2 x 2 cells one cell apart, L2-Hys.

    Source: Dalal and Triggs, CVPR 2005 (OpenCV 5 has no HOGDescriptor). The clip at 0.2 is theirs.
    """

    cell_px: Pixels = 8
    bins: Annotated[int, Field(ge=2, le=36)] = 9

    def __call__(self, crops: UInt8[np.ndarray, "N S S 3"]) -> Float32[np.ndarray, "N D"]:
        """Descriptors of crops; what is left over of a side that is no multiple of the cell is not looked at.

        Raises:
            InputError: crops of fewer than 2 x 2 cells.
        """
        count, cells = len(crops), crops.shape[1] // self.cell_px
        if cells < 2:
            raise InputError("features.image.cell_px", expected="at least 2 cells a side", got=f"{cells}")
        used = cells * self.cell_px
        maps = orientation_maps(grey(crops)[:, :used, :used], self.bins)
        histograms = maps.reshape(count, cells, self.cell_px, cells, self.cell_px, self.bins).sum((2, 4))
        corners = [histograms[:, i : cells - 1 + i, j : cells - 1 + j] for i in (0, 1) for j in (0, 1)]
        blocks = l2_hys(np.concatenate(corners, -1))
        return blocks.reshape(count, (cells - 1) ** 2 * 4 * self.bins)


def l2_hys(histograms: np.ndarray) -> np.ndarray:
    """Length 1 along the last axis, clipped at 0.2, length 1 again; a block flat to a few grey levels stays short."""
    return _unit(np.minimum(_unit(histograms, floor=16.0), 0.2), floor=1e-2)


def _unit(vectors: np.ndarray, floor: float) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(-1, keepdims=True) + floor**2)


def lattice(side: int, step_px: int) -> np.ndarray:
    """Places `step_px` apart, centred in a side of px: (P, 2) x, y, row by row."""
    count = max(1, side // step_px)
    line = (side - 1) / 2 + (np.arange(count) - (count - 1) / 2) * step_px
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


class Sift(Section):
    """Upright SIFT on a lattice: `diameter_px` of a keypoint, whose 4 x 4 cells cover 6 diameters.

    Source: Lowe, IJCV 2004, by OpenCV.
    """

    step_px: Pixels = 8
    diameter_px: Annotated[float, Field(ge=1, le=64)] = 3.0

    def __call__(self, crops: UInt8[np.ndarray, "N S S 3"]) -> Float32[np.ndarray, "N D"]:
        """RootSIFT (Arandjelovic and Zisserman, CVPR 2012) at every place, in a row."""
        places = lattice(crops.shape[1], self.step_px)
        keypoints = [cv2.KeyPoint(float(x), float(y), self.diameter_px, 0.0) for x, y in places]
        sift = cv2.SIFT.create()
        made = np.zeros((len(crops), len(places) * 128), np.float32)
        for row, picture in zip(made, grey(crops), strict=True):
            row[:] = root(sift.compute(picture, keypoints)[1]).ravel()
        return made


def root(descriptors: Float32[np.ndarray, "P 128"]) -> Float32[np.ndarray, "P 128"]:
    """SIFT -> RootSIFT: divided by its sum, then the square root."""
    return np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))


class Surf(Section):
    """SURF on a lattice; its window covers 20 `scale` px, and it turns with the local gradient.

    Source: Bay et al., ECCV 2006, by mahotas.
    """

    step_px: Pixels = 8
    scale: Annotated[float, Field(ge=1, le=8)] = 1.2

    def __call__(self, crops: UInt8[np.ndarray, "N S S 3"]) -> Float32[np.ndarray, "N D"]:
        """Descriptors at every place, in a row; the border is repeated so that windows at the edge are whole.

        Raises:
            MissingExtraError: mahotas is not installed.
        """
        try:
            from mahotas.features import surf
        except ImportError as error:
            raise MissingExtraError("features.image surf", "mahotas", "classic") from error
        margin = int(np.ceil(20 * self.scale))
        places = np.rint(lattice(crops.shape[1], self.step_px)) + margin
        points = np.column_stack([places[:, 1], places[:, 0], *np.full((3, len(places)), [[self.scale], [1], [1]])])
        made = np.zeros((len(crops), len(places) * 64), np.float32)
        for row, picture in zip(made, grey(crops), strict=True):
            padded = np.pad(picture.astype(np.float64), margin, mode="edge")
            row[:] = surf.descriptors(padded, points, descriptor_only=True).ravel()
        return made
