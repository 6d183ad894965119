"""Low-rank adapters of the UNet (Hu et al. 2021, https://arxiv.org/abs/2106.09685), and their files.

The adapters hang on the UNet's layers as hooks, so the UNet stays the stock class and its own weights
never change. Files are named the way kohya's trainers do.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pocket.parts import Unet

PREFIX = "lora_unet_"

FEW_STEPS = "pocket_lcm.safetensors"
"""File of the adapters that every fast mode of the finished model uses."""

TARGETS = (
    "conv1",
    "conv2",
    "time_emb_proj",
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
    "proj_out",
)
"""Ends of the names of the layers that are adapted; the rest is small or holds sizes, not content."""


@dataclass(frozen=True)
class Adapter:
    """What an adapter is and says of itself."""

    title: str
    summary: str
    rank: int
    alpha: float
    trigger: str = ""
    """Words that call for it; empty where its weight alone does."""

    @property
    def metadata(self) -> dict[str, str]:
        """The header of its file."""
        said = {
            "ss_network_dim": str(self.rank),
            "ss_network_alpha": f"{self.alpha:g}",
            "modelspec.title": self.title,
            "pochade.summary": self.summary,
            "pochade.base": "pocket",
        }
        return said | ({"modelspec.trigger_phrase": self.trigger} if self.trigger else {})


class Pair(nn.Module):
    """The two thin layers beside one layer of the UNet."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        if isinstance(layer, nn.Conv2d):
            self.down = nn.Conv2d(
                layer.in_channels,
                rank,
                cast("tuple[int, int]", layer.kernel_size),
                cast("tuple[int, int]", layer.stride),
                cast("tuple[int, int]", layer.padding),
                bias=False,
            )
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the layer's answer, before strength and alpha."""
        added: Tensor = self.up(self.down(x))
        return added


class Lora(nn.Module):
    """Adapters on a UNet. The UNet is no part of this module: training sees the adapters alone."""

    def __init__(self, unet: Unet, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.strength: Tensor | float = 1.0
        """Weight of the adapters: one number, or (N,) for each picture; 0 leaves them out."""
        self.pairs = nn.ModuleDict()
        self._handles = []
        for name, layer in unet.named_modules():
            if name.endswith(TARGETS) and isinstance(layer, nn.Linear | nn.Conv2d):
                pair = Pair(layer, adapter.rank)
                self.pairs[name.replace(".", "_")] = pair
                self._handles.append(layer.register_forward_hook(self._hook(pair)))

    def detach(self) -> None:
        """Take the adapters off the UNet."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, pair: Pair) -> Any:
        scale = self.adapter.alpha / self.adapter.rank

        def add(layer: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
            strength = self.strength
            if isinstance(strength, Tensor):
                strength = strength.to(answer.dtype).reshape(-1, *(1,) * (answer.ndim - 1))
            elif strength == 0:
                return answer
            changed: Tensor = answer + pair(inputs[0]) * (strength * scale)
            return changed

        return add


def save_lora(weights: Mapping[str, Tensor], adapter: Adapter, file: Path) -> None:
    """Write adapters as float16.

    Args:
        weights: The parameters of a `Lora` by their names in it.
        adapter: What goes into the header.
        file: Written whole; its folder is made.
    """
    tensors = {}
    for name, weight in weights.items():
        layer, part = name.removeprefix("pairs.").removesuffix(".weight").rsplit(".", 1)
        tensors[f"{PREFIX}{layer}.lora_{part}.weight"] = weight.half().contiguous()
        tensors[f"{PREFIX}{layer}.alpha"] = torch.tensor(adapter.alpha, dtype=torch.float16)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata=adapter.metadata)


def load_deltas(file: Path) -> dict[str, Tensor]:
    """Read what a file adds to the weights of each layer at weight 1: float32, by `lora_unet_` name."""
    with safe_open(file, framework="pt") as reader:
        tensors = {key: reader.get_tensor(key).float() for key in reader.keys()}  # noqa: SIM118
    deltas = {}
    for key, up in tensors.items():
        if not key.endswith(".lora_up.weight"):
            continue
        layer = key.removesuffix(".lora_up.weight")
        down = tensors[f"{layer}.lora_down.weight"]
        scale = float(tensors[f"{layer}.alpha"]) / len(down)
        delta = up.flatten(1) @ down.flatten(1) * scale
        deltas[layer] = delta.reshape(len(up), *down.shape[1:])
    return deltas


@torch.no_grad()
def merge(unet: Unet, file: Path, weight: float) -> None:
    """Add a file to the weights of a UNet; the same with `-weight` takes it out again.

    Raises:
        ValueError: the file holds a layer that the UNet lacks.
    """
    deltas = load_deltas(file)
    for name, layer in unet.named_modules():
        delta = deltas.pop(PREFIX + name.replace(".", "_"), None)
        if delta is not None:
            layer.weight += (weight * delta).to(layer.weight.dtype)
    if deltas:
        raise ValueError(f"{file.name}: no layer of the UNet is called {min(deltas)}")


def read_metadata(file: Path) -> dict[str, str]:
    """The header of a file of adapters."""
    with safe_open(file, framework="pt") as reader:
        return dict(reader.metadata() or {})
