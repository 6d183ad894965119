"""Sizes of pictures: reading, comparing and choosing them. Width comes first, always.

Knows nothing of tensors; `LATENT_FACTOR` is the one fact of the model that sizes depend on.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

LATENT_FACTOR = 8
"""Pixels per latent cell along one side, for every SDXL and SD 1.5 VAE."""

_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX\u00d7*]\s*(\d{1,5})\s*")


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def area(self) -> int:
        """Pixels in all."""
        return self.width * self.height

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def latent(self) -> "Size":
        """The size in latent cells, rounded down."""
        return Size(self.width // LATENT_FACTOR, self.height // LATENT_FACTOR)


def parse_size(text: str) -> Size:
    """Read ``"1152x896"``; ``×``, ``X`` and ``*`` are accepted between the numbers.

    Raises:
        ValueError: the text is not two positive whole numbers of at most five digits.
    """
    match = _SIZE.fullmatch(text)
    size = Size(int(match[1]), int(match[2])) if match else Size(0, 0)
    if not size.area:
        raise ValueError(f"expected 'WIDTHxHEIGHT', got {text!r}")
    return size


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """Choose the bucket whose proportions are nearest to `size`; of equal ones the first.

    Proportions are compared on a logarithmic scale, so 2:1 is as far from 1:1 as 1:2 is.

    Raises:
        ValueError: `buckets` is empty.
    """
    if not buckets:
        raise ValueError("buckets: expected at least one size, got none")
    wanted = math.log(size.ratio)
    return min(buckets, key=lambda bucket: abs(math.log(bucket.ratio) - wanted))


def reduced_ratio(size: Size) -> str:
    """Write the proportions in lowest terms: 1152x896 is ``9:7``."""
    divisor = math.gcd(size.width, size.height)
    return f"{size.width // divisor}:{size.height // divisor}"
