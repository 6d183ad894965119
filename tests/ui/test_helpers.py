"""The page is told what a base model lacks to work with pictures: files that are to be fetched, or that there are none."""

from engine import Catalog, Library
from engine.partners import COMMON, partner_offers
from tests.ui.studios import POCKET
from ui.helpers import helpers


def test_what_is_there_is_not_named_and_what_is_to_be_fetched_is(library):
    told = helpers(library)
    assert told[POCKET.name] == {"FaceSwap": {"none": True}}
    usual = told[""]
    assert usual["PyraCanny"] == {"files": [COMMON["PyraCanny"].file]}
    assert COMMON["face detector"].file in usual["FaceSwap"]["files"]
    assert usual["enlarge"] == usual["improve"] == {"files": [COMMON["upscaler"].file]}


def test_what_can_neither_be_found_nor_fetched_is_none():
    told = helpers(Library(catalog=Catalog([POCKET])))
    assert told[""]["inpaint"] == {"none": True}
    assert set(told) == {"", POCKET.name}


def test_every_common_file_has_an_offer():
    assert {offer.file for offer in partner_offers()} >= {it.file for it in COMMON.values()}
