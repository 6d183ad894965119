"""A 12-megapixel photo in the sketcher: seconds from a press on *Generate* until the page knows that its job is queued.

python -m bench.large_photo [--rounds 5]; it takes Chromium, by CHROMIUM or on the path.
"""

import argparse
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from bench.start_up import ROOT, answers

SIZE = (4000, 3000)
MARK_PRESS = """() => window.addEventListener("click", (event) => {
    if (event.isTrusted && event.target.closest("#generate")) window.pressed = performance.now();
}, true)"""
JOB_ASKED = """() => {
    const job = performance.getEntriesByType("resource").find(({ name }) => /studio.jobs.[^/]+$/.test(name));
    return job && [job.name, job.startTime - window.pressed];
}"""
"""What the page asks first once a job is queued is what that job is."""


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    file = photo()
    cases = {"right after a stroke": False, "right after choosing and a stroke": True}
    with studio() as address, chromium() as browser:
        took = {
            case: [seconds(browser, address, file, is_new) for _ in range(rounds)]
            for case, is_new in cases.items()
        }
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    sys.stdout.write(f"{len(file) / 1e6:.1f} MB, {cores} cores, load average {loads}\n\n")
    sys.stdout.write("| *Generate* is pressed | median s | longest s |\n|---|---|---|\n")
    sys.stdout.writelines(
        f"| {case} | {statistics.median(times):.2f} | {max(times):.2f} |\n"
        for case, times in took.items()
    )


def photo() -> bytes:
    """Draw a JPEG of the size that a camera's have: soft colours with grain."""
    rng = np.random.default_rng(5)
    soft = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).resize(SIZE)
    grain = rng.normal(0, 6, (SIZE[1], SIZE[0], 3))
    values = np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=90)
    return file.getvalue()


@contextmanager
def studio() -> Iterator[str]:
    """Run the studio with its worker; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        places = ["--data-dir", f"{folder}/d", "--output-dir", f"{folder}/o"]
        command = [sys.executable, "app.py", "--model", "pocket", "--port", port, *places]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not answers(f"http://127.0.0.1:{port}/"):
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(40)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def seconds(browser: Any, address: str, file: bytes, is_new: bool) -> float:
    """Open the page, bring the photo, paint over it, press, and look when the page asks for its job.

    Args:
        browser: To open the page in.
        address: Of the studio.
        file: The photo.
        is_new: Whether the photo itself is still to be sent at the press.
    """
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-US")
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#status[data-state=ready]", timeout=60_000)
    page.evaluate(MARK_PRESS)
    page.click("#inpaint_button")
    with page.expect_file_chooser() as waiting:
        page.click("#sketch [data-act=choose]")
    given = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": file}
    if is_new:
        waiting.value.set_files(given)
        page.wait_for_selector(".sketch_status:has-text('4000×3000')")
    else:
        with page.expect_response(lambda it: it.url.endswith("studio/inputs")):
            waiting.value.set_files(given)
    paint(page)
    page.click("#generate")
    job, took = page.wait_for_function(JOB_ASKED, timeout=60_000).json_value()
    page.evaluate("job => fetch(`${job}/cancel`, {method: 'POST', body: '{}'})", job)
    page.wait_for_selector(
        "#stop", state="hidden", timeout=60_000
    )  # or the next one waits behind it
    context.close()
    return float(took) / 1000


def paint(page: Any) -> None:
    """Draw a stroke across the photo."""
    box = page.locator(".sketch_frame").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=4)
    page.mouse.up()


if __name__ == "__main__":
    main()
