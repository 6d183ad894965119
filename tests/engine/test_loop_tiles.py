"""Pictures in tiles: what every place is told stays there, and calls are shared with others and cut to size."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.conditioning.branch import Branch
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt, ImageTokens, image_layers
from engine.conditioning.size_ids import refiner_ids, size_ids
from engine.geometry import Size
from engine.loop import Denoiser, Running, Setup, step
from engine.models.controlnets import ControlNet
from engine.passes import Course, begin
from engine.plan import Guidance
from engine.sampling.prediction import model_sampling
from engine.sampling.tiling import Tiles, lay_tiles

pytestmark = pytest.mark.torch

WIDE, LARGE, NATIVE = Size(256, 128), Size(256, 200), Size(128, 128)
EXACT = 1e-5
MEAN, SPREAD = 0.3, 0.8
WIDTH, TEXT = 8, 12


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiles_over(size: Size, stride: int = 64) -> Tiles:
    tiles = lay_tiles(size, NATIVE, Size(stride, stride))
    assert tiles is not None
    return tiles


class Placewise(nn.Module):
    """A UNet whose every cell sees itself alone; what follows is a cell's answer."""

    dtype, device = torch.float32, torch.device("cpu")
    config = SimpleNamespace(block_out_channels=(WIDTH,))

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, x: Tensor, timesteps: Tensor, **told: Any) -> tuple[Tensor]:
        self.rows.append(len(x))
        return (self.answer(x, timesteps, **told),)


class Gaussian(Placewise):
    """Knows the noise exactly where latents are normal: of mean 0.3 and standard deviation 0.8 at each cell."""

    def answer(self, x: Tensor, timesteps: Tensor, **told: Any) -> Tensor:
        levels = model_sampling("karras").levels
        sigma = torch.tensor([levels.sigma(float(time)) for time in timesteps])[:, None, None, None]
        noisy = x * (sigma**2 + 1).sqrt()
        return sigma * (noisy - MEAN) / (SPREAD**2 + sigma**2)


class Attentive(Placewise):
    """Reads all that belongs to places: drawings, masked images, additions; and the words."""

    def __init__(self) -> None:
        from diffusers.models.attention_processor import Attention

        super().__init__()
        self.conv_in = nn.Conv2d(4, WIDTH, 1)
        self.block = nn.Module()
        self.block.attn2 = Attention(WIDTH, TEXT, heads=2, dim_head=4)
        self.conv_out = nn.Conv2d(WIDTH, 4, 1)

    @property
    def attn_processors(self) -> dict[str, Any]:
        return {"block.attn2.processor": self.block.attn2.processor}

    def set_attn_processor(self, processors: dict[str, Any]) -> None:
        self.block.attn2.set_processor(processors["block.attn2.processor"])

    def answer(
        self,
        x: Tensor,
        timesteps: Tensor,
        *,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: dict[str, Any] | None,
        down_block_additional_residuals: tuple[Tensor, ...] | None,
        mid_block_additional_residual: Tensor | None,
        **told: Any,
    ) -> Tensor:
        hidden = self.conv_in(x) + (timesteps / 1000)[:, None, None, None]
        if down_block_additional_residuals is not None:
            hidden = hidden + down_block_additional_residuals[0] + mid_block_additional_residual
        rows, channels, height, width = hidden.shape
        cells = hidden.flatten(2).transpose(1, 2)
        cells = cells + self.block.attn2(
            cells, encoder_hidden_states, **(cross_attention_kwargs or {})
        )
        return self.conv_out(cells.transpose(1, 2).reshape(rows, channels, height, width).sin())


class PlacewiseNet(nn.Module):
    """A ControlNet of the same kind."""

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, seen: Tensor, **how: Any):
        return (seen * x.mean(1, keepdim=True),), seen.cos()


