"""Finding a mask in a picture: what stands out in it, or what words name.

The networks are read for one mask and let go: painting needs their memory. Sizes, thresholds and orders are Fooocus', but
that its detector sees red and blue exchanged and takes what it finds unsorted; that is so with `as_fooocus` alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from engine.catalog import Catalog
from engine.errors import InvalidRequest
from engine.geometry import Size
from engine.image_inputs import ClothCategory, MaskModel
from engine.models.segmenters import (
    Detector,
    OutlineNetwork,
    Sam,
    load_detector,
    load_outline_network,
    load_sam,
)
from engine.plan import FindMask
from engine.stages.pixels import Pixels, size_of, stretch, to_levels

SIDES: Mapping[MaskModel, int] = {
    "isnet-general-use": 1024,
    "isnet-anime": 1024,
    "u2net_cloth_seg": 768,
}
"""Pixels along each side of the square that a network sees; `SIDE` for the others."""
SIDE = 320
CLOTHES: Mapping[ClothCategory, int] = {"upper": 1, "lower": 2, "full": 3}
"""Which of its channels speaks of them."""
SHORT_SIDE, LONG_SIDE = 800, 1333
"""Pixels that a detector's picture has along its short side, and along its long side at most."""
MAX_BOXES = 64
"""Most things that are taken; with a threshold near 0 a detector finds 900."""
SMALL_HOLE = 400
"""Pixels of a hole that is not filled any more."""
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, 0 to 1."""


def find_mask(
    start: FindMask,
    catalog: Catalog,
    picture: Pixels,
    device: torch.device,
    *,
    as_fooocus: bool = False,
) -> Pixels:
    """Find the mask that a plan asks for.

    Args:
        start: Of the plan.
        catalog: Knows the networks.
        picture: (H, W, 3).
        device: Where networks of torch run.
        as_fooocus: Whether Fooocus' known defects are kept.

    Returns:
        (H, W), 255 where it is; those of networks for what stands out are soft.

    Raises:
        ModelNotFound: a network is not there, or what runs it.
        ModelIncompatible: a file holds another network.
        InvalidRequest: nothing is found.
    """
    field = "mask_from.model"
    if start.network is not None:
        network = load_outline_network(catalog.weights("inpaint", start.network, field).path)
        if start.model == "u2net_cloth_seg":
            mask = find_clothes(network, picture, start.cloth, as_fooocus=as_fooocus)
        else:
            mask = find_outstanding(network, picture, start.model)
        return _require_some(mask, field, "something that stands out")
    detector = load_detector(catalog.weights("segmenter", start.detector or "", field).path, device)
    boxes = find_boxes(detector, picture, start, as_fooocus=as_fooocus)
    del detector  # before the other network takes memory
    if len(boxes) and start.sam is not None:
        sam = load_sam(catalog.weights("segmenter", start.sam, field).path, device)
        mask = joined(outlines(sam, picture, boxes), size_of(picture))
    else:
        mask = joined(filled(boxes, size_of(picture)), size_of(picture))
    return _require_some(mask, "mask_from.prompt", f"{start.prompt.strip()!r} in the picture")


def find_outstanding(network: OutlineNetwork, picture: Pixels, model: MaskModel) -> Pixels:
    """Find what stands out: (H, W), soft, from 0 where it does least to 255 where most."""
    is_plain = model.startswith("isnet")
    spread = (1.0, 1.0, 1.0) if is_plain else _SPREAD
    answer = network.run(fed(picture, SIDES.get(model, SIDE), spread))
    return stretch(spread_out(answer[0, 0]), size_of(picture))


def find_clothes(
    network: OutlineNetwork, picture: Pixels, category: ClothCategory, *, as_fooocus: bool
) -> Pixels:
    """Find clothes: (H, W)."""
    answer = network.run(fed(picture, SIDES["u2net_cloth_seg"], _SPREAD))
    kinds = answer[0].argmax(axis=0).astype(np.uint8)
    return of_kind(kinds, CLOTHES[category], size_of(picture), as_fooocus=as_fooocus)


def fed(picture: Pixels, side: int, spread: tuple[float, ...]) -> NDArray[np.float32]:
    """Bring a picture to what a network for outlines sees: (1, 3, side, side), by its own brightest value."""
    values = stretch(picture, Size(side, side)).astype(np.float64)
    values /= max(float(values.max()), 1e-6)
    values = (values - _MEAN) / spread
    return values.transpose(2, 0, 1)[None].astype(np.float32)


def spread_out(answer: NDArray[np.float32]) -> Pixels:
    """Bring answers to levels: the least is 0, the most 255; nothing stands out where all are alike."""
    low, high = float(answer.min()), float(answer.max())
    if not high > low:
        return np.zeros(answer.shape, np.uint8)
    return to_levels((answer - low) / (high - low))


def of_kind(kinds: Pixels, kind: int, size: Size, *, as_fooocus: bool) -> Pixels:
    """Give the mask of one kind of pixels.

    Fooocus resizes the numbers of the kinds, so that between 0 and 3 there are lines of 1 and 2.
    """
    if as_fooocus:
        return np.where(stretch(kinds, size) == kind, 255, 0).astype(np.uint8)
    return stretch(np.where(kinds == kind, 255, 0).astype(np.uint8), size)


def find_boxes(
    detector: Detector, picture: Pixels, start: FindMask, *, as_fooocus: bool
) -> NDArray[np.float64]:
    """Find boxes around what the words of a plan name: (N, 4), left, top, right and bottom in pixels, the surest first."""
    seen = picture[..., ::-1] if as_fooocus else picture
    values = to_values(seen, detector_size(size_of(picture)))
    boxes, scores = detector.run(values, caption(start.prompt))
    chosen = choose(scores, start.box_threshold, start.max_detections, is_sorted=not as_fooocus)
    return to_corners(boxes[chosen], size_of(picture), start.grow_boxes)


def caption(words: str) -> str:
    """Write words as a detector reads them."""
    text = words.strip().lower()
    return text if text.endswith(".") else text + "."


def choose(scores: Tensor, threshold: float, most: int, *, is_sorted: bool) -> Tensor:
    """Choose what is surer than the threshold.

    Args:
        scores: (N,), 0 to 1.
        threshold: What is not above it is left out.
        most: How many are taken; 0 is as many as there are, up to `MAX_BOXES`.
        is_sorted: Whether the surest come first; else they stay in their order.

    Returns:
        Their places, whole numbers.
    """
    places = (scores > threshold).nonzero()[:, 0]
    if is_sorted:
        places = places[scores[places].argsort(descending=True, stable=True)]
    return places[: min(most or MAX_BOXES, MAX_BOXES)]


def to_corners(boxes: Tensor, size: Size, grow: int) -> NDArray[np.float64]:
    """Turn boxes of shares into pixels.

    Args:
        boxes: (N, 4), middle x, middle y, width, height.
        size: Of the picture.
        grow: Pixels that are added on each side, below 0 taken away; boxes may reach beyond the picture.

    Returns:
        (N, 4), left, top, right, bottom.
    """
    middle, half = boxes[:, :2].double(), boxes[:, 2:].double() / 2
    corners = torch.cat([middle - half, middle + half], dim=1)
    scaled = corners * torch.tensor([*size, *size], dtype=torch.float64)
    return (scaled + torch.tensor([-grow, -grow, grow, grow], dtype=torch.float64)).numpy()


def filled(boxes: NDArray[np.float64], size: Size) -> Iterator[Pixels]:
    """Give each box as a mask, (H, W)."""
    for box in boxes:
        left, top, right, bottom = (max(0, round(edge)) for edge in box)
        mask = np.zeros((size.height, size.width), np.uint8)
        mask[top:bottom, left:right] = 255
        yield mask


def outlines(sam: Sam, picture: Pixels, boxes: NDArray[np.float64]) -> Iterator[Pixels]:
    """Give the outline of what is in each box as a mask, (H, W), with small holes filled."""
    size, side = size_of(picture), sam.side
    scale = side / max(size)
    inner = Size(max(1, int(size.width * scale + 0.5)), max(1, int(size.height * scale + 0.5)))
    values = torch.zeros(1, 3, side, side)
    values[:, :, : inner.height, : inner.width] = to_values(picture, inner)
    factors = (inner.width / size.width, inner.height / size.height)
    scaled = torch.from_numpy(boxes * (*factors, *factors)).float()
    for levels in sam.run(values, scaled):
        part = levels[None, None, : inner.height, : inner.width]
        whole = functional.interpolate(part, (size.height, size.width), mode="bilinear")[0, 0]
        yield fill_holes((whole > 0).to(torch.uint8).cpu().numpy() * np.uint8(255))


def fill_holes(mask: Pixels, below: int = SMALL_HOLE) -> Pixels:
    """Fill the dark parts of a mask, (H, W), that have fewer pixels than `below`."""
    facts: Any = cv2.connectedComponentsWithStats((mask == 0).astype(np.uint8), connectivity=8)
    _, labels, counts, _ = facts
    is_small = counts[:, cv2.CC_STAT_AREA] < below
    is_small[0] = False  # the light part
    return np.where(is_small[labels], 255, mask).astype(np.uint8)


def joined(masks: Iterator[Pixels], size: Size) -> Pixels:
    """Join masks of one size, one after the other."""
    whole = np.zeros((size.height, size.width), np.uint8)
    for mask in masks:
        np.maximum(whole, mask, out=whole)
    return whole


def to_values(picture: Pixels, size: Size) -> Tensor:
    """Resize a picture as detectors and SAM were trained with: (1, 3, h, w), ImageNet's mean and spread taken out."""
    resized = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    mean, spread = np.array(_MEAN, np.float32), np.array(_SPREAD, np.float32)
    values = (resized.astype(np.float32) / 255 - mean) / spread
    return torch.from_numpy(values).permute(2, 0, 1)[None].contiguous()


def detector_size(size: Size) -> Size:
    """Give the size at which a detector sees a picture."""
    short, long = min(size), max(size)
    side = SHORT_SIDE
    if long / short * side > LONG_SIDE:
        side = max(1, round(LONG_SIDE * short / long))
    if size.width < size.height:
        return Size(side, int(side * size.height / size.width))
    return Size(int(side * size.width / size.height), side)


def _require_some(mask: Pixels, field: str, what: str) -> Pixels:
    if not mask.any():
        raise InvalidRequest(field, f"expected {what}, found none")
    return mask
