"""Drawings steer the rows they belong to, each for its share of the way, and no others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.conditioning.controls import (
    Control,
    Residuals,
    active_controls,
    call_key,
    residuals,
    softened,
)
from engine.models.controlnets import ControlNet, build_controlnet
from engine.sampling.levels import sdxl_table
from tests.golden_data import golden_folder, golden_json
from tests.toy_controls import hint, question, shake, toy_controlnet, toy_union
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
LEVELS = sdxl_table()
EXACT = 1e-5
POCKET = Path(__file__).parents[3] / "models" / "pocket"


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.set_num_threads(1)
    return load_toy_unet(golden_folder()).requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def network(unet: Any) -> Any:
    return toy_controlnet(unet)


@pytest.fixture(scope="module")
def net(unet: Any, network: Any) -> ControlNet:
    return build_controlnet("first", network.state_dict(), unet)


@pytest.fixture(scope="module")
def other(unet: Any) -> ControlNet:
    return build_controlnet("second", shake(toy_controlnet(unet), 9).state_dict(), unet)


@pytest.mark.parametrize("case", golden_json("parts.json").get("softness", ()))
def test_softness_golden(case: dict[str, Any]) -> None:
    wanted = case["multipliers"]
    assert softened(case["softness"], len(wanted)) == pytest.approx(wanted, abs=1e-7)


def steer(unet: Any, *rows: Sequence[Control]) -> Residuals:
    return residuals(rows, **question(unet, len(rows)))


def everything(answer: Residuals) -> list[Tensor]:
    return [*answer[0], answer[1]]


def row(answer: Residuals, index: int) -> list[Tensor]:
    return [part[index : index + 1] for part in everything(answer)]


def assert_same(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for mine, wanted in zip(ours, expected, strict=True):
        assert (mine - wanted).abs().max() <= EXACT * max(1e-3, float(wanted.std()))


def library(network: Any, asked: dict[str, Any], **how: Any) -> list[Tensor]:
    rows = len(asked["x"])
    down, middle = network(
        asked["x"],
        asked["timesteps"],
        asked["context"],
        how.pop("drawing", hint()).expand(rows, -1, -1, -1),
        added_cond_kwargs=asked["added"],
        return_dict=False,
        **how,
    )
    return [*down, middle]


STOPS = {0.0: 999.0, 0.5: 1.615580, 0.6: 1.162865, 0.75: 0.695149, 0.9: 0.343705}


@pytest.mark.parametrize("stop", list(STOPS))
def test_a_control_ends_at_the_level_of_its_stop(stop: float, net: ControlNet) -> None:
    control, last = Control(net, hint(), stop=stop), STOPS[stop]
    assert control.is_active(last * 1.0001, LEVELS) == (stop > 0)
    assert not control.is_active(last * 0.9999, LEVELS)


def test_a_control_without_ends_is_always_active(net: ControlNet) -> None:
    always = Control(net, hint())
    assert all(always.is_active(sigma, LEVELS) for sigma in (14.6146, 1.0, 0.0291671, 0.0))


def test_a_control_may_begin_late(net: ControlNet) -> None:
    late = Control(net, hint(), start=0.5)
    assert [late.is_active(sigma, LEVELS) for sigma in (14.6, 1.62, 1.61, 0.03)] == [0, 0, 1, 1]


def test_who_steers_a_row(net: ControlNet) -> None:
    plain, off = Control(net, hint()), Control(net, hint(), weight=0.0)
    over, guess = Control(net, hint(), stop=0.2), Control(net, hint(), guess=True)
    given = (plain, off, over, guess)
    assert active_controls(given, 0.5, LEVELS) == (plain, guess)
    assert active_controls(given, 0.5, LEVELS, is_negative=True) == (plain,)
    assert active_controls([off], 14.0, LEVELS) == ()
    assert call_key((plain, guess)) == call_key((plain,)) != call_key(())


@torch.inference_mode()
def test_weights_are_those_of_diffusers(unet: Any, net: ControlNet, network: Any) -> None:
    asked = question(unet)
    for weight in (0.3, 1.0, 2.0):
        control = Control(net, hint(), weight=weight)
        ours = residuals([[control], [control]], **asked)
        assert_same(everything(ours), library(network, asked, conditioning_scale=weight))


@torch.inference_mode()
def test_guessing_is_that_of_diffusers(unet: Any, net: ControlNet, network: Any) -> None:
    asked, control = question(unet, 1), Control(net, hint(), guess=True)
    ours = residuals([[control]], **asked)
    assert_same(everything(ours), library(network, asked, guess_mode=True))


@torch.inference_mode()
def test_several_controls_add_up(unet: Any, net: ControlNet, other: ControlNet) -> None:
    first = Control(net, hint(seed=1), weight=0.7)
    second = Control(net, hint(seed=2), weight=0.4, softness=0.5)
    third = Control(other, hint(seed=3))
    together = steer(unet, [first, second, third])
    apart = [everything(steer(unet, [control])) for control in (first, second, third)]
    assert_same(everything(together), [sum(parts) for parts in zip(*apart, strict=True)])


@torch.inference_mode()
def test_softness_weakens_the_finer_parts(unet: Any, net: ControlNet) -> None:
    hard = everything(steer(unet, [Control(net, hint())]))
    soft = everything(steer(unet, [Control(net, hint(), softness=0.25, weight=2.0)]))
    factors = [2 * factor for factor in softened(0.25, 10)]
    assert_same(soft, [part * factor for part, factor in zip(hard, factors, strict=True)])


@torch.inference_mode()
def test_each_row_is_steered_by_its_own_controls(
    unet: Any, net: ControlNet, other: ControlNet
) -> None:
    first, second = Control(net, hint(seed=1)), Control(other, hint(seed=2), weight=0.5)
    third = Control(net, hint(seed=3), weight=1.5, softness=1.0)
    rows = [[first], [], [second, third], [third, first]]
    asked = question(unet, len(rows))
    together = residuals(rows, **asked)
    for index, followed in enumerate(rows):
        if not followed:
            assert not any(part.any() for part in row(together, index))
            continue
        alone = residuals([followed], **one_row(asked, index))
        assert_same(row(together, index), everything(alone))


def one_row(asked: dict[str, Any], index: int) -> dict[str, Any]:
    return {
        key: one_row(value, index) if isinstance(value, dict) else value[index : index + 1]
        for key, value in asked.items()
    }


@torch.inference_mode()
def test_a_net_runs_once_and_a_drawing_is_looked_at_once(unet: Any, network: Any) -> None:
    net = build_controlnet("fresh", network.state_dict(), unet)
    runs, looks = [], []
    net.network.register_forward_hook(lambda *_: runs.append(1))
    net.hint_encoder.register_forward_hook(lambda *_: looks.append(1))
    first, second = Control(net, hint(seed=1)), Control(net, hint(seed=2))
    for _ in range(3):
        steer(unet, [first], [first], [second, first], [])
    assert (len(runs), len(looks)) == (3, 2)


@torch.inference_mode()
def test_a_mask_keeps_a_control_in_its_place(unet: Any, net: ControlNet) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    free = everything(steer(unet, [Control(net, hint())]))
    kept = everything(steer(unet, [Control(net, hint(), mask=mask)]))
    for whole, part in zip(free, kept, strict=True):
        half = whole.shape[-1] // 2
        assert torch.equal(part[..., :half], whole[..., :half])
        assert not part[..., half:].any()


@torch.inference_mode()
def test_rows_of_a_union_have_kinds_of_their_own(unet: Any) -> None:
    union = build_controlnet("union", toy_union(unet).state_dict(), unet)
    edges = Control(union, hint(), mode=union.mode("canny"))
    depth = Control(union, hint(), mode=union.mode("depth"), weight=0.5)
    together = residuals([[edges, depth], [depth]], **question(unet))
    asked = question(unet)
    first = residuals([[edges]], **one_row(asked, 0)), residuals([[depth]], **one_row(asked, 0))
    sums = [sum(parts) for parts in zip(*map(everything, first), strict=True)]
    assert_same(row(together, 0), sums)
    assert_same(row(together, 1), everything(residuals([[depth]], **one_row(asked, 1))))
    with pytest.raises(ValueError, match="^union: expected the kind of drawing"):
        Control(union, hint())


@torch.inference_mode()
def test_half_precision_stays_half(unet: Any, network: Any) -> None:
    halved = load_toy_unet(golden_folder()).to(torch.bfloat16).requires_grad_(requires_grad=False)
    net = build_controlnet("half", network.state_dict(), halved)
    control = Control(net, hint(), weight=0.7)
    answer = steer(halved, [control], [control])
    assert {part.dtype for part in everything(answer)} == {torch.bfloat16}
    assert (
        halved(
            *[question(halved)[key] for key in ("x", "timesteps", "context")],
            added_cond_kwargs=question(halved)["added"],
            down_block_additional_residuals=answer[0],
            mid_block_additional_residual=answer[1],
        )
        .sample.isfinite()
        .all()
    )


@torch.inference_mode()
def test_new_weights_stops_and_drawings_compile_nothing() -> None:
    from diffusers import UNet2DConditionModel

    torch._dynamo.reset()
    unet = UNet2DConditionModel.from_pretrained(POCKET / "unet").requires_grad_(requires_grad=False)
    graphs: list[Any] = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    net = build_controlnet("pocket", toy_controlnet(unet).state_dict(), unet)
    net.network.compile(backend=count)
    compiled = torch.compile(unet, backend=count)
    asked = question(unet)

    def call(followed: Sequence[Control]) -> Tensor:
        down, middle = residuals([followed] * 2, **asked)
        answer: Tensor = compiled(
            asked["x"],
            asked["timesteps"],
            encoder_hidden_states=asked["context"],
            added_cond_kwargs=asked["added"],
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return answer

    first = call([Control(net, hint())])
    built = len(graphs)
    assert built
    answers = [
        call([Control(net, hint(seed=seed), weight=weight, stop=stop, softness=softness)])
        for seed, weight, stop, softness in ((1, 0.5, 0.5, 0.0), (2, 1.3, 0.9, 0.25), (3, 2, 1, 1))
    ]
    assert len(graphs) == built
    assert all((answer - first).abs().max() > 1e-4 for answer in answers)


@torch.inference_mode()
def test_a_net_may_be_told_something_else_than_the_words(
    unet: Any, net: ControlNet, network: Any
) -> None:
    asked = question(unet, 2)
    told = torch.randn(1, 5, unet.config.cross_attention_dim, generator=torch.manual_seed(3))
    plain, other = Control(net, hint()), Control(net, hint(), context=told)
    ours = residuals([[plain], [other]], **asked)
    assert_same(row(ours, 0), [part[:1] for part in library(network, asked)])
    expected = library(network, {**asked, "context": told.expand(2, -1, -1)})
    assert_same(row(ours, 1), [part[1:] for part in expected])
    assert not torch.allclose(everything(ours)[-1][1:], library(network, asked)[-1][1:], atol=1e-3)


@torch.inference_mode()
def test_as_many_tokens_go_through_one_net_together(unet: Any, net: ControlNet) -> None:
    asked = question(unet, 2)
    alike = Control(net, hint(), context=asked["context"][1:])
    ours = residuals([[Control(net, hint())], [alike]], **asked)
    plain = residuals([[Control(net, hint())]] * 2, **asked)
    assert_same(everything(ours), everything(plain))


def test_a_control_of_one_side_steers_that_side_only(net: ControlNet) -> None:
    sides = Control(net, hint(), side="positive"), Control(net, hint(), side="negative")
    assert active_controls(sides, 0.5, LEVELS) == sides[:1]
    assert active_controls(sides, 0.5, LEVELS, is_negative=True) == sides[1:]
