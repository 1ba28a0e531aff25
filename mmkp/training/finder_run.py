"""From a run's folder to one whose model finds faces: read the data, fit the finder, keep a record."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data import open_dataset
from mmkp.data.io import read_image
from mmkp.errors import InputError
from mmkp.finding import check_findable
from mmkp.hub import Loaded, check_schema, digest_of, load
from mmkp.training.finder import Plan, fit
from mmkp.training.scenes import Face, collect

MOST_FACES = {"train": 2000, "validation": 300}  # of each dataset
MOST_PHOTOGRAPHS = 200
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
RECORD = "finder.json"


def fit_finder(
    model: str, data: Sequence[str], out: Path | None = None, backgrounds: Path | None = None, plan: Plan = Plan(),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:  # fmt: skip
    """Give a model a finder.

    Args:
        model: a run's folder, a packaged name or a Hub id.
        data: datasets with faces, NAME or NAME:PATH; fitted on their train split, the threshold chosen on validation.
        out: folder to write into, all files of the model's own beside it; without, the model's own folder.
        backgrounds: a folder of photographs without a face.
        plan: how much of everything.
        say: takes a line about what goes on.

    Returns:
        The record, which is also written as finder.json.

    Raises:
        InputError: a model that cannot be given a finder, data without faces, a folder that cannot be written.
    """
    begin = time.monotonic()
    if out is None and not (Path(model) / "config.json").is_file():
        raise InputError("--out", expected="a folder to write into, as the model is none", got="none")
    loaded = load(model)
    check_findable(loaded.model)
    faces = {split: _faces(loaded, data, split) for split in MOST_FACES}
    photographs = [] if backgrounds is None else _photographs(backgrounds)
    say(f"{len(faces['train'])} faces, {len(faces['validation'])} for validation, {len(photographs)} photographs")
    record = fit(loaded.model, loaded.processor, faces["train"], faces["validation"], photographs, plan, say)
    record = {"model": model, "data": list(data), **record, "seconds": round(time.monotonic() - begin, 1)}
    loaded.digest = digest_of(loaded.model, loaded.processor)
    _save(loaded, Path(model), out or Path(model), record)
    return record


def _faces(loaded: Loaded, data: Sequence[str], split: str) -> list[Face]:
    found: list[Face] = []
    for spec in data:
        dataset = open_dataset(spec, split)
        check_schema(loaded, dataset.schema, f"data {spec}")
        found += collect(dataset, MOST_FACES[split])
    return found


def _photographs(folder: Path) -> list[np.ndarray]:
    """The pictures of a folder, evenly spread where there are many.

    Raises:
        InputError: no such folder, or none in it.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES) if folder.is_dir() else []
    if not files:
        raise InputError(f"--backgrounds {folder}", expected="a folder with pictures", got="none there")
    picked = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST_PHOTOGRAPHS)).round().astype(int))
    return [read_image(files[i]) for i in picked]


def _save(loaded: Loaded, source: Path, out: Path, record: dict[str, Any]) -> None:
    """Model, processor and record into `out`, each file whole or not at all; a run's other files are copied."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".model-") as part:
            if source.is_dir() and source.resolve() != out.resolve():
                for file in source.iterdir():
                    if file.is_file() and not file.name.startswith("."):
                        shutil.copyfile(file, Path(part) / file.name)
            loaded.model.save_pretrained(part)
            loaded.processor.save_pretrained(part)
            (Path(part) / RECORD).write_text(json.dumps(record, indent=1))
            for file in Path(part).iterdir():
                file.chmod(0o644)  # safetensors writes for the owner alone
                os.replace(file, out / file.name)
    except OSError as error:
        raise InputError(f"--out {out}", expected="a folder that can be written", got=str(error)) from error
