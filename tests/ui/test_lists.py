"""The page is told what there is: each file once, whether it must be fetched, and every style in its family."""

from engine import Library
from engine.prompt.styles import SPECIAL_STYLES, Style
from tests.ui.studios import LORAS, OWN, POCKET, VAE
from ui.lists import OTHERS, lists, modes, style_groups


def test_files_are_listed_once_and_those_to_be_fetched_last(library):
    told = lists(library, [])
    assert [it["name"] for it in told["models"]][:2] == [POCKET.name, OWN.name]
    assert [it["name"] for it in told["loras"] if it["there"]] == [it.name for it in LORAS]
    assert {"name": "sd_xl_offset_example-lora_1.0.safetensors", "there": False} in told["loras"]
    assert {"name": VAE.name, "there": True} in told["vaes"]
    for kind in ("models", "loras", "vaes"):
        names = [it["name"] for it in told[kind]]
        assert len(names) == len(set(names))
        there = [it["there"] for it in told[kind]]
        assert there == sorted(there, reverse=True)


def test_presets_say_whose_they_are_and_what_they_need(library):
    presets = {it["id"]: it for it in lists(library, ["pocket"])["presets"]}
    assert set(presets) == set(library.presets)
    assert presets["pocket"]["own"]
    assert not presets["default"]["own"]
    assert "juggernautXL_v8Rundiffusion.safetensors" in presets["default"]["missing"]
    assert presets["pocket"]["missing"] == []


def test_every_style_is_in_one_group(library):
    groups = style_groups(library)
    names = [style["name"] for group in groups for style in group["styles"]]
    assert sorted(names) == sorted([*SPECIAL_STYLES, *library.styles])
    assert [style["name"] for style in groups[0]["styles"]] == list(SPECIAL_STYLES)
    by_name = {group["name"]: group for group in groups}
    assert "SAI Anime" in [style["name"] for style in by_name["SAI"]["styles"]]
    assert groups[-1]["name"] == OTHERS


def test_a_few_styles_of_ones_own_are_no_family(library):
    own = {name: Style(name=name) for name in ("Mine One", "Mine Two")}
    groups = style_groups(Library(catalog=library.catalog, styles=own))
    assert [group["name"] for group in groups] == ["", OTHERS]


def test_modes_are_told_with_their_steps():
    told = [(mode["name"], mode["steps"], mode["distilled"]) for mode in modes()]
    assert told[0] == ("Quality", 60, False)
    assert told[3] == ("Lightning", 4, True)
