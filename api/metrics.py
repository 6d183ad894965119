"""What the studio counts, in the form that Prometheus reads: jobs, pictures, seconds, requests, webhooks, files.

No label is made from anything that a request says: routes go by their templates, methods and states by fixed lists.
"""

import time
from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute, Route

from api.files import FileStore
from api.limits import App, Message, Receive, Scope, Send
from engine import Event, Failed, Finished, ImageReady, Queued, Stopped
from jobs import Jobs, WorkerState

TYPE = CONTENT_TYPE_LATEST
"""Content type of `Metrics.text`."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Stands for all methods and paths that are none of ours."""
STAGES = ("load", "encode", "sample", "decode", "total")
"""Stages whose seconds are told; the engine may time others."""
STATES: tuple[WorkerState, ...] = ("starting", "loading", "ready", "restarting", "stopped")
STAGE_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)
PREFIX = "pochade"


class Metrics:
    """The numbers of one studio. Safe from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._submitted = self._counter("jobs_submitted", "Jobs that were taken in")
        self._ended = self._counter("jobs_ended", "Jobs that are over, by how they ended", "state")
        self._images = self._counter("images", "Pictures made")
        self._webhooks = self._counter("webhooks", "Tries to tell a receiver", "outcome")
        self._stages = Histogram(
            f"{PREFIX}_stage_seconds",
            "Seconds that a finished job spent in each stage",
            ["stage"],
            buckets=STAGE_S,
            registry=self._registry,
        )
        self._requests = Histogram(
            f"{PREFIX}_request_seconds",
            "Seconds until an answer began",
            ["method", "route", "status"],
            buckets=REQUEST_S,
            registry=self._registry,
        )
        for state in ("finished", "failed", "stopped"):
            self._ended.labels(state)
        for outcome in ("delivered", "failed"):
            self._webhooks.labels(outcome)

    def watch(self, jobs: Jobs, files: FileStore) -> None:
        """Count what happens to jobs from now on, and look at queue, worker and files whenever somebody reads."""
        self._registry.register(_Now(jobs, files))
        jobs.listen(self._note)
        self._submitted.inc(jobs.waiting() + jobs.running())  # of an earlier life

    def text(self) -> bytes:
        """Write all numbers, as `TYPE`."""
        return generate_latest(self._registry)

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer; `route` is a template."""
        known = method if method in METHODS else OTHER
        self._requests.labels(known, route, str(status)).observe(seconds)

    def note_webhook(self, *, is_delivered: bool) -> None:
        """Count a try to tell a receiver."""
        self._webhooks.labels("delivered" if is_delivered else "failed").inc()

    def _note(self, event: Event) -> None:
        match event:
            case Queued():
                self._submitted.inc()
            case ImageReady():
                self._images.inc()
            case Finished(timings=timings):
                self._ended.labels("finished").inc()
                for stage in STAGES:
                    if stage in timings:
                        self._stages.labels(stage).observe(timings[stage])
            case Failed():
                self._ended.labels("failed").inc()
            case Stopped():
                self._ended.labels("stopped").inc()
            case _:
                pass

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)


class _Now(Collector):
    """What is looked at when somebody reads."""

    def __init__(self, jobs: Jobs, files: FileStore) -> None:
        self._jobs = jobs
        self._files = files

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily(f"{PREFIX}_jobs", "Jobs that are not over", labels=["state"])
        jobs.add_metric(["waiting"], self._jobs.waiting())
        jobs.add_metric(["running"], self._jobs.running())
        yield jobs
        worker = GaugeMetricFamily(
            f"{PREFIX}_worker_state",
            "1 for what the worker that is best off is up to",
            labels=["state"],
        )
        status = self._jobs.status()
        for state in STATES:
            worker.add_metric([state], status.state == state)
        yield worker
        name, meaning = f"{PREFIX}_worker_has_painted", "1 once this worker has made a picture"
        yield GaugeMetricFamily(name, meaning, value=status.has_painted)
        ready = GaugeMetricFamily(
            f"{PREFIX}_worker_ready", "1 while this worker takes jobs", labels=["worker"]
        )
        load = GaugeMetricFamily(
            f"{PREFIX}_worker_jobs", "Jobs that this worker paints", labels=["worker"]
        )
        for one in self._jobs.workers():
            ready.add_metric([one.name], one.state == "ready")
            load.add_metric([one.name], one.jobs)
        yield from (ready, load)
        name, meaning = f"{PREFIX}_files_bytes", "Bytes that uploaded files take"
        yield GaugeMetricFamily(name, meaning, value=self._files.room.total)


class Measured:
    """Counts the answers to requests and how long they took to begin."""

    def __init__(self, app: App, *, metrics: Metrics, routes: Iterable[BaseRoute]) -> None:
        """Wrap `app`, which has these routes."""
        self._app = app
        self._metrics = metrics
        self._templates = {
            route.path: route.path_regex for route in routes if isinstance(route, Route)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it; one that breaks off counts as 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500
        took_s: float | None = None

        async def send_noted(message: Message) -> None:
            nonlocal status, took_s
            if message["type"] == "http.response.start":
                status, took_s = message["status"], time.monotonic() - started
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            seconds = time.monotonic() - started if took_s is None else took_s
            self._metrics.note_request(
                scope["method"], self._template(scope["path"]), status, seconds
            )

    def _template(self, path: str) -> str:
        found = (name for name, regex in self._templates.items() if regex.match(path))
        return next(found, OTHER)
