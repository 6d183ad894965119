"""What the LoRA studio will do, settled: a part of `engine.plan.Plan`."""

from dataclasses import dataclass

from engine.references import Reference
from engine.studio import PredictionType, StudioScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """Weights that a request named."""

    name: str
    """Of the catalog."""
    reference: Reference
    """How it was named, by which it is found and fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordVectors:
    """A textual inversion, and the words of the prompt that stand for its vectors, one each."""

    weights: Asset
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioNet:
    """A ControlNet and what it follows; pictures are named as the job's inputs are."""

    weights: Asset
    image: str
    mask: str | None
    mode: str | None
    """Of a ControlNet Union."""
    weight: float
    start: float
    """Share of the steps before it begins."""
    stop: float
    """Share of the steps after which it ends."""
    adapter: int | None
    """Place of the adapter whose tokens it reads in place of the words (InstantID)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioImages:
    """An IP-Adapter and the pictures that it shows the model."""

    weights: Asset
    images: tuple[str, ...]
    mask: str | None
    face_model: str | None
    """Of FaceID: what finds and reads faces, by its name in the catalog."""
    scale: float
    layer_scales: str | None
    """JSON as diffusers reads it; replaces `scale`."""
    noising: float
    """Share of noise in what the negative side is shown, 0 to 1."""
    has_shortcut: bool
    """Of FaceID Plus."""

    @property
    def is_on(self) -> bool:
        """Whether the model is shown its pictures; a ControlNet may read them all the same."""
        return self.scale != 0 or self.layer_scales is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relighting:
    """IC-Light and its pictures."""

    weights: Asset
    image: str
    background: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSizes:
    """The tiles that a picture is painted in, in pixels of `Plan.sample_size`."""

    width: int
    height: int
    stride_width: int
    stride_height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioPlan:
    """What a plan of the LoRA studio has beyond others; such a plan follows diffusers' conventions."""

    scheduler: StudioScheduler
    timesteps: tuple[int, ...]
    """Empty leaves them to the scheduler."""
    sigmas: tuple[float, ...]
    """Likewise."""
    eta: float
    prediction_type: PredictionType | None
    """None is the base model's own."""
    is_zero_snr: bool
    """Whether the first noise level is all noise."""
    is_weighted: bool
    """Whether brackets in the prompt are weights, and more than one chunk of it is read."""
    base_model: Asset
    unet: Asset | None
    embeddings: tuple[WordVectors, ...]
    nets: tuple[StudioNet, ...]
    is_guessing: bool
    """Whether drawings steer the positive side only."""
    adapters: tuple[StudioImages, ...]
    encoder: Asset | None
    """What reads pictures for adapters; None where none does."""
    relighting: Relighting | None
    tiles: TileSizes | None
    """None where the picture is painted as a whole."""
    keeps_latents: bool
    keeps_passes: bool
    """Whether the latents after each step are kept."""
