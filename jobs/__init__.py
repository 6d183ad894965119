"""The durable queue: what is submitted is painted, once, whatever dies in between. Sees the engine through a Protocol."""

from jobs.calls import Call, CallStore
from jobs.crew import Build
from jobs.errors import (
    DataDirInUse,
    IdTaken,
    ImageNotFound,
    JobNotFound,
    QueueFull,
    ShuttingDown,
    StartTimeout,
    StorageFailed,
)
from jobs.log import LogLine
from jobs.process_worker import ProcessWorker
from jobs.protocol import Engine, EngineSpec, Worker
from jobs.queue import Jobs
from jobs.ray_worker import RayCluster, RayWorker
from jobs.thread_worker import ThreadWorker
from jobs.views import (
    ImageView,
    JobSettings,
    JobState,
    JobView,
    Standing,
    WorkerState,
    WorkerStatus,
)
from jobs.waiting import Priority

__all__ = [
    "Build",
    "Call",
    "CallStore",
    "DataDirInUse",
    "Engine",
    "EngineSpec",
    "IdTaken",
    "ImageNotFound",
    "ImageView",
    "JobNotFound",
    "JobSettings",
    "JobState",
    "JobView",
    "Jobs",
    "LogLine",
    "Priority",
    "ProcessWorker",
    "QueueFull",
    "RayCluster",
    "RayWorker",
    "ShuttingDown",
    "Standing",
    "StartTimeout",
    "StorageFailed",
    "ThreadWorker",
    "Worker",
    "WorkerState",
    "WorkerStatus",
]
