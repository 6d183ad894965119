"""Cross-attention of a UNet that follows images beside the text, without state (design D6).

Each image is projected once to keys and values for every layer (`ImageTokens`). What is told to one UNet call travels with
the call, so rows with other images, weights and stops go through it together, and nothing is compiled anew for another weight.

Two formulas:

- ``joint``, that of Fooocus: words and images compete in one softmax. With w = weight · C / reference width in a layer of C
  channels, an image's keys are k · w and its values (v - mean) + mean · w, the mean taken over its tokens.
- ``separate``, that of IP-Adapter: each image has a softmax of its own, whose answer is added, times the weight.

Source of the second: Ye et al. 2023, https://arxiv.org/abs/2308.06721
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from engine.conditioning.fused_attention import CROSS, attend, project_text
from engine.conditioning.text_keys import Projected
from engine.models.transfers import send

Formula = Literal["joint", "separate"]
REFERENCE_WIDTH = 1280
"""Channels of the layers in which a weight of 1 changes nothing in the joint formula: SDXL's widest."""


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class ImageTokens:
    """An image as the layers of one UNet attend to it, on its device and in its number format."""

    keys: tuple[Tensor, ...]
    """For each cross-attention layer, in the order of `image_layers`: (1, tokens, channels of the layer)."""
    values: tuple[Tensor, ...]
    """Likewise."""

    @property
    def count(self) -> int:
        """How many tokens the image has."""
        return self.keys[0].shape[1]


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagePrompt:
    """An image that a picture follows, how strongly and for how long."""

    positive: ImageTokens
    """The image, for the positive side of guidance."""
    negative: ImageTokens
    """What stands for no image on the negative side."""
    weight: float
    """How strongly; 0 is off."""
    stop: float = 1.0
    """Share of the noise after which it is let go."""
    formula: Formula = "joint"
    layer_weights: tuple[float, ...] | None = None
    """Weights of the layers, in the order of `image_layers`, in place of `weight`; None is `weight` in all."""
    mask: Tensor | None = None
    """Where in the picture: (h, w) of the latents, 0 to 1. What the separate formula adds is multiplied by it; in the joint one
    it multiplies the image's share of the softmax, so that 0 is as if there were no image. None is everywhere."""
    mask_factor: int = 1
    """How many times as high and wide as the latents the mask is."""
    reference_width: int = REFERENCE_WIDTH
    """Of the joint formula; it belongs to the adapter."""
    pooled: Tensor | None = None
    """What it adds to the pooled text at weight 1, (1, P); only the pocket model's adapter knows."""
    ground: Tensor | None = None
    """The part of `pooled` that tells of the background, (1, P); None where the adapter cannot tell them apart."""

    def is_active(self, progress: float) -> bool:
        """Whether it counts when `progress` (0 to 1) of the noise is gone."""
        return self.weight != 0 and progress < self.stop

    def tokens(self, *, is_negative: bool) -> Tensor:
        """Give one side with the weight worked in: (1, tokens, sum of all layers' keys and values)."""
        return self._weighted_negative if is_negative else self._weighted_positive

    @cached_property
    def masks(self) -> dict[int, Tensor]:
        """The mask at each depth of the UNet, by number of queries: (1, queries, 1); empty where there is none."""
        if self.mask is None:
            return {}
        like = self.positive.keys[0]
        return _halved(send(self.mask, like.device), self.mask_factor, like)

    @cached_property
    def _weighted_positive(self) -> Tensor:
        return self._weighted(self.positive)

    @cached_property
    def _weighted_negative(self) -> Tensor:
        return self._weighted(self.negative)

    def _weighted(self, tokens: ImageTokens) -> Tensor:
        weights = self.layer_weights or (self.weight,) * len(tokens.keys)
        parts: list[Tensor] = []
        for key, value, weight in zip(tokens.keys, tokens.values, weights, strict=True):
            parts += self._weigh(key.float(), value.float(), weight)
        return torch.cat(parts, -1).to(tokens.keys[0].dtype)

    def _weigh(self, key: Tensor, value: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        if self.formula == "separate":
            return key, value * weight
        weight = weight * key.shape[-1] / self.reference_width
        mean = value.mean(1, keepdim=True)
        return key * weight, (value - mean) + mean * weight


ImageRow = Sequence[tuple[ImagePrompt, bool]]
"""The active images of one row of a UNet call, of one formula, and whether the row is the negative side."""


class ToldHere(NamedTuple):
    """What one layer is told in a UNet call."""

    text: tuple[Tensor, Tensor] | None
    """Keys and values of the text, (rows, tokens, C) each; None where the layer is to project it."""
    formula: Formula | None
    """None where there are no images."""
    images: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values; joint: of all images as one, separate: of each."""
    mask: Tensor | None


class Told(NamedTuple):
    """What all layers are told in a UNet call."""

    text: Projected | None
    formula: Formula | None
    images: tuple[Tensor, ...]
    """Joint: one (rows, all tokens, …), separate: one for each image."""
    masks: dict[int, Tensor] | None
    """By number of queries."""

    def at(self, place: int, start: int, width: int, queries: int) -> ToldHere:
        """Take out what one layer is told.

        Args:
            place: Of the layer among `image_layers`.
            start: Where its keys and values begin in the weighted tokens of an image.
            width: Its channels.
            queries: Cells of the picture that it looks from.
        """
        parts = (image.narrow(-1, start, 2 * width).chunk(2, -1) for image in self.images)
        return ToldHere(
            text=None if self.text is None else self.text[place],
            formula=self.formula,
            images=tuple((keys, values) for keys, values in parts),
            mask=None if self.masks is None else self.masks[queries],
        )


class ImageAttention:
    """Attention processor of one cross-attention layer; told nothing it is the library's own, to the last bit."""

    def __init__(self, start: int, place: int = 0) -> None:
        """Remember where the layer begins in the weighted tokens of an image, and its place among `image_layers`."""
        from diffusers.models.attention_processor import AttnProcessor2_0

        self._place, self._start = place, start
        self._text_only = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        ip_hidden_states: Told | ToldHere | None = None,
    ) -> Tensor:
        """Attend to the text, and to images where there are some.

        Args:
            attn: The layer.
            hidden_states: (rows, queries, C).
            encoder_hidden_states: Text, (rows, tokens, D).
            attention_mask: Of the text; no UNet of Stable Diffusion has one, and with images it is not looked at.
            ip_hidden_states: What `attention_kwargs` gathered, under a name that the library hands through.
        """
        if ip_hidden_states is None:
            alone: Tensor = self._text_only(
                attn, hidden_states, encoder_hidden_states, attention_mask
            )
            return alone
        told = self.here(ip_hidden_states, hidden_states)
        assert encoder_hidden_states is not None
        # The query first, as in the library: streamed layers come in one order.
        query = attn.to_q(hidden_states)
        text = told.text or project_text(attn, encoder_hidden_states)
        together = _attend_jointly if told.formula == "joint" else _attend_separately
        attended: Tensor = attn.to_out[0](together(query, text, told.images, told.mask, attn.heads))
        return attended

    def here(self, told: Told | ToldHere, hidden: Tensor) -> ToldHere:
        """Take out what this layer is told about `hidden`, (rows, queries, C), where that is not done yet."""
        if isinstance(told, ToldHere):
            return told
        return told.at(self._place, self._start, hidden.shape[-1], hidden.shape[1])


