"""Image prompts for the pocket UNet: a resampler, its keys and values, and attention that reads them.

Names and shapes of the weights are those of IP-Adapter's "plus" files, with `pooled_proj` besides: this
UNet takes colours from the pooled vector alone and hears nothing else on them, so an image adds to that
vector what a caption of it would have (`pooled_proj`; its matrix `ground` is for two images, of which the one gives the
thing and the other the ground). Both ways to attend are here,
because the adapter is trained for both: Fooocus' joint one, where text and images share one softmax,
and diffusers' separate one. Source: Ye et al. 2023, https://arxiv.org/abs/2308.06721
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pocket.parts import POOLED_WIDTH, Unet
from pocket.sight import WIDTH

TOKENS = 8
"""Tokens that an image becomes."""

DEPTH = 2
HEAD = 64
"""Channels of one head of the resampler, in every file of this kind."""

REFERENCE_WIDTH = 128
"""Width of attention at which the joint formula takes a weight as it is; SDXL's is 1280."""

METADATA = {"reference_width": str(REFERENCE_WIDTH), "format": "pt"}


class _Perceiver(nn.Module):
    """Queries attend to the image's states and to themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, states: Tensor, queries: Tensor) -> Tensor:
        """(N, S, C) states and (N, T, C) queries to (N, T, C)."""
        queries = self.norm2(queries)
        q = _heads(self.to_q(queries))
        k, v = _heads(self.to_kv(torch.cat([self.norm1(states), queries], 1))).chunk(2, dim=1)
        soft = ((q * HEAD**-0.25) @ (k * HEAD**-0.25).transpose(-1, -2)).float().softmax(-1)
        joined: Tensor = self.to_out(_joined(soft.to(v.dtype) @ v))
        return joined


def _heads(x: Tensor, size: int = HEAD) -> Tensor:
    """(N, T, H * size) to (N, H, T, size)."""
    return x.reshape(*x.shape[:2], -1, size).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """(N, H, T, size) to (N, T, H * size)."""
    return x.transpose(1, 2).flatten(2)


class Resampler(nn.Module):
    """An image's states to a few tokens like those of a text."""

    def __init__(self, tokens_width: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * WIDTH**-0.5)
        self.proj_in = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleList([_Perceiver(WIDTH), _feed_forward(WIDTH)]) for _ in range(DEPTH)
        )
        self.proj_out = nn.Linear(WIDTH, tokens_width)
        self.norm_out = nn.LayerNorm(tokens_width)

    def forward(self, states: Tensor) -> Tensor:
        """(N, S, WIDTH) states of the image encoder to (N, TOKENS, tokens_width)."""
        states = self.proj_in(states)
        queries = self.latents.expand(len(states), -1, -1)
        blocks: Any = self.layers  # module lists are opaque to a type checker
        for perceiver, forward in blocks:
            queries = perceiver(states, queries) + queries
            queries = forward(queries) + queries
        tokens: Tensor = self.norm_out(self.proj_out(queries))
        return tokens


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


class _Projections(nn.Module):
    """Keys and values of one cross-attention."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(text.to_k.in_features, text.to_k.out_features, bias=False)
        self.to_v_ip = nn.Linear(text.to_v.in_features, text.to_v.out_features, bias=False)
        self.to_k_ip.weight.data.copy_(text.to_k.weight.data)
        self.to_v_ip.weight.data.copy_(text.to_v.weight.data)


@dataclass(frozen=True)
class Images:
    """What every cross-attention of one UNet call reads beside the text."""

    tokens: Sequence[Tensor]
    """One (N, TOKENS, C) for each image of a row."""
    weights: Sequence[Tensor]
    """One (N,) for each image."""
    pooled: Tensor
    """(N, P): what the images add to the pooled vector of the text."""
    joint: bool = True
    """Fooocus' formula; else diffusers'."""


def cross_attentions(unet: Unet) -> list[Any]:
    """All cross-attentions of a UNet, in the order of the files: down, up, middle."""
    found = [(name, module) for name, module in unet.named_modules() if name.endswith(".attn2")]
    order = ("down_blocks", "up_blocks", "mid_block")
    return [module for part in order for name, module in found if name.startswith(part)]


class PooledProjection(nn.Linear):
    """From the encoder's projection to what an image adds to the pooled vector, and which part of that is of its ground."""

    ground: Tensor

    def __init__(self) -> None:
        super().__init__(POOLED_WIDTH, POOLED_WIDTH)
        self.register_buffer("ground", torch.zeros(POOLED_WIDTH, POOLED_WIDTH))

    def joined(self, projections: Sequence[Tensor]) -> Tensor:
        """(N, P): the thing of the first image before the ground of the last."""
        first, last = self(projections[0]), self(projections[-1])
        added: Tensor = first + functional.linear(last - first, self.ground)
        return added


