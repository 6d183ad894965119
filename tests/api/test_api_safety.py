"""The safety checker through queue and API: fal's field is on, flags and black pictures reach the program."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from api import Api, Front, build
from api.files import FileStore
from api.keys import Keys
from engine.engine import create
from engine.net import Fetcher
from engine.places import Places, read_catalog
from jobs import Jobs, JobSettings, ThreadWorker
from tests.api.conftest import TEXT, page
from tests.libraries import library_of
from tests.tiny_checker import ALL, write_tiny_checker
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.torch
INPUT = {
    "prompt": "a star",
    "performance": "Speed",
    "styles": [],
    "aspect_ratio": "128x64",
    "num_images": 2,
    "advanced": {"num_inference_steps": 1},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("safety")
    models = folder / "models"
    write_tiny_model(models / "checkpoints" / "tiny")
    write_tiny_checker(models / "safety_checker" / "model.safetensors", ALL)
    library = library_of(read_catalog(Places(models_dir=models)))

    def engine():
        made = create(str(models), device="cpu", require_safety=True)
        torch.set_num_threads(1)
        return made

    data, output = folder / "data", folder / "outputs"
    jobs = Jobs(JobSettings(data_dir=data, output_dir=output), lambda: ThreadWorker(engine))
    jobs.start()
    api = Api(
        jobs=jobs,
        library=lambda: library,
        start={},
        files=FileStore(data, output),
        keys=Keys(data),
        fetcher=Fetcher(),
    )
    yield TestClient(Front(page, build(api)), base_url="http://127.0.0.1:7860")
    jobs.close()


def run(client, **changes):
    answer = client.post(f"/{TEXT}", json={**INPUT, **changes})
    assert answer.status_code == 200, answer.text
    pictures = [
        np.asarray(Image.open(io.BytesIO(client.get(it["url"]).content)).convert("RGB"))
        for it in answer.json()["images"]
    ]
    return answer.json(), pictures


def test_flagged_pictures_are_black_and_flagged(client):
    body, pictures = run(client)
    assert body["has_nsfw_concepts"] == [True, True]
    assert [(it["width"], it["height"]) for it in body["images"]] == [(128, 64)] * 2
    assert all(picture.shape == (64, 128, 3) and not picture.any() for picture in pictures)


def test_a_program_may_switch_it_off(client):
    body, pictures = run(client, enable_safety_checker=False)
    assert body["has_nsfw_concepts"] == [False, False]
    assert all(picture.any() for picture in pictures)
