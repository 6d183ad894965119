"""What a Ray child (`jobs.ray_child`) is told to be when it starts; plain values, so that nobody here needs Ray."""

from dataclasses import dataclass

from jobs.protocol import EngineSpec


@dataclass(frozen=True, slots=True)
class Hold:
    """Start a cluster of this machine alone and hold it; the answer is its address."""

    folder: str
    """Where it keeps its files."""
    cpus: int | None = None
    """How many CPUs it is to have; None is all of the machine's."""


@dataclass(frozen=True, slots=True)
class Count:
    """Say how many workers a cluster has room for, one for each GPU, or where there is none for each machine."""

    address: str


@dataclass(frozen=True, slots=True)
class Paint:
    """Have an actor of a cluster paint, and pass on what it says; the answers are a worker's messages."""

    address: str
    spec: EngineSpec


Order = Hold | Count | Paint
