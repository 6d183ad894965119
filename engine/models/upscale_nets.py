"""The two commonest networks that enlarge pictures, with the names that their files use: ESRGAN and Compact.

Pictures are (B, 3, H, W) float32 of 0 to 1; what comes out is `scale` times as large and may lie a little outside 0 to 1.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.2
_SHARE = 0.2
"""What a residual branch of ESRGAN counts."""


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees all that came before it in the block."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 5):
            setattr(self, f"conv{i}", nn.Conv2d(filters + (i - 1) * growth, growth, 3, 1, 1))
        self.conv5 = nn.Conv2d(filters + 4 * growth, filters, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for i in range(1, 5):
            seen = torch.cat([seen, _leaky(getattr(self, f"conv{i}")(seen))], dim=1)
        result: Tensor = x + _SHARE * self.conv5(seen)
        return result


class _ResidualBlock(nn.Module):
    """Three dense blocks."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(filters, growth)
        self.rdb2 = _DenseBlock(filters, growth)
        self.rdb3 = _DenseBlock(filters, growth)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + _SHARE * self.rdb3(self.rdb2(self.rdb1(x)))
        return result


class Esrgan(nn.Module):
    """ESRGAN's generator (Wang et al. 2018), with the names of Real-ESRGAN's files."""

    def __init__(
        self,
        *,
        filters: int = 64,
        blocks: int = 23,
        growth: int = 32,
        doublings: int = 2,
        fold: int = 1,
    ) -> None:
        """Build a random network.

        Args:
            filters: Channels between blocks.
            blocks: How many residual blocks there are.
            growth: Channels that each convolution of a dense block adds.
            doublings: How often it doubles the sides; file names count them from 1.
            fold: Side of the squares of pixels that become channels first: 2 in files of Real-ESRGAN that enlarge twice.
        """
        super().__init__()
        self.doublings, self.fold = doublings, fold
        self.conv_first = nn.Conv2d(3 * fold**2, filters, 3, 1, 1)
        self.body = nn.Sequential(*(_ResidualBlock(filters, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(filters, filters, 3, 1, 1)
        for i in range(1, doublings + 1):
            setattr(self, f"conv_up{i}", nn.Conv2d(filters, filters, 3, 1, 1))
        self.conv_hr = nn.Conv2d(filters, filters, 3, 1, 1)
        self.conv_last = nn.Conv2d(filters, 3, 3, 1, 1)

    @property
    def scale(self) -> int:
        """How many times as long the sides become."""
        return (1 << self.doublings) // self.fold

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge pictures."""
        height, width = x.shape[-2:]
        edges = (0, -width % self.fold, 0, -height % self.fold)
        x = functional.pixel_unshuffle(functional.pad(x, edges, mode="replicate"), self.fold)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for i in range(1, self.doublings + 1):
            x = _leaky(getattr(self, f"conv_up{i}")(functional.interpolate(x, scale_factor=2)))
        result: Tensor = self.conv_last(_leaky(self.conv_hr(x)))
        return result[..., : height * self.scale, : width * self.scale]


class Compact(nn.Module):
    """Real-ESRGAN's compact network: all work is done at the small size and added to the repeated pixels."""

    def __init__(self, *, filters: int = 64, layers: int = 16, scale: int = 4) -> None:
        """Build a random network.

        Args:
            filters: Channels between layers.
            layers: How many convolutions there are between the first and the last.
            scale: How many times as long the sides become.
        """
        super().__init__()
        self.scale = scale
        widths = [3, *[filters] * (layers + 1)]
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv2d(before, after, 3, 1, 1), nn.PReLU(after)]
        self.body = nn.Sequential(*parts, nn.Conv2d(filters, 3 * scale**2, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge pictures."""
        detail = functional.pixel_shuffle(self.body(x), self.scale)
        return detail + functional.interpolate(x, scale_factor=self.scale)


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)
