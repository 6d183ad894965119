"""The picture grid of a job: all its pictures in one, with the settings of the job inside, as long as there are several."""

import io

import numpy as np
import pytest
from PIL import Image

from engine import Size, TextRequest, plan, plan_from_json
from engine.records.read_image import read_text
from tests.ui.studios import OWNER_HEADER
from ui.grid_sheet import LARGEST, grid_size, mosaic

STRANGER = {OWNER_HEADER: "stranger"}
COLOURS = ("#ff0000", "#00ff00", "#0000ff")


@pytest.fixture
def paint(jobs, library):
    """Make a job of pictures."""

    def paint_(count: int = 3, **advanced):
        asked = TextRequest(prompt="a red star", num_images=count, advanced=advanced)
        job_id = jobs.submit(plan(asked, library, seed=5))
        jobs.wait(job_id, timeout=30)
        return jobs.job(job_id, owner="local")

    return paint_


def shown(client, job) -> dict | None:
    return client.get(f"/studio/jobs/{job.id}").json()["grid"]


def test_pictures_lie_as_they_are_in_as_many_columns_as_rows(tmp_path) -> None:
    files, sizes = [], [Size(64, 48), Size(64, 48), Size(32, 24)]
    for number, (size, colour) in enumerate(zip(sizes, COLOURS, strict=True)):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", size, colour).save(files[-1])
    sheet = mosaic(files, sizes)
    assert sheet.size == grid_size(sizes) == (64 + 8 + 64, 48 + 8 + 48)
    seen = [sheet.getpixel(at) for at in ((0, 0), (135, 47), (0, 103), (63, 60), (100, 80))]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255), (255, 255, 255)]


@pytest.mark.parametrize(("count", "shape"), [(2, (2, 1)), (5, (3, 2)), (7, (3, 3)), (32, (6, 6))])
def test_a_grid_is_never_larger_than_a_sheet(count: int, shape) -> None:
    columns, rows = shape
    width, height = grid_size([Size(1152, 896)] * count)
    assert max(width, height) <= LARGEST
    if count < 7:
        assert (width, height) == (columns * 1160 - 8, rows * 904 - 8)


def test_the_grid_is_there_when_the_job_is_over_and_brings_the_whole_job_back(
    client, paint
) -> None:
    job = paint(picture_grid=True)
    facts = shown(client, job)
    answer = client.get(f"/studio/jobs/{job.id}/grid?of={facts['grid']}&download=1")
    assert answer.headers["content-disposition"].endswith('-grid.png"')
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (facts["width"], facts["height"])
    first = np.asarray(Image.open(job.images[0].path).convert("RGB"))
    assert np.array_equal(np.asarray(picture)[: first.shape[0], : first.shape[1]], first)
    whole = plan_from_json(read_text(picture).text)
    assert [image.seed for image in whole.images] == [5, 6, 7]
    assert (whole.request.num_images, whole.request.seed) == (3, 5)
    small = client.get(f"/studio/jobs/{job.id}/grid/thumbnail")
    assert small.headers["content-type"] == "image/webp"
    listed = client.get("/studio/images").json()["images"]
    assert [it["id"] for it in listed] == [facts["id"], *(it.id for it in job.images[::-1])]


def test_deleted_pictures_leave_the_grid_and_the_last_two_end_it(client, jobs, paint) -> None:
    job = paint(picture_grid=True)
    before = shown(client, job)
    jobs.delete([job.images[2].id], owner="local")
    after = shown(client, job)
    assert after["pictures"] == before["pictures"][:2]
    assert after["grid"] != before["grid"]
    assert client.get("/studio/images").json()["images"][0]["id"] == after["id"]
    jobs.delete([job.images[0].id], owner="local")
    assert shown(client, job) is None
    for path in ("grid", "grid/thumbnail"):
        assert client.get(f"/studio/jobs/{job.id}/{path}").status_code == 404


def test_there_is_none_unasked_or_of_one_picture_or_for_others(client, paint) -> None:
    assert shown(client, paint()) is None
    assert shown(client, paint(1, picture_grid=True)) is None
    job = paint(picture_grid=True)
    for path in ("grid", "grid/thumbnail"):
        assert client.get(f"/studio/jobs/{job.id}/{path}", headers=STRANGER).status_code == 404
    assert client.get(f"/studio/jobs/{job.id}/grid").status_code == 200


def test_no_settings_are_in_the_grid_where_files_have_none(client, paint) -> None:
    job = paint(picture_grid=True, save_metadata=False)
    answer = client.get(f"/studio/jobs/{job.id}/grid")
    assert read_text(Image.open(io.BytesIO(answer.content))) is None