def attend_images(unet: Any) -> None:
    """Put `ImageAttention` into all cross-attention layers of a UNet; where it is already nothing happens."""
    first = next(layer for name, layer in unet.named_modules() if name.endswith(CROSS))
    if isinstance(first.processor, ImageAttention):
        return
    processors, start = dict(unet.attn_processors), 0
    for place, (name, width) in enumerate(image_layers(unet).items()):
        processors[name] = ImageAttention(start, place)
        start += 2 * width
    unet.set_attn_processor(processors)


def image_layers(unet: Any) -> dict[str, int]:
    """List the cross-attention layers by the names of their processors, with their channels.

    The way down comes first, then the way up, then the middle: the order of the matrices in IP-Adapter files.
    """
    return {
        name: unet.get_submodule(layer).to_k.out_features
        for name in unet.attn_processors
        if (layer := name.removesuffix(".processor")).endswith(CROSS)
    }


def call_key(row: ImageRow) -> Hashable:
    """Say what rows must have in common to go through the UNet together; a row without images never goes with others."""
    if not row:
        return None
    counts = tuple(_side(prompt, is_negative).count for prompt, is_negative in row)
    formula = row[0][0].formula
    masked = next((prompt.mask.shape for prompt, _ in row if prompt.mask is not None), None)
    return formula, sum(counts) if formula == "joint" else counts, masked


def attention_kwargs(
    rows: Sequence[ImageRow], text: Projected | None = None
) -> dict[str, Any] | None:
    """Gather what a UNet call is told as ``cross_attention_kwargs``.

    Args:
        rows: The images of each row; all rows have one `call_key`.
        text: Keys and values of the rows' texts, where they are known.

    Returns:
        None where there is nothing to tell, so that the call is the same as without this module.
    """
    if not any(rows):
        told = None if text is None else Told(text, None, (), None)
        return None if told is None else {"ip_hidden_states": told}
    tokens = [[prompt.tokens(is_negative=negative) for prompt, negative in row] for row in rows]
    formula = rows[0][0][0].formula
    columns = (
        [[torch.cat(row, 1) for row in tokens]] if formula == "joint" else zip(*tokens, strict=True)
    )
    images = tuple(map(torch.cat, columns))
    return {"ip_hidden_states": Told(text, formula, images, _gather_masks(rows, formula))}


