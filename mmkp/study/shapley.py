"""Who adds what: Shapley values of the modalities in a study's fusions, from the errors of all their subsets."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp.data.sample import MODALITIES
from mmkp.explain.shapley import shapley_values
from mmkp.study.analysis import Origin, label
from mmkp.study.grid_results import MEAN_SHAPE, GridResults
from mmkp.study.statistics import over_seeds
from mmkp.study.tables import Estimate, Table


def shapley_table(grid: GridResults, origin: Origin) -> Table:
    """What each modality takes off the error, for every network of all modalities, by condition and group of keypoints.

    No row where a subset, or the prior, was not judged.
    """
    arms = [a for a in grid.arms if grid.loaded.modalities[a] == MODALITIES and a not in grid.loaded.classic]
    rows: list[list[Any]] = []
    for arm in arms:
        for condition in grid.conditions:
            for part in grid.parts:
                values = added(grid, arm, condition, part)
                known = ~np.isnan(values[0]).all(0)
                if known.any():
                    shown = [_estimate(grid, v) for v in (*values, values.sum(0))]
                    groups = len(set(grid.groups[known]))
                    rows.append([label(grid, arm), condition, part, *shown, int(known.sum()), groups])
    text = (
        f"Exact Shapley values: the fall of the NME / {grid.normalizer} from the prior, the mean shape, to the answer "
        "of all modalities, shared out among them; below 0 a modality adds to the error. Mean [95 % interval over "
        "groups] ± standard deviation over seeds; the fall is their sum."
    )
    head = ["arm", "condition", "keypoints", *MODALITIES, "fall", "n", "groups"]
    return Table("shapley", "Who adds what", origin.caption(text, items=False), head, rows)


def added(grid: GridResults, arm: str, condition: str, part: str) -> Float[np.ndarray, "M S N"]:
    """The Shapley value of every modality by seed and item; NaN where the error of a subset is not known."""
    own = grid.loaded.modalities[arm]
    errors = [np.broadcast_to(prior(grid, condition, part), (len(grid.seeds(arm)), len(grid.ids)))]
    for number in range(1, 1 << len(own)):  # modality i belongs to the subset where bit i is set
        subset = "+".join(m for i, m in enumerate(own) if number >> i & 1)
        errors.append(grid.values(arm, (condition, 0, subset, part)))
    return shapley_values(-np.stack(errors))


def prior(grid: GridResults, condition: str, part: str) -> Float[np.ndarray, " N"]:
    """The error of the mean shape, NaN where not known.

    Under a condition for which no cell has it that of another: the mean shape does not depend on the picture.
    """
    for held in (condition, *(c for c in grid.conditions if c != condition)):
        for arm in grid.arms:
            found = over_seeds(grid.values(arm, (held, 0, MEAN_SHAPE, part)))
            if not np.isnan(found).all():
                return found
    return np.full(len(grid.ids), np.nan)


def _estimate(grid: GridResults, by_seed: Float[np.ndarray, "S N"]) -> Estimate:
    found = grid.draws.interval(over_seeds(by_seed))
    means = [float(np.nanmean(v)) for v in by_seed if not np.isnan(v).all()]
    return Estimate(found["mean"], found["ci95"], float(np.std(means, ddof=1)) if len(means) > 1 else None)
