"""From a plan to an image that runs."""

import torch

from engine.loop import Denoiser, Running, Setup
from engine.passes import Course, begin
from engine.plan import ImagePlan, Plan
from engine.stages.encode import Branches


def begin_image(denoiser: Denoiser, plan: Plan, image: ImagePlan, branches: Branches) -> Running:
    """Draw the noise of one image and start its sampler."""
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
    positive, negative = branches
    latents = torch.zeros(1, 4, plan.sample_size.latent.height, plan.sample_size.latent.width)
    return begin(course, Setup(denoiser, positive, negative, plan.freeu), latents)
