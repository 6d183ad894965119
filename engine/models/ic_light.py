"""IC-Light: a Stable Diffusion 1.5 UNet that lights a picture anew.

A file holds a difference for each weight of the UNet, and further input channels of its first convolution, through which it sees the
latents of a picture, or of a picture and a background. What they give depends on neither the noise nor the step: it is worked out once for
an image and added to that convolution's output (`engine.models.inpaint_head`), so that the UNet keeps its shape.

Source: Zhang et al. 2024, https://github.com/lllyasviel/IC-Light (Apache-2.0), for the files ``iclight_sd15_fc``, ``iclight_sd15_fcon``
and ``iclight_sd15_fbc``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from engine.errors import InvalidRequest
from engine.models.patches import Patch
from engine.models.tensors import read_tensors

LATENT = 4
"""Channels of latents."""
_FIRST = ("conv_in.weight", "input_blocks.0.0.weight")
"""How the key of the first convolution ends, in diffusers' layout and in the original one."""


@dataclass(frozen=True, eq=False, slots=True)
class IcLight:
    """What a file holds."""

    name: str
    patch: Patch
    """The differences, for the weight patcher of the base model."""
    extra: Tensor
    """(channels, 4 or 8, 3, 3) float32 on the CPU: the further input channels."""

    @property
    def needs_background(self) -> bool:
        """Whether it sees a background beside the picture."""
        return self.extra.shape[1] == 2 * LATENT

    def require_background(self, background: object | None, field: str) -> None:
        """Make sure that there is a background exactly where it sees one.

        Raises:
            InvalidRequest: naming `field`.
        """
        if self.needs_background and background is None:
            raise InvalidRequest(field, f"expected a background, which {self.name} sees, got none")
        if background is not None and not self.needs_background:
            problem = f"expected none, since {self.name} sees the picture alone, got one"
            raise InvalidRequest(field, problem)

    def addition(self, latents: Tensor) -> Tensor:
        """Work out what is added to the output of the UNet's first convolution.

        Args:
            latents: (1, 4 or 8, h, w) of the picture and, after it, the background, as the UNet knows latents.

        Returns:
            (1, channels, h, w) float32 on the CPU.
        """
        return functional.conv2d(latents.float().cpu(), self.extra, padding=1)


def load_ic_light(path: Path, unet: Any, field: str) -> IcLight:
    """Read IC-Light for a UNet; that its differences fit is seen when they are put on.

    Args:
        path: A safetensors file, in diffusers' layout or the original one.
        unet: The base model's `UNet2DConditionModel`.
        field: The request's field that named it, for the message.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no safetensors file, or broken.
        InvalidRequest: it is no IC-Light, or the base model is not of SD 1.5.
    """
    if unet.config.addition_embed_type is not None:
        problem = "expected a base model of SD 1.5, which IC-Light is made for, got one of SDXL"
        raise InvalidRequest(field, f"{path.name}: {problem}")
    first = next((it for key, it in read_tensors(path).items() if key.endswith(_FIRST)), None)
    shape = None if first is None else tuple(first.shape)
    width, own, *kernel = unet.conv_in.weight.shape
    wanted = [(width, own + more, *kernel) for more in (LATENT, 2 * LATENT)]
    if first is None or shape not in wanted:
        rule = f"expected IC-Light, whose first convolution is {wanted[0]} or {wanted[1]}"
        raise InvalidRequest(field, f"{path.name}: {rule}, got {shape or 'none'}")
    patch = Patch(path, 1.0, unet_only=True, is_offset=True)
    return IcLight(path.name, patch, first[:, own:].float().clone())
