"""All that speaks to Ray, in a process of its own; started as ``python -m jobs.ray_child PARENT_PID``.

Ray ends a process whose cluster goes away, takes its signals and prints as it likes: none of that may happen to the server.
So an actor has a child of the server beside it, which passes on what either says; when it ends, Ray ends the actor.
"""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from jobs.child import first, open_line
from jobs.pipe import Pipe
from jobs.protocol import Command, Gone, Run, Stopping, Unable
from jobs.ray_actor import Painter
from jobs.ray_orders import Count, Hold, Order, Paint

log = logging.getLogger(__name__)

POLL_S = 10.0
"""How long the actor is asked to wait for news."""
ROOM_S = 60.0
"""How long an actor may wait for its place before that is said."""
VERDICT_S = 30.0
"""How long Ray may take to find out whether an actor is dead or its machine is."""
LOOK_S = 0.2
STORE_BYTES = 256 * 2**20
"""Shared memory of a cluster of this machine alone; pictures pass through it."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Nothing is reported to anybody, log lines come as they are."""
ROOT = str(Path(__file__).resolve().parents[1])


def main() -> None:
    """Do what the server ordered until that is done or the server is gone."""
    pipe = open_line()
    order: Order = first(pipe)
    ray = _load()
    try:
        match order:
            case Hold():
                _hold(ray, order, pipe)
            case Count(address):
                _join(ray, address)
                pipe.send(_room(ray))
            case Paint():
                _join(ray, order.address)
                _paint(ray, order, pipe)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        log.debug("Ray", exc_info=True)
        words = str(error).strip() or type(error).__name__
        pipe.send(Unable(f"Ray: {words.splitlines()[0]}"))
    except EOFError:
        pass  # the server is gone
    finally:
        ray.shutdown()


def _load() -> Any:
    os.environ.update(QUIET)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _hold(ray: Any, order: Hold, pipe: Pipe) -> None:
    ray.init(
        address="local",
        num_cpus=order.cpus,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        _temp_dir=order.folder,
    )
    pipe.send(ray.get_runtime_context().gcs_address)
    while pipe.receive(3600.0) is None:
        pass


def _join(ray: Any, address: str) -> None:
    ray.init(address=address, configure_logging=False)


def _room(ray: Any) -> int:
    nodes = sum(node["Alive"] for node in ray.nodes())
    return int(ray.cluster_resources().get("GPU", 0)) or nodes


def _paint(ray: Any, order: Paint, pipe: Pipe) -> None:
    """Start an actor, and pass on what it and the server say until either is gone."""
    has_gpus = (
        ray.cluster_resources().get("GPU", 0) >= 1 and order.spec.kwargs.get("device") != "cpu"
    )
    actor = (
        ray.remote(Painter)
        .options(
            num_cpus=0 if has_gpus else 1,
            num_gpus=1 if has_gpus else 0,
            max_concurrency=8,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {"PYTHONPATH": ROOT}},
        )
        .remote(order.spec, os.environ.get("POCHADE_LOG_LEVEL", "INFO"))
    )
    threading.Thread(
        target=_pass_commands, args=(pipe, actor), name="commands", daemon=True
    ).start()
    node, place = "", "a machine of the cluster"
    try:
        node, place = ray.get(_noted(ray, actor.place.remote()))
        news: list[Any] = []
        while None not in news:
            news = ray.get(actor.tell.remote(POLL_S))
            for message in news:
                if message is not None:
                    pipe.send(message)
        if Stopping() not in news:
            pipe.send(Gone(f"ended on {place}; the log has the details"))
    except ray.exceptions.RayError as error:
        verdict = _verdict(ray, actor, error)
        log.error("the worker on %s is gone: %s", place, str(verdict).replace("\n", " "))
        pipe.send(_gone(ray, verdict, node, place))


def _noted(ray: Any, call: Any) -> Any:
    """Say in the log when the cluster lets an actor wait."""
    if not ray.wait([call], timeout=ROOM_S)[0]:
        log.warning("the Ray cluster has no room for another worker yet")
    return call


def _pass_commands(pipe: Pipe, actor: Any) -> None:
    number = 0
    while True:
        try:
            command: Command | None = pipe.receive(3600.0)
        except EOFError:
            return
        if command is not None:
            actor.obey.remote(number, command, _files(command))
            number += 1


def _files(command: Command) -> dict[str, bytes]:
    """Read what a job's inputs hold; the engine says so where one is missing."""
    if not isinstance(command, Run):
        return {}
    found = {}
    for name, path in command.inputs.items():
        with contextlib.suppress(OSError):
            found[name] = path.read_bytes()
    return found


def _verdict(ray: Any, actor: Any, error: Exception) -> Exception:
    """Wait until Ray knows what became of an actor that it first only could not reach."""
    until = time.monotonic() + VERDICT_S
    while not isinstance(error, ray.exceptions.ActorDiedError) and time.monotonic() < until:
        try:
            ray.get(actor.place.remote(), timeout=VERDICT_S)
            break  # it can be reached again, but what it said meanwhile is lost
        except ray.exceptions.RayError as later:
            error = later
            time.sleep(LOOK_S)
    return error


def _gone(ray: Any, error: Exception, node: str, place: str) -> Gone:
    """Say how an actor died. No job is to blame when its machine went away, or cannot be reached."""
    if not node:
        return Gone("could not start in the cluster; the log has the details")
    has_crashed = isinstance(error, ray.exceptions.ActorDiedError)
    if has_crashed and any(it["NodeID"] == node and it["Alive"] for it in ray.nodes()):
        return Gone(f"died on {place}")
    return Gone(f"went away with its machine, {place}", is_blameless=True)


if __name__ == "__main__":
    main()
