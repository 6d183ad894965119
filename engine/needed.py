"""The files of weights that a plan is painted with. Reads no weights."""

from collections.abc import Iterator

from engine.catalog import Catalog, Checkpoint, Weights
from engine.library import INTERPOSER
from engine.plan import FindMask, FromPicture, ImagePrompts, Lora, Plan, Repainting, Start


def needed_weights(catalog: Catalog, plan: Plan) -> list[Checkpoint | Weights]:
    """List the files of a plan: base model, refiner, VAE, the helpers of its pictures, LoRAs.

    Raises:
        ModelNotFound: one is not in the catalog.
    """
    if isinstance(plan.start, FindMask):
        return [*_mask_helpers(catalog, plan.start)]
    weights: list[Checkpoint | Weights] = [catalog.checkpoint(plan.base_model)]
    if plan.refiner is not None and plan.refiner.model != plan.base_model:
        weights.append(catalog.checkpoint(plan.refiner.model, "refiner_model"))
        if plan.refiner.family == "sd15":
            weights.append(catalog.weights("vae_approx", INTERPOSER.file, "refiner_model"))
    if plan.vae is not None:
        weights.append(catalog.vae(plan.vae))
    weights += _start_helpers(catalog, plan.start)
    if plan.image_prompts is not None:
        weights += _image_prompt_helpers(catalog, plan.image_prompts)
    return weights + [lora_file(catalog, item) for item in plan.loras]


def lora_file(catalog: Catalog, lora: Lora) -> Weights:
    """Find the file of a LoRA.

    Raises:
        ModelNotFound: it is not in the catalog.
    """
    return catalog.lora_at(lora.url) if lora.url else catalog.lora(lora.name)


def _start_helpers(catalog: Catalog, start: Start) -> Iterator[Weights]:
    if isinstance(start, Repainting):
        for name in (start.head, start.patch):
            if name is not None:
                yield catalog.weights("inpaint", name, "inpaint.engine")
        yield catalog.weights("upscaler", start.upscaler, "inpaint")
    elif isinstance(start, FromPicture) and start.upscaler is not None:
        yield catalog.weights("upscaler", start.upscaler, "upscale_or_vary.method")


def _mask_helpers(catalog: Catalog, start: FindMask) -> Iterator[Weights]:
    if start.network is not None:
        yield catalog.weights("inpaint", start.network, "mask_from.model")
    for name in (start.detector, start.sam):
        if name is not None:
            yield catalog.weights("segmenter", name, "mask_from.model")


def _image_prompt_helpers(catalog: Catalog, asked: ImagePrompts) -> Iterator[Weights]:
    names = [slot.model for slot in asked.slots] + [asked.negative, asked.face_detector]
    for name in dict.fromkeys(names):
        if name is not None:
            yield catalog.weights("controlnet", name, "image_prompts")
    if asked.encoder is not None:
        yield catalog.weights("clip_vision", asked.encoder, "image_prompts")
