"""A talking face, drawn live from (seed, index), its mouth driven by real speech.

The way of a sample: `phrases` and `speech` (what is said) -> `visemes` (what the lips should do) -> `clip` (who says
it, how loud, how the head moves) -> `mouth` (68 points in 3D) -> `view` (the same in the picture) -> `render`
(`head`, `face`, `shade`, on `paint`'s canvas) -> `degrade` -> `generate`. `dataset` keeps the result.
"""

from mmkp.data.talker.dataset import TalkerDataset
from mmkp.data.talker.generate import generate

__all__ = ["TalkerDataset", "generate"]
