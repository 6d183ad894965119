"""From what came over the wire to the engine's request: fal's defaults, the studio's own models, nothing painted yet."""

import dataclasses
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from api.answers import Refused, of_error, of_validation, problem, unprocessable
from api.lora import lora_request
from api.pictures import Pictures, read_pictures
from api.settings import Api
from api.wire import Endpoint
from api.wire.fields import WireModel
from api.wire.fooocus import OFFSET_LORA
from api.wire.lora import LoraInput
from engine import Checkpoint, EngineError, Library, Plan, TextRequest, plan
from engine.catalog import POCKET
from engine.requests import Advanced

log = logging.getLogger(__name__)

MAX_RANDOM_SEED = 2**53
"""Random seeds stay below this, so that every program can hold them (design D13)."""
OFFSET_FILE = PurePosixPath(OFFSET_LORA).name


def read_input(endpoint: Endpoint, body: object) -> WireModel:
    """Check an input against its model.

    Raises:
        Refused: 422, naming each field at fault.
    """
    try:
        return endpoint.input.model_validate(body)
    except ValidationError as error:
        raise Refused(of_validation(error)) from error


@dataclass(frozen=True, eq=False, slots=True)
class Settled:
    """What a call comes to."""

    plan: Plan
    files: Mapping[str, bytes]
    """Its pictures, by the names that the plan uses."""
    values: WireModel
    """The input, as it was understood."""


def translate(api: Api, endpoint: Endpoint, body: object) -> Settled:
    """Settle what an input asks for; its pictures are fetched last. Blocks: for threads only.

    Raises:
        Refused: 422, naming each field at fault.
    """
    values = read_input(endpoint, body)
    pictures = Pictures(is_studio=isinstance(values, LoraInput))
    library, seed = api.library(), secrets.randbelow(MAX_RANDOM_SEED)
    try:
        request = to_request(api, values, library)
        settled = plan(request, library, seed=seed)
        pictures = read_pictures(api, values)  # only once nothing else is wrong
        if pictures.fields:
            request = TextRequest.parse({**request.model_dump(), **pictures.fields})
            settled = plan(request, library, seed=seed)
    except EngineError as error:
        raise Refused(of_error(error, body, pictures.wire_name)) from error
    noted = dataclasses.replace(settled, notes=(*settled.notes, *pictures.notes))
    return Settled(noted, pictures.files, values)


def to_request(api: Api, values: WireModel, library: Library) -> TextRequest:
    """Write an input as a request of the engine; its pictures are left out.

    Raises:
        Refused: 422, more LoRAs than may be, or results that nobody would check.
        EngineError: a field breaks the engine's rules, or names what is not there.
    """
    if isinstance(values, LoraInput):
        model = api.aliases.get(values.model_name, values.model_name)
        _require_safety(api, values, is_pocket=model == POCKET)
        return TextRequest.parse(lora_request(values, model))
    advanced = _advanced(api, getattr(values, "advanced", None))
    base = library.catalog.checkpoint(advanced.base_model)
    _require_safety(api, values, is_pocket=base.is_pocket)
    same = {
        name: getattr(values, name) for name in TextRequest.model_fields if hasattr(values, name)
    }
    changed = {
        "advanced": advanced.model_dump(),
        "loras": _loras(api, values, base, library),
        "refiner_model": _own_name(api, getattr(values, "refiner_model", None)),
    }
    return TextRequest.parse({**same, **changed})


def _advanced(api: Api, asked: Advanced | None) -> Advanced:
    """Add the studio's base model and VAE; its VAE goes with its base model alone."""
    asked = asked or Advanced()
    start = dict(api.start) if asked.base_model is None else {}
    changes = {
        "base_model": _own_name(api, asked.base_model or start.get("base_model")),
        "vae": asked.vae or start.get("vae"),
    }
    return asked.model_copy(update=changes)


def _own_name(api: Api, name: str | None) -> str | None:
    return None if name is None else api.aliases.get(name, name)


def _loras(
    api: Api, values: WireModel, base: Checkpoint, library: Library
) -> list[Mapping[str, Any]]:
    """List the LoRAs; fal's own, where nobody asked for it, only if it is there and fits (design D12)."""
    asked = [item for item in getattr(values, "loras", ()) if item.path]
    if "loras" not in values.model_fields_set:
        if base.is_pocket or not library.catalog.has("lora", OFFSET_FILE):
            log.info("%s is left out: it is not there, or does not fit %s", OFFSET_FILE, base.name)
            return []
        return [{"path": OFFSET_FILE, "scale": item.scale} for item in asked]
    if len(asked) > api.limits.loras:
        most = api.limits.loras
        message = f"List should have at most {most} items, not {len(asked)}"
        raise Refused(
            unprocessable([problem(["loras"], message, "sequence_too_long", ctx={"limit": most})])
        )
    return [{"path": item.path, "scale": item.scale} for item in asked]


def _require_safety(api: Api, values: WireModel, *, is_pocket: bool) -> None:
    """Refuse pictures that are not to be checked, where all must be; the pocket model paints none that need it."""
    name = "enable_safety_checker"
    asked = getattr(values, name, None)
    if not api.require_safety or is_pocket or asked:
        return
    message = "The safety checker is required here and cannot be switched off."
    raise Refused(unprocessable([problem([name], message, "feature_not_supported", input=asked)]))
