"""No regret: one model for every subset of modalities, against a specialist trained for each subset alone.

    python benchmarks/no_regret.py --data grid:PATH --out runs/no_regret [--cpu-seconds 600] [--workers 2]

Each cell (arm, seed) trains `recipes/grid_no_regret.yaml` in a process of its own on one thread. A few steps tell what
a step costs in CPU-seconds, and as many steps as fit into the budget are then trained: the specialists of words and
sound, which are cheap, so see several times as many samples as the fused model. `fused` is the recipe as it stands;
a specialist has the encoders of its subset and never misses one. Scored on the test clips, mouth clear and covered.
`--double image` trains an arm once more with twice the budget: how far from converged the others are.
Finished cells are kept and not run again; the table is printed and written to OUT/no_regret.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "grid_no_regret.yaml"
SUBSETS = ("image", "text", "audio", "image+text", "image+audio", "text+audio", "image+text+audio")
THRICE = ("fused", "image", "image+audio", "image+text+audio")  # the arms with three seeds
CONDITIONS = ("clear", "covered")
ALONE = ["augment.drop_image=0", "augment.drop_text=0", "augment.drop_audio=0", "training.subsets=0"]
FRAME_STEP = 5  # of the test clips: neighbouring frames tell the same


def overrides(data: str, arm: str, seed: int, steps: int) -> list[str]:
    """What a cell changes in the recipe."""
    made = [f"data.dataset={data}", f"training.seed={seed}", f"training.steps={steps}", "training.threads=1"]
    made += [f"training.evaluate_every={max(1, -(-steps // 6))}", f"training.warmup_steps={max(1, steps // 12)}"]
    if arm == "fused":
        return made
    return [*made, f"model.modalities=[{arm.replace('+', ', ')}]", f"data.validation_subsets=[{arm}]", *ALONE]


def cell(data: str, arm: str, seed: int, cpu_seconds: float, folder: Path) -> dict[str, Any]:
    """Train and score one arm; in a process of its own."""
    import torch

    from mmkp import metrics
    from mmkp.data import open_dataset
    from mmkp.evaluation.predict import predict_dataset
    from mmkp.hub import load
    from mmkp.recipe import load_recipe
    from mmkp.study.cost import PROBE_STEPS, steps_within
    from mmkp.training.loop import Trainer

    torch.set_num_threads(1)
    steps, _ = steps_within(cpu_seconds, load_recipe(RECIPE, overrides(data, arm, seed, PROBE_STEPS)), folder / "probe")
    began = time.process_time()
    trainer = Trainer(load_recipe(RECIPE, overrides(data, arm, seed, steps)), folder / "run", resume=True)
    trainer.train()
    used, loaded = time.process_time() - began, load(str(folder / "run"))
    curve = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    test = open_dataset(data, "test", frame_step=FRAME_STEP)
    subsets = SUBSETS if arm == "fused" else (arm,)
    made = predict_dataset(loaded.model, loaded.processor, test, CONDITIONS, subsets)
    length = loaded.model.schema.normalizer(made.true_xy, made.boxes)
    parts = {"all": None, **{g: p for g, p in loaded.model.schema.group_indices().items() if g in ("eyes", "lips")}}
    errors = {
        f"{condition} {subset} {part}": metrics.nme(
            metrics.normalized_errors(xy, made.true_xy, made.visible[condition] > 0, length), points
        ).tolist()
        for (condition, subset), xy in made.keypoints_xy.items() for part, points in parts.items()
    }  # fmt: skip
    return {
        "steps": steps, "cpu_s": used, "groups": made.groups.tolist(), "errors": errors,
        "curve": [(line["step"], line["validation"]["nme"]) for line in curve if "validation" in line],
    }  # fmt: skip


def run_cell(out: Path, data: str, arm: str, seed: int, cpu_seconds: float) -> None:
    """One cell to its file."""
    name = name_of(arm, seed, cpu_seconds)
    made = cell(data, arm, seed, cpu_seconds, out / f"{name}.run")
    made |= {"arm": arm, "seed": seed, "budget_cpu_s": cpu_seconds}
    part = out / f"{name}.part"
    part.write_text(json.dumps(made))
    part.replace(out / f"{name}.json")


def name_of(arm: str, seed: int, cpu_seconds: float) -> str:
    """The file of a cell, without its suffix."""
    return f"{arm}-{seed}-{cpu_seconds:g}s"


def run_all(out: Path, data: str, cells: list[tuple[str, int, float]], workers: int) -> None:
    """Every cell that is not there yet, `workers` at a time, each in a process with one thread."""
    waiting = [c for c in cells if not (out / f"{name_of(*c)}.json").is_file()]
    running: list[tuple[subprocess.Popen, str]] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < workers:
            arm, seed, budget = waiting.pop(0)
            name = name_of(arm, seed, budget)
            command = [sys.executable, __file__, "--out", str(out), "--data", data, "--cpu-seconds", str(budget)]
            with (out / f"{name}.log").open("w") as log:
                process = subprocess.Popen(
                    [*command, "--cell", arm, str(seed)], stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            running.append((process, name))
        time.sleep(1)
        for process, name in [r for r in running if r[0].poll() is not None]:
            running.remove((process, name))
            print(f"{name}: {'done' if process.returncode == 0 else 'FAILED (see its .log)'}", flush=True)


def table(out: Path, cpu_seconds: float, seeds: int) -> str:
    """Fused against specialist by condition and subset, with the paired ratio over clips, in Markdown."""
    from mmkp.evaluation.score import GroupBootstrap

    found = {}
    for path in sorted(out.glob(f"*-{cpu_seconds:g}s.json")):
        one = json.loads(path.read_text())
        found[one["arm"], one["seed"]] = one
    head = ["condition", "subset", "seeds", "specialist", "fused", "fused / specialist", "lips: specialist", "fused",
            "ratio", "specialist's last sixth of training"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for condition in CONDITIONS:
        for subset in SUBSETS:
            shared = [s for s in range(seeds) if (subset, s) in found and ("fused", s) in found]
            if not shared:
                continue
            draws = GroupBootstrap(np.array(found["fused", shared[0]]["groups"]))
            row = [condition, subset, str(len(shared))]
            for part in ("all", "lips"):
                key = f"{condition} {subset} {part}"
                alone = np.mean([found[subset, s]["errors"][key] for s in shared], 0)
                fused = np.mean([found["fused", s]["errors"][key] for s in shared], 0)
                compared = draws.compare(fused, alone)
                low, high = compared["ci95"] or (np.nan, np.nan)
                row += [f"{alone.mean():.4f}", f"{fused.mean():.4f}"]
                row.append(f"{fused.mean() / alone.mean():.3f} [{low:.3f}, {high:.3f}]")
            change = np.mean([found[subset, s]["curve"][-1][1] / found[subset, s]["curve"][-2][1] for s in shared])
            lines.append("| " + " | ".join([*row, f"{100 * (change - 1):+.1f} %"]) + " |")
    return "\n".join([*lines, "", *_doubled(out, found, cpu_seconds)])


def _doubled(out: Path, found: dict, cpu_seconds: float) -> list[str]:
    """What twice the budget gives, a line for each arm that was trained so."""
    lines = []
    for path in sorted(out.glob(f"*-{2 * cpu_seconds:g}s.json")):
        one = json.loads(path.read_text())
        base = found.get((one["arm"], one["seed"]))
        subset = "image+text+audio" if one["arm"] == "fused" else one["arm"]
        for condition in CONDITIONS if base else ():
            key = f"{condition} {subset} all"
            ratio = np.mean(one["errors"][key]) / np.mean(base["errors"][key])
            lines.append(f"Twice the budget, {one['arm']}, {condition}: {ratio:.3f} of the error.")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="grid:PATH")
    parser.add_argument("--out", type=Path, default=Path("runs/no_regret"))
    parser.add_argument("--cpu-seconds", type=float, default=600.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="arms")
    parser.add_argument("--double", nargs="*", default=[], help="arms to train with twice the budget as well, seed 0")
    parser.add_argument("--cell", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.cell:
        return run_cell(asked.out, asked.data, asked.cell[0], int(asked.cell[1]), asked.cpu_seconds)
    arms = [a for a in ("fused", *SUBSETS) if asked.only is None or a in asked.only]
    cells = [(a, s, asked.cpu_seconds) for s in range(asked.seeds) for a in arms if s == 0 or a in THRICE]
    cells += [(a, 0, 2 * asked.cpu_seconds) for a in asked.double]
    run_all(asked.out, asked.data, cells, asked.workers)
    made = table(asked.out, asked.cpu_seconds, asked.seeds)
    (asked.out / "no_regret.md").write_text(made + "\n")
    print(made)
    return None


if __name__ == "__main__":
    main()
