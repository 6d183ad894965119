"""How the tools of the field end the keys of their files: a layer's name, then what its tensor is for."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Literal

from torch import Tensor

from engine.models.patches.names import network_of

Compat = Literal["fooocus"]
"""Read as Fooocus does: PEFT's names and DoRA's magnitudes are unknown, LoKr in Tucker's form is left out."""
Alpha = Callable[[str, int], float | None]
"""From a layer's name and its rank to its factor; None where nothing is known of it."""
_SLOTS = {
    **{
        f"{family}.{part}.weight": part
        for family in ("lora", "lora_linear_layer")
        for part in ("up", "down")
    },
    **{f"lora_{part}.weight": part for part in ("up", "down", "mid")},
    **{f"hada_{part}": f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{
        f"lokr_{part}": f"lokr_{part}"
        for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    },
    **{f"{part}.weight": part for part in ("a1", "a2", "b1", "b2")},
    **{
        f"{kind}|{part}": f"{kind}|{part}"
        for kind in ("weight", "bias")
        for part in ("q", "lo", "hi")
    },
    **{slot: slot for slot in ("alpha", "diff", "diff_b", "w_norm", "b_norm")},
}
"""What the end of a key says about its tensor."""
_MORE_SLOTS = {
    "dora_scale": "dora_scale",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
"""The same, of what Fooocus doesn't know."""
_ANY_SIDES = {slot for slot in _SLOTS.values() if "|" in slot} | {
    *("alpha", "diff", "diff_b", "w_norm", "b_norm", "dora_scale", "magnitude")
}
"""Slots whose tensors need not have two sides or more."""
_OLD_DIFFUSERS = re.compile(r"_lora\.(?=(?:up|down)\.weight$)")
_ADAPTER = re.compile(r"(\.lora_(?:A|B|magnitude_vector))\.(?!weight$|bias$)[^.]+(?=$|\.weight$)")
"""PEFT's name of the adapter, as in ``to_q.lora_A.default.weight``."""
_PEFT_METADATA = "lora_adapter_metadata"


def split_key(key: str, compat: Compat | None = None) -> tuple[str, str] | None:
    """Part a key into the layer's name and the slot of its tensor; None when its end is unknown."""
    slots = _SLOTS if compat else _SLOTS | _MORE_SLOTS
    plain = _ADAPTER.sub(r"\1", _OLD_DIFFUSERS.sub(".lora.", key))
    for count in (3, 2, 1):
        name, *end = plain.rsplit(".", count)
        slot = slots.get(".".join(end))
        if slot is not None:
            return name, slot
    return None


def group(
    tensors: Mapping[str, Tensor], compat: Compat | None = None
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Gather tensors by layer.

    Returns:
        Layer's name to slot to tensor, and the keys that say nothing or hold a tensor that cannot be what they say.
    """
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    unknown = []
    for key, tensor in tensors.items():
        parts = split_key(key, compat)
        if parts is None or not _can_be(parts[1], tensor):
            unknown.append(key)
        else:
            layers[parts[0]][parts[1]] = tensor
    return layers, unknown


def _can_be(slot: str, tensor: Tensor) -> bool:
    if slot == "alpha":
        return tensor.numel() == 1
    return tensor.numel() > 0 and (tensor.ndim > 1 or slot in _ANY_SIDES)


def peft_alpha(metadata: Mapping[str, str]) -> Alpha:
    """Read the factors that diffusers keeps in the header of a PEFT file, where it does."""
    try:
        settings: Any = json.loads(metadata.get(_PEFT_METADATA, "{}"))
    except ValueError:
        settings = {}

    def factor(name: str, rank: int) -> float | None:
        network = network_of(name)
        alpha = settings.get(f"{network}.lora_alpha")
        for pattern, special in (settings.get(f"{network}.alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", name):
                alpha = special
        if not isinstance(alpha, int | float):
            return None
        return alpha / (sqrt(rank) if settings.get(f"{network}.use_rslora") else rank)

    return factor
