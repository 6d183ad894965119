"""The page's own addresses: what they answer, to whom, and that nothing else can be read through them."""

import io
import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from engine import (
    Catalog,
    Checkpoint,
    InvalidRequest,
    Library,
    Size,
    TextRequest,
    plan,
    plan_from_json,
)
from engine.records.read_image import read_text
from tests.libraries import library_of
from tests.ui.studios import OWNER_HEADER, POCKET
from ui.thumbnails import SIDE, Thumbnails, shrink
from ui.web import MAX_PICTURE, MAX_TEXT

STRANGER = {OWNER_HEADER: "stranger"}


@pytest.fixture
def job(jobs, catalog):
    """A finished job of two pictures."""
    wanted = plan(
        TextRequest(prompt="a <b>red</b> ${star}", num_images=2), library_of(catalog), seed=5
    )
    job_id = jobs.submit(wanted)
    jobs.wait(job_id, owner="local", timeout=30)
    return jobs.job(job_id, owner="local")


def stream(answer) -> list[dict]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_state_names_the_model_and_what_the_pocket_model_can_do(client):
    studio = client.get("/studio/state").json()["studio"]
    assert studio["pocket"]
    assert studio["summary"]
    assert studio["examples"]


def test_events_tell_the_whole_story_to_whoever_comes_late(client, job):
    answer = client.get(f"/studio/jobs/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    kinds = [update["kind"] for update in stream(answer)]
    assert kinds[0] == "waiting"
    assert kinds.count("image") == 2
    assert kinds[-1] == "finished"


def test_a_browser_that_comes_back_hears_only_what_it_missed(client, job):
    whole = client.get(f"/studio/jobs/{job.id}/events")
    numbers = [line[4:] for line in whole.text.splitlines() if line.startswith("id: ")]
    rest = client.get(f"/studio/jobs/{job.id}/events", headers={"Last-Event-ID": numbers[-2]})
    assert [update["kind"] for update in stream(rest)] == ["finished"]


def test_a_job_lists_its_pictures(client, job):
    facts = client.get(f"/studio/jobs/{job.id}").json()
    assert facts["state"] == "finished"
    assert [image["index"] for image in facts["images"]] == [0, 1]


def test_the_file_is_byte_for_byte_what_is_on_disk(client, job):
    image = job.images[0]
    answer = client.get(f"/studio/images/{image.id}/file")
    assert answer.content == image.path.read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["content-disposition"].startswith("inline")


def test_a_download_keeps_its_metadata_and_has_a_name(client, job):
    answer = client.get(f"/studio/images/{job.images[0].id}/file?download=1")
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="pochade-')
    assert disposition.endswith('-5.png"')
    record = read_text(Image.open(io.BytesIO(answer.content)))
    assert record.kind == "pochade"
    assert plan_from_json(record.text).images[0].seed == 5


def test_a_thumbnail_is_small_and_private(client, job):
    answer = client.get(f"/studio/images/{job.images[0].id}/thumbnail")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert max(Image.open(io.BytesIO(answer.content)).size) == SIDE


def test_thumbnails_are_made_once(tmp_path: Path):
    path = tmp_path / "picture.png"
    Image.new("RGB", Size(900, 600), "red").save(path)
    thumbnails = Thumbnails()
    first = thumbnails.of("a", partial(shrink, path))
    path.unlink()
    assert thumbnails.of("a", partial(shrink, path)) is first


def test_a_picture_whose_file_is_gone_is_unknown(client, job):
    job.images[0].path.unlink()
    for kind in ("file", "thumbnail"):
        assert client.get(f"/studio/images/{job.images[0].id}/{kind}").status_code == 404


def test_history_is_newest_first_and_searched_by_prompt(client, job):
    found = client.get("/studio/images").json()
    assert [image["id"] for image in found["images"]] == [image.id for image in job.images[::-1]]
    assert not found["more"]
    assert len(client.get("/studio/images?search=RED").json()["images"]) == 2
    assert client.get("/studio/images?search=green").json()["images"] == []


def test_history_goes_on_after_the_last_picture_of_a_page(client, job):
    last = job.images[1].id
    rest = client.get(f"/studio/images?before={last}").json()["images"]
    assert [image["id"] for image in rest] == [job.images[0].id]


def test_deleted_pictures_are_gone_until_restored(client, job):
    ids = [job.images[0].id]
    assert client.post("/studio/images/delete", json={"ids": ids}).json() == {"count": 1}
    assert client.get(f"/studio/images/{ids[0]}/file").status_code == 404
    assert client.post("/studio/images/restore", json={"ids": ids}).json() == {"count": 1}
    assert client.get(f"/studio/images/{ids[0]}/file").status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"ids": "x"}', b'{"ids": [1]}', b"\xff"])
