"""What a picture looks like while it is being painted, at a small part of a step's cost.

A model that comes with an `AutoencoderTiny` uses it. For any other model a linear map from latents to colours is fitted to
its own VAE once, when it is loaded: it needs no file and shows colours and composition at one pixel per latent cell.
"""

import io
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from engine.stages.decode import to_levels

K = TypeVar("K", bound=Hashable)

PreviewDecoder = Callable[[Tensor], Tensor]
"""(B, 4, h, w) latents in the model's space to (B, 3, H, W) values of -1 to 1."""

LONG_SIDE = 512
"""Longest side of a preview in pixels."""
_QUALITY = 80
_FIT_SIDE = 16
_FIT_SEED = 0


def preview_decoder(tiny: Any | None, vae: Any) -> PreviewDecoder:
    """Choose how previews are made: by `tiny`, or by a linear map fitted to `vae`."""
    if tiny is None:
        return linear_decoder(vae)

    # Asked once: each of these goes through all modules, or through diffusers' configuration.
    device, dtype, scale = tiny.device, tiny.dtype, 1 / tiny.config.scaling_factor

    def decode(latents: Tensor) -> Tensor:
        scaled = (latents * scale).to(device=device, dtype=dtype)
        result: Tensor = tiny.decode(scaled, return_dict=False)[0]
        return result

    return decode


@torch.inference_mode()
def linear_decoder(vae: Any) -> PreviewDecoder:
    """Fit colour = latents · weight + bias by least squares to the 8x8 block means of decoded random latents."""
    generator = torch.Generator().manual_seed(_FIT_SEED)
    coarse = torch.randn(8, 4, 4, 4, generator=generator)
    latents = functional.interpolate(coarse, size=(_FIT_SIDE, _FIT_SIDE), mode="bilinear")
    scaled = (latents / vae.config.scaling_factor).to(device=vae.device, dtype=vae.dtype)
    pixels = vae.decode(scaled).sample.float().cpu()
    colours = functional.adaptive_avg_pool2d(pixels, (_FIT_SIDE, _FIT_SIDE))
    inputs = torch.cat([_cells(latents), torch.ones(len(_cells(latents)), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, _cells(colours)).solution.to(vae.device)  # (5, 3)
    weight, bias = solution[:4].T.reshape(3, 4, 1, 1), solution[4]
    return lambda values: functional.conv2d(values.float(), weight, bias)


@dataclass(frozen=True, eq=False, slots=True)
class Wanted(Generic[K]):
    """Images of one size that are to be shown."""

    keys: Sequence[K]
    """What each is known by."""
    decode: PreviewDecoder
    denoised: Tensor
    """(B, 4, h, w), an estimate of each."""


class PreviewPrinter(Generic[K]):
    """Makes JPEGs of estimates. On a GPU beside the steps: nobody waits for them, and while some are made others are left out."""

    def __init__(self, device: torch.device, *, is_apart: bool | None = None) -> None:
        """Print what is painted on a device.

        Args:
            device: Where the estimates are.
            is_apart: Whether they are copied and encoded beside the steps; None does so on a GPU, where a step would otherwise
                wait. On a CPU the cores are busy with the steps anyway, and previews would come a step late.
        """
        self._is_apart = device.type == "cuda" if is_apart is None else is_apart
        self._pool: ThreadPoolExecutor | None = None
        self._printing: Future[dict[K, bytes]] | None = None

    @torch.inference_mode()
    def print(self, wanted: Sequence[Wanted[K]]) -> dict[K, bytes]:
        """Give the previews that are ready: those of these estimates, or, beside the steps, of earlier ones.

        Previews of images that are not wanted any more are dropped.
        """
        if not self._is_apart:
            return _encode([_fetch(item) for item in wanted])
        if not wanted or (self._printing is not None and not self._printing.done()):
            return {}
        ready = {} if self._printing is None else self._printing.result()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="previews")
        self._printing = self._pool.submit(_encode, [_fetch(item) for item in wanted])
        keys = {key for item in wanted for key in item.keys}
        return {key: preview for key, preview in ready.items() if key in keys}


@dataclass(frozen=True, eq=False, slots=True)
class _Fetched(Generic[K]):
    """Pixels on their way to the CPU."""

    keys: Sequence[K]
    levels: Tensor
    """(B, H, W, 3) of 0 to 255."""
    copied: Any
    """The CUDA event after which they are there; None where they are."""


def _fetch(wanted: Wanted[K]) -> _Fetched[K]:
    """Decode, and start the copy; nothing here waits for a GPU."""
    levels = to_levels(wanted.decode(wanted.denoised))
    if levels.device.type != "cuda":
        return _Fetched(wanted.keys, levels.cpu(), None)
    held = torch.empty(levels.shape, dtype=torch.uint8, pin_memory=True)
    held.copy_(levels, non_blocking=True)
    make_event: Any = torch.cuda.Event  # untyped in torch
    copied = make_event(blocking=True)
    copied.record(torch.cuda.current_stream(levels.device))
    return _Fetched(wanted.keys, held, copied)


def _encode(fetched: Iterable[_Fetched[K]]) -> dict[K, bytes]:
    """Make one JPEG of each picture; the longest side stays within `LONG_SIDE`."""
    previews: dict[K, bytes] = {}
    for item in fetched:
        if item.copied is not None:
            item.copied.synchronize()
        for key, pixels in zip(item.keys, item.levels.numpy(), strict=True):
            image = Image.fromarray(pixels)
            image.thumbnail((LONG_SIDE, LONG_SIDE))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=_QUALITY)
            previews[key] = buffer.getvalue()
    return previews


def _cells(values: Tensor) -> Tensor:
    """Flatten (B, C, h, w) to one line a cell, (B·h·w, C)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)
