"""Copies to the device that nobody waits for: while the loop runs, the device is never asked whether it is done."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy to a device without waiting for it; to a GPU by way of memory that it reads by itself.

    Args:
        tensor: What lies elsewhere is copied as usual, since a copy from a device must be waited for.
        device: Where it is wanted.
    """
    device = torch.device(device)
    if tensor.device.type != "cpu":
        return tensor.to(device)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
