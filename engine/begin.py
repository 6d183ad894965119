"""From a plan to an image that runs."""

import torch

from engine.guides import NOTHING, Followed
from engine.loop import Running, Setup
from engine.passes import Course, Refining, begin
from engine.plan import ImagePlan
from engine.starts import Beginning
from engine.warm import WarmModel, WarmRefiner


def begin_image(
    model: WarmModel,
    image: ImagePlan,
    beginning: Beginning,
    followed: Followed = NOTHING,
) -> Running:
    """Encode the texts of one image, draw its noise and start its sampler.

    Args:
        model: The weights that the plan needs.
        image: One of the plan's images.
        beginning: What all images of the job start from.
        followed: What all images of the job follow.
    """
    plan = beginning.plan
    sampling = plan.sampling
    course = Course(
        sampler=sampling.sampler,
        scheduler=sampling.scheduler,
        steps=sampling.num_inference_steps,
        strength=sampling.strength,
        seed=image.seed,
        guidance=plan.guidance,
        as_fooocus=plan.compat == "fooocus",
        alone=plan.deterministic,
    )
    positive, negative = model.encoder.branches(plan, image)
    setup = Setup(
        model.denoiser(sampling.scheduler),
        positive,
        negative,
        plan.freeu,
        beginning.blend(image.seed),
        image_prompts=followed.image_prompts,
        controls=followed.controls,
        addition=beginning.addition,
    )
    latents = beginning.latents
    if latents is None:
        size = plan.sample_size.latent
        latents = torch.zeros(1, 4, size.height, size.width)
    refining = None
    if plan.refiner is not None and model.refiner is not None:
        refining = _refining(model, model.refiner, setup, beginning, image)
    return begin(course, setup, latents, refining)


def _refining(
    model: WarmModel,
    refiner: WarmRefiner,
    setup: Setup,
    beginning: Beginning,
    image: ImagePlan,
) -> Refining | None:
    """Settle who takes over; nobody where the base model makes all steps.

    A picture that is kept around a hole is kept by the refiner too, unless that has latents of its own.
    """
    plan = beginning.plan
    asked = plan.refiner
    if asked is None or asked.switch >= plan.sampling.num_inference_steps:
        return None
    positive, negative = model.encoder.refiner_branches(
        plan, image, refiner.loaded.family, refiner.loaded.unet
    )
    seams = setup.seams
    if asked.method != "joint":
        seed = image.seed + 1 if asked.method == "vae" else image.seed
        seams = () if refiner.convert else beginning.blend(seed)
    return Refining(
        setup=Setup(refiner.denoiser(plan.sampling.scheduler), positive, negative, seams=seams),
        method=asked.method,
        switch=asked.switch,
        convert=refiner.convert,
    )
