"""In whose name a job asks for a card, and what becomes of a refusal; without a card, ``spaces`` leaves functions as they are."""

import asyncio

import gradio as gr
import pytest

from zero_gpu import TOKEN, KeepVisitor, NotLent, Visitors, ZeroGpu, token_of_context

pytestmark = pytest.mark.filterwarnings("ignore:Error while reading infos from Nvidia")


@pytest.fixture
def visitors() -> Visitors:
    return Visitors()


@pytest.fixture
def lender(visitors: Visitors) -> ZeroGpu:
    return ZeroGpu(visitors, lambda: None)


def in_a_request(token: str | None, call):
    """Make a call where one of our routes would."""
    headers = [] if token is None else [(TOKEN.encode(), token.encode())]
    found = []

    async def route(scope, receive, send) -> None:
        found.append(call())

    asyncio.run(KeepVisitor(route)({"type": "http", "headers": headers}, None, None))
    return found[0]


def test_a_job_asks_in_the_name_of_who_submitted_it(visitors, lender) -> None:
    for name in ("ann", "bob"):
        in_a_request(name, lambda name=name: visitors.submit(lambda: f"job of {name}"))
    assert lender.on_behalf("job of ann", token_of_context) == "ann"
    assert lender.on_behalf("job of bob", token_of_context) == "bob"
    assert token_of_context() is None


def test_a_job_of_an_earlier_life_asks_in_nobodys_name(visitors, lender) -> None:
    in_a_request(None, lambda: visitors.submit(lambda: "anonymous"))
    for job in ("anonymous", "recovered"):
        assert lender.on_behalf(job, token_of_context) is None


@pytest.mark.parametrize(
    "error",
    [gr.Error("no seconds left", print_exception=False), RuntimeError("ZeroGPU API: 500")],
)
def test_a_refusal_is_an_error_with_one_sentence(lender, error) -> None:
    def paint(*given):
        yield ["begun"]
        raise error

    lent = lender.lend(paint, lambda *given: 30)
    story = lent("job", "plan", {}, 0)
    assert next(story) == ["begun"]
    with pytest.raises(
        NotLent, match="^ZeroGPU lends no graphics card for the 30 s that this job needs: "
    ):
        next(story)


def test_closing_the_call_closes_the_painting(lender) -> None:
    ended = []

    def paint(*given):
        try:
            while True:
                yield []
        finally:
            ended.append(given[0])

    story = lender.lend(paint, lambda *given: 30)("job", "plan", {}, 0)
    next(story)
    story.close()
    assert ended == ["job"]
