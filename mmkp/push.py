"""Pushing to the Hub: a model with its processor, card and facts; a dataset as Parquet with its schema and a card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mmkp.card import More, card, facts, halve
from mmkp.errors import InputError
from mmkp.loading.source import hub_errors, is_hub_id

SPLITS_LISTED = ("train", "validation", "test")


def push_model(
    model: str, repo_id: str, private: bool = False, revision: str | None = None, message: str | None = None,
    half: bool | None = None, licence: str = "", data: str = "",
) -> str:  # fmt: skip
    """Upload a model as one commit: safetensors, configuration, processor, README.md, facts.json.

    Args:
        model: a packaged name, a folder or a Hub id.
        repo_id: ORG/NAME, made where it is not there yet.
        private: of a repository that is made.
        revision: a branch, made where it is not there yet; main without.
        message: of the commit.
        half: weights in fp16; as they are stored without.
        licence, data: of the weights and what they were trained on, for a run without a card of its own.

    Returns:
        The commit's address.

    Raises:
        InputError: no such model, a name that is none, a token that is missing, refused or without rights.
        MmkpError: the Hub does not answer.
    """
    from mmkp.hub import find, load

    _check_id(repo_id)
    folder = find(model)
    loaded = load(str(folder))
    if half is None:
        half = json.loads((folder / "config.json").read_text()).get("dtype") == "float16"
    with tempfile.TemporaryDirectory(prefix="mmkp-push-") as made:
        staged = Path(made)
        (halve(loaded.model) if half else loaded.model).save_pretrained(staged)
        loaded.processor.save_pretrained(staged)
        _describe(folder, staged, {model, folder.name}, repo_id, licence, data)
        return _upload(staged, repo_id, "model", private, revision, message or f"{repo_id.split('/')[1]}, by mmkp push")


def _check_id(repo_id: str) -> None:
    if not is_hub_id(repo_id):
        raise InputError(f"repository {repo_id!r}", expected="ORG/NAME", got="none")


def _describe(folder: Path, staged: Path, names: set[str], repo_id: str, licence: str, data: str) -> None:
    """The card that the folder has, under its new name; or one made from the run's files."""
    own = folder / "README.md"
    if own.is_file():
        if licence or data:
            raise InputError("push --licence", expected="none: the model's own card states it", got=licence or data)
        text = own.read_text("utf-8")
        for name in names:
            for word in (f'load("{name}")', f"--model {name} ", f"\n# {name}\n"):
                text = text.replace(word, word.replace(name, repo_id))
        (staged / "README.md").write_text(text, "utf-8")
        if (folder / "facts.json").is_file():
            shutil.copyfile(folder / "facts.json", staged / "facts.json")
        return
    (staged / "README.md").write_text(card(repo_id, folder, licence, data, ""), "utf-8")
    (staged / "facts.json").write_text(json.dumps(facts(folder, licence, data, More()), indent=1) + "\n")


def push_data(
    data: str, repo_id: str, private: bool = False, revision: str | None = None, message: str | None = None,
    licence: str = "", options: dict[str, Any] | None = None,
) -> tuple[str, list[str]]:  # fmt: skip
    """Upload a dataset as Parquet that `datasets.load_dataset` opens, with schema.yaml and a card.

    Args:
        data: a folder or a registered dataset.
        repo_id, private, revision, message: as for a model.
        licence: of the data, by the Hub's identifier.
        options: of the dataset.

    Returns:
        The commit's address, and what could not be exported, row by row.

    Raises:
        InputError: no such dataset, or what the Hub refuses.
        MmkpError: the Hub does not answer.
    """
    from mmkp.data import open_dataset
    from mmkp.data.check import is_table, open_source
    from mmkp.data.export_parquet import export_parquet

    _check_id(repo_id)
    chosen = options or {}
    dataset = open_source(data, **chosen) if is_table(data) else open_dataset(data, "all", **chosen)
    with tempfile.TemporaryDirectory(prefix="mmkp-push-") as made:
        staged = Path(made) / "data"
        exported = export_parquet(dataset, staged)
        (staged / "README.md").write_text(data_card(repo_id, staged, dataset.schema, exported.rows, licence), "utf-8")
        address = _upload(staged, repo_id, "dataset", private, revision, message or f"{exported.rows} rows, by mmkp")
        return address, list(dict.fromkeys([*_faults(dataset), *exported.problems]))


def _faults(dataset: Any) -> list[str]:
    """What the reader had to leave out, as `mmkp data check` names it."""
    return [str(f) for f in dataset.faults] if hasattr(dataset, "faults") else list(getattr(dataset, "problems", ()))


def data_card(repo_id: str, folder: Path, schema: Any, rows: int, licence: str = "") -> str:
    """README.md of a dataset: its schema, rows, files by split, licence and how to open it."""
    from huggingface_hub import DatasetCardData

    files = {s: f"data/{s}-*.parquet" for s in SPLITS_LISTED if any(folder.glob(f"data/{s}-*.parquet"))}
    parts = [{"split": s, "path": path} for s, path in files.items()]
    meta = DatasetCardData(
        license=licence or None, task_categories=["keypoint-detection"], tags=["mmkp", schema.name],
        configs=[{"config_name": "default", "data_files": parts}],
    )  # fmt: skip
    return "\n".join(
        [
            "---", meta.to_yaml().strip(), "---", "", f"# {repo_id}", "",
            f"{rows} rows with keypoints of the schema `{schema.name}` ({schema.num_keypoints} points; schema.yaml), "
            f"splits {', '.join(files)}. {'Licence: ' + licence if licence else 'No licence is stated.'}", "",
            "Columns: id, group, split, image, audio, audio_time (s), text, keypoints (x, y in px, the centre of the "
            "top-left pixel is (0, 0), and COCO's visibility), box (xywh, px), info (JSON).", "",
            "```bash", f"mmkp data check {repo_id}", "```", "", "```python", "import datasets", "",
            f'datasets.load_dataset("{repo_id}")', "```", "",
        ]
    )  # fmt: skip


def _upload(folder: Path, repo_id: str, kind: str, private: bool, revision: str | None, message: str) -> str:
    """One commit of all files of a folder; the repository and the branch are made where they are missing."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    api = HfApi(library_name="mmkp")
    where = f"push to {repo_id}"
    if is_offline_mode():
        raise InputError(where, expected="a connection", got="offline mode", remedy="Unset HF_HUB_OFFLINE.")
    with hub_errors(where, "a repository that you may write to"):
        api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo_id, folder_path=folder, repo_type=kind, revision=revision, commit_message=message
        )
    return str(made.commit_url)
