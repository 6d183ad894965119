"""From a picture to the drawing that a ControlNet is shown."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from engine.conditioning.preprocess.hint import resize_hint
from engine.errors import InvalidRequest
from engine.geometry import Size
from engine.image_inputs import ImagePromptType
from engine.stages.pictures import MAX_PIXELS
from engine.stages.pixels import Pixels, cover, size_of, to_rgb

FIELD = "image_prompts"

Draw = Callable[[Pixels], Pixels]
"""Makes a drawing, (H, W) or (H, W, 3), of an RGB picture (H, W, 3)."""


def own_preprocessor(kind: ImagePromptType, canny: tuple[int, int]) -> Draw:
    """Give what draws for ``PyraCanny``, with its two thresholds, or for ``CPDS``."""
    from engine.conditioning.preprocess.cpds import cpds
    from engine.conditioning.preprocess.pyra_canny import pyra_canny

    low, high = canny
    return partial(pyra_canny, low=low, high=high) if kind == "PyraCanny" else cpds


def draw(pixels: Pixels, size: Size, preprocess: Draw | None) -> Pixels:
    """Draw what a ControlNet looks at: the preprocessed picture, or itself where that is to be skipped.

    Args:
        pixels: The picture: grey, RGB or RGBA.
        size: Of the picture to paint; the drawing covers it.
        preprocess: What draws; None skips it.

    Returns:
        (H, W, 3).

    Raises:
        InvalidRequest: the picture is so thin that what covers `size` would not fit into memory.
    """
    _require_coverable(size_of(pixels), size)
    image = cover(to_rgb(pixels), size)
    return image if preprocess is None else to_rgb(preprocess(image))


def _require_coverable(own: Size, size: Size) -> None:
    scale = max(size.width / own.width, size.height / own.height)
    if own.area * scale**2 > MAX_PIXELS:
        rule = f"expected a picture that covers {size} with at most {MAX_PIXELS} pixels"
        raise InvalidRequest(FIELD, f"{rule}, got one of {own}")


def draw_hint(pixels: Pixels, size: Size, preprocess: Draw | None) -> Tensor:
    """Draw as `draw` does, as a net is fed: (1, 3, H, W) of 0 to 1, eight times the latents' size."""
    drawing = torch.from_numpy(draw(pixels, size, preprocess))
    hint = drawing.permute(2, 0, 1)[None].float() / 255
    return resize_hint(hint, Size(8 * size.latent.width, 8 * size.latent.height))
