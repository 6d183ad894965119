"""What a picture starts from: noise alone, or another picture that is varied, enlarged or repainted.

Looking at that picture settles the sizes of its plan. It is done once for all images of a job, a little at a time.
"""

import dataclasses
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.catalog import SDXL_NATIVE, Catalog
from engine.conditioning.blend import Blend, is_blended
from engine.errors import InvalidRequest
from engine.geometry import LATENT_FACTOR, Size, nearest_bucket
from engine.models.ic_light import load_ic_light
from engine.models.inpaint_head import head_addition, load_inpaint_head
from engine.models.trust import trusted_hashes
from engine.models.upscalers import Upscaler, load_upscaler
from engine.needed import FIELDS, add_on
from engine.plan import (
    DescribePicture,
    FindMask,
    FromNoise,
    FromPicture,
    Given,
    Plan,
    Repainting,
)
from engine.requests import OutputFormat
from engine.stages.decode import decode_latents, to_images
from engine.stages.describe import describe
from engine.stages.encode_picture import decode_values, encode_picture, encode_values
from engine.stages.find_mask import find_mask
from engine.stages.inpaint import FILLS_ABOVE, Canvas, Scale, encode_canvas, paste_back, prepare
from engine.stages.masks import is_hole_in, pad, read_mask, shape_mask
from engine.stages.pictures import read_picture, sent_along
from engine.stages.pixels import Pixels, size_of, stretch, to_rgb
from engine.stages.relight import relight_addition
from engine.stages.upscale import (
    enlarge,
    enlarging,
    require_enlargeable,
    to_vary,
    upscale_size,
    vary_size,
)
from engine.studio_plan import Relighting
from engine.warm import WarmModel

MAX_SIDES: Mapping[OutputFormat, int] = {"jpeg": 65500, "webp": 16383}
"""Longest side in pixels that a file of the format can have."""

