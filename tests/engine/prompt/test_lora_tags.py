"""LoRA tags are taken out of a prompt as Fooocus takes them, but unknown names are told."""

import pytest

from engine.errors import InvalidRequest
from engine.prompt.lora_tags import drop_tags, take_lora_tags
from tests.golden_data import golden_json

GOLDEN = golden_json("prompts.json").get("lora_tags", {"files": [], "results": []})
PERFORMANCE_FILES = {
    "Extreme Speed": "sdxl_lcm_lora.safetensors",
    "Lightning": "sdxl_lightning_4step_lora.safetensors",
    "Hyper-SD": "sdxl_hyper_sd_4step_lora.safetensors",
}
FILES = ["ink.safetensors", "deep/glow.safetensors"]


def rows(loras) -> list[tuple[str, float]]:
    """The rows of Fooocus' list that name a file."""
    return [(name, weight) for name, weight in loras if name != "None"]


@pytest.mark.parametrize("case", GOLDEN["results"], ids=range(len(GOLDEN["results"])))
def test_lora_tags_golden(case):
    taken = take_lora_tags(
        case["prompt"],
        GOLDEN["files"],
        given=rows(case["ui_loras"]),
        limit=case["limit"],
        hidden=PERFORMANCE_FILES.get(case["performance"]),
    )
    assert list(taken.loras) == rows(case["loras"])
    assert taken.text == case["prompt_out"]


def test_names_without_a_file_are_told():
    taken = take_lora_tags("<lora:a:1> <lora:ink:1> <lora:b:1> <lora:a:2>", FILES, limit=5)
    assert taken.unknown == ("a", "b")
    assert taken.loras == (("ink.safetensors", 1.0),)


def test_the_performance_file_is_hidden_but_not_unknown():
    taken = take_lora_tags("<lora:ink:1>", FILES, limit=5, hidden="ink.safetensors")
    assert (taken.loras, taken.unknown) == ((), ())


def test_loras_beyond_the_limit_are_told_and_given_ones_stay():
    given = [("own.safetensors", 0.5), ("two.safetensors", 1.0)]
    taken = take_lora_tags("<lora:glow:1>, x", FILES, given=given, limit=1)
    assert taken.loras == tuple(given)
    assert taken.beyond_limit == ("deep/glow.safetensors",)


def test_a_weight_that_is_no_number_is_refused():
    message = r"^prompt: expected a finite LoRA weight, got 9{20}…$"
    with pytest.raises(InvalidRequest, match=message):
        take_lora_tags(f"<lora:ink:{'9' * 400}>", FILES, limit=5)


def test_tags_without_effect_are_dropped_and_named():
    assert drop_tags("a  boat") == ("a  boat", ())
    assert drop_tags("a <lora:ink:1> boat, <lora:b:.5>") == ("a boat", ("ink", "b"))
