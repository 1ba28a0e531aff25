"""Every system at equal cost: heads, codecs and the classic pipeline, on the picture alone and with all modalities.

    python benchmarks/systems.py --out runs/systems [--cpu-seconds 90] [--seeds 3] [--workers 2] [--only talker_simcc]

Each cell (system, modalities, seed) trains in a process of its own on one thread. A few steps tell what a step costs
in CPU-seconds, and as many steps as fit into the budget are then trained, so that a cheap system sees more samples, not
more time. All are scored on the same test persons of the embedded talker data. Finished cells are kept and not run
again; the table is printed and written to OUT/systems.md. A cell takes about two CPU-minutes with its scoring, three
seeds of all systems about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = {
    "talker_deeppose": "DeepPose, 2 cascade stages, wing",
    "talker_rle": "regression, RLE",
    "talker_integral": "integral (soft-argmax)",
    "talker_simcc": "SimCC",
    "talker_softmax": "softmax heatmap, cross-entropy",
    "talker_simple_baseline": "SimpleBaseline, deconvolution",
    "talker_hourglass": "Stacked Hourglass, 2 stacks",
    "talker_hrnet": "HRNet-W18-small",
}
CLASSIC = {
    "classic_hog_svm": "HOG + SVM",
    "classic_sift_forest": "SIFT + random forest",
}
ARMS = {"image": ["image"], "all": ["image", "text", "audio"]}
SHARED = [
    "data.validation_samples=64", "training.threads=1", "training.batch_size=32", "training.ema_decay=0.99",
    "training.log_every=50",
]  # fmt: skip


def overrides(arm: str, seed: int, steps: int) -> list[str]:
    """What a cell changes in its recipe."""
    made = [*SHARED, f"training.seed={seed}", f"training.steps={steps}", f"training.evaluate_every={steps}"]
    made += [f"model.modalities=[{', '.join(ARMS[arm])}]", f"training.warmup_steps={max(1, steps // 12)}"]
    return made if arm == "all" else [*made, "augment.drop_image=0"]


def network_cell(name: str, arm: str, seed: int, cpu_seconds: float) -> dict[str, Any]:
    """Train and score one network; in a process of its own."""
    import torch

    from mmkp.recipe import load_recipe
    from mmkp.study.cost import PROBE_STEPS, cost_of, steps_within
    from mmkp.training.loop import Trainer

    torch.set_num_threads(1)
    path = ROOT / "recipes" / f"{name}.yaml"
    with tempfile.TemporaryDirectory() as scratch:
        recipe = load_recipe(path, overrides(arm, seed, PROBE_STEPS))
        steps, _ = steps_within(cpu_seconds, recipe, Path(scratch) / "probe")
        began = time.process_time()
        trainer = Trainer(load_recipe(path, overrides(arm, seed, steps)), Path(scratch) / "run")
        trainer.train()
        used = time.process_time() - began
        cost = cost_of(trainer.parts.model, trainer.parts.processor, tuple(ARMS[arm]))
        return {"steps": steps, "cpu_s": used, **score_network(trainer, arm), **cost}


def score_network(trainer: Any, arm: str) -> dict[str, Any]:
    """Errors of every test item, clear and covered, by all points and by the lips."""
    from mmkp.evaluation.predict import predict_dataset
    from mmkp.hub import load

    loaded, options = load(str(trainer.folder.path)), trainer.recipe.data.options
    made = predict_dataset(
        loaded.model, loaded.processor, test_set(options), ["clear", "covered"], ["+".join(ARMS[arm])]
    )
    return errors_of(made, loaded.model.schema, "+".join(ARMS[arm]))


def test_set(options: dict[str, Any]) -> Any:
    """The test split that every system is scored on."""
    from mmkp.data import open_dataset

    return open_dataset("talker", "test", **options)


def errors_of(predictions: Any, schema: Any, subset: str) -> dict[str, Any]:
    """Per-item NME by condition and part, and the items' groups."""
    from mmkp import metrics

    length = schema.normalizer(predictions.true_xy, predictions.boxes)
    lips, found = schema.group_indices()["lips"], {}
    for condition in ("clear", "covered"):
        xy, known = predictions.keypoints_xy[condition, subset], predictions.visible[condition] > 0
        errors = metrics.normalized_errors(xy, predictions.true_xy, known, length)
        found[condition] = metrics.nme(errors).tolist()
        found[f"{condition} lips"] = metrics.nme(errors, lips).tolist()
    return {"errors": found, "groups": predictions.groups.tolist()}


