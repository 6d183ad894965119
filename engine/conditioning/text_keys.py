"""Keys and values of texts, which are the same at every step: projected once for the rows of a call.

Rows come and go between steps, so what is kept belongs to exactly the texts of one call, in their order; that way a call gives the
numbers that it would give without.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.conditioning.fused_attention import CROSS, project_text

MOST = 4
"""Calls whose texts are kept: sizes and lengths of text that are painted side by side."""
ROOM = 2**28
"""Bytes that are kept at most, beside those of the call itself; SDXL takes 26 MB for 77 tokens of a row in 16 bits."""

Projected = tuple[tuple[Tensor, Tensor], ...]
"""For each cross-attention layer, in the order of `image_attention.image_layers`: keys and values, (rows, tokens, C)."""


@dataclass(frozen=True, eq=False, slots=True)
class _Kept:
    contexts: tuple[Tensor, ...]
    """Held so that no other tensor gets their places in memory, by which they are known."""
    projected: Projected

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for layer in self.projected for part in layer)


class TextKeys:
    """The texts of the latest calls of one UNet."""

    def __init__(self, unet: Any, room: int = ROOM) -> None:
        """Remember for `unet`; `room` is bytes, of which the latest call may take more."""
        self._layers = [
            unet.get_submodule(layer)
            for name in unet.attn_processors
            if (layer := name.removesuffix(".processor")).endswith(CROSS)
        ]
        self._room = room
        self._kept: OrderedDict[tuple[int, ...], _Kept] = OrderedDict()

    def forget(self) -> None:
        """Drop everything: the UNet's weights are others now, or memory is wanted."""
        self._kept.clear()

    @property
    def nbytes(self) -> int:
        """Memory that is taken."""
        return sum(kept.nbytes for kept in self._kept.values())

    @torch.inference_mode()
    def of(self, contexts: Sequence[Tensor]) -> Projected:
        """Give the keys and values of the texts of a call.

        Args:
            contexts: (1, tokens, D) of each row, all of one length; known by their identity.
        """
        key = tuple(map(id, contexts))
        kept = self._kept.get(key)
        if kept is None:
            together = torch.cat(list(contexts))
            projected = tuple(project_text(layer, together) for layer in self._layers)
            kept = self._kept[key] = _Kept(tuple(contexts), projected)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST or (len(self._kept) > 1 and self.nbytes > self._room):
            self._kept.popitem(last=False)
        return kept.projected
