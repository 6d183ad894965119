"""ControlNets: networks that look at a drawing and steer a UNet by it.

Read from a folder as diffusers keeps them, from single files in diffusers' or the original layout, and from control-LoRA files, which
hold low-rank changes of the base model's own weights. What such a file leaves to the base model is shared with its UNet, not copied.

Source: Zhang et al. 2023, https://arxiv.org/abs/2302.05543; control-LoRA: reference/fooocus_engine.md, 7.3.
"""

import inspect
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ModelIncompatible, ModelNotFound
from engine.families import text_width
from engine.models.checkpoints import freeze, reading
from engine.models.control_layouts import (
    HINT,
    Layout,
    hint_settings,
    layout_of,
    original_modules,
    settings_of,
    stripped,
)
from engine.models.devices import quiet_libraries
from engine.models.patches.deltas import LowRank
from engine.models.tensors import read_tensors
from engine.models.transfers import send

log = logging.getLogger(__name__)

UNION_MODES: Mapping[str, int] = {
    "pose": 0,
    "depth": 1,
    "soft_edge": 2,
    "scribble": 2,
    "canny": 3,
    "lineart": 3,
    "straight_lines": 3,
    "normal": 4,
    "segmentation": 5,
    "tile": 6,
    "repaint": 7,
}
"""Places of the kinds of drawings in ControlNet Union; those of six kinds know neither ``tile`` nor ``repaint``."""
_FOLDER_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_MUST_FIT = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
"""Settings that a ControlNet has in common with the UNet that it steers."""


@dataclass(frozen=True, eq=False, slots=True)
class MergedWeight:
    """One weight of a control-LoRA: the UNet's own, and a low-rank change of it."""

    weight: Tensor
    base: Tensor
    change: LowRank | None = None
    """None where the UNet's own lies elsewhere, or in another number format, and is copied."""

    def rebuild(self) -> None:
        """Work the weight out anew, in float32 and rounded once; its address stays."""
        whole = self.base.detach().to(
            torch.float32, copy=True, memory_format=torch.contiguous_format
        )
        if self.change is not None:
            self.change.add_to(whole, 1.0)
        self.weight.copy_(whole)


class RowByRow(nn.Module):
    """One of a Union's layers, without the mistake that it mixes the rows of a call.

    Its attention takes (tokens, rows, C) and is given (rows, tokens, C), so that each row sees the same token of all others. In
    training and in diffusers' pipeline these are of one picture; here they may be of several people.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Answer for (rows, tokens, C) as for each row alone."""
        alone: Tensor = self.layer(x.reshape(1, -1, x.shape[-1]))
        return alone.reshape(x.shape)


@dataclass(frozen=True, eq=False, slots=True)
class ControlNet:
    """A ControlNet in memory, in evaluation mode, without gradients."""

    name: str
    network: Any
    """diffusers' `ControlNetModel` or `ControlNetUnionModel`, fed with a drawing that `hint_encoder` has seen already."""
    hint_encoder: Any
    """From (B, 3, H, W) to (B, C, H/8, W/8)."""
    modes: int = 0
    """Kinds of drawings that a Union knows; 0 where it is none."""
    is_bgr: bool = False
    """Whether it was trained on drawings with red and blue exchanged."""
    merged: Sequence[MergedWeight] = ()

    def embed(self, hint: Tensor) -> Tensor:
        """Look at a drawing: (B, 3, H, W) of 0 to 1. What comes out is good for every step."""
        weight = self.hint_encoder.conv_in.weight
        hint = send(hint, weight.device).to(weight.dtype)
        embedding: Tensor = self.hint_encoder(hint.flip(1) if self.is_bgr else hint)
        return embedding

    def mode(self, kind: str) -> int | None:
        """Find the place of a kind of drawing (a key of `UNION_MODES`); None where the net is no Union.

        Raises:
            ModelIncompatible: the Union does not know that kind.
        """
        if not self.modes:
            return None
        place = UNION_MODES[kind]
        if place >= self.modes:
            problem = (
                f"expected a ControlNet Union that knows {kind}, got one of {self.modes} kinds"
            )
            raise ModelIncompatible(f"{self.name}: {problem}")
        return place

    def residuals(
        self,
        embedding: Tensor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        added: Mapping[str, Tensor] | None,
        *,
        modes: Sequence[int] = (),
    ) -> list[Tensor]:
        """Run the net once.

        Args:
            embedding: (B, C, h, w), from `embed`.
            x: (B, 4, h, w), as the UNet is fed.
            timesteps: (B,).
            context: (B, tokens, C).
            added: Pooled texts and sizes, as the UNet is told.
            modes: Of a Union the kind of each drawing.

        Returns:
            What is added to the UNet's skips, the finest first, and last to its middle.
        """
        asked = {"added_cond_kwargs": added, "return_dict": False}
        if self.modes:
            kinds = send(torch.tensor(modes), x.device)
            one_hot = nn.functional.one_hot(kinds, self.modes).float()
            union = {"control_type": one_hot, "control_type_idx": [kinds]}
            down, middle = self.network(x, timesteps, context, [embedding], **union, **asked)
        else:
            down, middle = self.network(x, timesteps, context, embedding, **asked)
        return [*down, middle]

    @torch.inference_mode()
    def refresh(self) -> None:
        """Follow the UNet after its weights were patched: shared weights do so by themselves, merged ones here."""
        for merged in self.merged:
            merged.rebuild()


