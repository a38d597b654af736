"""A loopback Hugging Face Hub: the part of its HTTP interface that pushing and pulling need, over real sockets.

Repositories are private if made so, tokens are checked, and faults can be planned: an error status, or a connection that
is cut in the middle of a file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


TOKEN = "hf_loopback"
REPO = r"([^/]+/[^/]+)"


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
    """The next `times` requests whose path matches `pattern` fail: with `status`, or cut in the middle for none."""

    pattern: str
    status: int | None = None
    times: int = 1


class FakeHub(ThreadingHTTPServer):
    """The server; use as a context manager."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def fault_for(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, path):
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
        fault = self.server.fault_for(path)
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

    def missing(self, code: str, status: int = 404) -> None:
        self.reply({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        """Return a repository the caller may see, or answer as the Hub does and return none."""
        found = self.server.repositories.get(name)
        given = self.headers.get("Authorization")
        if found is not None and (not found.private or self.has_token):
            return found
        if given is not None and not self.has_token:
            self.reply({"error": "Invalid credentials"}, 401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        else:
            self.missing("RepoNotFound", 404 if self.has_token else 401)
        return None

    # What the routes do

    def who_am_i(self, match, body, fault) -> None:
        if not self.has_token:
            return self.reply({"error": "Invalid credentials"}, 401)
        self.reply({"name": "tester", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self, match, body, fault) -> None:
        if not self.has_token:
            return self.reply({"error": "Invalid credentials"}, 401, {"X-Error-Message": "Invalid credentials"})
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
        content = repository.files.get(match[3])
        if content is None:
            return self.missing("EntryNotFound")
        tag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repository.commit}
        self.reply(content, headers=tag, cut=fault is not None)


ROUTES = (
    (r"/api/whoami-v2", Handler.who_am_i),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.validate),
    (rf"/api/models/{REPO}/preupload/.+", Handler.preupload),
    (rf"/api/models/{REPO}/commit/.+", Handler.commit),
    (rf"/api/models/{REPO}(?:/(revision|tree|paths-info)/[^/]+(?:/.*)?)?", Handler.information),
    (rf"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
)
