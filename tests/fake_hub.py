"""A loopback Hugging Face Hub: the part of its HTTP interface that pushing and pulling need, over real sockets.

Repositories are private if made so, and tokens are checked: what is refused comes with the status and the `X-Error-*`
headers of the real Hub, from which its client makes the exceptions that users know. Weights go through large file storage,
files are known by the hashes that the real Hub gives them, and older commits can still be read. Faults can be planned for any
request: an error status, a connection that is cut, stalls or loses the answer, a file that is not what was announced, or
something that happens in between.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit


TOKEN = "hf_loopback"
REPO = r"([^/]+/[^/]+)"
LARGE = (".safetensors", ".bin")  # what goes through large file storage
ERROR_MESSAGES = {
    "RepoNotFound": "Repository not found",
    "RevisionNotFound": "Invalid rev id",
    "EntryNotFound": "Entry not found",
}


@dataclass
class Repository:
    """Files of a repository by path, and those of its earlier commits."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """Return the id of the files as they are, which can be read by it from now on."""
        digest = hashlib.sha1()
        for path in sorted(self.files):
            digest.update(path.encode() + hashlib.sha1(self.files[path]).digest())
        self.commits[digest.hexdigest()] = dict(self.files)
        return digest.hexdigest()

    def files_at(self, revision: str) -> dict[str, bytes] | None:
        """Return the files of the branch `main` or of a commit, none if there is no such revision."""
        return self.commits.get(self.commit if revision == "main" else revision)


@dataclass
class Fault:
    """Once `skip` requests of `method` (any if empty) whose path matches `pattern` were answered, the next `times` fail.

    They are answered with `status`. Without one, `kind` says what happens:
    * `"cut"`: the connection is closed in the middle of the answer, or of what is being sent to the Hub;
    * `"drop"`: it is closed before anything is said, `"lost"`: after the request was done, but before its answer;
    * `"stall"`: nothing comes any more, from the middle of the answer on;
    * `"short"`: half of a file comes as if that were all of it, `"corrupt"`: a bit of it is another one;
    * `"none"`: the request is answered as ever.

    In all cases `action` runs first, and `headers` go with the answer.
    """

    pattern: str
    status: int | None = None
    times: int = 1
    method: str = "GET"
    kind: Literal["cut", "drop", "lost", "stall", "short", "corrupt", "none"] = "cut"
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    action: Callable[[], object] | None = None


class FakeHub(ThreadingHTTPServer):
    """The server; use as a context manager."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}  # large files by their SHA-256
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.released = threading.Event()  # ends what stalls

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def clear(self) -> None:
        """Forget repositories, files and planned faults, and end what stalls."""
        self.released.set()
        self.released = threading.Event()
        self.repositories.clear()
        self.storage.clear()
        self.faults.clear()

    def handle_error(self, request, client_address) -> None:
        """Stay silent where a client hung up."""

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:  # a pipeline is downloaded by several threads
            for fault in self.faults:
                if fault.times == 0 or fault.method not in ("", method) or not re.search(fault.pattern, path):
                    continue
                if fault.skip == 0:
                    fault.times -= 1
                    return fault
                fault.skip -= 1
        return None


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    wbufsize = (
        -1
    )  # headers and content go out together: apart, the second waits 40 ms for the first to be acknowledged
    disable_nagle_algorithm = True
    server: FakeHub

    def log_message(self, *_) -> None:
        pass

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fault = fault = self.server.fault_for(self.command, path)
        kind = None if fault is None or fault.status is not None else fault.kind
        if fault is not None and fault.action is not None:
            fault.action()
        size = int(self.headers.get("Content-Length", 0))
        if kind == "drop" or (kind == "cut" and self.command in ("POST", "PUT")):
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        body = self.read_body()
        if fault is not None and fault.status is not None:
            return self.reply({"error": "planned"}, fault.status)
        for pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return action(self, match, body)
        return self.missing("RepoNotFound")

    do_GET = do_POST = do_HEAD = do_PUT = handle_any

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return chunks

    def reply(self, payload, status: int = 200, headers: dict | None = None) -> None:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        fault, kind = self.fault, None
        if fault is not None and fault.status is None:
            kind = fault.kind
        if kind == "lost" or (kind == "stall" and self.command != "GET"):
            if kind == "stall":
                self.server.released.wait(timeout=60)
            self.close_connection = True
            return
        if kind == "short":
            content = content[: len(content) // 2]
        elif kind == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(status)
        media = "application/octet-stream" if isinstance(payload, bytes) else "application/json"
        fields = {"Content-Type": media, "Content-Length": str(len(content)), **(headers or {})}
        for name, value in {**fields, **(fault.headers if fault is not None else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            content = b""
        self.wfile.write(content[: len(content) // 2] if kind in ("cut", "stall") else content)
        if kind == "stall":
            self.wfile.flush()
            self.server.released.wait(timeout=60)
        self.close_connection = kind in ("cut", "stall")

    def missing(self, code: str) -> None:
        message = ERROR_MESSAGES[code]
        self.reply({"error": message}, 404, {"X-Error-Code": code, "X-Error-Message": message})

    def unauthorized(self, message: str, headers: dict | None = None) -> None:
        self.reply({"error": message}, 401, {"X-Error-Message": message, **(headers or {})})

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        """Return a repository the caller may see, or answer as the Hub does and return none."""
        if not self.has_token and "Authorization" in self.headers:
            return self.unauthorized("Invalid credentials in Authorization header")
        found = self.server.repositories.get(name)
        if found is not None and (self.has_token or not found.private):
            return found
        # Without a token nobody learns whether a repository is missing or private.
        if self.has_token:
            return self.missing("RepoNotFound")
        return self.unauthorized("Invalid username or password.", {"X-Error-Code": "RepoNotFound"})

    # What the routes do

    def who_am_i(self, match, body) -> None:
        if not self.has_token:
            return self.unauthorized("Invalid credentials in Authorization header")
        self.reply({"name": "tester", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self, match, body) -> None:
        if not self.has_token:
            return self.unauthorized("Invalid credentials in Authorization header")
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        address = {"url": f"{self.server.endpoint}/{name}", "name": name, "id": name}
        if name in self.server.repositories:
            return self.reply({"error": "exists", **address}, 409)
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.server.repositories[name] = Repository(private)
        self.reply(address)

    def validate(self, match, body) -> None:
        self.reply({"errors": [], "warnings": []})

    def preupload(self, match, body) -> None:
        repository = self.repository(match[1])
        if repository is not None:
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            modes = ["lfs" if path.endswith(LARGE) else "regular" for path in paths]
            files = [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in zip(paths, modes, strict=True)
            ]
            self.reply({"files": files, "commitOid": repository.commit})

    def large_files(self, match, body) -> None:
        if self.repository(match[1]) is None:
            return
        wanted = [{"oid": entry["oid"], "size": entry["size"]} for entry in json.loads(body)["objects"]]
        for entry in wanted:
            if entry["oid"] not in self.server.storage:
                entry["actions"] = {"upload": {"href": f"{self.server.endpoint}/storage/{entry['oid']}"}}
        self.reply({"transfer": "basic", "objects": wanted})

    def store(self, match, body) -> None:
        if hashlib.sha256(body).hexdigest() != match[1]:
            return self.reply({"error": "The content is not what was announced"}, 400)
        self.server.storage[match[1]] = body
        self.reply({})

    def commit(self, match, body) -> None:
        repository = self.repository(match[1])
        if repository is None:
            return
        files = dict(repository.files)
        for line in body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.storage[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"], None)
        repository.files = files  # all at once
        address = f"{self.server.endpoint}/{match[1]}/commit/{repository.commit}"
        self.reply({"commitUrl": address, "commitOid": repository.commit, "success": True})

    def information(self, match, body) -> None:
        repository = self.repository(match[1])
        if repository is None:
            return
        files = repository.files_at(match[3] or "main")
        if files is None:
            return self.missing("RevisionNotFound")
        entries = [_entry(path, content) for path, content in sorted(files.items())]
        if match[2] == "tree":
            return self.reply(entries)
        if match[2] == "paths-info":
            wanted = json.loads(body or b"{}").get("paths", [])
            return self.reply([entry for entry in entries if entry["path"] in wanted])
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        counts = {"_id": "0" * 24, "tags": [], "downloads": 0, "likes": 0, "private": repository.private}
        commit = repository.commit if match[3] in (None, "main") else match[3]
        self.reply({"id": match[1], "modelId": match[1], "sha": commit, "siblings": siblings, **counts})

    def resolve(self, match, body) -> None:
        repository = self.repository(match[1])
        if repository is None:
            return
        files = repository.files_at(match[2])
        if files is None:
            return self.missing("RevisionNotFound")
        content = files.get(match[3])
        if content is None:
            return self.missing("EntryNotFound")
        commit = repository.commit if match[2] == "main" else match[2]
        headers = {"ETag": f'"{_hash(match[3], content)}"', "X-Repo-Commit": commit}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is not None:
            headers["Content-Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            content = content[int(start[1]) :]
        self.reply(content, 200 if start is None else 206, headers)


def _entry(path: str, content: bytes) -> dict:
    """Return what a listing says of a file."""
    entry = {"type": "file", "path": path, "size": len(content), "oid": _hash("", content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": _hash(path, content), "size": len(content), "pointerSize": 134}
    return entry


def _hash(path: str, content: bytes) -> str:
    """Return the hash that the Hub knows a file by: SHA-256 for large files, git's own for others."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


ROUTES = (
    (r"/api/whoami-v2", Handler.who_am_i),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.validate),
    (rf"/api/models/{REPO}/preupload/.+", Handler.preupload),
    (rf"/api/models/{REPO}/commit/.+", Handler.commit),
    (rf"/{REPO}\.git/info/lfs/objects/batch", Handler.large_files),
    (r"/storage/([0-9a-f]+)", Handler.store),
    (rf"/api/models/{REPO}(?:/(revision|tree|paths-info)/([^/]+)(?:/.*)?)?", Handler.information),
    (rf"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
)
