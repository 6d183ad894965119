"""A plan settles a request, holds everything that decides the picture, and survives being written down."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import (
    Catalog,
    Checkpoint,
    InvalidRequest,
    Library,
    ModelNotFound,
    Size,
    TextRequest,
    plan,
    plan_from_json,
    plan_to_json,
    request_of,
)
from engine.catalog import Source, Weights
from engine.knobs import bounds, choices
from engine.plan import only_image
from engine.prompt.styles import Style
from engine.references import Reference
from engine.requests import MAX_SEED, Advanced, FreeU, LoraWeight

POCKET = Checkpoint(
    name="pocket",
    path=Path("pocket"),
    native_size=128,
    buckets=(Size(128, 128), Size(112, 144), Size(144, 112)),
    performance_loras=(("Extreme Speed", "lcm.safetensors"),),
)
CATALOG = Catalog(
    [Checkpoint(name="xl.safetensors", path=Path("xl")), POCKET],
    [
        *(
            Weights(name=name, path=Path(name), kind="lora")
            for name in ("ink.safetensors", "sub/Glow.safetensors", "lcm.safetensors")
        ),
        Weights(name="soft.safetensors", path=Path("soft"), kind="vae"),
    ],
    [
        Weights(
            name="sdxl_lightning_4step_lora.safetensors",
            path=Path("x"),
            kind="lora",
            source=Source(url="https://example.com/x"),
        )
    ],
)
LIBRARY = Library(
    catalog=CATALOG,
    styles={
        "Ink": Style(name="Ink", prompt="{prompt} in ink", negative_prompt="photo"),
        "Fog": Style(name="Fog", prompt="soft fog"),
    },
    wildcards={"colour": ("red", "blue", "green")},
)

advanced = st.fixed_dictionaries(
    {},
    optional={
        "sampler": st.sampled_from(choices(Advanced, "sampler")),
        "scheduler": st.sampled_from(choices(Advanced, "scheduler")),
        "adaptive_cfg": st.floats(1, 30),
        "clip_skip": st.integers(1, 12),
        "num_inference_steps": st.integers(1, 200),
        "base_model": st.sampled_from([None, "pocket", "xl.safetensors"]),
        "deterministic": st.booleans(),
        "seed_increment": st.booleans(),
        "wildcards_in_order": st.booleans(),
        "vae": st.sampled_from([None, "soft.safetensors"]),
        "freeu": st.sampled_from([None, FreeU(b1=1.1)]),
    },
)
words = st.lists(
    st.sampled_from(
        ["a star", "__colour__", "[[big,small]]", "<lora:ink:.5>", ",", "\n", " (red:1.2)", "x  y."]
    )
).map("".join)
requests = st.builds(
    TextRequest,
    prompt=words
    | st.text(max_size=60).filter(lambda text: "inf" not in text and "nan" not in text),
    negative_prompt=words,
    styles=st.lists(st.sampled_from(["Ink", "Fog", "fooocus-v2", "Random Style"]), max_size=3).map(
        tuple
    ),
    loras=st.lists(
        st.builds(LoraWeight, path=st.sampled_from(["Glow", "sub/Glow.safetensors"])), max_size=2
    ).map(tuple),
    performance=st.sampled_from(["Speed", "Quality", "Lightning"]),
    guidance_scale=st.floats(1, 30),
    sharpness=st.floats(0, 30),
    aspect_ratio=st.sampled_from(["1024x1024", "1152x896", "640x1536", "64x64"]),
    num_images=st.integers(1, 5),
    seed=st.none() | st.integers(0, MAX_SEED),
    advanced=advanced.map(lambda fields: Advanced(**fields)),
)


@given(requests, st.integers(0, MAX_SEED))
def test_a_plan_is_a_function_of_its_arguments_and_survives_json(
    request: TextRequest, seed: int
) -> None:
    made = plan(request, LIBRARY, seed=seed)
    assert made == plan(request, LIBRARY, seed=seed)
    assert plan_from_json(plan_to_json(made)) == made


@given(requests, st.integers(0, MAX_SEED))
def test_reuse_gives_the_same_plan(request: TextRequest, seed: int) -> None:
    made = plan(request, LIBRARY, seed=seed)
    assert plan(TextRequest.parse(request_of(made)), LIBRARY, seed=0) == made


@given(requests, st.integers(0, MAX_SEED), st.data())
def test_a_picture_s_own_request_gives_it_again(
    request: TextRequest, seed: int, data: st.DataObject
) -> None:
    made = plan(request, LIBRARY, seed=seed)
    index = data.draw(st.integers(0, request.num_images - 1))
    alone = only_image(made, index)
    again = plan(TextRequest.parse(request_of(alone)), LIBRARY, seed=0)
    assert again.images == alone.images
    settled = {
        "prompt": alone.prompt,
        "negative_prompt": alone.negative_prompt,
        "notes": alone.notes,
        "request": alone.request,
    }
    assert replace(again, **settled) == alone


def test_a_picture_of_an_array_is_asked_for_by_its_own_words() -> None:
    request = TextRequest(prompt="a [[red,blue]] door, __colour__", num_images=2, styles=())
    alone = only_image(plan(request, LIBRARY, seed=3), 1)
    assert alone.prompt == request.prompt
    assert alone.request.prompt.startswith("a blue door, ")
    again = plan(TextRequest.parse(request_of(alone)), LIBRARY, seed=0)
    assert again.images == alone.images


def test_performance_sets_the_steps_and_steps_overrule_it() -> None:
    def steps(**fields: Any) -> int:
        fields["styles"] = ()
        return plan(TextRequest.parse(fields), LIBRARY, seed=0).sampling.num_inference_steps

    assert (steps(), steps(performance="Quality")) == (30, 60)
    assert steps(performance="Quality", advanced={"num_inference_steps": 7}) == 7


def test_seeds_count_up_and_wrap() -> None:
    made = plan(TextRequest(seed=MAX_SEED, num_images=3, styles=()), LIBRARY, seed=5)
    assert [image.seed for image in made.images] == [MAX_SEED, 0, 1]
    assert plan(TextRequest(num_images=1, styles=()), LIBRARY, seed=5).images[0].seed == 5


def test_lines_are_texts_of_their_own() -> None:
    made = plan(
        TextRequest(prompt=" a star, \n\nred.\n", negative_prompt="", styles=()), LIBRARY, seed=0
    )
    assert made.images[0].positive == ("a star", "red")
    assert made.images[0].pooled_positive == 2
    assert made.images[0].negative == ("",)
    assert made.prompt == " a star, \n\nred.\n"


def test_sdxl_paints_at_the_asked_size_and_the_pocket_at_its_nearest() -> None:
    def sizes(**fields: Any) -> tuple[Size, Size]:
        made = plan(TextRequest.parse({"styles": (), **fields}), LIBRARY, seed=0)
        return made.size, made.sample_size

    assert sizes() == (Size(1152, 896), Size(1152, 896))
    pocket = {"base_model": "pocket"}
    assert sizes(advanced=pocket, aspect_ratio="1152x896") == (Size(1152, 896), Size(144, 112))
    assert sizes(advanced=pocket, aspect_ratio="1024x1024")[1] == Size(128, 128)
    assert sizes(advanced=pocket, aspect_ratio="704x1408")[1] == Size(112, 144)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance_scale": 31}, "guidance_scale: expected less than or equal to 30, got 31"),
        (
            {"sharpness": "x"},
            r"sharpness: expected a valid number, unable to parse string as a number, got 'x'",
        ),
        ({"aspect_ratio": "wide"}, "aspect_ratio: expected 'WIDTHxHEIGHT', got 'wide'"),
        ({"aspect_ratio": "100x100"}, "aspect_ratio: expected multiples of 8, got '100x100'"),
        ({"aspect_ratio": "0x64"}, "aspect_ratio: expected 'WIDTHxHEIGHT', got '0x64'"),
        (
            {"aspect_ratio": "4096x4096"},
            "aspect_ratio: expected sides from 64 to 4096 and at most 4194304 pixels, got '4096x4096'",
        ),
        (
            {"performance": "Fast"},
            "performance: expected 'Quality', 'Speed', 'Extreme Speed', 'Lightning' or 'Hyper-SD', got 'Fast'",
        ),
        ({"num_images": 0}, "num_images: expected greater than or equal to 1, got 0"),
        ({"seed": -1}, "seed: expected greater than or equal to 0, got -1"),
        ({"colour": 1}, "colour: no such field"),
        (
            {"advanced": {"sampler": "ddim9"}},
            r"advanced\.sampler: expected 'euler', .* got 'ddim9'",
        ),
        ({"advanced": {"eta": 1}}, r"advanced\.eta: no such field"),
    ],
)
def test_a_broken_field_is_named_with_its_rule_and_value(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}$"):
        TextRequest.parse(fields)


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(
        InvalidRequest, match=r"^prompt: expected finite weights, got nan for 'star'$"
    ):
        plan(TextRequest(prompt="(star:nan)", styles=()), LIBRARY, seed=0)


def test_too_many_lines_are_refused() -> None:
    with pytest.raises(
        InvalidRequest, match=r"^negative_prompt: expected at most 64 lines and styles, got 65$"
    ):
        plan(TextRequest(negative_prompt="a\n" * 65, styles=()), LIBRARY, seed=0)


def test_an_unknown_base_model_names_the_closest() -> None:
    request = TextRequest(styles=(), advanced=Advanced(base_model="pockt"))
    with pytest.raises(
        ModelNotFound, match=r"^base_model: no base model named 'pockt'; closest are 'pocket'$"
    ):
        plan(request, LIBRARY, seed=0)


def test_ranges_and_choices_come_from_the_fields() -> None:
    assert bounds(TextRequest, "guidance_scale") == (1, 30)
    assert choices(TextRequest, "performance")[:2] == ("Quality", "Speed")


def test_a_lora_by_its_address_is_asked_for_only_where_that_is_allowed() -> None:
    url = "https://example.com/files/My%20Ink.safetensors?download=true"
    request = TextRequest(styles=(), loras=(LoraWeight(path=url, scale=0.3),))
    with pytest.raises(InvalidRequest, match=r"^loras\.0\.path: expected a name of the models"):
        plan(request, LIBRARY, seed=0)
    open_library = replace(LIBRARY, may_fetch=lambda address: address.startswith("https://"))
    (lora,) = plan(request, open_library, seed=0).loras
    assert re.fullmatch(r"fetched/[0-9a-f]{12}-My_Ink\.safetensors", lora.name)
    assert (lora.reference, lora.scale) == (Reference(path=url), 0.3)
    alone = only_image(plan(request, open_library, seed=0), 0)
    assert plan(TextRequest.parse(request_of(alone)), open_library, seed=0).loras == (lora,)


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.ckpt", "https://example.com/", "https://example.com/..safetensors"],
)
def test_an_address_that_names_no_safetensors_file_is_refused(url: str) -> None:
    request = TextRequest(styles=(), loras=(LoraWeight(path=url),))
    with pytest.raises(InvalidRequest, match=r"^loras\.0\.path: expected an address that ends in"):
        plan(request, replace(LIBRARY, may_fetch=lambda address: True), seed=0)


def test_a_base_model_may_have_a_strength_of_its_own_for_enlarging() -> None:
    own = replace(
        POCKET, partners=(("upscaler", "2x.safetensors"),), upscale_strength=0.15, name="own"
    )
    files = [Weights(name="2x.safetensors", path=Path("2x"), kind="upscaler")]
    known = Library(catalog=Catalog([own], files), styles={}, wildcards={})

    def strength(method: str, **more: float) -> float:
        change = {"image": "0" * 64, "method": method, **more}
        request = TextRequest.parse({"styles": (), "upscale_or_vary": change})
        return plan(request, known, seed=1).sampling.strength

    assert [strength(f"Upscale ({name})") for name in ("1.5x", "2x")] == [0.15, 0.15]
    assert strength("Upscale (2x)", strength=0.3) == 0.3
    assert [strength(f"Vary ({name})") for name in ("Subtle", "Strong")] == [0.5, 0.85]


def test_what_a_base_model_brings_for_enlarging_is_put_on_for_painting_alone() -> None:
    larger = replace(
        POCKET, partners=(("upscaler", "2x.safetensors"), ("upscale lora", "larger.safetensors"))
    )
    files = [
        Weights(name="larger.safetensors", path=Path("larger"), kind="lora"),
        Weights(name="2x.safetensors", path=Path("2x"), kind="upscaler"),
    ]
    own = Library(catalog=Catalog([larger], files), styles={}, wildcards={})

    def loras(library: Library, **fields: Any) -> list[str]:
        made = plan(TextRequest.parse({"styles": (), **fields}), library, seed=1)
        return [item.name for item in made.loras]

    def to(method: str) -> dict[str, Any]:
        return {"upscale_or_vary": {"image": "0" * 64, "method": method}}

    assert loras(own) == []
    for method in ("Vary (Subtle)", "Upscale (Fast 2x)"):
        assert loras(own, **to(method)) == []
    for method in ("Upscale (1.5x)", "Upscale (2x)"):
        assert loras(own, **to(method)) == ["larger.safetensors"]
