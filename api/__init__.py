"""The fal face: programs written for fal's Fooocus endpoints go on working here. Knows nothing of the page."""

from api.build import build
from api.front import Front
from api.settings import Api

__all__ = ["Api", "Front", "build"]
