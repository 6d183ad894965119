"""A body is read as JSON that everything behind can hold, however it is nested, however long, or is a fault of the input."""

import json
import time

import pytest

from api.bodies import MAX_DEPTH, MAX_VALUES, read_json
from tests.api.conftest import TEXT, Face

PATHS = [f"/{TEXT}", f"/queue/{TEXT}"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    face = Face(tmp_path_factory.mktemp("bodies"))
    yield face.open()
    face.close()


def faults(client, path, text):
    """Send a body; returns the problems of the answer, which for the queue come with the result."""
    answer = client.post(path, content=text)
    if path.startswith("/queue"):
        assert answer.status_code == 200
        answer = client.get(answer.json()["response_url"])
    assert answer.status_code == 422, answer.text
    return json.loads(answer.text, parse_constant=pytest.fail)["detail"]


@pytest.mark.parametrize("depth", [MAX_DEPTH, 900, 10_000])
@pytest.mark.parametrize("path", PATHS)
def test_what_nests_too_deep_is_a_fault_of_the_input(client, path, depth):
    text = '{"made_up": ' + "[" * depth + "]" * depth + "}"
    assert [item["type"] for item in faults(client, path, text)] == ["json_invalid"]


def test_what_nests_less_deep_is_read():
    text = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert json.dumps(read_json(text.encode())) == text


@pytest.mark.parametrize("item", ["[]", "1"])
@pytest.mark.parametrize("path", PATHS)
def test_more_values_than_may_be_are_refused_before_they_take_memory(client, path, item):
    text = '{"styles": [' + ",".join([item] * MAX_VALUES) + "]}"
    assert [item["type"] for item in faults(client, path, text)] == ["json_invalid"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 309])
@pytest.mark.parametrize("path", PATHS)
def test_numbers_that_json_cannot_repeat_are_refused(client, path, number):
    found = faults(client, path, f'{{"guidance_scale": {number}}}')
    assert [item["type"] for item in found] == ["json_invalid"]


def test_the_longest_number_is_shown_as_it_came(client):
    (found,) = faults(client, PATHS[0], f'{{"num_images": {"9" * 308}}}')
    assert found["input"] == int("9" * 308)


def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_not(client):
    assert faults(client, PATHS[0], '{"prompt": "\\udead"}')[0]["type"] == "json_invalid"
    assert read_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("path", PATHS)
def test_large_values_at_fault_are_repeated_in_short(client, path):
    wrong = [{"junk": ["x" * 900] * 100}] * 60
    found = faults(client, path, json.dumps({"loras": wrong}))
    assert len(found) == 50
    assert len(json.dumps(found)) < 100_000


@pytest.mark.parametrize("path", PATHS)
def test_no_body_asks_for_nothing_special(client, path):
    answer = client.post(path)
    assert answer.status_code == 200
    if path.startswith("/queue"):
        until = time.monotonic() + 10
        while client.get(answer.json()["status_url"]).status_code == 202:
            assert time.monotonic() < until
        answer = client.get(answer.json()["response_url"])
    assert len(answer.json()["images"]) == 1


def test_no_body_lacks_what_an_endpoint_needs(client):
    (found,) = faults(client, f"/{TEXT}/inpaint", "")
    assert (found["loc"], found["type"]) == (["body", "inpaint_image_url"], "missing")
