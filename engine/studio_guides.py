"""What the pictures of the LoRA studio are followed by: ControlNets and IP-Adapters, as diffusers' pipelines run them.

Drawings are taken as they are, stretched to the size that is painted. Pictures of adapters are seen as CLIP's own preparation
shows them; each adapter has a softmax of its own.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.catalog import Catalog
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt, image_layers
from engine.conditioning.layer_scales import read_layer_scales
from engine.conditioning.shown import Shown, show, show_nothing, square, with_face
from engine.errors import InvalidRequest, ModelIncompatible
from engine.geometry import LATENT_FACTOR, Size
from engine.guide_weights import GuideWeights, remembered
from engine.models.controlnets import UNION_MODES, ControlNet
from engine.models.face_readers import FaceReader
from engine.models.image_encoders import EncodedImage, ImageEncoder
from engine.models.ip_adapters import IPAdapter
from engine.needed import FIELDS, add_on
from engine.plan import Plan
from engine.stages.pictures import MAX_PIXELS, read_picture, sent_along
from engine.stages.pixels import Pixels, size_of, stretch, to_rgb
from engine.studio_plan import StudioImages, StudioNet, StudioPlan

ENCODER_FIELD = FIELDS["clip_vision"]
CONTROLS = 16
"""Drawings that are remembered as their nets see them."""
ADAPTERS = 8
"""Adapters that are remembered with their pictures; of SDXL 11 MB and more each."""
ALWAYS = math.inf
"""No adapter is let go before the last step."""
_ROUNDING = 1e-9
"""How much a share of the steps may lie beside the step that it means."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class _Followed:
    """One adapter with its pictures."""

    shown: Shown
    prompt: ImagePrompt


@dataclass(frozen=True, slots=True)
class _Job:
    """What all of a job's adapters and nets have in common."""

    catalog: Catalog
    plan: Plan
    studio: StudioPlan
    pictures: Mapping[str, Path]

    @property
    def size(self) -> Size:
        """Pixels that the latents stand for."""
        latent = self.plan.sample_size.latent
        return Size(LATENT_FACTOR * latent.width, LATENT_FACTOR * latent.height)

    @property
    def seed(self) -> int:
        return self.plan.images[0].seed

    @property
    def net_fields(self) -> list[str]:
        """Names of the ControlNets in the request, which may have others of weight 0."""
        asked = self.plan.request.studio
        assert asked is not None
        return [
            f"studio.controlnets.{place}"
            for place, item in enumerate(asked.controlnets)
            if item.conditioning_scale
        ]

    def picture(self, name: str, field: str) -> Pixels:
        """Read a picture that came along."""
        return read_picture(sent_along(self.pictures, name, field), field)


