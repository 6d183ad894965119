"""Which workers a studio has, from what its owner says: one, one for each GPU, one for each named device, or a cluster's."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from engine import InvalidRequest
from jobs.crew import Build
from jobs.process_worker import ProcessWorker
from jobs.protocol import EngineSpec, WorkerGone
from jobs.ray_worker import RayCluster, RayWorker

KINDS = ("auto", "cpu", "cuda", "mps")


def devices_of(named: str, count_gpus: Callable[[], int | None]) -> list[str]:
    """List the devices that paint, a worker each.

    Args:
        named: A device, several with commas between, or ``auto`` or ``cuda`` for all GPUs there are.
        count_gpus: Counts them, where that matters; None where it cannot be known.

    Raises:
        InvalidRequest: one is no kind of device, or a GPU that is not there.
    """
    devices = named.split(",")
    for device in devices:
        if device.partition(":")[0] not in KINDS:
            raise InvalidRequest("device", f"expected one of {', '.join(KINDS)}, got {device!r}")
    if not any(device.startswith(("auto", "cuda")) for device in devices):
        return devices
    count = count_gpus()
    if count is not None:
        _require_gpus(devices, count)
    if named in ("auto", "cuda") and count is not None and count > 1:
        return [f"cuda:{number}" for number in range(count)]
    return devices


def _require_gpus(devices: Iterable[str], count: int) -> None:
    """Refuse a GPU beyond those that there are; what it is called otherwise its worker judges."""
    for device in devices:
        kind, _, number = device.partition(":")
        if kind == "cuda" and int(number if number.isdigit() else 0) >= count:
            there = [f"cuda:{place}" for place in range(count)]
            raise InvalidRequest(
                "device",
                f"expected one that is there ({', '.join(['cpu', *there])}), got {device!r}",
            )


def on_devices(spec: EngineSpec, devices: list[str]) -> Mapping[str, Build]:
    """Make a child process for each device, called as it is; of the same name a second time with a number."""
    if len(devices) == 1:
        return {"worker": partial(ProcessWorker, _for_device(spec, devices[0]))}
    builds: dict[str, Build] = {}
    for place, device in enumerate(devices):
        seen = devices[:place].count(device)
        name = f"{device} ({seen + 1})" if seen else device
        builds[name] = partial(ProcessWorker, _for_device(spec, device))
    return builds


def on_cluster(spec: EngineSpec, cluster: RayCluster, count: int | None) -> Mapping[str, Build]:
    """Make actors of a cluster: so many, or as many as it has room for now.

    Raises:
        InvalidRequest: that is none, the device cannot be chosen there, or the cluster does not answer.
    """
    device = spec.kwargs.get("device")
    if device not in (None, "auto", "cpu", "cuda"):
        raise InvalidRequest("device", f"expected auto, cpu or cuda with --ray, got {device!r}")
    if count is None:
        try:
            count = cluster.room()
        except WorkerGone as error:
            reason = str(error).removeprefix("cannot start: ")
            raise InvalidRequest("ray", f"expected a cluster that answers: {reason}") from error
    if count < 1:
        raise InvalidRequest("ray_workers", f"expected at least 1, got {count}")
    return {f"ray {number + 1}": partial(RayWorker, cluster, spec) for number in range(count)}


def _for_device(spec: EngineSpec, device: str) -> EngineSpec:
    return dataclasses.replace(spec, kwargs={**spec.kwargs, "device": device})