def test_a_list_of_ids_that_is_none_is_refused(client, body):
    answer = client.post("/studio/images/delete", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("ids: expected a list")


def test_others_are_told_that_nothing_is_there(client, job):
    image = job.images[0]
    for path in (
        f"jobs/{job.id}",
        f"jobs/{job.id}/events",
        f"jobs/{job.id}/previews/0",
        f"images/{image.id}/file",
        f"images/{image.id}/thumbnail",
    ):
        assert client.get(f"/studio/{path}", headers=STRANGER).status_code == 404, path
    for path in (f"jobs/{job.id}/skip", f"jobs/{job.id}/cancel"):
        assert client.post(f"/studio/{path}", headers=STRANGER).status_code == 404, path
    assert client.get("/studio/images", headers=STRANGER).json()["images"] == []
    gone = client.post("/studio/images/delete", json={"ids": [image.id]}, headers=STRANGER)
    assert gone.json() == {"count": 0}
    assert image.path.is_file()


def test_nothing_changes_by_looking(client, job):
    for path in (f"jobs/{job.id}/cancel", f"jobs/{job.id}/skip", "images/delete"):
        assert client.get(f"/studio/{path}").status_code in (404, 405)


@pytest.mark.parametrize(
    "path",
    [
        "static/../web.py",
        "static/%2e%2e%2fweb.py",
        "static/..%5cweb.py",
        "static//etc/passwd",
        "static/.",
        "images/..%2f..%2fetc%2fpasswd/file",
        "images/%00/file",
        "jobs/%00/events",
    ],
)
def test_no_path_from_outside_is_followed(client, path):
    assert client.get(f"/studio/{path}").status_code == 404


def test_our_scripts_are_served_as_scripts(client):
    answer = client.get("/studio/static/stage.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-cache"


def test_a_preview_of_a_job_that_is_over_is_gone(client, job):
    answer = client.get(f"/studio/jobs/{job.id}/previews/0")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"


def test_what_there_is_to_choose_from_is_told(client, studio):
    told = client.get("/studio/lists").json()
    assert told["studio"] == "pocket"
    assert {"models", "loras", "vaes", "presets"} <= set(told)
    names = [
        style["name"]
        for group in client.get("/studio/styles").json()["groups"]
        for style in group["styles"]
    ]
    assert "Fooocus Sharp" in names


def test_files_that_came_are_listed_after_a_refresh(client, studio):
    later = Library(catalog=Catalog([POCKET, Checkpoint(name="new", path=Path("new"))]))
    studio.read_library = lambda: later
    told = client.post("/studio/refresh").json()
    assert [it["name"] for it in told["models"]] == ["pocket", "new"]
    assert studio.library is later


def test_a_library_that_cannot_be_read_leaves_the_old_one(client, studio):
    def broken():
        raise InvalidRequest("mine.json", "expected JSON, got nonsense")

    before, studio.read_library = studio.library, broken
    answer = client.post("/studio/refresh")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "mine.json: expected JSON, got nonsense"
    assert studio.library is before


def test_a_pictures_settings_are_read_with_the_seed_as_text(client, job):
    data = client.get(f"/studio/images/{job.images[0].id}/file").content
    told = client.post("/studio/read", content=data).json()
    assert told["kind"] == "pochade"
    assert told["fields"]["seed"] == "5"
    assert told["fields"]["prompt"] == "a <b>red</b> ${star}"


def test_a_pasted_text_is_read_as_text(client):
    headers = {"content-type": "text/plain;charset=utf-8"}
    told = client.post("/studio/read", content='{"prompt": "é", "seed": "7"}', headers=headers)
    assert told.json()["kind"] == "fooocus"
    assert told.json()["fields"]["prompt"] == "é"
    nothing = client.post("/studio/read", content="a red star", headers=headers).json()
    assert nothing == {"kind": None, "fields": {}, "notes": []}


def test_a_file_that_is_no_picture_is_refused(client):
    answer = client.post("/studio/read", content=b"no picture")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("picture: expected a PNG, JPEG or WebP file")


def test_no_more_is_read_than_a_picture_or_a_text_may_have(client):
    whole = (b"x" * 2**20 for _ in range(MAX_PICTURE // 2**20 + 1))
    answer = client.post("/studio/read", content=whole)
    assert answer.json()["detail"] == f"picture: expected at most {MAX_PICTURE} bytes"
    headers = {"content-type": "text/plain"}
    long = client.post("/studio/read", content=b"x" * (MAX_TEXT + 1), headers=headers)
    assert long.status_code == 422
