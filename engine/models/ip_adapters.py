"""IP-Adapter files: from what an image encoder says of a picture to keys and values for every layer of a UNet.

A file holds ``image_proj``, which makes a few tokens of an encoded picture, and ``ip_adapter``, two matrices for each
cross-attention layer. Its weights stay on the CPU as they are stored, and visit the device when an image is projected.

Source: Ye et al. 2023, https://arxiv.org/abs/2308.06721
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engine.conditioning.image_attention import REFERENCE_WIDTH, ImageTokens, image_layers
from engine.errors import ModelIncompatible
from engine.models.checkpoints import reading
from engine.models.devices import quiet_libraries
from engine.models.image_encoders import EncodedImage
from engine.models.patches.face_loras import is_face_lora
from engine.models.tensors import read_metadata, read_tensors

HEAD_SIZE = 64
"""Channels of one head in the projections of all published files; weights do not tell it."""
_PROJECTION, _MATRICES = "image_proj.", "ip_adapter."
_POOLED = "pooled_proj."
"""What the pocket model's adapter has besides: a linear layer from an encoded picture to the pooled text, and ``ground``, a
matrix from that to the background's part of it."""
_KINDS = "base, plus, plus-face, full, FaceID, FaceID plus or InstantID"
FACE_WIDTH = 512
"""Numbers in the vector that tells a face from others; no image encoder's are as few."""
_RESAMPLER = "perceiver_resampler."
"""Where a FaceID Plus file keeps what looks at the encoded picture."""
_Reads = Literal["hidden_states", "image_embeds", "face"]
_NAMES = (
    (r"\.ln0\.", ".0.norm1."),
    (r"\.ln1\.", ".0.norm2."),
    (r"\.attn\.to_[kv]\.", ".0.to_kv."),
    (r"\.attn\.to_out\.0\.", ".0.to_out."),
    (r"\.attn\.", ".0."),
    (r"\.ff\.0\.", ".1.0."),
    (r"\.ff\.1\.net\.0\.proj\.", ".1.1."),
    (r"\.ff\.1\.net\.2\.", ".1.3."),
    (r"^image_embeds\.", "proj."),
    (r"^proj\.net\.0\.proj\.", "proj.0."),
    (r"^proj\.net\.2\.", "proj.2."),
    (r"^ff\.net\.0\.proj\.", "proj.0."),
    (r"^ff\.net\.2\.", "proj.2."),
)
"""How diffusers names the weights of a projection, and how files do. In full adapters ``norm`` is ``proj.3``."""


@dataclass(frozen=True, eq=False)
class Projection:
    """The part of an adapter that makes tokens of an encoded picture."""

    network: Any
    """One of diffusers' projections, without memory for weights."""
    weights: Mapping[str, Tensor]
    """By diffusers' names, on the CPU."""
    reads: _Reads
    """What of an `EncodedImage` it is shown."""
    width: int
    """How many numbers of it."""
    token_width: int
    """Numbers in each token."""
    beside_width: int | None = None
    """Of FaceID Plus, which is shown the hidden states beside the face: how many numbers of them."""
    is_unit: bool = False
    """Whether the vector of a face is brought to length 1."""

    @torch.inference_mode()
    def __call__(
        self, encoded: Tensor, beside: Tensor | None = None, *, shortcut: bool = False
    ) -> Tensor:
        """Make tokens.

        Args:
            encoded: (1, n, width), or (1, width) for the picture as a whole.
            beside: Of FaceID Plus: hidden states, (1, n, beside width).
            shortcut: Of FaceID Plus: whether the face's tokens are added to what is made of both.

        Returns:
            (1, n, token width) float32, on the device of what is shown.
        """
        weights = {key: value.to(encoded.device).float() for key, value in self.weights.items()}
        if beside is not None:
            self.network.clip_embeds, self.network.shortcut = beside.float()[None], shortcut
        tokens: Tensor = torch.func.functional_call(self.network, weights, (encoded.float(),))
        return tokens


