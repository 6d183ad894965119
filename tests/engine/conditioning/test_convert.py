"""Refiners are told the part of the words that they know."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from engine.conditioning.convert import convert_text
from engine.conditioning.size_ids import NEGATIVE_SCORE, POSITIVE_SCORE, refiner_ids
from engine.conditioning.text import TextConditioning
from engine.geometry import Size
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

PARTS = golden_json("parts.json")
ARRAYS = golden_arrays("parts.npz")
TEXTS = golden_arrays("text_encoding.npz")
SCORES = {"positive": POSITIVE_SCORE, "negative": NEGATIVE_SCORE}


@pytest.fixture
def text() -> TextConditioning:
    generator = torch.Generator().manual_seed(1)
    return TextConditioning(
        torch.randn((1, 154, 2048), generator=generator),
        torch.randn((1, 1280), generator=generator),
    )


@pytest.fixture
def norm() -> torch.nn.LayerNorm:
    norm = torch.nn.LayerNorm(768)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    return norm


def test_a_base_type_refiner_is_told_the_same(text, norm):
    context, pooled = convert_text(text, "sdxl", norm)
    assert context is text.prompt_embeds
    assert pooled is text.pooled_prompt_embeds


def test_sdxls_refiner_is_told_the_second_encoders_words(text, norm):
    context, pooled = convert_text(text, "sdxl-refiner", norm)
    assert context.shape == (1, 154, 1280)
    assert torch.equal(context, text.prompt_embeds[..., -1280:])
    assert pooled is text.pooled_prompt_embeds


def test_sd15_is_told_the_first_encoders_words_after_its_last_norm(text, norm):
    context, pooled = convert_text(text, "sd15", norm)
    assert pooled is None
    chunks = [norm(chunk) for chunk in text.prompt_embeds[..., :768].split(77, 1)]
    torch.testing.assert_close(context, torch.cat(chunks, 1))


@pytest.mark.skipif("separate_in_cols" not in TEXTS, reason="not in this golden set")
def test_refiner_context_golden(norm):
    # Columns 760 to 779 of the first tokens are known.
    shape, known, expected = (
        torch.from_numpy(TEXTS[f"separate_{part}"])
        for part in ("refiner_shape", "in_cols", "refiner_first8")
    )
    whole = torch.zeros(*shape[:-1].tolist(), 2048)
    whole[:, : known.shape[1], 760 : 760 + known.shape[-1]] = known
    context, _ = convert_text(TextConditioning(whole, torch.zeros(1, 1280)), "sdxl-refiner", norm)
    assert list(context.shape) == shape.tolist()
    assert torch.equal(context[:, : known.shape[1], :8], expected)


@pytest.mark.parametrize("case", PARTS.get("adm_refiner", []))
def test_refiner_sizes_golden(case):
    ids = refiner_ids(Size(case["width"], case["height"]), SCORES[case["type"]])
    assert list(ids.at(999)) == list(ids.at(0)) == case["numbers"]


@pytest.mark.parametrize("branch", SCORES)
def test_embedded_refiner_sizes_golden(branch):
    if f"adm_refiner_y_{branch}" not in ARRAYS:
        pytest.skip("not in this set")
    case = next(case for case in PARTS["adm_refiner"] if case["type"] == branch)
    ids = refiner_ids(Size(case["width"], case["height"]), SCORES[branch]).at(0)
    embedded = get_timestep_embedding(
        torch.tensor(ids), 256, flip_sin_to_cos=True, downscale_freq_shift=0
    )
    told = torch.cat([torch.tensor(ARRAYS["adm_pooled"])[0], embedded.flatten()])
    expected = torch.tensor(ARRAYS[f"adm_refiner_y_{branch}"][0])
    torch.testing.assert_close(told, expected, rtol=1e-4, atol=1e-4)
