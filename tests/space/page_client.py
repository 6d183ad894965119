"""A visitor of the page without a browser: reads what Gradio tells a browser, presses its buttons, sees the pictures."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

PATIENCE_S = 240.0


class Visitor:
    """One browser session."""

    def __init__(self, address: str, headers: Mapping[str, str] | None = None) -> None:
        self.http = httpx.Client(base_url=address, headers=headers, timeout=120, trust_env=False)
        self.session = secrets.token_hex(6)
        self.cookie = ""
        self._keep(self.http.get("/", headers={"accept": "text/html"}))
        self.config: dict[str, Any] = self.get("/config").json()

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def _keep(self, answer: httpx.Response) -> None:
        """Keep cookies as a browser on https does."""
        for line in answer.headers.get_list("set-cookie"):
            self.cookie = line.partition(";")[0]
            self.http.headers["cookie"] = self.cookie

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path).raise_for_status()

    def press(self, button: str, given: Mapping[str, Any]) -> Any:
        """Press a button with the form as it is at first but for `given`; returns what the event answers."""
        parts = {part["id"]: part for part in self.config["components"]}
        pressed = next(
            it
            for it in self.config["dependencies"]
            if [self._part(button), "click"] in [list(target) for target in it["targets"]]
        )
        values = {
            it: parts[it]["props"].get("value") if parts[it]["type"] != "state" else None
            for it in pressed["inputs"]
        }
        values.update({self._part(name): value for name, value in given.items()})
        body = {
            "data": list(values.values()),
            "fn_index": pressed["id"],
            "session_hash": self.session,
        }
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", address) as answer:
            for line in answer.iter_lines():
                said = json.loads(line[6:]) if line.startswith("data: ") else {}
                if said.get("msg") == "process_completed":
                    assert said["success"], said
                    return said["output"]["data"][0]
        raise AssertionError("the event has no end")

    def paint(self, prompt: str, **given: Any) -> str:
        """Press *Generate*; returns the job's id."""
        job: str = self.press("generate", {"prompt": prompt, **given})["job"]
        return job

    def events(self, job: str) -> Iterator[dict[str, Any]]:
        """Follow a job."""
        until = time.monotonic() + PATIENCE_S
        with self.http.stream("GET", f"/studio/jobs/{job}/events") as answer:
            for line in answer.raise_for_status().iter_lines():
                assert time.monotonic() < until, line
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    def story(self, job: str) -> list[dict[str, Any]]:
        """Follow a job to its end."""
        return list(self.events(job))

    def images(self) -> list[dict[str, Any]]:
        """The pictures of the visitor's history."""
        found: list[dict[str, Any]] = self.get("/studio/images").json()["images"]
        return found

    def picture(self, image: str) -> bytes:
        return self.get(f"/studio/images/{image}/file").content

    def _part(self, elem_id: str) -> int:
        return next(
            it["id"] for it in self.config["components"] if it["props"].get("elem_id") == elem_id
        )
