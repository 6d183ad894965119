"""Settings come out of files and texts of every kind, without a pixel being decoded, and what is not here is told."""

import dataclasses
import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from engine import InvalidRequest, TextRequest, plan, plan_to_json
from engine.stages.metadata import encode_image
from tests.ui.studios import LORAS, OWN
from ui.dropped import read_pasted, read_picture

GOLDEN = Path(__file__).parent.parent / "golden" / "metadata"
INK = LORAS[0].name
REQUEST = TextRequest(
    prompt="a star\nof many lines",
    negative_prompt="fog",
    styles=("SAI Anime",),
    loras=({"path": INK, "scale": -0.5},),
    performance="Quality",
    seed=2**60,
    num_images=1,
    advanced={"clip_skip": 4, "freeu": {"s1": 0.7}},
)


def file_of(library, output_format="png", **advanced) -> bytes:
    """A picture of `REQUEST`, as the engine writes it."""
    more = REQUEST.advanced.model_copy(update=advanced)
    request = REQUEST.model_copy(update={"output_format": output_format, "advanced": more})
    return encode_image(Image.new("RGB", (16, 16)), plan(request, library, seed=0), 0)


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def test_a_picture_of_the_lora_studio_keeps_the_base_model_that_is_fetched(library):
    may = dataclasses.replace(library, may_fetch=lambda _url: True)
    advanced = {"base_model": "someone/model"}
    request = TextRequest(prompt="x", studio={"eta": 0.5}, advanced=advanced)
    file = encode_image(Image.new("RGB", (16, 16)), plan(request, may, seed=0), 0)
    found = read_picture(file, may)
    assert (found.fields["studio.eta"], found.notes) == (0.5, ())
    assert found.fields["advanced.base_model"] == "someone/model"
    refused = read_picture(file, library)
    assert "advanced.base_model" not in refused.fields
    assert refused.notes == ("someone/model is not installed and was left out",)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_of_our_own_gives_all_of_its_settings(library, output_format):
    found = read_picture(file_of(library, output_format), library)
    assert found.kind == "pochade"
    assert found.notes == ()
    assert found.fields["prompt"] == REQUEST.prompt
    assert found.fields["seed"] == 2**60
    assert found.fields["loras"] == [{"path": INK, "scale": -0.5}]
    assert found.fields["advanced.clip_skip"] == 4
    assert found.fields["advanced.freeu.s1"] == 0.7


@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_forms_of_other_programs_are_read_too(library, scheme, output_format):
    data = file_of(library, output_format, metadata_scheme=scheme)
    found = read_picture(data, library)
    assert found.kind == scheme
    assert found.fields["performance"] == "Quality"
    assert found.fields["styles"] == ("SAI Anime",)
    assert found.fields["loras"] == [{"path": INK, "scale": -0.5}]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.*g")) + sorted(GOLDEN.glob("*.webp")))
def test_files_of_fooocus_are_read(library, path):
    found = read_picture(path.read_bytes(), library)
    assert found.kind == ("fooocus" if "fooocus" in path.name else "a1111")
    assert found.fields["prompt"]


def test_what_is_not_installed_is_left_out_and_told(library):
    made = plan(REQUEST, library, seed=0)
    more = made.request.advanced.model_copy(
        update={"base_model": "gone.safetensors", "vae": "gone_vae"}
    )
    request = made.request.model_copy(
        update={
            "advanced": more,
            "styles": ("No Such Style", "SAI Anime"),
            "loras": (
                *made.request.loras,
                made.request.loras[0].model_copy(update={"path": "lost"}),
            ),
        }
    )
    found = read_pasted(plan_to_json(dataclasses.replace(made, request=request)), library)
    assert {"advanced.base_model", "advanced.vae"}.isdisjoint(found.fields)
    assert found.fields["styles"] == ["SAI Anime"]
    assert [it["path"] for it in found.fields["loras"]] == [INK]
    for name in ("gone.safetensors", "gone_vae", "No Such Style", "lost"):
        assert f"{name} is not installed and was left out" in found.notes


def test_texts_after_the_pixels_are_found_and_no_pixel_is_decoded(library):
    record = json.dumps({"prompt": "after", "seed": "3"}).encode()
    file = b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 6, 0, 0, 0)),
            chunk(b"IDAT", b"this is no picture at all"),
            chunk(b"tEXt", b"parameters\0" + record),
            chunk(b"IEND", b""),
        ]
    )
    found = read_picture(file, library)
    assert found.fields["prompt"] == "after"


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(library):
    data = file_of(library)
    assert read_picture(data[:-40], library).fields["prompt"] == REQUEST.prompt


def test_a_picture_without_settings_has_none(library):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    assert read_picture(file.getvalue(), library) is None


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff", b"RIFF1234WEBP", b"<svg/>"])
def test_what_is_no_picture_is_refused(library, data):
    with pytest.raises(InvalidRequest, match=r"^picture: expected a PNG, JPEG or WebP file that"):
        read_picture(data, library)


@pytest.mark.parametrize("text", ["", "a red star", "{not json", '{"a": 1}', "Steps: many"])
def test_an_ordinary_text_is_none(library, text):
    assert read_pasted(text, library) is None


def test_a_plan_of_another_version_is_a_sentence(library):
    values = json.loads(plan_to_json(plan(REQUEST, library, seed=0)))
    del values["guidance"]
    with pytest.raises(
        InvalidRequest, match=r"^picture: its settings were written by a version that this one"
    ):
        read_pasted(json.dumps(values), library)


def test_a_pasted_text_of_a1111_is_read(library):
    text = (
        "a lighthouse\nNegative prompt: fog\n"
        f"Steps: 20, Sampler: Euler a, CFG scale: 6, Seed: 12, Size: 512x768, Model: {OWN.name}"
    )
    found = read_pasted(text, library)
    assert found.kind == "a1111"
    assert found.fields["negative_prompt"] == "fog"
    assert found.fields["advanced.sampler"] == "euler_ancestral"
    assert found.fields["advanced.base_model"] == OWN.name
    assert found.fields["aspect_ratio"] == "512x768"
