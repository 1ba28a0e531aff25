"""Small recipes and runs that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkp.recipe import Recipe, parse_recipe
from mmkp.training.loop import Trainer


def tiny_recipe(grid_root: Path, **training: Any) -> Recipe:
    """A recipe that trains in seconds: 48 px, 16 channels, one thread."""
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"dataset": f"grid:{grid_root}", "validation_samples": 8},
            "model": {
                "hidden_size": 16,
                "input_size_hw": [48, 48],
                "image": {"backbone": "mobilenetv3_small_050", "stride": 8},
                "text": {"layers": 1, "heads": 2},
                "audio": {"layers": 1, "heads": 2, "mel_bins": 16},
                "fusion": {"name": "average"},
                "head": {"name": "heatmap", "layers": 1},
                "codec": {"name": "heatmap", "sigma_grid": 1.0},
            },
            "augment": {"cover": 0.3, "drop_image": 0.2, "drop_text": 0.2, "drop_audio": 0.2},
            "training": {
                "steps": 4,
                "batch_size": 4,
                "warmup_steps": 1,
                "evaluate_every": 2,
                "log_every": 1,
                "threads": 1,
                **training,
            },
        }
    )


def train(recipe: Recipe, out: Path, resume: bool = False) -> Path:
    """Run a recipe in this process."""
    return Trainer(recipe, out, resume).train()
