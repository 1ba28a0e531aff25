"""Reports of made-up cells: what was put in is what is said, in words, tables and files."""

from __future__ import annotations

import base64
import csv
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from grids import ALL_SUBSETS, PARTS, constant, edit_cell, items, made_study, write_cells

from mmkp.data.sample import Sample
from mmkp.errors import InputError
from mmkp.evaluation.predictions import Predictions
from mmkp.schema import KeypointSchema
from mmkp.study import pictures
from mmkp.study.analysis import origin_of
from mmkp.study.grid_results import GridResults
from mmkp.study.plan import settings_key
from mmkp.study.report import write_report
from mmkp.study.results import CellResults, blocks_of
from mmkp.study.robustness import conflict_table, curve, robustness_table
from mmkp.study.shapley import shapley_table
from mmkp.study.tables import Estimate, PValue, Table

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
    assert (found["covered"]["shared"], found["covered"]["asked"]) == ([0, 1], 2)


def test_every_caption_names_command_seeds_and_commit(reported):
    tables = list((reported / "tables").glob("*.md"))
    assert {t.stem for t in tables} >= {"error_covered", "tests", "parts", "subsets_clear", "cost", "confidence"}
    for table in tables:
        caption = table.read_text().strip().splitlines()[-1]
        for word in ("`mmkp study made.yaml --out OUT`", "seeds 0, 1", "commit abc1234"):
            assert word in caption.replace("Seeds", "seeds"), table
        assert ("80 items in 20 groups" in caption) != (table.stem in ("robustness", "conflict")), table
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
    assert float(covered["p (Holm)"]) < 0.001
    assert "| < 0.001 |" in (reported / "tables" / "confidence.md").read_text()


def test_a_csv_of_tests_holds_numbers_only(reported):
    tests, parts = (list(csv.DictReader((reported / "tables" / f"{t}.csv").open())) for t in ("tests", "parts"))
    assert float(tests[0]["p (Holm)"]) < 0.001
    assert (tests[0]["seeds lower"], tests[0]["seeds"]) == ("2", "2")
    assert float(parts[0]["lips low"]) < float(parts[0]["lips mean"]) < float(parts[0]["lips high"])
    assert "]* |" in (reported / "tables" / "parts.md").read_text()
    assert "a star: p < 0.01" in (reported / "tables" / "parts.md").read_text()


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
    assert row[-3].mean == pytest.approx(-0.9 * level, abs=0.003 * level)  # MultiBench's relative robustness
    assert all(e.ci95[0] < e.mean < e.ci95[1] for e in row[-3:])
    assert row[2:4] == [80, 20]
    conflict = conflict_table(grid, "lips", origin_of(grid)).rows
    assert [c[0] for c in conflict] == ["conflict_audio"]
    assert conflict[0][3].mean == pytest.approx(1.3, abs=0.005)
    assert conflict[0][-3:] == [80, 20, "no"]


def test_two_groups_only_have_no_interval_but_a_reason(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.5, "clear": 0.5}, groups=2)
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "cannot tell, 2 groups; a test needs at least 5 (of 1 fusion" in text
    assert "2 groups; a test needs at least 5" in text
    assert "[" not in text.split("## Error, covered")[1].split("\n\n")[1]  # no interval in the table


def test_a_reference_that_failed_leaves_the_errors_but_no_tests(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.5, "clear": 0.5})
    for seed in (0, 1):
        meta = {"status": "failed", "error": "a finite loss, got nan", "settings": settings_key(loaded, "image", seed)}
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
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "gated (1 of 2 seeds)" in text
    assert "## Verdict\n\n**Provisional: not all seeds have results (gated: 1 of 2).**" in text
    assert "lower with 1 of 1 seeds run, 2 asked" in text
    assert "| **" not in text  # no lowest error of arms that have other seeds