@dataclass(frozen=True, eq=False)
class IPAdapter:
    """A loaded adapter, for one UNet."""

    name: str
    projection: Projection
    matrices: Sequence[tuple[Tensor, Tensor]]
    """For each cross-attention layer, in the order of `image_layers`: of keys and of values, (channels, token width)."""
    device: torch.device
    """Where the UNet is."""
    dtype: torch.dtype
    """Its number format."""
    reference_width: int = REFERENCE_WIDTH
    """Of the joint formula."""
    pooled_weights: tuple[Tensor, Tensor] | None = None
    """Matrix and bias of what a picture adds to the pooled text; None in all published files."""
    ground_weights: Tensor | None = None
    """Matrix that takes the background's part out of that."""

    def project(self, image: EncodedImage, *, shortcut: bool = False) -> Tensor:
        """Make tokens of an encoded picture: (1, n, token width) float32.

        Args:
            image: With a face where the adapter reads one.
            shortcut: As `Projection` has it.

        Raises:
            ModelIncompatible: the picture was encoded by another encoder than the adapter was made for, or has no face.
        """
        projection = self.projection
        shown = self._require_width(image, projection.reads, projection.width)
        beside = None
        if projection.beside_width is not None:
            beside = self._require_width(image, "hidden_states", projection.beside_width)
        return projection(shown, beside, shortcut=shortcut)

    def _require_width(self, image: EncodedImage, reads: _Reads, width: int) -> Tensor:
        shown: Tensor | None = getattr(image, reads)
        found = 0 if shown is None else shown.shape[-1]
        if shown is None or found != width:
            problem = f"expected an image encoder whose {reads} are {width} wide"
            raise ModelIncompatible(f"{self.name}: {problem}, got {found}")
        return shown

    def pooled(self, image: EncodedImage) -> Tensor | None:
        """Say what an encoded picture adds to the pooled text: (1, P) in the UNet's number format, or None."""
        if self.pooled_weights is None:
            return None
        weight, bias = (part.to(self.device).float() for part in self.pooled_weights)
        shown = image.image_embeds.to(self.device).float()
        return torch.nn.functional.linear(shown, weight, bias).to(self.dtype)

    def ground(self, pooled: Tensor | None) -> Tensor | None:
        """Take out of what `pooled` gave what tells of the background: the same shape, or None."""
        if pooled is None or self.ground_weights is None:
            return None
        weights = self.ground_weights.to(self.device).float()
        return torch.nn.functional.linear(pooled.float(), weights).to(self.dtype)

    @property
    def reads_faces(self) -> bool:
        """Whether it is shown the vector of a face."""
        return self.projection.reads == "face"

    @torch.inference_mode()
    def attend(self, tokens: Tensor) -> ImageTokens:
        """Work out the keys and values of tokens, which came from `project` or from a negative file.

        Args:
            tokens: (1, n, token width).

        Raises:
            ModelIncompatible: the tokens have another width.
        """
        width = self.projection.token_width
        if tokens.shape[-1] != width:
            problem = f"expected tokens of {width} numbers, got {tokens.shape[-1]}"
            raise ModelIncompatible(f"{self.name}: {problem}")
        tokens = tokens.to(self.device).float()
        keys, values = (
            tuple((tokens @ matrix.to(self.device).float().T).to(self.dtype) for matrix in side)
            for side in zip(*self.matrices, strict=True)
        )
        return ImageTokens(keys, values)


def load_ip_adapter(path: Path, unet: Any, *, allow_pickle: bool = False) -> IPAdapter:
    """Read an IP-Adapter for a UNet.

    Args:
        path: A safetensors file, or a pickled one. In the metadata of the first, ``reference_width`` and ``head_size`` say
            what differs from the published files.
        unet: A `UNet2DConditionModel`; it is not changed.
        allow_pickle: Whether a pickled file may be read.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no adapter of a known kind, not for this UNet, broken, or pickled and not allowed.
        OutOfMemory: there is no room for it.
    """
    quiet_libraries()
    tensors = read_tensors(path, allow_pickle=allow_pickle)
    with reading(path.name):
        return build_ip_adapter(path.name, tensors, unet, read_metadata(path))


def carries_lora(path: Path, *, allow_pickle: bool = False) -> bool:
    """Whether an adapter's file holds a LoRA besides, as those of FaceID do, for `WeightPatcher`.

    Raises:
        ModelNotFound, ModelIncompatible: as `read_tensors` says.
    """
    return any(map(is_face_lora, read_tensors(path, allow_pickle=allow_pickle)))


def build_ip_adapter(
    name: str, tensors: Mapping[str, Tensor], unet: Any, metadata: Mapping[str, str]
) -> IPAdapter:
    """Put an adapter together from a file's tensors, which are copied, and the texts of its header.

    Raises:
        ModelIncompatible: it is no adapter of a known kind, or not for this UNet.
    """
    head_size = _whole_number(name, metadata, "head_size", HEAD_SIZE)
    projection = read_projection(name, _below(tensors, _PROJECTION), head_size)
    return IPAdapter(
        name=name,
        projection=projection,
        matrices=_matrices(name, _below(tensors, _MATRICES), unet, projection.token_width),
        device=unet.device,
        dtype=unet.dtype,
        reference_width=_whole_number(name, metadata, "reference_width", REFERENCE_WIDTH),
        pooled_weights=_pooled_weights(tensors),
        ground_weights=tensors.get(f"{_POOLED}ground"),
    )


