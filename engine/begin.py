"""From a plan to an image that runs."""

import torch

from engine.geometry import Size
from engine.guides import NOTHING, Followed
from engine.loop import Denoiser, Running, Setup
from engine.passes import Course, Refining, begin
from engine.plan import ImagePlan, Plan
from engine.sampling.listings import Listing, listing
from engine.sampling.tiling import Tiles, lay_tiles
from engine.stages.kept_latents import Recorder
from engine.starts import Beginning
from engine.studio_plan import StudioPlan
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
    sampling, walk = plan.sampling, _listing(plan)
    course = Course(
        sampler=sampling.sampler,
        scheduler=sampling.scheduler,
        steps=sampling.num_inference_steps,
        strength=sampling.strength,
        seed=image.seed,
        guidance=plan.guidance,
        as_fooocus=plan.compat == "fooocus",
        alone=plan.deterministic,
        listing=walk,
    )
    positive, negative = model.encoder.branches(plan, image)
    setup = Setup(
        _denoiser(model, plan, walk),
        positive,
        negative,
        plan.freeu,
        (*beginning.blend(image.seed), *_recorders(plan.studio)),
        image_prompts=followed.image_prompts,
        controls=followed.controls,
        addition=beginning.addition,
        tiles=tiles_of(plan),
    )
    latents = beginning.latents
    if latents is None:
        size = plan.sample_size.latent
        latents = torch.zeros(1, 4, size.height, size.width)
    refining = None
    if plan.refiner is not None and model.refiner is not None:
        refining = _refining(model, model.refiner, setup, beginning, image)
    return begin(course, setup, latents, refining)


def tiles_of(plan: Plan) -> Tiles | None:
    """Lay the tiles that a picture is painted in; None where it is painted as a whole."""
    asked = None if plan.studio is None else plan.studio.tiles
    if asked is None:
        return None
    stride = Size(asked.stride_width, asked.stride_height)
    return lay_tiles(plan.sample_size, Size(asked.width, asked.height), stride)


def _listing(plan: Plan) -> Listing | None:
    """List the noise levels where one of diffusers' schedulers does."""
    studio = plan.studio
    if studio is None:
        return None
    return listing(
        studio.scheduler,
        plan.sampling.num_inference_steps,
        timesteps=studio.timesteps,
        sigmas=studio.sigmas,
        eta=studio.eta,
        is_zero_snr=studio.is_zero_snr,
    )


def _denoiser(model: WarmModel, plan: Plan, walk: Listing | None) -> Denoiser:
    if walk is None or plan.studio is None:
        return model.denoiser(plan.sampling.scheduler)
    return model.listed_denoiser(walk, plan.studio.prediction_type)


def _recorders(studio: StudioPlan | None) -> tuple[Recorder, ...]:
    return (Recorder(),) if studio is not None and studio.keeps_passes else ()


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
