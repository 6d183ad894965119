"""Records read and write as Fooocus' own functions do, but for the differences decided in `DECIDED`."""

import ast
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from engine.geometry import Size
from engine.prompt.styles import Style
from engine.records import a1111, fooocus
from engine.records.file_names import file_name
from engine.records.names import resolver
from engine.records.read_image import embed, read_text
from engine.records.record import ADAPTIVE_CFG, OWN_VAE, Record, log_rows
from engine.records.samplers import DISPLAY
from engine.records.to_request import request_from
from tests.golden_data import golden_folder, golden_json

DATA = golden_json("metadata/metadata.json")
SCHEMES = ("fooocus", "a1111")
SETS = [(name, scheme) for name in DATA.get("sets", ()) for scheme in SCHEMES]
STYLES = {
    name: Style(name=name, prompt=texts[0], negative_prompt=texts[1])
    for name, texts in DATA.get("styles", {}).items()
}
RESOLVE = resolver(
    {
        "checkpoint": DATA.get("model_files", ()),
        "lora": DATA.get("lora_files", ()),
        "vae": DATA.get("vae_files", ()),
    }
)
UNCHANGED: Any = {"update": {}}
READ = {"fooocus": fooocus.read, "a1111": lambda text, find: a1111.read(text, find, STYLES)}

DECIDED = {
    "vae": "Q28: 'Default (model)' is a choice of its own, not a file that is missing",
    "sampler": "of two samplers with one display name the one on the device is meant, Fooocus' usual one",
    "scheduler": "A1111's texts tell the schedule with the sampler; without a word it is the plain one",
    "styles": "Q27: templates that stand in the text are found, over several lines too",
    "prompt": "Q27: without a raw prompt the prompt is the text",
    "refiner": "a whole record without a refiner was made without one",
    "overwrite switch": "a whole record without it was made without one",
    "swap method": "a whole record without it was made with 'joint'",
    "adaptive cfg": "a whole record without it was made with the usual value",
    "clip skip": "a whole record without it was made with 1",
    "aspect label": "latents have sides of multiples of 8, and so the picture",
    "overwrite width": "likewise",
    "overwrite height": "likewise",
    "nothing": "an empty record changes nothing",
}
"""What we do differently, and why. Every other value is Fooocus'."""


def record_of(name: str, scheme: str) -> Record:
    """Make our record of what the original logged; its texts are compared with what we write from it."""
    case = DATA["sets"][name]
    row = {key: value for _, key, value in case[scheme]["log_rows"]}
    full = json.loads(case["fooocus"]["text"])
    loras = [
        row[f"lora_combined_{i}"].split(" : ") for i in range(1, 33) if f"lora_combined_{i}" in row
    ]
    return Record(
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        expansion=row["prompt_expansion"],
        styles=tuple(ast.literal_eval(row["styles"])),
        performance=row["performance"],
        steps=row["steps"],
        size=Size(*ast.literal_eval(row["resolution"])),
        guidance_scale=row["guidance_scale"],
        sharpness=row["sharpness"],
        adm=ast.literal_eval(row["adm_guidance"]),
        base_model=row["base_model"],
        refiner_model=None if row["refiner_model"] == "None" else row["refiner_model"],
        refiner_switch=row["refiner_switch"],
        overwrite_switch=row.get("overwrite_switch"),
        refiner_swap_method=row.get("refiner_swap_method", "joint"),
        adaptive_cfg=row.get("adaptive_cfg", DATA["default_adaptive_cfg"]),
        usual_adaptive_cfg=DATA["default_adaptive_cfg"],
        clip_skip=row.get("clip_skip", 1),
        sampler=row["sampler"],
        scheduler=row["scheduler"],
        vae=None if row["vae"] == OWN_VAE else row["vae"],
        seed=int(row["seed"]),
        freeu=ast.literal_eval(row["freeu"]) if "freeu" in row else None,
        loras=tuple((file, ast.literal_eval(weight)) for file, weight in loras),
        full_prompt=tuple(full["full_prompt"]),
        full_negative_prompt=tuple(full["full_negative_prompt"]),
        hashes=DATA["hashes"],
        metadata_scheme=row["metadata_scheme"] or None,
        created_by=case["created_by"],
        version=row["version"],
    )


def write(name: str, scheme: str) -> str:
    record = record_of(name, scheme)
    return fooocus.write(record) if scheme == "fooocus" else a1111.write(record, compat="fooocus")


