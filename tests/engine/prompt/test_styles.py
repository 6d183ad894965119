"""Styles are read in Fooocus' order and by Fooocus' names, and found however they are written."""

import json

import pytest

from engine.errors import InvalidRequest
from engine.prompt.styles import Style, find_style, find_styles, read_styles, style_name
from tests.golden_data import golden_json

GOLDEN = golden_json("prompts.json").get("style_names", [])


def write_pack(path, **prompts: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"name": name, "prompt": prompt} for name, prompt in prompts.items()]
    path.write_text(json.dumps(entries), encoding="utf-8")


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_style_names_golden(case):
    assert style_name(case["input"]) == case["output"]


def test_own_files_come_first_then_the_packs_in_their_order(tmp_path):
    for pack in ("sai", "fooocus", "marc_k3nt3l", "aquarelle"):
        write_pack(tmp_path / "sub" / f"{pack}.json", **{pack: pack})
    assert list(read_styles([tmp_path])) == ["Aquarelle", "Fooocus", "SAI", "Marc_k3nt3l"]


def test_fooocus_own_file_names_are_known(tmp_path):
    write_pack(tmp_path / "sdxl_styles_fooocus.json", first="x")
    write_pack(tmp_path / "sdxl_styles_diva.json", second="x")
    write_pack(tmp_path / "zebra.json", own="x")
    assert list(read_styles([tmp_path])) == ["Own", "First", "Second"]


def test_a_persons_folder_wins_over_the_shipped_one(tmp_path):
    write_pack(tmp_path / "shipped" / "sai.json", **{"sai-ink": "shipped", "plain": "shipped"})
    write_pack(tmp_path / "own" / "mine.json", **{"SAI Ink": "own"})
    styles = read_styles([tmp_path / "shipped", tmp_path / "own"])
    assert styles["SAI Ink"].prompt == "own"
    assert styles["Plain"].prompt == "shipped"


def test_an_own_file_wins_over_a_pack_beside_it(tmp_path):
    write_pack(tmp_path / "mine.json", ink="own")
    write_pack(tmp_path / "sdxl_styles_sai.json", ink="pack")
    assert read_styles([tmp_path])["Ink"].prompt == "own"


def test_missing_texts_are_empty(tmp_path):
    (tmp_path / "a.json").write_text('[{"name": "bare", "negative_prompt": null}]')
    assert read_styles([tmp_path]) == {"Bare": Style(name="Bare")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "Expecting value"),
        ('{"name": "x"}', "expected a list of styles, got dict"),
        ('[{"name": "ok"}, 3]', "entry 1: expected an object, got int"),
        ('[{"prompt": "x"}]', "entry 0: expected a text as 'name', got ''"),
        ('[{"name": "x", "prompt": ["y"]}]', "entry 0: expected a text as 'prompt', got ['y']"),
    ],
)
def test_a_broken_file_is_left_out_and_named(tmp_path, caplog, text, reason):
    (tmp_path / "bad.json").write_text(text)
    write_pack(tmp_path / "good.json", fine="x")
    assert list(read_styles([tmp_path])) == ["Fine"]
    assert "bad.json" in caplog.text
    assert reason in caplog.text


def test_the_special_names_are_not_templates(tmp_path, caplog):
    write_pack(tmp_path / "a.json", **{"fooocus-v2": "x"})
    assert read_styles([tmp_path]) == {}
    assert "'Fooocus V2' left out: the name is taken" in caplog.text


@pytest.mark.parametrize("name", ["mk van gogh", "MK-Van-Gogh", " mk_van  gogh ", "Mk Van Gogh"])
def test_a_style_is_found_however_it_is_written(name):
    assert find_style(name, ["Sai", "Mk Van Gogh"]) == "Mk Van Gogh"


def test_special_styles_and_repeats_are_found():
    names = find_styles(["random-style", "Ink", "FOOOCUS V2", "ink"], ["Ink"])
    assert names == ("Random Style", "Ink", "Fooocus V2", "Ink")


def test_an_unknown_style_names_the_closest():
    message = r"^styles\.1: no style named 'Fooocus Sharpp'; closest are 'Fooocus Sharp' and 'Fooocus V2'$"
    with pytest.raises(InvalidRequest, match=message):
        find_styles(["Ink", "Fooocus Sharpp"], ["Fooocus Sharp", "Ink"])
    with pytest.raises(InvalidRequest, match=r"^styles: no style named 'zzzz'$"):
        find_style("zzzz", ["Ink"])
