"""What images to follow take, in memory beside a base model: ControlNets, adapters, an image encoder.

All of it belongs to one base model and goes with it. What was worked out for an image is kept for the next job that follows it.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from engine.catalog import Catalog
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt
from engine.errors import InvalidRequest
from engine.geometry import Size
from engine.models.controlnets import ControlNet, load_controlnet
from engine.plan import ImagePrompts, Plan, Slot
from engine.stages.hints import draw_hint
from engine.stages.pictures import read_picture

NETS = 4
"""ControlNets that stay in memory, the latest used."""
IMAGES = 16
"""Images that are remembered as they were worked out."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Followed:
    """What the images of a job follow."""

    image_prompts: tuple[ImagePrompt, ...] = ()
    controls: tuple[Control, ...] = ()


NOTHING = Followed()


class Guides:
    """Brings what plans need, and forgets what was used longest ago."""

    def __init__(self, unet: Any, *, allow_pickle: bool) -> None:
        """Serve one base model.

        Args:
            unet: Its UNet.
            allow_pickle: Whether weights may be read from pickled files.
        """
        self._unet = unet
        self._allow_pickle = allow_pickle
        self._nets: OrderedDict[Hashable, ControlNet] = OrderedDict()
        self._controls: OrderedDict[Hashable, Control] = OrderedDict()

    def refresh(self) -> None:
        """Follow the UNet, whose weights were patched."""
        for net in self._nets.values():
            net.refresh()

    @torch.inference_mode()
    def follow(self, catalog: Catalog, plan: Plan, pictures: Mapping[str, Path]) -> Followed:
        """Work out what the images of a plan follow.

        Args:
            catalog: Knows the weights.
            plan: Of the job.
            pictures: Files by the names that the plan uses.

        Raises:
            EngineError: a picture is missing or none, or weights are missing or unfit.
        """
        asked = plan.image_prompts
        if asked is None:
            return NOTHING
        controls = [
            self._control(catalog, plan.sample_size, asked, slot, _file(pictures, slot))
            for kind in ("PyraCanny", "CPDS")
            for slot in asked.slots
            if slot.type == kind
        ]
        return Followed(controls=tuple(controls))

    def _control(
        self, catalog: Catalog, size: Size, asked: ImagePrompts, slot: Slot, path: Path
    ) -> Control:
        def make() -> Control:
            pixels = read_picture(path, "image_prompts")
            net = self._net(catalog, slot.model)
            return Control(
                net=net,
                hint=draw_hint(pixels, slot.type, size, asked),
                weight=slot.weight,
                stop=slot.stop_at,
                softness=asked.softness,
            )

        key = (slot, size, asked.canny, asked.skip_preprocessors, asked.softness)
        return _remembered(self._controls, key, IMAGES, make)

    def _net(self, catalog: Catalog, name: str) -> ControlNet:
        path = catalog.weights("controlnet", name, "image_prompts").path

        def load() -> ControlNet:
            return load_controlnet(path, self._unet, allow_pickle=self._allow_pickle)

        net = _remembered(self._nets, path, NETS, load)
        for key in [key for key, it in self._controls.items() if it.net not in self._nets.values()]:
            del self._controls[key]
        return net


def _file(pictures: Mapping[str, Path], slot: Slot) -> Path:
    """Find the file of a picture.

    Raises:
        InvalidRequest: it was not sent along.
    """
    try:
        return pictures[slot.image]
    except KeyError:
        problem = f"expected a picture that is sent along, got {slot.image[:12]}..."
        raise InvalidRequest("image_prompts", problem) from None


def _remembered(
    known: OrderedDict[Hashable, T], key: Hashable, most: int, make: Callable[[], T]
) -> T:
    """Give what is known of `key`, or make it; what was used longest ago goes."""
    if key not in known:
        made = make()  # may remember things itself
        while len(known) >= most:
            known.popitem(last=False)
        known[key] = made
    known.move_to_end(key)
    return known[key]
