"""A study that runs: finished, failed, killed and resumed cells, and the command."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mmkp.cli import app
from mmkp.errors import InputError
from mmkp.study.cost import PROBE_STEPS
from mmkp.study.plan import Cell, Folders
from mmkp.study.progress import Progress, left_in_words
from mmkp.study.recipe import load_study
from mmkp.study.results import CellResults
from mmkp.study.run import Grid, run_study
from mmkp.training.loop import Trainer

ROOT = Path(__file__).parents[2]
TOY = ROOT / "recipes" / "studies" / "toy.yaml"
NEEDS = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs the extra `talker` (pip install 'mmkp[talker]')"
)


def write_toy(folder: Path) -> Path:
    """The shipped toy study, smaller, and with an arm that diverges."""
    plain = yaml.safe_load(TOY.read_text())
    plain["recipe"] = str(ROOT / "recipes" / "quickstart.yaml")
    plain["arms"].append({"name": "wild", "fusion": {"name": "average"}, "changes": {"training.learning_rate": 1e30}})
    plain["data"] = {"options": {"size": 48, "n": 48}, "train_options": {"n": 24}}
    plain["changes"] |= {"data.validation_samples": 8, "training.batch_size": 4, "training.clip_norm": 1e30}
    plain["budget"], plain["seeds"] = {"steps": 4, "checks": 2}, [0]
    plain["corruptions"] = [{"names": ["blur", "conflict_audio", "missing_image"], "severities": [5], "items": 6}]
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def grid(study: Path, out: Path, said: list[str], **options) -> Grid:
    """As `mmkp study` makes it; forked from this process, which has all modules at hand."""
    return Grid(load_study(study), study, [], out, say=said.append, method="fork", **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, Path, dict[str, str], list[str]]:
    """The study file, its folder, the cells' states, and what was said."""
    folder, said = tmp_path_factory.mktemp("study"), []
    study = write_toy(folder)
    return study, folder / "out", grid(study, folder / "out", said).run(), said


@NEEDS
def test_a_cell_that_diverges_is_recorded_and_the_rest_goes_on(ran):
    _, out, states, said = ran
    assert states == {"image-0": "done", "gated-0": "done", "wild-0": "failed"}
    assert "expected a finite" in CellResults.load(out / "cells" / "wild-0.parquet").meta["error"]
    assert any("3/3 wild-0: failed (see logs/wild-0.log)" in line for line in said)
    assert "validation NME" in (out / "logs" / "gated-0.log").read_text()
    assert "expected a finite" in (out / "logs" / "wild-0.log").read_text()


@NEEDS
def test_a_cell_holds_items_cost_and_origin(ran):
    _, out, _, _ = ran
    cell = CellResults.load(out / "cells" / "gated-0.parquet")
    assert (out / "cells" / "gated-0.parquet").stat().st_size < 300_000
    whole = cell.blocks["covered", 0, "image+text+audio", "lips"]
    assert len(whole.id) == 48
    assert len(np.unique(whole.group)) == 6
    assert np.isfinite(whole.error).all()
    heard = [cell.blocks[condition, 0, "audio", "lips"].error for condition in ("covered", "clear")]
    assert np.array_equal(*heard)  # a cover changes nothing for sound alone
    assert len(cell.blocks["conflict_audio", 5, "image+text+audio", "lips"].id) == 6
    assert not [b for b in cell.blocks if b[0] == "blur" and "image" not in b[2]]
    for key in ("parameters", "flops", "ms_1", "ms_32", "peak_mb", "cpu_s", "commit", "confidence", "versions"):
        assert cell.meta[key]
    assert cell.meta["steps"] == 4
    assert not (out / "runs" / "gated-0" / "checkpoints").exists()  # the model stays
    assert (out / "runs" / "gated-0" / "model.safetensors").is_file()
    assert ("missing_image", 5, "image+text+audio", "lips") in cell.blocks
    image = CellResults.load(out / "cells" / "image-0.parquet")
    assert "missing_image" not in {b[0] for b in image.blocks}  # it would have nothing left
    assert image.meta["parameters"] < cell.meta["parameters"]
    assert ("clear", 0, "mean_shape", "lips") in image.blocks
    assert {b[2] for b in image.blocks} == {"image", "mean_shape"}


