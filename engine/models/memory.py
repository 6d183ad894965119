"""How much of a base model lies on the device while it is not at work, from all of it to next to nothing.

Tiers are chosen from free memory and the sizes of a model's parts (decision 18); diffusers' and accelerate's hooks do the moving.
Knows no requests and no jobs.
"""

import gc
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from engine.errors import InvalidRequest
from engine.geometry import LATENT_FACTOR, Size
from engine.models.devices import device_name, free_bytes, give_back_memory, host_bytes
from engine.models.inpaint_head import widen_input

log = logging.getLogger(__name__)


class Tier(StrEnum):
    """What stays on the device; each takes less of its memory than the one before."""

    RESIDENT = "resident"
    TEXT_OFF = "text-off"
    """The text encoders come when there is text to encode, and leave after that."""
    FP8 = "fp8"
    """Also, the UNet's large weights are stored in 8 bits and widened layer by layer: half the memory, not quite the same picture."""
    STREAMED = "streamed"
    """Also, the UNet's weights stay in the machine's memory, and each layer's come just before it works."""

    @property
    def words(self) -> str:
        """Say it to people."""
        return {
            Tier.RESIDENT: "all networks stay on it",
            Tier.TEXT_OFF: "text encoders off after encoding",
            Tier.FP8: "text encoders off after encoding, UNet in fp8",
            Tier.STREAMED: "text encoders off after encoding, UNet streamed",
        }[self]

    @property
    def keeps_unet(self) -> bool:
        """Whether the UNet's weights lie on the device as they were read."""
        return self in (Tier.RESIDENT, Tier.TEXT_OFF)


AUTO = "auto"
ASKED = (AUTO, *Tier)
"""What may be asked for."""

SPARE = 500_000_000
"""Bytes left for what nobody counts: workspaces of kernels, gaps between tensors, what a desktop takes meanwhile."""
HOST_SPARE = 2_000_000_000
"""Bytes of the machine's memory that streaming leaves to everything else."""
WINDOW = 200_000_000
"""Bytes of a streamed UNet that lie on the device at a time: the layer at work, the next one, and the norms."""
ROWS = 2
"""UNet rows of one picture: both sides of guidance."""
_PER_CELL = 32
"""Most numbers that a UNet holds for each latent cell and channel of its first level.

Of SDXL it is half of that by its real settings, without the workspaces of its kernels (all tensors counted on the meta device)."""
_PER_PIXEL = 4
"""The same of a VAE for each pixel and channel of the level below its finest; of SDXL's it is three quarters of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a base model takes on a device, in bytes."""

    unet: int
    text: int
    """All text encoders."""
    vae: int
    painting: int
    """What the UNet holds beside its weights, for one picture of the native size."""
    decoding: int
    """What the VAE holds beside its weights, for the same picture as a whole."""

    @classmethod
    def of(cls, pipeline: Any, texts: Iterable[Any], native: int) -> "Parts":
        """Measure a pipeline of diffusers that was read.

        Args:
            pipeline: With a ``unet`` and a ``vae``.
            texts: Its text encoders.
            native: Side in pixels of the pictures that it was trained on.
        """
        unet, vae = pipeline.unet, pipeline.vae
        cells = (native // LATENT_FACTOR) ** 2
        width = unet.config.block_out_channels[0]
        return cls(
            unet=_bytes_of(unet),
            text=sum(map(_bytes_of, texts)),
            vae=_bytes_of(vae),
            painting=ROWS * _PER_CELL * cells * width * unet.dtype.itemsize,
            decoding=decoding_bytes(vae, Size(native, native)),
        )


SDXL = Parts(
    unet=5_135_000_000,
    text=1_636_000_000,
    vae=167_000_000,
    painting=671_000_000,
    decoding=2_147_000_000,
)
"""Of SDXL in 16 bits, for what is said before a model was read."""


def needed(tier: Tier, parts: Parts) -> int:
    """Say how many bytes of the device painting takes, at a tier.

    The VAE may work in tiles at all tiers but the first.
    """
    unet = {Tier.FP8: parts.unet // 2, Tier.STREAMED: min(WINDOW, parts.unet)}.get(tier, parts.unet)
    if tier is Tier.RESIDENT:
        return unet + parts.text + parts.vae + max(parts.painting, parts.decoding) + SPARE
    return unet + parts.vae + max(parts.text, parts.painting) + SPARE


def choose_tier(parts: Parts, *, free: int, host: int) -> Tier:
    """Choose the first tier that fits, of those that do not change the picture.

    The UNet in 8 bits is for machines that have no room to keep it beside the device. The last tier is the answer also where
    nothing fits.

    Args:
        parts: Of the model.
        free: Bytes of the device that it may take.
        host: Bytes of the machine's memory that it may take.
    """
    for tier in (Tier.RESIDENT, Tier.TEXT_OFF):
        if needed(tier, parts) <= free:
            return tier
    is_roomy = parts.unet + parts.text + HOST_SPARE <= host
    return Tier.FP8 if not is_roomy and needed(Tier.FP8, parts) <= free else Tier.STREAMED


class Memory:
    """At which tier models come onto a device: chosen anew for each, and lower from when memory ran out."""

    def __init__(self, device: torch.device, asked: str = AUTO) -> None:
        """Begin with what was asked for.

        Args:
            device: Where models go.
            asked: One of `ASKED`.

        Raises:
            InvalidRequest: it is none of them, or the device cannot do it.
        """
        if asked not in ASKED:
            names = ", ".join(ASKED)
            raise InvalidRequest("memory", f"expected one of {names}, got {asked!r}")
        if device.type == "mps" and asked == Tier.FP8:
            problem = "expected another tier than fp8, which devices of kind mps do not have"
            raise InvalidRequest("memory", f"{problem}; try streamed")
        self._device = device
        self._asked = None if asked == AUTO else Tier(asked)
        self._is_apart = device.type not in ("cpu", "mps")
        """Whether the device has memory of its own, so that leaving it helps."""
        self._lowered: Tier | None = None

    def tier_for(self, parts: Parts | None = None) -> Tier:
        """Choose the tier of a model.

        Args:
            parts: Of a model that was read into the machine's memory; None is an SDXL model that is yet to be read.
        """
        tier = self._asked
        if tier is None:
            tier = self._choose(parts) if self.chooses else Tier.RESIDENT
        if self._lowered is not None and _ORDER.index(self._lowered) > _ORDER.index(tier):
            return self._lowered
        return tier

    @property
    def chooses(self) -> bool:
        """Whether tiers depend on what is free."""
        return self._asked is None and self._is_apart

    def step_down(self, tier: Tier) -> Tier | None:
        """Have models come in at a lower tier than the one at which memory ran out; None where there is none."""
        if not self._is_apart or tier is Tier.STREAMED:
            return None
        is_roomy = host_bytes() >= HOST_SPARE
        below = Tier.TEXT_OFF if tier is Tier.RESIDENT else Tier.STREAMED
        if below is Tier.STREAMED and tier is not Tier.FP8 and not is_roomy:
            below = Tier.FP8
        self._lowered = below
        return below

    def recover(self) -> None:
        """Choose as in the beginning again."""
        self._lowered = None

    def named(self, tier: Tier) -> str:
        """Name the device and a tier, for people; a tier that goes without saying is not told."""
        name = device_name(self._device)
        return f"{name}: {tier.words}" if self._is_apart or tier is not Tier.RESIDENT else name

    def remedy(self, tier: Tier) -> str:
        """Say what a person can do whose picture did not fit."""
        ways = ["ask for a smaller size", "choose a smaller base model"]
        if self._is_apart and tier is not Tier.STREAMED:
            ways.append(f"start with --memory {Tier.STREAMED}")
        return f"{', '.join(ways[:-1])} or {ways[-1]}"

    def _choose(self, parts: Parts | None) -> Tier:
        free, host = free_bytes(self._device), host_bytes()
        if parts is None:
            return choose_tier(SDXL, free=free, host=host)
        tier = choose_tier(parts, free=free, host=host + parts.unet + parts.text)
        log.info("memory: %.1f GB free, so %s", free / 1e9, tier.words)
        return tier


_ORDER = tuple(Tier)


def house_unet(
    unet: Any, device: torch.device, tier: Tier, *, dtype: torch.dtype | None = None
) -> Any:
    """Bring a UNet that is in the machine's memory where its tier has it.

    Args:
        unet: Of diffusers. Where hooks come onto its layers, none of these may be exchanged later.
        device: Where it works.
        tier: What of it stays there.
        dtype: Number format in which it works; None is that of its weights.
    """
    if not tier.keeps_unet:
        widen_input(unet)
    if tier is Tier.FP8:
        unet.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype or unet.dtype
        )
    if tier is not Tier.STREAMED:
        return unet.to(device)
    # By layers, since SDXL's blocks are up to half of it. Streams need a device with memory of its own.
    has_streams = device.type == "cuda"
    unet.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=has_streams,
        record_stream=has_streams,
    )
    return unet