def load_controlnet(
    path: Path, unet: Any, *, allow_pickle: bool = False, known_sha256: Collection[str] = ()
) -> ControlNet:
    """Read a ControlNet for a UNet, onto its device and in its number format.

    Args:
        path: A diffusers folder or a single file.
        unet: diffusers' `UNet2DConditionModel`; patches in force now are in force in a control-LoRA too.
        allow_pickle: Whether any pickled file may be read.
        known_sha256: Pickled files that may be read in any case.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no ControlNet, not whole, or for another kind of base model.
        OutOfMemory: the device has no room for it.
    """
    file, settings = _folder_parts(path) if path.is_dir() else (path, {})
    tensors = read_tensors(file, allow_pickle=allow_pickle, known_sha256=known_sha256)
    net = build_controlnet(path.name, tensors, unet, settings)
    log.info("loaded ControlNet %s as %s on %s", path.name, unet.dtype, unet.device)
    return net


@torch.no_grad()
def build_controlnet(
    name: str, tensors: Mapping[str, Tensor], unet: Any, settings: Mapping[str, Any] | None = None
) -> ControlNet:
    """Make a ControlNet of the tensors of a file.

    Args:
        name: For messages.
        tensors: By the file's keys; none of them is kept.
        unet: The UNet that it will steer.
        settings: Those that came with the file; what its shapes show overrules them.

    Raises:
        ModelIncompatible, OutOfMemory: as `load_controlnet` says.
    """
    quiet_libraries()
    tensors = {key: tensors[full] for key, full in stripped(tensors).items()}
    layout = layout_of(name, tensors)
    with reading(name):
        settings = _settings(name, layout, tensors, unet, settings or {})
        network = _hollow(settings)
        source = _Source(name, layout, tensors, unet, network)
        merged = source.fill()
        hint_encoder = getattr(network, HINT)
        setattr(network, HINT, nn.Identity())
        if settings.get("num_control_type"):
            network.transformer_layes = nn.ModuleList(map(RowByRow, network.transformer_layes))
    return ControlNet(
        name=name,
        network=network,
        hint_encoder=hint_encoder,
        modes=settings.get("num_control_type", 0),
        is_bgr=settings.get("controlnet_conditioning_channel_order") == "bgr",
        merged=merged,
    )