def _pooled_weights(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    part = _below(tensors, _POOLED)
    return (part["weight"], part["bias"]) if {"weight", "bias"} <= set(part) else None


def read_negative(path: Path) -> Tensor:
    """Read the tokens that stand for no image, as Fooocus has them in a file: (1, n, token width) float32.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it holds something else.
    """
    tensors = read_tensors(path)
    found = tensors.get("data")
    if found is None or found.ndim < 2:
        got = ", ".join(sorted(tensors)[:3]) if found is None else f"one of shape {(*found.shape,)}"
        problem = f"expected tokens in a tensor called data, got {got}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    return found.to(torch.float32, copy=True).reshape(1, -1, found.shape[-1])


def read_projection(
    name: str, tensors: Mapping[str, Tensor], head_size: int = HEAD_SIZE
) -> Projection:
    """Build the projection of an adapter from its weights, by their names in files without ``image_proj``.

    Raises:
        ModelIncompatible: the weights are not those of a known kind.
    """
    with torch.device("meta"):
        build = _plus_of_faces if f"{_RESAMPLER}proj_in.weight" in tensors else _network
        network, reads, width, token_width = build(name, tensors, head_size)
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    is_full = "proj.3.weight" in tensors
    is_plus_of_faces = f"{_RESAMPLER}proj_in.weight" in tensors
    places = {key: _name_in_file(key, is_full=is_full) for key in own}
    if is_plus_of_faces:
        outer = ("proj.", "norm.")
        places = {
            key: place if place.startswith(outer) else _RESAMPLER + place
            for key, place in places.items()
        }
    wanted = {
        place: (2 * own[key][0], *own[key][1:]) if ".to_kv." in place else own[key]
        for key, place in places.items()
    }
    _require_same(name, _PROJECTION, tensors, wanted)
    weights = {key: _taken(tensors[place], key).clone() for key, place in places.items()}
    return Projection(
        network.eval(),
        weights,
        reads,
        width,
        token_width,
        beside_width=network.proj_in.in_features if is_plus_of_faces else None,
        is_unit=reads == "face" and "latents" not in tensors,
    )


def _shape(name: str, tensors: Mapping[str, Tensor], key: str, dimensions: int = 2) -> torch.Size:
    if key not in tensors or tensors[key].ndim != dimensions:
        problem = f"expected {_PROJECTION}{key} with {dimensions} dimensions, got"
        found = (*tensors[key].shape,) if key in tensors else "none"
        raise ModelIncompatible(f"{name}: {problem} {found}")
    return tensors[key].shape


def _plus_of_faces(
    name: str, tensors: Mapping[str, Tensor], head_size: int
) -> tuple[Any, _Reads, int, int]:
    """Build the projection of FaceID Plus, as `_network` does."""
    from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection

    shape, layers = partial(_shape, name, tensors), f"{_RESAMPLER}layers."
    (inner, width), hidden = shape("proj.0.weight"), shape(f"{_RESAMPLER}proj_in.weight")
    token_width = shape(f"{_RESAMPLER}proj_out.weight")[0]
    if token_width != hidden[0]:
        problem = f"expected {_RESAMPLER}proj_out as wide as proj_in, {hidden[0]}"
        raise ModelIncompatible(f"{name}: {problem}, got {token_width}")
    network = IPAdapterFaceIDPlusImageProjection(
        embed_dims=hidden[0],
        output_dims=token_width,
        hidden_dims=hidden[1],
        id_embeddings_dim=width,
        depth=len({key.split(".")[2] for key in tensors if key.startswith(layers)}),
        dim_head=head_size,
        heads=max(1, shape(f"{layers}0.0.to_q.weight")[0] // head_size),
        num_tokens=max(1, shape("proj.2.weight")[0] // hidden[0]),
        ffn_ratio=shape(f"{layers}0.1.1.weight")[0] / hidden[0],
        ffproj_ratio=max(1, inner // width),
    )
    return network, "face", width, token_width


def _network(
    name: str, tensors: Mapping[str, Tensor], head_size: int
) -> tuple[Any, _Reads, int, int]:
    """Build a projection without weights; says too what it reads, how wide that is, and how wide its tokens are."""
    from diffusers.models.embeddings import (
        ImageProjection,
        IPAdapterFaceIDImageProjection,
        IPAdapterFullImageProjection,
        IPAdapterPlusImageProjection,
    )

    shape = partial(_shape, name, tensors)

    if "latents" in tensors:
        _, count, hidden = shape("latents", 3)
        width, token_width = shape("proj_in.weight")[1], shape("proj_out.weight")[0]
        plus = IPAdapterPlusImageProjection(
            embed_dims=width,
            output_dims=token_width,
            hidden_dims=hidden,
            depth=len({key.split(".")[1] for key in tensors if key.startswith("layers.")}),
            dim_head=head_size,
            heads=max(1, shape("layers.0.0.to_q.weight")[0] // head_size),
            num_queries=count,
            ffn_ratio=shape("layers.0.1.1.weight")[0] / hidden,
        )
        return plus, "face" if width == FACE_WIDTH else "hidden_states", width, token_width
    if "proj.3.weight" in tensors:
        width, token_width = shape("proj.0.weight")[1], shape("proj.3.weight", 1)[0]
        full = IPAdapterFullImageProjection(image_embed_dim=width, cross_attention_dim=token_width)
        return full, "hidden_states", width, token_width
    if "proj.weight" in tensors:
        width, token_width = shape("proj.weight")[1], shape("norm.weight", 1)[0]
        count = shape("proj.weight")[0] // token_width
        base = ImageProjection(
            image_embed_dim=width, cross_attention_dim=token_width, num_image_text_embeds=count
        )
        return base, "image_embeds", width, token_width
    if "proj.2.weight" in tensors:
        (inner, width), token_width = shape("proj.0.weight"), shape("norm.weight", 1)[0]
        faces = IPAdapterFaceIDImageProjection(
            image_embed_dim=width,
            cross_attention_dim=token_width,
            mult=inner / width,
            num_tokens=max(1, shape("proj.2.weight")[0] // token_width),
        )
        return faces, "face", width, token_width
    problem = f"expected an IP-Adapter ({_KINDS}), got a file without its weights"
    raise ModelIncompatible(f"{name}: {problem}")


def _name_in_file(key: str, *, is_full: bool) -> str:
    """Give the name of a weight in files; keys and values of an attention share one."""
    for pattern, name in _NAMES:
        key, changes = re.subn(pattern, name, key)
        if changes:
            return key
    return re.sub(r"^norm\.", "proj.3.", key) if is_full else key


def _taken(weight: Tensor, key: str) -> Tensor:
    """Take keys or values out of a matrix that both share."""
    if ".to_k." in key or ".to_v." in key:
        return weight.chunk(2)[".to_v." in key]
    return weight


def _matrices(
    name: str, tensors: Mapping[str, Tensor], unet: Any, token_width: int
) -> list[tuple[Tensor, Tensor]]:
    """Bring the matrices of keys and values into the order of the UNet's layers."""
    widths = list(image_layers(unet).values())
    tensors = {key: value for key, value in tensors.items() if not is_face_lora(key)}
    numbers = sorted({int(key.split(".")[0]) for key in tensors if key.split(".")[0].isdigit()})
    if len(numbers) != len(widths):
        problem = f"expected an IP-Adapter for the {len(widths)} layers of this base model"
        raise ModelIncompatible(f"{name}: {problem}, got one for {len(numbers)}")
    wanted = {
        f"{number}.to_{side}_ip.weight": (width, token_width)
        for number, width in zip(numbers, widths, strict=True)
        for side in ("k", "v")
    }
    _require_same(name, _MATRICES, tensors, wanted)
    return [
        (tensors[f"{number}.to_k_ip.weight"].clone(), tensors[f"{number}.to_v_ip.weight"].clone())
        for number in numbers
    ]


def _require_same(
    name: str, prefix: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Make sure that all weights are there, in the right shapes, and no others."""
    for key in sorted({*tensors, *wanted}):
        found = tuple(tensors[key].shape) if key in tensors else None
        if found != wanted.get(key):
            problem = f"expected {prefix}{key} of shape {wanted.get(key)}, got {found}"
            raise ModelIncompatible(f"{name}: {problem}")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _whole_number(name: str, metadata: Mapping[str, str], key: str, usual: int) -> int:
    text = metadata.get(key, str(usual))
    if not text.isdecimal() or not int(text):
        raise ModelIncompatible(f"{name}: expected {key} to be a whole number, got {text[:40]!r}")
    return int(text)
