"""A file comes over a bad line whole, or not at all and with a sentence."""

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.fetch import MAX_ASKED, RECORD, fetch_file, recorded_hash
from engine.net import Fetcher

DATA = bytes(range(256)) * 4096  # 1 MiB


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Manners:
    """How the server treats the next requests."""

    data: bytes = DATA
    status: int = 200
    knows_ranges: bool = True
    honours_if_range: bool = True
    tag: str | None = None
    """None is that of the data; empty sends none."""
    breaks_after: list[int] = field(default_factory=list)
    """Bytes that each of the next answers sends before the line breaks."""
    more_length: int = 0
    kind: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)
    """The ranges that were asked for."""


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.manners = Manners()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/base.safetensors"


class Cancelled(Exception):
    """Somebody had enough."""


class Answers(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        manners = self.server.manners
        wanted = self.headers.get("Range")
        manners.asked.append(wanted)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/base.safetensors")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if manners.status != 200:
            return self.send_error(manners.status)
        tag = f'"{sha256(manners.data)[:8]}"' if manners.tag is None else manners.tag
        start = self._start(wanted, tag)
        if start >= len(manners.data):
            return self.send_error(416)
        return self._send(manners.data, start, tag)

    def _start(self, wanted: str | None, tag: str) -> int:
        manners = self.server.manners
        same = not manners.honours_if_range or self.headers.get("If-Range", tag) == tag
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        return int(match[1]) if match and same and manners.knows_ranges else 0

    def _send(self, data: bytes, start: int, tag: str) -> None:
        manners = self.server.manners
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start + manners.more_length))
        self.send_header("Content-Type", manners.kind)
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        limit = manners.breaks_after.pop(0) if manners.breaks_after else len(data)
        self.wfile.write(data[start : start + limit])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "base.safetensors"


def fetch(
    server: Server, path: Path, sha256: str | None = None, size: int | None = None
) -> list[tuple[int, int | None]]:
    """Fetch and return what was told."""
    told: list[tuple[int, int | None]] = []
    fetch_file(
        server.url,
        path,
        tell=lambda done, total: told.append((done, total)),
        sha256=sha256,
        size=size,
        timeout_s=5,
        wait_s=0.001,
    )
    return told


def left_over(path: Path) -> set[str]:
    return {item.name for item in path.parent.iterdir()} - {path.name, path.name + RECORD}


def test_a_file_comes_whole(server: Server, path: Path) -> None:
    told = fetch(server, path, sha256(DATA).upper(), len(DATA))

    assert path.read_bytes() == DATA
    assert (told[0], told[-1]) == ((0, len(DATA)), (len(DATA), len(DATA)))
    assert recorded_hash(path) == sha256(DATA)
    assert left_over(path) == set()


def test_a_file_that_is_there_is_not_fetched(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"mine")

    assert fetch_file(server.url, path, tell=lambda *_: None) == sha256(b"mine")
    assert server.manners.asked == []
    assert left_over(path) == set()


def test_a_redirect_is_followed(server: Server, path: Path) -> None:
    url = server.url.replace("/base", "/moved")

    assert fetch_file(url, path, tell=lambda *_: None) == sha256(DATA)


def test_a_broken_line_goes_on_where_it_stopped(server: Server, path: Path) -> None:
    server.manners.breaks_after = [300_000, 500_000]

    told = fetch(server, path)

    assert path.read_bytes() == DATA
    assert server.manners.asked == [None, "bytes=300000-", "bytes=800000-"]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_later_run_goes_on_where_this_one_stopped(server: Server, path: Path) -> None:
    def cancel(done: int, total: int | None) -> None:
        if done:
            raise Cancelled

    server.manners.breaks_after = [400_000]
    with pytest.raises(Cancelled):
        fetch_file(server.url, path, tell=cancel, timeout_s=5)
    assert not path.exists()
    kept = path.with_name(path.name + ".part").stat().st_size
    server.manners.breaks_after = []

    told = fetch(server, path)

    assert path.read_bytes() == DATA
    assert told[0][0] == kept > 0


