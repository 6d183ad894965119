"""The page is told what a base model lacks to work with pictures: files that are to be fetched, or that there are none."""

import dataclasses
from pathlib import Path
from typing import Any

from engine import Catalog, Library
from engine.catalog import Weights
from engine.image_inputs import FURTHER
from engine.library import few_step_offers
from engine.partners import (
    COMMON,
    DETECTOR,
    SAM,
    UNION,
    has_aux,
    partner_offers,
)
from tests.ui.studios import POCKET, offers_of
from ui.download_sizes import SIZES
from ui.helpers import NEEDS, helpers, mask_uses


def test_what_is_there_is_not_named_and_what_is_to_be_fetched_is(library):
    told = helpers(library)
    own, usual = told[POCKET.name], told[""]
    assert {use: own[use] for use in NEEDS if use in own} == {
        use: {"none": True} for use in ("FaceSwap", *FURTHER)
    }
    assert names(usual["PyraCanny"]) == [COMMON["PyraCanny"].file]
    assert COMMON["face detector"].file in names(usual["FaceSwap"])
    assert names(usual["Depth"]) == [UNION.file]
    assert ("install" in usual["Depth"]) != has_aux()
    assert names(usual["enlarge"]) == names(usual["improve"]) == [COMMON["upscaler"].file]


def test_what_is_made_for_sdxl_is_not_offered_to_other_families(library):
    old = dataclasses.replace(POCKET, name="old", partners=(), paints_as="sd15")
    other = dataclasses.replace(library, catalog=Catalog([old], [], offers_of({})))
    told = helpers(other)[old.name]
    assert {told[use].get("none") for use in ("ImagePrompt", "PyraCanny", "inpaint")} == {True}


def names(what: dict[str, Any]) -> list[str]:
    return [file["name"] for file in what["files"]]


def test_a_file_says_from_where_it_comes_and_how_large_it_is(library):
    (file,) = helpers(library)[""]["PyraCanny"]["files"]
    assert file == {
        "kind": "controlnet",
        "name": COMMON["PyraCanny"].file,
        "host": "huggingface.co",
        "size": 396_000_000,
    }
    offers = [*partner_offers(), *few_step_offers()]
    assert set(SIZES) <= {offer.file for offer in offers}


def test_a_mode_of_few_steps_misses_its_own_lora():
    offer = next(it for it in few_step_offers() if "lightning" in it.file)
    lora = Weights(name=offer.file, path=Path(offer.file), kind="lora", source=offer.source)
    there = Weights(name="fast.safetensors", path=Path("fast.safetensors"), kind="lora")
    own = dataclasses.replace(POCKET, performance_loras=(("Lightning", there.name),))
    told = helpers(Library(catalog=Catalog([own], [there], [lora])))
    assert names(told[""]["performance Lightning"]) == [offer.file]
    assert "performance Lightning" not in told[own.name]
    assert "performance Speed" not in told[""]


def test_a_mask_misses_what_finds_it(library):
    usual = helpers(library)[""]
    uses = mask_uses("sam", "vit_l", boxes_only=False)
    assert [names(usual[use]) for use in uses] == [[DETECTOR.file], [SAM["vit_l"].file]]
    assert mask_uses("sam", "vit_l", boxes_only=True) == uses[:1]
    (use,) = mask_uses("u2net", "vit_l", boxes_only=False)
    assert names(usual[use]) == ["u2net.onnx"]


def test_what_can_neither_be_found_nor_fetched_is_none():
    told = helpers(Library(catalog=Catalog([POCKET])))
    assert told[""]["inpaint"] == {"none": True}
    assert set(told) == {"", POCKET.name}


def test_every_common_file_has_an_offer():
    assert {offer.file for offer in partner_offers()} >= {it.file for it in COMMON.values()}
