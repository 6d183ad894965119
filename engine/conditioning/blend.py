"""Keeps a part of a picture while the rest is painted: around each model call, its latents are put back (the step seam)."""

from torch import Tensor

from engine.models.transfers import send
from engine.sampling.noise import ENERGY_SEEDS, draw_noise, seeded_generator

_UNBLENDED = ("uni_pc", "uni_pc_bh2")
"""Samplers that Fooocus runs without the seam."""


def is_blended(sampler: str, *, as_fooocus: bool) -> bool:
    """Whether a sampler's calls keep a part of a picture; only Fooocus has samplers that leave that to the paste-back."""
    return not (as_fooocus and sampler in _UNBLENDED)


class Blend:
    """A step seam for one run of one image's sampler; a run that begins anew (another segment) needs a new one.

    The model is shown the kept part at the noise level of the moment, with new noise each time; its estimate of that part is
    replaced by the part itself. The sampler's own latents are not touched.
    """

    def __init__(self, latents: Tensor, mask: Tensor, seed: int) -> None:
        """Keep what `mask` does not cover.

        Args:
            latents: (1, 4, h, w) float32 of the picture, as the UNet knows them.
            mask: (1, 1, h, w): 1 where something is painted, 0 where the picture stays.
            seed: Of the run. The noise comes from a stream of its own, seeded next to it, and is drawn on the CPU.
        """
        self._latents = latents
        self._mask = mask
        self._stream = seeded_generator((seed + 1) % ENERGY_SEEDS)

    def before(self, x: Tensor, sigma: float) -> Tensor:
        """Put the kept part, noisy as it would be now, around what is painted."""
        latents, mask = self._kept(x)
        noise = send(draw_noise(self._stream, tuple(x.shape)), x.device).to(x)
        return x * mask + (latents + sigma * noise) * (1 - mask)

    def after(self, denoised: Tensor, sigma: float) -> Tensor:
        """Put the kept part around the estimate."""
        latents, mask = self._kept(denoised)
        return denoised * mask + latents * (1 - mask)

    def _kept(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Have latents and mask where `x` is, from the first call on."""
        if self._latents.device != x.device:
            self._latents, self._mask = send(self._latents, x.device), send(self._mask, x.device)
        return self._latents.to(x), self._mask.to(x)