def test_a_file_that_changed_meanwhile_begins_anew(server: Server, path: Path) -> None:
    other = DATA[::-1]
    for honours in (True, False):
        server.manners = Manners(breaks_after=[300_000] + [0] * 9)
        with pytest.raises(ModelNotFound):
            fetch(server, path)
        server.manners = Manners(data=other, honours_if_range=honours)

        fetch(server, path)

        assert path.read_bytes() == other
        path.unlink()
        path.with_name(path.name + RECORD).unlink()


def test_without_a_tag_only_a_known_hash_goes_on(server: Server, path: Path) -> None:
    for known, asked in ((None, [None, None]), (sha256(DATA), [None, "bytes=300000-"])):
        server.manners = Manners(tag="", breaks_after=[300_000])
        fetch(server, path, known)
        assert server.manners.asked == asked
        path.unlink()
        path.with_name(path.name + RECORD).unlink()


def test_a_server_without_ranges_begins_anew(server: Server, path: Path) -> None:
    server.manners = Manners(knows_ranges=False, breaks_after=[300_000])

    fetch(server, path)

    assert path.read_bytes() == DATA


def test_what_had_arrived_beyond_the_end_begins_anew(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name(path.name + ".part").write_bytes(DATA * 2)

    fetch(server, path, sha256(DATA))

    assert path.read_bytes() == DATA


def test_all_that_had_arrived_is_not_fetched_again(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name(path.name + ".part").write_bytes(DATA)

    fetch(server, path, sha256(DATA))

    assert path.read_bytes() == DATA
    assert server.manners.asked == []


def test_another_hash_is_refused(server: Server, path: Path) -> None:
    expected = (
        rf"^base\.safetensors: sha256 {sha256(DATA)[:12]}… does not match the expected "
        r"000000000000…; it was removed$"
    )
    with pytest.raises(ModelIncompatible, match=expected):
        fetch(server, path, "0" * 64)
    assert list(path.parent.iterdir()) == []


def test_a_change_since_the_first_download_is_refused(server: Server, path: Path) -> None:
    fetch(server, path)
    path.unlink()
    server.manners.data = b"other"

    expected = (
        rf"^base\.safetensors: sha256 {sha256(b'other')[:12]}… does not match that of the first "
        rf"download, {sha256(DATA)[:12]}…; it was removed; remove base\.safetensors\.sha256 to "
        r"take the new one$"
    )
    with pytest.raises(ModelIncompatible, match=expected):
        fetch(server, path)
    fetch(server, path, sha256(b"other"))
    assert recorded_hash(path) == sha256(b"other")


def test_another_size_is_refused(server: Server, path: Path) -> None:
    expected = r"^base\.safetensors: expected 5 bytes, got 1048576; it was removed$"
    with pytest.raises(ModelIncompatible, match=expected):
        fetch(server, path, size=5)
    assert list(path.parent.iterdir()) == []


def test_a_server_that_promises_more_than_it_sends(server: Server, path: Path) -> None:
    server.manners = Manners(more_length=7, tag="")

    expected = r"^base\.safetensors: expected an answer of 127\.0\.0\.1, got: .+; it can also be "
    with pytest.raises(ModelNotFound, match=expected):
        fetch(server, path)
    assert not path.exists()
    assert len(server.manners.asked) < 10


def test_a_web_page_is_no_file(server: Server, path: Path) -> None:
    server.manners.kind = "text/html; charset=utf-8"

    expected = r"^base\.safetensors: expected a file of weights, got a web page of 127\.0\.0\.1$"
    with pytest.raises(ModelIncompatible, match=expected):
        fetch(server, path)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (
            404,
            r"expected the file at http://127\.0\.0\.1:\d+/base\.safetensors, got: 404 Not Found",
        ),
        (401, r"127\.0\.0\.1 gives it only to people whom it knows \(401\); it can also be .+"),
        (503, r"expected an answer of 127\.0\.0\.1, got: 503 Service Unavailable; it can also .+"),
    ],
)
def test_a_refusal_is_a_sentence(server: Server, path: Path, status: int, problem: str) -> None:
    server.manners.status = status

    with pytest.raises(ModelNotFound, match=rf"^base\.safetensors: {problem}$"):
        fetch(server, path)
    assert list(path.parent.iterdir()) == []


