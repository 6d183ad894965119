"""Our OpenAPI document against what the face really answers: thousands of drawn requests, good ones and bad ones."""

import itertools

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import build
from api.limits import Limits
from api.wire import ENDPOINTS
from tests.api.conftest import Face, follow, submit

CASES = 80
"""Requests that are drawn for each operation."""
LEAST = 2000
"""Requests that are asked of all operations together."""
KNOWN = 12
"""Requests of each kind that an operation can be asked about."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
REQUEST = "/queue/{endpoint}/requests/{{request_id}}"
FORMS = (
    ("POST", "/{endpoint}"),
    ("POST", "/queue/{endpoint}"),
    ("GET", REQUEST),
    ("GET", f"{REQUEST}/status"),
    ("GET", f"{REQUEST}/status/stream"),
    ("PUT", f"{REQUEST}/cancel"),
)
OPERATIONS = [(method, form.format(endpoint=name)) for name in ENDPOINTS for method, form in FORMS]


class Contract:
    """A face of which many may ask much, and its document."""

    def __init__(self, face: Face) -> None:
        limits = Limits(requests_per_s=1e9, burst=10**9)
        client = face.open(slots=8, max_waiting=10**6, limits=limits)
        self.document = client.get("/openapi.json").json()
        self.schema = schemathesis.openapi.from_asgi("/openapi.json", build(face.api))
        painted = [submit(client) for _ in range(KNOWN)]
        broken = [submit(client, {"num_images": 99}) for _ in range(KNOWN)]
        for call in painted:
            follow(client, call)
        self.known = [{"request_id": call["request_id"]} for call in painted + broken]
        """Requests that are over: some with pictures, some with a fault."""

    def cases(self, method: str, path: str):
        """Draw requests, good and bad ones; some of those about a request are about one that is known."""
        operation = self.schema[path][method]
        kinds = [operation.as_strategy(generation_mode=mode) for mode in MODES]
        if "{request_id}" in path:
            kinds.append(
                st.sampled_from(self.known).flatmap(
                    lambda values: operation.as_strategy(path_parameters=values)
                )
            )
        return st.one_of(kinds)


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    face = Face(tmp_path_factory.mktemp("contract"))
    yield Contract(face)
    face.close()


def test_every_operation_is_asked(contract):
    written = {
        (method.upper(), path)
        for path, methods in contract.document["paths"].items()
        for method in methods
    }
    assert written == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_as_the_document_says(contract, method, path):
    asked = itertools.count()

    @seed(20261121)
    @settings(
        max_examples=CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(contract.cases(method, path))
    def check(case):
        next(asked)
        case.call_and_validate(checks=CHECKS)

    check()
    assert next(asked) * len(OPERATIONS) >= LEAST
