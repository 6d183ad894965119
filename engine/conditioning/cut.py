"""What belongs to places goes with its tile: sizes, drawings and masks of a picture that is painted in tiles."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from engine.conditioning.branch import Branch
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt
from engine.sampling.tiling import Tiles


def cut_branch(branch: Branch, tiles: Tiles) -> Branch:
    """Tell every tile the sizes of a picture as large as itself.

    Models are trained at such sizes. Told of the whole picture, the pocket model smears shapes at four times its size; told that
    a tile is a crop of it, at its distance from the corner, it loses some of what it was asked for and makes one of the rest.
    """
    if branch.size_ids is None:
        return branch
    return replace(branch, size_ids=branch.size_ids.of_part(tiles.tile, tiles.whole))


def cut_control(control: Control, tiles: Tiles) -> list[Control]:
    """Give each tile the part of a drawing that lies in it.

    The net has looked at the drawing as a whole, once, so that its borders are no borders of tiles.
    """
    masks: Sequence[Tensor | None] = [None] * tiles.count
    if control.mask is not None:
        size = (tiles.whole.height, tiles.whole.width)
        masks = tiles.cut(adaptive_avg_pool2d(control.mask, size))
    return [
        replace(control, seen=seen, mask=mask)
        for seen, mask in zip(tiles.cut(control.embedding), masks, strict=True)
    ]


def cut_image_prompt(prompt: ImagePrompt, tiles: Tiles) -> list[ImagePrompt]:
    """Give each tile its part of the mask; without one an image prompt is the same in all tiles."""
    if prompt.mask is None:
        return [prompt] * tiles.count
    mask = prompt.mask
    if prompt.mask_factor != 1:
        whole = (tiles.whole.height, tiles.whole.width)
        mask = interpolate(mask[None, None].float(), whole, mode="bicubic")[0, 0]
    return [replace(prompt, mask=part, mask_factor=1) for part in tiles.cut(mask)]