def test_no_network_is_a_sentence(server: Server, path: Path) -> None:
    server.server_close()

    expected = (
        r"^base\.safetensors: expected an answer of 127\.0\.0\.1, got: .+; it can also be fetched "
        r"by hand from http://.+ into .+checkpoints$"
    )
    with pytest.raises(ModelNotFound, match=expected):
        fetch(server, path)


def test_a_full_disk_is_a_sentence(server: Server, path: Path) -> None:
    free = shutil.disk_usage(path.parent.parent).free
    server.manners = Manners(more_length=free)

    expected = r"^base\.safetensors: expected \d+ MiB free in .+, got a full disk; what has .+$"
    with pytest.raises(ModelNotFound, match=expected):
        fetch(server, path)


def test_a_folder_that_cannot_be_made_is_a_sentence(server: Server, path: Path) -> None:
    path.parent.write_text("a file")

    with pytest.raises(ModelNotFound, match=r"^base\.safetensors: .+; it can also be fetched"):
        fetch(server, path)


def test_another_scheme_is_refused(path: Path) -> None:
    expected = r"^base\.safetensors: expected an address on the web, got 'file:///etc/passwd'$"
    with pytest.raises(ModelNotFound, match=expected):
        fetch_file("file:///etc/passwd", path, tell=lambda *_: None)


def test_two_at_once_fetch_once(server: Server, path: Path) -> None:
    hashes: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: hashes.append(fetch_file(server.url, path, tell=lambda *_: None))
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert hashes == [sha256(DATA)] * 16
    assert len(server.manners.asked) == 1
    assert left_over(path) == set()


def test_what_a_request_names_goes_through_the_guard(server: Server, path: Path) -> None:
    with pytest.raises(ModelNotFound, match="expected a public address on the web"):
        fetch_file(server.url, path, tell=lambda *_: None, fetcher=Fetcher())
    assert server.manners.asked == []
    assert left_over(path) == set()

    allowed = Fetcher(allow_private=True)
    server.manners = Manners(data=save({"a": np.frombuffer(DATA, np.uint8)}))
    server.manners.breaks_after = [300_000, 500_000]
    url = server.url.replace("/base", "/moved")

    found = fetch_file(url, path, tell=lambda *_: None, wait_s=0.001, fetcher=allowed)

    assert found == sha256(server.manners.data)
    assert list(dict.fromkeys(server.manners.asked)) == [None, "bytes=300000-", "bytes=800000-"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PK\x03\x04" + bytes(200), "a pickled one under its name"),
        (b"\x80\x02}q\x00." + bytes(200), "a pickled one under its name"),
        (save({"a": np.zeros(100)})[:-8], "one of .* bytes whose header promises .*"),
        (b"\xff" * 200, r"one of 200 bytes whose header promises .*"),
        ((2).to_bytes(8, "little") + b"{]", "a broken one .*"),
    ],
    ids=["zip", "pickle", "cut", "lying", "no JSON"],
)
def test_what_a_request_names_safetensors_must_be_it(
    server: Server, path: Path, data: bytes, problem: str
) -> None:
    server.manners.data = data
    allowed = Fetcher(allow_private=True)
    expected = rf"^base\.safetensors: expected a safetensors file, got {problem}"
    with pytest.raises(ModelIncompatible, match=expected):
        fetch_file(server.url, path, tell=lambda *_: None, fetcher=allowed)
    assert list(path.parent.iterdir()) == []
    server.manners.data = save({"a": np.zeros(100)})
    fetch_file(server.url, path, tell=lambda *_: None, fetcher=allowed)
    assert path.read_bytes() == server.manners.data


def test_what_a_request_names_may_not_be_endless(server: Server, path: Path) -> None:
    server.manners.more_length = MAX_ASKED
    with pytest.raises(ModelIncompatible, match=f"at most {MAX_ASKED} bytes"):
        fetch_file(
            server.url, path, tell=lambda *_: None, fetcher=Fetcher(allow_private=True), timeout_s=5
        )
    assert left_over(path) == set()
