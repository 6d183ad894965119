"""What the tests of clients start: studios in processes of their own, fal's JavaScript clients, a receiver of webhooks."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

from tests.test_app import ROOT, free_port, wait_for

CLIENTS = ROOT / "tests" / "clients"
POINTER = ROOT / "clients" / "local_fal.mjs"
START_S = 240.0
"""A machine that does much else takes minutes to read what the page is made of."""


class Studio:
    """A studio that can be killed and started again on the same port and folder."""

    def __init__(self, folder: Path, *, is_real: bool = False) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._is_real = is_real
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(f"{self.address}/health/live", START_S)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as its owner does."""
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def _command(self) -> list[str]:
        if not self._is_real:
            return [
                *(sys.executable, "-m", "tests.clients.server"),
                *(str(self.port), str(self.folder)),
            ]
        return [
            *(sys.executable, "app.py", "--model", "pocket", "--port", str(self.port)),
            *("--data-dir", str(self.data_dir), "--output-dir", str(self.folder / "outputs")),
        ]


class Node:
    """Runs JavaScript against a studio."""

    def __init__(self, program: str) -> None:
        self._program = program

    def call(self, studio: str, age: str, operation: str, **asked: Any) -> dict[str, Any]:
        """Make one call with one of fal's clients; returns its ``value`` or its ``error``."""
        script = [str(CLIENTS / "call.mjs"), age, operation, json.dumps(asked)]
        shown = self.run(["--import", str(POINTER), *script], FAL_LOCAL_URL=studio)
        found: dict[str, Any] = json.loads(shown.strip().splitlines()[-1])
        return found

    def run(
        self, arguments: list[str], *, cwd: Path = CLIENTS, data: bytes = b"", **environment: str
    ) -> str:
        """Run Node; returns what it wrote."""
        done = subprocess.run(
            [self._program, *arguments],
            cwd=cwd,
            input=data,
            env={**os.environ, "FAL_KEY": "key-id:key-secret", **environment},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files by their paths; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


Delivery = tuple[Mapping[str, str], bytes]


@contextmanager
def receiver() -> Iterator[tuple[str, "Queue[Delivery]"]]:
    """Listen for webhooks; yields the address, and the queue of headers (small letters) and bodies."""
    heard: Queue[Delivery] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook?a=1", heard
        server.shutdown()
        thread.join()
