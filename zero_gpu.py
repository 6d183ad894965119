"""ZeroGPU: the graphics card that a Hugging Face Space is lent for one call at a time, by way of the package ``spaces``.

That package finds the visitor whose quota a call is charged to in Gradio's context, so this module and the page are the two that
know Gradio. It has to be imported before torch and Gradio, which it changes; so `open_jobs` comes first.
"""

import contextvars
import logging
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

from engine import EngineError, Fetch, Plan
from guard import App, Receive, Scope, Send
from jobs import EngineSpec, Jobs, JobSettings
from jobs.inline_worker import InlineEngine, InlineWorker, Lent, Paint, Seconds, Story
from jobs.pace import Pace

log = logging.getLogger(__name__)

T = TypeVar("T")
TOKEN = "x-ip-token"
"""Header in which the proxy of Spaces says who asks; it stands for that visitor's quota."""
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
MAX_KNOWN = 10_000
"""Jobs whose visitors are remembered."""


class Visitors:
    """Remembers for jobs that wait whose quota they are charged to; in memory alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, str] = OrderedDict()

    def submit(self, submit: Callable[[], str]) -> str:
        """Submit a job in the name of the visitor who asks now; the job cannot begin before that is noted."""
        token = token_of_context()
        with self._lock:
            job_id = submit()
            if token is not None:
                self._tokens[job_id] = token
            while len(self._tokens) > MAX_KNOWN:
                self._tokens.popitem(last=False)
        return job_id

    def find(self, job_id: str) -> str | None:
        """Return the token of the visitor who asked for a job; None after a restart."""
        with self._lock:
            return self._tokens.get(job_id)


class LentJobs(Jobs):
    """The queue, where each job is charged to the visitor who submits it."""

    def __init__(self, visitors: Visitors, pace: Pace, *given: Any) -> None:
        super().__init__(*given)
        self._visitors = visitors
        self._pace = pace

    def seconds(self, plan: Plan) -> int:
        """Say how many seconds of a visitor's quota a plan needs."""
        return charged(self._pace.seconds(plan))

    def submit(self, plan: Plan, *given: Any, **more: Any) -> str:
        """Take a job in, as `Jobs.submit` does, and note who asks."""
        return self._visitors.submit(lambda: super(LentJobs, self).submit(plan, *given, **more))


class KeepVisitor:
    """Lets our own routes know who asks as Gradio's events do. A pure ASGI wrapper."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            from gradio import Request as GradioRequest
            from gradio.context import LocalContext
            from starlette.requests import Request

            LocalContext.request.set(GradioRequest(Request(scope)))
        await self._app(scope, receive, send)


class NotLent(EngineError):
    """There was no graphics card for a job, or not for as long as it needs."""

    kind = "not_lent"


class ZeroGpu:
    """Lends the card of ZeroGPU."""

    def __init__(self, visitors: Visitors, page: Callable[[], Any]) -> None:
        """Prepare torch and Gradio for it; neither may be imported before, nor the page be launched.

        Args:
            visitors: Knows who asked for a job.
            page: Gives the page once it is launched: a process that is forked closes the page's connections in itself.
        """
        import spaces

        spaces.disable_gradio_auto_wrap()
        self._visitors = visitors
        self._page = page

    def lend(self, paint: Paint, seconds: Seconds) -> Paint:
        """Let `paint` have the card for so many seconds."""
        import httpx
        import spaces
        from gradio import Error

        lent = spaces.GPU(duration=seconds)(paint)

        def told(*given: Any) -> Story:
            asked_s = charged(seconds(*given))
            log.info("asks for %d s of a graphics card", asked_s, extra={"job": given[0]})
            try:
                yield from lent(*given)
            except Error as error:
                raise NotLent(refusal(error.title, str(error.message), asked_s)) from error
            except (RuntimeError, httpx.HTTPError) as error:
                raise NotLent(refusal("", str(error), asked_s)) from error

        return told

    def on_behalf(self, job_id: str, call: Callable[[], T]) -> T:
        """Make a call in the name of the visitor who asked for a job, whether or not he is still there."""
        from gradio import Request as GradioRequest
        from gradio.context import LocalContext
        from starlette.requests import Request

        def named() -> T:
            token = self._visitors.find(job_id)
            headers = [] if token is None else [(TOKEN.encode(), token.encode("latin-1"))]
            asked = Request({"type": "http", "headers": headers})
            LocalContext.request.set(GradioRequest(asked))
            LocalContext.blocks.set(self._page())
            return call()

        return contextvars.copy_context().run(named)


def open_jobs(
    settings: JobSettings,
    spec: EngineSpec,
    fetch: Callable[[Plan | None], Sequence[Fetch]],
    page: Callable[[], Any],
) -> LentJobs:
    """Build the engine in this process, load its base model, and make the queue whose jobs it paints.

    Args:
        settings: How the queue works.
        spec: How the engine is built.
        fetch: Brings what a plan needs, or for None the base model.
        page: Gives the page once it is launched.

    Raises:
        EngineError: the engine cannot be built.
    """
    visitors = Visitors()
    lender = ZeroGpu(visitors, page)
    base = spec.base_model or ""
    pace = Pace(settings.data_dir / "pace.json", base)
    engine = InlineEngine(cast(Lent, spec.build()), lender, pace, fetch)
    for arriving in fetch(None):
        arriving.wait()
    engine.load(base)
    return LentJobs(visitors, pace, settings, lambda: InlineWorker(engine, base))


def charged(seconds: int) -> int:
    """Say what is charged for so many seconds: on some cards more. Versions of ``spaces`` that don't say so charge what is asked."""
    try:
        from spaces.zero.client import get_duration_seconds

        charged_s: float = get_duration_seconds(timedelta(seconds=seconds), None)
        return math.ceil(charged_s)
    except (ImportError, TypeError):
        return seconds


def token_of_context() -> str | None:
    """Find the token of the visitor whose request or event this is."""
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    token: str | None = None if request is None else request.headers.get(TOKEN)
    return token


def refusal(title: str, message: str, asked_s: int) -> str:
    """Say in one sentence why there is no picture.

    Args:
        title: What ``spaces`` calls it, for example ``ZeroGPU quota exceeded``.
        message: What it says of it: text, in which links are written as in Markdown.
        asked_s: The seconds that the job asked for.
    """
    said = _LINK.sub(r"\1", message).strip().rstrip(".")
    if title == "ZeroGPU worker error" and said == "GPU task aborted":
        return f"the graphics card was taken back before the picture was done; the job had asked for {asked_s} s"
    if title == "ZeroGPU worker error":
        return f"an internal error ({said}); the log has the details"
    return f"ZeroGPU lends no graphics card for the {asked_s} s that this job needs: {said}"
