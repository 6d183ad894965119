"""One side of guidance: what a UNet is told besides the latents."""

from dataclasses import dataclass

from torch import Tensor

from engine.conditioning.size_ids import SizeIds


@dataclass(frozen=True, eq=False)
class Branch:
    """The words and sizes of the positive or the negative side, on the UNet's device and in its number format."""

    context: Tensor
    """(1, tokens, C)."""
    pooled: Tensor | None
    """(1, P); None for SD 1.5, which takes none."""
    size_ids: SizeIds | None
    """Numbers chosen by timestep; None for SD 1.5."""
