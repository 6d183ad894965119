"""fal's own example requests go through its own clients to the real studio with the pocket model."""

import json

import fal_client
import numpy as np
import pytest

from tests.clients.running import CLIENTS, Node, Studio
from tests.test_app import get

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # the client closes none
]
SEEDS = json.loads((CLIENTS / "seeds.json").read_text(encoding="utf-8"))
TEXT = "fal-ai/fooocus"


@pytest.fixture(scope="module")
def real_studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("real") / "studio", is_real=True)
    studio.start()
    yield studio
    studio.stop()


def painted(result: dict) -> np.ndarray:
    """The one picture of a result, red, green, blue."""
    import io

    from PIL import Image

    (picture,) = result["images"]
    status, data = get(picture["url"])
    image = Image.open(io.BytesIO(data))
    assert status == 200
    assert (image.format or "").lower() == picture["content_type"].removeprefix("image/")
    assert image.size == (picture["width"], picture["height"])
    assert len(data) == picture["file_size"]
    return np.asarray(image.convert("RGB"))


def test_the_example_of_the_text_endpoint_is_painted(
    real_studio: Studio, node: Node, point
) -> None:
    point(real_studio.address)
    result = fal_client.subscribe(TEXT, arguments=SEEDS[TEXT], with_logs=True)
    assert result["has_nsfw_concepts"] == [False]
    assert result["timings"]["inference"] > 0
    picture = painted(result)
    assert picture.shape == (1024, 1024, 3)
    for age in ("new", "old"):
        found = node.call(real_studio.address, age, "run", endpoint=TEXT, input=SEEDS[TEXT])
        answer = found["value"]["data"] if age == "new" else found["value"]
        assert np.array_equal(painted(answer), picture)


def test_the_picture_shows_what_was_asked_after_a_kill(real_studio: Studio, point) -> None:
    from PIL import Image

    from pocket.score import read

    point(real_studio.address)
    prompt = "a large red star on a blue background"
    asked = {"prompt": prompt, "styles": [], "performance": "Speed", "output_format": "png"}
    handle = fal_client.submit(
        TEXT, arguments={**asked, "seed": 11, "num_images": 2, "aspect_ratio": "512x512"}
    )
    real_studio.kill()
    real_studio.start()
    result = fal_client.SyncClient().get_handle(TEXT, handle.request_id).get()
    assert len(result["images"]) == 2
    for picture in result["images"]:
        small = Image.fromarray(painted({"images": [picture]})).resize((128, 128))
        seen = read(np.asarray(small))
        assert (seen.shape, seen.colour, seen.background) == ("star", "red", "blue")
