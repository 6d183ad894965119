"""The front door of the engine: requests, plans, events, errors. Imports no torch."""

from engine.catalog import Catalog, Checkpoint
from engine.drawings import draw_control
from engine.errors import (
    EngineError,
    InvalidRequest,
    ModelIncompatible,
    ModelNotFound,
    OutOfMemory,
    WorkerDied,
)
from engine.events import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Progress,
    Queued,
    Started,
    Stopped,
    is_terminal,
)
from engine.fetching import Fetch, Fetches
from engine.geometry import Size, parse_size
from engine.incoming import check_asked, check_lora
from engine.library import Library, Shelves, read_library
from engine.models.hashes import FileHashes, models_hashes
from engine.places import read_catalog
from engine.plan import Plan, plan_from_json, plan_to_json, request_of
from engine.requests import TextRequest
from engine.settle import plan

__all__ = [
    "Catalog",
    "Checkpoint",
    "EngineError",
    "Event",
    "Failed",
    "Fetch",
    "Fetches",
    "FileHashes",
    "Finished",
    "ImageReady",
    "ImageSkipped",
    "InvalidRequest",
    "Library",
    "ModelIncompatible",
    "ModelNotFound",
    "OutOfMemory",
    "Plan",
    "Progress",
    "Queued",
    "Shelves",
    "Size",
    "Started",
    "Stopped",
    "TextRequest",
    "WorkerDied",
    "check_asked",
    "check_lora",
    "draw_control",
    "is_terminal",
    "models_hashes",
    "parse_size",
    "plan",
    "plan_from_json",
    "plan_to_json",
    "read_catalog",
    "read_library",
    "request_of",
]
