"""Reports of made-up cells: what was put in is what is said, in words, tables and files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from grids import items, made_study, write_cells

from mmkp.errors import InputError
from mmkp.evaluation.predictions import Predictions
from mmkp.schema import KeypointSchema
from mmkp.study.analysis import origin_of
from mmkp.study.grid_results import GridResults
from mmkp.study.report import write_report
from mmkp.study.results import CellResults, blocks_of
from mmkp.study.robustness import conflict_table, curve, robustness_table
from mmkp.study.tables import Estimate, Table

CORRUPTED = {("audio_noise", 1): 0.8, ("audio_noise", 2): 1.0, ("conflict_audio", 5): 1.3}


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """Fusion helps by a fifth when covered and does nothing when clear; noise spoils it, a lie harms it."""
    out = tmp_path_factory.mktemp("reported")
    _, loaded = made_study(out, corruptions=[{"names": ["audio_noise", "conflict_audio"]}])
    write_cells(out, loaded, {"covered": 0.8, "clear": 1.0}, corrupted=CORRUPTED)
    write_report(loaded, out, say=lambda line: None)
    return out


def grid_of(out: Path) -> GridResults:
    _, loaded = made_study(out, corruptions=[{"names": ["audio_noise", "conflict_audio"]}])
    return GridResults(loaded, out / "cells")


def test_the_verdict_says_what_was_put_in(reported):
    text = (reported / "verdict.md").read_text()
    assert "**covered, lips: yes, fusion helps, gated most (of 1 fusion: 1 helps).**" in text
    assert "helps, 20 % less error; error 0.0" in text
    assert "**clear, lips: no, fusion does not help" in text
    assert "1.50x parameters, 1.00x FLOPs" in text
    found = {j["condition"]: j for j in json.loads((reported / "verdict.json").read_text())}
    assert found["covered"]["ratio"] == pytest.approx(0.8, abs=0.003)
    assert found["covered"]["ratio_ci95"][0] < 0.8 < found["covered"]["ratio_ci95"][1] + 0.002
    assert found["covered"]["finding"] == "helps"
    assert found["covered"]["p_holm"] < 0.001


def test_every_caption_names_command_seeds_and_commit(reported):
    tables = list((reported / "tables").glob("*.md"))
    assert {t.stem for t in tables} >= {"error_covered", "tests", "parts", "subsets_clear", "cost", "confidence"}
    for table in tables:
        caption = table.read_text().strip().splitlines()[-1]
        for word in ("`mmkp study made.yaml`", "seeds 0, 1", "commit abc1234", "80 items in 20 groups"):
            assert word in caption, table
        assert table.with_suffix(".csv").is_file()
        assert r"\bottomrule" in table.with_suffix(".tex").read_text()


def test_a_csv_holds_the_numbers_in_full(reported):
    rows = list(csv.DictReader((reported / "tables" / "error_covered.csv").open()))
    expected = np.mean([items(0.04, 20, seed).error.mean() for seed in (0, 1)])
    assert float(rows[1]["lips mean"]) == pytest.approx(expected, rel=1e-4)
    assert float(rows[1]["lips low"]) < expected < float(rows[1]["lips high"])
    assert [r["arm"] for r in rows] == ["image", "gated"]


def test_the_report_shows_tables_and_figures_and_what_is_missing(reported):
    text = (reported / "report.md").read_text()
    for name in ("error_by_subset", "part_gain", "pareto", "robustness", "reliability"):
        assert f"({name}.png)" in text
        assert (reported / f"{name}.png").stat().st_size > 5000
    assert "no pictures of the worst cases: they are drawn from the data" in text


def test_confidence_falls_when_covered(reported):
    rows = list(csv.DictReader((reported / "tables" / "confidence.csv").open()))
    covered = next(r for r in rows if (r["arm"], r["condition"]) == ("gated", "covered"))
    assert float(covered["score against clear mean"]) == pytest.approx(0.4 - 0.5, abs=1 / 256)
    assert covered["p (Holm)"] == "< 0.001"


def test_robustness_by_hand(reported):
    """Gated: 1.0 0.8 1.0 of the image's flat error e: area 0.9 e, so 0.1 e is gained, relative and effective."""
    grid = grid_of(reported)
    made = curve(grid, "gated", "audio_noise", "lips")
    assert list(made) == [0, 1, 2]
    assert made[1] / made[0] == pytest.approx(0.8, abs=0.003)
    table = robustness_table(grid, "lips", origin_of(grid))
    row = next(r for r in table.rows if r[0] == "audio_noise")
    level = grid.mean("image", ("clear", 0, "image", "lips"))["mean"]
    assert [row[-2].mean, row[-1].mean] == pytest.approx([0.1 * level, 0.1 * level], abs=0.003 * level)
    conflict = conflict_table(grid, "lips", origin_of(grid)).rows
    assert [c[0] for c in conflict] == ["conflict_audio"]
    assert conflict[0][3].mean == pytest.approx(1.3, abs=0.005)
    assert conflict[0][-1] == "no"


