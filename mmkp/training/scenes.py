"""Scenes to fit the finder on: faces of a dataset at any place and size, before backgrounds that hold none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mmkp import geometry
from mmkp.data.augment_config import AugmentConfig
from mmkp.data.augment_image import camera
from mmkp.data.corrupt import can_cover, cover
from mmkp.data.face import face_box
from mmkp.data.sample import KeypointDataset
from mmkp.training.textures import draw_texture

Image = UInt8[np.ndarray, "h w 3"]
FACE_PX = 128  # faces are kept at most so large: twice the spotter's nominal size
AROUND = 3.0  # sides of the face's box that are kept of its picture
COVERED = 0.3  # of the faces wear the cover of `mmkp.data.corrupt`
TURN_DEG = 20.0
INSIDE = 0.35  # of a box's side: so far from the border its middle lies; the eyes are in the picture
CAMERA = AugmentConfig(brightness=0.35, contrast=0.35, saturation=0.4, hue_deg=10, grey=0.1, blur=0.25, blur_sigma_px=2,
                       low_resolution=0.3, jpeg=0.2, noise_std=6)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """A face with what is around it, px of its own picture."""

    image: Image
    keypoints_xy: Float[np.ndarray, "68 2"]
    box_xywh: Float[np.ndarray, " 4"]


def collect(dataset: KeypointDataset, most: int) -> list[Face]:
    """Up to `most` faces of a dataset, evenly spread, cut out of their pictures; those without eyes are left out."""
    picked = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), most)).round().astype(int))
    faces = []
    for i in picked:
        sample = dataset[int(i)]
        points = sample.keypoints_xy.astype(np.float64)
        if sample.image is not None and can_cover(points):
            faces.append(_cut(sample.image, points))
    return faces


def _cut(image: Image, points: np.ndarray) -> Face:
    box = face_box(points)
    middle, half = box[:2] + box[2:] / 2, AROUND * box[2] / 2
    low = np.clip(np.floor(middle - half), 0, None).astype(int)
    high = np.minimum(np.ceil(middle + half), image.shape[1::-1]).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    scale = min(1.0, FACE_PX / box[2])
    affine = np.array([[scale, 0, 0], [0, scale, 0]]) @ np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1.0]])
    size = (max(1, round(part.shape[0] * scale)), max(1, round(part.shape[1] * scale)))
    points = geometry.transform(points, affine)
    return Face(geometry.warp(image, affine, size), points, face_box(points))


class Scenes:
    """Draws scenes.

    Args:
        faces: to lay into them; what is around a face also makes backgrounds.
        photographs: pictures without a face, for backgrounds; may be none.
    """

    def __init__(self, faces: Sequence[Face], photographs: Sequence[Image] = ()) -> None:
        self.faces, self.photographs = faces, photographs

    def draw(
        self, size_hw: tuple[int, int], sides_px: Sequence[float], rng: np.random.Generator
    ) -> tuple[Image, Float[np.ndarray, "N 4"]]:
        """A picture with a face for each of `sides_px`, as far as there is room.

        Args:
            size_hw: of the picture, px.
            sides_px: of the faces' boxes.
            rng: decides all.

        Returns:
            The picture and the boxes of its faces, xywh px.
        """
        canvas = self.background(size_hw, rng)
        boxes: list[np.ndarray] = []
        for side in sides_px:
            edge = np.minimum(INSIDE * side, 0.4 * np.array(size_hw[::-1]))
            middle = rng.uniform(edge, np.array(size_hw[::-1]) - edge)
            if all(np.abs(b[:2] + b[2:] / 2 - middle).max() > 0.55 * (side + b[2]) for b in boxes):
                face = self.faces[int(rng.integers(len(self.faces)))]
                boxes.append(lay(canvas, face, middle, side, rng))
        return camera(canvas, CAMERA, rng), np.array(boxes).reshape(-1, 4)

    def background(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
        """A picture without a face."""
        kinds = [self._shuffled, self._around, self._spoilt, lambda s, r: draw_texture(s, r)]
        kinds += [self._photograph] * bool(self.photographs)
        return np.ascontiguousarray(kinds[rng.integers(len(kinds))](size_hw, rng))

    def _photograph(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
        """A part of one, of any size, either way round."""
        image = self.photographs[int(rng.integers(len(self.photographs)))]
        most = min(image.shape[0] / size_hw[0], image.shape[1] / size_hw[1])
        share = most * math.exp(rng.uniform(math.log(0.3), 0))
        room = np.array(image.shape[1::-1]) - np.array(size_hw[::-1]) * share
        corner = rng.uniform(0, np.maximum(room, 1e-9))
        affine = np.array([[1 / share, 0, -corner[0] / share], [0, 1 / share, -corner[1] / share]])
        made = geometry.warp(image, affine, size_hw)
        return made[:, ::-1] if rng.random() < 0.5 else made

    def _shuffled(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
        """Small tiles of faces and of what is around them, each somewhere else and turned: eyes, but no face."""
        tile = int(rng.integers(12, 33))
        rows, columns = -(-size_hw[0] // tile), -(-size_hw[1] // tile)
        sources = [self.faces[i].image for i in rng.integers(len(self.faces), size=int(rng.integers(1, 5)))]
        made = np.empty((rows, columns, tile, tile, 3), np.uint8)
        for row in range(rows):
            for column in range(columns):
                source = sources[rng.integers(len(sources))]
                piece = _piece(source, tile, rng)
                made[row, column] = np.rot90(piece, int(rng.integers(4)))
        return made.swapaxes(1, 2).reshape(rows * tile, columns * tile, 3)[: size_hw[0], : size_hw[1]]

    def _around(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
        """What is beside a face, mirrored until it fills the picture: shoulders, hair, walls."""
        face = self.faces[int(rng.integers(len(self.faces)))]
        x, y, side, _ = face.box_xywh
        height, width = face.image.shape[:2]
        free = [(0, 0, width, int(y)), (0, 0, int(x), height), (int(x + side) + 1, 0, width, height),
                (0, int(y + side) + 1, width, height)]  # fmt: skip
        free = [(a, b, c, d) for a, b, c, d in free if c - a > 8 and d - b > 8]
        if not free:
            return draw_texture(size_hw, rng)
        left, top, right, bottom = free[rng.integers(len(free))]
        part = face.image[top:bottom, left:right]
        grow = rng.uniform(1, 3)
        part = cv2.resize(part, None, fx=grow, fy=grow, interpolation=cv2.INTER_LINEAR)
        return np.pad(part, [(0, max(0, s - p)) for s, p in zip(size_hw, part.shape[:2], strict=True)] + [(0, 0)],
                      mode="symmetric")[: size_hw[0], : size_hw[1]]  # fmt: skip

    def _spoilt(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
        """Heads whose faces are none: parts exchanged, hidden by a texture, or blurred away."""
        canvas = draw_texture(size_hw, rng)
        for _ in range(int(rng.integers(1, 5))):
            face = self.faces[int(rng.integers(len(self.faces)))]
            side = math.exp(rng.uniform(math.log(32), math.log(128)))
            middle = rng.uniform(0, size_hw[::-1])
            lay(canvas, _spoil(face, rng), middle, side, rng)
        return canvas


def _piece(image: Image, tile: int, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    if height < tile or width < tile:
        return cv2.resize(image, (tile, tile))
    top, left = rng.integers(0, height - tile + 1), rng.integers(0, width - tile + 1)
    return image[top : top + tile, left : left + tile]


def _spoil(face: Face, rng: np.random.Generator) -> Face:
    """A face whose box holds its parts in disorder, a texture, or hardly anything."""
    image, side = face.image.copy(), int(face.box_xywh[2])
    x, y = (max(0, int(v)) for v in face.box_xywh[:2])
    inner = image[y : y + side, x : x + side]
    size = (inner.shape[0], inner.shape[1])
    kind = rng.integers(3) if inner.size else -1
    if kind == 0:
        cells = int(rng.integers(2, 5))
        pieces = [np.rot90(_piece(face.image, side // cells + 1, rng), int(rng.integers(4))) for _ in range(cells**2)]
        rows = [np.concatenate(pieces[i * cells : (i + 1) * cells], 1) for i in range(cells)]
        inner[...] = cv2.resize(np.concatenate(rows), size[::-1])
    elif kind == 1:
        inner[...] = draw_texture(size, rng)
    elif kind == 2:
        inner[...] = cv2.blur(inner, (max(3, side // 3), max(3, side // 3)))
    return Face(image, face.keypoints_xy, face.box_xywh)


def lay(
    canvas: Image, face: Face, middle_xy: np.ndarray, side_px: float, rng: np.random.Generator
) -> Float[np.ndarray, " 4"]:
    """Lay a face with some of what is around it onto a canvas; its box xywh, px of the canvas."""
    image, points = face.image, face.keypoints_xy
    if rng.random() < COVERED:
        image, _ = cover(image, points, rng)
    scale, angle = side_px / face.box_xywh[2], math.radians(rng.uniform(-1, 1) * TURN_DEG)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    if rng.random() < 0.5:
        linear = linear @ np.array([[-1.0, 0], [0, 1]])
    own = face.box_xywh[:2] + face.box_xywh[2:] / 2
    affine = np.column_stack([linear, middle_xy - linear @ own])
    size = (canvas.shape[0], canvas.shape[1])
    weight = geometry.warp(np.repeat(_outline(face, rng)[..., None], 3, 2), affine, size).astype(np.float32) / 255
    canvas[...] = np.rint(weight * geometry.warp(image, affine, size) + (1 - weight) * canvas)
    corners = geometry.transform(points, affine)
    if np.linalg.det(linear) < 0:  # mirrored: the eyes change sides, their middle and distance stay
        corners[36:48] = corners[[45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]]
    return face_box(corners)


def _outline(face: Face, rng: np.random.Generator) -> UInt8[np.ndarray, "h w"]:
    """How much of a face's picture is laid down: all of it, a part around the box, or the head with a soft edge."""
    height, width = face.image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    x, y, side, _ = face.box_xywh
    kind = rng.random()
    if kind < 0.5:
        mask[...] = 255
    elif kind < 0.7:
        left, top, right, bottom = side * rng.uniform(-0.05, 0.6, 4)
        cv2.rectangle(mask, (int(x - left), int(y - top)), (int(x + side + right), int(y + side + bottom)), 255, -1)
    else:
        half = side * np.array([rng.uniform(0.42, 0.6), rng.uniform(0.55, 0.75)])
        centre = (int(x + side / 2), int(y + side * 0.45))
        cv2.ellipse(mask, centre, tuple(int(v) for v in half), 0, 0, 360, 255, -1, cv2.LINE_AA)
        soft = max(1, int(side * rng.uniform(0.01, 0.1)))
        return np.asarray(cv2.blur(mask, (soft, soft)), np.uint8)
    return mask
