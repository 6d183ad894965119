"""A hub and a file server on loopback: repositories by name, files by path, and a count of what was asked for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import save

COMMIT = "a" * 40
Files = dict[str, bytes]


def weights(value: int = 0, count: int = 8) -> bytes:
    """A small safetensors file; other values give other bytes."""
    return save({"a": np.full(count, value, np.float32)})


@dataclass
class Manners:
    """How the hub behaves."""

    commit: str = COMMIT
    lies: bool = False
    """Announces wrong hashes."""
    size: int | None = None
    """Announced in place of every true size."""
    listing: bytes | None = None
    """Sent in place of every list of files."""
    broken: str | None = None
    """Name of a file that is refused."""


@dataclass
class Contents:
    repositories: dict[str, Files] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    """By path."""
    manners: Manners = field(default_factory=Manners)
    sent: list[str] = field(default_factory=list)
    """Paths of all that was asked for, in order, without their first slash."""


class Hub(ThreadingHTTPServer):
    """Serves `Contents`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.contents = Contents()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        contents = self.server.contents
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        contents.sent.append(path)
        data = contents.files.get(path)
        for repository, files in contents.repositories.items():
            if path.startswith(f"api/models/{repository}/revision/"):
                data = contents.manners.listing or self._listing(repository, files)
            if path.startswith(f"{repository}/resolve/"):
                name = path.removeprefix(f"{repository}/resolve/").partition("/")[2]
                data = None if name == contents.manners.broken else files.get(name)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        self.wfile.write(data)

    def _listing(self, repository: str, files: Files) -> bytes:
        manners = self.server.contents.manners
        siblings = []
        for name, data in files.items():
            size = len(data) if manners.size is None else manners.size
            item: dict[str, object] = {"rfilename": name, "size": size}
            if name.endswith((".safetensors", ".bin")):
                digest = "0" * 64 if manners.lies else hashlib.sha256(data).hexdigest()
                item["lfs"] = {"sha256": digest, "size": size, "pointerSize": 1}
            siblings.append(item)
        return json.dumps({"id": repository, "sha": manners.commit, "siblings": siblings}).encode()


@contextmanager
def open_hub() -> Iterator[Hub]:
    """Serve until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
