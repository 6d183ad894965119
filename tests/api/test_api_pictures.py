"""Pictures that a program sends along: which of them act, what they are called, what is said of those that do not."""

import base64
import hashlib
import io
from dataclasses import replace

import pytest
from PIL import Image

from engine import Catalog, Checkpoint
from engine.catalog import Weights
from engine.image_inputs import FURTHER, ImagePrompt
from engine.partners import COMMON
from tests.api.conftest import QUICK, TEXT


def file_of(colour: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (16, 8), colour).save(target, "PNG")
    return target.getvalue()


def address(colour: str) -> str:
    return "data:image/png;base64," + base64.b64encode(file_of(colour)).decode()


def name(colour: str) -> str:
    return hashlib.sha256(file_of(colour)).hexdigest()


def run(client, body, endpoint=""):
    return client.post(f"/{TEXT}{endpoint}", json={**QUICK, **body})


def plan_of(face):
    """The plan of the last job."""
    image = face.jobs.history(owner="local")[0]
    return face.jobs.job(image.job_id, owner="local").plan


def fault(answer):
    assert answer.status_code == 422, answer.text
    (item,) = answer.json()["detail"]
    return ".".join(map(str, item["loc"][1:])), item["type"]


@pytest.fixture
def face(face):
    """A studio that has all that image prompts take."""
    weights = [
        Weights(name=offer.file, path=face.data_dir, kind=offer.kind) for offer in COMMON.values()
    ]
    catalog = Catalog([Checkpoint(name="toy", path=face.data_dir)], weights)
    face.library = replace(face.library, catalog=catalog)
    return face


def test_a_control_picture_of_the_text_endpoint_arrives(client, face):
    body = {
        "control_image_url": address("red"),
        "control_type": "CPDS",
        "control_image_weight": 0.8,
        "control_image_stop_at": 0.7,
    }
    assert run(client, body).status_code == 200
    asked = ImagePrompt(image=name("red"), type="CPDS", weight=0.8, stop_at=0.7)
    assert plan_of(face).request.image_prompts == (asked,)
    (slot,) = plan_of(face).image_prompts.slots
    assert (slot.model, slot.weight, slot.stop_at) == (COMMON["CPDS"].file, 0.8, 0.7)


def test_four_pictures_of_four_kinds_arrive_in_their_order(client, face):
    kinds = ("ImagePrompt", "PyraCanny", "CPDS", "FaceSwap")
    colours = ("red", "green", "blue", "white")
    body = {
        f"image_prompt_{number}": {"image_url": address(colour), "type": kind}
        for number, (colour, kind) in enumerate(zip(colours, kinds, strict=True), 1)
    }
    assert run(client, body, "/image-prompt").status_code == 200
    slots = plan_of(face).image_prompts.slots
    assert [slot.type for slot in slots] == list(kinds)
    assert [slot.image for slot in slots] == [name(colour) for colour in colours]
    assert {(slot.stop_at, slot.weight) for slot in slots} == {(0.5, 1.0)}  # fal's, of any kind


@pytest.mark.parametrize("kind", FURTHER)
def test_the_wire_keeps_fals_four_types(client, kind):
    slots = {"image_prompt_1": {"image_url": address("red"), "type": kind}}
    answer = run(client, slots, "/image-prompt")
    assert fault(answer) == ("image_prompt_1.type", "literal_error")


def test_a_picture_that_is_followed_is_a_file_of_the_job(client, face):
    body = {"image_prompt_1": {"image_url": address("red")}}
    assert run(client, body, "/image-prompt").status_code == 200
    (slot,) = plan_of(face).image_prompts.slots
    stored = face.data_dir / "inputs" / slot.image
    assert stored.read_bytes() == file_of("red")


def test_a_picture_without_weight_is_as_none(client, face):
    body = {"image_prompt_1": {"image_url": address("red"), "weight": 0}}
    assert run(client, body, "/image-prompt").status_code == 200
    assert plan_of(face).image_prompts is None


@pytest.mark.parametrize("kind", ["ImagePrompt", "PyraCanny", "CPDS", "FaceSwap"])
def test_what_a_studio_has_no_weights_for_is_said_on_the_field(client, face, kind):
    face.library = replace(
        face.library, catalog=Catalog([Checkpoint(name="toy", path=face.data_dir)])
    )
    slots = {
        "image_prompt_1": {"image_url": address("red"), "weight": 0},
        "image_prompt_3": {"image_url": address("red"), "type": kind},
    }
    answer = run(client, slots, "/image-prompt")
    assert fault(answer) == ("image_prompt_3.type", "value_error")
    control = {"control_image_url": address("red"), "control_type": kind}
    assert fault(run(client, control)) == ("control_image_url", "value_error")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:image/png;base64,AAAA", "unsupported_image_format"),
        ("data:image/png;base64,!", "image_load_error"),
        ("http://127.0.0.1:9/a.png", "file_download_error"),
    ],
)
def test_a_picture_that_cannot_be_had_is_said_on_its_field(client, url, kind):
    body = {"image_prompt_2": {"image_url": url}, "image_prompt_1": {}}
    answer = run(client, body, "/image-prompt")
    assert fault(answer) == ("image_prompt_2.image_url", kind)


