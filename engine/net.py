"""The one way to addresses that a request names: public ones only, few redirects, so many bytes, so much time.

A name is asked for its addresses once, all of them are judged, and so is the socket once it is connected, so that a name
which answers otherwise the second time gains nothing. Messages never say what a name stands for. Ambient proxies are
not used. Knows nothing of pictures, weights or the wire.

    FetchError
    ├── AddressRefused   it is no address that may be fetched
    ├── TooLarge         it is more than was asked for
    └── Unreachable      nobody is there, it takes too long, breaks off, or is no answer with a file
"""

import contextlib
import io
import ipaddress
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

MAX_REDIRECTS = 5
MAX_URL = 8192
"""Longest address in characters."""
AGENT = "pochade"
_CHUNK = 1 << 18
_MOVED = (301, 302, 303, 307, 308)
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,252}")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_SAFE = "/%:@!$&'()*+,;=~-._?"
"""Characters of a path or a query that stay as they are; what is escaped already stays too."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
_SPECIAL = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
"""Not for anybody's servers; some versions of Python call parts of them global."""
_REFUSAL = "expected a public address on the web, http or https, without name and password"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Finds the addresses of a name: host and port to numbers in text."""


class FetchError(Exception):
    """Base: what was asked for did not come; `str(error)` is a phrase that may be shown to whoever asked."""


class AddressRefused(FetchError):
    """It is no address that may be fetched; nothing was sent."""


class TooLarge(FetchError):
    """It is more than was asked for."""


class Unreachable(FetchError):
    """Nobody is there, it takes too long, breaks off, or is no answer with a file."""


class NoFile(Unreachable):
    """The answer has another status than that of a file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"expected a file, got status {status}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A whole file."""

    data: bytes
    content_type: str
    """As the other side calls it, without parameters, in lower case; may be empty, may be a lie."""
    url: str
    """Where it was in the end."""


class Answer:
    """The beginning of an answer, whose body comes by and by."""

    def __init__(self, response: HTTPResponse, url: str) -> None:
        self.url = url
        self.status_code = response.status
        self.reason_phrase = response.reason
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response

    def iter_raw(self) -> Iterator[bytes]:
        """Read the body as it comes.

        Raises:
            Unreachable: it breaks off, or takes too long.
        """
        left = self._response.length
        while left is None or left > 0:
            chunk = self._read(_CHUNK if left is None else min(_CHUNK, left))
            if chunk:
                yield chunk
            elif left:
                raise Unreachable("expected the whole file, the line broke off")
            else:
                return
            if left is not None:
                left -= len(chunk)

    def _read(self, size: int) -> bytes:
        try:
            return self._response.read1(size)
        except (OSError, HTTPException, ValueError) as error:
            raise _unreachable(error) from error


