"""The durable queue: what is submitted is painted, once, whatever dies in between. Sees the engine through a Protocol."""

from jobs.errors import (
    DataDirInUse,
    ImageNotFound,
    JobNotFound,
    QueueFull,
    ShuttingDown,
    StorageFailed,
)
from jobs.process_worker import ProcessWorker
from jobs.protocol import Engine, EngineSpec, Worker
from jobs.queue import Jobs
from jobs.thread_worker import ThreadWorker
from jobs.views import ImageView, JobSettings, JobState, JobView, WorkerState, WorkerStatus

__all__ = [
    "DataDirInUse",
    "Engine",
    "EngineSpec",
    "ImageNotFound",
    "ImageView",
    "JobNotFound",
    "JobSettings",
    "JobState",
    "JobView",
    "Jobs",
    "ProcessWorker",
    "QueueFull",
    "ShuttingDown",
    "StorageFailed",
    "ThreadWorker",
    "Worker",
    "WorkerState",
    "WorkerStatus",
]
