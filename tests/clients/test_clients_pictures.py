"""fal's example requests that bring pictures go through its own clients to the real studio with the pocket model.

The examples are taken as they are, but for the hosts of their addresses: pictures and LoRA lie on a server of ours, where
drawings of the pocket model's world stand for photographs.
"""

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import cv2
import fal_client
import numpy as np
import pytest
from PIL import Image

from pocket.draw import draw
from pocket.measure_partners import edge_overlap
from pocket.score import read
from pocket.world import Scene
from tests.clients.running import Node, Studio, serving
from tests.clients.test_clients_javascript import AGES, output
from tests.clients.test_clients_pocket import SEEDS, painted
from tests.test_app import ROOT

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # the client closes none
]
IMAGE_PROMPT = "fal-ai/fooocus/image-prompt"
INPAINT = "fal-ai/fooocus/inpaint"
VARY = "fal-ai/fooocus/upscale-or-vary"
STAR = Scene(shape="star", colour="red", background="blue", size="large")
HEART = Scene(shape="heart", colour="green", background="yellow", size="large")
SIDE = 512
"""Of each served picture, in pixels."""
HOLE = slice(160, 352)
"""Rows and columns that the mask paints anew."""
FEATHER = 4
"""Pixels over which the pocket model's pictures fade into what is kept."""


def drawing(scene: Scene) -> np.ndarray:
    return draw([scene], np.random.default_rng(3), scale=SIDE // 128)[0]


def mask() -> np.ndarray:
    levels = np.zeros((SIDE, SIDE), np.uint8)
    levels[HOLE, HOLE] = 255
    return levels


def file_of(pixels: np.ndarray, kind: str) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return target.getvalue()


def addresses(value: Any) -> Iterator[str]:
    """All addresses in an example."""
    if isinstance(value, str) and value.startswith("https://"):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from addresses(item)


FOLLOWED = "/another/picture.png"
"""What no example names: a picture for further slots."""


def served() -> Mapping[str, bytes]:
    """What lies at the paths of the examples."""
    lora = ROOT / "models" / "pocket" / "loras" / "pocket_dots.safetensors"

    def paths(name: str) -> list[str]:
        return [urlsplit(found).path for found in addresses(SEEDS[name])]

    offset, outlined = paths(IMAGE_PROMPT)
    _, repainted, painted_over = paths(INPAINT)
    _, varied = paths(VARY)
    return {
        offset: lora.read_bytes(),
        outlined: file_of(drawing(STAR), "WEBP"),
        repainted: file_of(drawing(STAR), "PNG"),
        painted_over: file_of(mask(), "PNG"),
        varied: file_of(drawing(HEART), "JPEG"),
        FOLLOWED: file_of(drawing(HEART), "PNG"),
    }


@pytest.fixture(scope="module")
def hosts() -> Iterator[str]:
    """Serve the files of the examples; gives the address."""
    with serving(served()) as address:
        yield address


class PictureStudio(Studio):
    """A real studio with a models folder of its own, which reads from this machine."""

    def _command(self) -> list[str]:
        return [
            *super()._command(),
            *("--models-dir", str(self.folder / "models")),
            *("--allow-private-urls", "--allow-downloads", "127.0.0.1"),
        ]


@pytest.fixture(scope="module")
def picture_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("pictures") / "studio"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "pocket").symlink_to(ROOT / "models" / "pocket")
    studio = PictureStudio(folder, is_real=True)
    studio.start()
    yield studio
    studio.stop()


@pytest.fixture
def example(hosts: str):
    """Make the example of an endpoint, with our host in its addresses."""

    def make(endpoint: str, **changes: Any) -> dict[str, Any]:
        text = json.dumps({**SEEDS[endpoint], **changes})
        for found in addresses(json.loads(text)):
            parts = urlsplit(found)
            text = text.replace(f"{parts.scheme}://{parts.netloc}/", f"{hosts}/")
        return json.loads(text)

    return make


