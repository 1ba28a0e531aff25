"""Datasets on the Hub: `ORG/NAME`, in the custom format, as Parquet with `datasets` features, or as WebDataset tars."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmkp.data.folder_source import METADATA_FILES
from mmkp.data.rows import RowTable
from mmkp.data.splits import SPLITS, canonical
from mmkp.errors import InputError
from mmkp.schema import KeypointSchema, load_schema

AGAIN = "Try again later."
LOGIN = "If it is private, log in with `hf auth login`."


def read_hub(name: str, schema: str | None = None, revision: str | None = None) -> RowTable:
    """The rows of a dataset on the Hub, downloaded once into the cache.

    Args:
        name: ORG/NAME.
        schema: a built-in schema's name or a YAML file; the dataset's own schema.yaml without.
        revision: a branch, tag or commit; the main branch without.

    Raises:
        InputError: no such dataset, the Hub is out of reach, or a layout that is none of ours.
    """
    from mmkp.data.folder import read_folder
    from mmkp.data.shards import read_parquet, read_webdataset

    folder = _download(name, revision)
    if _has_metadata(folder):
        return read_folder(folder, schema)
    if any(folder.rglob("*.parquet")):
        return read_parquet(folder, schema)
    if any(folder.rglob("*.tar")):
        return read_webdataset(folder, schema)
    found = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    raise InputError(
        f"dataset {name}", expected=f"{METADATA_FILES[0]}, .parquet or .tar files",
        got=", ".join(found[:8]) or "no files",
        remedy="docs/custom_data.md shows the custom format, which can be pushed to the Hub as it is.",
    )  # fmt: skip


def _has_metadata(folder: Path) -> bool:
    folders = [folder, *(d for d in folder.iterdir() if d.is_dir() and canonical(d.name) in SPLITS)]
    return any((d / file).is_file() for d in folders for file in METADATA_FILES)


def _download(name: str, revision: str | None) -> Path:
    """The dataset's files, as files: the Hub's own cache holds links, which a dataset may not lead out by."""
    from huggingface_hub import snapshot_download

    base = Path(os.environ.get("MMKP_CACHE") or "~/.cache/mmkp").expanduser() / "hub"
    folder = base / "--".join([*name.split("/"), revision or "main"])
    with _plainly(name, revision):
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, local_dir=folder))


def hub_stream(
    name: str, split: str, schema: str | None = None, revision: str | None = None, buffer: int | None = None
) -> Any:
    """A split of a dataset on the Hub as a stream (mmkp.data.stream.Stream): Parquet, read in passing.

    Args:
        name: ORG/NAME, or a folder of Parquet files as `datasets.load_dataset` takes it.
        split: train, validation, test or all; where the Hub's dataset names only train, by the groups' hash.
        schema: a built-in schema's name or a YAML file; the dataset's own schema.yaml without.
        revision: a branch, tag or commit; the main branch without.
        buffer: rows among which order is drawn.

    Raises:
        InputError: no such dataset, the Hub is out of reach, no keypoints in it, or no schema.
    """
    import datasets

    from mmkp.data.stream import BUFFER, Stream

    with _plainly(name, revision):
        parts = datasets.load_dataset(name, revision=revision, streaming=True)
    known = {canonical(part): data for part, data in parts.items()}
    chosen = canonical(split) if canonical(split) in known else "train" if "train" in known else next(iter(known))
    records = known[chosen]
    columns = list(records.features or {})
    if "keypoints" not in columns:
        raise InputError(
            f"dataset {name}", expected="a column keypoints", got=", ".join(columns) or "no columns that are declared"
        )
    for column, feature in (("image", datasets.Image(decode=False)), ("audio", datasets.Audio(decode=False))):
        if column in columns and not isinstance(records.features[column], datasets.Value):
            records = records.cast_column(column, feature)
    meaning = load_schema(schema) if schema else _schema(name, revision)
    names = {str(part) for part in known}
    return Stream(name, records, meaning, split, names, file_split=str(chosen), buffer=buffer or BUFFER)


def _schema(name: str, revision: str | None) -> KeypointSchema:
    from huggingface_hub import hf_hub_download

    from mmkp.data.folder import folder_schema

    if Path(name).is_dir():
        return folder_schema(Path(name))
    base = Path(os.environ.get("MMKP_CACHE") or "~/.cache/mmkp").expanduser() / "hub"
    folder = base / "--".join([*name.split("/"), revision or "main"])
    with _plainly(name, revision, what="schema.yaml in it, or the option schema"):
        hf_hub_download(name, "schema.yaml", repo_type="dataset", revision=revision, local_dir=folder)
    return folder_schema(folder)


@contextlib.contextmanager
def _plainly(name: str, revision: str | None, what: str = "a dataset on the Hub") -> Iterator[None]:
    """Errors of the Hub's libraries as one line, without headers and so without a token."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"dataset {name}" + (f" at {revision}" if revision else "")
    try:
        yield
    except (GatedRepoError, RepositoryNotFoundError) as error:
        gated = isinstance(error, GatedRepoError)
        got = "one that asks for its terms to be accepted" if gated else "none of that name that you may see"
        raise InputError(where, expected=what, got=got, remedy=LOGIN) from error
    except RevisionNotFoundError as error:
        raise InputError(where, expected="a branch, tag or commit of it", got=repr(revision)) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise InputError(
            where, expected=what, got="no answer from the Hub, and no copy of it here",
            remedy="Go online (and unset HF_HUB_OFFLINE), or give the dataset's folder instead of its name.",
        ) from error  # fmt: skip
    except EntryNotFoundError as error:
        raise InputError(where, expected=what, got="no such file in it") from error
    except HFValidationError as error:
        raise InputError(where, expected="ORG/NAME", got=repr(name)) from error
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "an error")
        raise InputError(where, expected=what, got=f"the Hub's answer {status}", remedy=AGAIN) from error
    except (DatasetsError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        got = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(where, expected=what, got=got) from error
    except Exception as error:  # a connection cut off: httpx's, or httpx2's, which the Hub's library shows as they are
        if not any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            raise
        raise InputError(where, expected=what, got=f"no answer from the Hub ({error})", remedy=AGAIN) from error
