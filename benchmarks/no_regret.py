"""No regret: one model for every subset of modalities, against a specialist trained for each subset alone.

    python benchmarks/no_regret.py --data grid:PATH --out runs/no_regret [--cpu-seconds 600] [--workers 2]
    python benchmarks/no_regret.py --recipe recipes/grid_no_regret_on.yaml --data grid:PATH --out docs/no_regret_on

Each cell (arm, seed) trains the recipe in a process of its own on one thread. A few steps tell what a step costs in
CPU-seconds, and as many steps as fit into the budget are then trained: the specialists of words and sound, which are
cheap, so see several times as many samples as the fused model. `fused` is the recipe as it stands; a specialist has
the encoders of its subset, the same start for them, and never misses one. Scored on the test clips, mouth clear and
covered. `--double image` trains an arm once more with twice the budget: how far from converged the others are.
Finished cells are small files, kept in OUT and not run again; the table is printed and written to OUT/no_regret.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.study.results import CellResults, blocks_of

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "grid_no_regret.yaml"
START = "start"  # the checkpoint that the recipe starts from, as it is: what ten minutes bring at all
SUBSETS = ("image", "text", "audio", "image+text", "image+audio", "text+audio", "image+text+audio")
THRICE = ("fused", "image", "image+audio", "image+text+audio")  # the arms with three seeds
CONDITIONS, PARTS = ("clear", "covered"), ("all", "eyes", "lips")
ALONE = ["augment.drop_image=0", "augment.drop_text=0", "augment.drop_audio=0", "training.subsets=0"]
FRAME_STEP = 5  # of the test clips: neighbouring frames tell the same


def overrides(data: str, arm: str, seed: int, steps: int) -> list[str]:
    """What a cell changes in the recipe."""
    made = [f"data.dataset={data}", f"training.seed={seed}", f"training.steps={steps}", "training.threads=1"]
    made += [f"training.evaluate_every={max(1, -(-steps // 6))}", f"training.warmup_steps={max(1, steps // 12)}"]
    if arm == "fused":
        return made
    return [*made, f"model.modalities=[{arm.replace('+', ', ')}]", f"data.validation_subsets=[{arm}]", *ALONE]


def train(recipe: Path, data: str, arm: str, seed: int, cpu_seconds: float, folder: Path) -> dict[str, Any]:
    """Train one arm within its budget."""
    import torch

    from mmkp.recipe import load_recipe
    from mmkp.study.cost import PROBE_STEPS, steps_within
    from mmkp.training.loop import Trainer

    torch.set_num_threads(1)
    steps, _ = steps_within(cpu_seconds, load_recipe(recipe, overrides(data, arm, seed, PROBE_STEPS)), folder / "probe")
    began = time.process_time()
    Trainer(load_recipe(recipe, overrides(data, arm, seed, steps)), folder / "run", resume=True).train()
    used = time.process_time() - began
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = [(line["step"], line["validation"]["nme"]) for line in lines if "validation" in line]
    return {"steps": steps, "cpu_s": used, "curve": curve}


def judge(model: str, data: str, subsets: Sequence[str]) -> CellResults:
    """A model's errors on the test clips by condition, subset and part."""
    from mmkp.data import open_dataset
    from mmkp.evaluation.predict import predict_dataset
    from mmkp.hub import load

    loaded, test = load(model), open_dataset(data, "test", frame_step=FRAME_STEP)
    made = predict_dataset(loaded.model, loaded.processor, test, CONDITIONS, subsets)
    found = CellResults({"status": "done"})
    for condition in CONDITIONS:
        found.blocks |= blocks_of(made, loaded.model.schema, condition, parts=PARTS)
    return found


def run_cell(out: Path, recipe: Path, data: str, arm: str, seed: int, cpu_seconds: float) -> None:
    """One cell to its file."""
    from mmkp.recipe import load_recipe

    name = name_of(arm, seed, cpu_seconds)
    folder, meta = out / f"{name}.run", {"arm": arm, "seed": seed, "budget_cpu_s": cpu_seconds, "curve": []}
    if arm != START:
        meta |= train(recipe, data, arm, seed, cpu_seconds, folder)
    model = str(load_recipe(recipe).training.start_from) if arm == START else str(folder / "run")
    made = judge(model, data, (arm,) if arm in SUBSETS else SUBSETS)
    made.meta |= meta
    made.save(out / f"{name}.parquet")


def name_of(arm: str, seed: int, cpu_seconds: float) -> str:
    """The file of a cell, without its suffix."""
    return f"{arm}-{seed}-{cpu_seconds:g}s"


