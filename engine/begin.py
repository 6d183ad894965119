"""From a plan to an image that runs."""

import torch

from engine.guides import NOTHING, Followed
from engine.loop import Running, Setup
from engine.passes import Course, Refining, begin
from engine.plan import ImagePlan, Plan, Refiner
from engine.warm import WarmModel, WarmRefiner


def begin_image(
    model: WarmModel, plan: Plan, image: ImagePlan, followed: Followed = NOTHING
) -> Running:
    """Encode the texts of one image, draw its noise and start its sampler.

    Args:
        model: The weights that the plan needs.
        plan: Of the job.
        image: One of its images.
        followed: What all images of the job follow.
    """
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
        image_prompts=followed.image_prompts,
        controls=followed.controls,
    )
    latents = torch.zeros(1, 4, plan.sample_size.latent.height, plan.sample_size.latent.width)
    refining = None
    if plan.refiner is not None and model.refiner is not None:
        refining = _refining(model, model.refiner, plan.refiner, plan, image)
    return begin(course, setup, latents, refining)


def _refining(
    model: WarmModel, refiner: WarmRefiner, asked: Refiner, plan: Plan, image: ImagePlan
) -> Refining | None:
    """Settle who takes over; nobody where the base model makes all steps."""
    if asked.switch >= plan.sampling.num_inference_steps:
        return None
    positive, negative = model.encoder.refiner_branches(
        plan, image, refiner.loaded.family, refiner.loaded.unet
    )
    return Refining(
        setup=Setup(refiner.denoiser(plan.sampling.scheduler), positive, negative),
        method=asked.method,
        switch=asked.switch,
        convert=refiner.convert,
    )
