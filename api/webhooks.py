"""Webhooks: whoever asked to be told of the end of a call is told, again and again until he hears it or is given up.

What is still to be told is in the database, so it outlives the studio. One thread looks, a few tell. A receiver may hear
of a call twice, never of another's.
"""

import contextlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.results import answer_of
from api.settings import Api
from api.signing import SigningKey
from engine import EngineError
from engine.net import AddressRefused, Fetcher, FetchError, read_target
from jobs import Call, JobNotFound

log = logging.getLogger(__name__)

PAUSES_S = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0)
"""Waits after each try that failed, in seconds: ten tries in an hour and a half."""
TIMEOUT_S = 15.0
"""How long a receiver may take."""
LOOK_S = 1.0
"""Time between two looks for calls that are over."""
TELLERS = 4
"""Receivers that are told at the same time."""
LEAVE_S = 2.0
"""How long `stop` waits for each of them; a try that is cut short is made again after the next start."""


class Webhooks:
    """Tells receivers of the ends of calls."""

    def __init__(
        self,
        api: Api,
        key: SigningKey,
        fetcher: Fetcher,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            api: The studio.
            key: Signs what is told.
            fetcher: Goes to the receivers; it decides whether they may be on private networks.
            pauses_s: Waits after each try that failed; one more try than there are pauses is made.
            look_s: Time between two looks.
            clock: Unix time.
        """
        self._api = api
        self._key = key
        self._fetcher = fetcher
        self._pauses_s = pauses_s
        self._look_s = look_s
        self._clock = clock
        self._due: queue.Queue[Call | None] = queue.Queue()
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, name="webhooks", daemon=True),
            *(
                threading.Thread(target=self._tell_on, name=f"webhook {number}", daemon=True)
                for number in range(TELLERS)
            ),
        ]

    def start(self) -> None:
        """Begin to look and to tell, in the background."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell no more; what is left to tell waits for the next start."""
        self._stop.set()
        for _ in range(TELLERS):
            self._due.put(None)
        for thread in self._threads:
            thread.join(LEAVE_S)

    def _watch(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(EngineError):  # the database is busy, or the queue is closing
                self._look()
            self._stop.wait(self._look_s)

    def _look(self) -> None:
        """Hand out what is due, but for what was being told when the look began: that may be over since."""
        with self._lock:
            busy = set(self._busy)
        for call in self._api.jobs.calls.due_deliveries(self._clock()):
            if call.id not in busy:
                with self._lock:
                    self._busy.add(call.id)
                self._due.put(call)

    def _tell_on(self) -> None:
        while (call := self._due.get()) is not None and not self._stop.is_set():
            try:
                self._deliver(call)
            except EngineError as error:
                log.warning("webhook: %s", error, extra={"job": call.id})
            except Exception:  # a defect must not silence all others
                log.exception("webhook: a defect", extra={"job": call.id})
            finally:
                with self._lock:
                    self._busy.discard(call.id)

    def _deliver(self, call: Call) -> None:
        """Make one try and record it."""
        problem = self._try(call)
        if problem is None or problem.is_final or call.tries >= len(self._pauses_s):
            again = None
        else:
            again = self._clock() + self._pauses_s[call.tries]
        self._api.jobs.calls.note_delivery(call.id, is_done=problem is None, next_try_at=again)
        self._api.metrics.note_webhook(is_delivered=problem is None)
        if problem is None:
            log.info("webhook told", extra={"job": call.id})
        else:
            end = "given up" if again is None else "tried again later"
            facts = (_host(call), problem.text, end)
            log.warning("webhook at %s: %s, %s", *facts, extra={"job": call.id})

    def _try(self, call: Call) -> "_Problem | None":
        try:
            body = payload(self._api, call)
        except JobNotFound:
            return _Problem("its job is gone", is_final=True)
        if body is None:
            return _Problem("its job is not over", is_final=False)
        try:
            status = self._fetcher.post(
                call.webhook or "", body, headers=self._headers(call, body), timeout_s=TIMEOUT_S
            )
        except FetchError as error:
            return _Problem(str(error), is_final=isinstance(error, AddressRefused))
        if 200 <= status < 300:
            return None
        return _Problem(f"expected an answer of 2xx, got {status}", is_final=300 <= status < 400)

    def _headers(self, call: Call, body: bytes) -> dict[str, str]:
        """Sign a try; its time is part of what is signed."""
        user, now = quote(call.owner, safe="@|+"), str(int(self._clock()))
        return {
            "Content-Type": "application/json",
            "X-Fal-Webhook-Request-Id": call.id,
            "X-Fal-Webhook-User-Id": user,
            "X-Fal-Webhook-Timestamp": now,
            "X-Fal-Webhook-Signature": self._key.sign(call.id, user, now, body),
        }


class _Problem:
    """Why a try failed."""

    def __init__(self, text: str, *, is_final: bool) -> None:
        self.text = text
        self.is_final = is_final


def payload(api: Api, call: Call) -> bytes | None:
    """Write what is told of a call; None while it is not over.

    Raises:
        JobNotFound: its job is gone.
        StorageFailed: the database cannot be read.
    """
    answer = answer_of(api, call)
    if answer is None:
        return None
    is_ok = answer.status == 200
    told = {
        "error": None if is_ok else f"Invalid status code: {answer.status}",
        "gateway_request_id": call.id,
        "payload": answer.body,
        "request_id": call.id,
        "status": "OK" if is_ok else "ERROR",
    }
    return json.dumps(told).encode()


def jwks_routes(key: SigningKey) -> APIRouter:
    """List the route under which receivers find the public key."""

    async def jwks(_: Request) -> Response:
        return JSONResponse(key.jwks(), headers={"Cache-Control": "public, max-age=3600"})

    router = APIRouter(redirect_slashes=False)
    router.add_route("/rest/.well-known/jwks.json", jwks, ["GET"], include_in_schema=False)
    return router


def _host(call: Call) -> str:
    """Name the receiver's host; the rest of its address may be a secret."""
    try:
        return read_target(call.webhook or "").host
    except AddressRefused:
        return "no address"
