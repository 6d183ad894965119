"""Wildcards are filled as Fooocus fills them: nested, drawn or in order, and never without end."""

import random
from pathlib import Path

import pytest

from engine.errors import InvalidRequest
from engine.prompt.wildcards import fill_wildcards, read_wildcards
from tests.golden_data import golden_json

GOLDEN = golden_json("prompts.json").get("wildcards", {"files": {}, "results": []})


def write_lists(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


def fill(text: str, lists, *, seed: int = 0, index: int = 0, in_order: bool = False) -> str:
    return fill_wildcards(text, lists, random.Random(seed), index=index, in_order=in_order)


@pytest.fixture(scope="module")
def golden_lists(tmp_path_factory):
    return read_wildcards([write_lists(tmp_path_factory.mktemp("wildcards"), GOLDEN["files"])])


@pytest.mark.parametrize("case", GOLDEN["results"], ids=range(len(GOLDEN["results"])))
def test_wildcards_golden(case, golden_lists):
    options = {key: case[key] for key in ("seed", "index", "in_order")}
    assert fill(case["text"], golden_lists, **options) == case["output"]


def test_the_first_of_two_lists_with_one_name_wins(tmp_path):
    own = write_lists(tmp_path / "own", {"deep/er/tree.txt": "oak\r\n\r\nash\r\n"})
    shipped = write_lists(tmp_path / "shipped", {"tree.txt": "fir", "README.md": "read me"})
    assert read_wildcards([own, shipped, tmp_path / "none"]) == {"tree": ("oak", "ash")}


def test_a_file_that_is_not_text_is_left_out_and_named(tmp_path, caplog):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    write_lists(tmp_path, {"good.txt": "\ufeffone"})
    assert read_wildcards([tmp_path]) == {"good": ("one",)}
    assert "bad.txt" in caplog.text


def test_one_seed_draws_one_text():
    lists = {"n": tuple(map(str, range(1000)))}
    assert fill("__n__ __n__", lists, seed=3) == fill("__n__ __n__", lists, seed=3)
    assert fill("__n__ __n__", lists, seed=3) != fill("__n__ __n__", lists, seed=4)


def test_in_order_goes_round():
    assert [fill("__n__", {"n": ("a", "b")}, index=i, in_order=True) for i in range(3)] == [*"aba"]


def test_a_list_that_multiplies_itself_is_refused():
    message = (
        r"^prompt: expected wildcards to give at most 20000 characters, got more from 'double'$"
    )
    with pytest.raises(InvalidRequest, match=message):
        fill("__double__", {"double": ("__double__ and __double__",)})