@NEEDS
def test_finished_cells_are_never_run_again(ran):
    study, out, states, _ = ran
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").glob("*.parquet")}
    said: list[str] = []
    assert grid(study, out, said).run() == states
    assert said[0] == "3 of 3 cells are finished and not run again"
    assert said[1:] == ["without results: wild-0; logs/ tells why, `--retry` runs them again"]
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").glob("*.parquet")} == before


@NEEDS
def test_the_report_comes_from_the_cells_alone(ran, tmp_path):
    """`mmkp study ... --report` on nothing but the Parquet files gives the same report, to the letter."""
    study, out, _, _ = ran
    (tmp_path / "cells").mkdir()
    for path in (out / "cells").glob("*.parquet"):
        (tmp_path / "cells" / path.name).write_bytes(path.read_bytes())
    done = CliRunner().invoke(app, ["study", str(study), "--out", str(tmp_path), "--report"])
    assert done.exit_code == 0, done.output
    first = (tmp_path / "report.md").read_text()
    assert "## Cells that failed" in first
    assert "worst_covered.png" in first
    assert "covered, lips" in done.output
    assert run_study(study, [], tmp_path, report_only=True) == tmp_path / "report.md"
    assert (tmp_path / "report.md").read_text() == first


@NEEDS
def test_a_cell_killed_in_the_middle_goes_on_where_it_was(ran, tmp_path, monkeypatch):
    """Killed after its first checkpoint, run again: the same figures as the cell that ran through."""
    study, out, _, _ = ran
    validate = Trainer._validate_and_save

    def die(trainer, log):
        validate(trainer, log)
        os.kill(os.getpid(), signal.SIGKILL)

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_validate_and_save", die)
        assert grid(study, tmp_path, said).run("gated") == {"gated-0": "failed"}
    path = tmp_path / "cells" / "gated-0.parquet"
    assert "killed by signal 9" in CellResults.load(path).meta["error"]
    assert (tmp_path / "runs" / "gated-0" / "checkpoints" / "step-000002").is_dir()
    assert grid(study, tmp_path, said).run("gated") == {"gated-0": "failed"}  # as recorded
    assert grid(study, tmp_path, said, retry=True).run("gated") == {"gated-0": "done"}
    assert "resumed at step 2" in (tmp_path / "logs" / "gated-0.log").read_text()
    again, through = CellResults.load(path), CellResults.load(out / "cells" / "gated-0.parquet")
    assert again.meta["resumed"]
    assert again.blocks.keys() == through.blocks.keys()
    for block, items in again.blocks.items():
        assert np.array_equal(items.error, through.blocks[block].error), block


@NEEDS
def test_a_study_that_judges_otherwise_does_not_train_again(ran, tmp_path, monkeypatch):
    """Other conditions and corruptions: the cell is stale, its weights are not."""
    study, out = ran[:2]
    shutil.copytree(out / "runs" / "image-0", tmp_path / "runs" / "image-0")
    (tmp_path / "cells").mkdir()
    shutil.copy(out / "cells" / "image-0.parquet", tmp_path / "cells")
    before = (tmp_path / "runs" / "image-0" / "model.safetensors").read_bytes()
    config = tmp_path / "runs" / "image-0" / "config.json"
    earlier = {"temperature": 1.0, "bias": -5.0, "threshold": 0.1, "normalizer": "outer_eye_distance", "n": 9}
    config.write_text(json.dumps({**json.loads(config.read_text()), "calibration": earlier}))
    said: list[str] = []
    changed = load_study(study, ["evaluate.items=4", "evaluate.calibrate=false", "corruptions=[]"])
    monkeypatch.setattr(Trainer, "train", lambda self: pytest.fail("it was trained again"))
    made = Grid(changed, study, [], tmp_path, say=said.append, method="fork").run("image")
    assert made == {"image-0": "done"}
    assert any("of other settings: moved" in line for line in said)
    cell, old = (CellResults.load(folder / "cells" / "image-0.parquet") for folder in (tmp_path, out))
    assert len(cell.blocks["clear", 0, "image", "all"].id) == 4
    block = ("clear", 0, "image", "all")
    both = [dict(zip(c.blocks[block].id, c.blocks[block].score, strict=True)) for c in (cell, old)]
    assert all(abs(score - both[1][item]) < 0.01 for item, score in both[0].items())  # not calibrated, as asked
    assert (cell.meta["steps"], cell.meta["cpu_s"]) == (old.meta["steps"], old.meta["cpu_s"])
    assert (tmp_path / "runs" / "image-0" / "model.safetensors").read_bytes() == before
    retrained = load_study(study, ["changes={training.learning_rate: 0.002}"])
    assert Grid(retrained, study, [], tmp_path, say=said.append, method="fork").run("image") == {"image-0": "failed"}


