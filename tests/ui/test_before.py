"""Before and after: every picture that was made from another one leads to that, from the job's own files."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from engine import Shelves, TextRequest, plan, read_library
from engine.library import ROOT
from jobs import Jobs
from tests.ui.live_studio import paint_on_one_thread
from tests.ui.studios import OWNER_HEADER, open_jobs
from ui.before import OUTPAINTED, box_of

NAME, MASK = "a" * 64, "b" * 64
WHOLE = {"box": [0.0, 0.0, 1.0, 1.0], "fit": "fill"}
STRANGER = {OWNER_HEADER: "stranger"}


def picture(size: tuple[int, int] = (128, 96), colour: str = "green") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def make(client, jobs, library):
    """Make a picture of others, and return what the page is told of it."""

    def make_(**asked):
        wanted = plan(TextRequest(prompt="x", num_images=1, **asked), library, seed=1)
        job = jobs.submit(wanted, inputs={NAME: picture(), MASK: picture(colour="white")})
        jobs.wait(job, timeout=30)
        return client.get(f"/studio/jobs/{job}").json()["images"][0]

    return make_


@pytest.mark.parametrize(
    "asked",
    [
        {"upscale_or_vary": {"image": NAME, "method": "Vary (Subtle)"}},
        {"upscale_or_vary": {"image": NAME, "method": "Upscale (Fast 2x)"}},
        {"inpaint": {"image": NAME, "mask": MASK}},
    ],
)
def test_what_a_picture_was_made_from_lies_under_all_of_it(client, make, asked) -> None:
    image = make(**asked)
    assert image["before"] == WHOLE
    answer = client.get(f"/studio/images/{image['id']}/before")
    assert (answer.content, answer.headers["content-type"]) == (picture(), "image/png")
    path = f"/studio/images/{image['id']}/before"
    assert client.get(path, headers=STRANGER).status_code == 404


def test_what_was_painted_beyond_its_sides_lies_where_it_was(make) -> None:
    image = make(inpaint={"image": NAME, "outpaint": ["Left", "Bottom"]})
    assert image["before"]["box"] == pytest.approx([0.3 / 1.3, 0.0, 1 / 1.3, 1 / 1.3], abs=1e-4)
    assert box_of(["Top", "Bottom"]) == pytest.approx([0, 0.3 / 1.6, 1, 1 / 1.6], abs=1e-4)


def test_a_picture_from_words_has_none(client, make) -> None:
    image = make()
    assert image["before"] is None
    assert client.get(f"/studio/images/{image['id']}/before").status_code == 404


@pytest.mark.torch
def test_the_engine_adds_as_much_at_each_side() -> None:
    from engine.stages import masks

    assert masks.OUTPAINTED == OUTPAINTED


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Jobs]:
    jobs = open_jobs(tmp_path, engine=partial(paint_on_one_thread, ROOT / "models"))
    yield jobs
    jobs.close()


@pytest.mark.torch
def test_what_was_enhanced_leads_to_the_one_before_and_the_first_to_what_was_given(
    real: Jobs,
) -> None:
    library = read_library(Shelves(models_dir=ROOT / "models"))
    studio = ui.Studio(jobs=real, library=library)
    fast = {"num_inference_steps": 2, "base_model": "pocket", "previews": False}

    def run(enhance: dict) -> list[bytes | int | None]:
        asked = TextRequest(
            prompt="a star",
            styles=(),
            num_images=2,
            aspect_ratio="128x128",
            advanced=fast,
            enhance=enhance,
        )
        job = real.submit(plan(asked, library, seed=4), inputs={NAME: picture((128, 128))})
        done = real.wait(job, timeout=120)
        assert done.state == "finished", done.error
        with TestClient(Starlette(routes=ui.routes(studio))) as client:
            told = client.get(f"/studio/jobs/{job}").json()["images"]
            answers = [client.get(f"/studio/images/{it['id']}/before") for it in told]
        files = [image.path.read_bytes() for image in done.images]
        found = [it.content if it.status_code == 200 else None for it in answers]
        assert [it["before"] is not None for it in told] == [it is not None for it in found]
        return [files.index(it) if it in files else it for it in found]

    larger = {"upscale_or_vary": "Upscale (Fast 2x)"}
    assert run({"image": NAME, **larger}) == [picture((128, 128))]
    assert run(larger) == [None, 0, None, 2]
