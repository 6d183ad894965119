"""What images to follow take, in memory beside a base model: ControlNets, adapters, an image encoder.

All of it belongs to one base model and goes with it. What was worked out for an image is kept for the next job that follows it.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from engine.catalog import Catalog
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt
from engine.conditioning.image_prompt import ImageReader
from engine.geometry import Size
from engine.image_inputs import DRAWN, FURTHER, ImagePromptType
from engine.models.controlnets import ControlNet, load_controlnet
from engine.models.image_encoders import ImageEncoder, load_image_encoder
from engine.models.ip_adapters import load_ip_adapter, read_negative
from engine.models.trust import trusted_hashes
from engine.partners import require_aux
from engine.plan import ImagePrompts, Plan, Slot
from engine.stages.hints import Draw, draw_hint, own_preprocessor
from engine.stages.pictures import read_picture, sent_along
from engine.stages.pixels import Pixels, to_rgb

log = logging.getLogger(__name__)

NETS = 4
"""ControlNets that stay in memory, the latest used."""
ADAPTERS = 2
"""IP-Adapters that stay in memory; they wait beside the device."""
PROMPTS = 8
"""Image prompts that stay on the device, the latest used; 11 MB each with SDXL."""
IMAGES = 16
"""Images that are remembered as they were worked out."""
FIELD = "image_prompts"

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
        self._prompts: OrderedDict[Hashable, ImagePrompt] = OrderedDict()
        self._readers: OrderedDict[Hashable, ImageReader] = OrderedDict()
        self._encoders: OrderedDict[Hashable, ImageEncoder] = OrderedDict()
        self._faces: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._detector: Any = None
        self._further: OrderedDict[Hashable, Draw] = OrderedDict()

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
        prompts = [
            self._image_prompt(catalog, asked, slot, sent_along(pictures, slot.image, FIELD))
            for kind in ("ImagePrompt", "FaceSwap")
            for slot in asked.slots
            if slot.type == kind
        ]
        controls = [
            self._control(
                catalog,
                plan.sample_size,
                asked,
                slot,
                sent_along(pictures, slot.image, FIELD),
            )
            for kind in DRAWN
            for slot in asked.slots
            if slot.type == kind
        ]
        return Followed(tuple(prompts), tuple(controls))

    def _image_prompt(
        self, catalog: Catalog, asked: ImagePrompts, slot: Slot, path: Path
    ) -> ImagePrompt:
        is_cropped = slot.type == "FaceSwap" and not asked.skip_preprocessors

        def make() -> ImagePrompt:
            image = to_rgb(read_picture(path, FIELD))
            if is_cropped:
                image = self._face(catalog, asked, slot, image)
            return self._reader(catalog, asked, slot).prompt(
                image,
                (slot.image, is_cropped),
                weight=slot.weight,
                stop=slot.stop_at,
                formula=asked.attention,
            )

        key = (slot, is_cropped, asked.attention, asked.encoder, asked.negative)
        return _remembered(self._prompts, key, PROMPTS, make)

    def _reader(self, catalog: Catalog, asked: ImagePrompts, slot: Slot) -> ImageReader:
        """Give what reads pictures for an adapter: its encoder is shared by all."""
        assert asked.encoder is not None
        assert asked.negative is not None
        encoder = catalog.weights("clip_vision", asked.encoder, FIELD).path
        adapter = catalog.weights("controlnet", slot.model, FIELD).path
        negative = catalog.weights("controlnet", asked.negative, FIELD).path

        def load() -> ImageReader:
            return ImageReader(
                self._encoder(encoder),
                load_ip_adapter(adapter, self._unet, allow_pickle=self._allow_pickle),
                read_negative(negative),
            )

        return _remembered(self._readers, (encoder, adapter, negative), ADAPTERS, load)

    def _encoder(self, path: Path) -> ImageEncoder:
        def load() -> ImageEncoder:
            return load_image_encoder(path, self._unet.device, allow_pickle=self._allow_pickle)

        return _remembered(self._encoders, path, 1, load)

    def _face(self, catalog: Catalog, asked: ImagePrompts, slot: Slot, image: Pixels) -> Pixels:
        """Cut the face out of a picture; one without a face stays whole, as in Fooocus."""
        from engine.conditioning.faces import crop_face
        from engine.conditioning.retinaface import load_face_detector

        assert asked.face_detector is not None
        path = catalog.weights("controlnet", asked.face_detector, FIELD).path

        def find() -> Pixels:
            if self._detector is None:
                self._detector = load_face_detector(
                    path,
                    allow_pickle=self._allow_pickle,
                    known_sha256=trusted_hashes(catalog),
                )
            crop = crop_face(image, self._detector)
            if not crop.found:
                log.info("no face in a picture of a FaceSwap; it is taken whole")
            return crop.image

        return _remembered(self._faces, slot.image, IMAGES, find)

    def _control(
        self, catalog: Catalog, size: Size, asked: ImagePrompts, slot: Slot, path: Path
    ) -> Control:
        def make() -> Control:
            pixels = read_picture(path, FIELD)
            net = self._net(catalog, slot.model)
            preprocess = None
            if not asked.skip_preprocessors:
                preprocess = self._preprocessor(catalog, asked, slot.type)
            return Control(
                net=net,
                hint=draw_hint(pixels, size, preprocess),
                weight=slot.weight,
                stop=slot.stop_at,
                softness=asked.softness,
                mode=net.mode(DRAWN[slot.type]),
            )

        key = (slot, size, asked.canny, asked.skip_preprocessors, asked.softness)
        return _remembered(self._controls, key, IMAGES, make)

    def _preprocessor(self, catalog: Catalog, asked: ImagePrompts, kind: ImagePromptType) -> Draw:
        """Give what draws pictures for a type; the last one of controlnet-aux stays in memory."""
        if kind not in FURTHER:
            return own_preprocessor(kind, asked.canny)
        from engine.conditioning.preprocess.further import load_preprocessor

        require_aux(FIELD)

        def load() -> Draw:
            return load_preprocessor(
                DRAWN[kind],
                catalog.annotators,
                self._unet.device,
                allow_pickle=self._allow_pickle,
            )

        return _remembered(self._further, kind, 1, load)

    def _net(self, catalog: Catalog, name: str) -> ControlNet:
        path = catalog.weights("controlnet", name, FIELD).path

        def load() -> ControlNet:
            return load_controlnet(path, self._unet, allow_pickle=self._allow_pickle)

        net = _remembered(self._nets, path, NETS, load)
        for key in [key for key, it in self._controls.items() if it.net not in self._nets.values()]:
            del self._controls[key]
        return net


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