def test_arms_without_a_seed_in_common_are_not_compared(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"clear": 0.5, "covered": 0.5})
    for name in ("gated-1", "image-0"):
        (tmp_path / "cells" / f"{name}.parquet").unlink()
    grid = GridResults(loaded, tmp_path / "cells")
    assert grid.paired("gated", ("clear", 0, "image", "all"), "image", ("clear", 0, "image", "all"))[0].shape == (0, 80)
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "**Provisional: not all seeds have results (image: 1 of 2, gated: 1 of 2).**" in text
    assert "cannot tell, no seed in common (of 1 fusion" in text


def test_robustness_pairs_the_seeds_that_both_have(tmp_path):
    """The reference lacks seed 1, in which gated's errors are tenfold: only seed 0 counts. Severities 1 and 5."""
    section = {"names": ["audio_noise", "conflict_audio"], "severities": [1, 5]}
    _, loaded = made_study(tmp_path, corruptions=[section])
    corrupted = {("audio_noise", 1): 1.0, ("audio_noise", 5): 1.0, ("conflict_audio", 5): 1.0}
    write_cells(tmp_path, loaded, {"clear": 1.0, "covered": 1.0}, corrupted=corrupted)
    (tmp_path / "cells" / "image-1.parquet").unlink()

    def level(times: float):
        def edit(cell: CellResults) -> None:
            errors = {("audio_noise", 1): 0.08, ("audio_noise", 5): 0.04, ("conflict_audio", 5): 0.06}
            for block, known in cell.blocks.items():
                cell.blocks[block] = constant(known, times * errors.get(block[:2], 0.05))

        return edit

    edit_cell(tmp_path, "image-0", level(1))
    edit_cell(tmp_path, "gated-0", level(1))
    edit_cell(tmp_path, "gated-1", level(10))

    def unknown(cell: CellResults) -> None:  # at one severity: a group and an item are left out at all
        block = ("audio_noise", 1, "image+text+audio", "lips")
        cell.blocks[block].error[:5] = np.nan

    edit_cell(tmp_path, "gated-0", unknown)
    grid = GridResults(loaded, tmp_path / "cells")
    assert curve(grid, "gated", "audio_noise", "lips") == pytest.approx({0: 0.05, 1: 0.08, 5: 0.04}, rel=2e-3)
    row = next(r for r in robustness_table(grid, "lips", origin_of(grid)).rows if r[0] == "audio_noise")
    assert row[2:4] == [75, 19]
    area = 0.2 * (0.05 + 0.08) / 2 + 0.8 * (0.08 + 0.04) / 2
    assert [row[-2].mean, row[-1].mean] == pytest.approx([0.05 - area] * 2, abs=1e-4)
    assert row[-2].ci95 == pytest.approx([0.05 - area] * 2, abs=1e-4)  # every item is alike
    assert conflict_table(grid, "lips", origin_of(grid)).rows[0][3].mean == pytest.approx(1.2, rel=2e-3)


def test_cells_that_do_not_belong_are_left_out_and_listed(tmp_path):
    _, loaded = made_study(tmp_path, seeds=[0, 1, 2, 3])
    write_cells(tmp_path, loaded, {"clear": 0.9, "covered": 0.9})
    edit_cell(tmp_path, "gated-1", lambda cell: cell.meta.update(settings="other"))
    edit_cell(tmp_path, "gated-2", lambda cell: cell.meta.update(version=0))
    (tmp_path / "cells" / "gated-3.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    grid = GridResults(loaded, tmp_path / "cells")
    assert grid.seeds("gated") == [0]
    assert {s: reason.split(":")[0] for (_, s), reason in grid.unused.items()} == {
        1: "of other settings than the study's", 2: "its file is of form 0, and form 1 is read", 3: "not readable",
    }  # fmt: skip
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "## Cells that are not used" in text
    assert "| gated | 1 | of other settings than the study's |" in text
    assert "(gated: 1 of 4)" in text


def test_cells_of_other_data_are_refused_by_name(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"clear": 0.9, "covered": 0.9})
    edit_cell(tmp_path, "gated-0", lambda cell: cell.meta.update(data={"test": "e", "train": "x"}))
    with pytest.raises(InputError, match="image-0 on d, gated-0 on e"):
        GridResults(loaded, tmp_path / "cells")


