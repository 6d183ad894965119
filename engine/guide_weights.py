"""The networks that images to follow take, in memory beside a base model: ControlNets, IP-Adapters, an image encoder.

All of them were made for one UNet, and what was used longest ago goes.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import torch

from engine.models.controlnets import ControlNet, load_controlnet
from engine.models.face_readers import FaceReader, load_face_reader
from engine.models.image_encoders import ImageEncoder, load_image_encoder
from engine.models.ip_adapters import IPAdapter, load_ip_adapter

NETS = 4
"""ControlNets that stay in memory, the latest used."""
ADAPTERS = 2
"""IP-Adapters that stay in memory; they wait beside the device."""

T = TypeVar("T")


class GuideWeights:
    """Loads networks for one UNet, each once."""

    def __init__(self, unet: Any, *, allow_pickle: bool) -> None:
        """Begin with none.

        Args:
            unet: The base model's.
            allow_pickle: Whether weights may be read from pickled files.
        """
        self.unet = unet
        self.allow_pickle = allow_pickle
        self._nets: OrderedDict[Hashable, ControlNet] = OrderedDict()
        self._adapters: OrderedDict[Hashable, IPAdapter] = OrderedDict()
        self._encoders: OrderedDict[Hashable, ImageEncoder] = OrderedDict()
        self._face_readers: OrderedDict[Hashable, FaceReader] = OrderedDict()

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        device: torch.device = self.unet.device
        return device

    def refresh(self) -> None:
        """Follow the UNet, whose weights were patched."""
        for net in self._nets.values():
            net.refresh()

    def holds(self, net: ControlNet) -> bool:
        """Whether a ControlNet is still in memory for others."""
        return net in self._nets.values()

    def net(self, path: Path) -> ControlNet:
        """Give a ControlNet.

        Raises:
            ModelNotFound, ModelIncompatible, OutOfMemory: as `load_controlnet` says.
        """

        def load() -> ControlNet:
            return load_controlnet(path, self.unet, allow_pickle=self.allow_pickle)

        return remembered(self._nets, path, NETS, load)

    def adapter(self, path: Path) -> IPAdapter:
        """Give an IP-Adapter.

        Raises:
            ModelNotFound, ModelIncompatible, OutOfMemory: as `load_ip_adapter` says.
        """

        def load() -> IPAdapter:
            return load_ip_adapter(path, self.unet, allow_pickle=self.allow_pickle)

        return remembered(self._adapters, path, ADAPTERS, load)

    def encoder(self, path: Path) -> ImageEncoder:
        """Give an image encoder.

        Raises:
            ModelNotFound, ModelIncompatible, OutOfMemory: as `load_image_encoder` says.
        """

        def load() -> ImageEncoder:
            return load_image_encoder(path, self.device, allow_pickle=self.allow_pickle)

        return remembered(self._encoders, path, 1, load)

    def face_reader(self, path: Path, field: str) -> FaceReader:
        """Give what reads faces, of which one stays in memory; `field` asked for it.

        Raises:
            ModelNotFound, ModelIncompatible: as `load_face_reader` says.
        """
        return remembered(self._face_readers, path, 1, lambda: load_face_reader(path, field))


def remembered(
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
