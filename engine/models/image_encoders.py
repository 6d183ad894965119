"""CLIP's image encoders: what image prompts are told of a picture.

From a folder of transformers, whose settings are in its config, or from one file, whose build is read off its weights.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from engine.errors import ModelIncompatible
from engine.models.checkpoints import freeze, reading
from engine.models.devices import quiet_libraries
from engine.models.tensors import read_tensors

BUILDS: Mapping[int, tuple[int, str]] = {
    768: (12, "quick_gelu"),
    1024: (16, "quick_gelu"),
    1280: (16, "gelu"),
    1408: (16, "gelu"),
    1664: (16, "gelu"),
}
"""Attention heads and activation by width, which weights do not tell: OpenAI's ViT-B and ViT-L, OpenCLIP's ViT-H, -g and -bigG."""
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained on. Source: https://github.com/openai/CLIP"""
_PARTS = ("vision_model.", "visual_projection.")
"""What counts in a file; that of Fooocus holds the text encoder too."""
_POSITIONS = "vision_model.embeddings.position_ids"
"""What older files hold beside the weights."""
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")


@dataclass(frozen=True, eq=False, slots=True)
class EncodedImage:
    """What an encoder says of a picture; float32, on the encoder's device."""

    hidden_states: Tensor
    """(1, 1 + patches, width): what goes into the last layer."""
    image_embeds: Tensor
    """(1, P): the picture as a whole, as a text of CLIP would be."""
    face: Tensor | None = None
    """(1, 1, 512): what tells the face in it from others, where something else than the encoder read one."""


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """A loaded encoder."""

    name: str
    network: Any
    """A `CLIPVisionModelWithProjection`."""
    device: torch.device

    @property
    def side(self) -> int:
        """Pixels along each side of the square that it sees."""
        side: int = self.network.config.image_size
        return side

    @property
    def width(self) -> int:
        """Numbers in each of the `hidden_states`."""
        width: int = self.network.config.hidden_size
        return width

    @property
    def embed_width(self) -> int:
        """Numbers in the `image_embeds`."""
        width: int = self.network.config.projection_dim
        return width

    def encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        """Look at a picture: (H, W, 3) RGB of any size; it is stretched to the square, as Fooocus has it."""
        pixels = torch.from_numpy(seen_by_clip(image, self.side))
        return self._look(pixels[None])

    def encode_nothing(self) -> EncodedImage:
        """Give what stands for no picture, as IP-Adapter was trained: states of an even mean grey, and zeros as a whole."""
        grey = self._look(torch.zeros(1, 3, self.side, self.side))
        return EncodedImage(grey.hidden_states, torch.zeros_like(grey.image_embeds))

    def encode_noise(self, noise: Tensor, share: float) -> EncodedImage:
        """Give what stands for no picture with some noise in it, that at share 0 is `encode_nothing`.

        Args:
            noise: (1, 3, side, side) of variance 1, added to the even grey as the network sees it.
            share: Multiplies the noise, 0 to 1, and what the network says of the whole of it.
        """
        states = self._look(noise * share).hidden_states
        return EncodedImage(states, self._look(noise).image_embeds * share)

    @torch.inference_mode()
    def _look(self, pixels: Tensor) -> EncodedImage:
        pixels = pixels.to(self.device, self.network.dtype)
        answer = self.network(pixels, output_hidden_states=True)
        return EncodedImage(answer.hidden_states[-2].float(), answer.image_embeds.float())


def load_image_encoder(
    path: Path,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> ImageEncoder:
    """Read an image encoder and put it on `device`.

    Args:
        path: A folder of transformers with safetensors, or a file of its weights with their names in transformers.
        device: Where it goes.
        dtype: Number format of its weights; None is float32 on the CPU, else float16.
        allow_pickle: Whether a pickled file may be read.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no image encoder of CLIP, broken, or pickled and not allowed.
        OutOfMemory: there is no room for it.
    """
    quiet_libraries()
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    with reading(path.name):
        if not path.is_dir():
            tensors = read_tensors(path, allow_pickle=allow_pickle)
            return build_image_encoder(path.name, tensors, device, dtype)
        return ImageEncoder(path.name, freeze(_read_folder(path, dtype).to(device)), device)


def build_image_encoder(
    name: str, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> ImageEncoder:
    """Put an encoder together from a file's tensors, which are copied.

    Raises:
        ModelIncompatible: they are not those of an image encoder of CLIP.
    """
    from transformers import CLIPVisionModelWithProjection

    weights = {key: value for key, value in tensors.items() if key.startswith(_PARTS)}
    with torch.device("meta"):
        network: Any = CLIPVisionModelWithProjection(_config(name, weights))
    own = network.state_dict()
    for key in sorted({*own, *weights} - {_POSITIONS}):
        wanted, found = (tuple(it[key].shape) if key in it else None for it in (own, weights))
        if wanted != found:
            problem = f"expected an image encoder with {key} of shape {wanted}, got {found}"
            raise ModelIncompatible(f"{name}: {problem}")
    # a copy, since a mapped file may change
    taken = {key: weights[key].to(device, dtype, copy=True) for key in own}
    network.load_state_dict(taken, assign=True)
    embeddings = network.vision_model.embeddings
    places = torch.arange(embeddings.num_positions, device=device)  # in no file
    embeddings.position_ids = places.unsqueeze(0)
    return ImageEncoder(name, freeze(network), device)


def seen_by_clip(image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Prepare an RGB picture for an encoder: (3, side, side), normalised to the mean and deviation of CLIP's colours."""
    square = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    shares = np.asarray(square, np.float32) / np.float32(255)
    mean, deviation = (np.array(values, np.float32) for values in (_MEAN, _DEVIATION))
    return np.ascontiguousarray(((shares - mean) / deviation).transpose(2, 0, 1))


def _read_folder(path: Path, dtype: torch.dtype) -> Any:
    from transformers import CLIPVisionModelWithProjection

    read: Any = CLIPVisionModelWithProjection.from_pretrained
    network, report = read(
        path, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        problem = f"expected all weights of CLIP's image encoder, got none for {missing[0]}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    return network


def _config(name: str, weights: Mapping[str, Tensor]) -> Any:
    """Read off the weights how the network is built."""
    from transformers import CLIPVisionConfig

    needed = {
        "visual_projection.weight": 2,
        "vision_model.embeddings.patch_embedding.weight": 4,
        "vision_model.embeddings.position_embedding.weight": 2,
        "vision_model.encoder.layers.0.mlp.fc1.weight": 2,
    }
    for key, dimensions in needed.items():
        if key not in weights or weights[key].ndim != dimensions:
            problem = f"expected an image encoder of CLIP, got a file without its {key}"
            raise ModelIncompatible(f"{name}: {problem}")
    projection, patches, places, first = (weights[key].shape for key in needed)
    width = projection[1]
    if width not in BUILDS:
        known = ", ".join(map(str, BUILDS))
        problem = f"expected an image encoder {known} wide, got {width}; as a folder with its config.json it can have any"
        raise ModelIncompatible(f"{name}: {problem}")
    heads, activation = BUILDS[width]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=first[0],
        num_hidden_layers=len({match[1] for match in map(_LAYER.match, weights) if match}),
        num_attention_heads=heads,
        patch_size=patches[-1],
        image_size=isqrt(places[0] - 1) * patches[-1],
        projection_dim=projection[0],
        hidden_act=activation,
    )