def test_nothing_is_fetched_for_a_call_that_is_wrong_besides(client):
    body = {"image_prompt_1": {"image_url": "http://127.0.0.1:9/a.png"}, "styles": ["None such"]}
    assert fault(run(client, body, "/image-prompt"))[0] == "styles.0"


def test_a_picture_to_repaint_arrives_with_what_its_mode_leaves_open(client, face):
    body = {
        "inpaint_image_url": address("red"),
        "mask_image_url": address("white"),
        "inpaint_mode": "Improve Detail (face, hand, eyes, etc.)",
        "inpaint_additional_prompt": "an eye",
        "inpaint_strength": 0.9,
        "invert_mask": True,
    }
    assert run(client, body, "/inpaint").status_code == 200
    asked = plan_of(face).request.inpaint
    assert (asked.image, asked.mask) == (name("red"), name("white"))
    assert (asked.invert_mask, asked.additional_prompt) == (True, "an eye")
    plan = plan_of(face)
    assert (plan.sampling.strength, plan.start.patch) == (0.5, None)  # the mode's
    assert plan.images[0].prompt.startswith("an eye")
    assert run(client, {**body, "override_inpaint_options": True}, "/inpaint").status_code == 200
    plan = plan_of(face)
    assert (plan.sampling.strength, plan.start.patch) == (0.9, COMMON["inpaint v2.6"].file)


def test_a_mask_or_sides_must_be_given(client):
    picture = {"inpaint_image_url": address("red")}
    assert fault(run(client, picture, "/inpaint")) == ("mask_image_url", "missing")
    sides = {**picture, "outpaint_selections": ["Left", "Top"]}
    assert run(client, sides, "/inpaint").status_code == 200


@pytest.mark.parametrize(
    ("method", "strength", "steps"),
    [("Vary (Subtle)", 0.5, 30), ("Vary (Strong)", 0.85, 30), ("Upscale (2x)", 0.382, 18)],
)
def test_a_picture_to_vary_or_enlarge_arrives(client, face, method, strength, steps):
    body = {"uov_image_url": address("red"), "uov_method": method}
    assert run(client, body, "/upscale-or-vary").status_code == 200
    sampling = plan_of(face).sampling
    assert (sampling.strength, sampling.num_inference_steps) == (strength, steps)
    assert plan_of(face).start.image == name("red")


def test_a_change_that_is_disabled_paints_from_words(client, face):
    body = {"uov_image_url": "nowhere", "uov_method": "Disabled"}
    assert run(client, body, "/upscale-or-vary").status_code == 200
    assert plan_of(face).start.kind == "noise"


INPAINT = {"inpaint_image_url": address("red"), "mask_image_url": address("white")}


@pytest.mark.parametrize(
    ("endpoint", "body", "flag"),
    [
        ("/inpaint", INPAINT, "mixing_image_prompt_and_inpaint"),
        (
            "/upscale-or-vary",
            {"uov_image_url": address("red")},
            "mixing_image_prompt_and_vary_upscale",
        ),
    ],
)
def test_pictures_act_together_where_they_are_mixed(client, face, endpoint, body, flag):
    body = {**body, "image_prompt_1": {"image_url": address("blue")}}
    assert run(client, body, endpoint).status_code == 200
    assert plan_of(face).image_prompts is None
    assert plan_of(face).notes == (f"image_prompt_1 has no effect without {flag}.",)
    assert run(client, {**body, flag: True}, endpoint).status_code == 200
    assert len(plan_of(face).image_prompts.slots) == 1
    assert plan_of(face).start.kind != "noise"


@pytest.mark.parametrize("is_mixed", [False, True])
def test_what_an_image_prompt_is_mixed_with_acts_where_that_is_asked(client, face, is_mixed):
    body = {
        "image_prompt_1": {"image_url": address("blue")},
        "uov_image_url": address("red"),
        "uov_method": "Vary (Subtle)",
        "mixing_image_prompt_and_vary_upscale": is_mixed,
    }
    assert run(client, body, "/image-prompt").status_code == 200
    assert plan_of(face).start.kind == ("picture" if is_mixed else "noise")


def test_one_picture_cannot_be_repainted_and_another_varied(client):
    body = {
        "image_prompt_1": {},
        "uov_image_url": address("red"),
        "uov_method": "Vary (Subtle)",
        "mixing_image_prompt_and_vary_upscale": True,
        "inpaint_image_url": address("red"),
        "mask_image_url": address("white"),
        "mixing_image_prompt_and_inpaint": True,
    }
    assert fault(run(client, body, "/image-prompt")) == ("uov_method", "value_error")
