"""What the queue itself may refuse, as types of the engine's tree that both faces translate.

EngineError
├── QueueFull        as many jobs of an owner wait as may wait
├── ShuttingDown     the server takes no more jobs
├── JobNotFound      no job of that id belongs to the one who asks
├── ImageNotFound    no picture of that id belongs to the one who asks
├── IdTaken          somebody else has a job or a call of that id
├── StartTimeout     the job did not start in time
├── StorageFailed    a file or the database could not be written
└── DataDirInUse     another server works on the same data folder
"""

from engine import EngineError


class QueueFull(EngineError):
    """As many jobs wait, of an owner or of all, as may wait, or as the caller wants before theirs."""

    kind = "queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"queue: expected fewer than {limit} waiting jobs, got {limit}; try again later"
        )
        self.limit = limit


class ShuttingDown(EngineError):
    """The server takes no more jobs."""

    kind = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again in a minute")


class JobNotFound(EngineError):
    """No job of that id belongs to the one who asks."""

    kind = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job: no job {job_id[:64]!r}")


class ImageNotFound(EngineError):
    """No picture of that id belongs to the one who asks, or it was deleted."""

    kind = "image_not_found"

    def __init__(self, image_id: str) -> None:
        super().__init__(f"image: no picture {image_id[:64]!r}")


class IdTaken(EngineError):
    """Somebody else has a job or a call of the id that was chosen."""

    kind = "id_taken"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"request id: expected one of your own, got {job_id[:64]!r}")


class StartTimeout(EngineError):
    """The job did not start within the time that was given for it."""

    kind = "start_timeout"

    def __init__(self) -> None:
        super().__init__("the job did not start within the time that was given for it")


class StorageFailed(EngineError):
    """A file or the database could not be written or read; the message says why."""

    kind = "storage_failed"


class DataDirInUse(EngineError):
    """Another server works on the same data folder."""

    kind = "data_dir_in_use"
