"""Pictures that visitors bring: judged by their bytes, known to nobody else, gone when they are old; and what names them."""

import io
import json
import os
import struct
import zlib

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from engine import InvalidRequest
from tests.ui.studios import OWNER_HEADER
from ui.image_input import KEPT_S, MAX_BYTES, Uploads
from ui.sketcher import IMAGE_FIELD, MASK_FIELD, read_sketch, write_sketch

STRANGER = {OWNER_HEADER: "stranger"}


def picture(
    kind: str = "PNG",
    mode: str = "RGB",
    size: tuple[int, int] = (30, 20),
    turn: int | None = None,
    colour: int = 0,
) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    Image.new(mode, size, colour).save(file, kind, **({} if turn is None else {"exif": exif}))
    return file.getvalue()


def claims(width: int, height: int) -> bytes:
    """A PNG whose head says a size that its few bytes do not have."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0")))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "uploads")


@pytest.fixture
def visitor(studio, uploads):
    studio.uploads = uploads
    with TestClient(Starlette(routes=ui.routes(studio))) as client:
        yield client


def send(client, data: bytes, **headers):
    return client.post("/studio/inputs", content=data, headers=headers)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (picture("PNG"), (30, 20)),
        (picture("PNG", "I;16"), (30, 20)),
        (picture("PNG", "RGBA"), (30, 20)),
        (picture("PNG", "1", (1, 1)), (1, 1)),
        (picture("JPEG", "CMYK"), (30, 20)),
        (picture("JPEG", turn=6), (20, 30)),
        (picture("PNG", turn=8), (20, 30)),
        (picture("WEBP", turn=3), (30, 20)),
        (picture("GIF", "P"), (30, 20)),
        (picture("BMP"), (30, 20)),
    ],
)
def test_a_picture_is_kept_as_it_is_and_measured_upright(visitor, data, size):
    told = send(visitor, data).json()
    assert (told["width"], told["height"]) == size
    answer = visitor.get(f"/studio/inputs/{told['name']}")
    assert answer.content == data
    assert answer.headers["content-type"].startswith("image/")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert visitor.head(f"/studio/inputs/{told['name']}").status_code == 200


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "picture: expected a PNG, JPEG, WebP, GIF or BMP file that can be read"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "picture: expected a PNG, JPEG, WebP, GIF or BMP file that can be read",
        ),
        (
            picture("TIFF"),
            "picture: expected a PNG, JPEG, WebP, GIF or BMP file that can be read",
        ),
        (
            claims(8000, 8000),
            "picture: expected at most 50 megapixels and 16384 pixels a side, got 8000x8000",
        ),
        (
            claims(20_000, 10),
            "picture: expected at most 50 megapixels and 16384 pixels a side, got 20000x10",
        ),
        (
            claims(60_000, 60_000),
            "picture: expected at most 50 megapixels and 16384 pixels a side, got a larger one",
        ),
        (bytes(MAX_BYTES + 1), f"picture: expected at most {MAX_BYTES} bytes"),
    ],
    ids=["nothing", "SVG", "TIFF", "64 MP", "too long", "a bomb", "too many bytes"],
)
def test_what_is_no_picture_is_refused_with_the_reason(visitor, uploads, data, problem):
    answer = send(visitor, data)
    assert answer.status_code == 422
    assert answer.json() == {"detail": problem}


def test_a_studio_without_a_place_for_pictures_takes_none(client):
    assert send(client, picture()).status_code == 422


def test_a_picture_is_unknown_to_others_and_under_other_names(visitor):
    name = send(visitor, picture()).json()["name"]
    assert visitor.get(f"/studio/inputs/{name}", headers=STRANGER).status_code == 404
    for other in ("0" * 64, "..", "%2e%2e%2fconftest.py", name.upper()):
        assert visitor.get(f"/studio/inputs/{other}").status_code == 404


def test_what_is_old_goes_and_what_is_used_stays(uploads):
    old, used = (uploads.save(picture(colour=it), "me") for it in (1, 2))
    for upload in (old, used):
        os.utime(upload.path, (0, 0))
    uploads.find(used.name, "me")
    os.utime(old.path, (old.path.stat().st_mtime - KEPT_S,) * 2)
    uploads.save(picture(colour=3), "me")
    assert not old.path.exists()
    assert used.path.exists()


def test_what_is_old_goes_also_of_those_who_never_come_again(tmp_path):
    gone = Uploads(tmp_path).save(picture(colour=1), "a browser of last year")
    new = Uploads(tmp_path).save(picture(colour=2), "another")
    assert gone.path.exists()
    os.utime(gone.path, (gone.path.stat().st_mtime - 2 * KEPT_S,) * 2)
    Uploads(tmp_path).save(picture(colour=3), "somebody else")
    assert [it.path.exists() for it in (gone, new)] == [False, True]


def test_room_is_made_for_what_is_new(tmp_path):
    files = [picture(colour=it) for it in (1, 2, 3)]
    uploads = Uploads(tmp_path, most=sum(map(len, files)) - 1)
    first, second = (uploads.save(it, "me") for it in files[:2])
    os.utime(second.path, (second.path.stat().st_mtime - 60,) * 2)
    others = uploads.save(files[0], "somebody else")
    third = uploads.save(files[2], "me")
    kept = [it.path.exists() for it in (first, second, others, third)]
    assert kept == [True, False, True, True]


def test_a_value_names_the_files(uploads):
    image, mask = uploads.save(picture(), "me"), uploads.save(picture(mode="1"), "me")
    both = read_sketch(write_sketch(image, mask), uploads, "me")
    assert both.paths() == {IMAGE_FIELD: image.path, MASK_FIELD: mask.path}
    alone = read_sketch(json.dumps({"image": image.name, "mask": None}), uploads, "me")
    assert alone.paths() == {IMAGE_FIELD: image.path}
    assert read_sketch("", uploads, "me") is None
    assert read_sketch(None, uploads, "me") is None


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("nonsense", IMAGE_FIELD),
        ("[" * 100_000, IMAGE_FIELD),
        ('"text"', IMAGE_FIELD),
        ({"image": "it"}, IMAGE_FIELD),
        ("{}", IMAGE_FIELD),
        ('{"image": "../../secret"}', IMAGE_FIELD),
        ('{"image": "IMAGE", "mask": 7}', MASK_FIELD),
        (f'{{"image": "IMAGE", "mask": "{"0" * 64}"}}', MASK_FIELD),
    ],
)
def test_a_wrong_value_is_an_error_on_its_field(uploads, value, field):
    name = uploads.save(picture(), "me").name
    given = value.replace("IMAGE", name) if isinstance(value, str) else value
    with pytest.raises(InvalidRequest) as caught:
        read_sketch(given, uploads, "me")
    assert caught.value.field == field


def test_another_visitors_picture_cannot_be_named(uploads):
    value = write_sketch(uploads.save(picture(), "me"))
    with pytest.raises(
        InvalidRequest,
        match="^inpaint_image_url: expected a picture that is still here; choose it again$",
    ):
        read_sketch(value, uploads, "somebody else")