class StudioGuides:
    """Brings what plans of the studio need, and forgets what was used longest ago."""

    def __init__(self, weights: GuideWeights) -> None:
        """Share the networks with others."""
        self._weights = weights
        self._controls: OrderedDict[Hashable, Control] = OrderedDict()
        self._adapters: OrderedDict[Hashable, _Followed] = OrderedDict()

    def follow(
        self, catalog: Catalog, plan: Plan, pictures: Mapping[str, Path]
    ) -> tuple[tuple[ImagePrompt, ...], tuple[Control, ...]]:
        """Work out what the images of a plan follow.

        Args:
            catalog: Knows the weights.
            plan: One with a studio's part.
            pictures: Files by the names that the plan uses.

        Raises:
            EngineError: a picture is missing or none, or weights are missing or unfit; the field is named.
        """
        assert plan.studio is not None
        job = _Job(catalog, plan, plan.studio, pictures)
        adapters = [
            self._adapter(job, item, f"studio.ip_adapters.{place}")
            if item.is_on or any(net.adapter == place for net in plan.studio.nets)
            else None
            for place, item in enumerate(plan.studio.adapters)
        ]
        prompts = tuple(it.prompt for it in adapters if it is not None and it.prompt.weight)
        controls: list[Control] = []
        for net, field in zip(plan.studio.nets, job.net_fields, strict=True):
            control = self._control(job, net, field)
            if net.adapter is None:
                controls.append(control)
            else:
                read = adapters[net.adapter]
                assert read is not None
                controls += self._reading(control, read.shown, f"{field}.ip_adapter_index")
        return prompts, tuple(controls)

    def _control(self, job: _Job, asked: StudioNet, field: str) -> Control:
        """Show a net its drawing."""

        def make() -> Control:
            net = self._net(job, asked, f"{field}.path")
            drawing = stretch(_colours(job.picture(asked.image, f"{field}.image")), job.size)
            mask = None
            if asked.mask is not None:
                mask = _shares(job.picture(asked.mask, f"{field}.mask"), job.size)
            start, stop = _ends(asked, job.plan.sampling.num_inference_steps)
            return Control(
                net=net,
                hint=torch.from_numpy(drawing).permute(2, 0, 1)[None].float() / 255,
                weight=asked.weight,
                start=start,
                stop=stop,
                mask=None if mask is None else mask[None, None],
                guess=job.studio.is_guessing,
                mode=_mode(net, asked.mode, f"{field}.mode"),
            )

        steps = job.plan.sampling.num_inference_steps
        key = (asked, job.size, steps, job.studio.is_guessing)
        return remembered(self._controls, key, CONTROLS, make)

    def _net(self, job: _Job, asked: StudioNet, field: str) -> ControlNet:
        path = add_on(job.catalog, "controlnet", asked.weights).path
        net = _fitting(lambda: self._weights.net(path), field)
        for key in [key for key, it in self._controls.items() if not self._weights.holds(it.net)]:
            del self._controls[key]
        return net

    def _reading(self, control: Control, shown: Shown, field: str) -> Iterator[Control]:
        """Let a net read an adapter's tokens in place of the words: what each side is shown, on its side."""
        width = self._weights.unet.config.cross_attention_dim
        found = shown.positive.shape[-1]
        if found != width:
            problem = f"expected an adapter whose tokens are {width} wide, as words are"
            raise InvalidRequest(field, f"{problem}, got {found}")
        alike = replace(control, seen=control.embedding)
        yield replace(alike, side="positive", context=shown.positive)
        if not control.guess:
            yield replace(alike, side="negative", context=shown.negative)

    def _adapter(self, job: _Job, asked: StudioImages, field: str) -> _Followed:
        """Show the model an adapter's pictures."""

        def make() -> _Followed:
            adapter = self._adapter_file(job, asked, f"{field}.path")
            encoder = self._encoder(job)
            read = self._face_reader(job, asked, adapter, f"{field}.insight_face_model_path")
            pictures = [
                _seen(job.picture(name, place), adapter, encoder, read, place)
                for name, place in _image_fields(asked, field)
            ]
            nothing = show_nothing(adapter, encoder, asked.noising, job.seed)
            shown = _fitting(
                lambda: show(adapter, pictures, nothing, shortcut=asked.has_shortcut),
                ENCODER_FIELD,
            )
            scales = self._layer_scales(asked, f"{field}.layer_scales")
            mask = None
            if asked.mask is not None:
                mask = _shares(job.picture(asked.mask, f"{field}.mask"), job.size).round()
            return _Followed(
                shown,
                ImagePrompt(
                    positive=adapter.attend(shown.positive),
                    negative=adapter.attend(shown.negative),
                    weight=asked.scale if scales is None else max(map(abs, scales)),
                    stop=ALWAYS,
                    formula="separate",
                    layer_weights=scales,
                    mask=mask,
                    mask_factor=LATENT_FACTOR,
                    pooled=shown.pooled,
                    ground=adapter.ground(shown.pooled),
                ),
            )

        seed = job.seed if asked.noising else None
        key = (asked, job.studio.encoder, job.size if asked.mask else None, seed)
        return remembered(self._adapters, key, ADAPTERS, make)

    def _adapter_file(self, job: _Job, asked: StudioImages, field: str) -> IPAdapter:
        path = add_on(job.catalog, "ip_adapter", asked.weights).path
        return _fitting(lambda: self._weights.adapter(path), field)

    def _face_reader(
        self, job: _Job, asked: StudioImages, adapter: IPAdapter, field: str
    ) -> FaceReader | None:
        """Give what reads faces for an adapter of faces; others need none.

        Raises:
            InvalidRequest: none was asked for, or one that is of no use.
        """
        if (asked.face_model is not None) != adapter.reads_faces:
            found = asked.face_model or "none"
            rule = f"none, since {adapter.name} is no adapter of faces"
            if adapter.reads_faces:
                rule = f"a folder of models/insightface, since {adapter.name} is shown faces"
            raise InvalidRequest(field, f"expected {rule}, got {found}")
        if asked.face_model is None:
            return None
        path = job.catalog.weights("insightface", asked.face_model, field).path
        return self._weights.face_reader(path, field)

    def _encoder(self, job: _Job) -> ImageEncoder:
        asked = job.studio.encoder
        assert asked is not None
        path = add_on(job.catalog, "clip_vision", asked).path
        return _fitting(lambda: self._weights.encoder(path), ENCODER_FIELD)

    def _layer_scales(self, asked: StudioImages, field: str) -> tuple[float, ...] | None:
        if asked.layer_scales is None:
            return None
        return read_layer_scales(asked.layer_scales, list(image_layers(self._weights.unet)), field)