class Look(nn.Module):
    """Looks at a drawing far beyond a cell, so that a part of it alone would give other numbers at its border."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.conv_in = nn.Conv2d(3, WIDTH, 25, stride=8, padding=12)

    def forward(self, hint: Tensor) -> Tensor:
        self.calls += 1
        seen: Tensor = self.conv_in(hint)
        return seen


def branches(size: Size) -> list[Branch]:
    return [
        Branch(drawn(side, 1, 7, TEXT), drawn(side, 1, 40), size_ids(size, 1.5, end=0.3))
        for side in (1, 2)
    ]


def start(unet: Any, size: Size, *, seed: int = 7, **more: Any) -> Running:
    """Begin an image; fields of the setup come as they are, others are of the course."""
    known = {name: more.pop(name) for name in Setup.__dataclass_fields__ if name in more}
    sides = dict(zip(("positive", "negative"), branches(size), strict=True))
    setup = Setup(Denoiser(unet, model_sampling("karras")), **{**sides, **known})
    settings = {
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "steps": 5,
        "strength": 1.0,
        "seed": seed,
        "guidance": Guidance(guidance_scale=4.0, adaptive_cfg=7.0, sharpness=2.0),
    }
    latents = torch.zeros(1, 4, size.latent.height, size.latent.width)
    return begin(Course(**{**settings, **more}), setup, latents)


def walk(*images: Running, **how: Any) -> list[int]:
    """Run images to their end together; gives the UNet calls of each step."""
    calls = []
    while not all(image.is_done for image in images):
        calls.append(step([image for image in images if not image.is_done], **how))
    return calls


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde_gpu", "heun", "uni_pc"])
@pytest.mark.parametrize("size", [WIDE, LARGE], ids=str)
@pytest.mark.parametrize("stride", [32, 64, 96])
def test_tiles_equal_the_whole_of_an_analytic_local_denoiser(sampler, size, stride):
    whole, cut = (
        start(Gaussian(), size, sampler=sampler, tiles=tiles)
        for tiles in (None, tiles_over(size, stride))
    )
    walk(whole)
    walk(cut)
    torch.testing.assert_close(cut.latents, whole.latents, rtol=0, atol=EXACT)
    torch.testing.assert_close(cut.denoised, whole.denoised, rtol=0, atol=EXACT)


def told_of_places(unet: Attentive, size: Size) -> dict[str, Any]:
    """Draw something of everything that belongs to places."""
    cells = size.latent
    (width,) = image_layers(unet).values()

    def tokens(seed: int) -> ImageTokens:
        return ImageTokens((drawn(seed, 1, 4, width),), (drawn(-seed, 1, 4, width),))

    def mask(seed: int, *shape: int) -> Tensor:
        return (drawn(seed, *shape) > 0).float()

    net = ControlNet("placewise", PlacewiseNet(), Look())
    hint = torch.rand(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(3))
    return {
        "image_prompts": [
            ImagePrompt(
                positive=tokens(1),
                negative=tokens(2),
                weight=1.0,
                formula="separate",
                mask=mask(4, cells.height, cells.width),
            ),
            ImagePrompt(positive=tokens(3), negative=tokens(4), weight=0.5, formula="separate"),
        ],
        "controls": [
            Control(net, hint, mask=mask(5, 1, 1, size.height // 2, size.width // 2)),
            Control(net, hint.flip(3), weight=0.6, stop=0.7),
        ],
        "addition": drawn(6, 1, WIDTH, cells.height, cells.width),
    }


@pytest.mark.parametrize("size", [WIDE, LARGE], ids=str)
def test_drawings_masks_and_additions_stay_in_their_places(size):
    torch.manual_seed(0)
    unet = Attentive()
    told = told_of_places(unet, size)
    whole, cut = (start(unet, size, tiles=tiles, **told) for tiles in (None, tiles_over(size)))
    step([whole])
    step([cut])
    close = EXACT * float(whole.denoised.std())
    torch.testing.assert_close(cut.denoised, whole.denoised, rtol=0, atol=close)
    for name, field in told.items():
        fewer = start(unet, size, **{**told, name: None if torch.is_tensor(field) else ()})
        step([fewer])
        assert float((fewer.denoised - whole.denoised).abs().max()) > 1000 * close, name


def test_a_drawing_is_looked_at_once():
    torch.manual_seed(0)
    unet = Attentive()
    told = told_of_places(unet, LARGE)
    look = told["controls"][0].net.hint_encoder
    walk(start(unet, LARGE, tiles=tiles_over(LARGE), **told))
    assert look.calls == len(told["controls"])


def test_every_tile_is_told_its_own_size():
    cut = start(Gaussian(), WIDE, tiles=tiles_over(WIDE))
    wanted = size_ids(NATIVE, 1.5, end=0.3)
    rows = cut.rows()
    assert len(rows) == 6
    assert {row.branch.size_ids for row in rows} == {wanted}
    refining = refiner_ids(WIDE, 6.0).of_part(NATIVE, WIDE)
    assert refining == refiner_ids(NATIVE, 6.0)


@pytest.fixture(scope="module")
def unet() -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(1)
    torch.set_num_threads(1)
    return UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=TEXT,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=40 + 6 * 8,
    ).eval()


def test_tiles_share_a_call_with_each_other_and_with_a_picture_of_their_size(unet):
    def images() -> list[Running]:
        return [
            start(unet, WIDE, tiles=tiles_over(WIDE), steps=4),
            start(unet, NATIVE, seed=8, steps=6, sampler="euler"),
            start(unet, WIDE, seed=9, steps=4),
        ]

    together, alone = images(), images()
    calls = walk(*together)
    assert calls[0] == 2  # the third is whole, and wider than a tile
    for ours, own in zip(together, alone, strict=True):
        walk(own)
        torch.testing.assert_close(ours.latents, own.latents, rtol=1e-3, atol=1e-3)


def test_a_picture_alone_repeats_to_the_last_bit(unet):
    first, again = (start(unet, WIDE, tiles=tiles_over(WIDE), alone=True) for _ in range(2))
    walk(first, start(unet, NATIVE, seed=8))
    walk(again)
    assert torch.equal(first.latents, again.latents)


@pytest.mark.parametrize("most", [1, 4, 5, 18, 100])
def test_calls_have_at_most_so_many_rows(most):
    free, cut = Gaussian(), Gaussian()
    size = Size(256, 256)
    whole, parts = (start(unet, size, tiles=tiles_over(size)) for unet in (free, cut))
    calls = walk(whole)
    limited = walk(parts, max_rows=most)
    assert set(free.rows) == {18}
    assert set(calls) == {1}
    assert max(cut.rows) <= most
    assert set(limited) == {math.ceil(18 / most)}
    assert sum(cut.rows) == sum(free.rows)
    torch.testing.assert_close(parts.latents, whole.latents, rtol=0, atol=EXACT)


def test_previews_see_the_whole_and_a_picture_can_end_at_any_step(unet):
    image = start(unet, WIDE, tiles=tiles_over(WIDE))
    step([image])
    assert image.shape == image.denoised.shape == (1, 4, 16, 32)
    assert image.step == 1
    image.close()
    other = start(unet, NATIVE)
    walk(other)
    assert other.is_done
