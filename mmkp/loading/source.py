"""Where a model is: packaged name, folder or Hub id -> a folder here that has been looked through (`safety`)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from mmkp.errors import InputError, MmkpError, nearest
from mmkp.loading.safety import check_folder, check_settings

KINDS = "a packaged name, a folder or a Hub id (ORG/NAME)"
HUB_PREFIX = "hf://"
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
UNSUPPORTED = ("variant", "gguf_file", "subfolder")
# All that loading reads. Code and pickles are never even fetched.
HUB_FILES = [
    "config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors", "generation_config.json",
    "processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json",
    "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "added_tokens.json",
    "special_tokens_map.json", "facts.json", "README.md",
]  # fmt: skip
MOST_LISTED = 200
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN."
LOCAL = "Go online (and unset HF_HUB_OFFLINE), or give the model's folder."


def packaged() -> dict[str, Path]:
    """The checkpoints that the package carries, by name."""
    root = Path(str(package_files("mmkp"))) / "checkpoints"
    return {p.name: p for p in sorted(root.iterdir()) if (p / "config.json").is_file()} if root.is_dir() else {}


def find(name: str | os.PathLike[str], weights: bool = True, **options: Any) -> Path:
    """The folder of a model, fetched from the Hub where needed, and found sound.

    Args:
        name: a packaged name, a folder, or ORG/NAME on the Hub (`hf://ORG/NAME` where a folder is called the same).
        weights: a whole model; without, its settings alone, which is all that a processor needs.
        options: revision, token, cache_dir, local_files_only, force_download, as transformers takes them.

    Raises:
        InputError: none of the three, a revision of something that is not on the Hub, or a folder that is refused
            (mmkp.loading.safety).
        MmkpError: the Hub does not answer.
    """
    source = resolve(os.fspath(name))
    is_folder = not source.startswith(HUB_PREFIX) and Path(source).is_dir()
    if is_folder and options.get("revision") not in (None, "main"):
        raise InputError(
            "revision", expected=f"none for {name}, which lies on this machine", got=repr(options["revision"]),
            remedy="A revision belongs to a Hub id (ORG/NAME).",
        )  # fmt: skip
    files = HUB_FILES if weights else [f for f in HUB_FILES if not f.endswith(".safetensors")]
    folder = Path(source) if is_folder else _download(source.removeprefix(HUB_PREFIX), files, **options)
    check = check_folder if weights else check_settings
    check(folder, trusted=folder in packaged().values())
    return folder


def resolve(name: str) -> str:
    """A packaged name or a folder -> its path; a Hub id as it is. Never asks the Hub.

    Raises:
        InputError: none of the three, with the nearest name or folder.
    """
    known = packaged()
    if name in known:
        return str(known[name])
    if name.startswith(HUB_PREFIX) and is_hub_id(name.removeprefix(HUB_PREFIX)):
        return name
    if name and Path(name).is_dir():
        return name
    if Path(name).is_file():
        raise InputError(f"model {name}", expected=KINDS, got="a file", remedy=f"Give its folder, {Path(name).parent}.")
    if "://" in name:
        shown = "/".join(name.split("://")[1].strip("/").split("/")[-2:])
        raise InputError(f"model {name}", expected=KINDS, got="an address", remedy=f"Write {shown}.")
    if not is_hub_id(name) or Path(name).parent.is_dir():
        raise InputError(f"model {name!r}", expected=KINDS, got="none of them", remedy=_near(name, known))
    return name


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ORG/NAME."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and len(name) <= 96


def _near(name: str, known: dict[str, Path]) -> str:
    """The folder or packaged name that was probably meant."""
    place = Path(name)
    if len(place.parts) < 2:
        here = [p.name for p in _folders(Path()) if (p / "config.json").is_file()]
        return nearest(name, [*known, *here]) if known or here else ""
    base = next((p for p in place.parents if p.is_dir()), None)
    beside = [str(p) for p in _folders(base)] if base is not None and base.parts != (base.anchor,) else []
    if base is None or not beside:
        return nearest(name, known) if known else ""
    remedy = nearest(str(Path(*place.parts[: len(base.parts) + 1])), beside)
    return f"{remedy} A model on the Hub: {HUB_PREFIX}{name}." if is_hub_id(name) else remedy


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))[:MOST_LISTED]
    except OSError:
        return []


def _download(name: str, files: list[str], **options: Any) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import is_offline_mode

    options = {k: v for k, v in options.items() if v is not None}
    offline = is_offline_mode() or bool(options.get("local_files_only"))
    where = f"model {name}" + (f" at {options['revision']}" if options.get("revision") else "")
    with hub_errors(where, "a model on the Hub", offline):
        return Path(snapshot_download(name, allow_patterns=files, **options))


@contextlib.contextmanager
def hub_errors(where: str, expected: str, offline: bool = False) -> Iterator[None]:
    """What the Hub's libraries raise, as one line that holds neither headers nor a token.

    Raises:
        InputError: what the user can mend: a name, a revision, a token, rights, offline mode.
        MmkpError: the Hub does not answer, or answers that it has failed.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(where, expected="ORG/NAME", got="a name that the Hub does not take") from error
    except errors.LocalTokenNotFoundError as error:
        raise InputError(where, expected="a token", got="none", remedy=LOGIN) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        answer = _status(error.__cause__)
        if answer is not None:
            raise _refusal(where, expected, answer, error.__cause__) from error
        if offline or isinstance(error, errors.OfflineModeIsEnabled):
            raise InputError(where, expected=f"{expected}, or a copy of it here", got="offline mode, and no copy",
                             remedy=LOCAL) from error  # fmt: skip
        raise _silence(where, expected) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(where, expected, _status(error), error) from error
    except (ConnectionError, TimeoutError) as error:
        raise _silence(where, expected) from error
    except MmkpError:
        raise
    except ValueError as error:  # the card's metadata are checked by the Hub
        raise InputError(where, expected=expected, got=redact(str(error))) from error
    except Exception as error:  # a connection cut off: httpx's or httpx2's, which the library shows as they are
        if not any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            raise
        raise _silence(where, expected) from error


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _refusal(where: str, expected: str, status: int | None, error: BaseException | None) -> MmkpError:
    from huggingface_hub import errors, get_token

    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(where, expected="a branch, tag or commit of it", got="none of that name")
    if isinstance(error, errors.GatedRepoError):
        return InputError(where, expected=expected, got="one whose terms must be accepted on its page", remedy=LOGIN)
    if status == 401:
        got = "a token that the Hub refuses (401)" if get_token() else "no token, and nothing without one (401)"
        return InputError(where, expected=expected, got=got, remedy=LOGIN)
    if status == 403:
        return InputError(where, expected=expected, got="no right to it (403)", remedy="Ask its owner, or check the "
                          "permissions of your token.")  # fmt: skip
    if status == 404:
        got = "none of that name that you may see (404)"
        return InputError(where, expected=expected, got=got, remedy="If it is private: " + LOGIN)
    if status is not None and 400 <= status < 500:
        return InputError(where, expected=expected, got=f"the Hub's answer {status}: {redact(str(error))}")
    return MmkpError(where, expected=expected, got=f"the Hub's answer {status or 'of an error'}",
                     remedy="Try again later.")  # fmt: skip


def _silence(where: str, expected: str) -> MmkpError:
    from huggingface_hub import constants

    return MmkpError(where, expected=expected, got=f"no answer from {constants.ENDPOINT}, and no copy of it here",
                     remedy="Check the connection, or try again later.")  # fmt: skip


def redact(text: str) -> str:
    """A message in one short line, without the token should a server have sent it back."""
    from huggingface_hub import get_token

    token = get_token()
    line = " ".join(text.split())
    return re.sub(r"hf_\w{8,}", "***", line.replace(token, "***") if token else line)[:200]