@pytest.mark.parametrize(("name", "scheme"), SETS)
def test_golden_log_rows_are_the_same(name: str, scheme: str) -> None:
    expected = [tuple(row) for row in DATA["sets"][name][scheme]["log_rows"]]

    assert log_rows(record_of(name, scheme)) == expected


@pytest.mark.parametrize(("name", "scheme"), SETS)
def test_golden_texts_are_written_to_the_letter(name: str, scheme: str) -> None:
    assert write(name, scheme) == DATA["sets"][name][scheme]["text"]


@pytest.mark.parametrize(("name", "scheme"), SETS)
def test_golden_texts_are_read_back(name: str, scheme: str) -> None:
    case = DATA["sets"][name]
    theirs = case[scheme]["parsed_back"]
    ours = READ[scheme](case[scheme]["text"], RESOLVE)

    different = {key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key)}
    assert different <= DECIDED.keys()
    if "vae" in different:
        assert (theirs["vae"], ours["vae"]) == (None, OWN_VAE)
    if "sampler" in different:
        assert DISPLAY[ours["sampler"]] == DISPLAY[theirs["sampler"]]
    if "styles" in different:
        assert ours["styles"] == case["fooocus"]["parsed_back"]["styles"]


@pytest.mark.parametrize("case", DATA.get("odd_a1111", []), ids=lambda case: case["text"][:20])
def test_golden_odd_texts_are_read(case: dict[str, Any]) -> None:
    ours, theirs = READ["a1111"](case["text"], RESOLVE), case["parsed"]

    different = {key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key)}
    assert different <= {"prompt", "sampler", "scheduler", "styles"}
    assert ours["prompt"] != ""
    assert case["text"].startswith(ours["prompt"])
    assert "styles" not in ours  # they are not known, which is not the same as none


def ui_cases() -> Iterator[Any]:
    for name, scheme in SETS:
        case = DATA["sets"][name][scheme]
        yield pytest.param(
            READ[scheme](case["text"], RESOLVE), case["ui_values"], name, id=f"{name}-{scheme}"
        )
    for number, case in enumerate(DATA.get("ui_from_dict", ())):
        yield pytest.param(case["input"], case["ui_values"], None, id=f"dict-{number}")


@pytest.mark.parametrize(("values", "expected", "name"), list(ui_cases()))
def test_golden_settings_fill_the_form_alike(
    values: dict[str, Any], expected: list[Any], name: str | None
) -> None:
    fields, _ = request_from(values, RESOLVE)
    if not values:
        assert fields == {}, DECIDED["nothing"]
        return
    theirs, ours = by_name(expected), as_ui(fields)

    different = {key for key in ours if theirs[key] != ours[key]}
    assert different <= DECIDED.keys()
    for key in different - {"sampler", "styles", "vae"}:
        assert is_left_out_or_rounded(key, theirs[key], ours[key]), key
    if "vae" in different:
        assert (theirs["vae"], ours["vae"]) == (UNCHANGED, OWN_VAE)
    if "sampler" in different:
        assert DISPLAY[ours["sampler"]] == DISPLAY[theirs["sampler"]]
    if "styles" in different:
        assert name is not None
        made_with = by_name(DATA["sets"][name]["fooocus"]["ui_values"])["styles"]
        assert ours["styles"] == made_with


def is_left_out_or_rounded(key: str, theirs: Any, ours: Any) -> bool:
    off = {
        "refiner": "None",
        "overwrite switch": -1,
        "swap method": "joint",
        "adaptive cfg": ADAPTIVE_CFG,
        "clip skip": 1,
    }
    if key in off:
        return bool(theirs == UNCHANGED and ours == off[key])
    return bool(ours == theirs - theirs % 8)


def by_name(values: list[Any]) -> dict[str, Any]:
    """Name the original's values; the last are FreeU's five and three for each row of LoRAs."""
    plain = dict(zip(DATA["ui_value_order"], values[:27], strict=False))
    plain["freeu"] = values[-20:-15] if values[-20] else [False]
    rows = [tuple(values[i + 1 : i + 3]) for i in range(len(values) - 15, len(values), 3)]
    plain["loras"] = [row for row in rows if row[0] != "None"]
    return plain


