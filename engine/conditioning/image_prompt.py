"""From pictures to image prompts: encoded, projected and weighted once, then remembered."""

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.conditioning.image_attention import Formula, ImagePrompt, ImageTokens
from engine.models.image_encoders import ImageEncoder
from engine.models.ip_adapters import IPAdapter

_KEPT = 8
"""How many images and how many prompts are remembered; of SDXL each takes 11 MB in half precision."""


class ImageReader:
    """Reads pictures for one UNet through one adapter."""

    def __init__(
        self, encoder: ImageEncoder, adapter: IPAdapter, negative: Tensor | None = None
    ) -> None:
        """Keep what reads pictures.

        Args:
            encoder: The one that the adapter was made for.
            adapter: For the UNet.
            negative: Tokens for the negative side (`read_negative`); None is what the encoder says of no picture.
        """
        self._encoder = encoder
        self._adapter = adapter
        self._negative_tokens = negative
        self._negative: ImageTokens | None = None
        self._images: OrderedDict[Hashable, tuple[ImageTokens, Tensor | None]] = OrderedDict()
        self._prompts: OrderedDict[Hashable, ImagePrompt] = OrderedDict()

    def prompt(
        self,
        image: NDArray[np.uint8],
        name: Hashable,
        *,
        weight: float,
        stop: float,
        formula: Formula,
    ) -> ImagePrompt:
        """Make an image prompt, or give the one that was made for the same before.

        Args:
            image: (H, W, 3) RGB of any size, a face already cut out.
            name: What tells the picture from others, such as its hash.
            weight: How strongly it is followed.
            stop: Share of the noise after which it is let go.
            formula: How it is attended to.

        Raises:
            ModelIncompatible: encoder, adapter and negative tokens do not fit each other.
        """
        key = (name, weight, stop, formula)
        if key not in self._prompts:
            positive, pooled = self._image_tokens(image, name)
            self._prompts[key] = ImagePrompt(
                positive=positive,
                negative=self._no_image(),
                weight=weight,
                stop=stop,
                formula=formula,
                reference_width=self._adapter.reference_width,
                pooled=pooled,
                ground=self._adapter.ground(pooled),
            )
        _touch(self._prompts, key)
        return self._prompts[key]

    def _image_tokens(
        self, image: NDArray[np.uint8], name: Hashable
    ) -> tuple[ImageTokens, Tensor | None]:
        if name not in self._images:
            encoded = self._encoder.encode(image)
            tokens = self._adapter.attend(self._adapter.project(encoded))
            self._images[name] = tokens, self._adapter.pooled(encoded)
        _touch(self._images, name)
        return self._images[name]

    def _no_image(self) -> ImageTokens:
        if self._negative is None:
            tokens = self._negative_tokens
            if tokens is None:
                tokens = self._adapter.project(self._encoder.encode_nothing())
            self._negative = self._adapter.attend(tokens)
        return self._negative


def _touch(
    known: OrderedDict[Hashable, tuple[ImageTokens, Tensor | None]]
    | OrderedDict[Hashable, ImagePrompt],
    key: Hashable,
) -> None:
    """Note that an entry is used, and drop the one that was not for longest."""
    known.move_to_end(key)
    if len(known) > _KEPT:
        known.popitem(last=False)