def test_a_condition_that_the_image_cannot_notice(tmp_path):
    """Other words change nothing for the image: its figures are those of the covered face, of the same items."""
    both = "covered+even_times"
    _, loaded = made_study(tmp_path, evaluate={"primary": {"part": "lips"}, "conditions": ["clear", "covered", both]})
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0, both: 0.9})

    def without(cell: CellResults) -> None:
        cell.blocks = {b: i for b, i in cell.blocks.items() if (b[0], b[2]) != (both, "image")}
        for block, known in cell.blocks.items():
            if block[0] == both:
                known.error[:8] = np.nan  # two groups have no words
        cell.meta["confidence"].get(both, {}).pop("image", None)

    for name in ("image-0", "image-1", "gated-0", "gated-1"):
        edit_cell(tmp_path, name, without)
    grid = GridResults(loaded, tmp_path / "cells")
    covered, same = (grid.values("image", (c, 0, "image", "lips")) for c in ("covered", both))
    assert np.array_equal(covered[:, 8:], same[:, 8:])
    assert np.isnan(same[:, :8]).all()
    assert grid.subsets(both) == ["image", "image+text+audio"]
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert f"**{both}, lips: yes, fusion helps, gated most" in text
    rows = list(csv.DictReader((tmp_path / "tables" / "confidence.csv").open()))
    assert [r["condition"] for r in rows if r["arm"] == "image"] == ["covered", "clear", both]
    rows = list(csv.DictReader((tmp_path / "tables" / f"subsets_{both}.csv").open()))
    assert float(rows[0]["image mean"]) == pytest.approx(np.nanmean(same))


def test_a_condition_that_no_item_knows_does_not_lead_the_verdict(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 0.8})

    def unknown(cell: CellResults) -> None:
        for block, known in cell.blocks.items():
            if block[0] == "covered":
                cell.blocks[block] = constant(known, np.nan)

    for name in ("image-0", "image-1", "gated-0", "gated-1"):
        edit_cell(tmp_path, name, unknown)
    text = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "## Verdict\n\n**clear, lips: yes, fusion helps" in text
    assert "Not judged, as no item has a known error: covered." in text


def test_who_adds_what_by_hand(tmp_path):
    """The fall from the mean shape's 0.25 to 0.025, shared out by Shapley's formula; covered has clear's prior."""
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    levels = {"image": 0.05, "text": 0.2, "audio": 0.15, "image+text": 0.04, "image+audio": 0.03, "text+audio": 0.1}
    levels["image+text+audio"] = 0.025

    def whole(cell: CellResults) -> None:
        like = cell.blocks["clear", 0, "image", "all"]
        for condition in ("clear", "covered"):
            for part in PARTS:
                for subset in ALL_SUBSETS:
                    cell.blocks[condition, 0, subset, part] = constant(like, levels[subset])

    def prior(cell: CellResults) -> None:
        like = cell.blocks["clear", 0, "image", "all"]
        cell.blocks |= {("clear", 0, "mean_shape", part): constant(like, 0.25) for part in PARTS}

    for seed in (0, 1):
        edit_cell(tmp_path, f"gated-{seed}", whole)
        edit_cell(tmp_path, f"image-{seed}", prior)
    grid = GridResults(loaded, tmp_path / "cells")
    rows = shapley_table(grid, origin_of(grid)).rows
    assert [r[:3] for r in rows] == [["gated", c, p] for c in ("covered", "clear") for p in PARTS]
    image = (0.25 - 0.05) / 3 + (0.2 - 0.04) / 6 + (0.15 - 0.03) / 6 + (0.1 - 0.025) / 3
    text = (0.25 - 0.2) / 3 + (0.05 - 0.04) / 6 + (0.15 - 0.1) / 6 + (0.03 - 0.025) / 3
    audio = (0.25 - 0.15) / 3 + (0.05 - 0.03) / 6 + (0.2 - 0.1) / 6 + (0.04 - 0.025) / 3
    for row in rows:
        assert [e.mean for e in row[3:7]] == pytest.approx([image, text, audio, 0.225], abs=4e-4)
        assert row[3].ci95 == pytest.approx([row[3].mean] * 2)
        assert row[7:] == [80, 20]
    assert "## Who adds what" in write_report(loaded, tmp_path, say=lambda line: None).read_text()


