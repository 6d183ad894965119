"""The texts of an image are those that Fooocus encodes: same order, same draws, same counts."""

import pytest

from engine.errors import InvalidRequest
from engine.prompt.assemble import Lines, Wording, assemble, read_lines, with_expansion
from engine.prompt.lora_tags import take_lora_tags
from engine.prompt.styles import Style
from tests.engine.prompt.test_lora_tags import PERFORMANCE_FILES, rows
from tests.golden_data import golden_json

GOLDEN = golden_json("requests.json")
CASES = GOLDEN.get("cases", {})

INK = Style(name="Ink", prompt="ink drawing\nof {prompt}", negative_prompt="photo")
PLAIN = Style(name="Plain", prompt="soft light", negative_prompt="glare\nhaze")
STYLES = {style.name: style for style in (INK, PLAIN)}


def wording(prompt: str = "a boat", negative: str = "", **more) -> Wording:
    defaults = {"styles": STYLES, "wildcards": {"n": ("one", "two", "three")}}
    return Wording(
        prompt=read_lines(prompt), negative_prompt=read_lines(negative), **(defaults | more)
    )


def golden_request(case):
    return GOLDEN["defaults"] | case["request"]


def golden_tags(request):
    """The LoRA tags of the first line, as a request of the golden data has them read."""
    chosen = rows((name, weight) for on, name, weight in request["loras"] if on)
    return take_lora_tags(
        read_lines(request["prompt"]).main,
        GOLDEN["lora_files"],
        given=chosen,
        limit=5,
        hidden=PERFORMANCE_FILES.get(request["performance"]),
    )


def golden_texts(request):
    """The texts of all images of a request of the golden data."""
    styles = {
        name: Style(name=name, prompt=prompt, negative_prompt=negative)
        for name, (prompt, negative) in GOLDEN["styles"].items()
    }
    lists = {name: tuple(text.splitlines()) for name, text in GOLDEN["wildcards"].items()}
    common = Wording(
        prompt=Lines(golden_tags(request).text, read_lines(request["prompt"]).extras),
        negative_prompt=read_lines(request["negative_prompt"]),
        selection=tuple(request["styles"]),
        styles=styles,
        wildcards=lists,
        wildcards_in_order=request["wildcards_in_order"],
        as_filled=True,
    )
    step = 0 if request["disable_seed_increment"] else 1
    seeds = [(request["seed"] + step * i) % 2**63 for i in range(request["image_number"])]
    return [
        assemble(common, seed=seed, index=i, expand=lambda text, n: f"{text}, EXPANDED {n % 1000}")
        for i, seed in enumerate(seeds)
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_encoded_texts_golden(case):
    texts = golden_texts(golden_request(case))
    positive = [[list(image.positive), image.pooled_positive] for image in texts]
    negative = [[list(image.negative), image.pooled_negative] for image in texts]
    assert case["encoded"][: len(texts)] == positive
    assert case["encoded"][len(texts) :] in (negative, [])  # without guidance none is encoded


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_recorded_texts_golden(case):
    request = golden_request(case)
    tags = golden_tags(request)
    for image, log in zip(golden_texts(request), case["logs"], strict=True):
        recorded = {key: value for _, key, value in log["metadata"]}
        assert image.prompt == recorded["prompt"]
        assert image.negative_prompt == recorded["negative_prompt"]
        assert image.expansion == recorded["prompt_expansion"]
        assert str(list(image.styles)) == recorded["styles"]
        loras = [value for key, value in recorded.items() if key.startswith("lora_combined_")]
        asked = [f"{file} : {weight}" for file, weight in tags.loras]
        assert loras[: len(asked)] == asked


def test_lines_are_cleaned_and_empty_ones_dropped():
    assert read_lines(" one,\n\n two  more. ") == Lines("one", ("two more",))
    assert read_lines(" \n,.") == Lines("")
    assert str(Lines("one", ("two",))) == "one\ntwo"


def test_a_style_may_be_chosen_twice():
    texts = assemble(wording(selection=("Ink", "Ink")), seed=1, index=0)
    assert texts.positive == ("ink drawing", "of a boat") * 2
    assert texts.negative == ("photo", "photo")
    assert texts.pooled_positive == 4


def test_arrays_go_by_the_image_and_wildcards_by_its_seed():
    common = wording("[[red,blue]] __n__")
    drawn = {assemble(common, seed=seed, index=0).main for seed in range(30)}
    assert drawn == {"red one", "red two", "red three"}
    assert assemble(common, seed=5, index=1).main.startswith("blue ")


def test_without_an_expander_the_expansion_is_left_to_a_later_stage():
    texts = assemble(wording(selection=("Fooocus V2", "Plain")), seed=1, index=0)
    assert texts.styles == ("Fooocus V2", "Plain")
    assert texts.positive == ("a boat", "soft light")
    later = with_expansion(texts, "a boat, fine")
    assert later.positive == ("a boat", "soft light", "a boat, fine")
    assert later.pooled_positive == 2
    assert with_expansion(later, "other").positive[2:] == ("other",)
    assert with_expansion(texts, "") is texts


def test_an_empty_prompt_is_not_expanded():
    texts = assemble(
        wording("", selection=("Fooocus V2",)), seed=1, index=0, expand=lambda text, seed: "x"
    )
    assert (texts.positive, texts.styles, texts.expansion) == (("",), (), "")


def test_lora_tags_without_effect_are_dropped_and_named():
    lists = {"n": ("<lora:ink:1> fox",)}
    prompt = "a __n__\na <lora:b:1> hill"
    texts = assemble(wording(prompt, wildcards=lists), seed=1, index=0)
    assert texts.positive == ("a fox", "a hill")
    assert texts.idle_tags == ("ink", "b")
    kept = assemble(wording(prompt, wildcards=lists, as_filled=True), seed=1, index=0)
    assert kept.positive == ("a <lora:ink:1> fox", "a <lora:b:1> hill")
    assert kept.idle_tags == ()


def test_a_random_style_without_styles_is_left_out():
    texts = assemble(wording(styles={}, selection=("Random Style",)), seed=1, index=0)
    assert texts.positive == ("a boat",)
    assert texts.styles == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": ("Plain",) * 65}, r"^styles: expected at most 64 styles, got 65$"),
        (
            {"selection": ("Ink",) * 33},
            r"^prompt: expected at most 64 lines and styles, got 66$",
        ),
        (
            {"negative": "\n".join("ab"[i % 2] for i in range(65))},
            r"^negative_prompt: expected at most 64 lines and styles, got 65$",
        ),
        (
            {"prompt": "a" * 9000, "selection": ("Ink",) * 5},
            r"^prompt: expected at most 40000 characters in all lines and styles, got 45070$",
        ),
        ({"negative": "(x:inf)"}, r"^negative_prompt: expected finite weights, got inf for 'x'$"),
        (
            {"prompt": "__n__", "wildcards": {"n": ("(y:nan)",)}},
            r"^prompt: expected finite weights, got nan for 'y'$",
        ),
    ],
)
def test_texts_that_cannot_be_encoded_are_refused(changes, message):
    with pytest.raises(InvalidRequest, match=message):
        assemble(wording(**changes), seed=1, index=0)
