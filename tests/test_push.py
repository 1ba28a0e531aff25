"""Pushing to a Hub and loading from it again, with the real client, and nothing of the token anywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from hub_server import hub_server
from huggingface_hub import ModelCard, constants
from PIL import Image
from tiny_model import save_tiny

from mmkp import InputError, MmkpForKeypointDetection, MmkpProcessor, cli
from mmkp.errors import MmkpError
from mmkp.hub import find, load

TOKEN = "hf_" + "0secret1secret2"
WRONG = "hf_" + "wrongwrongwrong"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub that this process knows as the only one."""
    root = tmp_path_factory.mktemp("hub")
    with hub_server(root / "store", TOKEN) as (url, store), pytest.MonkeyPatch.context() as patch:
        connect(patch, url, root / "cache")
        patch.setenv("HF_TOKEN", TOKEN)
        yield store


def connect(patch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """huggingface_hub reads its settings once, at import."""
    import transformers.utils.hub

    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    patch.setattr(constants, "HF_STORED_TOKENS_PATH", str(cache / "no-tokens"))
    patch.setattr(huggingface_hub.hf_api.api, "endpoint", url)
    patch.setattr(transformers.utils.hub, "_hf_api", None)


@pytest.fixture
def mmkp(capfd, monkeypatch):
    """Run the command line in this process: exit code, and all that it and its libraries printed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mmkp", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        for secret in (TOKEN, WRONG):
            assert secret not in printed.out + printed.err
        return int(stop.value.code or 0), printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def pushed(hub, model) -> str:
    """The tiny model as `org/tiny`, in fp16, its parent commit in fp32."""
    from mmkp.push import push_model

    push_model(str(model), "org/tiny", licence="mit", data="nothing")
    push_model(str(model), "org/tiny", half=True, message="half the bytes", licence="mit", data="nothing")
    return "org/tiny"


def test_a_push_is_one_commit_of_model_processor_and_card(hub, pushed):
    refs = hub.refs(hub.repo("models", pushed))
    assert refs["messages"] == ["tiny, by mmkp push", "half the bytes"]
    files = {p.name for p in (hub.repo("models", pushed) / refs["main"]).iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md", "facts.json"} <= files
    assert not [f for f in files if f.endswith((".py", ".bin", ".pt"))]
    assert any(path == "/api/validate-yaml" for _, path, _ in hub.requests)


def test_what_is_loaded_is_what_was_pushed(hub, pushed, model):
    own, back = load(str(model)), load(pushed)
    assert back.source == pushed
    pixels = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        difference = own.model(pixel_values=pixels).keypoints_xy - back.model(pixel_values=pixels).keypoints_xy
    assert difference.abs().max() < 0.1  # px; half precision keeps three digits
    assert next(back.model.parameters()).dtype == torch.float32


def test_a_revision_is_loaded_by_its_commit(hub, pushed, model):
    commits = {p.name for p in hub.repo("models", pushed).iterdir() if re.fullmatch("[0-9a-f]{40}", p.name)}
    sizes = {c: (hub.repo("models", pushed) / c / "model.safetensors") for c in commits}
    full = next(c for c, p in sizes.items() if p.is_file() and p.stat().st_size > 1.5 * model_size(hub, pushed))
    assert load(pushed, revision=full).digest == load(str(model)).digest
    with pytest.raises(InputError, match="a branch, tag or commit of it"):
        load(pushed, revision="no-such-branch")


def model_size(hub, name: str) -> int:
    repo = hub.repo("models", name)
    return (repo / hub.refs(repo)["main"] / "model.safetensors").stat().st_size


def test_a_branch_of_its_own(hub, pushed, model, mmkp):
    code, said = mmkp("push", "-m", model, pushed, "--revision", "next", "--message", "on a branch")
    assert code == 0, said
    refs = hub.refs(hub.repo("models", pushed))
    assert refs["next"] != refs["main"]
    assert find(pushed, revision="next").name == refs["next"]


def test_a_private_repository_needs_the_token(hub, model, mmkp, monkeypatch, tmp_path):
    assert mmkp("push", "-m", model, "org/mine", "--private")[0] == 0
    assert hub.refs(hub.repo("models", "org/mine"))["private"]
    assert load("org/mine").source == "org/mine"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="no token, and nothing without one"):
        load("org/mine")


@pytest.mark.parametrize(
    ("token", "name", "code", "words"),
    [
        (TOKEN, "org/status-403", 2, "no right to it (403)"),
        (TOKEN, "org/status-404", 2, "none of that name"),
        (TOKEN, "org/status-500", 1, "the Hub's answer 500"),
        (TOKEN, "org/status-400", 2, "the Hub's answer 400"),
        (WRONG, "org/new", 2, "a token that the Hub refuses (401)"),
        ("", "org/new", 2, "no token"),
        (TOKEN, "no slash", 2, "expected ORG/NAME"),
    ],
)
def test_a_refused_push_is_one_clear_line(hub, model, mmkp, monkeypatch, token, name, code, words):
    monkeypatch.setenv("HF_TOKEN", token)
    found, said = mmkp("push", "-m", model, name)
    assert (found, said.count("\n")) == (code, 1), said
    assert words in said


@pytest.mark.parametrize(("name", "kind"), [("org/status-500", MmkpError), ("org/none", InputError)])
def test_a_model_that_cannot_be_had(hub, name, kind):
    with pytest.raises(MmkpError, match=f"model {name}") as refused:
        load(name)
    assert type(refused.value) is kind
    assert TOKEN not in str(refused.value)


def test_nobody_answers(hub, pushed, model, mmkp, monkeypatch):
    connect_nowhere(monkeypatch)
    code, said = mmkp("push", "-m", model, "org/new")
    assert (code, said.count("\n")) == (1, 1), said
    assert "no answer from http://127.0.0.1:9" in said
    assert load(pushed).source == pushed  # from the cache
    with pytest.raises(MmkpError, match="no copy of it here"):
        load("org/never")


def connect_nowhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    patch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")


def test_offline_mode_takes_the_copy_that_is_here_and_says_so_where_there_is_none(
    hub, pushed, monkeypatch, mmkp, model
):
    find(pushed)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert load(pushed).source == pushed
    assert MmkpForKeypointDetection.from_pretrained(pushed, local_files_only=True).name_or_path == pushed
    with pytest.raises(InputError, match="offline mode, and no copy.*HF_HUB_OFFLINE"):
        load("org/never")
    assert len(hub.requests) == asked
    assert "offline mode" in mmkp("push", "-m", model, "org/new")[1]


def test_a_crafted_repository_is_refused_and_nothing_of_it_runs(hub, model, tmp_path):
    """Its code and pickles are not even fetched; the checks are those of a folder."""
    import shutil

    crafted = Path(shutil.copytree(model, tmp_path / "crafted"))
    for name in ("modeling_mmkp.py", "pytorch_model.bin", "vocab.pkl"):
        (crafted / name).write_text(f"open({str(tmp_path / 'boom')!r}, 'w')")
    hub.put("evil/beside", crafted)
    assert load("evil/beside").model.schema.name == "face5"
    config = json.loads((crafted / "config.json").read_text())
    (crafted / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling_mmkp.Evil"}}))
    hub.put("evil/code", crafted)
    (crafted / "config.json").write_text(json.dumps(config))
    (crafted / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    hub.put("evil/pickle", crafted)
    for name, words in (("evil/code", "auto_map"), ("evil/pickle", "a pickle by that name")):
        for take in (load, MmkpForKeypointDetection.from_pretrained):
            with pytest.raises(InputError, match=words):
                take(name)
    with pytest.raises(InputError, match="auto_map"):
        MmkpProcessor.from_pretrained("evil/code")
    fetched = [path for _, path, _ in hub.requests if path.startswith("/evil/")]
    assert fetched
    assert not [path for path in fetched if path.endswith((".py", ".bin", ".pkl"))]
    assert not (tmp_path / "boom").exists()


def test_push_to_hub_of_the_model_itself(hub, model):
    loaded = load(str(model))
    loaded.model.push_to_hub("org/plain")
    loaded.processor.push_to_hub("org/plain")
    assert load("org/plain").digest == loaded.digest


def test_the_card_that_is_pushed_is_valid(hub, pushed):
    card = ModelCard.load(pushed)
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == ("mit", "mmkp", "keypoint-detection")
    assert f'load("{pushed}")' in card.text


def fresh_environment(home: Path) -> dict[str, str]:
    """Of a process that knows the Hub by HF_ENDPOINT alone."""
    return {
        **os.environ, "HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home / "hf"), "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def test_a_dataset_goes_and_comes_back(hub, mmkp, tmp_path, monkeypatch):
    from mmkp.data.hub_dataset import read_hub

    folder = tmp_path / "faces"
    folder.mkdir()
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / "0.png")
    line = {"group": "one", "split": "test", "text": "a b", "keypoints": [[i, 2.5 * i, 2] for i in range(5)]}
    rows = [{**line, "id": "seen", "file_name": "0.png"}, {**line, "id": "heard", "group": "two", "split": "train"}]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (folder / "schema.yaml").write_text("schema: face5\n")
    code, said = mmkp("push", "--data", folder, "org/faces", "--licence", "cc-by-4.0")
    assert code == 0, said
    monkeypatch.setenv("MMKP_CACHE", str(tmp_path / "cache"))
    back = {r.id: r for r in read_hub("org/faces").rows}
    assert {name: (r.group, r.text) for name, r in back.items()} == {"seen": ("one", "a b"), "heard": ("two", "a b")}
    assert back["seen"].keypoints_xy[3].tolist() == [3.0, 7.5]
    card = next((tmp_path / "cache" / "hub").rglob("README.md")).read_text()
    assert "license: cc-by-4.0" in card
    assert "data/test-*.parquet" in card


def test_the_command_of_a_pushed_datasets_card_works(hub, mmkp, tmp_path, model):
    """datasets.load_dataset("org/tones"), from a fresh process; and what was left out of it is said."""
    folder = tmp_path / "tones"
    folder.mkdir()
    line = {"text": "a b", "box": [0, 0, 9, 9], "keypoints": [[i, 2.5 * i, 2] for i in range(5)]}
    rows = [{**line, "id": i, "group": i, "split": s} for i, s in (("one", "train"), ("two", "test"), ("odd", "train"))]
    rows[2]["keypoints"] = [[1, 2, 2]]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (folder / "schema.yaml").write_text("schema: face5\n")
    code, said = mmkp("push", "--data", folder, "org/tones")
    assert code == 0, said
    assert "line 3: keypoint count" in said
    script = (
        "import datasets; found = datasets.load_dataset('org/tones'); "
        "print({s: [(r['id'], r['keypoints'][3]) for r in rows] for s, rows in found.items()})"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300,
                          env=fresh_environment(tmp_path))  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == str({s: [(i, [3.0, 7.5, 2.0])] for s, i in (("train", "one"), ("test", "two"))})


def test_options_of_a_dataset_go_along_and_belong_to_data(hub, mmkp, tmp_path, monkeypatch, model):
    from mmkp.data.hub_dataset import read_hub

    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "0.png")
    head, row = (",".join(f"{axis}{i}" for i in range(5) for axis in "xy"), ",".join(map(str, range(2, 12))))
    (tmp_path / "faces.csv").write_text(f"image,{head}\n0.png,{row}\n")
    code, said = mmkp("push", "-d", f"csv:{tmp_path / 'faces.csv'}", "org/shifted", "schema=face5", "first_pixel=1")
    assert code == 0, said
    monkeypatch.setenv("MMKP_CACHE", str(tmp_path / "cache"))
    assert read_hub("org/shifted").rows[0].keypoints_xy[:2].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    code, said = mmkp("push", "-m", model, "org/x", "first_pixel=1")
    assert code == 2
    assert "options of a dataset with --data" in said


def test_a_packaged_card_goes_along_under_the_new_name_and_keeps_its_licence(hub, mmkp, monkeypatch, tmp_path, model):
    import shutil

    from mmkp import card

    own = tmp_path / "carried"
    shutil.copytree(model, own)
    (own / "README.md").write_text(card.card("carried", own, "research-only", "wild faces", "none"))
    (own / "facts.json").write_text(json.dumps(card.facts(own, "research-only", "wild faces")))
    code, said = mmkp("push", "-m", own, "org/carried", "--licence", "mit")
    assert code == 2
    assert "the model's own card states it" in said
    assert mmkp("push", "-m", own, "org/carried")[0] == 0
    text = ModelCard.load("org/carried").content
    assert "RESEARCH ONLY" in text
    assert "# org/carried" in text
    assert 'load("org/carried")' in text
    config = json.loads((find("org/carried") / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)


def test_either_a_model_or_data(mmkp, model):
    assert "either --model or --data" in mmkp("push", "org/x")[1]
    assert "either --model or --data" in mmkp("push", "org/x", "-m", model, "-d", model)[1]


FRESH = """
import json, sys
from pathlib import Path
import numpy as np, transformers, mmkp
mmkp.register()
from mmkp import MmkpForKeypointDetection, MmkpProcessor
from mmkp.hub import load
name, out = sys.argv[1], Path(sys.argv[2])
image = np.zeros((40, 50, 3), np.uint8)
direct = MmkpForKeypointDetection.from_pretrained(name).eval()
processor = MmkpProcessor.from_pretrained(name)
auto = transformers.AutoModelForKeypointDetection.from_pretrained(name).eval()
transformers.AutoProcessor.from_pretrained(name)
made = [m(**processor(images=image)).keypoints_xy.detach().numpy() for m in (direct, auto, load(name).model)]
assert all((m == made[0]).all() for m in made)
found = transformers.pipeline("keypoint-detection", model=name)(str(out / "photo.png"))
assert mmkp.pipeline(model=name)(str(out / "photo.png")) == found
(out / "found.json").write_text(json.dumps([direct.name_or_path, type(auto).__name__, len(str(found)) > 20]))
from mmkp.cli import main
sys.argv[1:] = ["predict", "--model", name, "--image", str(out / "photo.png"), "--out", str(out / "prediction")]
main()
"""


def test_from_a_fresh_process(hub, pushed, tmp_path):
    """from_pretrained, the Auto classes, load, the pipeline and the command line know the Hub by HF_ENDPOINT alone."""
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    environment = fresh_environment(tmp_path)
    words = [sys.executable, "-c", FRESH, pushed, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "found.json").read_text()) == [pushed, "MmkpForKeypointDetection", True]
    assert list((tmp_path / "prediction").iterdir())
    assert TOKEN not in done.stdout + done.stderr
    written = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert [p for p in written if TOKEN.encode() in p.read_bytes()] == []


def test_the_token_is_in_no_file(hub, pushed):
    """Last: nothing that was pushed or cached in this module holds it."""
    root = hub.root.parent
    assert [p for p in root.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()] == []
    assert any(authorised for _, _, authorised in hub.requests)
