"""The page on a real queue, open for a browser, and what the tests do with it."""

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import ui
from engine import Shelves, TextRequest, plan, read_library
from engine.net import Fetcher
from jobs import ImageView
from tests.ui.studios import full_library, open_jobs
from ui.image_input import Uploads
from ui.lora_library import LoraLibrary

PATIENCE_S = 30.0


class LiveStudio:
    """A running page whose engine makes a step only when it is told to, or one that paints with a models folder."""

    def __init__(self, folder: Path, models_dir: Path | None = None) -> None:
        self.gate = threading.Semaphore(0)
        engine = None if models_dir is None else partial(paint_on_one_thread, models_dir)
        read = (
            full_library
            if models_dir is None
            else partial(read_library, Shelves(models_dir=models_dir))
        )
        self.jobs = open_jobs(folder, gate=self.gate, engine=engine)
        self.studio = ui.Studio(
            jobs=self.jobs,
            library=read(),
            read_library=read,
            presets_dir=folder / "presets",
            uploads=Uploads(folder / "uploads"),
            fetcher=Fetcher(allow_private=True),
            loras=LoraLibrary(models_dir or folder / "models", folder / "data"),
        )
        self.demo = ui.build(self.studio)
        _, self.address, _ = self.demo.launch(
            **ui.launch_options(),
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={"routes": ui.routes(self.studio)},
        )

    def step(self, count: int = 1) -> None:
        """Let the engine go on."""
        self.gate.release(count)

    def rest(self) -> None:
        """End all jobs and take back the steps that were not made."""
        for job in self.jobs.active(owner="local"):
            self.jobs.cancel(job.id, owner="local")
        while self.jobs.active(owner="local"):
            self.gate.acquire(timeout=0.01)
        while self.gate.acquire(blocking=False):
            pass

    def submit(self, prompt: str, **request) -> str:
        """Queue a picture without the page."""
        wanted = TextRequest(prompt=prompt, num_images=1, **request)
        return self.jobs.submit(plan(wanted, self.studio.library, seed=11))

    def paint(self, prompt: str, **request) -> ImageView:
        """Make a picture without the page."""
        job_id = self.submit(prompt, **request)
        self.step(2)
        job = self.jobs.wait(job_id, timeout=30)
        assert job.state == "finished"
        return job.images[0]

    def newest(self, search: str) -> ImageView:
        """Find the newest picture whose prompt has these words."""
        return self.jobs.history(owner="local", search=search)[0]

    def asked(self, prompt: str) -> TextRequest:
        """Find what the job with this prompt asks for, once it is there."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for job in self.jobs.active(owner="local"):
                if job.prompt == prompt:
                    return job.plan.request
            time.sleep(0.02)
        raise AssertionError(f"nobody asked for {prompt!r}")

    def close(self) -> None:
        self.rest()
        self.demo.close()
        self.jobs.close()


def paint_on_one_thread(models_dir: Path) -> Any:
    """Make a real engine."""
    import torch

    from engine.engine import create

    engine = create(str(models_dir), device="cpu")
    torch.set_num_threads(1)
    return engine


def visit(page, studio: LiveStudio) -> None:
    page.goto(studio.address)
    page.wait_for_selector("#prompt textarea")
    page.wait_for_selector("#status[data-state=ready]")


def fill(page, prompt: str, images: int = 1) -> None:
    page.fill("#prompt textarea", prompt)
    page.fill("#num_images input[type=number]", str(images))
    page.keyboard.press("Tab")


def says(page, text: str) -> None:
    page.wait_for_function(
        "text => document.querySelector('#progress_text')?.textContent.includes(text)", arg=text
    )