class Fetcher:
    """Fetches what a request names. Safe to share between threads; keeps no connection."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolve: Resolve | None = None,
        judge: Callable[[str], bool] | None = None,
    ) -> None:
        """Set the rules.

        Args:
            allow_private: Whether addresses of this machine and its networks may be fetched too; the other rules stay.
            resolve: Finds the addresses of a name; None asks the system.
            judge: Whether an address, in numbers, may be connected to; None takes `is_public`.
        """
        self._resolve = resolve or system_addresses
        self._judge = (lambda _: True) if allow_private else (judge or is_public)

    def get(
        self, url: str, *, max_bytes: int, timeout_s: float = 30.0, accept: str = "*/*"
    ) -> Fetched:
        """Fetch a file whole; what is compressed on the way is unpacked, and counts unpacked.

        Args:
            url: Its address.
            max_bytes: Most bytes.
            timeout_s: Longest time in seconds, for everything together.
            accept: Media types that are asked for.

        Raises:
            FetchError: see the module.
        """
        until = time.monotonic() + timeout_s
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        with self.open(url, headers=headers, timeout_s=timeout_s, until=until) as answer:
            if answer.status_code != 200:
                raise NoFile(answer.status_code)
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            return Fetched(data=_body(answer, max_bytes), content_type=kind, url=answer.url)

    def post(
        self, url: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float = 15.0
    ) -> int:
        """Send something and return the status of the answer; a redirect is one and is not followed.

        Raises:
            FetchError: see the module.
        """
        until = time.monotonic() + timeout_s
        with self._asked("POST", url, body, headers, _Time(timeout_s, until)) as answer:
            return answer.status_code

    @contextlib.contextmanager
    def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float = 30.0,
        until: float | None = None,
    ) -> Iterator[Answer]:
        """Begin to fetch something that is too large for memory; redirects are followed, each is judged.

        Args:
            url: Its address.
            headers: Sent along, to every host.
            timeout_s: Longest silence in seconds, and longest time until the answer begins.
            until: End of everything, by the monotonic clock; None leaves the body as long as it needs.

        Raises:
            FetchError: see the module.
        """
        begun = time.monotonic() + timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            timer = _Time(timeout_s, begun if until is None else until)
            with self._asked("GET", url, None, headers, timer) as answer:
                place = answer.headers.get("location")
                if answer.status_code not in _MOVED or place is None:
                    timer.until = until
                    yield answer
                    return
            try:
                url = urljoin(answer.url, place)
            except ValueError as error:
                raise AddressRefused(_REFUSAL) from error
        raise Unreachable(f"expected at most {MAX_REDIRECTS} redirects, got more")

    @contextlib.contextmanager
    def _asked(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timer: "_Time"
    ) -> Iterator[Answer]:
        """Send one request and wait until its answer begins."""
        target = read_target(url)
        with contextlib.closing(self._connect(target, timer)) as wire:
            connection = HTTPConnection(target.host, target.port)
            connection.sock = wire  # all of a socket that a connection uses
            sent = {"Host": target.name, "User-Agent": AGENT, "Connection": "close", **headers}
            try:
                connection.request(method, target.path, body, sent)
                response = HTTPResponse(wire, method=method)  # type: ignore[arg-type]  # as above
                response.begin()
            except (OSError, HTTPException, ValueError) as error:
                raise _unreachable(error) from error
            with contextlib.closing(response):
                yield Answer(response, url)

    def _connect(self, target: "Target", timer: "_Time") -> "_Wire":
        try:
            addresses = list(self._resolve(target.host, target.port))
        except (OSError, UnicodeError) as error:
            raise AddressRefused(_REFUSAL) from error
        if not addresses or not all(map(self._judge, addresses)):
            raise AddressRefused(_REFUSAL)
        problem: OSError = TimeoutError()
        for address in addresses:
            try:
                return self._connect_to(address, target, timer)
            except OSError as error:
                problem = error
        raise _unreachable(problem)

    def _connect_to(self, address: str, target: "Target", timer: "_Time") -> "_Wire":
        line = socket.create_connection((address, target.port), timer.left())
        try:
            if not self._judge(line.getpeername()[0]):
                raise AddressRefused(_REFUSAL)
            line.settimeout(timer.left())
            if target.is_secure:
                line = _trust().wrap_socket(line, server_hostname=target.host)
            return _Wire(line, timer)
        except BaseException:
            line.close()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address, taken apart."""

    host: str
    port: int
    is_secure: bool
    path: str
    """Path and query, escaped."""

    @property
    def name(self) -> str:
        """The host as the ``Host`` header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.is_secure else 80
        return host if self.port == usual else f"{host}:{self.port}"


def read_target(url: str) -> Target:
    """Take an address apart; says nothing about where its name leads.

    Raises:
        AddressRefused: it is none of http or https, names a user, or is no address at all.
    """
    try:
        if len(url) > MAX_URL or _FORBIDDEN.search(url):
            raise ValueError(url)
        parts = urlsplit(url)
        port = parts.port
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or port == 0:
            raise ValueError(url)
        if "[" in parts.netloc and ":" not in (parts.hostname or ""):
            raise ValueError(url)  # an address of a kind that is still to come
        host, is_secure = _plain_host(parts.hostname or ""), parts.scheme == "https"
    except ValueError as error:  # UnicodeError is one too
        raise AddressRefused(_REFUSAL) from error
    query = f"?{quote(parts.query, _SAFE)}" if parts.query else ""
    return Target(
        host=host,
        port=port or (443 if is_secure else 80),
        is_secure=is_secure,
        path=quote(parts.path or "/", _SAFE) + query,
    )


def is_public(address: str) -> bool:
    """Whether an address, in numbers, is on the public net, and so is every one that is wrapped in it."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(number, ipaddress.IPv6Address):
        if number.scope_id is not None:
            return False
        if number in _NAT64:
            return _is_public(_last_four(number))
    return _is_public(number) and all(map(_is_public, _wrapped(number)))


