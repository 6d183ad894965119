"""What images to follow take, in memory beside a base model: ControlNets, adapters, an image encoder.

All of it belongs to one base model and goes with it. What was worked out for an image is kept for the next job that follows it.
"""

import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.catalog import Catalog
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt
from engine.conditioning.image_prompt import ImageReader
from engine.geometry import Size
from engine.guide_weights import ADAPTERS, GuideWeights, remembered
from engine.image_inputs import DRAWN, FURTHER, ImagePromptType
from engine.models.controlnets import ControlNet
from engine.models.ip_adapters import read_negative
from engine.models.trust import trusted_hashes
from engine.partners import require_aux
from engine.plan import ImagePrompts, Plan, Slot
from engine.stages.hints import Draw, draw_hint, own_preprocessor
from engine.stages.pictures import read_picture, sent_along
from engine.stages.pixels import Pixels, to_rgb
from engine.studio_guides import StudioGuides

log = logging.getLogger(__name__)

PROMPTS = 8
"""Image prompts that stay on the device, the latest used; 11 MB each with SDXL."""
IMAGES = 16
"""Images that are remembered as they were worked out."""
FIELD = "image_prompts"


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
        self._weights = GuideWeights(unet, allow_pickle=allow_pickle)
        self._studio = StudioGuides(self._weights)
        self._controls: OrderedDict[Hashable, Control] = OrderedDict()
        self._prompts: OrderedDict[Hashable, ImagePrompt] = OrderedDict()
        self._readers: OrderedDict[Hashable, ImageReader] = OrderedDict()
        self._faces: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._detector: Any = None
        self._further: OrderedDict[Hashable, Draw] = OrderedDict()

    def refresh(self) -> None:
        """Follow the UNet, whose weights were patched."""
        self._weights.refresh()

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
        if plan.studio is not None:
            return Followed(*self._studio.follow(catalog, plan, pictures))
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
        return remembered(self._prompts, key, PROMPTS, make)

    def _reader(self, catalog: Catalog, asked: ImagePrompts, slot: Slot) -> ImageReader:
        """Give what reads pictures for an adapter: its encoder is shared by all."""
        assert asked.encoder is not None
        assert asked.negative is not None
        encoder = catalog.weights("clip_vision", asked.encoder, FIELD).path
        adapter = catalog.weights("controlnet", slot.model, FIELD).path
        negative = catalog.weights("controlnet", asked.negative, FIELD).path

        def load() -> ImageReader:
            return ImageReader(
                self._weights.encoder(encoder),
                self._weights.adapter(adapter),
                read_negative(negative),
            )

        return remembered(self._readers, (encoder, adapter, negative), ADAPTERS, load)

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
                    allow_pickle=self._weights.allow_pickle,
                    known_sha256=trusted_hashes(catalog),
                )
            crop = crop_face(image, self._detector)
            if not crop.found:
                log.info("no face in a picture of a FaceSwap; it is taken whole")
            return crop.image

        return remembered(self._faces, slot.image, IMAGES, find)

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
        return remembered(self._controls, key, IMAGES, make)

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
                self._weights.device,
                allow_pickle=self._weights.allow_pickle,
            )

        return remembered(self._further, kind, 1, load)

    def _net(self, catalog: Catalog, name: str) -> ControlNet:
        net = self._weights.net(catalog.weights("controlnet", name, FIELD).path)
        for key in [key for key, it in self._controls.items() if not self._weights.holds(it.net)]:
            del self._controls[key]
        return net
