"""A file is fetched once however many ask for it; it can be ended in the middle, and what went wrong is a sentence."""

import hashlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import EngineError, Fetch, Fetches, InvalidRequest, ModelIncompatible, ModelNotFound
from engine.catalog import Source, Weights
from engine.net import Fetcher
from tests.file_server import FileServer, file_server

DATA = bytes(range(256)) * 4096  # 1 MiB
HALF = len(DATA) // 2
NAME = "helper.safetensors"
PATIENCE_S = 30.0


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        server.files[NAME] = DATA
        yield server


@pytest.fixture
def helper(server: FileServer, tmp_path: Path) -> Weights:
    return weights(server, tmp_path)


def weights(server: FileServer, folder: Path, sha256: str | None = None) -> Weights:
    source = Source(url=server.url(NAME), sha256=sha256)
    return Weights(name=NAME, path=folder / "controlnet" / NAME, kind="controlnet", source=source)


def fetches(arrived: Callable[[], None] = lambda: None) -> Fetches:
    return Fetches(Fetcher(), arrived)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def over(fetch: Fetch) -> Fetch:
    fetch.wait(PATIENCE_S)
    assert fetch.is_over
    return fetch


def test_many_presses_are_one_download(server: FileServer, helper: Weights) -> None:
    server.stalls[NAME] = HALF
    known, begun = fetches(), []
    presses = [
        threading.Thread(target=lambda: begun.extend(known.start([helper]))) for _ in range(8)
    ]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    wait_until(lambda: begun[0].done == HALF)
    assert len(set(begun)) == len(known.known()) == 1
    assert begun[0].total == len(DATA)
    server.go_on.set()
    over(begun[0])
    assert helper.path.read_bytes() == DATA
    assert server.asked == [NAME]
    assert known.known() == []
    assert known.start([helper]) == []


def test_who_waits_for_the_file_hears_of_it_before_the_fetch_is_over(
    server: FileServer, helper: Weights
) -> None:
    seen: list[bool] = []
    known = fetches(lambda: seen.append(helper.path.exists()))
    over(known.start([helper])[0])
    assert seen == [True]


def test_what_then_goes_wrong_counts_as_the_fetch_s(server: FileServer, helper: Weights) -> None:
    def arrived() -> None:
        raise InvalidRequest("own.json", "expected a preset")

    fetch = over(fetches(arrived).start([helper])[0])
    assert str(fetch.error) == "own.json: expected a preset"


def test_a_cancelled_one_is_forgotten_and_goes_on_where_it_stopped(
    server: FileServer, helper: Weights
) -> None:
    server.stalls[NAME] = HALF
    known = fetches()
    fetch = known.start([helper])[0]
    wait_until(lambda: fetch.done == HALF)
    known.cancel(helper)
    assert known.known() == []  # at once, though the server is silent
    server.go_on.set()
    over(fetch)
    assert fetch.error is None
    assert not helper.path.exists()
    again = over(known.start([helper])[0])
    assert again.error is None
    assert helper.path.read_bytes() == DATA
    assert again.total == len(DATA)


def test_pressed_again_while_the_cancelled_one_still_waits_for_its_server(
    server: FileServer, helper: Weights
) -> None:
    server.stalls[NAME] = HALF
    known = fetches()
    first = known.start([helper])[0]
    wait_until(lambda: first.done == HALF)
    known.cancel(helper)
    second = known.start([helper])[0]
    assert second is not first
    wait_until(lambda: second.done > 0)  # what the other has got: it waits for that
    server.go_on.set()
    assert over(second).error is None
    assert helper.path.read_bytes() == DATA


def test_one_that_waits_for_another_can_be_cancelled(server: FileServer, helper: Weights) -> None:
    server.stalls[NAME] = HALF
    job, person = fetches(), fetches()
    painting = job.start([helper])[0]
    wait_until(lambda: painting.done == HALF)
    waiting = person.start([helper])[0]
    person.cancel(helper)
    over(waiting)
    assert not painting.is_over
    server.go_on.set()
    assert over(painting).error is None
    assert helper.path.read_bytes() == DATA
    assert server.asked == [NAME]


def fetch_elsewhere(url: str, path: Path) -> None:
    item = Weights(name=NAME, path=path, kind="controlnet", source=Source(url=url))
    fetches().start([item])[0].wait(PATIENCE_S)


def test_a_worker_and_the_page_fetch_a_file_once(server: FileServer, helper: Weights) -> None:
    server.stalls[NAME] = HALF
    worker = multiprocessing.get_context("spawn").Process(
        target=fetch_elsewhere, args=(server.url(NAME), helper.path)
    )
    worker.start()
    wait_until(lambda: server.asked == [NAME])
    page = fetches().start([helper])[0]
    server.go_on.set()
    over(page)
    worker.join(PATIENCE_S)
    assert (page.error, worker.exitcode) == (None, 0)
    assert helper.path.read_bytes() == DATA
    assert server.asked == [NAME]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (ModelIncompatible, "sha256 .* does not match the expected 000000000000…; it was removed"),
        (ModelNotFound, "expected the file at http.*, got: 404 Not Found"),
    ],
)
def test_a_failure_is_a_sentence_until_it_is_tried_again(
    server: FileServer, tmp_path: Path, kind: type[EngineError], problem: str
) -> None:
    if kind is ModelNotFound:
        server.files.clear()
    item = weights(server, tmp_path, "0" * 64)
    known = fetches()
    fetch = over(known.start([item])[0])
    assert known.known() == [fetch]
    with pytest.raises(kind, match=problem):
        raise fetch.error or AssertionError
    server.files[NAME] = DATA
    right = weights(server, tmp_path, hashlib.sha256(DATA).hexdigest())
    assert over(known.start([right])[0]).error is None
    assert known.known() == []


def test_no_network_ends_when_nobody_wants_it_any_more(server: FileServer, helper: Weights) -> None:
    server.server_close()
    known = fetches()
    fetch = known.start([helper])[0]
    known.cancel(helper)
    over(fetch)  # though it would try for longer
    assert fetch.error is None
    assert not helper.path.exists()
