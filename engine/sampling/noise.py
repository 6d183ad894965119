"""Where noise comes from: everything is drawn from the image's own seed, never from torch's global generator.

Many images are on their way at once, so each holds a generator. On the CPU the numbers are those that
``torch.manual_seed(seed)`` and ``torch.randn`` give, on every machine.
"""

import math

import torch
from torch import Tensor

from engine.models.transfers import send
from engine.sampling.brownian import BrownianPath
from engine.sampling.walk import NoiseSource

ENERGY_SEEDS = 2**63 - 1
"""Number of seeds that re-noise of kept picture parts is drawn from."""


def seeded_generator(seed: int, device: str = "cpu") -> torch.Generator:
    """Start a stream of random numbers.

    Args:
        seed: 0 to 2^64 - 1.
        device: Where the numbers are drawn; they differ between CPU and CUDA.
    """
    return torch.Generator(device).manual_seed(seed)


def draw_noise(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw the next normal float32 numbers of a stream, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def independent_noise(
    generator: torch.Generator, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> NoiseSource:
    """Make a source of new noise for each step, drawn from a stream that goes on.

    Args:
        generator: The stream that the initial noise of the image came from.
        shape: Shape of the latents.
        device: Where the noise is wanted.
    """

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return send(draw_noise(generator, shape), device)

    return noise


def brownian_noise(
    seed: int,
    shape: tuple[int, ...],
    sigmas: tuple[float, ...],
    *,
    device: torch.device | str = "cpu",
    draw_device: torch.device | str = "cpu",
) -> NoiseSource:
    """Make a source of noise from one Brownian path over the sigmas, so that other step counts give a like picture.

    Args:
        seed: Entropy of the path, at least 0.
        shape: Shape of the latents.
        sigmas: Noise levels of the whole schedule; the path runs from the lowest above 0 to the highest and stands
            still outside.
        device: Where the noise is wanted.
        draw_device: Where it is drawn; the numbers differ between CPU and CUDA.

    Returns:
        A source of ``(W(sigma_next) - W(sigma)) / sqrt(|sigma_next - sigma|)``, negated where sigma falls: variance 1
        inside the interval, zeros where a step lies outside. One level alone gives zeros.
    """
    low, high = min((sigma for sigma in sigmas if sigma > 0), default=0.0), max(sigmas, default=0.0)
    if not low < high:
        still = torch.zeros(shape, device=device)
        return lambda sigma, sigma_next: still
    path = BrownianPath(seed, shape, start=low, end=high, device=str(draw_device))

    def noise(sigma: float, sigma_next: float) -> Tensor:
        start, end = sorted((sigma, sigma_next))
        increment = path.increment(start, end).div_(math.sqrt(end - start))
        return send(increment if sigma < sigma_next else increment.neg_(), device)

    return noise
