"""FreeU changes one call, at the depths it is meant for, and nothing after it."""

import pytest
import torch
from torch import Tensor

from engine.conditioning.freeu import apply_freeu, freeu_around
from engine.plan import FreeU
from tests.golden_data import golden_arrays, golden_folder, golden_json
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

CASES = golden_json("parts.json").get("freeu", []) if golden_json("parts.json") else []
ARRAYS = golden_arrays("parts.npz")
MILD = FreeU(b1=1.01, b2=1.02, s1=0.99, s2=0.95)
NEUTRAL = FreeU(b1=1, b2=1, s1=1, s2=1)


@pytest.fixture(scope="module")
def unet():
    return load_toy_unet(golden_folder())


def predict(unet, x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        return unet(
            x,
            500,
            encoder_hidden_states=torch.randn((1, 77, 64), generator=generator),
            added_cond_kwargs={
                "text_embeds": torch.randn((1, 1280), generator=generator),
                "time_ids": torch.zeros(1, 6),
            },
        ).sample


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["i"]))
def test_freeu_golden(case):
    widths = {
        key.removeprefix("channels_"): what
        for key, what in case.items()
        if key.startswith("channels_")
    }
    for width, what in widths.items():
        hidden, skip = (torch.from_numpy(ARRAYS[f"freeu_{width}_{part}"]) for part in ("h", "skip"))
        depth = {"4": 1, "2": 2}.get(what[0])
        if depth is not None:
            hidden, skip = apply_freeu(hidden, skip, b=case[f"b{depth}"], s=case[f"s{depth}"])
        for part, got in (("h", hidden), ("skip", skip)):
            expected = torch.from_numpy(ARRAYS[f"freeu{case['i']}_{width}_{part}_out"])
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_calls_outside_are_untouched(unet):
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    plain = predict(unet, x)
    with freeu_around(unet, MILD):
        changed = predict(unet, x)
    with freeu_around(unet, None):
        after = predict(unet, x)
    assert torch.equal(plain, after)
    assert not torch.allclose(plain, changed)


def test_hooks_go_also_when_the_call_fails(unet):
    with pytest.raises(ZeroDivisionError), freeu_around(unet, MILD):
        raise ZeroDivisionError
    assert not any(module._forward_pre_hooks for module in unet.modules())


def test_factors_of_1_change_next_to_nothing(unet):
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    plain = predict(unet, x)
    with freeu_around(unet, NEUTRAL):
        torch.testing.assert_close(predict(unet, x), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("factors", "blocks"), [({"b1": 1.5}, [0, 1, 2, 3]), ({"b2": 1.5}, [4, 5, 6])]
)
def test_the_deepest_width_takes_the_first_factors(unet, factors, blocks):
    # SDXL's layout: blocks 0 to 3 on the way up get 1280 channels from below, 4 to 6 get 640.
    freeu = FreeU(**{"b1": 1, "b2": 1, "s1": 1, "s2": 1, **factors})
    resnets = [resnet for block in unet.up_blocks for resnet in block.resnets]
    inputs: dict[int, list[Tensor]] = {}
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with freeu_around(unet, freeu):
        spies = [
            resnet.register_forward_pre_hook(
                lambda module, args, index=index: inputs.setdefault(index, [args[0]]) and None
            )
            for index, resnet in enumerate(resnets)
        ]
        for spy in list(resnets[blocks[0]]._forward_pre_hooks.values())[:1]:
            assert spy.keywords["b"] == 1.5
        predict(unet, x)
    for spy in spies:
        spy.remove()
    changed = []
    with freeu_around(unet, freeu):
        for index, resnet in enumerate(resnets):
            hooks = [hook for hook in resnet._forward_pre_hooks.values() if hook.keywords["b"] != 1]
            changed += [index] * len(hooks)
    assert changed == blocks


def test_a_flat_map_gives_no_nan():
    hidden, _ = apply_freeu(torch.ones(1, 4, 3, 3), torch.ones(1, 2, 4, 4), b=1.4, s=0.9)
    assert torch.equal(hidden, torch.ones(1, 4, 3, 3))
