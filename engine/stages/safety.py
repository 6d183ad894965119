"""Finished pictures are looked over where a plan asks for it; those taken for unsafe become black, at the same size.

Without a checker nothing is flagged, and that is said once in the log; where the owner requires checking, such jobs are
refused. The pocket model draws shapes only, so its pictures need none: a checker that is there looks at them all the same,
a missing one is neither fetched for them nor told of, and they are never refused.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.catalog import FOLDERS, Catalog, Weights
from engine.errors import InvalidRequest
from engine.models.safety import KNOWN_PICKLED, SafetyChecker, load_safety_checker
from engine.models.tensors import PICKLED
from engine.plan import Plan

log = logging.getLogger(__name__)

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained on."""
_REMEDY = (
    "put model.safetensors of CompVis/stable-diffusion-safety-checker into the folder "
    f"{FOLDERS['safety_checker']} of the models folder"
)


class SafetyCheck:
    """What checks the pictures of all jobs; the checker is read when the first picture asks for it."""

    def __init__(
        self,
        device: torch.device,
        hash_of: Callable[[Path], str],
        *,
        is_required: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        """Begin without a checker.

        Args:
            device: Where it goes.
            hash_of: Gives the sha256 of a file in hex.
            is_required: Whether what cannot be checked is refused; a checker that is missing is fetched then.
            allow_pickle: Whether any pickled file may be read.
        """
        self._device = device
        self._hash_of = hash_of
        self._is_required = is_required
        self._allow_pickle = allow_pickle
        self._has_warned = False
        self._loaded: tuple[Path, SafetyChecker] | None = None

    def find(self, catalog: Catalog, plan: Plan) -> Weights | None:
        """Find the checker of a plan's pictures, which may have to be fetched first; None where nothing checks them.

        Raises:
            InvalidRequest: they must be checked, and there is nothing to check them with.
        """
        if not plan.safety:
            return None
        there = self._there(catalog)
        if there is not None or catalog.checkpoint(plan.base_model).is_pocket:
            return there
        if not self._is_required:
            self._warn()
            return None
        if catalog.safety_offer is None:
            problem = f"expected a safety checker, which is required here, got none: {_REMEDY}"
            raise InvalidRequest("enable_safety_checker", problem)
        return catalog.safety_offer

    def prepare(self, catalog: Catalog, plan: Plan) -> None:
        """Bring the checker of a plan's pictures into memory, before they are painted.

        Raises:
            EngineError: it is not there, or broken.
        """
        found = self.find(catalog, plan)
        if found is None or (self._loaded is not None and self._loaded[0] == found.path):
            return
        self._loaded = None  # first, so that two never lie in memory together
        checker = load_safety_checker(found.path, self._device, allow_pickle=self._allow_pickle)
        self._loaded = found.path, checker

    def forget(self) -> None:
        """Give up the checker until the next `prepare`."""
        self._loaded = None

    def look_over(self, plan: Plan, image: Image.Image) -> tuple[Image.Image, bool]:
        """Give a finished picture as it may be shown, and whether it was taken for unsafe; `prepare` came before."""
        if not plan.safety or self._loaded is None or not check(self._loaded[1], [image])[0]:
            return image, False
        return Image.new("RGB", image.size), True

    def _there(self, catalog: Catalog) -> Weights | None:
        """Find a file that may be read; one that was fetched since the catalog was read counts too."""
        offer = catalog.safety_offer
        candidates = [*catalog.safety_checkers, *([] if offer is None else [offer])]
        return next((it for it in candidates if it.path.exists() and self._may_read(it.path)), None)

    def _may_read(self, path: Path) -> bool:
        is_free = path.suffix not in PICKLED or self._allow_pickle
        return is_free or self._hash_of(path) in KNOWN_PICKLED

    def _warn(self) -> None:
        if not self._has_warned:
            log.warning("pictures are not checked: there is no safety checker; %s", _REMEDY)
            self._has_warned = True


@torch.inference_mode()
def check(checker: SafetyChecker, images: Sequence[Image.Image]) -> list[bool]:
    """Say of each RGB picture whether it is taken for unsafe.

    Source: Rando et al. 2022, "Red-Teaming the Stable Diffusion Safety Filter", https://arxiv.org/abs/2210.04610.
    """
    if not images:
        return []
    seen = torch.stack([_as_seen(image, checker.side) for image in images])
    shown = torch.zeros(len(images), 1)  # the network blackens these; the real ones stay ours
    _, flags = checker.network(clip_input=seen.to(checker.network.device), images=shown)
    return [bool(flag) for flag in flags]


def _as_seen(image: Image.Image, side: int) -> Tensor:
    """Cut the middle square of `side` pixels out of a picture whose short side is brought to that; (3, side, side)."""
    short = min(image.size)
    width, height = (int(side * length / short) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    square = small.crop((left, top, left + side, top + side))
    shares = torch.from_numpy(np.array(square)).float() / 255
    return ((shares - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)).permute(2, 0, 1)