Sizes = Generator[float, None, "Beginning"]
"""Yields the share that is done."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Beginning:
    """What all images of a job start from."""

    plan: Plan
    """With its sizes settled."""
    latents: Tensor | None = None
    """(1, 4, h, w) as the VAE gives them; None is noise alone."""
    kept: tuple[Tensor, Tensor] | None = None
    """Latents of a picture, as the UNet knows them, and where it is painted over: see `Blend`."""
    addition: Tensor | None = None
    """(1, C, h, w): see `engine.loop.Setup.addition`."""
    canvas: Canvas | None = None
    """Where the painted part goes back to."""
    result: Pixels | None = None
    """The picture itself, where nothing needs to be painted."""
    text: str | None = None
    """What the picture was put into, where that was asked for."""
    is_tiled: bool = False
    """Whether the VAE decodes in tiles in any case; it does so by itself where memory is short."""

    def blend(self, seed: int) -> tuple[Blend, ...]:
        """Make the seam that keeps what is not painted, for one run of a sampler with that seed."""
        sampling = self.plan.sampling
        is_fooocus = self.plan.compat == "fooocus"
        if self.kept is None or not is_blended(sampling.sampler, as_fooocus=is_fooocus):
            return ()
        return (Blend(*self.kept, seed),)

    def finish(self, vae: Any, latents: Tensor) -> Image.Image:
        """Decode what was painted, (1, 4, h, w) as the VAE has it, and put it where it belongs."""
        if self.canvas is not None:
            painted = decode_latents(vae, latents, self.plan.sample_size)
            return Image.fromarray(paste_back(self.canvas, np.asarray(painted)))
        if self.is_tiled:
            return to_images(decode_values(vae, latents, is_tiled=True))[0]
        return decode_latents(vae, latents, self.plan.size)


class Starts:
    """Prepares beginnings; keeps the upscaler that was used last."""

    def __init__(self, device: torch.device, *, allow_pickle: bool) -> None:
        self._device = device
        self._allow_pickle = allow_pickle
        self._upscaler: tuple[Path, Upscaler] | None = None

    def forget(self) -> None:
        """Give up the upscaler."""
        self._upscaler = None

    def begin(
        self,
        model: Callable[[], WarmModel],
        catalog: Catalog,
        plan: Plan,
        pictures: Mapping[str, Path],
    ) -> Sizes:
        """Look at what a plan starts from.

        Args:
            model: Gives the weights that the plan needs; others may be in memory between two looks.
            catalog: Knows the helpers.
            plan: Of the job.
            pictures: Files by the names that the plan uses.

        Raises:
            EngineError: a picture is missing or unfit, or a helper is.
        """
        match plan.start:
            case FromNoise() if plan.studio is not None and plan.studio.relighting is not None:
                return self._relit(model(), catalog, plan, plan.studio.relighting, pictures)
            case FromNoise():
                return Beginning(plan=plan)
            case FromPicture() as start if start.upscaler is None:
                return self._varied(model(), plan, start, pictures)
            case FromPicture() as start:
                return (yield from self._enlarged(model, catalog, plan, start, pictures))
            case Repainting() as start:
                return self._repainted(model(), catalog, plan, start, pictures)
            case FindMask() | DescribePicture() | Given() as start:
                return self._looked_at(catalog, plan, start, pictures)

    def _relit(
        self,
        model: WarmModel,
        catalog: Catalog,
        plan: Plan,
        asked: Relighting,
        pictures: Mapping[str, Path],
    ) -> Beginning:
        """Look at what IC-Light sees; its weights are on the UNet already."""

        def read(name: str, field: str) -> Pixels:
            return read_picture(sent_along(pictures, name, field), field)

        unet, behind = model.loaded.unet, "studio.ic_light.background"
        file = add_on(catalog, "ic_light", asked.weights).path
        addition = relight_addition(
            load_ic_light(file, unet, FIELDS["ic_light"]),
            model.vae,
            plan.sample_size,
            read(asked.image, "studio.ic_light.image"),
            background=None if asked.background is None else read(asked.background, behind),
            field=behind,
        )
        return Beginning(plan=plan, addition=addition.to(unet.device, unet.dtype))

    def _varied(
        self, model: WarmModel, plan: Plan, start: FromPicture, pictures: Mapping[str, Path]
    ) -> Beginning:
        field = "upscale_or_vary.image"
        picture = to_rgb(read_picture(sent_along(pictures, start.image, field), field))
        if plan.native_size < SDXL_NATIVE:  # design D12: at a bucket, and then as large as it was
            size = size_of(picture)
            image = stretch(picture, nearest_bucket(size, model.loaded.checkpoint.buckets))
            latents = encode_picture(model.vae, image, None)
        else:
            _require_paintable(vary_size(size_of(picture)), field)
            latents = encode_picture(model.vae, to_vary(picture), None)
            size = _size_of_latents(latents)
        require_writable(plan, size, field)
        sized = dataclasses.replace(plan, size=size, sample_size=_size_of_latents(latents))
        return Beginning(plan=sized, latents=latents)

    def _enlarged(
        self,
        model: Callable[[], WarmModel],
        catalog: Catalog,
        plan: Plan,
        start: FromPicture,
        pictures: Mapping[str, Path],
    ) -> Sizes:
        field = "upscale_or_vary.image"
        picture = to_rgb(read_picture(sent_along(pictures, start.image, field), field))
        upscaler = self._load_upscaler(catalog, start.upscaler or "")
        own = size_of(picture)
        require_enlargeable(own, upscaler.scale, field)
        target = upscale_size(own, start.method, scale=upscaler.scale, native=plan.native_size)
        if target.is_painted:
            _require_paintable(target.size, field)
        require_writable(plan, target.size, field)
        larger = stretch((yield from enlarging(upscaler, picture)), target.size)
        if not target.is_painted:
            sized = dataclasses.replace(plan, size=target.size, sample_size=target.size)
            return Beginning(plan=sized, result=larger)
        latents = encode_picture(model().vae, larger, None, is_tiled=True)
        size = _size_of_latents(latents)
        sized = dataclasses.replace(plan, size=size, sample_size=size)
        return Beginning(plan=sized, latents=latents, is_tiled=True)

    def _repainted(
        self,
        model: WarmModel,
        catalog: Catalog,
        plan: Plan,
        start: Repainting,
        pictures: Mapping[str, Path],
    ) -> Beginning:
        canvas = self._canvas(catalog, plan, start, pictures)
        encode = partial(encode_values, model.vae, generator=None)
        latents = encode_canvas(canvas, encode, with_head=start.head is not None)
        to_model = model.denoiser(plan.sampling.scheduler).model.latent_format.to_model
        addition = None
        if start.head is not None:
            unet = model.loaded.unet
            head = load_inpaint_head(
                catalog.weights("inpaint", start.head, "inpaint.engine").path,
                unet.config.block_out_channels[0],
                allow_pickle=self._allow_pickle,
                known_sha256=trusted_hashes(catalog),
            )
            addition = head_addition(head, latents.mask, to_model(latents.masked))
            addition = addition.to(unet.device, unet.dtype)
        sized = dataclasses.replace(
            plan,
            size=size_of(canvas.picture),
            sample_size=_size_of_latents(latents.filled),
        )
        return Beginning(
            plan=sized,
            latents=None if start.disable_initial_latent else latents.filled,
            kept=(to_model(latents.filled), latents.mask),
            addition=addition,
            canvas=canvas,
        )

    def _looked_at(
        self,
        catalog: Catalog,
        plan: Plan,
        start: FindMask | DescribePicture | Given,
        pictures: Mapping[str, Path],
    ) -> Beginning:
        """Do what needs no painting: the result is the picture as it is, a mask in white on black, or words."""
        field = {"mask": "mask_from.image", "describe": "describe.image", "given": "enhance.image"}
        named = field[start.kind]
        picture = to_rgb(read_picture(sent_along(pictures, start.image, named), named))
        size, device = size_of(picture), self._device
        sized = dataclasses.replace(plan, size=size, sample_size=size)
        if isinstance(start, DescribePicture):
            text = describe(start, catalog, picture, device, seed=plan.images[0].seed)
            return Beginning(plan=sized, text=text)
        if isinstance(start, FindMask):
            is_fooocus = plan.compat == "fooocus"
            mask = find_mask(start, catalog, picture, device, as_fooocus=is_fooocus)
            return Beginning(plan=sized, result=to_rgb(mask))
        return Beginning(plan=sized, result=picture)

    def _canvas(
        self, catalog: Catalog, plan: Plan, start: Repainting, pictures: Mapping[str, Path]
    ) -> Canvas:
        """Read the picture and its mask, and cut out what is worked on."""
        field = "inpaint.image"
        picture = to_rgb(read_picture(sent_along(pictures, start.image, field), field))
        own = size_of(picture)
        mask = _mask(start, own, pictures)
        if start.outpaint:
            picture, mask = pad(picture, mask, start.outpaint)
            if not is_hole_in(mask):
                problem = f"expected sides that three tenths can be added to, got {own}"
                raise InvalidRequest("inpaint.outpaint", problem)
        require_writable(plan, size_of(picture), field)

        def upscale(part: Pixels) -> Pixels:
            return enlarge(self._load_upscaler(catalog, start.upscaler), part)

        canvas = prepare(
            picture,
            mask,
            respective_field=start.respective_field,
            is_filled=plan.sampling.strength > FILLS_ABOVE,
            upscale=upscale,
            scale=Scale.of(plan.native_size),
            as_fooocus=plan.compat == "fooocus",
        )
        _require_paintable(canvas.size, field)
        return canvas

    def _load_upscaler(self, catalog: Catalog, name: str) -> Upscaler:
        path = catalog.weights("upscaler", name, "upscale_or_vary.method").path
        if self._upscaler is None or self._upscaler[0] != path:
            loaded = load_upscaler(
                path,
                self._device,
                allow_pickle=self._allow_pickle,
                known_sha256=trusted_hashes(catalog),
            )
            self._upscaler = (path, loaded)
        return self._upscaler[1]


def _mask(start: Repainting, size: Size, pictures: Mapping[str, Path]) -> Pixels:
    """Read the mask; without one, only what is added at the sides is painted."""
    if start.mask is None:
        return np.zeros((size.height, size.width), np.uint8)
    field = "inpaint.mask"
    mask = read_mask(read_picture(sent_along(pictures, start.mask, field), field), size, field)
    by, is_inverted = start.erode_or_dilate, start.invert_mask
    needs_hole = not start.outpaint
    return shape_mask(mask, by=by, is_inverted=is_inverted, needs_hole=needs_hole, field=field)


def _require_paintable(size: Size, field: str) -> None:
    """Refuse what has no whole latent cell: a picture so thin that its area looks right."""
    if min(size) < LATENT_FACTOR:
        rule = f"expected a picture that is painted {LATENT_FACTOR} pixels wide and high at least"
        raise InvalidRequest(field, f"{rule}, got one for {size}")


def require_writable(plan: Plan, size: Size, field: str) -> None:
    """Refuse what the files of the format cannot hold.

    Raises:
        InvalidRequest: a side is too long.
    """
    most = MAX_SIDES.get(plan.output_format)
    if most is not None and max(size) > most:
        rule = f"expected a result of at most {most} pixels a side, for {plan.output_format}"
        raise InvalidRequest(field, f"{rule}, got {size}")


def _size_of_latents(latents: Tensor) -> Size:
    return Size(latents.shape[3] * LATENT_FACTOR, latents.shape[2] * LATENT_FACTOR)