def _ends(asked: StudioNet, steps: int) -> tuple[float, float]:
    """Say between which steps a net acts, as shares of them: in step i where i/n is not before its start, (i+1)/n not after its end."""
    first = math.ceil(asked.start * steps - _ROUNDING)
    last = math.floor(asked.stop * steps + _ROUNDING) - 1
    return first / steps, last / steps


def _mode(net: ControlNet, kind: str | None, field: str) -> int | None:
    """Find the place of a kind of drawing.

    Raises:
        InvalidRequest: a Union got none or one that it does not know, or another net got one.
    """
    if not net.modes:
        if kind is None:
            return None
        raise InvalidRequest(field, f"expected none, since {net.name} is no Union, got {kind}")
    known = [name for name, place in UNION_MODES.items() if place < net.modes]
    if kind not in known:
        problem = f"expected the kind of drawing for {net.name}, one of {', '.join(known)}"
        raise InvalidRequest(field, f"{problem}, got {kind or 'none'}")
    return net.mode(kind)


def _colours(pixels: Pixels) -> Pixels:
    """Bring a picture to three channels; what is transparent shows the colour it has, as in diffusers."""
    return to_rgb(pixels if pixels.ndim == 2 else pixels[..., :3])


def _shares(pixels: Pixels, size: Size) -> Tensor:
    """Read a mask, stretched to a size: (H, W) float32, white is 1."""
    grey = Image.fromarray(stretch(_colours(pixels), size)).convert("L")
    return torch.from_numpy(np.array(grey)).float() / 255


def _image_fields(asked: StudioImages, field: str) -> Iterator[tuple[str, str]]:
    """Go through the pictures of an adapter, each with its field."""
    for place, name in enumerate(asked.images):
        yield name, f"{field}.images.{place}"


def _seen(
    pixels: Pixels,
    adapter: IPAdapter,
    encoder: ImageEncoder,
    read: FaceReader | None,
    field: str,
) -> EncodedImage:
    """Show the encoder a picture; of an adapter of faces, the largest face in it.

    Raises:
        InvalidRequest: there is no face in it, or it is so thin that it does not fit into memory at the encoder's size.
    """
    picture = _colours(pixels)
    if read is None:
        return _encoded(picture, encoder, field)
    face = read(picture)
    if face is None:
        raise InvalidRequest(field, "expected a picture with a face in it, got one without")
    return with_face(_encoded(face.crop, encoder, field), torch.from_numpy(face.vector), adapter)


def _encoded(pixels: Pixels, encoder: ImageEncoder, field: str) -> EncodedImage:
    own = size_of(pixels)
    if own.area * (encoder.side / min(own)) ** 2 > MAX_PIXELS:
        rule = f"expected a picture with at most {MAX_PIXELS} pixels at a side of {encoder.side}"
        raise InvalidRequest(field, f"{rule}, got one of {own}")
    return encoder.encode(square(pixels, encoder.side))


def _fitting(load: Callable[[], T], field: str) -> T:
    """Load something; where it is not for this model, its field is named.

    Raises:
        InvalidRequest: it is not.
    """
    try:
        return load()
    except ModelIncompatible as error:
        raise InvalidRequest(field, str(error)) from error
