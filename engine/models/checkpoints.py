"""Base models, from a file or a folder to networks on a device.

diffusers reads and converts them and its pipeline object holds the parts (design D1); the engine drives the parts itself.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from engine.catalog import Checkpoint, read_header, sized
from engine.errors import ModelIncompatible, OutOfMemory
from engine.families import PIPELINES, SD2_CONTEXT, BaseFamily, is_v_prediction, require_base
from engine.models.devices import quiet_libraries, weight_dtype
from engine.models.files import INDEX, fetch_pipeline, variant_of
from engine.models.memory import Parts, Tier, house_texts, house_unet, is_out_of_memory
from engine.models.tokenizers import clip_tokenizer
from engine.sampling.prediction import PREDICTIONS

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent / "configs"
"""The settings of each family's networks, which a single file does not carry."""
SDXL_CONFIG = CONFIGS / "sdxl"
SD15_CONFIG = CONFIGS / "sd15"
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    SafetensorError,
)
WANTED = "expected an SDXL or Stable Diffusion 1.5 base model"
_HOLE = "meta tensor"
"""What torch speaks of when a network is used that has weights without memory, since the file had none for them.

diffusers also stumbles over a missing weight by a `KeyError` or a `TypeError`."""
_CONFIG: Mapping[BaseFamily, Path] = {"sdxl": SDXL_CONFIG, "sd15": SD15_CONFIG}
_TEXT_ENCODERS: Mapping[BaseFamily, tuple[str, ...]] = {
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sd15": ("text_encoder",),
}
_OUTPUTS: Mapping[BaseFamily, Mapping[str, Any]] = {
    "sdxl": {"add_watermarker": False},
    "sd15": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
}
"""What diffusers' pipelines do to finished pictures, off: pictures are finished here."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base model whose networks are in memory, in evaluation mode, without gradients."""

    checkpoint: Checkpoint
    family: BaseFamily
    pipeline: Any
    """diffusers' `StableDiffusionXLPipeline`, of SD 1.5 its `StableDiffusionPipeline`, as holder of the parts."""
    device: torch.device
    prediction_type: str
    """``epsilon`` or ``v_prediction``."""
    tier: Tier = Tier.RESIDENT
    """What of it stays on the device while it is not at work."""
    text_hooks: Sequence[Any] = ()
    """accelerate's hooks on text encoders that leave the device."""

    def put_texts_off(self) -> None:
        """Let the text encoders leave the device where they do; they come back by themselves."""
        for hook in self.text_hooks:
            hook.offload()

    @property
    def unet(self) -> Any:
        """The `UNet2DConditionModel`."""
        return self.pipeline.unet

    @property
    def vae(self) -> Any:
        """The `AutoencoderKL`."""
        return self.pipeline.vae

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The CLIP text encoders by their names in the pipeline: two, of SD 1.5 one."""
        return {part: getattr(self.pipeline, part) for part in _TEXT_ENCODERS[self.family]}

    @cached_property
    def preview_decoder(self) -> Any | None:
        """The `AutoencoderTiny` beside the model, or None when it has none."""
        folder = self.checkpoint.path / "preview"
        if not (folder / "config.json").exists():
            return None
        from diffusers import AutoencoderTiny

        try:
            decoder = AutoencoderTiny.from_pretrained(
                folder, dtype=self.unet.dtype, use_safetensors=True
            )
        except _UNREADABLE as error:
            log.warning("%s: its preview decoder cannot be read: %s", self.checkpoint.name, error)
            return None
        return decoder.to(self.device).eval().requires_grad_(requires_grad=False)


def load_checkpoint(
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    config: Path | None = None,
    dtype: torch.dtype | None = None,
    exchange: Callable[[Any], Any] | None = None,
    tier_of: Callable[[Parts], Tier] = lambda parts: Tier.RESIDENT,
) -> LoadedModel:
    """Read a base model and put it on `device`.

    It is read into the machine's memory first, by diffusers' usual way: networks are laid out empty, so that the weights of the
    files are the only ones.

    Args:
        checkpoint: A diffusers folder or a single file.
        device: Where the networks go.
        config: Settings of the networks of a single file, for one of another size; None is those of its family.
        dtype: Number format of the weights; None is `weight_dtype`'s choice.
        exchange: Gives another UNet for the model's own.
        tier_of: Says what stays on the device while it is not at work.

    Raises:
        ModelNotFound: it must be fetched first and cannot be.
        ModelIncompatible: it is not a whole base model of SDXL or SD 1.5.
        OutOfMemory: the device has no room for it.
    """
    quiet_libraries()
    if checkpoint.hub_id is not None:
        fetch_pipeline(checkpoint.hub_id, checkpoint.path)
        checkpoint = sized(checkpoint)  # whose family nobody knew before
    dtype = dtype or weight_dtype(device)
    with reading(checkpoint.name):
        family, pipeline, v_prediction = _read(checkpoint.path, dtype, config)
        for part in ("unet", "vae", *_TEXT_ENCODERS[family]):
            require_whole(checkpoint.name, part, getattr(pipeline, part))
        if exchange is not None:
            pipeline.unet = exchange(pipeline.unet)
        texts = [freeze(getattr(pipeline, part)) for part in _TEXT_ENCODERS[family]]
        tier = tier_of(Parts.of(pipeline, texts, checkpoint.native_size))
        place_unet(pipeline.unet, device, tier)
        place_vae(pipeline.vae, device)
        hooks = house_texts(texts, device, tier)
    prediction = "v_prediction" if v_prediction else pipeline.scheduler.config.prediction_type
    require_prediction(checkpoint.name, prediction)
    log.info("loaded %s (%s) as %s on %s: %s", checkpoint.name, family, dtype, device, tier.words)
    return LoadedModel(checkpoint, family, pipeline, device, prediction, tier, hooks)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Tell what goes wrong while weights are read, in sentences that begin with `name`.

    Raises:
        ModelIncompatible: the library cannot read them.
        OutOfMemory: there was no room for them.
    """
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (MemoryError, *_UNREADABLE, SingleFileComponentError, StrictDataclassError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"{name}: the device has too little memory for it") from error
        if isinstance(error, KeyError | TypeError) or _HOLE in str(error):
            problem = "expected all weights of its networks, got a file without some of them"
            raise ModelIncompatible(f"{name}: {problem}") from error
        raise ModelIncompatible(f"{name}: diffusers cannot read it: {_reason(error)}") from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read tensor names and shapes of a single file that is whole.

    Raises:
        ModelIncompatible: it is no safetensors file, or cut off.
    """
    shapes = read_header(path)
    _require_uncut(path, path.name)
    return shapes


def require_uncut_parts(folder: Path, parts: Iterable[str]) -> None:
    """Make sure that no file of weights in these parts of a diffusers folder is cut off.

    Raises:
        ModelIncompatible: one is.
    """
    for part in parts:
        for path in sorted((folder / part).glob("*.safetensors")):
            _require_uncut(path, f"{folder.name}/{part}/{path.name}")


def _require_uncut(path: Path, name: str) -> None:
    """Look at header and size only; diffusers would read a broken file into memory whole, as text, for the reason."""
    try:
        with safe_open(path, framework="pt"):
            return
    except SafetensorError as error:
        problem = f"expected a whole safetensors file, got a broken one ({error}); fetch it again"
        raise ModelIncompatible(f"{name}: {problem}") from error


def require_whole(name: str, part: str, network: torch.nn.Module) -> None:
    """Make sure that every weight of a network was in the file; those that were not have no memory.

    Raises:
        ModelIncompatible: some were not.
    """
    missing = [key for key, weight in network.named_parameters() if weight.is_meta]
    if missing:
        problem = f"expected all weights of its {part}, got none for {len(missing)} of them"
        raise ModelIncompatible(f"{name}: {problem}, such as {missing[0]}")


def require_prediction(name: str, prediction: str) -> None:
    """Make sure that the engine knows what a UNet predicts.

    Raises:
        ModelIncompatible: it does not.
    """
    if prediction not in PREDICTIONS:
        known = " or ".join(PREDICTIONS)
        raise ModelIncompatible(f"{name}: expected {known} prediction, got {prediction}")


def freeze(network: Any) -> Any:
    """Bring a network into evaluation mode, without gradients."""
    return network.eval().requires_grad_(requires_grad=False)


def place_unet(unet: Any, device: torch.device, tier: Tier = Tier.RESIDENT) -> Any:
    """Put a UNet on `device`, or where its tier has it, ready to paint."""
    return house_unet(freeze(unet).to(memory_format=torch.channels_last), device, tier)


def place_vae(vae: Any, device: torch.device) -> Any:
    """Put a VAE on `device`, in float32 where it would overflow in float16."""
    if vae.config.force_upcast and vae.dtype == torch.float16:
        vae.to(torch.float32)
    return freeze(vae.to(device)).to(memory_format=torch.channels_last)


def _reason(error: Exception) -> str:
    """Cut what a library says to its first sentence."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return text.partition(". ")[0]


