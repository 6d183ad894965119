"""fal's five endpoints as models: names, types, defaults and bounds of what comes in and goes out."""

from api.wire.endpoints import ENDPOINTS, Endpoint

__all__ = ["ENDPOINTS", "Endpoint"]
