"""Weights of an image prompt by layer, as diffusers writes them: ``{"down": {"block_2": [0.0, 1.0]}, "mid": 0.5, "up": 1.0}``.

What is not named is 0. A way (``down``, ``up``) or a block takes a number for all that is in it, or a list with one for each
transformer of a block; ``mid`` has one transformer.

Source: diffusers, `IPAdapterMixin.set_ip_adapter_scale`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from engine.errors import InvalidRequest
from engine.studio import MAX_SCALE

_TRANSFORMER = re.compile(
    r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.|mid_block\.attentions\.\d+\."
)
_Place = tuple[str, str, int]
"""Way, block and number of the transformer in it that a layer is of; ``mid`` is a block of that name."""


def read_layer_scales(text: str, layers: Sequence[str], field: str) -> tuple[float, ...]:
    """Read the weight of each layer.

    Args:
        text: JSON: one number, or an object.
        layers: Names of the UNet's cross-attention layers, such as ``down_blocks.1.attentions.0.transformer_blocks.0.attn2``.
        field: The request's, for messages.

    Returns:
        One for each layer, in their order.

    Raises:
        InvalidRequest: it is no JSON, names what this UNet does not have, or holds other than numbers of ``-MAX_SCALE`` to
            ``MAX_SCALE``.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(field, f"expected JSON, got {text[:60]!r}") from error
    return _Reader(layers, field).read(told)


class _Reader:
    """Reads the weights for one UNet."""

    def __init__(self, layers: Sequence[str], field: str) -> None:
        self._field = field
        self._places = [_place(layer) for layer in layers]
        self._blocks: dict[str, dict[str, int]] = {}
        for way, block, number in self._places:
            blocks = self._blocks.setdefault(way, {})
            blocks[block] = max(blocks.get(block, 0), number + 1)

    def read(self, told: Any) -> tuple[float, ...]:
        if not isinstance(told, dict):
            return (self._number(told, ""),) * len(self._places)
        self._require_known(told, self._blocks, "")
        weights: dict[_Place, float] = {}
        for way, blocks in self._blocks.items():
            given = told.get(way, 0.0)
            if way == "mid" or not isinstance(given, dict):
                given = dict.fromkeys(blocks, given)
            self._require_known(given, blocks, way)
            for block, count in blocks.items():
                name = way if way == "mid" else f"{way}.{block}"
                scales = self._numbers(given.get(block, 0.0), count, name)
                weights |= {(way, block, number): scale for number, scale in enumerate(scales)}
        return tuple(weights[place] for place in self._places)

    def _numbers(self, told: Any, count: int, name: str) -> list[float]:
        if not isinstance(told, list):
            return [self._number(told, name)] * count
        if len(told) not in (1, count):
            self._refuse(name, f"a number, or {count} of them", told)
        return [self._number(number, name) for number in told] * (count // len(told))

    def _number(self, told: Any, name: str) -> float:
        is_number = isinstance(told, int | float) and not isinstance(told, bool)
        if not is_number or abs(told) > MAX_SCALE or math.isnan(told):
            rule = f"{-MAX_SCALE:g} to {MAX_SCALE:g}"
            self._refuse(name, f"a number of {rule}" if name else f"an object, or {rule}", told)
        return float(told)

    def _require_known(self, told: Mapping[str, Any], known: Mapping[str, Any], name: str) -> None:
        for key in told:
            if key not in known:
                self._refuse(name, " or ".join(sorted(known)), key)

    def _refuse(self, name: str, rule: str, told: Any) -> NoReturn:
        where = f"expected of {name} " if name else "expected "
        raise InvalidRequest(self._field, f"{where}{rule}, got {json.dumps(told)[:60]}")


def _place(layer: str) -> _Place:
    match = _TRANSFORMER.match(layer)
    if match is None:
        raise ValueError(f"expected a cross-attention layer of a UNet, got {layer}")
    if match[1] is None:
        return "mid", "mid", 0
    return match[1], f"block_{match[2]}", int(match[3])
