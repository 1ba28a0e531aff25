"""MmkpImageProcessor: a box of a picture -> the network's input."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from mmkp import geometry
from mmkp.data.io import pil_to_rgb
from mmkp.errors import InputError

ORIENTATION = 0x0112  # of EXIF: how a camera was held
TURNED = (
    "the picture's EXIF data says that it is to be turned, and it is taken as it lies: "
    "PIL.ImageOps.exif_transpose(image) turns it upright"
)
BOX = "x, y, width, height in px, with an area"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MmkpImageProcessor(BaseImageProcessor):
    """Crop a box into the network's input, its aspect kept, and normalise.

    Args:
        size_hw: height and width of the input, px.
        image_mean, image_std: of RGB in [0, 1]; ImageNet's by default.
    """

    model_input_names = ["pixel_values", "image_to_input"]

    def __init__(
        self,
        size_hw: Sequence[int] = (128, 128),
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size_hw: Any = tuple(size_hw)
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)

    def to_dict(self) -> dict[str, Any]:
        """The plain form."""
        own = {"size_hw": list(self.size_hw), "image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return {**own, "image_processor_type": type(self).__name__}

    def preprocess(
        self, images: Any, boxes: Sequence | None = None, image_to_input: Sequence | None = None,
        return_tensors: str | None = "pt", **kwargs: Any,
    ) -> BatchFeature:  # fmt: skip
        """Pictures -> pixel_values (B, 3, h, w) and image_to_input (B, 2, 3).

        Args:
            images: one or a list of PIL pictures or (H, W, 3) uint8 arrays, RGB.
            boxes: xywh px, image frame, for each; the whole picture where None.
            image_to_input: affines to use instead of boxes.

        Raises:
            InputError: something that is no picture, or a box without area.
        """
        images = [as_rgb(image) for image in (images if isinstance(images, (list, tuple)) else [images])]
        if image_to_input is None:
            boxes = [None] * len(images) if boxes is None else boxes
            image_to_input = [self.affine(b, (i.shape[0], i.shape[1])) for b, i in zip(boxes, images, strict=True)]
        crops = [geometry.warp(i, a, self.size_hw) for i, a in zip(images, image_to_input, strict=True)]
        affines = np.stack(list(image_to_input)).astype(np.float32)
        return BatchFeature(
            {"pixel_values": self.normalize(np.stack(crops)), "image_to_input": torch.from_numpy(affines)},
            tensor_type=return_tensors,
        )

    def affine(self, box_xywh: Sequence[float] | None, image_hw: tuple[int, int]) -> np.ndarray:
        """Image frame -> input frame for a box, or for the whole picture."""
        box = geometry.whole_image_box(image_hw) if box_xywh is None else as_box(box_xywh)
        try:
            return geometry.crop_affine(box, self.size_hw)
        except ValueError as error:
            raise InputError("box", expected=BOX, got=str(box.tolist())) from error

    def normalize(self, crops: np.ndarray) -> torch.Tensor:
        """(B, h, w, 3) uint8 -> (B, 3, h, w) float32, channels last in memory."""
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).to(torch.float32)
        mean = torch.tensor(self.image_mean).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.image_std).view(1, 3, 1, 1) * 255
        return pixels.sub_(mean).div_(std)


def as_box(box: Any) -> np.ndarray:
    """Four numbers, or a mapping as the pipeline returns it, as (4,) xywh px.

    Raises:
        InputError: anything else.
    """
    sides = ("x", "y", "width", "height")
    if isinstance(box, Mapping) and set(box) == set(sides):
        box = [box[k] for k in sides]
    try:
        made = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        made = np.empty(0)
    if made.shape != (4,):
        raise InputError("box", expected=BOX, got=repr(box)[:80])
    return made


def check_within(boxes_xywh: np.ndarray, image_hw: tuple[int, int]) -> None:
    """Refuse boxes (N, 4) of which one lies beside the picture.

    Raises:
        InputError: so it is.
    """
    low, high = boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    if ((low >= image_hw[::-1]) | (high <= 0)).any():
        raise InputError("box", expected=f"one within {image_hw[1]} x {image_hw[0]} px", got=str(boxes_xywh.tolist()))


def as_rgb(image: Any) -> np.ndarray:
    """A PIL picture, an array (H, W, 3) or (H, W), or a tensor (3, H, W) as (H, W, 3) uint8.

    Raises:
        InputError: anything else.
    """
    if isinstance(image, Image.Image):
        if image.getexif().get(ORIENTATION, 1) != 1:
            warnings.warn(TURNED, stacklevel=2)
        return pil_to_rgb(image)
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] == 3 != image.shape[2]:
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2:
            return np.repeat(image[:, :, None], 3, axis=2)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    got = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".strip()
    is_share = isinstance(image, np.ndarray) and image.dtype.kind == "f"
    raise InputError(
        "image", expected="a PIL picture or a uint8 array (H, W, 3), RGB", got=got,
        remedy="For values in [0, 1]: (image * 255).round() as uint8." if is_share else "",
    )  # fmt: skip