def as_ui(fields: dict[str, Any]) -> dict[str, Any]:
    """Write our fields in the original's terms."""
    more = fields["advanced"]
    steps, switch = more["num_inference_steps"], more.get("refiner_switch_step", UNCHANGED)
    freeu = more["freeu"]
    size = fields.get("aspect_ratio", "").replace("x", "×")
    label = next((text for text in DATA["aspect_labels"] if text.split()[0] == size), UNCHANGED)
    width, height = (int(side) for side in size.split("×")) if size else (UNCHANGED, UNCHANGED)
    ui = {
        "has parameters": True,
        "image number": fields["num_images"],
        "prompt": fields.get("prompt", UNCHANGED),
        "negative": fields.get("negative_prompt", UNCHANGED),
        "styles": list(fields["styles"]) if "styles" in fields else UNCHANGED,
        "performance": fields.get("performance", UNCHANGED),
        "overwrite step": -1 if steps is None else steps,
        "overwrite switch": -1 if switch is None else switch,
        "aspect label": label,
        "overwrite width": width if label == UNCHANGED else -1,
        "overwrite height": height if label == UNCHANGED else -1,
        "cfg": fields.get("guidance_scale", UNCHANGED),
        "sharpness": fields.get("sharpness", UNCHANGED),
        "adm positive": more.get("adm_scaler_positive", UNCHANGED),
        "adm negative": more.get("adm_scaler_negative", UNCHANGED),
        "adm end": more.get("adm_scaler_end", UNCHANGED),
        "swap method": more.get("refiner_swap_method", UNCHANGED),
        "adaptive cfg": more.get("adaptive_cfg", UNCHANGED),
        "clip skip": more.get("clip_skip", UNCHANGED),
        "base model": more.get("base_model", UNCHANGED),
        "refiner": fields.get("refiner_model", UNCHANGED) or "None",
        "refiner switch": fields.get("refiner_switch", UNCHANGED),
        "sampler": more.get("sampler", UNCHANGED),
        "scheduler": more.get("scheduler", UNCHANGED),
        "vae": more.get("vae", UNCHANGED) or OWN_VAE,
        "random seed flag": False if "seed" in fields else UNCHANGED,
        "seed": fields.get("seed", UNCHANGED),
        "freeu": [True, *freeu.values()] if freeu else [False],
        "loras": [(row["path"], row["scale"]) for row in fields["loras"]],
    }
    assert ui.keys() >= set(DATA["ui_value_order"][:27])
    return ui


PICTURES = [
    pytest.param(name, scheme, form, id=f"{name}-{scheme}-{form}")
    for name, scheme in SETS
    for form in DATA["sets"][name][scheme].get("image_files", ())
]


@pytest.mark.parametrize(("name", "scheme", "form"), PICTURES)
def test_golden_pictures_are_read(name: str, scheme: str, form: str) -> None:
    case = DATA["sets"][name][scheme]
    facts = case["image_files"][form]
    with Image.open(golden_folder() / "metadata" / facts["file"]) as image:
        found = read_text(image)

    assert found is not None
    assert found.kind == facts["scheme"]
    theirs = facts["parameters"]
    assert (json.loads(found.text) if scheme == "fooocus" else found.text) == theirs


@pytest.mark.parametrize(("name", "scheme", "form"), PICTURES)
def test_golden_pictures_are_written_alike(
    name: str, scheme: Any, form: Any, tmp_path: Any
) -> None:
    facts = DATA["sets"][name][scheme]["image_files"][form]
    version = record_of(name, scheme).version
    path = tmp_path / f"picture.{form}"
    options = embed(write(name, scheme), scheme, form, version)
    Image.new("RGB", (32, 24)).save(path, form, **options)

    with Image.open(path) as image:
        exif = {hex(tag): value for tag, value in image.getexif().items() if tag != 0x8769}
        found = read_text(image)
        info = dict(image.info)
    assert exif == facts["exif"]
    assert found is not None
    assert found.text == DATA["sets"][name][scheme]["text"]  # also where the original lost letters
    if form == "png":
        assert info["parameters"] == DATA["sets"][name][scheme]["text"]
        assert info["fooocus_scheme"] == scheme


@pytest.mark.parametrize("example", DATA.get("filename", {}).get("example", []), ids=lambda e: e[2])
def test_golden_file_names_have_the_same_form(example: list[str]) -> None:
    day, path, name = example
    ending = name.rpartition(".")[2]
    second = re.fullmatch(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_\d{4}\.\w+", name)
    assert second is not None
    ours = file_name(time.strptime(second[1], "%Y-%m-%d_%H-%M-%S"), random.Random(1), ending)

    assert ours.startswith(f"{day}/{second[1]}_")
    assert re.fullmatch(rf"{day}/{second[1]}_[1-9]\d{{3}}\.{ending}", ours)
    assert len(ours) == len("/".join(path.rsplit("/", 2)[1:]))
