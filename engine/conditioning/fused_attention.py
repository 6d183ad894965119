"""Query, key and value of a UNet's attention in one matrix product, without a second copy of their weights.

The weights of a layer's projections become views of one tensor: whoever writes them in place, as the weight patcher does, writes that
tensor. Where a UNet is moved by ``to`` they are fused anew. What exchanges its weights one by one, as hooks that stream them or cast
them do, and this don't go together.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor, nn

SELF, CROSS = ".attn1", ".attn2"
"""How the names of the layers end that attend to the picture itself, and to the text."""


def attend(
    query: Tensor, keys: Tensor, values: Tensor, heads: int, bias: Tensor | None = None
) -> Tensor:
    """Attend with several heads: all (rows, tokens, C), bias (rows, 1, queries, tokens)."""
    rows, queries, channels = query.shape
    split = (rows, -1, heads, channels // heads)
    q, k, v = (part.reshape(split).transpose(1, 2) for part in (query, keys, values))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return attended.transpose(1, 2).reshape(rows, queries, channels)


class FusedProjections(nn.Module):
    """Some projections of one layer, whose weights are views of `weight`; where the layer is moved they are again afterwards."""

    weight: Tensor
    """(sum of their outputs, D); no parameter and no buffer, since it is theirs."""

    def __init__(self, projections: Sequence[nn.Linear]) -> None:
        """Fuse projections; the parameters stay the same objects."""
        super().__init__()
        self._projections = tuple(projections)
        self._fuse()

    def _apply(self, fn: Any, recurse: bool = True) -> "FusedProjections":
        """Follow the projections, which come before this in the layer, to where they went."""
        self._fuse()
        return self

    @torch.no_grad()
    def _fuse(self) -> None:
        self.weight = torch.cat([linear.weight.data for linear in self._projections])
        sizes = [linear.out_features for linear in self._projections]
        for linear, view in zip(self._projections, torch.split(self.weight, sizes), strict=True):
            linear.weight.data = view

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a layer has weights of its own, which nobody has fused."""


class FusedSelfAttention:
    """Attention processor of a layer that attends to the picture itself; without `FusedProjections` the library's own."""

    def __init__(self) -> None:
        """Know the library's own."""
        from diffusers.models.attention_processor import AttnProcessor2_0

        self._plain = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Let the picture, (rows, cells, C), attend to itself; the names are the library's, which gives no more than the first."""
        if attn.fused is None:
            alone: Tensor = self._plain(attn, hidden_states)
            return alone
        query, key, value = F.linear(hidden_states, attn.fused.weight).chunk(3, -1)
        attended: Tensor = attn.to_out[0](attend(query, key, value, attn.heads))
        return attended


def fuse_attention(unet: Any) -> None:
    """Fuse the projections of a `UNet2DConditionModel`; done twice it is done once.

    Only layers of the common kind are fused: no biases, and nothing between projection and attention.
    """
    processors = dict(unet.attn_processors)
    for name in processors:
        attn = unet.get_submodule(name.removesuffix(".processor"))
        if not _is_common(attn) or getattr(attn, "fused", None) is not None:
            continue
        if name.endswith(f"{SELF}.processor"):
            attn.fused = FusedProjections([attn.to_q, attn.to_k, attn.to_v])
            processors[name] = FusedSelfAttention()
        else:
            attn.fused = FusedProjections([attn.to_k, attn.to_v])
    unet.set_attn_processor(processors)


def is_fused(unet: Any) -> bool:
    """Whether any projections are views of one tensor."""
    return any(isinstance(module, FusedProjections) for module in unet.modules())


def project_text(attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    """Give a cross-attention layer's keys and values of a text: (rows, tokens, D) to twice (rows, tokens, C)."""
    fused = getattr(attn, "fused", None)
    if fused is None:
        return attn.to_k(context), attn.to_v(context)
    keys, values = F.linear(context, fused.weight).chunk(2, -1)
    return keys, values


def _is_common(attn: Any) -> bool:
    """Whether a layer does nothing but project, attend and project."""
    between = (attn.norm_q, attn.norm_k, attn.group_norm, attn.spatial_norm, attn.norm_cross)
    return (
        not any(between)
        and not attn.residual_connection
        and attn.rescale_output_factor == 1
        and attn.to_q.bias is None
        and attn.to_k.bias is None
        and attn.to_v.bias is None
    )