def run_all(out: Path, recipe: Path, data: str, cells: list[tuple[str, int, float]], workers: int) -> None:
    """Every cell that is not there yet, `workers` at a time, each in a process with one thread."""
    waiting = [c for c in cells if not (out / f"{name_of(*c)}.parquet").is_file()]
    running: list[tuple[subprocess.Popen, str]] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < workers:
            arm, seed, budget = waiting.pop(0)
            name = name_of(arm, seed, budget)
            command = [sys.executable, __file__, "--out", str(out), "--recipe", str(recipe), "--data", data]
            command += ["--cpu-seconds", str(budget)]
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

    found = _read(out, cpu_seconds)
    head = ["condition", "subset", "seeds", "specialist", "fused", "fused / specialist", "lips: specialist", "fused",
            "ratio", "specialist's last sixth of training"]  # fmt: skip
    head += ["the start"] if (START, 0) in found else []
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for condition in CONDITIONS:
        for subset in SUBSETS:
            shared = [s for s in range(seeds) if (subset, s) in found and ("fused", s) in found]
            if not shared:
                continue
            draws = GroupBootstrap(found["fused", shared[0]].blocks[condition, 0, subset, "all"].group)
            row = [condition, subset, ", ".join(map(str, shared))]
            for part in ("all", "lips"):
                block = (condition, 0, subset, part)
                alone, fused = (
                    np.mean([found[a, s].blocks[block].error for s in shared], 0) for a in (subset, "fused")
                )
                compared = draws.compare(fused, alone)
                low, high = compared["ci95"] or (np.nan, np.nan)
                row += [f"{alone.mean():.4f}", f"{fused.mean():.4f}"]
                row.append(f"{fused.mean() / alone.mean():.3f} [{low:.3f}, {high:.3f}]")
            curves = [found[subset, s].meta["curve"] for s in shared]
            row.append(f"{100 * (np.mean([c[-1][1] / c[-2][1] for c in curves]) - 1):+.1f} %")
            if (START, 0) in found:
                row.append(f"{found[START, 0].blocks[condition, 0, subset, 'all'].error.mean():.4f}")
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join([*lines, "", *_spent(found), *_doubled(out, found, cpu_seconds)])


def _read(out: Path, cpu_seconds: float) -> dict[tuple[str, int], CellResults]:
    cells = [CellResults.load(path) for path in sorted(out.glob(f"*-{cpu_seconds:g}s.parquet"))]
    return {(cell.meta["arm"], cell.meta["seed"]): cell for cell in cells}


def _spent(found: dict[tuple[str, int], CellResults]) -> list[str]:
    """Steps and CPU-seconds of every arm."""
    made = []
    for arm in ("fused", *SUBSETS):
        metas = [cell.meta for (a, _), cell in found.items() if a == arm]
        if metas:
            steps, spent = (", ".join(f"{m[key]:.0f}" for m in metas) for key in ("steps", "cpu_s"))
            made.append(f"- {arm}: {steps} steps, {spent} CPU-seconds with validation")
    return made


def _doubled(out: Path, found: dict[tuple[str, int], CellResults], cpu_seconds: float) -> list[str]:
    """What twice the budget gives, a line for each arm that was trained so."""
    lines = []
    for (arm, seed), cell in _read(out, 2 * cpu_seconds).items():
        base, subset = found.get((arm, seed)), "image+text+audio" if arm == "fused" else arm
        for condition in CONDITIONS if base else ():
            block = (condition, 0, subset, "all")
            ratio = cell.blocks[block].error.mean() / base.blocks[block].error.mean()  # type: ignore[union-attr]
            lines.append(f"Twice the budget, {arm}, {condition}: {ratio:.3f} of the error.")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="grid:PATH")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, default=Path("runs/no_regret"))
    parser.add_argument("--cpu-seconds", type=float, default=600.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="arms")
    parser.add_argument("--double", nargs="*", default=[], help="arms to train with twice the budget as well, seed 0")
    parser.add_argument("--cell", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    from mmkp.recipe import load_recipe

    if asked.cell:
        return run_cell(asked.out, asked.recipe, asked.data, asked.cell[0], int(asked.cell[1]), asked.cpu_seconds)
    arms = [a for a in ("fused", *SUBSETS) if asked.only is None or a in asked.only]
    cells = [(a, s, asked.cpu_seconds) for s in range(asked.seeds) for a in arms if s == 0 or a in THRICE]
    started = load_recipe(asked.recipe).training.start_from is not None and (asked.only is None or START in asked.only)
    cells = [*([(START, 0, asked.cpu_seconds)] if started else []), *cells]
    cells += [(a, 0, 2 * asked.cpu_seconds) for a in asked.double]
    run_all(asked.out, asked.recipe, asked.data, cells, asked.workers)
    made = table(asked.out, asked.cpu_seconds, asked.seeds)
    (asked.out / "no_regret.md").write_text(made + "\n")
    print(made)
    return None


if __name__ == "__main__":
    main()
