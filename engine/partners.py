"""The helpers of a base model: what it needs to follow images, to repaint and to enlarge.

A base model may bring its own (the pocket model does); else SDXL's common ones count, as Fooocus uses them.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from engine.catalog import Catalog, Checkpoint, Kind, Offer, Source, Weights
from engine.errors import ModelNotFound
from engine.families import NAMES
from engine.image_inputs import FURTHER, FooocusType, FurtherType, MaskModel, SamModel

Role = Literal[
    FooocusType,
    FurtherType,
    "image encoder",
    "image negative",
    "face detector",
    "upscaler",
    "inpaint head",
    "inpaint v1",
    "inpaint v2.5",
    "inpaint v2.6",
]
"""What a helper is for; the first are the types of image prompts."""
UPSCALE_LORA = "upscale lora"
"""A role that only a base model itself can fill: the LoRA with which it paints pictures that were enlarged."""

_MISC = "https://huggingface.co/lllyasviel/misc/resolve/main/"
_ADAPTERS = "https://huggingface.co/h94/IP-Adapter/resolve/main/sdxl_models/"
_FACES = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/"


_UNION = "https://huggingface.co/xinsir/controlnet-union-sdxl-1.0/resolve/main/"
_REMBG = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/"
_INPAINT = "https://huggingface.co/lllyasviel/fooocus_inpaint/resolve/main/"


_HEAD = "32f7f838e0c6d8f13437ba8411e77a4688d77a2e34df8857e4ef4d51f6b97692"
_PATCH = "f8657a025104e22d70f9c060635d8e8c2196f433871a2f68dc40abd2171f0d59"
_DETECTOR = "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d"


"""sha256 of files that only exist pickled; their publishers' copies hold nothing but tensors."""


def _offer(kind: Kind, folder: str, file: str, sha256: str | None = None) -> Offer:
    return Offer(file=file, kind=kind, source=Source(url=folder + file, sha256=sha256))


UNION = Offer(
    file="controlnet-union-sdxl-promax.safetensors",
    kind="controlnet",
    source=Source(
        url=f"{_UNION}diffusion_pytorch_model_promax.safetensors",
        sha256="9fae2e50cb431bfcbe05822b59ec2228df545ef27f711dea8949e9f4ed9f7cdc",
    ),
)
"""The ControlNet Union of eight kinds of drawings (Apache-2.0)."""
COMMON: Mapping[Role, Offer] = {
    "ImagePrompt": _offer("controlnet", _ADAPTERS, "ip-adapter-plus_sdxl_vit-h.safetensors"),
    "FaceSwap": _offer("controlnet", _ADAPTERS, "ip-adapter-plus-face_sdxl_vit-h.safetensors"),
    "PyraCanny": _offer("controlnet", _MISC, "control-lora-canny-rank128.safetensors"),
    "CPDS": _offer("controlnet", _MISC, "fooocus_xl_cpds_128.safetensors"),
    "image encoder": _offer("clip_vision", _MISC, "clip_vision_vit_h.safetensors"),
    "image negative": _offer("controlnet", _MISC, "fooocus_ip_negative.safetensors"),
    "face detector": _offer("controlnet", _FACES, "detection_Resnet50_Final.pth", _DETECTOR),
    "upscaler": _offer("upscaler", _MISC, "fooocus_upscaler_s409985e5.bin"),
    "inpaint head": _offer("inpaint", _INPAINT, "fooocus_inpaint_head.pth", _HEAD),
    "inpaint v1": _offer("inpaint", _INPAINT, "inpaint.fooocus.patch"),
    "inpaint v2.5": _offer("inpaint", _INPAINT, "inpaint_v25.fooocus.patch"),
    "inpaint v2.6": _offer("inpaint", _INPAINT, "inpaint_v26.fooocus.patch", _PATCH),
    **dict.fromkeys(get_args(FurtherType), UNION),
}
"""The helpers that fit all SDXL models, and where they can be fetched."""
ANY_BASE: tuple[Role, ...] = ("image encoder", "face detector", "upscaler")
"""The helpers that see pictures alone, and fit base models of every family."""


def _network(file: str, hub_id: str) -> Offer:
    source = Source(url=f"https://huggingface.co/{hub_id}", hub_id=hub_id)
    return Offer(file=file, kind="segmenter", source=source)