class _Source:
    """Where the weights of a network come from: a file, the UNet, or both."""

    def __init__(
        self, name: str, layout: Layout, tensors: Mapping[str, Tensor], unet: Any, network: Any
    ) -> None:
        self._name, self._tensors, self._network = name, tensors, network
        self._device, self._dtype = unet.device, unet.dtype
        self._shared = dict(unet.named_parameters()) if layout == "control-lora" else {}
        self._original: Mapping[str, str] | None = None
        if layout != "diffusers":
            modules = {key.rpartition(".")[0] for key in network.state_dict()}
            self._original = original_modules(unet.config, modules)
        self._merged: list[MergedWeight] = []

    def fill(self) -> list[MergedWeight]:
        """Give the network its weights; returns those that the UNet and the file make together.

        Raises:
            ModelIncompatible: one is missing, or of another shape.
        """
        wanted = {key: value.shape for key, value in self._network.state_dict().items()}
        weights = {key: self._weight(key, shape) for key, shape in wanted.items()}
        self._network.load_state_dict(weights, assign=True)
        for merged in self._merged:
            merged.rebuild()
        return self._merged

    def _weight(self, key: str, shape: torch.Size) -> Tensor:
        """Find a weight: the file's own, the UNet's, or both together."""
        theirs = self._file_key(key)
        module = theirs.rpartition(".")[0]
        base = self._base(key, theirs, shape)
        is_changed = theirs.endswith(".weight") and f"{module}.up" in self._tensors
        if not is_changed and (base.device, base.dtype) == (self._device, self._dtype):
            return base
        change = self._change(module, shape) if is_changed else None
        weight = nn.Parameter(
            torch.empty_like(base, device=self._device, dtype=self._dtype), requires_grad=False
        )
        self._merged.append(MergedWeight(weight, base, change))
        return weight

    def _base(self, key: str, theirs: str, shape: torch.Size) -> Tensor:
        """Find a weight as it is without a change."""
        if theirs in self._tensors:
            return nn.Parameter(self._fitted(theirs, shape), requires_grad=False)
        if key in self._shared:
            shared: Tensor = self._shared[key]
            return shared
        raise ModelIncompatible(f"{self._name}: expected a tensor {theirs}, got none")

    def _fitted(self, theirs: str, shape: torch.Size) -> Tensor:
        """Bring a tensor of the file to the shape, device and number format of the network's."""
        tensor = self._tensors[theirs]
        if [side for side in tensor.shape if side != 1] != [side for side in shape if side != 1]:
            found, wanted = tuple(tensor.shape), tuple(shape)
            raise ModelIncompatible(f"{self._name}: expected {theirs} of {wanted}, got {found}")
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        return tensor.reshape(shape).to(self._device, self._dtype, copy=True, memory_format=layout)

    def _change(self, module: str, shape: torch.Size) -> LowRank:
        """Read the two factors of a change."""
        up, down = self._tensors[f"{module}.up"], self._tensors.get(f"{module}.down")
        if down is None:
            raise ModelIncompatible(f"{self._name}: expected a tensor {module}.down, got none")
        change = LowRank(up.clone(), down.clone())
        if not change.fits(shape):
            found = f"{tuple(up.shape)} and {tuple(down.shape)}"
            problem = f"expected factors {module}.up and .down of a weight of {tuple(shape)}"
            raise ModelIncompatible(f"{self._name}: {problem}, got {found}")
        return change

    def _file_key(self, key: str) -> str:
        """Name a weight as the file does."""
        if self._original is None:
            return key
        module, _, kind = key.rpartition(".")
        return f"{self._original.get(module, module)}.{kind}"


def _folder_parts(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Find the weights and the settings in a diffusers folder."""
    files = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
    chosen = next((files[name] for name in _FOLDER_FILES if name in files), None)
    if chosen is None and len(files) == 1:
        chosen = next(iter(files.values()))
    if chosen is None:
        problem = f"expected a file {_FOLDER_FILES[0]} in the folder"
        raise ModelNotFound(f"{folder.name}: {problem}, got {', '.join(files) or 'none'}")
    config = folder / "config.json"
    if not config.exists():
        return chosen, {}
    with reading(folder.name):
        settings: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    return chosen, settings


def _settings(
    name: str,
    layout: Layout,
    tensors: Mapping[str, Tensor],
    unet: Any,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Settle the settings of a network: as its shapes show, else as given, else as the UNet's.

    Raises:
        ModelIncompatible: it is made for another kind of base model.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    width, wanted = text_width(shapes), unet.config.cross_attention_dim
    if width not in (None, wanted):
        problem = f"expected a ControlNet for this base model, whose text is {wanted} wide"
        raise ModelIncompatible(f"{name}: {problem}, got one for text {width} wide")
    found = settings_of(shapes) if layout == "diffusers" else hint_settings(shapes)
    settings = {**unet.config, **given, **found}
    for key in _MUST_FIT:
        if _plain(settings[key]) != _plain(unet.config[key]):
            problem = f"expected a ControlNet for this base model, with {key} {unet.config[key]}"
            raise ModelIncompatible(f"{name}: {problem}, got {settings[key]}")
    if settings.get("global_pool_conditions"):
        problem = (
            "expected a ControlNet that steers every place by itself, got one that takes means"
        )
        raise ModelIncompatible(f"{name}: {problem}")
    return settings


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _hollow(settings: Mapping[str, Any]) -> Any:
    """Make a network whose weights have no memory yet."""
    from diffusers import ControlNetModel, ControlNetUnionModel

    kind = ControlNetUnionModel if settings.get("num_control_type") else ControlNetModel
    known = dict(_arguments(kind, settings))
    with torch.device("meta"):
        return freeze(kind(**known | {"controlnet_conditioning_channel_order": "rgb"}))


def _arguments(kind: Any, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Choose the settings that a network of diffusers takes."""
    for argument in inspect.signature(kind.__init__).parameters:
        if argument in settings:
            yield argument, settings[argument]
