"""A second network that shares with the first all weights but a few."""

import copy
from collections.abc import Collection
from typing import Any


def copy_apart(network: Any, names: Collection[str]) -> Any:
    """Copy a network; of its weights only some, the others stay one and the same.

    Args:
        network: Any module.
        names: Of the weights that get a life of their own, as they are now.
    """
    kept = [*network.named_parameters(), *network.named_buffers()]
    shared = {id(tensor): tensor for name, tensor in kept if name not in names}
    return copy.deepcopy(network, shared)