def add_pooled(pooled: Tensor, row: ImageRow) -> Tensor:
    """Add what the images of a row say to its pooled text, (1, P); weights beyond 1 in all share that 1.

    A mean of two colours is a third. So where the adapter can tell a background from what stands before it, the images lie
    side by side in their order, each as wide as its share of the weights, and the first half of them gives the thing, the
    second half the background. The negative side hears nothing.
    """
    told = [p for p, is_negative in row if p.pooled is not None and not is_negative]
    whole = sum(prompt.weight for prompt in told)
    begin = 0.0
    for prompt in told:
        end = begin + prompt.weight
        assert prompt.pooled is not None
        said = said_between(begin / whole, end / whole, prompt.pooled, prompt.ground)
        pooled = pooled + said.to(pooled) * min(1.0, whole)
        begin = end
    return pooled


def said_between(begin: float, end: float, pooled: Tensor, ground: Tensor | None) -> Tensor:
    """Give what an image that lies from `begin` to `end` of all, 0 to 1, says of the whole.

    Args:
        begin: Where it begins.
        end: Where it ends.
        pooled: What it says alone, (1, P).
        ground: The part of that which tells of the background; None where nobody knows.
    """
    if ground is None:
        return pooled * (end - begin)
    thing, behind = 2 * max(0.0, min(end, 0.5) - begin), 2 * max(0.0, end - max(begin, 0.5))
    return pooled * thing + ground * (behind - thing)


def _side(prompt: ImagePrompt, is_negative: bool) -> ImageTokens:
    return prompt.negative if is_negative else prompt.positive


def _attend_jointly(
    query: Tensor,
    text: tuple[Tensor, Tensor],
    images: Sequence[tuple[Tensor, Tensor]],
    shares: Tensor | None,
    heads: int,
) -> Tensor:
    """Attend in one softmax; `shares` are logarithms, (rows, queries, tokens of all images)."""
    keys, values = (torch.cat(together, 1) for together in zip(text, *images, strict=True))
    bias = None if shares is None else F.pad(shares, (text[0].shape[1], 0)).unsqueeze(1)
    return attend(query, keys, values, heads, bias)


def _attend_separately(
    query: Tensor,
    text: tuple[Tensor, Tensor],
    images: Sequence[tuple[Tensor, Tensor]],
    shares: Tensor | None,
    heads: int,
) -> Tensor:
    """Add a softmax for each image; `shares` are factors, (rows, queries, images)."""
    attended = attend(query, *text, heads)
    for index, image in enumerate(images):
        added = attend(query, *image, heads)
        attended = attended + (added if shares is None else added * shares[..., index, None])
    return attended


def _gather_masks(rows: Sequence[ImageRow], formula: Formula) -> dict[int, Tensor] | None:
    """Bring the masks of all images together at every depth; images without one are seen everywhere."""
    prompts = [[prompt for prompt, _ in row] for row in rows]
    levels = next((prompt.masks for row in prompts for prompt in row if prompt.masks), {})
    if not levels:
        return None
    gathered = {}
    for queries, level in levels.items():
        everywhere = torch.ones_like(level)
        shares = [
            torch.cat(
                [
                    prompt.masks.get(queries, everywhere).expand(
                        -1, -1, _side(prompt, negative).count if formula == "joint" else 1
                    )
                    for prompt, negative in row
                ],
                -1,
            )
            for row in rows
        ]
        factors = torch.cat(shares)
        gathered[queries] = factors.clamp(0, 1).log() if formula == "joint" else factors
    return gathered


def _halved(mask: Tensor, factor: int, like: Tensor) -> dict[int, Tensor]:
    """Resize a mask for every depth of a UNet, each half as large as the one before, rounded up.

    The first is `factor` times smaller than the mask. Each is sampled from the mask itself, as diffusers does.
    """
    height, width = (side // factor for side in mask.shape)
    levels: dict[int, Tensor] = {}
    while height * width not in levels:
        resized = F.interpolate(mask[None, None].float(), (height, width), mode="bicubic")
        levels[height * width] = resized.reshape(1, -1, 1).to(like)
        height, width = (height + 1) // 2, (width + 1) // 2
    return levels
