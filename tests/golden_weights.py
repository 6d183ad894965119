"""Weights of the golden data's toy nets, which are given by a formula instead of a file."""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def formula_weights(net: Mapping[str, Any]) -> dict[str, Tensor]:
    """Make the weights of one entry of nets.json, float32, as tests/golden/README.md says."""
    return {
        key: _weight(net["prefix"] + key, tuple(shape), net["gain"])
        for key, shape in net["shapes"].items()
    }


def _weight(name: str, shape: tuple[int, ...], gain: float) -> Tensor:
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        z = 0.5 + np.abs(z)
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif len(shape) > 1:
        z = z * gain / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.05 * z
    return torch.from_numpy(z.astype(np.float16)).float()
