"""Tables of the custom format that are wrong as a whole: one message that leads to the mistake."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmkp.data.folder import read_folder
from mmkp.errors import InputError

ROWS = [{"file_name": f"{i}.png", "keypoints": [[1, 2], [3, 4]]} for i in range(3)]


def folder_of(
    root: Path, table: str, name: str = "metadata.jsonl", schema: str = "name: two\nkeypoints: [a, b]\n"
) -> Path:
    for i in range(3):
        cv2.imwrite(str(root / f"{i}.png"), np.full((8, 8, 3), i, np.uint8))
    (root / name).write_text(table)
    (root / "schema.yaml").write_text(schema)
    return root


@pytest.mark.parametrize("indent", [None, 1, 2])
@pytest.mark.parametrize("rows", [ROWS, ROWS[0]], ids=["array", "object"])
def test_one_piece_of_json(tmp_path, rows, indent):
    folder = folder_of(tmp_path, json.dumps(rows, indent=indent))
    if rows is not ROWS and indent is None:
        assert len(read_folder(folder).rows) == 1  # which is a line
        return
    with pytest.raises(InputError, match="one object {...} on each line, got JSON that begins with"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,x0,y0", "a first line of names, with file_name, audio or text among them, got image, x0, y0.*csv:PATH"),
        ("file_name,keypoints,keypoints", "columns of different names, got keypoints twice"),
    ],
)
def test_headers_of_csv(tmp_path, header, message):
    with pytest.raises(InputError, match=message):
        read_folder(folder_of(tmp_path, f"{header}\n0.png,1,2\n", "metadata.csv"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": "0.png", "keypoints": [[1, 2], [3, 4]]},
            "expected file_name, audio or text, got only image, keypoints",
        ),
        ({"file_name": "0.PNG", "keypoints": [[1, 2], [3, 4]]}, "no file '0.PNG' in the dataset's folder, but '0.png'"),
        ({"file_name": "/0.png", "keypoints": [[1, 2], [3, 4]]}, "'/0.png' is absolute; names are relative to"),
        ({"file_name": "../0.png", "keypoints": [[1, 2], [3, 4]]}, "'../0.png' leads out of the dataset's folder"),
    ],
)
def test_what_a_row_lacks(tmp_path, row, message):
    table = read_folder(folder_of(tmp_path, json.dumps(row) + "\n" + json.dumps(ROWS[0]) + "\n"))
    assert len(table.rows) == 1
    assert message in table.faults[0].message or message in table.faults[1].message


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            "name: two\nkeypoints: [a, b]\nnormaliser: {name: n, kind: unit}\n",
            "got 'normaliser'. Did you mean 'normalizer'",
        ),
        ("name: two\nkeypoints: [a, b]\nnormalizer: {name: n, kind: unit, point: [0]}\n", "got 'point'. Did you mean"),
        ("name: two\nkeypoints: [a, b]\nedges: [[0, 5]]\n", "expected a schema that fits together, got an index lies"),
    ],
)
def test_schemas(tmp_path, schema, message):
    with pytest.raises(InputError, match=message):
        read_folder(folder_of(tmp_path, json.dumps(ROWS[0]), schema=schema))
