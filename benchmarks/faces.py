"""Faces: mmkp against mediapipe 0.10.21 and dlib's 68-point predictor, on the same pictures.

    python benchmarks/peers/setup.py FOLDER                  once: the peers' own virtual environments
    python benchmarks/faces.py wild csv:PATH --peers FOLDER --out OUT [--model M ...] [--input-px 64]
    python benchmarks/faces.py talkers grid:PATH --peers FOLDER --out OUT [--model M ...] [--frame-step 1]
    python benchmarks/faces.py speed csv:PATH --peers FOLDER --out OUT --model M

Each prints one Markdown table and writes it into OUT; finished cells lie in OUT/cells and are not computed again.
Without --model the peers stand alone. Errors are NME over the outer-eye distance; a face that was not found counts 1.

wild      people of the test split. Everyone gets the same box, laid from the labels' eyes: mmkp as its crop, dlib's
          predictor as a rectangle calibrated on the validation people, mediapipe as a crop with a margin or the whole
          picture, whichever does better on the validation people. dlib also with its own detector, as users run it,
          mmkp also with the box that it finds. With --input-px 64 everyone sees the box at 64x64, the peers enlarged by
          cubic interpolation. "Convention corrected": a peer's points carried to this set's markup by an affine map
          for each point, fitted on the training people; mediapipe's jaw, brows and nose are not the iBUG ones. "All
          moved": by one vector fitted there, which takes out a difference of pixel origins and nothing else.
          Intervals and p: 10,000 bootstrap draws over people; p is one-sided, that the model is not better.
talkers   the clips of split `others`, three people that nobody has trained on here, so no intervals; clear, and with
          the mouth covered. The labels are mediapipe's on the clear frames, followed through the clip: on these it
          repeats its own labels, and is to be compared on the covered ones.
speed     milliseconds of one core and memory on the same crops, all in one run.

Licences: dlib's predictor was trained on 300-W and is not for commercial use; mediapipe's weights are Apache-2.0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))


def main() -> int:
    """Read the arguments, make the table."""
    from mmkp.errors import MmkpError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=["wild", "talkers", "speed"])
    parser.add_argument("data", help="csv:PATH or grid:PATH")
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--input-px", type=int, default=0)
    parser.add_argument("--frame-step", type=int, default=1)
    options = parser.parse_args()
    try:
        name, text = make(options)
    except MmkpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text(text + "\n")
    print(text)
    return 0


def make(options: argparse.Namespace) -> tuple[str, str]:
    """Name and text of the table that was asked for."""
    import torch
    from cells import Cells

    from mmkp.hub import load

    torch.set_num_threads(1)
    cells = Cells(options.out / "cells", options.peers)
    cells.check()
    models = [load(name) for name in options.model]
    if options.comparison == "wild":
        import wild

        name = f"wild_{options.input_px}" if options.input_px else "wild"
        return name, wild.table(cells, options.data, models, options.input_px)
    if options.comparison == "talkers":
        import talkers

        return "talkers", talkers.table(cells, options.data, models, options.frame_step)
    import speed

    return "speed", speed.table(cells, options.data, options.model)


if __name__ == "__main__":
    sys.exit(main())
