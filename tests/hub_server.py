"""A Hub on the loopback device: what huggingface_hub's client asks of the real one when it pushes and loads."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

REPO = r"(?P<name>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>models|datasets)/{REPO}"
LFS_SUFFIXES = (".safetensors", ".parquet")
ROUTES = (
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{API}/branch/(?P<revision>[^/]+)", "branch"),
    ("POST", rf"/(?P<kind>datasets/)?{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
    ("GET", rf"{API}(/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", rf"/(?P<kind>datasets/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "file"),
)


class HubStore:
    """Repositories as folders: ROOT/KIND/ORG/NAME/COMMIT/files, and refs.json beside them."""

    def __init__(self, root: Path, token: str) -> None:
        self.root, self.token, self.requests = root, token, list[tuple[str, str, bool]]()
        (root / "lfs").mkdir(parents=True)

    def repo(self, kind: str | None, name: str) -> Path:
        return self.root / ("datasets" if str(kind).startswith("dataset") else "models") / name

    def refs(self, repo: Path) -> dict[str, Any]:
        return json.loads((repo / "refs.json").read_text())

    def create(self, repo: Path, private: bool) -> None:
        repo.mkdir(parents=True)
        self.write(repo, {"private": private, "messages": [], "main": ""}, "main", {})

    def write(self, repo: Path, refs: dict[str, Any], branch: str, files: dict[str, bytes]) -> str:
        """A new commit on a branch: the files that were there, and these."""
        commit, parent = hashlib.sha1(uuid.uuid4().bytes).hexdigest(), refs.get(branch) or ""
        if parent:
            shutil.copytree(repo / parent, repo / commit)
        for path, data in files.items():
            (repo / commit / path).parent.mkdir(parents=True, exist_ok=True)
            (repo / commit / path).write_bytes(data)
        (repo / commit).mkdir(exist_ok=True)
        (repo / "refs.json").write_text(json.dumps({**refs, branch: commit}))
        return commit

    def put(self, name: str, folder: Path, kind: str = "models") -> None:
        """A repository made without the client, as anybody may have made it."""
        repo = self.repo(kind, name)
        self.create(repo, private=False)
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.write(repo, self.refs(repo), "main", files)


class Handler(BaseHTTPRequestHandler):
    """One request. A repository named `status-NNN` is answered with that status, with the token sent back in it."""

    store: HubStore

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        given = self.headers.get("Authorization", "")
        self.store.requests.append((self.command, path, bool(given)))
        asked = re.search(r"status-(\d{3})", path + (self.body.decode("latin1") if "create" in path else ""))
        if asked:
            return self.fail(int(asked[1]), f"asked for, with {given}")
        if given and given != f"Bearer {self.store.token}":
            return self.fail(401, "Invalid credentials in Authorization header")
        if self.command in ("POST", "PUT") and not given and not path.startswith("/lfs/"):
            return self.fail(401, "Invalid username or password.")
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                return self.known(action, found.groupdict(), bool(given))
        return self.fail(404, "no such route")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def known(self, action: str, words: dict[str, str | None], given: bool) -> None:
        if "name" in words and action not in ("create", "lfs_batch"):
            repo = self.store.repo(words.get("kind"), str(words["name"]))
            if not repo.is_dir() or (self.store.refs(repo)["private"] and not given):
                return self.fail(401 if not given else 404, "Repository not found", "RepoNotFound")
            refs, revision = self.store.refs(repo), words.get("revision") or "main"
            commit = refs.get(revision, revision)
            if action != "branch" and (not (repo / commit).is_dir() or revision in ("private", "messages")):
                return self.fail(404, "Invalid rev id", "RevisionNotFound")
            return getattr(self, action)(repo, commit, words)
        return getattr(self, action)(words)

    def create(self, words: dict[str, Any]) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization')}/{asked['name']}"
        repo = self.store.repo(asked.get("type"), name)
        prefix = "datasets/" if asked.get("type") == "dataset" else ""
        known = {"url": f"{self.endpoint}/{prefix}{name}", "id": name, "name": name}
        if repo.is_dir():
            return self.send(409, {**known, "error": "You already created this repo"})
        self.store.create(repo, asked.get("visibility") == "private" or bool(asked.get("private")))
        return self.send(200, known)

    def validate_yaml(self, words: dict[str, Any]) -> None:
        text = json.loads(self.body)["content"]
        try:
            yaml.safe_load(text.split("---")[1])
        except (yaml.YAMLError, IndexError) as error:
            return self.send(400, {"errors": [{"message": str(error)}], "warnings": []})
        return self.send(200, {"errors": [], "warnings": []})

    def preupload(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        made = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LFS_SUFFIXES) else "regular",
             "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]  # fmt: skip
        self.send(200, {"files": made})

    def lfs_batch(self, words: dict[str, Any]) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{o['oid']}", "header": {}}}}
            for o in json.loads(self.body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, words: dict[str, Any]) -> None:
        right = hashlib.sha256(self.body).hexdigest() == words["oid"]
        (self.store.root / "lfs" / words["oid"]).write_bytes(self.body)
        self.send(200 if right else 400, {})

    def branch(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        refs = self.store.refs(repo)
        if words["revision"] in refs:
            return self.send(409, {"error": "Reference already exists"})
        (repo / "refs.json").write_text(json.dumps({**refs, words["revision"]: refs["main"]}))
        return self.send(200, {})

    def commit(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        files, refs = {}, self.store.refs(repo)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                refs["messages"].append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = (self.store.root / "lfs" / value["oid"]).read_bytes()
        made = self.store.write(repo, refs, words["revision"], files)
        name = words["name"] if words["kind"] == "models" else f"datasets/{words['name']}"
        self.send(200, {"commitUrl": f"{self.endpoint}/{name}/commit/{made}", "commitOid": made, "hookOutput": ""})

    def info(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        files = [{"rfilename": e["path"]} for e in self.entries(repo / commit)]
        private = self.store.refs(repo)["private"]
        self.send(200, {"id": words["name"], "sha": commit, "private": private, "siblings": files, "tags": []})

    def tree(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        folder = f"{words['folder']}/" if words.get("folder") else ""
        inside = [e for e in self.entries(repo / commit) if e["path"].startswith(folder)]
        if folder and not inside:
            return self.fail(404, "Entry not found", "EntryNotFound")
        if parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1"):
            return self.send(200, inside)
        deeper = {e["path"][len(folder) :].partition("/")[0] for e in inside if "/" in e["path"][len(folder) :]}
        folders = [{"type": "directory", "path": folder + name, "oid": "0"} for name in sorted(deeper)]
        return self.send(200, [*folders, *(e for e in inside if "/" not in e["path"][len(folder) :])])

    def paths_info(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        asked = parse_qs(self.body.decode()).get("paths") or json.loads(self.body or b"{}").get("paths", [])
        folders = [{"type": "directory", "path": p, "oid": "0"} for p in asked if (repo / commit / p).is_dir()]
        self.send(200, [*folders, *(e for e in self.entries(repo / commit) if e["path"] in asked)])

    @staticmethod
    def entries(folder: Path) -> list[dict[str, Any]]:
        made = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            data, name = path.read_bytes(), str(path.relative_to(folder))
            entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            if name.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            made.append(entry)
        return made

    def file(self, repo: Path, commit: str, words: dict[str, Any]) -> None:
        path = repo / commit / words["path"]
        if not path.is_file():
            return self.fail(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
        data = path.read_bytes()
        hashed = hashlib.sha256 if path.name.endswith(LFS_SUFFIXES) else hashlib.sha1
        fields = {"ETag": f'"{hashed(data).hexdigest()}"', "X-Repo-Commit": commit}
        return self.send(200, data, {**fields, "Content-Type": "application/octet-stream"})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def fail(self, status: int, words: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        fields = {"X-Error-Message": words, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.send(status, {"error": words}, fields)

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        fields = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        for key, value in fields.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def hub_server(root: Path, token: str) -> Iterator[tuple[str, HubStore]]:
    """A Hub for as long as the block lasts: its address on 127.0.0.1, and what it holds."""
    store = HubStore(root, token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"store": store}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", store
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
