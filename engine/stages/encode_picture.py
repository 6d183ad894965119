"""From a picture to latents, as the start of a new picture; and the autoencoder in tiles, both ways.

Latents here are as the VAE gives them, not yet × its scaling factor. In tiles the autoencoder runs three times, with tiles of
three shapes, and the mean counts: seams of one shape vanish among the others.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.geometry import LATENT_FACTOR, Size
from engine.models.memory import free_unused, has_room_for_whole, is_out_of_memory
from engine.stages.pixels import Pixels
from engine.stages.tiles import tiled

log = logging.getLogger(__name__)

_ENCODE_TILES = (Size(512, 512), Size(1024, 256), Size(256, 1024))
_ENCODE_OVERLAP = 64
_DECODE_TILES = (Size(32, 128), Size(128, 32), Size(64, 64))
_DECODE_OVERLAP = 16


def encode_picture(
    vae: Any,
    picture: Pixels,
    generator: torch.Generator | None,
    *,
    is_tiled: bool = False,
    is_cropped: bool = True,
) -> Tensor:
    """Encode a picture.

    Args:
        vae: An `AutoencoderKL`.
        picture: (H, W, 3) uint8 RGB, each side at least 8.
        generator: Draws the noise of the posterior, as Fooocus does, on the CPU; None takes its mean.
        is_tiled: Whether to work in tiles; where memory is short that is done in any case.
        is_cropped: Whether sides are cut, in the middle, to multiples of 8 first; else the VAE rounds down as it likes.

    Returns:
        (1, 4, H // 8, W // 8) float32 on the CPU.
    """
    values = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    return encode_values(
        vae, cropped(values) if is_cropped else values, generator, is_tiled=is_tiled
    )


def cropped(values: Tensor) -> Tensor:
    """Cut (..., H, W) in the middle to sides that `LATENT_FACTOR` divides."""
    height, width = values.shape[-2:]
    top, left = (side % LATENT_FACTOR // 2 for side in (height, width))
    rows = slice(top, top + height // LATENT_FACTOR * LATENT_FACTOR)
    columns = slice(left, left + width // LATENT_FACTOR * LATENT_FACTOR)
    return values[..., rows, columns]


@torch.inference_mode()
def encode_values(
    vae: Any, values: Tensor, generator: torch.Generator | None, *, is_tiled: bool = False
) -> Tensor:
    """Encode (1, 3, H, W) values of -1 to 1; see `encode_picture`."""

    def encode(part: Tensor) -> Tensor:
        posterior = vae.encode(_placed(vae, part)).latent_dist
        mean: Tensor = posterior.mean.float().cpu()
        if generator is None:
            return mean
        spread: Tensor = posterior.std.float().cpu()
        return mean + spread * torch.randn(mean.shape, generator=generator)

    def encode_in_tiles() -> Tensor:
        return _mean_of(
            lambda tile: tiled(
                encode, values, tile, overlap=_ENCODE_OVERLAP, factor=1 / LATENT_FACTOR
            ),
            _ENCODE_TILES,
        )

    size = Size(values.shape[3], values.shape[2])
    if is_tiled or not has_room_for_whole(vae, size):
        return encode_in_tiles()
    return _or(lambda: encode(values), encode_in_tiles)


@torch.inference_mode()
def decode_values(vae: Any, latents: Tensor, *, is_tiled: bool = False) -> Tensor:
    """Decode latents to values.

    Args:
        vae: An `AutoencoderKL`.
        latents: (1, 4, h, w).
        is_tiled: Whether to work in tiles; where memory is short that is done in any case.

    Returns:
        (1, 3, 8·h, 8·w) float32 on the CPU, of about -1 to 1, not cut off.
    """

    def decode(part: Tensor) -> Tensor:
        values: Tensor = vae.decode(_placed(vae, part)).sample
        return values.float().cpu()

    def decode_in_tiles() -> Tensor:
        return _mean_of(
            lambda tile: tiled(
                decode, latents, tile, overlap=_DECODE_OVERLAP, factor=LATENT_FACTOR
            ),
            _DECODE_TILES,
        )

    size = Size(latents.shape[3] * LATENT_FACTOR, latents.shape[2] * LATENT_FACTOR)
    if is_tiled or not has_room_for_whole(vae, size):
        return decode_in_tiles()
    return _or(lambda: decode(latents), decode_in_tiles)


def _placed(vae: Any, values: Tensor) -> Tensor:
    """Bring values to where the VAE is, and into its number format."""
    placed = values.to(device=vae.device, dtype=vae.dtype)
    return placed.contiguous(memory_format=torch.channels_last)


def _mean_of(work: Callable[[Size], Tensor], tiles: tuple[Size, ...]) -> Tensor:
    total = work(tiles[0])
    for tile in tiles[1:]:
        total = total + work(tile)
    return total / len(tiles)


def _or(whole: Callable[[], Tensor], in_tiles: Callable[[], Tensor]) -> Tensor:
    """Do the work at once, or in tiles where memory runs out."""
    try:
        return whole()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    log.warning("too little memory for a whole picture: the VAE works in tiles")
    free_unused()
    return in_tiles()  # out here, where the error holds nothing any more
