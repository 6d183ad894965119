"""A second network that shares with the first all weights but a few."""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from engine.models.memory import Tier, house_unet


def copy_apart(network: Any, names: Collection[str], tier: Tier = Tier.RESIDENT) -> Any:
    """Copy a network; of its weights only some, the others stay one and the same.

    Args:
        network: Any module; at a tier that moves weights about, a UNet of diffusers.
        names: Of the weights that get a life of their own, as they are now.
        tier: What stays on the device.
    """
    if not tier.keeps_unet:
        return _rebuilt(network, names, tier)
    kept = [*network.named_parameters(), *network.named_buffers()]
    shared = {id(tensor): tensor for name, tensor in kept if name not in names}
    return copy.deepcopy(network, shared)


def _rebuilt(unet: Any, names: Collection[str], tier: Tier) -> Any:
    """Build the copy around the weights, and then give it hooks of its own: those of the first move nothing in the second."""
    with torch.device("meta"):
        built = type(unet).from_config(unet.config).requires_grad_(requires_grad=False)
    weights = {
        name: nn.Parameter(weight.clone(), requires_grad=False) if name in names else weight
        for name, weight in unet.named_parameters()
    }
    built.load_state_dict(weights, assign=True)
    return house_unet(built.eval(), unet.device, tier, dtype=unet.dtype)
