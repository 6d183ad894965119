"""Everything that can go wrong with a picture, as types that both faces translate.

    EngineError
    ├── InvalidRequest      a field of the request breaks its rule
    ├── ModelNotFound       no weights of that name are in the models folder
    ├── ModelIncompatible   the weights are there, but are not what the engine can use
    ├── OutOfMemory         the device could not hold the work
    └── WorkerDied          the process that painted the job went away, twice

Knows nothing of HTTP or Gradio: each face maps this tree in one function.
"""

from typing import ClassVar


class EngineError(Exception):
    """Base of every error that a person may be shown; `str(error)` is one plain sentence."""

    kind: ClassVar[str] = "engine_error"


class InvalidRequest(EngineError):
    """A field of the request breaks its rule; the message names field, rule and value."""

    kind = "invalid_request"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        """Dotted path of the field, e.g. ``advanced.sampler``."""
        self.problem = problem
        """The rule and the value, without the field's name."""


class ModelNotFound(EngineError):
    """No weights of that name are in the models folder."""

    kind = "model_not_found"


class ModelIncompatible(EngineError):
    """The weights were found and read, but are not of a family or form the engine can use."""

    kind = "model_incompatible"


class OutOfMemory(EngineError):
    """The device could not hold the work."""

    kind = "out_of_memory"


class WorkerDied(EngineError):
    """The process that painted the job went away while it painted nothing else."""

    kind = "worker_died"
