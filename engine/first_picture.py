"""A tiny picture that a base model is tried out with before it is said to be ready."""

import dataclasses

from engine.begin import begin_image
from engine.catalog import Catalog
from engine.errors import ModelIncompatible
from engine.geometry import Size
from engine.library import Library
from engine.loop import step
from engine.requests import TextRequest
from engine.settle import plan
from engine.stages.decode import decode_latents
from engine.starts import Beginning
from engine.warm import WarmModel

FIRST_SIZE = Size(64, 64)
"""Its size in pixels."""


def paint_first(model: WarmModel, catalog: Catalog) -> None:
    """Paint 64x64 pixels in one step and keep nothing: the text encoders, the UNet and the VAE have worked once then.

    Raises:
        ModelIncompatible: what came out are no numbers.
    """
    asked = {
        "prompt": "a star",
        "styles": (),
        "guidance_scale": 1,
        "num_images": 1,
        "aspect_ratio": str(FIRST_SIZE),
        "advanced": {"base_model": model.name, "num_inference_steps": 1},
    }
    settled = plan(TextRequest.parse(asked), Library(catalog=catalog), seed=0)
    job = dataclasses.replace(settled, sample_size=FIRST_SIZE)
    image = begin_image(model, job.images[0], Beginning(plan=job))
    while not image.is_done:
        step([image])
    if not image.latents.isfinite().all():
        raise ModelIncompatible(f"{model.name}: its first picture has no numbers in it")
    decode_latents(model.vae, image.latent_format.to_vae(image.latents), FIRST_SIZE)
