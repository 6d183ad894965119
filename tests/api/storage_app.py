"""The storage routes in a small app of their own: what they need of a studio, and nothing else."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.files import FileStore
from api.keys import Keys
from api.limits import Limits
from api.settings import Api
from api.storage import storage_routes
from engine.net import Fetcher


def storage_api(folder: Path, limits: Limits | None = None, **more: Any) -> Api:
    """Parts of a studio without a queue."""
    limits = limits or Limits()
    return Api(
        jobs=None,  # type: ignore[arg-type]  # the storage asks nothing of it
        library=None,  # type: ignore[arg-type]
        start={},
        files=FileStore(folder / "data", folder / "outputs", limits),
        keys=Keys(folder / "data"),
        fetcher=Fetcher(),
        limits=limits,
        **more,
    )


def storage_app(api: Api) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    app.include_router(storage_routes(api))
    return app
