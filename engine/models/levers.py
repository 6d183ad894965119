"""What makes painting faster; each lever can be pulled alone, so that the benchmark can tell what it is worth."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from engine.conditioning.fused_attention import fuse_attention

Kernel = Literal["auto", "cudnn", "flash", "efficient", "math"]
"""Which attention kernel goes first where several can serve; ``auto`` is torch's own choice."""
HOPPER = 9
"""Compute capability of the first NVIDIA cards on which cuDNN's attention is the faster one, by what is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """How a UNet that stays on its device is run. None of them changes a picture by more than rounding."""

    channels_last: bool = True
    """Weights of convolutions in the layout that their kernels read fastest."""
    fused_qkv: bool = True
    """One matrix product for query, key and value; takes no memory and is for UNets that stay where they are."""
    cached_text: bool = True
    """Keys and values of the text worked out once for many steps."""
    attention: Kernel = "auto"
    """The kernel that goes first; what it cannot do another one does. On a GPU only."""
    compile: bool = False
    """The UNet's transformer blocks compiled in the background; see `engine.models.compiling`."""

    @classmethod
    def usual(cls, device: torch.device) -> "Levers":
        """Choose those that pay on a device."""
        if device.type != "cuda":
            return cls()
        is_new = torch.cuda.get_device_capability(device)[0] >= HOPPER
        return cls(attention="cudnn" if is_new else "auto")


def attending(kernel: Kernel, device: torch.device) -> AbstractContextManager[None]:
    """Let a kernel go first inside the context; it and the others serve what they can, in their order in `Kernel`."""
    if kernel == "auto" or device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    known = {
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "math": SDPBackend.MATH,
    }
    names = [kernel, *(name for name in get_args(Kernel) if name not in ("auto", kernel))]
    first: AbstractContextManager[None] = sdpa_kernel(
        [known[name] for name in names], set_priority=True
    )
    return first


def pull(levers: Levers, unet: Any) -> None:
    """Bring a UNet that is on its device into the state that its levers ask for."""
    if not levers.channels_last:
        unet.to(memory_format=torch.contiguous_format)
    if levers.fused_qkv:
        fuse_attention(unet)
