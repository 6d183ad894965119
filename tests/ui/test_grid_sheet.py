"""The sheet's maths: axes to requests, labels, the picture of all cells; and that its jobs are queued all or none."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import ui
from engine import InvalidRequest, TextRequest, plan
from engine.studio import Studio
from jobs import Jobs, QueueFull
from tests.ui.studios import MAX_WAITING, full_library
from ui.grid_sheet import MAX_CELLS, SETTINGS, Labels, cells, draw_sheet, labels_of, read_axis
from ui.sheet_panel import _plans, _submit_all, read_sheet

ASKED = TextRequest(
    prompt="a red star",
    seed=5,
    num_images=3,
    studio={
        "loras": [{"path": "ink.safetensors", "scale": 0.5}, {"path": "soft.safetensors"}],
        "controlnets": [{"path": "edges", "image": "a" * 64}],
        "ip_adapters": [{"path": "look", "images": ["b" * 64]}],
    },
)
VALUES = {
    "studio.loras.0.path": "ink.safetensors, b.safetensors",
    "studio.scheduler": "euler, DDIM",
    "advanced.base_model": "one, two",
    "aspect_ratio": "512x512, 1024x768",
    "prompt": "red, blue",
}


def axis(setting, values, field="across"):
    found = read_axis(field, setting, values)
    assert found is not None
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_changes_the_request_and_nothing_else(setting):
    asked = ASKED.model_copy(update={"num_images": 1})
    values = VALUES.get(setting, "0, 1" if setting != "studio.num_inference_steps" else "4, 8")
    first, second = cells(asked, axis(setting, values), None)
    assert first != second
    head = setting.split(".")[0]
    for cell in (first, second):
        same = cell.model_dump(exclude={head})
        assert same == asked.model_dump(exclude={head})


def test_cells_go_row_by_row_with_one_picture_and_one_seed_each():
    across = axis("studio.guidance_scale", "3, 7.5")
    down = axis("studio.loras.*.scale", " -1,0 , 2", "down")
    found = cells(ASKED, across, down)
    assert {(cell.seed, cell.num_images) for cell in found} == {(5, 1)}
    told = [
        (cell.studio.guidance_scale, *(lora.scale for lora in cell.studio.loras)) for cell in found
    ]
    assert told == [(w, s, s) for s in (-1, 0, 2) for w in (3, 7.5)]
    assert labels_of(ASKED, across, down) == Labels(
        "a red star", ("Guidance 3", "Guidance 7.5"), ("LoRA -1", "LoRA 0", "LoRA 2")
    )


def test_words_of_the_prompt_are_replaced_and_schedulers_are_known_by_their_letters():
    found = cells(ASKED, axis("prompt", "red, blue"), None)
    assert [cell.prompt for cell in found] == ["a red star", "a blue star"]
    scheduler = axis("studio.scheduler", "dpm++ 2m  karras")
    assert scheduler.labels == ("DPM++ 2M Karras",)
    assert cells(ASKED, scheduler, None)[0].studio.scheduler == "DPM++ 2M Karras"


@pytest.mark.parametrize(
    ("across", "down", "problem"),
    [
        (("studio.eta", ""), None, r"^across: expected values between commas$"),
        (("studio.eta", " , "), None, r"^across: expected values between commas$"),
        (("gone", "1"), None, r"^across: expected a setting of the list, got 'gone'$"),
        (([], "1"), None, None),
        (("studio.eta", "1" * 300), None, r"^across: expected at most 200 characters of values$"),
        (("studio.eta", "0.5, 2"), None, r"^across: 2: expected less than or equal to 1"),
        (("studio.scheduler", "nope"), None, r"^across: nope: expected 'DPM\+\+ 2M'"),
        (
            ("prompt", "moon, sun"),
            None,
            r"^across: expected words of the prompt first, got 'moon'$",
        ),
        (
            ("studio.eta", ",".join(["0"] * 9)),
            ("seed", ",".join(["0"] * 8)),
            r"^down: expected at most 64 pictures together, got 72$",
        ),
        (("seed", "1"), ("seed", "2"), r"^down: expected another setting than across's$"),
        (("seed", "1"), ("studio.eta", "x"), r"^down: x: expected a valid number"),
    ],
)
def test_an_axis_that_cannot_be_painted_says_why(across, down, problem):
    def write():
        first = read_axis("across", *across)
        second = None if down is None else read_axis("down", *down)
        return [] if first is None else cells(ASKED, first, second)

    if problem is None:
        assert write() == []
        return
    with pytest.raises(InvalidRequest, match=problem):
        write()


def test_a_weight_of_what_is_not_in_the_form_is_refused():
    asked = TextRequest(studio=Studio())
    for setting, thing in (
        ("studio.loras.*.scale", "a LoRA"),
        ("studio.loras.1.scale", "a LoRA"),
        ("studio.controlnets.0.conditioning_scale", "a ControlNet"),
        ("studio.ip_adapters.0.scale", "an IP-Adapter"),
    ):
        with pytest.raises(InvalidRequest, match=f"choose {thing} first"):
            cells(asked, axis(setting, "1"), None)


def colours(*names, size=(120, 90)):
    return [None if name is None else Image.new("RGB", size, name) for name in names]


def test_the_sheet_shows_every_picture_in_its_cell_with_labels():
    labels = Labels("words", ("one", "two"), ("up", "down"))
    sheet = draw_sheet(labels, colours("red", "lime", "blue", None))
    empty = draw_sheet(labels, colours("red", "lime", None, None))
    pure = {(255, 0, 0), (0, 255, 0), (0, 0, 255)}
    found = {colour for _, colour in sheet.getcolors(1 << 20) or []}
    assert pure <= found
    columns, rows = zip(*(_box(sheet, colour) for colour in sorted(pure)), strict=True)
    blue, lime, red = columns
    assert red[0] == blue[0] < lime[0]
    blue, lime, red = rows
    assert red[0] == lime[0] < blue[0]
    assert red[1] - red[0] == round((columns[2][1] - columns[2][0]) * 90 / 120)
    assert sheet.size == empty.size
    dark = sheet.convert("L").point(lambda value: 255 * (value < 140))
    assert dark.crop((0, 0, sheet.width, rows[2][0])).getbbox() is not None
    assert dark.crop((0, rows[2][0], columns[2][0], rows[2][1])).getbbox() is not None


def _box(sheet, colour):
    """Left and right, top and bottom of a colour."""
    down, across = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return (across.min(), across.max() + 1), (down.min(), down.max() + 1)


def test_a_large_sheet_stays_below_its_largest_size_and_odd_words_are_drawn():
    labels = Labels("${x} <b> 日本語 " * 900, tuple("x" * 90 for _ in range(MAX_CELLS)), ("",))
    pictures = colours(*["red"] * MAX_CELLS, size=(8, 8))
    sheet = draw_sheet(labels, pictures)
    assert max(sheet.size) < 5000


def test_what_the_page_says_of_a_sheet_is_looked_at():
    good = {"title": "t", "columns": ["a", "b"], "rows": [""], "jobs": ["1", "2"]}
    assert read_sheet(json.dumps(good).encode()) == (Labels("t", ("a", "b"), ("",)), ["1", "2"])
    for bad in (
        b"",
        b"[]",
        b"{}",
        json.dumps({**good, "jobs": []}).encode(),
        json.dumps({**good, "jobs": ["1"]}).encode(),
        json.dumps({**good, "columns": ["a"] * 65, "jobs": ["1"] * 65}).encode(),
    ):
        with pytest.raises(InvalidRequest, match=r"^sheet: "):
            read_sheet(bad)


def test_a_sheet_that_the_queue_has_no_room_for_leaves_no_job(jobs: Jobs, studio: ui.Studio):
    asked = TextRequest(prompt="steps=10000", studio={})
    across = axis("seed", ",".join(str(it) for it in range(MAX_WAITING + 3)))
    wanted = _plans(studio, asked, across, None, seed=1)
    with pytest.raises(QueueFull):
        _submit_all(jobs, wanted, "local", {})
    for job in jobs.active(owner="local"):
        jobs.wait(job.id, timeout=30)
    assert jobs.active(owner="local") == []


def test_a_name_that_is_not_there_is_told_at_its_axis(studio: ui.Studio):
    across = axis("studio.guidance_scale", "1, 2")
    down = axis("advanced.base_model", "gone", "down")
    with pytest.raises(InvalidRequest, match=r"^down: no base model named 'gone'"):
        _plans(studio, TextRequest(studio={}), across, down, seed=1)


def test_the_file_has_what_is_painted_and_strangers_get_none(jobs: Jobs, studio: ui.Studio, client):
    wanted = _plans(
        studio, TextRequest(prompt="one", studio={}), axis("seed", "1, 2"), None, seed=1
    )
    ids = _submit_all(jobs, wanted, "local", {})
    for job in ids:
        assert jobs.wait(job, timeout=30).state == "finished"
    body = {"title": "one", "columns": ["1", "2"], "rows": [""], "jobs": ids}
    answer = client.post("/studio/sheet", json=body)
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as sheet:
        assert sheet.width > 2 * sheet.height * 0.8
    assert client.post("/studio/sheet", json=body, headers={"x-owner": "eve"}).status_code == 422
    assert client.post("/studio/sheet", content=b"x").status_code == 422


def test_files_that_came_with_a_picture_can_be_had_by_their_owner(
    jobs: Jobs, client, tmp_path, monkeypatch
):
    job = jobs.submit(plan(TextRequest(prompt="kept", num_images=1), full_library(), seed=1))
    image = jobs.wait(job, timeout=30).images[0]
    latents = tmp_path / "latents.safetensors"
    latents.write_bytes(b"numbers")
    found = replace(image, extras={"latents": latents})
    monkeypatch.setattr(jobs, "image", lambda image_id, owner: found)
    assert client.get(f"/studio/images/{image.id}/extras/latents").content == b"numbers"
    assert client.get(f"/studio/images/{image.id}/extras/passes").status_code == 404
