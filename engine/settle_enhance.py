"""Settles *Enhance*: for each picture of a job a chain of further plans, each for the result of the one before.

Each is an ordinary plan: of a picture that is varied or enlarged, or of a mask that is found and a part that is repainted. A
request is settled by whoever calls, so that there is one place that decides.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from engine.enhance_inputs import Enhance, Region
from engine.errors import InvalidRequest, ModelNotFound
from engine.image_inputs import NO_PICTURE, Inpaint, MaskFrom, UpscaleOrVary
from engine.library import Library
from engine.plan import FOUND_MASK, Enhancement, FindMask, Given, Plan, only_image
from engine.requests import Advanced, TextRequest

_SHARED = ("model", "cloth", "sam_model", "box_threshold", "max_detections")
"""Fields that a region has of a mask that is looked for, by the same names."""
_PAINTED = (
    "mode",
    "disable_initial_latent",
    "engine",
    "strength",
    "respective_field",
    "erode_or_dilate",
    "invert_mask",
)
"""Fields that a region has of a picture that is repainted, by the same names."""


class Settle(Protocol):
    """Settles a request without enhancements: `engine.settle.plan`."""

    def __call__(self, request: TextRequest, library: Library, *, seed: int) -> Plan:
        """Make its plan."""


def plan_enhanced(request: TextRequest, library: Library, *, seed: int, settle: Settle) -> Plan:
    """Settle a request whose pictures are enhanced.

    Raises:
        EngineError: as `engine.settle.plan`; the fields are those of `enhance`.
    """
    asked = request.enhance
    assert asked is not None
    bare = request.model_copy(update={"enhance": None})
    if asked.image is None:
        first = settle(bare, library, seed=seed)
    else:
        alone = bare.model_copy(update={"num_images": 1, "image_prompts": ()})
        planned = settle(alone, library, seed=seed)
        first = dataclasses.replace(planned, start=Given(image=asked.image), refiner=None)
    chains = tuple(
        tuple(_chain(first, asked, index, library, settle)) for index in range(len(first.images))
    )
    return dataclasses.replace(
        first,
        request=first.request.model_copy(update={"enhance": asked}),
        enhancements=chains,
        keeps_final_only=asked.final_only,
    )


def _chain(
    first: Plan, asked: Enhance, index: int, library: Library, settle: Settle
) -> Iterator[Enhancement]:
    """List what is done to one picture.

    Fooocus takes the job's first seed and unread prompt for all of them; so it is with its compatibility alone.
    """
    whole = only_image(first, index).request
    if first.compat == "fooocus":
        whole = first.request.model_copy(update={"num_images": 1})
    bare = {"image_prompts": (), "inpaint": None, "upscale_or_vary": None}
    source = _Source(
        first, whole.model_copy(update=bare), whole.model_copy(update={"enhance": asked}), library
    )
    is_first = asked.order == "Before First Enhancement"
    if is_first and asked.upscale_or_vary is not None:
        yield _changed(source, asked, settle)
    for number, region in enumerate(asked.regions):
        yield _repainted(source, region, number, settle)
    if not is_first and asked.upscale_or_vary is not None:
        yield _changed(source, asked, settle)


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """What all that is done to one picture has in common."""

    first: Plan
    request: TextRequest
    """In its own words, without its pictures."""
    record: TextRequest
    """What *reuse* puts into the form."""
    library: Library


def _changed(source: _Source, asked: Enhance, settle: Settle) -> Enhancement:
    words: dict[str, str] = {}
    if asked.prompts != "Original Prompts" and asked.order != "Before First Enhancement":
        for name in ("prompt", "negative_prompt"):
            filled = [text for it in asked.regions if (text := getattr(it, name)).strip()]
            words |= {name: filled[-1]} if filled else {}
    assert asked.upscale_or_vary is not None
    change = UpscaleOrVary(image=NO_PICTURE, method=asked.upscale_or_vary, strength=asked.strength)
    request = source.request.model_copy(update={**words, "upscale_or_vary": change})
    with _named({"upscale_or_vary.": "enhance.", "enhance.method": "enhance.upscale_or_vary"}):
        painted = settle(request, source.library, seed=0)
    name = asked.upscale_or_vary
    return Enhancement(name=name, paint=_as_part(source, painted))


def _repainted(source: _Source, region: Region, number: int, settle: Settle) -> Enhancement:
    field = f"enhance.regions.{number}."
    given = {name: getattr(region, name) for name in _PAINTED}
    hole = Inpaint(image=NO_PICTURE, mask=FOUND_MASK, **given)
    words = {
        name: text
        for name in ("prompt", "negative_prompt")
        if (text := getattr(region, name)).strip()
    }
    shared = {name: getattr(region, name) for name in _SHARED}
    sought = MaskFrom(image=NO_PICTURE, prompt=region.look_for, **shared)
    more = source.request.advanced
    looking = TextRequest(
        mask_from=sought, advanced=Advanced(base_model=more.base_model, compat=more.compat)
    )
    request = source.request.model_copy(update={**words, "inpaint": hole})
    with _named({"mask_from.": field, "inpaint.": field, "inpaint:": "enhance.regions:"}):
        found = settle(looking, source.library, seed=0)
        painted = settle(request, source.library, seed=0)
    assert isinstance(found.start, FindMask)
    name = region.look_for.strip() if region.model == "sam" else region.model
    return Enhancement(name=name, find=found.start, paint=_as_part(source, painted))


def _as_part(source: _Source, painted: Plan) -> Plan:
    """Make a plan one of a chain: who paints at which step is as it was with the picture, as in Fooocus."""
    first, refiner, switch = source.first, painted.refiner, painted.refiner_switch
    had_own_end = first.refiner is not None and first.refiner.model == first.base_model
    if refiner is not None and refiner.model == painted.base_model and not had_own_end:
        refiner, switch = None, first.refiner_switch
    elif refiner is not None and first.refiner is not None and first.compat == "fooocus":
        refiner = dataclasses.replace(refiner, switch=first.refiner.switch)
    return dataclasses.replace(
        painted,
        refiner=refiner,
        refiner_switch=switch,
        request=source.record,
        is_enhancement=True,
    )


@contextmanager
def _named(names: dict[str, str]) -> Iterator[None]:
    """Let errors name the fields of `enhance`."""

    def told(text: str) -> str:
        for old, new in names.items():
            text = new + text.removeprefix(old) if text.startswith(old) else text
        return text

    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(told(error.field), error.problem) from error
    except ModelNotFound as error:
        raise ModelNotFound(told(str(error))) from error
