"""Does training survive? A run killed again and again, and two processes against one.

    python benchmarks/survival.py [--kills 20] [--steps 50]

Prints how many of the killed and resumed runs ended with other weights than the run that was left alone, and the
largest difference between the weights of one process and of two (gloo) with the same global batch. Runs on the
embedded talker data at 48 px; takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from mmkp.training import checkpoint

RECIPE = {
    "name": "survival",
    "data": {"dataset": "talker", "options": {"size": 48, "n": 160}, "validation_samples": 8},
    "model": {
        "hidden_size": 16,
        "input_size_hw": [48, 48],
        "image": {"backbone": "mobilenetv3_small_050", "stride": 8},
        "text": {"layers": 1},
        "audio": {"layers": 1, "mel_bins": 16},
    },
    "augment": {"cover": 0.3, "drop_image": 0.2, "drop_text": 0.2, "drop_audio": 0.2},
    "training": {"batch_size": 8, "warmup_steps": 5, "threads": 1, "log_every": 1},
}


def write_recipe(path: Path, **training: object) -> Path:
    """The recipe with some settings of its training changed."""
    exact = training.pop("exact", False)
    plain = yaml.safe_load(yaml.safe_dump(RECIPE))
    plain["training"].update(training)
    if exact:  # what one process draws or sees of a batch, two cannot: dropout and batch statistics
        plain["model"]["image"]["frozen_norm"] = True
        plain["model"]["text"]["dropout"] = plain["model"]["audio"]["dropout"] = 0.0
    path.write_text(yaml.safe_dump(plain))
    return path


def train(recipe: Path, out: Path, *more: str, processes: int = 1) -> subprocess.Popen:
    """Start `mmkp train`."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--nproc_per_node", str(processes), "-m"]
    command = [*start, "mmkp", "train", str(recipe), "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's last checkpoint."""
    return load_file(checkpoint.found(run / "checkpoints")[0] / "state.safetensors")


def kills(folder: Path, count: int) -> None:
    """Kill a run `count` times at random moments, each time anew; compare with the run that was left alone."""
    recipe = write_recipe(folder / "kills.yaml", steps=24, evaluate_every=2)
    train(recipe, folder / "whole").wait()
    expected = weights(folder / "whole")
    rows = (folder / "whole" / "metrics.jsonl").read_text().count("\n")
    chance, different = np.random.default_rng(0), 0
    for number in range(count):
        out = folder / f"killed{number}"
        # a moment of training, of an evaluation, or of saving: after so many rows of the log, and a little later
        moment, later_s = int(chance.integers(rows)), chance.uniform(0, 0.15)
        process = train(recipe, out, "--resume")
        while process.poll() is None and log_rows(out) < moment:
            time.sleep(0.002)
        time.sleep(later_s)
        process.kill()
        process.wait()
        last = checkpoint.found(out / "checkpoints")[:1]
        train(recipe, out, "--resume").wait()
        found = weights(out)
        wrong = [k for k in expected if not torch.equal(expected[k], found[k])]
        different += bool(wrong)
        name = last[0].name if last else "no checkpoint yet"
        print(
            f"  killed {later_s:.2f} s after row {moment} ({name}): {len(wrong)} of {len(expected)} differ", flush=True
        )
    print(f"{count} kills, {different} differences")


def log_rows(out: Path) -> int:
    """Rows of a run's metrics.jsonl so far."""
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def two_processes(folder: Path, steps: int) -> None:
    """The same global batch of 8 on one process and on two."""
    one = write_recipe(folder / "one.yaml", steps=steps, evaluate_every=steps, exact=True)
    two = write_recipe(folder / "two.yaml", steps=steps, evaluate_every=steps, exact=True, batch_size=4)
    train(one, folder / "one").wait()
    train(two, folder / "two", processes=2).wait()
    first, second = weights(folder / "one"), weights(folder / "two")
    names = [k for k in first if k.startswith("model/") and first[k].is_floating_point()]
    worst = max(float((first[k] - second[k]).abs().max()) for k in names)
    print(f"two processes against one, {steps} steps, fp32: largest difference of a weight {worst:.1e}")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        two_processes(Path(folder), arguments.steps)
        kills(Path(folder), arguments.kills)


if __name__ == "__main__":
    main()
