"""From a plan to an image that runs: noise, noise levels, sampler."""

from engine.loop import Denoiser, Running
from engine.plan import ImagePlan, Plan
from engine.sampling.noise import brownian_noise, draw_noise, independent_noise, seeded_generator
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import initial_latents, schedule
from engine.sampling.walk import NoiseSource
from engine.stages.encode import Branches


def begin_image(denoiser: Denoiser, plan: Plan, image: ImagePlan, branches: Branches) -> Running:
    """Draw the noise of one image and start its sampler.

    All noise is drawn on the CPU from the image's seed, so a seed means the same picture on every machine; with
    ``compat = "fooocus"`` the noise between steps is drawn on a CUDA device where there is one, as Fooocus draws it.
    """
    sampling, device = plan.sampling, denoiser.device
    levels = denoiser.model.levels
    sigmas = schedule(
        sampling.scheduler, levels, sampling.num_inference_steps, strength=sampling.strength
    )
    shape = (1, 4, plan.sample_size.latent.height, plan.sample_size.latent.width)
    generator = seeded_generator(image.seed)
    first = draw_noise(generator, shape)
    start = initial_latents(first, first.new_zeros(shape), sigmas[0], levels).to(device)
    sampler = SAMPLERS[sampling.sampler]
    draw_device = device.type if plan.compat == "fooocus" and device.type == "cuda" else "cpu"

    def source() -> NoiseSource:
        match sampler.noise:
            case "brownian":
                return brownian_noise(
                    image.seed, shape, sigmas, device=device, draw_device=draw_device
                )
            case "independent" if draw_device == "cuda":
                return independent_noise(seeded_generator(image.seed, draw_device), shape, device)
            case _:
                return independent_noise(generator, shape, device)

    positive, negative = branches
    return Running(
        denoiser=denoiser,
        sampling=sampler.run(start, sigmas, source(), levels),
        positive=positive,
        negative=negative,
        guidance=plan.guidance,
        alone=plan.deterministic,
    )
