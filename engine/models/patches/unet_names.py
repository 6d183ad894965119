"""The names of a UNet's modules in the original SDXL layout (LDM, SGM), told from the network's own settings.

diffusers counts blocks and layers within them; the original counts one row of input blocks and one of output blocks.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_MIDDLE = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")


def original_names(config: Mapping[str, Any], modules: Iterable[str]) -> dict[str, str]:
    """Give modules of a `UNet2DConditionModel` their original names.

    Args:
        config: Its settings: ``layers_per_block``, ``down_block_types`` and ``up_block_types`` are looked at.
        modules: Names of modules in diffusers' layout.

    Returns:
        Original name by diffusers' name, for those that the original has.
    """
    layout = _Layout(config)
    named = ((module, layout.rename(module)) for module in modules)
    return {module: name for module, name in named if name is not None}


class _Layout:
    """Where each block of a UNet begins in the original rows."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        downs: Sequence[str] = config["down_block_types"]
        ups: Sequence[str] = config["up_block_types"]
        layers = config["layers_per_block"]
        counts = [layers] * len(downs) if isinstance(layers, int) else list(layers)
        spans = [count + 1 for count in counts]  # its layers and a downsampler; up: one layer more
        self._starts = {
            "down": list(accumulate(spans, initial=1)),
            "up": list(accumulate(reversed(spans), initial=0)),
        }
        self._attends = {
            "down": ["Attn" in kind for kind in downs],
            "up": ["Attn" in kind for kind in ups],
        }

    def rename(self, module: str) -> str | None:
        """Name one module; None for one that the original has not."""
        if module in _ENDS:
            return _ENDS[module]
        if module.startswith("mid_block."):
            kind, index, inner = (*module.split(".", 3)[1:], "")[:3]
            place = _MIDDLE.get(f"{kind}.{index}")
            return None if place is None else f"middle_block.{place}.{_inner(kind, inner)}"
        match = _BLOCK.match(module)
        if match is None:
            return None
        side, block, kind, number = match[1], int(match[2]), match[3], int(match[4])
        return f"{self._block(side, block, kind, number)}.{_inner(kind, module[match.end() + 1 :])}"

    def _block(self, side: str, block: int, kind: str, number: int) -> str:
        row = "input_blocks" if side == "down" else "output_blocks"
        starts, has_attention = self._starts[side], self._attends[side][block]
        if kind == "downsamplers":
            return f"{row}.{starts[block + 1] - 1}.0"
        if kind == "upsamplers":
            return f"{row}.{starts[block + 1] - 1}.{1 + has_attention}"
        return f"{row}.{starts[block] + number}.{0 if kind == 'resnets' else 1}"


def _inner(kind: str, inner: str) -> str:
    """Name a module within its layer."""
    if kind == "resnets":
        return _RESNET.get(inner, inner)
    return "op" if kind == "downsamplers" else inner
