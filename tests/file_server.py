"""A server of files on loopback that stops in the middle until it is told to go on, and counts what it is asked."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath


class FileServer(ThreadingHTTPServer):
    """Sends `files` by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.stalls: dict[str, int] = {}
        """Bytes of a file after which an answer waits for `go_on`."""
        self.go_on = threading.Event()
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""


class _Answers(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = PurePosixPath(self.path).name
        self.server.asked.append(name)
        data = self.server.files.get(name)
        if data is None:
            return self.send_error(404)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{len(data)}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stop = max(start, self.server.stalls.get(name, len(data)))
        self.wfile.write(data[start:stop])
        self.wfile.flush()
        if stop < len(data):
            self.server.go_on.wait()
            self.wfile.write(data[stop:])
        return None


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Run one; what stalls is let go at the end."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()