def system_addresses(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a name.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadPolicy:
    """From where weights may come that a request names by their address (design D11)."""

    is_loopback: bool
    """Whether only this machine's people reach the studio; they may fetch from anywhere."""
    hosts: frozenset[str] = frozenset()
    """Hosts that everybody may fetch from; one that starts with a dot stands for all names below it."""

    def allows(self, url: str) -> bool:
        """Whether an address may be fetched from; where it leads, the fetcher judges."""
        try:
            host = read_target(url).host.rstrip(".")
        except AddressRefused:
            return False
        below = any(name.startswith(".") and host.endswith(name) for name in self.hosts)
        return self.is_loopback or host in self.hosts or below


class _Time:
    """How long the other side may still take."""

    def __init__(self, silence_s: float, until: float | None) -> None:
        self.until = until
        self._silence_s = silence_s

    def left(self) -> float:
        """Say how many seconds the next step may take.

        Raises:
            TimeoutError: none is left.
        """
        if self.until is None:
            return self._silence_s
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, self._silence_s)


class _Wire(io.RawIOBase):
    """A connected socket as `HTTPConnection` uses one, that waits no longer than its timer allows."""

    def __init__(self, line: socket.socket, timer: _Time) -> None:
        self._line = line
        self._timer = timer

    def sendall(self, data: Any) -> None:
        self._line.settimeout(self._timer.left())
        self._line.sendall(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.settimeout(self._timer.left())
        return self._line.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        self._line.close()
        super().close()


def _body(answer: Answer, max_bytes: int) -> bytes:
    problem = f"expected at most {max_bytes} bytes, got more"
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise TooLarge(problem)
    data = bytearray()
    for chunk in _unpacked(answer):
        data += chunk
        if len(data) > max_bytes:
            raise TooLarge(problem)
    return bytes(data)


def _unpacked(answer: Answer) -> Iterator[bytes]:
    """Unpack a body piece by piece, none of them large."""
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from answer.iter_raw()
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Unreachable("expected a file that is not compressed, got one that is")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for chunk in answer.iter_raw():
        while chunk:
            try:
                yield unpacker.decompress(chunk, _CHUNK)
            except zlib.error as error:
                raise Unreachable("expected the whole file, got damaged bytes") from error
            chunk = unpacker.unconsumed_tail
    if not unpacker.eof:
        raise Unreachable("expected the whole file, the line broke off")


def _unreachable(error: Exception) -> Unreachable:
    """Say that nothing came, and not why: that would tell what listens where."""
    is_slow = isinstance(error, TimeoutError)
    return Unreachable(f"expected an answer, {'it took too long' if is_slow else 'got none'}")


def _plain_host(host: str) -> str:
    """Write a host in ASCII.

    Raises:
        ValueError: it is none.
    """
    if ":" in host and "%" not in host:
        return str(ipaddress.IPv6Address(host))
    if not host or len(host) > 253:
        raise ValueError(host)
    name = host.encode("idna").decode("ascii").lower()
    if not _NAME.fullmatch(name):
        raise ValueError(host)
    return name


def _is_public(number: Address) -> bool:
    is_special = (
        any(number in network for network in _SPECIAL)
        or number.is_multicast
        or number.is_reserved
        or number.is_unspecified
        or number.is_loopback
        or number.is_link_local
    )
    is_site = isinstance(number, ipaddress.IPv6Address) and number.is_site_local
    return number.is_global and not is_special and not is_site


def _wrapped(number: Address) -> list[Address]:
    """List the addresses that another one leads to by way of a tunnel."""
    if isinstance(number, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [number.ipv4_mapped, number.sixtofour, *(number.teredo or ())]
    if int(number) >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(_last_four(number))
    return [item for item in found if item is not None]


def _last_four(number: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
