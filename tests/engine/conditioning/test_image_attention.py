"""Attention to images: rows share calls, weights compile nothing anew, and the separate formula is that of diffusers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from engine.conditioning.image_attention import (
    Formula,
    ImageAttention,
    ImagePrompt,
    ImageRow,
    ImageTokens,
    add_pooled,
    attend_images,
    attention_kwargs,
    call_key,
    image_layers,
)
from engine.models.ip_adapters import build_ip_adapter
from tests.tiny_adapters import adapter_shapes, nested, plus_shapes, random_tensors

pytestmark = pytest.mark.torch

FORMULAS = get_args(Formula)
TEXT_WIDTH, POOLED = 80, 40
HEIGHT, WIDTH = 16, 24
POCKET = Path("models/pocket/unet")


def tiny_unet(models_dir: Path) -> Any:
    from diffusers import UNet2DConditionModel

    folder = models_dir / "checkpoints" / "tiny" / "unet"
    return UNet2DConditionModel.from_pretrained(folder, use_safetensors=True).eval()


@pytest.fixture(scope="module")
def unet(models_dir: Path) -> Any:
    torch.set_num_threads(1)
    unet = tiny_unet(models_dir)
    attend_images(unet)
    return unet


def tokens(unet: Any, seed: int, count: int = 4) -> ImageTokens:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (
        tuple(
            torch.randn(1, count, width, generator=generator)
            for width in image_layers(unet).values()
        )
        for _ in range(2)
    )
    return ImageTokens(keys, values)


def prompt(unet: Any, seed: int, *, count: int = 4, **more: Any) -> ImagePrompt:
    settings: dict[str, Any] = {"weight": 0.8, "reference_width": 64} | more
    return ImagePrompt(
        positive=tokens(unet, seed, count), negative=tokens(unet, -seed, count), **settings
    )


def call(unet: Any, rows: Sequence[ImageRow], numbers: Sequence[int] | None = None) -> Tensor:
    """Call the UNet with rows of random questions, told apart by their numbers."""
    return ask(unet, numbers or range(len(rows)), attention_kwargs(rows))


@torch.inference_mode()
def ask(unet: Any, numbers: Sequence[int], told: Any, **added: Any) -> Tensor:
    def drawn(*shape: int) -> Tensor:
        generators = [torch.Generator().manual_seed(number) for number in numbers]
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators])

    width = unet.config.cross_attention_dim
    answer: Tensor = unet(
        drawn(4, HEIGHT, WIDTH),
        torch.full((len(numbers),), 500.0),
        encoder_hidden_states=drawn(7, width),
        added_cond_kwargs={
            "text_embeds": drawn(
                unet.config.projection_class_embeddings_input_dim
                - 6 * unet.config.addition_time_embed_dim
            ),
            "time_ids": torch.zeros(len(numbers), 6),
            **added,
        },
        cross_attention_kwargs=told,
        return_dict=False,
    )[0]
    return answer


def test_without_images_nothing_changes(models_dir: Path) -> None:
    unet = tiny_unet(models_dir)
    before = call(unet, [(), ()])
    attend_images(unet)
    processors = dict(unet.attn_processors)
    attend_images(unet)
    assert unet.attn_processors == processors
    assert sum(isinstance(item, ImageAttention) for item in processors.values()) == len(
        image_layers(unet)
    )
    assert torch.equal(call(unet, [(), ()]), before)


@pytest.mark.parametrize("formula", FORMULAS)
def test_rows_of_other_images_and_weights_share_a_call(formula: Formula, unet: Any) -> None:
    first = [prompt(unet, 1, formula=formula), prompt(unet, 2, formula=formula, weight=0.3)]
    second = [prompt(unet, 3, formula=formula, weight=1.5), prompt(unet, 4, formula=formula)]
    rows = [
        [(item, is_negative) for item in images]
        for images in (first, second)
        for is_negative in (True, False)
    ]
    assert len({call_key(row) for row in rows}) == 1
    together = call(unet, rows)
    for number, row in enumerate(rows):
        alone = call(unet, [row], [number])
        torch.testing.assert_close(together[number], alone[0], rtol=0, atol=1e-4)
        assert not torch.allclose(alone, call(unet, [()], [number]), atol=1e-3)


def test_the_joint_formula_shares_calls_by_all_tokens(unet: Any) -> None:
    one = [(prompt(unet, 1, count=6), False)]
    two = [(prompt(unet, 2, count=2), False), (prompt(unet, 3, count=4), False)]
    assert call_key(one) == call_key(two)
    together = call(unet, [one, two])
    torch.testing.assert_close(together[1:], call(unet, [two], [1]), rtol=0, atol=1e-4)


def test_rows_that_differ_in_form_are_kept_apart(unet: Any) -> None:
    mask = torch.ones(HEIGHT, WIDTH)
    rows: list[ImageRow] = [
        [],
        [(prompt(unet, 1), False)],
        [(prompt(unet, 1, count=5), False)],
        [(prompt(unet, 1, formula="separate"), False)],
        [(prompt(unet, 1, formula="separate"), False)] * 2,
        [(prompt(unet, 1, mask=mask), False)],
    ]
    assert len({call_key(row) for row in rows}) == len(rows)
    assert attention_kwargs([[], []]) is None


def test_an_image_counts_until_its_stop(unet: Any) -> None:
    image = prompt(unet, 1, stop=0.5)
    assert [image.is_active(progress) for progress in (0.0, 0.49, 0.5, 1.0)] == [
        *(True, True),
        *(False, False),
    ]
    assert not prompt(unet, 1, weight=0.0).is_active(0.0)
    assert not prompt(unet, 1, stop=0.0).is_active(0.0)


def test_weights_are_worked_in_once(unet: Any) -> None:
    image = prompt(unet, 1)
    for side in (True, False):
        assert image.tokens(is_negative=side) is image.tokens(is_negative=side)
    assert image.masks == {}


@pytest.mark.parametrize("formula", FORMULAS)
def test_more_weight_changes_more(formula: Formula, unet: Any) -> None:
    plain = call(unet, [()])
    changes = [
        (call(unet, [[(prompt(unet, 1, weight=weight, formula=formula), False)]]) - plain)
        .abs()
        .mean()
        for weight in (0.01, 0.5, 2.0)
    ]
    assert changes == sorted(changes)


@pytest.mark.parametrize("formula", FORMULAS)
def test_masks_say_where_an_image_is_seen(formula: Formula, unet: Any) -> None:
    def seen(mask: Tensor | None) -> Tensor:
        masked = prompt(unet, 1, formula=formula, mask=mask)
        other = prompt(unet, 2, formula=formula)
        return call(unet, [[(masked, False), (other, False)]])

    everywhere = torch.ones(HEIGHT, WIDTH)
    torch.testing.assert_close(seen(everywhere), seen(None), rtol=0, atol=1e-5)
    without = call(unet, [[(prompt(unet, 2, formula=formula), False)]])
    torch.testing.assert_close(seen(0 * everywhere), without, rtol=0, atol=1e-5)
    half = everywhere.clone()
    half[:, WIDTH // 2 :] = 0
    left, right = ((seen(half) - without).abs().mean((0, 1, 2))).chunk(2)
    assert left[: WIDTH // 4].mean() > right[WIDTH // 4 :].mean() > 0


@pytest.mark.parametrize("size", [(16, 24), (15, 9), (1, 5)])
def test_masks_are_made_for_every_depth(size: tuple[int, int], unet: Any) -> None:
    levels = prompt(unet, 1, mask=torch.ones(size)).masks
    height, width = size
    while True:
        level = levels[height * width]
        torch.testing.assert_close(level, torch.ones(1, height * width, 1))
        if height * width == 1:
            return
        height, width = -(-height // 2), -(-width // 2)


@pytest.mark.parametrize("is_masked", [False, True])
def test_the_separate_formula_is_that_of_diffusers(*, is_masked: bool, models_dir: Path) -> None:
    """Two plus adapters of other sizes, with a weight and a mask each, on both sides of guidance."""
    from diffusers import StableDiffusionXLPipeline

    unet = tiny_unet(models_dir)
    widths = list(image_layers(unet).values())
    files = [
        random_tensors(
            adapter_shapes(plus_shapes(96, 64, TEXT_WIDTH, count=count), widths, TEXT_WIDTH), count
        )
        for count in (3, 5)
    ]
    weights = (0.6, 1.3)
    images = [torch.randn(2, 9, 96, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    masks = [torch.zeros(HEIGHT, WIDTH) for _ in files]
    masks[0][:, :10], masks[1][4:, 6:] = 1, 1

    pipeline = StableDiffusionXLPipeline.from_pretrained(
        models_dir / "checkpoints" / "tiny", use_safetensors=True
    )
    pipeline.load_ip_adapter(
        [nested(file) for file in files],
        subfolder=["", ""],
        weight_name=["", ""],
        image_encoder_folder=None,
    )
    pipeline.set_ip_adapter_scale(list(weights))
    told = {"ip_adapter_masks": [mask[None, None] for mask in masks]} if is_masked else None
    embeds = [image.unsqueeze(1) for image in images]
    expected = ask(pipeline.unet, (0, 1), told, image_embeds=embeds)

    attend_images(unet)
    adapters = [build_ip_adapter("tiny", file, unet, {}) for file in files]
    prompts = []
    for adapter, image, weight, mask in zip(adapters, images, weights, masks, strict=True):
        negative, positive = (adapter.attend(adapter.projection(side)) for side in image.split(1))
        prompts.append(
            ImagePrompt(
                positive=positive,
                negative=negative,
                weight=weight,
                formula="separate",
                mask=mask if is_masked else None,
            )
        )
    rows = [[(item, is_negative) for item in prompts] for is_negative in (True, False)]
    ours = call(unet, rows)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(ours, call(unet, [(), ()]), atol=1e-2)


def test_other_weights_stops_and_images_compile_nothing_anew() -> None:
    """One graph without images, and one for each formula."""
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    pocket = UNet2DConditionModel.from_pretrained(POCKET, use_safetensors=True).eval()
    attend_images(pocket)
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(pocket, backend=count)
    for kinds, formula in enumerate(FORMULAS, start=2):
        ask(compiled, (0, 1), None)
        for seed, weight, stop in ((1, 1.0, 0.5), (2, 0.6, 0.9), (3, 2.0, 1.0)):
            image = prompt(pocket, seed, weight=weight, stop=stop, formula=formula)
            rows = [[(image, True)], [(image, False)]]
            answer = call(compiled, rows)
            torch.testing.assert_close(answer, call(pocket, rows), rtol=0, atol=1e-4)
        assert len(graphs) == kinds


def test_what_adapters_add_to_the_pooled_text_is_shared_by_weight(unet):
    pooled = torch.zeros(1, 2)
    near, far = (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    plain = prompt(unet, 1)
    half = prompt(unet, 2, weight=0.5, pooled=near)
    whole = prompt(unet, 3, weight=1.0, pooled=far)
    assert add_pooled(pooled, [(plain, False)]) is pooled
    assert add_pooled(pooled, [(half, True)]) is pooled  # the negative side hears nothing
    assert add_pooled(pooled, [(half, False)]).tolist() == [[0.5, 0.0]]
    both = add_pooled(pooled, [(half, False), (whole, False), (plain, False)])
    torch.testing.assert_close(both, torch.tensor([[1 / 3, 2 / 3]]))


def test_where_grounds_are_known_the_first_image_gives_the_thing_and_the_last_the_ground(unet):
    pooled = torch.zeros(1, 4)

    def of(seed: int, weight: float) -> ImagePrompt:
        """An image that says (seed, seed + 1) of the thing and (seed + 2, seed + 3) of the ground."""
        whole = torch.arange(4.0)[None] + seed
        return prompt(unet, seed, weight=weight, pooled=whole, ground=whole * (whole >= seed + 2))

    def added(*images: ImagePrompt) -> list[float]:
        return add_pooled(pooled, [(image, False) for image in images]).flatten().tolist()

    assert added(of(1, 1.0)) == [1, 2, 3, 4]
    assert added(of(1, 0.5)) == [0.5, 1, 1.5, 2]
    assert added(of(1, 1.0), of(10, 1.0)) == [1, 2, 12, 13]
    assert added(of(10, 1.0), of(1, 1.0)) == [10, 11, 3, 4]
    assert added(of(1, 0.25), of(10, 0.25)) == [0.5, 1, 6, 6.5]
    mostly_first = added(of(1, 1.5), of(10, 0.5))
    assert mostly_first == [1, 2, (3 + 12) / 2, (4 + 13) / 2]
    assert added(of(1, 1.0), of(10, 1.0), of(20, 1.0), of(30, 1.0)) == [5.5, 6.5, 27, 28]
