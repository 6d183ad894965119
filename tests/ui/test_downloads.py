"""Weights that a visitor wants now: only what is offered, once, and the library knows of it when it is there."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Catalog, InvalidRequest, Library
from engine.catalog import Source, Weights
from tests.file_server import FileServer, file_server
from tests.ui.studios import LORAS, POCKET
from ui.downloads import MAX_FILES, read_files

NAME = "helper.safetensors"
ASKED = {"files": [{"kind": "controlnet", "name": NAME}]}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        server.files[NAME] = bytes(1000)
        server.stalls[NAME] = 500
        yield server


@pytest.fixture
def library(server: FileServer, tmp_path: Path) -> Library:
    return library_of(server, tmp_path)


def library_of(server: FileServer, folder: Path) -> Library:
    path, source = folder / "controlnet" / NAME, Source(url=server.url(NAME))
    offer = Weights(name=NAME, path=path, kind="controlnet", source=source)
    there = [dataclasses.replace(offer, source=None)] if path.exists() else []
    return Library(catalog=Catalog([POCKET], [*LORAS, *there], [offer]))


def test_a_file_is_fetched_once_and_then_the_library_has_it(
    client, studio, server: FileServer, tmp_path: Path
) -> None:
    studio.read_library = lambda: library_of(server, tmp_path)
    before = client.get("/studio/lists").json()["revision"]
    for _ in range(2):
        (told,) = client.post("/studio/downloads", json=ASKED).json()["downloads"]
        assert (told["kind"], told["name"], told["problem"]) == ("controlnet", NAME, None)
    assert client.get("/studio/state").json()["studio"]["downloads"] == 1
    (fetch,) = studio.fetches.known()
    server.go_on.set()
    fetch.wait()
    assert client.get("/studio/downloads").json() == {"downloads": []}
    assert studio.catalog.has("controlnet", NAME)
    now = client.get("/studio/lists").json()["revision"]
    assert now == client.get("/studio/state").json()["studio"]["library"] > before
    assert server.asked == [NAME]


def test_a_cancelled_one_is_forgotten_at_once(client, studio, server: FileServer) -> None:
    client.post("/studio/downloads", json=ASKED)
    (fetch,) = studio.fetches.known()
    assert client.post("/studio/downloads/cancel", json=ASKED).json() == {"downloads": []}
    server.go_on.set()
    fetch.wait()
    assert not studio.catalog.has("controlnet", NAME)


def test_what_went_wrong_is_told_until_nobody_cares(client, studio, server: FileServer) -> None:
    server.files.clear()
    client.post("/studio/downloads", json=ASKED)
    studio.fetches.known()[0].wait()
    (told,) = client.get("/studio/downloads").json()["downloads"]
    assert told["problem"].startswith(f"{NAME}: expected the file at http://127.0.0.1")
    assert client.post("/studio/downloads/cancel", json=ASKED).json() == {"downloads": []}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{", "expected a list of kinds and names"),
        ('{"files": [1]}', "expected a list of kinds and names"),
        ('{"files": [{"kind": "checkpoint", "name": "pocket"}]}', "expected a kind of helper"),
        ('{"files": [{"kind": "x", "name": "y"}]}', "expected a kind of helper, got 'x'"),
        ('{"files": [{"kind": "lora", "name": "../../x"}]}', "no LoRA named '../../x'"),
    ],
)
def test_only_what_the_catalog_knows_is_fetched(client, body: str, problem: str) -> None:
    answer = client.post("/studio/downloads", content=body)
    assert answer.status_code == 422
    assert problem in answer.json()["detail"]


def test_not_all_the_world_is_fetched(library: Library) -> None:
    many = (
        str(ASKED).replace("'", '"').replace("[{", "[" + '{"kind": "a", "name": "b"},' * 40 + "{")
    )
    with pytest.raises(InvalidRequest, match=f"expected at most {MAX_FILES}, got 41"):
        read_files(many.encode(), library.catalog)
    there = b'{"files": [{"kind": "lora", "name": "ink.safetensors"}]}'
    assert [it.name for it in read_files(there, library.catalog)] == ["ink.safetensors"]