def test_pictures_of_items_that_are_not_at_hand(tmp_path, monkeypatch):
    """The first arm's worst items are not in the data; only the study's own indices are looked at."""
    _, loaded = made_study(tmp_path, evaluate={"primary": {"part": "lips"}, "items": 3})
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    xy = worst_points(np.full((1, 2, 2), 4.0))
    entry = {"clear": {"ids": ["gone"], "errors": [0.1], "xy": xy, "subset": "image"}}
    edit_cell(tmp_path, "image-0", lambda cell: cell.meta.update(worst=entry))
    entry = {"clear": {**entry["clear"], "ids": ["i2"]}}
    edit_cell(tmp_path, "gated-0", lambda cell: cell.meta.update(worst=entry))
    looked: list[int] = []
    monkeypatch.setattr(pictures, "open_dataset", lambda *_, **__: Five(looked))
    made, problems = pictures.worst_cases(GridResults(loaded, tmp_path / "cells"), ["image", "gated"], tmp_path)
    assert [path.name for path, _ in made] == ["worst_clear.png"]
    assert problems == ["1 of the worst items are not in this data"]
    assert set(looked) == {0, 2, 4}


class Five:
    """Five samples of two keypoints, and a note of which were asked for."""

    def __init__(self, looked: list[int]) -> None:
        self.looked = looked
        normalizer = {"name": "box", "kind": "box_side"}
        self.schema = KeypointSchema(name="two", keypoints=("a", "b"), groups={}, normalizer=normalizer)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Sample:
        self.looked.append(index)
        return Sample(
            id=f"i{index}", group="g", keypoints_xy=np.full((2, 2), 3, np.float32),
            visible=np.full(2, 2, np.uint8), box_xywh=np.array([0, 0, 8, 8], np.float32),
            image=np.zeros((8, 8, 3), np.uint8),
        )  # fmt: skip


def worst_points(xy: np.ndarray) -> str:
    """As `worst_items` writes them."""
    return base64.b64encode(zlib.compress(xy.astype(np.float16).tobytes())).decode()


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


def test_marks_and_small_p_are_for_readers():
    table = Table("t", "T", "Made up.", ["x", "p"], [[Estimate(0.5, digits=1, mark="*"), PValue(0.0002)]])
    assert "| 0.5* | < 0.001 |" in table.markdown()
    assert table.csv().splitlines() == ["x mean,x low,x high,x seed sd,p", "0.5,,,,0.0002"]


def test_a_table_in_three_forms():
    table = Table(
        "t", "T", "50 % of a_b.", ["arm", "x"], [["a_b", Estimate(0.5, (0.4, 0.6), 0.01, 2)], ["c", None]], {0}
    )
    assert "| **a_b** | 0.50 [0.40, 0.60] ±0.01 |" in table.markdown()
    assert table.csv().splitlines() == ["arm,x mean,x low,x high,x seed sd", "a_b,0.5,0.4,0.6,0.01", "c,,,,"]
    assert r"\textbf{a\_b} & 0.50 [0.40, 0.60] $\pm$0.01 \\" in table.latex()
    assert r"\caption{50 \% of a\_b.}" in table.latex()


def test_large_numbers_are_written_out():
    table = Table("t", "T", "Made up.", ["a", "b", "c"], [[1478.4, 999.94, 0.012345]])
    assert "| 1478 | 1000 | 0.0123 |" in table.markdown()
    assert table.csv().splitlines()[1] == "1478.4,999.94,0.012345"


