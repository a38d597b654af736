"""A loopback Hugging Face Hub: the part of its HTTP interface that pushing and pulling need, over real sockets.

Repositories are private if made so, and tokens are checked: what is refused comes with the status and the `X-Error-*`
headers of the real Hub, from which its client makes the exceptions that users know. Faults can be planned: an error
status, a connection that is cut in the middle of a file, or a file that is shorter than announced.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit


TOKEN = "hf_loopback"
REPO = r"([^/]+/[^/]+)"
ERROR_MESSAGES = {
    "RepoNotFound": "Repository not found",
    "RevisionNotFound": "Invalid rev id",
    "EntryNotFound": "Entry not found",
}


@dataclass
class Repository:
    """Files of a repository by path."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """Return a commit id that changes with every file."""
        digest = hashlib.sha1()
        for path in sorted(self.files):
            digest.update(path.encode() + hashlib.sha1(self.files[path]).digest())
        return digest.hexdigest()


@dataclass
class Fault:
    """The next `times` requests of `method` whose path matches `pattern` fail.

    They are answered with `status`; without one, a file is sent up to its middle: with its whole length announced and the
    connection closed (`kind="cut"`), or as if that were all of it (`kind="short"`).
    """

    pattern: str
    status: int | None = None
    times: int = 1
    method: str = "GET"
    kind: Literal["cut", "short"] = "cut"


class FakeHub(ThreadingHTTPServer):
    """The server; use as a context manager."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:  # a pipeline is downloaded by several threads
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_) -> None:
        pass

    def handle_any(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.read_body()
        fault = self.server.fault_for(self.command, path)
        if fault is not None and fault.status is not None:
            return self.reply({"error": "planned"}, fault.status)
        for pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return action(self, match, body, fault)
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

    def reply(self, payload, status: int = 200, headers: dict | None = None, cut: bool = False) -> None:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(payload, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

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

    def who_am_i(self, match, body, fault) -> None:
        if not self.has_token:
            return self.unauthorized("Invalid credentials in Authorization header")
        self.reply({"name": "tester", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self, match, body, fault) -> None:
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

    def validate(self, match, body, fault) -> None:
        self.reply({"errors": [], "warnings": []})

    def preupload(self, match, body, fault) -> None:
        repository = self.repository(match[1])
        if repository is not None:
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self.reply({"files": files, "commitOid": repository.commit})

    def commit(self, match, body, fault) -> None:
        repository = self.repository(match[1])
        if repository is None:
            return
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                value = operation["value"]
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                repository.files.pop(operation["value"]["path"], None)
        address = f"{self.server.endpoint}/{match[1]}/commit/{repository.commit}"
        self.reply({"commitUrl": address, "commitOid": repository.commit, "success": True})

    def information(self, match, body, fault) -> None:
        repository = self.repository(match[1])
        if repository is None:
            return
        if match[3] is not None and match[3] not in ("main", repository.commit):
            return self.missing("RevisionNotFound")
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in sorted(repository.files.items())
        ]
        if match[2] == "tree":
            return self.reply(entries)
        if match[2] == "paths-info":
            wanted = json.loads(body or b"{}").get("paths", [])
            return self.reply([entry for entry in entries if entry["path"] in wanted])
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        counts = {"_id": "0" * 24, "tags": [], "downloads": 0, "likes": 0, "private": repository.private}
        self.reply({"id": match[1], "modelId": match[1], "sha": repository.commit, "siblings": siblings, **counts})

    def resolve(self, match, body, fault) -> None:
        repository = self.repository(match[1])
        if repository is None:
            return
        if match[2] not in ("main", repository.commit):
            return self.missing("RevisionNotFound")
        content = repository.files.get(match[3])
        if content is None:
            return self.missing("EntryNotFound")
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repository.commit}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is not None:
            headers["Content-Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            content = content[int(start[1]) :]
        if fault is not None and fault.kind == "short":
            content = content[: len(content) // 2]
        cut = fault is not None and fault.kind == "cut"
        self.reply(content, 200 if start is None else 206, headers, cut)


ROUTES = (
    (r"/api/whoami-v2", Handler.who_am_i),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.validate),
    (rf"/api/models/{REPO}/preupload/.+", Handler.preupload),
    (rf"/api/models/{REPO}/commit/.+", Handler.commit),
    (rf"/api/models/{REPO}(?:/(revision|tree|paths-info)/([^/]+)(?:/.*)?)?", Handler.information),
    (rf"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
)
