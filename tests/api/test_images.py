"""Images come from our files, the web or a data URI, and only whole ones of a bounded size get through."""

import base64
import io
import resource
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from api.images import ENDINGS, InputRefused, check_image, load_image
from api.limits import Limits
from api.settings import Api
from engine.net import Fetcher
from tests.api.storage_app import storage_api

FIELD = "uov_image_url"


def picture(
    kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (9, 5), **how: Any
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **how)
    return file.getvalue()


def noise(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((120, 90), 90).convert("RGB").save(file, kind)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 1, data: bytes = b"") -> bytes:
    """A PNG of any size, with the chunks between its head and its pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    blocks = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(blocks) + packer.flush()


def refusal(data: bytes, **limits: int) -> InputRefused:
    with pytest.raises(InputRefused) as refused:
        check_image(data, FIELD, Limits(**limits))  # type: ignore[arg-type]
    assert refused.value.field == FIELD
    return refused.value


class Web(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        data = picture() if self.path == "/a" else b"\x89PNG\r\n\x1a\n" + b"x" * 5000
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return storage_api(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_data_uri_is_read_whatever_it_claims(api: Api, kind: str) -> None:
    data = picture(kind)
    text = base64.b64encode(data).decode()
    for uri in (
        f"data:image/png;base64,{text}",
        f"DATA:;BASE64,{text[:20]}\n {text[20:]}",
        f"data:text/html;charset=x;base64,{quote(text)}",
        f"data:,{quote(data)}",
    ):
        assert load_image(uri, FIELD, api) == data


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64", "data:;base64,!!!", "data:;base64,ä", "data:"]
)
def test_a_damaged_data_uri_is_refused(api: Api, uri: str) -> None:
    with pytest.raises(InputRefused) as refused:
        load_image(uri, FIELD, api)
    assert refused.value.type == "image_load_error"


def test_a_data_uri_is_measured_before_it_is_decoded(tmp_path: Path) -> None:
    api = storage_api(tmp_path, Limits(image_bytes=1000))
    for uri in (
        "data:;base64," + "A" * 2000,
        "data:;base64," + "!" * 10_000,
        "data:," + "x" * 4000,
    ):
        with pytest.raises(InputRefused) as refused:
            load_image(uri, FIELD, api)
        assert refused.value.type == "file_too_large"
        assert refused.value.ctx == {"max_size": 1000}


def test_our_own_files_are_read_without_the_network(api: Api) -> None:
    data = picture()
    stored = api.files.put(data, content_type="text/plain", owner="ada")
    for base in ("http://127.0.0.1:1/cdn", "https://v3.fal.media"):
        assert load_image(api.files.address(stored, base), FIELD, api) == data

    stored.path.unlink()
    with pytest.raises(InputRefused, match="still there"):
        load_image(api.files.address(stored, "http://127.0.0.1:1/cdn"), FIELD, api)


def test_the_web_is_asked_through_the_guard(web: str, tmp_path: Path, api: Api) -> None:
    open_api = storage_api(tmp_path / "open", Limits(image_bytes=3000))
    open_api = Api(
        **{
            name: getattr(open_api, name)
            for name in ("jobs", "library", "start", "files", "keys", "limits")
        },
        fetcher=Fetcher(allow_private=True),
    )
    assert load_image(f"{web}/a", FIELD, open_api) == picture()

    for url, by, kind in [
        (f"{web}/a", api, "file_download_error"),
        (f"{web}/none", open_api, "file_download_error"),
        (f"{web}/large", open_api, "file_too_large"),
        (f"{web}/large", storage_api(tmp_path / "other"), "file_download_error"),
        ("http://169.254.169.254/latest/meta-data/", api, "file_download_error"),
        ("file:///etc/passwd", open_api, "file_download_error"),
        ("/etc/passwd", open_api, "file_download_error"),
        ("", open_api, "file_download_error"),
    ]:
        with pytest.raises(InputRefused) as refused:
            load_image(url, FIELD, by)
        assert refused.value.type == kind
        assert refused.value.field == FIELD
        assert "127.0.0.1" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"II*\x00" + b"\x00" * 100,
        b"RIFF\x00\x00\x00\x00WAVE",
        b"\x00\x00\x00\x20ftypavif" + b"\x00" * 100,
        b"%!PS-Adobe-3.0 EPSF-3.0",
    ],
)
def test_other_files_are_no_images(data: bytes) -> None:
    refused = refusal(data)
    assert refused.type == "unsupported_image_format"
    assert refused.ctx == {"supported_formats": list(ENDINGS)}


@pytest.mark.parametrize(
    "data",
    [
        picture("PNG", "RGBA"),
        picture("PNG", "I;16"),
        picture("PNG", "1"),
        picture("PNG", "P"),
        picture("JPEG", "CMYK"),
        picture("JPEG", "L"),
        picture("JPEG", progressive=True),
        picture("PNG", save_all=True, append_images=[Image.new("RGB", (9, 5), "red")] * 3),
        picture("GIF", save_all=True, append_images=[Image.new("RGB", (9, 5), "red")] * 3),
        picture("WEBP", save_all=True, append_images=[Image.new("RGB", (9, 5), "red")] * 3),
    ],
)
def test_images_of_many_kinds_pass(data: bytes) -> None:
    check_image(data, FIELD, Limits())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_cut_image_is_refused_wherever_it_is_cut(kind: str) -> None:
    data = noise(kind)
    for end in range(12, len(data) - 200, 1024):
        assert refusal(data[:end]).type == "image_load_error"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(13_300, 13_300), "image_too_large"),
        (png(30_000, 30_000), "image_too_large"),
        (png(9000, 9000), "image_too_large"),
        (png(65_535, 1), "image_too_large"),
        (png(2**31 - 1, 2**31 - 1), "image_too_large"),
        (b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0" * 50, None),
        (png(0, 5), "image_load_error"),
        (png(8, 8), "image_load_error"),
        (png(8, 8, data=b"nonsense"), "image_load_error"),
        (png(8, 8, chunk(b"iCCP", b"x\0\0" + bomb(64 << 20))), "image_load_error"),
        (png(8, 8, chunk(b"zTXt", b"x\0\0" + bomb(64 << 20))), "image_load_error"),
        (png(8, 8, chunk(b"iTXt", b"x\0\1\0\0\0" + bomb(64 << 20))), "image_load_error"),
        (b"BM" + b"\xff" * 200, None),
    ],
)
def test_bombs_are_refused_fast_and_in_little_memory(data: bytes, kind: str | None) -> None:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()

    refused = refusal(data)

    assert kind is None or refused.type == kind
    assert refused.type in ("image_too_large", "image_load_error", "image_too_small")
    assert time.monotonic() - begun < 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # KiB


def test_pixels_and_bytes_are_bounded() -> None:
    data = picture(size=(30, 30))
    check_image(data, FIELD, Limits(image_pixels=900, image_side=30, image_bytes=len(data)))
    too_large = refusal(data, image_pixels=899)
    assert (too_large.type, too_large.ctx) == (
        "image_too_large",
        {"max_width": 16_384, "max_height": 16_384},
    )
    assert refusal(data, image_side=29).type == "image_too_large"
    assert refusal(data, image_bytes=len(data) - 1).type == "file_too_large"
