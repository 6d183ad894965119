"""The arithmetic of a refiner that starts from what the base model ended with."""

from torch import Tensor

REWOUND = 1.4
"""How much higher than the base model left off a refiner of another VAE begins."""


def rewound(sigmas: tuple[float, ...], switch: int) -> tuple[float, ...]:
    """Cut the levels that a refiner of another VAE walks down, from a little above where the base model left off.

    Args:
        sigmas: Levels of the whole way.
        switch: Steps that the base model made.
    """
    return tuple(sigma * REWOUND for sigma in sigmas[switch:])


def carry_means(noise: Tensor, epsilon: Tensor) -> Tensor:
    """Give new noise, at each place, the mean over the channels that the last predicted noise had there.

    Args:
        noise: (B, 4, h, w) of variance 1.
        epsilon: (B, 4, h, w), the noise of the base model's last guided answer.
    """
    return noise + epsilon.mean(1, keepdim=True) - noise.mean(1, keepdim=True)
