"""The LoRAs as the page shows them: what each says of itself, what people noted, and how more of them come, or do not."""

import asyncio
import base64
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from engine import Library, Shelves, TextRequest, plan, read_library
from engine.net import Fetcher
from engine.places import Places, read_catalog
from jobs import Jobs
from tests.file_server import FileServer, file_server
from tests.lora_files import hostile_files, lora_bytes, weights_bytes, write_lora
from tests.ui.studios import OWNER_HEADER, full_library
from ui.lora_library import LoraLibrary
from ui.lora_notes import OWN_THUMBNAIL, SIDE
from ui.lora_upload import Incoming, file_name, sweep

TRAP = "<img src=x onerror=alert(1)>"
KNOWN = {"modelspec.title": "Ink", "modelspec.trigger_phrase": "inkwash, wet"}


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    write_lora(folder / "loras" / "ink.safetensors", KNOWN)
    write_lora(folder / "loras" / "old" / "small.safetensors", width=768)
    own = folder / "checkpoints" / "own.safetensors"
    own.parent.mkdir()
    own.write_bytes(weights_bytes({"unet.attn2.to_k.weight": (4, 2048)}))
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of another program."""
    write_lora(tmp_path / "fooocus" / "theirs.safetensors", seed=5)
    return tmp_path / "fooocus"


@pytest.fixture
def studio(jobs: Jobs, models_dir: Path, foreign: Path, tmp_path: Path) -> ui.Studio:
    def read() -> Library:
        places = Places(models_dir=models_dir, more={"lora": (foreign,)})
        return Library(catalog=read_catalog(places), may_fetch=lambda url: "forbidden" not in url)

    return ui.Studio(
        jobs=jobs,
        library=read(),
        read_library=read,
        loras=LoraLibrary(models_dir, tmp_path / "data"),
        fetcher=Fetcher(allow_private=True),
        owner_of=lambda request: request.headers.get(OWNER_HEADER, "local"),
    )


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


def rows(client: TestClient) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in client.get("/studio/loras").json()["loras"]}


def one(client: TestClient, name: str) -> dict[str, Any]:
    answer = client.get("/studio/loras/one", params={"name": name})
    assert answer.status_code == 200
    return answer.json()


def send(client: TestClient, data: bytes, name: str = "new.safetensors"):
    return client.post("/studio/loras", params={"name": name}, content=data)


def note(client: TestClient, name: str, **more):
    given = {"name": name, "words": "", "notes": "", "weight": None, **more}
    return client.post("/studio/loras/notes", json=given)


def everything(folder: Path) -> list[str]:
    return sorted(it.relative_to(folder).as_posix() for it in folder.rglob("*") if it.is_file())


def png(size: tuple[int, int] = (900, 600)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "green").save(file, "PNG")
    return file.getvalue()


def test_the_rows_tell_title_words_and_what_each_fits(client: TestClient) -> None:
    told = client.get("/studio/loras").json()
    ink, small = rows(client)["ink.safetensors"], rows(client)["old/small.safetensors"]
    assert (ink["title"], ink["words"], ink["made_for"]) == ("Ink", ["inkwash", "wet"], "SDXL")
    assert (small["width"], small["made_for"]) == (768, "Stable Diffusion 1.5")
    assert told["bases"] == {"own.safetensors": 2048}
    assert told["can_bring"]
    assert [row["thumbnail"] for row in rows(client).values()] == [None, None, None]


def test_notes_lie_beside_the_file_and_what_others_wrote_there_stays(
    client: TestClient, studio, models_dir: Path
) -> None:
    sidecar = models_dir / "loras" / "ink.json"
    sidecar.write_text(json.dumps({"sd version": "SDXL", "activation text": "old", "notes": "x"}))
    assert rows(client)["ink.safetensors"]["words"] == ["old"]
    before = studio.revision
    told = note(client, "ink.safetensors", words="a, (b, c:1.2), a", notes="two\nlines", weight=0.7)
    assert told.json()["words"] == ["a", "(b, c:1.2)"]
    assert json.loads(sidecar.read_text()) == {
        "sd version": "SDXL",
        "activation text": "a, (b, c:1.2)",
        "preferred weight": 0.7,
        "notes": "two\nlines",
    }
    assert studio.revision == before + 1
    kept = one(client, "ink.safetensors")
    assert (kept["notes"], kept["weight"]) == ("two\nlines", 0.7)
    note(client, "ink.safetensors")
    assert rows(client)["ink.safetensors"]["words"] == ["inkwash", "wet"]
    assert rows(client)["ink.safetensors"]["weight"] is None


def test_beside_files_of_another_program_nothing_is_written(
    client: TestClient, foreign: Path, tmp_path: Path
) -> None:
    (foreign / "theirs.json").write_text('{"activation text": "theirs"}')
    before = everything(foreign)
    assert rows(client)["theirs.safetensors"]["words"] == ["theirs"]
    assert note(client, "theirs.safetensors", words="mine").status_code == 200
    assert rows(client)["theirs.safetensors"]["words"] == ["mine"]
    assert everything(foreign) == before
    assert len(everything(tmp_path / "data" / "loras")) == 1


def test_a_file_of_another_kind_in_the_place_of_the_notes_stays(
    client: TestClient, models_dir: Path
) -> None:
    other = models_dir / "loras" / "ink.json"
    other.write_text('["a list of somebody"]')
    note(client, "ink.safetensors", words="mine")
    assert other.read_text() == '["a list of somebody"]'
    assert rows(client)["ink.safetensors"]["words"] == ["mine"]


def test_what_civitai_helpers_left_is_read(client: TestClient, models_dir: Path) -> None:
    info = {"model": {"name": "Small things"}, "trainedWords": ["tiny, cute", 3, "room"]}
    (models_dir / "loras" / "old" / "small.civitai.info").write_text(json.dumps(info))
    row = rows(client)["old/small.safetensors"]
    assert (row["title"], row["words"]) == ("Small things", ["tiny", "cute", "room"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"words": 3}, "words: expected a text of at most 4000 characters"),
        ({"notes": "x" * 4001}, "notes: expected a text of at most 4000 characters"),
        ({"weight": "1"}, "weight: expected a number from -10 to 10, got '1'"),
        ({"weight": 11}, "weight: expected a number from -10 to 10, got 11"),
        ({"name": "../../ink"}, "name: no LoRA named '../../ink'"),
    ],
)
def test_notes_that_are_none_are_refused(client: TestClient, given, problem: str) -> None:
    answer = note(client, **{"name": "ink.safetensors", **given})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(problem)


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "[" * 50_000])
def test_only_objects_are_read(client: TestClient, body: str) -> None:
    for path in ("notes", "fetch", "thumbnail"):
        answer = client.post(f"/studio/loras/{path}", content=body)
        assert answer.status_code == 422
        assert answer.json()["detail"] == "lora: expected a JSON object"


def test_a_picture_beside_the_file_is_its_thumbnail_and_a_chosen_one_comes_first(
    client: TestClient, jobs: Jobs, studio, models_dir: Path
) -> None:
    asked = {"name": "ink.safetensors"}
    assert client.get("/studio/loras/thumbnail", params=asked).status_code == 404
    beside = models_dir / "loras" / "ink.png"
    beside.write_bytes(png())
    first = rows(client)["ink.safetensors"]["thumbnail"]
    shown = client.get("/studio/loras/thumbnail", params=asked)
    assert shown.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(shown.content)).size == (SIDE, 171)
    image = painted(jobs, studio)
    for name in ("ink.safetensors", "theirs.safetensors"):
        answer = client.post("/studio/loras/thumbnail", json={"name": name, "image": image})
        assert answer.status_code == 200
    assert rows(client)["ink.safetensors"]["thumbnail"] != first
    assert beside.read_bytes() == png()
    assert (models_dir / "loras" / f"ink{OWN_THUMBNAIL}").exists()
    assert client.get("/studio/loras/thumbnail", params=asked).content != shown.content
    assert rows(client)["theirs.safetensors"]["thumbnail"]


def painted(jobs: Jobs, studio) -> str:
    wanted = plan(TextRequest(prompt="steps=1", num_images=1), full_library(), seed=3)
    return jobs.wait(jobs.submit(wanted), timeout=30).images[0].id


def test_a_thumbnail_is_only_made_of_ones_own_pictures(client: TestClient, jobs, studio) -> None:
    given = {"name": "ink.safetensors", "image": painted(jobs, studio)}
    others = {OWNER_HEADER: "somebody else"}
    assert client.post("/studio/loras/thumbnail", json=given, headers=others).status_code == 404
    assert rows(client)["ink.safetensors"]["thumbnail"] is None


def test_a_thumbnail_inside_of_the_file_is_shown_and_a_broken_one_is_none(
    client: TestClient, studio, models_dir: Path
) -> None:
    uri = "data:image/png;base64," + base64.b64encode(png((40, 40))).decode()
    write_lora(models_dir / "loras" / "in.safetensors", {"modelspec.thumbnail": uri})
    bad = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    write_lora(models_dir / "loras" / "bad.safetensors", {"modelspec.thumbnail": bad})
    studio.refresh()
    assert rows(client)["in.safetensors"]["thumbnail"]
    shown = client.get("/studio/loras/thumbnail", params={"name": "in.safetensors"})
    assert Image.open(io.BytesIO(shown.content)).size == (40, 40)
    asked = client.get("/studio/loras/thumbnail", params={"name": "bad.safetensors"})
    assert asked.status_code == 404


def test_a_lora_that_is_sent_is_listed_at_once_and_its_hash_is_known(
    client: TestClient, studio, models_dir: Path
) -> None:
    data, before = lora_bytes(KNOWN, seed=9), studio.revision
    told = send(client, data, "Wash v2.safetensors").json()
    assert told == {
        "name": "Wash v2.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "was_there": False,
    }
    assert (models_dir / "loras" / "Wash v2.safetensors").read_bytes() == data
    assert studio.revision > before
    assert one(client, "Wash v2.safetensors")["sha256"] == told["sha256"]
    assert [it.name for it in studio.catalog.loras].count("Wash v2.safetensors") == 1


def test_the_same_file_is_there_already_and_another_one_gets_another_name(
    client: TestClient, models_dir: Path, foreign: Path
) -> None:
    ink = (models_dir / "loras" / "ink.safetensors").read_bytes()
    same = send(client, ink, "other.safetensors").json()
    assert (same["name"], same["was_there"]) == ("ink.safetensors", True)
    theirs = (foreign / "theirs.safetensors").read_bytes()
    assert send(client, theirs).json()["name"] == "theirs.safetensors"
    assert send(client, lora_bytes(seed=7), "ink.safetensors").json()["name"] == "ink-2.safetensors"
    assert send(client, lora_bytes(seed=8), "ink.safetensors").json()["name"] == "ink-3.safetensors"
    # A name in a folder of another program would hide the file there.
    other = send(client, lora_bytes(seed=6), "theirs.safetensors").json()
    assert other["name"] == "theirs-2.safetensors"
    assert (models_dir / "loras" / "ink.safetensors").read_bytes() == ink


@pytest.mark.parametrize("data", hostile_files().values(), ids=hostile_files())
def test_what_is_no_lora_is_refused_and_leaves_nothing(
    client: TestClient, studio, models_dir: Path, data: bytes
) -> None:
    before, revision = everything(models_dir), studio.revision
    answer = send(client, data)
    assert answer.status_code == 422
    assert "new.safetensors: expected a" in answer.json()["detail"]
    assert everything(models_dir) == before
    assert studio.revision == revision
    assert send(client, lora_bytes(seed=9)).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "x.bin",
        "x.pt",
        "../x.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "x\0.safetensors",
    ],
)
def test_names_that_lead_elsewhere_are_refused(
    client: TestClient, models_dir: Path, name: str
) -> None:
    before = everything(models_dir.parent)
    answer = send(client, lora_bytes(seed=9), name)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("name: expected ")
    assert everything(models_dir.parent) == before


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a b-1.5 (x).safetensors", "a b-1.5 (x).safetensors"),
        ('<b>:a,*?".SAFETENSORS', "_b_a_.safetensors"),
        ("..hidden..safetensors", "hidden.safetensors"),
        ("水墨.safetensors", "水墨.safetensors"),
        ("...safetensors", "lora.safetensors"),
        ("x" * 300 + ".safetensors", "x" * 100 + ".safetensors"),
    ],
)
def test_names_become_those_of_files(given: str, name: str) -> None:
    assert file_name(given) == name


def test_what_is_too_large_is_refused_before_it_comes(client: TestClient, models_dir: Path) -> None:
    before = everything(models_dir)
    headers = {"content-length": str(5 << 30)}
    answer = client.post("/studio/loras?name=x.safetensors", content=b"", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "lora: x.safetensors: expected at most 4 GB, got more"
    assert everything(models_dir) == before


def test_a_browser_that_goes_away_in_the_middle_leaves_nothing(studio, models_dir: Path) -> None:
    data, told, before = lora_bytes(seed=9), [], everything(models_dir)
    messages = iter(
        [
            {"type": "http.request", "body": data[:-100], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send_back(message: Any) -> None:
        told.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/studio/loras",
        "query_string": b"name=new.safetensors",
        "headers": [],
    }
    asyncio.run(Starlette(routes=ui.routes(studio))(scope, receive, send_back))
    assert told[0]["status"] == 400
    assert everything(models_dir) == before


def test_parts_of_a_program_that_was_killed_are_swept(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, "x.safetensors", None)
    (part,) = tmp_path.iterdir()
    sweep(tmp_path)
    assert part.exists()
    os.utime(part, (0, 0))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    incoming.drop()


def test_a_file_from_an_address_comes_in_the_background_and_is_listed(
    client: TestClient, studio, server: FileServer, models_dir: Path
) -> None:
    server.files["far.safetensors"] = lora_bytes(KNOWN, seed=4)
    server.stalls["far.safetensors"] = 100
    told = client.post("/studio/loras/fetch", json={"path": server.url("far.safetensors")}).json()
    assert told["name"].startswith("fetched/")
    assert told["name"].endswith("-far.safetensors")
    assert not told["was_there"]
    assert [it["name"] for it in told["downloads"]] == [told["name"]]
    (fetch,) = studio.fetches.known()
    server.go_on.set()
    fetch.wait()
    assert rows(client)[told["name"]]["title"] == "Ink"
    again = client.post("/studio/loras/fetch", json={"path": server.url("far.safetensors")}).json()
    assert again == {"name": told["name"], "was_there": True, "downloads": []}


def test_what_an_address_gives_that_is_no_lora_is_removed_and_told(
    client: TestClient, studio, server: FileServer, models_dir: Path
) -> None:
    before = everything(models_dir)
    server.files["far.safetensors"] = hostile_files()["no LoRA"]
    told = client.post("/studio/loras/fetch", json={"path": server.url("far.safetensors")}).json()
    studio.fetches.known()[0].wait()
    (failed,) = client.get("/studio/downloads").json()["downloads"]
    assert failed["problem"].endswith("expected a LoRA, got other weights")
    assert everything(models_dir) == before
    asked = {"files": [{"kind": "lora", "name": told["name"]}]}
    assert client.post("/studio/downloads/cancel", json=asked).json() == {"downloads": []}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "address: expected an address, or owner/name on the hub"),
        ({"path": 3}, "address: expected an address, or owner/name on the hub"),
        ({"path": "nobody"}, "address: expected an address, owner/name on the hub, or a LoRA"),
        ({"path": "../../x"}, "address: expected a name of the models folder, an address"),
        ({"path": "file:///etc/passwd"}, "address: "),
        ({"path": "https://forbidden.org/x.safetensors"}, "address: expected a name of the models"),
        ({"path": "https://x.org/x.ckpt"}, "address: expected an address that ends in NAME.safe"),
        ({"path": "a/b", "weight_name": "../x.safetensors"}, "address: expected a file name"),
        ({"path": "a/b", "weight_name": 3}, "weight_name: expected the name of a file"),
    ],
)
def test_what_cannot_be_fetched_is_refused_with_a_sentence(
    client: TestClient, studio, given, problem: str
) -> None:
    answer = client.post("/studio/loras/fetch", json=given)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(problem)
    assert studio.fetches.known() == []


def test_text_of_strangers_goes_out_as_it_is_and_only_as_json(
    client: TestClient, models_dir: Path, studio
) -> None:
    write_lora(models_dir / "loras" / "trap.safetensors", {"modelspec.title": TRAP})
    studio.refresh()
    note(client, "trap.safetensors", words=TRAP, notes=TRAP)
    answer = client.get("/studio/loras/one", params={"name": "trap.safetensors"})
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json()["title"], answer.json()["notes"]) == (TRAP, TRAP)


def test_a_studio_without_a_folder_takes_none(jobs: Jobs, models_dir: Path) -> None:
    library = read_library(Shelves(models_dir=models_dir))
    bare = ui.Studio(jobs=jobs, library=library)
    with TestClient(Starlette(routes=ui.routes(bare))) as client:
        told = client.get("/studio/loras").json()
        assert (told["loras"], told["can_bring"]) == ([], False)
        assert send(client, lora_bytes()).status_code == 422
