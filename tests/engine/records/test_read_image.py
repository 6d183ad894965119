"""Records are found where each program puts them, and a prompt or a photograph is never taken for one."""

import io
import json
import logging
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.errors import InvalidRequest
from engine.records import a1111, fooocus
from engine.records.detect import detect
from engine.records.read_image import Found, embed, read_text
from tests.engine.records.sample import full_record

TEXT = "a cat: 日本\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 512x512"
PLAN = json.dumps({"images": [], "sampling": {}, "base_model": "pocket", "prompt": "日本"})


def saved(form: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, form, **options)
    return Image.open(buffer)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    ("scheme", "text"),
    [("pochade", PLAN), ("fooocus", fooocus.write(full_record())), ("a1111", TEXT)],
)
def test_every_form_comes_back_from_every_format(form: Any, scheme: Any, text: str) -> None:
    image = saved(form, **embed(text, scheme, form, "Pochade 1"))

    assert read_text(image) == Found(scheme, text)


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le", "utf-16"])
def test_a_comment_of_a1111_is_read_in_any_byte_order(order: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + TEXT.encode(order)

    assert read_text(saved("jpeg", exif=exif)) == Found("a1111", TEXT)


@pytest.mark.parametrize(
    ("prefix", "encoding"),
    [
        (b"ASCII\0\0\0", "utf-8"),
        (b"\0" * 8, "utf-8"),
        (b"", "utf-8"),
        (b"JIS\0\0\0\0\0", "iso2022_jp"),
    ],
)
def test_a_comment_says_its_encoding(prefix: bytes, encoding: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = prefix + TEXT.encode(encoding)

    assert read_text(saved("webp", exif=exif)) == Found("a1111", TEXT)


def test_a_png_without_a_scheme_is_told_by_its_text() -> None:
    for text, kind in (('{"prompt": "x"}', "fooocus"), (TEXT, "a1111"), ("only words", "a1111")):
        info = PngInfo()
        info.add_text("parameters", text)
        assert read_text(saved("png", pnginfo=info)) == Found(kind, text)  # type: ignore[arg-type]


def test_a_photograph_has_no_record() -> None:
    exif = Image.Exif()
    exif[0x927C] = b"\x01\x02camera"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0Holiday, day 3: the beach"

    assert read_text(saved("jpeg", exif=exif)) is None
    assert read_text(saved("png")) is None


@pytest.mark.parametrize(
    ("key", "text", "program"),
    [
        ("workflow", "{}", "ComfyUI"),
        ("prompt", '{"3": {"class_type": "KSampler", "inputs": {}}}', "ComfyUI"),
        ("invokeai_metadata", "{}", "InvokeAI"),
        ("Software", "NovelAI", "NovelAI"),
    ],
)
def test_other_programs_are_named(key: str, text: str, program: str) -> None:
    info = PngInfo()
    info.add_text(key, text)
    expected = (
        f"^metadata: expected settings of Fooocus, A1111 or Pochade, got a file of {program}$"
    )

    with pytest.raises(InvalidRequest, match=expected):
        read_text(saved("png", pnginfo=info))


def test_a_record_too_long_for_exif_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        options = embed("x" * 70_000, "a1111", "jpeg", "Pochade 1")

    assert "the prompt is too long to go into the file" in caplog.text
    assert read_text(saved("jpeg", **options)) is None


def test_a_record_too_long_for_two_copies_has_one() -> None:
    text = TEXT.replace("a cat: 日本", "a cat " * 6_000)

    assert read_text(saved("jpeg", **embed(text, "a1111", "jpeg", "x"))) == Found("a1111", text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (PLAN, "pochade"),
        ('{"Prompt": "x"}', "fooocus"),
        (f"  {fooocus.write(full_record())}\n", "fooocus"),
        (a1111.write(full_record()), "a1111"),
        (a1111.write(full_record(), compat="fooocus"), "a1111"),
        (TEXT, "a1111"),
        ("", None),
        ("a cat", None),
        ("a cat\nNegative prompt: rain", None),
        ("Steps: 3, a path in the garden", None),
        ("a poster that says\nSteps: 20, more to come", None),
        ("{red|blue} car, {prompt}", None),
        ('{"colour": "red"}', None),
        ("[1, 2]", None),
        ('{"prompt": ' + "[" * 100 + "]" * 100 + "}", None),
        ("Sampler: Euler a, Seed: 5, Size: 3x4", None),
    ],
)
def test_a_prompt_is_never_taken_for_a_record(text: str, kind: str | None) -> None:
    assert detect(text) == kind