def test_two_groups_only_have_no_interval_but_a_reason(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.5, "clear": 0.5}, groups=2)
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "cannot tell, there are too few groups" in text
    assert "2 groups; a test needs at least 5" in text
    assert "[" not in text.split("## Error, covered")[1].split("\n\n")[1]  # no interval in the table


def test_a_reference_that_failed_leaves_the_errors_but_no_tests(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.5, "clear": 0.5})
    for seed in (0, 1):
        meta = {"status": "failed", "error": "a finite loss, got nan"}
        CellResults(meta).save(tmp_path / "cells" / f"image-{seed}.parquet")
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "Cannot tell: the arm image, which the others are compared with, has no results." in text
    assert "| image | 1 | a finite loss, got nan |" in text
    assert "2 cells without results" in text
    assert "## Paired tests" not in text


def test_a_seed_that_is_missing_is_said(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"clear": 0.9, "covered": 0.9})
    (tmp_path / "cells" / "gated-1.parquet").unlink()
    grid = GridResults(loaded, tmp_path / "cells")
    values, base = grid.paired("gated", ("clear", 0, "image", "all"), "image", ("clear", 0, "image", "all"))
    assert values.shape == base.shape == (1, 80)  # of the seed that both have
    assert "gated (1 of 2 seeds)" in write_report(loaded, tmp_path, say=lambda line: None).read_text()


def test_ceilings_stand_beside_the_covered_lips(tmp_path):
    _, loaded = made_study(tmp_path, ceilings=True)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    known = {s: {"lip_nme": 0.02, "ci95": [0.019, 0.021]} for s in ("image", "image+text+audio")}
    (tmp_path / "ceilings.json").write_text(json.dumps(known))
    write_report(loaded, tmp_path, say=lambda line: None)
    rows = list(csv.DictReader((tmp_path / "tables" / "subsets_covered.csv").open()))
    assert float(rows[2]["image mean"]) == 0.02
    assert float(rows[3]["image+text+audio mean"]) == pytest.approx(0.04 / 0.02, rel=0.05)
    assert "ceiling" not in (tmp_path / "tables" / "subsets_clear.md").read_text()  # the mouth is in sight there


def test_no_cells_no_report(tmp_path):
    _, loaded = made_study(tmp_path)
    with pytest.raises(InputError, match="cells with results"):
        write_report(loaded, tmp_path)


def test_a_cell_comes_back_as_it_was_but_for_the_rounding(tmp_path, rng):
    known = items(0.05, 6, 0)
    known.error[3] = np.nan
    known.score[:] = rng.uniform(0, 1, len(known.score))
    blocks = {(c, v, s, p): known for c, v in (("clear", 0), ("blur", 5)) for s in ("a", "b") for p in ("all", "lips")}
    path = CellResults({"status": "done", "note": "é"}, blocks).save(tmp_path / "deep" / "c.parquet")
    back = CellResults.load(path)
    assert back.meta["note"] == "é"
    assert list(back.blocks) == list(blocks)
    for found in back.blocks.values():
        assert found.id.tolist() == known.id.tolist()
        assert np.isnan(found.error[3])
        assert np.nanmax(np.abs(found.error / known.error - 1)) <= 2**-10
        assert np.abs(found.score - known.score).max() <= 1 / 512
    assert [p.name for p in path.parent.iterdir()] == ["c.parquet"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="a file that `mmkp study` wrote"):
        CellResults.load(path)


def test_blocks_of_predictions_by_hand():
    """Points off by 1 and 3 px, the normalizer 10 px: errors 0.1 and 0.3, of which the first is right."""
    normalizer = {"name": "box", "kind": "box_side"}
    schema = KeypointSchema(name="two", keypoints=("a", "b"), groups={"first": (0,)}, normalizer=normalizer)
    true = np.zeros((1, 2, 2))
    made = Predictions(
        np.array(["i"]), np.array(["g"]), true, np.array([[0, 0, 10.0, 10.0]]), true,
        visible={"clear": np.full((1, 2), 2)}, keypoints_xy={("clear", "image"): true + [[[1, 0], [0, 3]]]},
        scores={("clear", "image"): np.array([[0.9, 0.5]])},
    )  # fmt: skip
    found = blocks_of(made, schema, "blur", 2)
    assert list(found) == [("blur", 2, "image", "all"), ("blur", 2, "image", "first")]
    whole, first = found.values()
    assert [whole.error[0], whole.score[0], whole.right[0]] == pytest.approx([0.2, 0.7, 0.5])
    assert [first.error[0], first.score[0], first.right[0]] == pytest.approx([0.1, 0.9, 1.0])


def test_a_table_in_three_forms():
    table = Table(
        "t", "T", "50 % of a_b.", ["arm", "x"], [["a_b", Estimate(0.5, (0.4, 0.6), 0.01, 2)], ["c", None]], {0}
    )
    assert "| **a_b** | 0.50 [0.40, 0.60] ±0.01 |" in table.markdown()
    assert table.csv().splitlines() == ["arm,x mean,x low,x high,x seed sd", "a_b,0.5,0.4,0.6,0.01", "c,,,,"]
    assert r"\textbf{a\_b} & 0.50 [0.40, 0.60] $\pm$0.01 \\" in table.latex()
    assert r"\caption{50 \% of a\_b.}" in table.latex()
