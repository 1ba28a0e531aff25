"""dlib's 68-point predictor as a peer: see jobs.py. Runs in the environment that setup.py makes, not in mmkp's.

Weights: shape_predictor_68_face_landmarks.dat of the package face-recognition-models, trained on 300-W: not for
commercial use, as dlib's author says. The detector is dlib's own (HOG), part of dlib (Boost Software License).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import dlib
import jobs
import numpy as np

PREDICTOR = "shape_predictor_68_face_landmarks.dat"


def weights() -> Path:
    """The predictor's file, found without importing its package (which needs an old setuptools)."""
    found = importlib.util.find_spec("face_recognition_models")
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "models" / PREDICTOR


def make(own_detector: bool = False, upsample: int = 1, scale: float = 1.0, drop: float = 0.0) -> jobs.Detect:
    """A predictor within the job's boxes, or within what dlib's own detector finds.

    Args:
        own_detector: find the face, and take the surest; otherwise the job's box is the rectangle.
        upsample: how often its detector doubles the picture first; 1 is what its users take.
        scale, drop: how the rectangle is laid from the job's box: its side in sides of the box, and how many of them
            its middle lies below the box's. The predictor expects what dlib's detector finds: brows to chin.
    """
    predictor, detector = dlib.shape_predictor(str(weights())), dlib.get_frontal_face_detector()

    def found(picture: np.ndarray) -> dlib.rectangle | None:
        rectangles, scores, _ = detector.run(picture, upsample)
        return rectangles[int(np.argmax(scores))] if len(rectangles) else None

    def detect(picture: np.ndarray, box_xywh: np.ndarray) -> np.ndarray | None:
        rectangle = found(picture) if own_detector else rectangle_of(box_xywh, scale, drop)
        if rectangle is None:
            return None
        parts = predictor(picture, rectangle).parts()
        return np.array([(part.x, part.y) for part in parts], dtype=np.float64)

    return detect


def rectangle_of(box_xywh: np.ndarray, scale: float, drop: float) -> dlib.rectangle:
    """A rectangle about the box's middle; dlib's corners are whole pixels and belong to the rectangle."""
    width = scale * box_xywh[2]
    left, top = box_xywh[:2] + box_xywh[2:] / 2 - width / 2 + (0, drop * box_xywh[3])
    first_x, first_y = round(left + 0.5), round(top + 0.5)
    return dlib.rectangle(first_x, first_y, first_x + round(width) - 1, first_y + round(width) - 1)


if __name__ == "__main__":
    jobs.serve(make)