def _read(path: Path, dtype: torch.dtype, config: Path | None) -> tuple[BaseFamily, Any, bool]:
    """Read a base model: its family, its pipeline, and whether its file is marked as one of v-prediction."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    kinds: Mapping[BaseFamily, Any] = {
        "sdxl": StableDiffusionXLPipeline,
        "sd15": StableDiffusionPipeline,
    }
    if path.is_dir():
        family = _family_of_folder(path)
        require_uncut_parts(path, ("unet", "vae", *_TEXT_ENCODERS[family]))
        pipeline = kinds[family].from_pretrained(
            path,
            dtype=dtype,
            variant=variant_of(path),
            use_safetensors=True,
            local_files_only=True,
            **_OUTPUTS[family],
        )
        return family, pipeline, False
    shapes = read_shapes(path)
    family = require_base(path.name, shapes)
    pads = {"sdxl": {"tokenizer_2": clip_tokenizer(pad_token="!")}, "sd15": {}}
    pipeline = kinds[family].from_single_file(
        path,
        config=str(config or _CONFIG[family]),
        local_files_only=True,
        dtype=dtype,
        tokenizer=clip_tokenizer(),
        **pads[family],
        **_OUTPUTS[family],
    )
    return family, pipeline, is_v_prediction(shapes)


def _family_of_folder(path: Path) -> BaseFamily:
    """Tell the family of a diffusers folder.

    Raises:
        ModelIncompatible: it holds no base model.
    """
    pipeline = str(read_settings(path / INDEX).get("_class_name"))
    family = PIPELINES.get(pipeline)
    if family is None or family == "sdxl-refiner":
        raise ModelIncompatible(f"{path.name}: {WANTED}, got a {pipeline}")
    unet = read_settings(path / "unet" / "config.json")
    if family == "sd15" and unet.get("cross_attention_dim") == SD2_CONTEXT:
        raise ModelIncompatible(f"{path.name}: {WANTED}, got a Stable Diffusion 2.x model")
    if unet.get("in_channels") != 4:
        found = f"a special model with {unet.get('in_channels')} input channels"
        raise ModelIncompatible(f"{path.name}: {WANTED}, got {found}")
    return family


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings that a diffusers folder has of a network, or of the whole."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
