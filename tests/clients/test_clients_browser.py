"""fal's JavaScript client in a real browser: a page of another origin asks a studio for everything by its proxy."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser import open_chromium
from tests.clients.running import CLIENTS, Node
from tests.clients.test_clients_python import require_picture

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def pages() -> Iterator[str]:
    """Serve the page and the clients that it loads; yields the address, which is another origin than the studio's."""
    handler = partial(Quiet, directory=str(CLIENTS))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_page_uses_the_studio_by_its_proxy(studio: str, node: Node, chromium_path: str) -> None:
    with pages() as address, open_chromium(chromium_path) as browser:
        page = browser.new_page()
        page.goto(f"{address}/browser.html")
        found = page.evaluate("(studio) => useStudio(studio)", studio)

    for way in ("polling", "streaming", "run"):
        assert len(found[way]["requestId"]) == 36
        require_picture(found[way]["data"])
    assert found["states"].count("COMPLETED") == 2
    assert found["messages"].count("step 10/20") >= 2
    assert found["bytes"] == found["run"]["data"]["images"][0]["file_size"]
    assert found["upload"] == "Hello, World!"
    assert found["error"] == [True, True, 422, ["body", "num_images"]]
