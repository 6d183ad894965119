"""Which weight of which network a key of a LoRA file means.

The tools of the field name a layer after diffusers' module, after the original checkpoint's, with dots or with underscores, behind
various prefixes. All come down to one table: the name without its prefix, in underscores.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.models.patches.unet_names import original_names

UNET, TEXT_1, TEXT_2 = "unet", "text_encoder", "text_encoder_2"
_PREFIXES = (
    ("lora_unet_", UNET),
    ("lora_te1_", TEXT_1),
    ("lora_te2_", TEXT_2),
    ("lora_te_", TEXT_1),
    ("unet.", UNET),
    ("text_encoder.", TEXT_1),
    ("text_encoder_2.", TEXT_2),
    ("model.diffusion_model.", UNET),
    ("diffusion_model.", UNET),
    ("conditioner.embedders.0.transformer.", TEXT_1),
    ("conditioner.embedders.1.model.", TEXT_2),
    ("clip_l.transformer.", TEXT_1),
    ("clip_g.transformer.", TEXT_2),
    ("lycoris_", UNET),
    ("", UNET),
)
_OPEN_CLIP = (
    (re.compile(r"^encoder_layers_(\d+)_"), r"transformer_resblocks_\1_"),
    (re.compile(r"_layer_norm([12])$"), r"_ln_\1"),
    (re.compile(r"_mlp_fc1$"), "_mlp_c_fc"),
    (re.compile(r"_mlp_fc2$"), "_mlp_c_proj"),
    (re.compile(r"_self_attn_out_proj$"), "_attn_out_proj"),
    (re.compile(r"^final_layer_norm$"), "ln_final"),
)
_QUERY = "_self_attn_q_proj"


@dataclass(frozen=True, slots=True)
class Place:
    """The module of a network that a key means."""

    network: str
    modules: tuple[str, ...]
    """One name; three (query, key, value) where the original has them in one matrix, one below the other."""


class Names:
    """All names that the modules of some networks go by."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._places = {part: dict(_aliases(part, network)) for part, network in networks.items()}

    def find(self, name: str) -> Place | None:
        """Find the module that a key without its ending means; None when no network has it."""
        network, rest = _split(name)
        return self._places.get(network, {}).get(_plain(rest))

    def is_elsewhere(self, name: str) -> bool:
        """Whether the key is of a network that is not among these, such as a text encoder beside a refiner's UNet."""
        return network_of(name) not in self._places


def network_of(name: str) -> str:
    """Say which network a layer's name speaks of; one without a prefix speaks of the UNet."""
    return _split(name)[0]


def _split(name: str) -> tuple[str, str]:
    name = name.removeprefix("base_model.model.")
    prefix, network = next(item for item in _PREFIXES if name.startswith(item[0]))
    return network, name[len(prefix) :]


def _plain(name: str) -> str:
    """Bring a module's name to the form of the table."""
    plain = name.replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")
    return f"{plain}_0" if plain.endswith("_to_out") else plain


def _aliases(part: str, network: nn.Module) -> Iterator[tuple[str, Place]]:
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in network.named_parameters()))
    for module in modules:
        yield _plain(module), Place(part, (module,))
    yield from _unet_aliases(network, modules) if part == UNET else _text_aliases(part, modules)


def _unet_aliases(unet: Any, modules: Iterable[str]) -> Iterator[tuple[str, Place]]:
    for module, original in original_names(unet.config, modules).items():
        yield _plain(original), Place(UNET, (module,))
        if module.startswith("add_embedding."):
            yield _plain(module.replace("add_", "class_", 1)), Place(UNET, (module,))


def _text_aliases(part: str, modules: Iterable[str]) -> Iterator[tuple[str, Place]]:
    for module in modules:
        name = _plain(module)
        for pattern, replacement in _OPEN_CLIP:
            name = pattern.sub(replacement, name)
        yield name, Place(part, (module,))
        if name.endswith(_QUERY):
            fused = tuple(module.replace("q_proj", f"{letter}_proj") for letter in "qkv")
            yield name.replace(_QUERY, "_attn_in_proj"), Place(part, fused)