@NEEDS
def test_seconds_become_steps_once_and_for_all_seeds(ran, tmp_path):
    """The probe's steps are kept with the arm: another seed and a resume train as many; a cell knows them too."""
    from mmkp.study.cell import _steps
    from mmkp.study.plan import settings_key

    loaded = load_study(ran[0], ["budget.steps=null", "budget.cpu_seconds=0.001", "seeds=[0, 1]"])
    runs = Folders(tmp_path).runs
    Folders(tmp_path).make()
    steps, meta = _steps(loaded, Cell("image", 0, "k", trained="k"), runs / "image-0", 1)
    assert steps == PROBE_STEPS  # the least
    assert meta["cpu_s_per_step"] > 0
    assert not (runs / "image.probe").exists()
    note = runs / "image.steps.json"
    found = json.loads(note.read_text())
    note.write_text(json.dumps({**found, "steps": 77}))
    assert _steps(loaded, Cell("image", 0, "k", trained="k"), runs / "image-0", 1)[0] == steps  # a resume
    assert _steps(loaded, Cell("image", 1, "k", trained="k"), runs / "image-1", 1)[0] == 77  # another seed
    note.unlink()
    settings = settings_key(loaded, "image", 1)
    known = {"status": "done", "settings": settings, "steps": 99, "cpu_s_per_step": 1.0}
    CellResults(known).save(Folders(tmp_path).cells / "image-1.parquet")
    assert (
        _steps(loaded, Cell("image", 0, "k", trained="other"), runs / "image-0", 1)[0] == 99
    )  # another machine's cell
    changed = load_study(ran[0], ["budget.steps=null", "budget.cpu_seconds=0.002", "seeds=[0, 1]"])
    assert (
        _steps(changed, Cell("image", 0, "k", trained="third"), runs / "image-0", 1)[0] == PROBE_STEPS
    )  # of another budget


@NEEDS
@pytest.mark.parametrize("left", ["", '{"key": "k", "st', "[]"])
def test_a_note_that_a_dying_machine_cut_off_is_written_anew(ran, tmp_path, left):
    from mmkp.study.cell import _steps

    loaded = load_study(ran[0], ["budget.steps=3"])
    folder = Folders(tmp_path).runs / "image-0"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(left)
    assert _steps(loaded, Cell("image", 0, "k", trained="k"), folder, 1)[0] == 3
    assert json.loads((folder / "cell.json").read_text()) == {"trained": "k", "steps": 3, "cpu_s_per_step": None}


@NEEDS
@pytest.mark.parametrize("elsewhere", ["done", "failed"])
def test_a_cell_that_another_process_has_run_meanwhile_is_not_run_again(ran, tmp_path, elsewhere, monkeypatch):
    study, out, _, _ = ran
    said: list[str] = []
    later = grid(study, tmp_path, said)
    name = {"done": "gated-0", "failed": "wild-0"}[elsewhere]

    def finish_elsewhere(cells):
        (tmp_path / "cells" / f"{name}.parquet").write_bytes((out / "cells" / f"{name}.parquet").read_bytes())
        return []

    monkeypatch.setattr("mmkp.study.run.Progress.__enter__", lambda self: finish_elsewhere(()) or self)
    monkeypatch.setattr(Grid, "_launch", lambda *_: pytest.fail("it was run again"))
    assert later.run(name[:-2]) == {name: elsewhere}
    assert any(f"{elsewhere} elsewhere" in line for line in said)