MASK_NETWORKS: Mapping[MaskModel, Offer] = {
    model: _offer("inpaint", _REMBG, f"{model}.onnx")
    for model in get_args(MaskModel)
    if model != "sam"
}
"""Networks that find what stands out in a picture, in the folder where Fooocus has them."""
ONNX_LIBRARY = "onnxruntime"
"""Runs `MASK_NETWORKS`; a person installs it where it is wanted."""
ONNX_MISSING = "expected the library onnxruntime to run it, found none; pip install onnxruntime"
AUX_LIBRARY = "controlnet_aux"
"""Draws the types of `FURTHER`; a person installs it where it is wanted."""
AUX_INSTALL = "pip install controlnet-aux"
AUX_MISSING = (
    f"expected the library controlnet-aux to draw it, found none; {AUX_INSTALL}, "
    "or bring a finished drawing and skip preprocessing"
)
DETECTOR: Offer = _network("grounding-dino-tiny", "IDEA-Research/grounding-dino-tiny")
"""Finds boxes around what words name."""
SAM: Mapping[SamModel, Offer] = {
    "vit_b": _network("sam-vit-base", "facebook/sam-vit-base"),
    "vit_l": _network("sam-vit-large", "facebook/sam-vit-large"),
    "vit_h": _network("sam-vit-huge", "facebook/sam-vit-huge"),
}
"""Draw the outline of what is in a box."""


CAPTIONER = Offer(
    file="blip-image-captioning-large",
    kind="describer",
    source=Source(
        url="https://huggingface.co/Salesforce/blip-image-captioning-large",
        hub_id="Salesforce/blip-image-captioning-large",
    ),
)
"""Writes a sentence about a photograph (BSD-3-Clause); the smaller one of the same people exists pickled alone."""
TAGGER = _offer("describer", _MISC, "wd-v1-4-moat-tagger-v2.onnx")
"""Lists the tags of a drawing (Apache-2.0)."""
TAGS = _offer("describer", _MISC, "wd-v1-4-moat-tagger-v2.csv")
"""Their names."""


def partner(role: Role, base: Checkpoint, catalog: Catalog, field: str) -> Weights:
    """Find the helper of a base model for a role.

    Args:
        role: What it is for.
        base: The base model.
        catalog: What is there.
        field: The request's field that needs it, for the message.

    Raises:
        ModelNotFound: the base model has none, or it is not there and cannot be fetched.
    """
    kind, own = COMMON[role].kind, dict(base.partners)
    if role in own:
        return catalog.weights(kind, own[role], field)
    if base.is_pocket:
        raise ModelNotFound(f"{field}: {base.name} has no {role}")
    if base.paints_as != "sdxl" and role not in ANY_BASE:
        problem = (
            f"{role} needs an SDXL base model, and {base.name} is one of {NAMES[base.paints_as]}"
        )
        raise ModelNotFound(f"{field}: {problem}")
    if role in FURTHER and (there := _control_for(role, catalog)):
        return there
    file = COMMON[role].file
    pickled = file.removesuffix(".safetensors") + ".bin"  # as older installations have it
    is_pickled = catalog.has(kind, pickled) and not catalog.has(kind, file)
    return catalog.weights(kind, pickled if is_pickled else file, field)


def _control_for(role: Role, catalog: Catalog) -> Weights | None:
    """Find a ControlNet whose name has the type in it, however that is written; else a Union."""
    families = [(it, it.control_family) for it in catalog.controls]
    named = (
        it for it, family in families if family == "controlnet" and _word(role) in _word(it.name)
    )
    return next(named, next((it for it, family in families if family == "union"), None))


def _word(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def require_aux(field: str) -> None:
    """Make sure that what draws the types of `FURTHER` is installed; it is not imported.

    Raises:
        ModelNotFound: it is not; the message begins with `field`.
    """
    if not has_aux():
        raise ModelNotFound(f"{field}: {AUX_MISSING}")


def has_aux() -> bool:
    """Say whether controlnet-aux is installed."""
    return importlib.util.find_spec(AUX_LIBRARY) is not None


def partner_offers() -> Iterator[Offer]:
    """List the helpers that can be fetched."""
    yield from COMMON.values()
    yield from MASK_NETWORKS.values()
    yield DETECTOR
    yield from SAM.values()
    yield from (CAPTIONER, TAGGER, TAGS)
