"""Settles what the pictures of a request are for: what is followed, repainted, varied, enlarged, looked for, described."""

from collections.abc import Mapping
from typing import Any

from engine.catalog import Catalog, Checkpoint, Offer
from engine.describe_inputs import Describe, DescribeKind
from engine.errors import InvalidRequest, ModelNotFound
from engine.image_inputs import FACTORS, INPAINT_MODES, STRENGTHS, Inpaint, InpaintEngine, MaskFrom
from engine.partners import CAPTIONER, DETECTOR, MASK_NETWORKS, SAM, TAGGER, TAGS, Role, partner
from engine.plan import (
    DescribePicture,
    FindMask,
    FromNoise,
    FromPicture,
    ImagePrompts,
    Repainting,
    Slot,
    Start,
)
from engine.requests import TextRequest

PATCHES: Mapping[InpaintEngine, Role] = {
    "v1": "inpaint v1",
    "v2.5": "inpaint v2.5",
    "v2.6": "inpaint v2.6",
}


def settle_start(request: TextRequest, base: Checkpoint, catalog: Catalog) -> tuple[Start, float]:
    """Settle what the picture starts from, and the share of noise that it starts with."""
    if request.inpaint is not None:
        return _repainting(request.inpaint, base, catalog)
    if request.mask_from is not None:
        return _find_mask(request.mask_from, catalog), 1.0
    if request.describe is not None:
        return _describe(request.describe, base, catalog), 1.0
    asked = request.upscale_or_vary
    if asked is None:
        return FromNoise(), 1.0
    upscaler = None
    if asked.method in FACTORS:
        upscaler = partner("upscaler", base, catalog, "upscale_or_vary.method").name
    start = FromPicture(method=asked.method, image=asked.image, upscaler=upscaler)
    own = base.upscale_strength if asked.method in FACTORS.keys() & STRENGTHS.keys() else None
    return start, asked.strength or own or STRENGTHS.get(asked.method, 1.0)


def _repainting(asked: Inpaint, base: Checkpoint, catalog: Catalog) -> tuple[Repainting, float]:
    """Settle what the mode leaves open, as Fooocus does.

    Raises:
        InvalidRequest: there is nothing to paint.
        ModelNotFound: a helper is missing.
    """
    if asked.mask is None and not asked.outpaint:
        problem = "expected a mask, or sides to paint beyond, got neither"
        raise InvalidRequest("inpaint.mask", problem)
    usual = INPAINT_MODES[asked.mode]
    given = asked.model_dump(exclude_none=True)

    def settled(name: str) -> Any:
        return given.get(name, getattr(usual, name))

    engine = settled("engine")
    has_engine = engine != "None"

    def helper(role: Role, field: str = "inpaint.engine") -> str:
        return partner(role, base, catalog, field).name

    start = Repainting(
        image=asked.image,
        mask=asked.mask,
        outpaint=asked.outpaint,
        disable_initial_latent=settled("disable_initial_latent"),
        respective_field=settled("respective_field"),
        erode_or_dilate=asked.erode_or_dilate,
        invert_mask=asked.invert_mask,
        upscaler=helper("upscaler", "inpaint"),
        head=helper("inpaint head") if has_engine else None,
        patch=helper(PATCHES[engine]) if has_engine else None,
    )
    return start, settled("strength")


def settle_image_prompts(
    request: TextRequest, base: Checkpoint, catalog: Catalog
) -> ImagePrompts | None:
    """Settle the images to follow, and what that takes."""
    more, slots = request.advanced, []
    for index, asked in enumerate(request.image_prompts):
        stop_at, weight = asked.settled
        if weight and stop_at:
            model = partner(asked.type, base, catalog, f"image_prompts.{index}.type")
            slots.append(
                Slot(
                    type=asked.type,
                    image=asked.image,
                    model=model.name,
                    weight=weight,
                    stop_at=stop_at,
                )
            )
    if not slots:
        return None
    types = {slot.type for slot in slots}
    has_adapters = bool(types & {"ImagePrompt", "FaceSwap"})
    has_faces = "FaceSwap" in types and not more.skip_preprocessors

    def helper(role: Role) -> str:
        return partner(role, base, catalog, "image_prompts").name

    return ImagePrompts(
        slots=tuple(slots),
        attention=more.image_attention,
        softness=more.controlnet_softness,
        skip_preprocessors=more.skip_preprocessors,
        canny=(more.canny_low_threshold, more.canny_high_threshold),
        encoder=helper("image encoder") if has_adapters else None,
        negative=helper("image negative") if has_adapters else None,
        face_detector=helper("face detector") if has_faces else None,
    )


def _find_mask(asked: MaskFrom, catalog: Catalog) -> FindMask:
    """Settle which networks find a mask.

    Raises:
        ModelNotFound: one is not there and cannot be fetched.
    """
    field = "mask_from.model"
    if asked.model != "sam":
        network = catalog.weights("inpaint", MASK_NETWORKS[asked.model].file, field).name
        return FindMask(image=asked.image, model=asked.model, cloth=asked.cloth, network=network)
    sam = None
    if not asked.boxes_only:
        sam = catalog.weights("segmenter", SAM[asked.sam_model].file, "mask_from.sam_model").name
    return FindMask(
        image=asked.image,
        model=asked.model,
        detector=catalog.weights("segmenter", DETECTOR.file, field).name,
        sam=sam,
        prompt=asked.prompt,
        box_threshold=asked.box_threshold,
        max_detections=asked.max_detections,
        grow_boxes=asked.grow_boxes,
    )


def _describe(asked: Describe, base: Checkpoint, catalog: Catalog) -> DescribePicture:
    """Settle what puts a picture into words.

    Raises:
        ModelNotFound: it is not there and cannot be fetched.
    """
    field, has_own = "describe.kinds", base.words.is_file()
    usual: DescribeKind = "Base model" if has_own else "Photograph"
    kinds = asked.kinds or (usual,)
    if "Base model" in kinds:
        if not has_own:
            raise ModelNotFound(f"{field}: {base.name} has no words of its own for pictures")
        partner("image encoder", base, catalog, field)

    def name(kind: DescribeKind, offer: Offer) -> str | None:
        return catalog.weights("describer", offer.file, field).name if kind in kinds else None

    return DescribePicture(
        image=asked.image,
        reader=base.name if "Base model" in kinds else None,
        captioner=name("Photograph", CAPTIONER),
        tagger=name("Art/Anime", TAGGER),
        tags=name("Art/Anime", TAGS),
    )
