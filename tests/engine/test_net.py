"""What a request names is fetched from public addresses alone, whole, in time, and within bounds."""

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence

import pytest

from engine.net import (
    MAX_REDIRECTS,
    AddressRefused,
    DownloadPolicy,
    Fetcher,
    FetchError,
    TooLarge,
    Unreachable,
    is_public,
    read_target,
)

HERE, PRIVATE = "127.0.0.1", "127.0.0.2"
"""Two addresses of this machine; the tests take the first one for public."""
OK = b"HTTP/1.1 200 OK\r\nContent-Type: Image/PNG; x=1\r\n"
Script = Callable[[socket.socket, bytes], None]


def words(text: str) -> list[str]:
    return text.split()


class Server:
    """Answers each connection by a script that gets the socket and the head of the request."""

    def __init__(self, address: str = HERE) -> None:
        self.script: Script = lambda line, head: line.sendall(
            OK + b"Content-Length: 5\r\n\r\nhello"
        )
        self.heads: list[bytes] = []
        self._socket = socket.create_server((address, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def url(self, host: str = HERE, path: str = "/a.png") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            with line:
                head = line.recv(65536)
                while head.startswith(b"POST") and not head.endswith(b"}"):
                    head += line.recv(65536)
                self.heads.append(head)
                try:
                    self.script(line, head)
                except OSError:
                    continue  # the client had enough


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def answering(data: bytes) -> Script:
    return lambda line, head: line.sendall(data)


def fetcher(*answers: Sequence[str]) -> Fetcher:
    """One that takes `HERE` for public, and gets these answers for names."""
    left = list(answers)
    return Fetcher(
        resolve=lambda host, port: left.pop(0) if left else [HERE], judge=lambda ip: ip == HERE
    )


def get(
    url: str, by: Fetcher | None = None, *, max_bytes: int = 1000, timeout_s: float = 5
) -> bytes:
    return (by or fetcher()).get(url, max_bytes=max_bytes, timeout_s=timeout_s).data


@pytest.mark.parametrize(
    "address",
    words("""127.0.0.1 127.9.9.9 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 198.18.0.1 0.0.0.0
    192.0.0.8 192.0.2.1 224.0.0.1 240.0.0.1 255.255.255.255 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
    fec0::1 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 2002:7f00:1:: 2002:a00:1::
    2001:0:4136:e378:8000:63bf:f5ff:fffe 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::808:808
    2a00:1450:4001::5efe:127.0.0.1 2a00:1450:4001:0:200:5efe:10.0.0.1 2606:4700::1%1 nonsense"""),
)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    words("""127.0.0.1 127.1 127.0.0.1. 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 [::1] [::ffff:127.0.0.1]
    [::ffff:7f00:1] [::] 0.0.0.0 0 localhost LOCALHOST localhost. ⓛocalhost １２７.0.0.1 127。0。0。1"""),
)
def test_no_spelling_of_loopback_reaches_it(server: Server, host: str) -> None:
    with pytest.raises(AddressRefused, match="^expected a public address on the web"):
        get(server.url(host), Fetcher())
    assert server.heads == []


@pytest.mark.parametrize(
    "answer",
    [
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["::1"],
        ["8.8.8.8", "10.0.0.7"],
        ["127.0.0.1", "8.8.8.8"],
        [],
    ],
)
def test_a_name_that_stands_for_a_private_address_is_refused(answer: list[str]) -> None:
    with pytest.raises(AddressRefused) as refused:
        get("http://10.0.0.7.nip.io/", Fetcher(resolve=lambda host, port: answer))
    assert "10.0.0" not in str(refused.value)


def test_a_name_that_stands_for_nothing_is_refused_in_the_same_words() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror

    with pytest.raises(AddressRefused, match="^expected a public address"):
        get("http://inner.corp/", Fetcher(resolve=resolve))


def test_a_name_is_asked_for_once(server: Server) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return [HERE if len(asked) == 1 else PRIVATE]

    judged = Fetcher(resolve=resolve, judge=lambda ip: ip == HERE)

    assert get(server.url("rebind.test"), judged) == b"hello"
    assert asked == ["rebind.test"]


def test_the_connected_socket_is_judged(server: Server) -> None:
    """A resolver that gives a name where a number belongs leads to another address than was judged."""
    by = Fetcher(resolve=lambda host, port: ["localhost"], judge=lambda ip: ip == "localhost")
    with pytest.raises(AddressRefused):
        get(server.url("x.test"), by)
    assert server.heads in ([], [b""])


@pytest.mark.parametrize(
    "url",
    [
        *words("""file:///etc/passwd data:text/plain,x ftp://example.com/ gopher://example.com/ //example.com/x example.com
    http:// http:///x http://user@example.com/ http://user:word@example.com/ http://@example.com/
    http://example.com:0/ http://example.com:65536/ http://example.com:x/ http://[::1 http://[::1%25lo]/
    http://[v1.x]/ http://%6cocalhost/ http://a..b/ http://.a/ http://exa$mple.com/ http://a\\@b/
    http://-x/ http://a;b/"""),
        "http://a b/",
        "http://a/\r\nX: y",
        "http://a/\x00",
        "http://a\t/",
        " http://a/",
        "http://" + "a" * 254 + "/",
        "http://a/" + "b" * 9000,
        "http://" + "é" * 70 + ".com/",
    ],
)
def test_what_is_no_address_on_the_web_is_refused(url: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("nothing is asked")

    with pytest.raises(AddressRefused):
        get(url, Fetcher(allow_private=True, resolve=resolve))


def test_a_host_and_a_path_may_be_of_any_script() -> None:
    target = read_target(
        "HTTPS://Müller.example:8443/Bäume und%20x?q=ü&r=%41#part".replace(" ", "%20")
    )

    assert target.host == "xn--mller-kva.example"
    assert target.name == "xn--mller-kva.example:8443"
    assert target.path == "/B%C3%A4ume%20und%20x?q=%C3%BC&r=%41"
    assert read_target("http://[2606:4700::1]/").name == "[2606:4700::1]"


def test_private_addresses_may_be_allowed(server: Server) -> None:
    assert get(server.url("localhost"), Fetcher(allow_private=True)) == b"hello"
    with pytest.raises(AddressRefused):
        get(server.url("user@localhost"), Fetcher(allow_private=True))


def test_a_file_comes_with_its_type(server: Server) -> None:
    found = fetcher().get(server.url("pictures.test"), max_bytes=5, accept="image/*")

    assert (found.data, found.content_type) == (b"hello", "image/png")
    head = server.heads[0].decode()
    assert head.startswith("GET /a.png HTTP/1.1\r\n")
    assert f"Host: pictures.test:{server.port}\r\n" in head
    assert "Accept: image/*\r\n" in head
    assert "authorization" not in head.lower()
    assert "cookie" not in head.lower()


def test_a_redirect_is_followed_and_judged(server: Server) -> None:
    inner = Server(PRIVATE)
    try:
        places = {
            b"/a.png": b"/b.png",
            b"/b.png": b"//other.test:%d/c.png" % server.port,
            b"/inner": b"http://inner.test:%d/" % inner.port,
            b"/file": b"file:///etc/passwd",
            b"/odd": b"http://[::1",
            b"/user": b"http://u:p@x.test/",
        }

        def script(line: socket.socket, head: bytes) -> None:
            place = places.get(head.split()[1])
            moved = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n"
            line.sendall(moved % place if place else OK + b"Content-Length: 2\r\n\r\nhi")

        server.script = script

        assert get(server.url("x.test")) == b"hi"
        for path in ("/inner", "/file", "/odd", "/user"):
            with pytest.raises(AddressRefused):
                get(server.url("x.test", path), fetcher([HERE], [PRIVATE]))
        assert inner.heads == []
    finally:
        inner.close()


def test_redirects_are_few(server: Server) -> None:
    server.script = answering(
        b"HTTP/1.1 302 Found\r\nLocation: /a.png\r\nContent-Length: 0\r\n\r\n"
    )
    with pytest.raises(Unreachable, match="redirects"):
        get(server.url())
    assert len(server.heads) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx", "status 206"),
        (b"SSH-2.0-OpenSSH_9\r\n", "got none"),
        (b"", "got none"),
        (OK + b"X: " + b"y" * 70000 + b"\r\n\r\n", "got none"),
        (OK + b"X: y\r\n" * 200 + b"\r\n", "got none"),
        (OK + b"Content-Length: 500\r\n\r\nhello", "broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "got none"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "got none"),
        (OK + b"Content-Encoding: br\r\n\r\nhello", "compressed"),
        (OK + b"Content-Encoding: gzip\r\n\r\nhello", "damaged"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello")[:-4], "broke off"),
    ],
)
def test_what_is_no_whole_file_is_refused(server: Server, data: bytes, problem: str) -> None:
    server.script = answering(data)
    with pytest.raises(Unreachable, match=problem):
        get(server.url())


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 5\r\n\r\nhello and more than was said",
        OK + b"\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello"),
        OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"hello"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
def test_a_file_comes_in_many_forms(server: Server, data: bytes) -> None:
    server.script = answering(data)
    assert get(server.url(), max_bytes=5) == b"hello"


def test_a_file_that_says_it_is_too_large_is_not_read(server: Server) -> None:
    server.script = answering(OK + b"Content-Length: 99999999999999999999999\r\n\r\n")
    with pytest.raises(TooLarge, match="at most 1000 bytes"):
        get(server.url())


def test_a_file_that_lies_about_its_size_is_cut(server: Server) -> None:
    for head in (b"\r\n", b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n"):
        server.script = answering(OK + head + b"x" * 2_000_000)
        with pytest.raises(TooLarge):
            get(server.url())


def test_a_compressed_bomb_is_not_unpacked(server: Server) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    server.script = answering(OK + b"Content-Encoding: gzip\r\n\r\n" + bomb)
    begun = time.monotonic()
    with pytest.raises(TooLarge):
        get(server.url(), max_bytes=1 << 20)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("head", [b"", OK, OK + b"Content-Length: 900\r\n\r\n", OK + b"X: "])
def test_a_line_that_drips_is_given_up(server: Server, head: bytes) -> None:
    def drip(line: socket.socket, _: bytes) -> None:
        line.sendall(head)
        for _ in range(50):
            line.sendall(b"x")
            time.sleep(0.02)

    server.script = drip
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="too long"):
        get(server.url(), timeout_s=0.2)
    assert time.monotonic() - begun < 0.5


def test_nobody_there_says_nothing_of_why(server: Server) -> None:
    with socket.create_server((HERE, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match="^expected an answer, got none$"):
        get(f"http://x.test:{port}/")
    with pytest.raises(Unreachable, match="^expected an answer, got none$"):
        get(server.url("x.test").replace("http:", "https:"))


def test_something_is_sent_and_no_redirect_followed(server: Server) -> None:
    server.script = answering(b"HTTP/1.1 307 Moved\r\nLocation: /b\r\n\r\n")

    status = fetcher().post(server.url("x.test"), b'{"a":1}', headers={"Content-Type": "a/b"})

    assert status == 307
    assert len(server.heads) == 1
    assert server.heads[0].startswith(b"POST /a.png HTTP/1.1\r\n")
    assert server.heads[0].endswith(b'\r\n\r\n{"a":1}')


def test_every_error_is_of_one_tree() -> None:
    assert all(issubclass(kind, FetchError) for kind in (AddressRefused, TooLarge, Unreachable))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://huggingface.co/x.safetensors", True),
        ("https://HuggingFace.co:443/x.safetensors", True),
        ("https://huggingface.co./x", True),
        ("https://cdn.weights.example/x", True),
        ("https://weights.example/x", False),
        ("https://evil-huggingface.co/x", False),
        ("https://huggingface.co.evil.example/x", False),
        ("https://huggingface.co@evil.example/x", False),
        ("file://huggingface.co/x", False),
        ("huggingface.co/x", False),
    ],
)
def test_weights_come_from_listed_hosts(url: str, allowed: bool) -> None:
    hosts = frozenset({"huggingface.co", ".weights.example"})
    assert DownloadPolicy(is_loopback=False, hosts=hosts).allows(url) is allowed


def test_on_loopback_weights_come_from_anywhere_on_the_web() -> None:
    policy = DownloadPolicy(is_loopback=True)
    assert policy.allows("https://anywhere.example/x")
    assert not policy.allows("file:///etc/passwd")