class Adapter(nn.Module):
    """Everything that is trained; keys start as the text's own."""

    def __init__(self, unet: Unet) -> None:
        super().__init__()
        texts = cross_attentions(unet)
        width = texts[0].to_k.in_features
        self.image_proj = Resampler(width)
        self.ip_adapter = nn.ModuleDict(
            {str(2 * i + 1): _Projections(text) for i, text in enumerate(texts)}
        )
        self.pooled_proj = PooledProjection()
        self.negative = nn.Parameter(torch.randn(TOKENS, width))
        for text, projections in zip(texts, self.ip_adapter.values(), strict=True):
            text.set_processor(ImageAttention(projections))

    def save(self, folder: Path) -> None:
        """Write `adapter.safetensors` and, for the negative half, `negative.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: p.detach().half().contiguous() for n, p in self.state_dict().items()}
        negative = weights.pop("negative")
        save_file(weights, folder / "adapter.safetensors", METADATA)
        save_file({"data": negative}, folder / "negative.safetensors", {"format": "pt"})


class ImageAttention:
    """Attention of a UNet that also reads images; self-attention where it has no projections."""

    def __init__(self, projections: nn.Module | None = None) -> None:
        self.projections: Any = projections

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        images: Images | None = None,
    ) -> Tensor:
        """(N, S, C) to (N, S, C), before the residual."""
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        size = attention.to_q.out_features // attention.heads
        q, k, v = (
            attention.to_q(hidden_states),
            attention.to_k(told),
            attention.to_v(told),
        )
        if images is None or self.projections is None:
            mixed = _attend(q, k, v, size)
        elif images.joint:
            keys, values = zip(*self._weighted(images, q.shape[-1]), strict=True)
            mixed = _attend(q, torch.cat([k, *keys], 1), torch.cat([v, *values], 1), size)
        else:
            mixed = _attend(q, k, v, size)
            for tokens, weight in zip(images.tokens, images.weights, strict=True):
                own = _attend(q, *self._projected(tokens), size)
                mixed = mixed + weight.to(own.dtype)[:, None, None] * own
        out: Tensor = attention.to_out[1](attention.to_out[0](mixed))
        return out

    def _projected(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.projections.to_k_ip(tokens), self.projections.to_v_ip(tokens)

    def _weighted(self, images: Images, width: int) -> list[tuple[Tensor, Tensor]]:
        """Keys times the weight, values with their mean times the weight, for each image."""
        pairs = []
        for tokens, weight in zip(images.tokens, images.weights, strict=True):
            k, v = self._projected(tokens)
            w = (weight * (width / REFERENCE_WIDTH)).to(k.dtype)[:, None, None]
            mean = v.mean(1, keepdim=True)
            pairs.append((k * w, v - mean + mean * w))
        return pairs


def _attend(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """Plain attention: on a CPU the fused one is slow backwards."""
    scores = (_heads(q, size) * size**-0.5) @ _heads(k, size).transpose(-1, -2)
    return _joined(scores.softmax(-1).to(v.dtype) @ _heads(v, size))