def small(picture: np.ndarray) -> np.ndarray:
    """A picture at the size that the pocket model knows."""
    return np.asarray(Image.fromarray(picture).resize((128, 128), Image.Resampling.BOX))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two pictures, in levels."""
    return float(np.abs(one.astype(float) - other).mean())


def asked_of_python(endpoint: str, arguments: dict[str, Any]) -> np.ndarray:
    """The picture that the Python client gets."""
    result = fal_client.subscribe(endpoint, arguments=arguments, with_logs=True)
    assert result["has_nsfw_concepts"] == [False]
    assert {item["content_type"] for item in result["images"]} == {
        f"image/{arguments['output_format']}"
    }
    return painted(result)


def require_same_of_javascript(
    node: Node, studio: Studio, endpoint: str, arguments: dict[str, Any], picture: np.ndarray
) -> None:
    """Both JavaScript clients get the same picture, to the last bit."""
    for age in AGES:
        found = node.call(studio.address, age, "run", endpoint=endpoint, input=arguments)
        assert np.array_equal(painted(output(found["value"], age)), picture)


def test_the_example_of_image_prompts_follows_its_drawing(
    picture_studio: Studio, node: Node, point, example
) -> None:
    point(picture_studio.address)
    asked = example(IMAGE_PROMPT)
    picture = asked_of_python(IMAGE_PROMPT, asked)
    assert picture.shape == (1024, 1024, 3)
    require_same_of_javascript(node, picture_studio, IMAGE_PROMPT, asked, picture)
    free = asked_of_python(IMAGE_PROMPT, {**asked, "image_prompt_1": {}})
    followed = small(drawing(STAR))
    assert edge_overlap(small(picture), followed) > 2 * edge_overlap(small(free), followed)


def test_an_image_in_another_slot_gives_its_colours(
    picture_studio: Studio, point, example, hosts: str
) -> None:
    point(picture_studio.address)
    slot = {"image_url": hosts + FOLLOWED, "type": "ImagePrompt", "weight": 1, "stop_at": 1}
    plain = {"prompt": "", "negative_prompt": "", "styles": [], "performance": "Speed"}
    asked = example(IMAGE_PROMPT, image_prompt_2=slot, **plain)
    seen = read(small(asked_of_python(IMAGE_PROMPT, asked)))
    assert (seen.shape, seen.colour, seen.background) == ("star", "green", "yellow")


def test_the_example_of_repainting_changes_what_is_masked(
    picture_studio: Studio, node: Node, point, example
) -> None:
    point(picture_studio.address)
    asked = example(INPAINT)
    picture = asked_of_python(INPAINT, asked)
    require_same_of_javascript(node, picture_studio, INPAINT, asked, picture)
    exact = asked_of_python(INPAINT, {**asked, "output_format": "png"})
    before = drawing(STAR)
    assert picture.shape == exact.shape == before.shape
    assert difference(picture, exact) < 3
    near = cv2.dilate(mask(), np.ones((2 * FEATHER + 1, 2 * FEATHER + 1), np.uint8)) > 0
    assert np.array_equal(exact[~near], before[~near])
    assert difference(exact[HOLE, HOLE], before[HOLE, HOLE]) > 10


def test_the_example_of_varying_keeps_a_likeness(
    picture_studio: Studio, node: Node, point, example
) -> None:
    point(picture_studio.address)
    asked = example(VARY)
    strong = asked_of_python(VARY, asked)
    require_same_of_javascript(node, picture_studio, VARY, asked, strong)
    subtle = asked_of_python(VARY, {**asked, "uov_method": "Vary (Subtle)"})
    new = asked_of_python(VARY, {**asked, "uov_method": "Disabled"})
    assert strong.shape == subtle.shape == (SIDE, SIDE, 3)
    assert new.shape == (1024, 1024, 3)
    far = [difference(small(picture), small(drawing(HEART))) for picture in (subtle, strong, new)]
    assert 2 < far[0] < far[1] < far[2]
