"""The pipeline from before deep networks: SIFT / SURF / HOG, TF-IDF, MFCC statistics; SVM, random forest, matching.

The same samples, the same evaluation and the same run folder as a network's, but for a model file: what scikit-learn
fits is saved by pickling, and nothing here unpickles what a user points at. A run keeps its predictions instead; the
fit is a function of recipe and data, and takes a minute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

KIND = "classic"  # what `kind:` says at the top of a recipe of this pipeline

DESCRIPTORS: dict[str, str] = {
    "hog": "mmkp.classic.descriptors:Hog",
    "sift": "mmkp.classic.descriptors:Sift",
    "surf": "mmkp.classic.descriptors:Surf",
}
REGRESSORS: dict[str, str] = {
    "svm": "mmkp.classic.regressors:Svm",
    "linear_svm": "mmkp.classic.regressors:LinearSvm",
    "forest": "mmkp.classic.regressors:Forest",
}
METHODS: dict[str, str] = {  # how the picture gives keypoints; text and sound always take `regression`
    "regression": "mmkp.classic.experts:Regression",
    "patch_svm": "mmkp.classic.patches:PatchSvm",
    "patch_forest": "mmkp.classic.patches:PatchForest",
    "matching": "mmkp.classic.matching:Matching",
}


def is_classic(path: str | Path) -> bool:
    """Whether a recipe's file says `kind: classic`; False for one that cannot be read, which its loader explains."""
    import yaml

    try:
        plain = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(plain, dict) and plain.get("kind") == KIND


def run(path: str | Path, overrides: list[str] | tuple[str, ...] = (), out: Path | None = None) -> dict[str, Any]:
    """Fit a classic recipe and evaluate it on the test split.

    Args:
        path: a recipe that says `kind: classic`.
        overrides: `a.b=c` words.
        out: the run's folder; runs/NAME without.

    Returns:
        The summary (DESIGN, section 4), as for a network.

    Raises:
        InputError: the recipe, the data or the folder is not fit.
        MissingExtraError: a package of the extra `classic` or of the data is not installed.
    """
    from mmkp.classic.recipe import load_classic_recipe
    from mmkp.classic.runner import run_recipe

    recipe = load_classic_recipe(path, overrides)
    return run_recipe(recipe, out or Path("runs") / recipe.name)
