"""The files of weights that a plan is painted with. Reads no weights."""

from collections.abc import Iterator, Mapping

from engine.catalog import Catalog, Checkpoint, Weights
from engine.library import INTERPOSER
from engine.plan import (
    DescribePicture,
    Enhancement,
    FindMask,
    FromPicture,
    Given,
    ImagePrompts,
    Lora,
    Plan,
    Repainting,
    Start,
)
from engine.references import AddOn, find_weights
from engine.studio_plan import Asset, StudioPlan

FIELDS: Mapping[AddOn, str] = {
    "unet": "studio.unet_name",
    "lora": "studio.loras",
    "embedding": "studio.embeddings",
    "controlnet": "studio.controlnets",
    "ip_adapter": "studio.ip_adapters",
    "clip_vision": "studio.image_encoder_path",
    "ic_light": "studio.ic_light.path",
}
"""The fields of a request that name weights, for messages."""


def needed_weights(catalog: Catalog, plan: Plan) -> list[Checkpoint | Weights]:
    """List the files of a plan: base model, refiner, VAE, the helpers of its pictures, LoRAs.

    Raises:
        ModelNotFound: one is not in the catalog.
    """
    later = [
        weights
        for chain in plan.enhancements[:1]
        for it in chain
        for weights in _later(catalog, it)
    ]
    if isinstance(plan.start, FindMask):
        return [*_mask_helpers(catalog, plan.start)]
    if isinstance(plan.start, DescribePicture):
        return [*_describers(catalog, plan.start)]
    if isinstance(plan.start, Given):
        return later
    weights: list[Checkpoint | Weights] = [base_checkpoint(catalog, plan)]
    if plan.refiner is not None and plan.refiner.model != plan.base_model:
        weights.append(catalog.checkpoint(plan.refiner.model, "refiner_model"))
        if plan.refiner.family == "sd15":
            weights.append(catalog.weights("vae_approx", INTERPOSER.file, "refiner_model"))
    if plan.vae is not None:
        weights.append(catalog.vae(plan.vae))
    weights += _start_helpers(catalog, plan.start)
    if plan.image_prompts is not None:
        weights += _image_prompt_helpers(catalog, plan.image_prompts)
    if plan.studio is not None:
        weights += _studio_helpers(catalog, plan.studio)
    return weights + [lora_file(catalog, item) for item in plan.loras] + later


def _later(catalog: Catalog, asked: Enhancement) -> Iterator[Checkpoint | Weights]:
    """List what one enhancement takes."""
    if asked.find is not None:
        yield from _mask_helpers(catalog, asked.find)
    yield from needed_weights(catalog, asked.paint)


def base_checkpoint(catalog: Catalog, plan: Plan) -> Checkpoint:
    """Find the base model of a plan.

    Raises:
        ModelNotFound: it is not in the catalog.
    """
    if plan.studio is None:
        return catalog.checkpoint(plan.base_model)
    reference = plan.studio.base_model.reference
    return find_weights(catalog, "checkpoint", reference, "base_model")


def add_on(catalog: Catalog, use: AddOn, asset: Asset) -> Weights:
    """Find what the LoRA studio was asked to take.

    Raises:
        ModelNotFound: it is not in the catalog.
    """
    return find_weights(catalog, use, asset.reference, FIELDS[use])


def lora_file(catalog: Catalog, lora: Lora) -> Weights:
    """Find the file of a LoRA.

    Raises:
        ModelNotFound: it is not in the catalog.
    """
    if lora.reference is None:
        return catalog.lora(lora.name)
    return find_weights(catalog, "lora", lora.reference, FIELDS["lora"])


def _studio_helpers(catalog: Catalog, studio: StudioPlan) -> Iterator[Weights]:
    assets: list[tuple[AddOn, Asset | None]] = [
        ("unet", studio.unet),
        *(("embedding", item.weights) for item in studio.embeddings),
        *(("controlnet", item.weights) for item in studio.nets),
        *(("ip_adapter", item.weights) for item in studio.adapters),
        ("clip_vision", studio.encoder),
        ("ic_light", studio.relighting.weights if studio.relighting else None),
    ]
    for use, asset in assets:
        if asset is not None:
            yield add_on(catalog, use, asset)


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


def _describers(catalog: Catalog, start: DescribePicture) -> Iterator[Weights]:
    for name in (start.captioner, start.tagger, start.tags):
        if name is not None:
            yield catalog.weights("describer", name, "describe.kinds")


def _image_prompt_helpers(catalog: Catalog, asked: ImagePrompts) -> Iterator[Weights]:
    names = [slot.model for slot in asked.slots] + [asked.negative, asked.face_detector]
    for name in dict.fromkeys(names):
        if name is not None:
            yield catalog.weights("controlnet", name, "image_prompts")
    if asked.encoder is not None:
        yield catalog.weights("clip_vision", asked.encoder, "image_prompts")