def classic_cell(name: str, arm: str, seed: int) -> dict[str, Any]:
    """Fit and score one classic system on one thread; its cost is what the fit takes."""
    import torch

    from mmkp.classic.pipeline import fit, predict_dataset
    from mmkp.classic.recipe import load_classic_recipe
    from mmkp.data import open_dataset

    torch.set_num_threads(1)
    changes = [f"training.seed={seed}", "training.workers=1", "data.options={size: 96}"]
    changes += [f"modalities=[{', '.join(ARMS[arm])}]"]
    recipe = load_classic_recipe(ROOT / "recipes" / f"{name}.yaml", changes)
    train = open_dataset("talker", "train", **recipe.data.options, **recipe.data.train_options)
    began = time.process_time()
    pipeline = fit(recipe, train)
    used, test = time.process_time() - began, test_set(recipe.data.options)
    began = time.process_time()
    subset = "+".join(ARMS[arm])
    made = predict_dataset(pipeline, test, ["clear", "covered"], subsets=[subset])
    per_image = (time.process_time() - began) * 1000 / len(test) / 2  # reading, cropping and covering included
    return {"cpu_s": used, "ms_32": per_image, **errors_of(made, test.schema, subset)}


def run_cell(out: Path, name: str, arm: str, seed: int, cpu_seconds: float) -> None:
    """One cell to its file."""
    made = classic_cell(name, arm, seed) if name in CLASSIC else network_cell(name, arm, seed, cpu_seconds)
    made |= {"system": name, "arm": arm, "seed": seed, "budget_cpu_s": cpu_seconds}
    part = out / f"{name}-{arm}-{seed}.part"
    part.write_text(json.dumps(made))
    part.replace(part.with_suffix(".json"))


def is_finished(path: Path, cpu_seconds: float) -> bool:
    """Whether the cell was run, with this budget."""
    return path.is_file() and json.loads(path.read_text())["budget_cpu_s"] == cpu_seconds


def run_all(out: Path, cells: list[tuple[str, str, int]], cpu_seconds: float, workers: int) -> None:
    """Every cell that is not there yet, `workers` at a time, each in a process with one thread."""
    waiting = [c for c in cells if not is_finished(out / f"{c[0]}-{c[1]}-{c[2]}.json", cpu_seconds)]
    running: list[tuple[subprocess.Popen, str]] = []
    total, began = len(waiting), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < workers:
            name, arm, seed = waiting.pop(0)
            command = [sys.executable, __file__, "--out", str(out), "--cell", name, arm, str(seed)]
            log = (out / f"{name}-{arm}-{seed}.log").open("w")
            command += ["--cpu-seconds", str(cpu_seconds)]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            running.append((process, f"{name} {arm} {seed}"))
        time.sleep(1)
        for process, label in [r for r in running if r[0].poll() is not None]:
            running.remove((process, label))
            done = total - len(waiting) - len(running)
            state = "done" if process.returncode == 0 else "FAILED (see its .log)"
            print(f"{done}/{total} {label}: {state}, {time.monotonic() - began:.0f} s", flush=True)


def table(out: Path, names: dict[str, str], seeds: int) -> str:
    """The table in Markdown: means over seeds and items, 95 % intervals over persons of the seeds' mean errors."""
    from mmkp.evaluation.score import GroupBootstrap

    columns = ["clear", "covered", "clear lips", "covered lips"]
    head = ["system", "modalities", *columns, "M parameters", "MFLOPs", "ms (1)", "ms (32)", "steps", "CPU-s"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, label in names.items():
        for arm in ARMS:
            files = [out / f"{name}-{arm}-{s}.json" for s in range(seeds)]
            cells = [json.loads(f.read_text()) for f in files if f.is_file()]
            if not cells:
                continue
            draws = GroupBootstrap(np.array(cells[0]["groups"]))
            row = [label, arm if len(cells) == seeds else f"{arm} ({len(cells)} of {seeds} seeds)"]
            for column in columns:
                each = np.array([c["errors"][column] for c in cells], float)
                found = draws.interval(each.mean(0))
                low, high = found["ci95"] or (np.nan, np.nan)
                spread = np.nanmean(each, 1).std(ddof=1) if len(each) > 1 else np.nan
                row.append(f"{found['mean']:.4f} [{low:.4f}, {high:.4f}] ±{spread:.4f}")
            row += [_mean(cells, "parameters", 1e6), _mean(cells, "flops", 1e6), _mean(cells, "ms_1"),
                    _mean(cells, "ms_32"), _mean(cells, "steps"), _mean(cells, "cpu_s")]  # fmt: skip
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _mean(cells: list[dict[str, Any]], key: str, unit: float = 1.0) -> str:
    values = [c[key] for c in cells if c.get(key) is not None]
    return f"{np.mean(values) / unit:.3g}" if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/systems"))
    parser.add_argument("--cpu-seconds", type=float, default=90.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--cell", nargs=3, metavar=("SYSTEM", "ARM", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.cell:
        return run_cell(asked.out, asked.cell[0], asked.cell[1], int(asked.cell[2]), asked.cpu_seconds)
    names = {k: v for k, v in {**SYSTEMS, **CLASSIC}.items() if asked.only is None or k in asked.only}
    cells = [(name, arm, seed) for seed in range(asked.seeds) for name in names for arm in ARMS]
    run_all(asked.out, cells, asked.cpu_seconds, asked.workers)
    made = table(asked.out, names, asked.seeds)
    (asked.out / "systems.md").write_text(made + "\n")
    print(made)
    return None


if __name__ == "__main__":
    main()