def test_cells_that_were_trained_on_other_data_are_refused_by_name(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    edit_cell(tmp_path, "gated-1", lambda cell: cell.meta["data"].update(train="few"))
    edit_cell(tmp_path, "image-0", lambda cell: cell.meta["data"].update(train="many"))
    with pytest.raises(InputError, match=r"trained on the same data \(train\), got image-0 on many, gated-1 on few"):
        GridResults(loaded, tmp_path / "cells")


def test_an_arm_that_trains_on_data_of_its_own_may(tmp_path):
    arms = [{"name": "image", "modalities": ["image"]},
            {"name": "gated", "fusion": {"name": "gated"}, "changes": {"data.train_options": {"n": 9}}}]  # fmt: skip
    _, loaded = made_study(tmp_path, arms=arms)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    for name, data in (("image-0", "a"), ("image-1", "a"), ("gated-0", "b"), ("gated-1", "b")):
        edit_cell(tmp_path, name, lambda cell, data=data: cell.meta["data"].update(train=data))
    assert len(GridResults(loaded, tmp_path / "cells").cells) == 4


def test_the_mean_shape_stands_below_the_arms(tmp_path):
    """As good as its one cell says, under every condition, and never the best of the table."""
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})

    def guess(cell: CellResults) -> None:
        for part in PARTS:
            cell.blocks["clear", 0, "mean_shape", part] = constant(cell.blocks["clear", 0, "image", part], 0.03125)
            cell.blocks["covered", 0, "mean_shape", part] = constant(cell.blocks["clear", 0, "image", part], 0.0625)

    edit_cell(tmp_path, "image-0", guess)
    edit_cell(tmp_path, "image-1", guess)
    write_report(loaded, tmp_path, say=lambda line: None)
    last = (tmp_path / "tables" / "error_clear.csv").read_text().splitlines()[-1]
    assert last.startswith("mean shape,none,0.03125,")
    assert "**gated**" in (tmp_path / "tables" / "error_covered.md").read_text()
    verdict = (tmp_path / "verdict.md").read_text()
    assert "guesses the mean shape has 0.0625 (covered), 0.0312 (clear)." in verdict


def test_a_label_may_hold_what_formulas_and_latex_are_made_of(tmp_path):
    arms = [{"name": "image", "modalities": ["image"], "label": "$i_1$ \\ a|b"},
            {"name": "gated", "fusion": {"name": "gated"}, "label": "costs 5$ <all>"}]  # fmt: skip
    _, loaded = made_study(tmp_path, arms=arms)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    write_report(loaded, tmp_path, say=lambda line: None)
    text = (tmp_path / "tables" / "error_clear.tex").read_text()
    assert r"\$i\_1\$ \textbackslash{} a$|$b" in text
    assert r"costs 5\$ $<$all$>$" in text
    assert r"$i_1$ \ a\|b" in (tmp_path / "tables" / "error_clear.md").read_text()


def test_notes_of_cells_stand_in_the_report(tmp_path):
    _, loaded = made_study(tmp_path)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    edit_cell(tmp_path, "gated-1", lambda cell: cell.meta.update(notes=["scores stay as they are"]))
    report = write_report(loaded, tmp_path, say=lambda line: None).read_text()
    assert "| gated | 1 | scores stay as they are |" in report


@pytest.mark.parametrize("text", ["{", "[1]", '{"image": 3}'])
def test_damaged_ceilings_are_named(tmp_path, text):
    _, loaded = made_study(tmp_path, ceilings=True)
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})
    (tmp_path / "ceilings.json").write_text(text)
    with pytest.raises(InputError, match="ceilings.json: expected what `mmkp ceilings` said.*Delete it"):
        write_report(loaded, tmp_path, say=lambda line: None)


def test_who_sees_nothing_is_not_asked_whether_it_believes_its_eyes(tmp_path):
    """The table of lies is about a clear picture."""
    arms = [{"name": "image", "modalities": ["image"]}, {"name": "gated", "modalities": ["text", "audio"]}]
    _, loaded = made_study(tmp_path, arms=arms, corruptions=[{"names": ["conflict_audio"]}])
    write_cells(tmp_path, loaded, {"covered": 0.8, "clear": 1.0})

    def lie(cell: CellResults) -> None:
        cell.blocks["conflict_audio", 5, "text+audio", "lips"] = cell.blocks["clear", 0, "image", "lips"]

    edit_cell(tmp_path, "gated-0", lie)
    grid = GridResults(loaded, tmp_path / "cells")
    assert conflict_table(grid, "lips", origin_of(grid)).rows == []
