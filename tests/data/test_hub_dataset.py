"""Datasets on the Hub: the layouts that are understood, and plain words where the Hub cannot be reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pytest
from shard_corpus import make_folder

from mmkp.data import open_table
from mmkp.data.export_parquet import export_parquet
from mmkp.data.hub_dataset import hub_stream, read_hub
from mmkp.data.shard_write import write_webdataset
from mmkp.errors import InputError

TOKEN = "hf_" + "secretsecretsecret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("hub") / "folder", 30)


@pytest.fixture(params=["folder", "parquet", "webdataset"])
def repository(request, folder, tmp_path) -> Path:
    if request.param == "folder":
        return folder
    write = {"parquet": export_parquet, "webdataset": write_webdataset}[request.param]
    write(open_table(str(folder)), tmp_path / "out", rows_per_shard=12)
    return tmp_path / "out"


def test_each_layout_is_read_once_it_is_here(repository, folder, monkeypatch):
    monkeypatch.setattr("mmkp.data.hub_dataset._download", lambda name, revision: repository)
    assert [r.id for r in read_hub("org/name").rows] == [r.id for r in open_table(str(folder)).rows]


def test_a_layout_that_is_none_of_ours(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("hello")
    monkeypatch.setattr("mmkp.data.hub_dataset._download", lambda name, revision: tmp_path)
    with pytest.raises(InputError, match=r"metadata\.jsonl, \.parquet or \.tar files, got README\.md"):
        read_hub("org/name")


@pytest.fixture
def shards(folder, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.01)  # 5 s at the end of every pass
    export_parquet(open_table(str(folder)), tmp_path / "out", rows_per_shard=12)
    return tmp_path / "out"


def test_a_stream_through_datasets_gives_the_rows_of_the_table(shards):
    """`load_dataset(..., streaming=True)` of a folder is what it is of a repository: the same builder, local files."""
    for split in ("train", "validation", "test"):
        made = hub_stream(str(shards), split, buffer=5)
        found = {record.row.id: made.decode(record) for record in made.epoch(0, 0)}
        from mmkp.data import open_dataset

        plain = {sample.id: sample for sample in open_dataset(f"parquet:{shards}", split)}
        assert found.keys() == plain.keys()
        for name, sample in found.items():
            assert sample.present == plain[name].present and made.problems == []
            assert sample.image is None or (sample.image == plain[name].image).all()
    rows = [r.row.id for rank in (0, 1) for r in hub_stream(str(shards), "all").epoch(0, 0, rank, 2)]
    assert sorted(rows) == [f"row-{i:04d}" for i in range(30)]


def test_a_stream_without_keypoints_names_the_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "points": [[1.0]]}).to_parquet(str(tmp_path / "data" / "train.parquet"))
    with pytest.raises(InputError, match="a column keypoints, got text, points"):
        hub_stream(str(tmp_path / "data"), "train")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as reading a dataset asks for."""

    files: dict[str, bytes] = {}
    commit = "c" * 40

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "org/cut" in path:
            return self.connection.close()
        if "org/broken" in path:
            return self.answer(500, b"{}")
        if not path.startswith(("/api/datasets/org/here", "/datasets/org/here")):
            return self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        if "/resolve/" in path:
            data = self.files.get(path.partition(f"/resolve/{self.commit}/")[2])
            if data is None:
                return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return self.answer(200, data, {"ETag": f'"{hash(data) & 0xFFFFFFFF:08x}"'})
        entries = [{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in self.files.items()]
        if "/tree/" in path:
            return self.answer(200, json.dumps(entries).encode())
        info = {
            "id": "org/here",
            "sha": self.commit,
            "private": False,
            "siblings": [{"rfilename": k} for k in self.files],
        }
        return self.answer(200, json.dumps(info).encode())

    do_HEAD = do_GET

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fields = {"X-Repo-Commit": self.commit, "Content-Length": str(len(data)), **(headers or {})}
        for key, value in fields.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


CALL = """
import json, sys
from mmkp.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
        code = 0
    except SystemExit as done:
        code = done.code
    print(f"[exit {code}]", file=sys.stderr, flush=True)
"""


def call(commands: list[list[str]], tmp_path: Path, endpoint: str) -> tuple[str, list[str]]:
    """Runs commands in one process that knows of no Hub but `endpoint`; gives stdout, and stderr by command."""
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "MMKP_CACHE": str(tmp_path / "mmkp"),
    }  # fmt: skip
    words = [sys.executable, "-c", CALL, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert TOKEN not in done.stderr + done.stdout and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stdout, done.stderr.split("[exit ")


def test_the_hub_answers_or_not(folder, tmp_path):
    """A dataset is downloaded and checked; one that is not there, or cut off, is refused in one line."""
    Hub.files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = str(tmp_path / "preview")
    commands = [["data", "preview", f"org/{name}", "--out", out] for name in ("missing", "broken", "cut")]
    commands = [["data", "check", "org/here", "--json"], *commands]
    try:
        stdout, said = call(commands, tmp_path, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
    assert json.loads(stdout.splitlines()[0])["rows"] == 30
    codes = [part.partition("]")[0] for part in said[1:]]
    assert codes[1:] == ["2", "2", "2"], said
    assert "none of that name that you may see" in said[1] and "no answer from the Hub" in said[2]
    assert "no answer from the Hub" in said[3]


def test_offline(monkeypatch, tmp_path):
    """Tests run with HF_HUB_OFFLINE=1."""
    monkeypatch.setenv("MMKP_CACHE", str(tmp_path))
    for read in (lambda: read_hub("org/name"), lambda: hub_stream("org/name", "train")):
        with pytest.raises(InputError, match="no answer from the Hub, and no copy of it here"):
            read()