def test_bad_input_of_the_command(tmp_path):
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["study", *words, "--out", str(tmp_path)])
        assert isinstance(done.exception, InputError), done.output
        return str(done.exception)

    def spoiled(section: str, value: object) -> Path:
        path = tmp_path / "base.yaml"
        path.write_text(
            yaml.safe_dump({**yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text()), section: value})
        )
        return path

    assert "Did you mean 'toy'" in run(str(TOY.parent / "toi.yaml"))
    assert "Did you mean 'gated'" in run(str(TOY), "--only", "gatd")
    assert "finished cells" in run(str(TOY), "--report")
    assert "Did you mean 'seeds'" in run(str(TOY), "seds=[1]")
    assert "none of them" in run(str(TOY), "data.dataset=talkr")
    assert "training.steps" in run(str(TOY), "recipe=" + str(spoiled("training", {"steps": 0})))
    assert "training.steps" in run(str(TOY), "recipe=" + str(spoiled("training", {"steps": "many"})))
    assert "data" in run(str(TOY), "recipe=" + str(spoiled("data", "x")))
    assert "Did you mean 'lips'" in run(str(TOY), "evaluate.primary.part=lisp")
    assert "Did you mean 'occlude_lips'" in run(str(TOY), "corruptions=[{names: [occlude_lisp]}]")


def test_the_time_left_by_hand(tmp_path):
    """Two arms, two seeds, two at a time; an image takes 10 s, so a gated is taken for as much until one is done."""
    loaded, said = load_study(TOY), []
    cells = [Cell(arm, seed, "k") for seed in (0, 1) for arm in ("image", "gated")]
    progress = Progress(loaded.study, cells, list(cells), 2, Folders(tmp_path), said.append)
    assert progress.seconds_left({}) is None
    progress.finished(cells[0], 10.0, "done")
    assert progress.seconds_left({cells[1]: 4.0}) == (6 + 10 + 10) / 2
    progress.finished(cells[1], 30.0, "failed")
    assert progress.seconds_left({}) == (10 + 10) / 2  # how long it took to fail says nothing of the others
    assert said[0] == "1/4 image-0: done, 10 s; about 15 s left"
    assert said[1] == "2/4 gated-0: failed (see logs/gated-0.log), 30 s; about 10 s left"
    assert left_in_words(600) == "about 10 min left"


@NEEDS
def test_a_cell_finished_meanwhile_under_other_settings_is_put_aside(ran, tmp_path, monkeypatch):
    study, _, _, _ = ran
    later = grid(study, tmp_path, [])

    def finish_elsewhere(self):
        CellResults({"status": "done", "key": "others"}).save(tmp_path / "cells" / "gated-0.parquet")
        return self

    def launch(*_):
        raise InterruptedError

    monkeypatch.setattr("mmkp.study.run.Progress.__enter__", finish_elsewhere)
    monkeypatch.setattr(Grid, "_launch", launch)
    with pytest.raises(InterruptedError):
        later.run("gated")
    assert [p.name for p in (tmp_path / "cells" / "stale").iterdir()] == ["gated-0-others.parquet"]
    assert not (tmp_path / "cells" / "gated-0.parquet").exists()


@NEEDS
def test_subsets_that_the_data_has_nothing_of_have_no_figures(tmp_path, monkeypatch):
    """Pictures alone: the fused arm is judged by its picture, and the verdict says why it cannot tell."""
    from dataclasses import replace

    from mmkp.study import cell

    items = cell.evaluation_items

    def silent(loaded):
        whole = items(loaded)
        return cell.Listed([replace(s, text=None, audio=None) for s in map(whole.__getitem__, range(12))], whole.schema)

    monkeypatch.setattr(cell, "evaluation_items", silent)
    study = write_toy(tmp_path)
    plain = yaml.safe_load(study.read_text())
    plain |= {"arms": plain["arms"][:2], "corruptions": [], "budget": {"steps": 1, "checks": 1}}
    plain["evaluate"]["conditions"] = ["covered", "clear"]
    study.write_text(yaml.safe_dump(plain))
    assert set(grid(study, tmp_path / "out", []).run().values()) == {"done"}
    gated, image = (CellResults.load(tmp_path / "out" / "cells" / f"{arm}-0.parquet") for arm in ("gated", "image"))
    assert {subset for _, _, subset, _ in gated.blocks} == {"image"}
    assert "no item has text or audio: subsets with it have no figures" in gated.meta["notes"]
    assert {("clear", 0, "mean_shape", "lips"), ("covered", 0, "mean_shape", "lips")} <= set(image.blocks)
    run_study(study, [], tmp_path / "out", report_only=True)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "gated: cannot tell, no item that both know" in report
    assert "no item has text or audio" in report