def house_texts(networks: Iterable[Any], device: torch.device, tier: Tier) -> list[Any]:
    """Bring text encoders where their tier has them.

    Returns:
        accelerate's hooks, whose ``offload`` sends each away after it worked; none where they stay.
    """
    if tier is Tier.RESIDENT:
        for network in networks:
            network.to(device)
        return []
    from accelerate import cpu_offload_with_hook

    hooks: list[Any] = []
    for network in networks:
        hooks.append(cpu_offload_with_hook(network, device, hooks[-1] if hooks else None)[1])
    return hooks


@contextmanager
def aside(networks: Iterable[Any], device: torch.device) -> Iterator[None]:
    """Have networks that lie on a device as they were read leave it for a while."""
    moved = list(networks)
    try:
        _move(moved, torch.device("cpu"))
        free_unused()
        yield
    finally:
        _move(moved, device)


@torch.inference_mode(mode=False)
def _move(networks: Iterable[Any], device: torch.device) -> None:
    """Move networks, whose weights stay ordinary tensors also while others infer: compiled code knows them by that."""
    for network in networks:
        network.to(device)


def decoding_bytes(vae: Any, size: Size) -> int:
    """Estimate what a VAE holds beside its weights while it decodes, or encodes, a picture as a whole."""
    channels = vae.config.block_out_channels
    width: int = channels[min(1, len(channels) - 1)]
    return int(_PER_PIXEL * size.area * width * vae.dtype.itemsize)


def has_room_for_whole(vae: Any, size: Size) -> bool:
    """Whether a VAE has the memory to decode, or encode, a picture of that size as a whole now."""
    return decoding_bytes(vae, size) <= free_bytes(vae.device)


_NO_MEMORY = (
    "can't allocate memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says where it has no type for it: on the CPU, on a Mac, inside of NVIDIA's libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this machine, had no room left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )


def free_unused() -> None:
    """Give back what nobody holds any more, to the device and to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    give_back_memory()


def _bytes_of(network: Any) -> int:
    return sum(weight.nbytes for weight in network.parameters())
