"""Headless Chromium for tests of the page. Playwright holds an event loop open, so a test module closes it when it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def open_chromium(path: str) -> Iterator[Any]:
    """Start the browser at `path`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()
