"""Texts become the numbers that Fooocus computes: chunks, weights, clip skip, pooled vectors."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.conditioning.text import (
    PromptTexts,
    TextEncoders,
    apply_weights,
    encode_prompts,
    framed_chunks,
    repeat_to_common_length,
)
from engine.models.tokenizers import clip_tokenizer
from tests.golden_data import golden_arrays, golden_json, golden_model

pytestmark = pytest.mark.torch

TOKENS = golden_json("prompts.json").get("tokens", [])
ENCODED = golden_json("text_encoding.json")
ARRAYS = {key: torch.tensor(value) for key, value in golden_arrays("text_encoding.npz").items()}
PAD_TOKENS = {"clip_l": "<|endoftext|>", "clip_g": "!"}


class WordTokenizer:
    """Gives each letter a token id; knows other BOS, EOS and pad ids than CLIP."""

    bos_token_id, eos_token_id, pad_token_id = 1, 99, 2

    def __call__(self, word: str, **options: bool) -> dict[str, list[int]]:
        return {"input_ids": [10 + ord(letter) % 64 for letter in word]}


def tokenizer(encoder: str):
    """The CLIP tokenizer of an encoder."""
    return clip_tokenizer(pad_token=PAD_TOKENS[encoder])


def tiny_config(width: int, **more) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        num_hidden_layers=3,
        projection_dim=width,
        eos_token_id=99,
        **more,
    )


@pytest.fixture(scope="module")
def encoders() -> TextEncoders:
    """Two tiny encoders with weights from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = CLIPTextModel(tiny_config(8)).eval()
        second = CLIPTextModelWithProjection(tiny_config(12)).eval()
    pipeline = SimpleNamespace(
        tokenizer=WordTokenizer(),
        tokenizer_2=WordTokenizer(),
        text_encoder=first,
        text_encoder_2=second,
    )
    return TextEncoders.of_pipeline(pipeline)


@pytest.fixture(scope="module")
def golden_encoders() -> TextEncoders:
    """The tiny CLIP of the golden data."""
    pair = tuple(tokenizer(encoder) for encoder in PAD_TOKENS)
    with safe_open(golden_model("tiny_clip_fp16.safetensors"), "pt") as file:
        metadata = file.metadata()
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    first = _golden_encoder(CLIPTextModel, "clip_l", metadata, weights, shift=5)
    second = _golden_encoder(CLIPTextModelWithProjection, "clip_g", metadata, weights, shift=11)
    return TextEncoders(tokenizers=pair, models=(first, second))


def _golden_encoder(kind, name: str, metadata, weights: dict[str, Tensor], *, shift: int):
    config = CLIPTextConfig(**json.loads(metadata[name]))
    model = kind(config).eval()
    body = getattr(model, "text_model", model)
    prefix = f"{name}.transformer.text_model."
    state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    rows = torch.arange(config.vocab_size).unsqueeze(1)
    columns = torch.arange(config.hidden_size)
    hashed = (7919 * rows + 104729 * columns + 31 * rows * columns + shift) % 65521
    state["embeddings.token_embedding.weight"] = hashed.float() / 65521 * 2 - 1
    missing, unexpected = body.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("position_ids") for key in missing)
    if f"{name}.text_projection" in weights:
        model.text_projection.load_state_dict({"weight": weights[f"{name}.text_projection"].T})
    return model


@pytest.mark.parametrize("case", TOKENS, ids=range(len(TOKENS)))
@pytest.mark.parametrize("encoder", PAD_TOKENS)
def test_tokens_golden(case, encoder):
    chunks = framed_chunks(tokenizer(encoder), case["input"])
    ids = [[token.id for token in chunk] for chunk in chunks]
    if encoder == "clip_g":
        assert ids == case["clip_g_ids"]
    else:
        weights = [[token.weight for token in chunk] for chunk in chunks]
        assert [list(pair) for pair in zip(ids, weights, strict=True)] == case["clip_l"]


@pytest.mark.parametrize("case", ENCODED, ids=[case["id"] for case in ENCODED])
def test_text_encoding_golden(case, golden_encoders):
    prompt = PromptTexts(tuple(case["texts"]), pooled=case["top_k"])
    (encoded,) = encode_prompts(golden_encoders, [prompt], clip_skip=case["clip_skip"])
    assert list(encoded.prompt_embeds.shape) == case["shape"]
    stored = encoded.prompt_embeds
    if case["stored_columns"] != "all":
        _, step, start = (word.rstrip("th") for word in ("", "5", "0"))
        stored = stored[..., int(start) :: int(step)]
    torch.testing.assert_close(stored, ARRAYS[f"{case['id']}_context"], rtol=0, atol=1e-4)
    pooled = ARRAYS[f"{case['id']}_pooled"]
    torch.testing.assert_close(encoded.pooled_prompt_embeds, pooled, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "i", range(sum(key.startswith("w") and key.endswith("_z") for key in ARRAYS))
)
def test_weighting_golden(i):
    *states, empty = ARRAYS[f"w{i}_z"]
    weighted = apply_weights(torch.stack(states), ARRAYS[f"w{i}_weights"], empty)
    torch.testing.assert_close(
        weighted.flatten(0, 1).unsqueeze(0), ARRAYS[f"w{i}_out"], rtol=1e-5, atol=1e-5
    )


def test_the_shapes_are_those_of_the_encoders(encoders):
    prompt = PromptTexts(("red fox", "x " * 80), pooled=1)
    (encoded,) = encode_prompts(encoders, [prompt])
    assert encoded.prompt_embeds.shape == (1, 3 * 77, 20)
    assert encoded.pooled_prompt_embeds.shape == (1, 12)
    assert encoded.prompt_embeds.dtype == torch.float32


def test_texts_are_joined_and_pooled_vectors_summed(encoders):
    one, two, both = encode_prompts(
        encoders,
        [PromptTexts(("a",), 1), PromptTexts(("b",), 1), PromptTexts(("a", "b"), 2)],
    )
    joined = torch.cat([one.prompt_embeds, two.prompt_embeds], 1)
    assert torch.equal(both.prompt_embeds, joined)
    summed = one.pooled_prompt_embeds + two.pooled_prompt_embeds
    torch.testing.assert_close(both.pooled_prompt_embeds, summed)


def test_a_text_beyond_the_pooled_ones_adds_tokens_only(encoders):
    with_more, alone = encode_prompts(
        encoders, [PromptTexts(("a", "more"), pooled=1), PromptTexts(("a",), pooled=1)]
    )
    assert torch.equal(with_more.pooled_prompt_embeds, alone.pooled_prompt_embeds)
    assert with_more.prompt_embeds.shape[1] == 154


def test_weights_change_the_context_but_not_the_pooled_vector(encoders):
    plain, neutral, strong = encode_prompts(
        encoders, [PromptTexts((text,), 1) for text in ("a fox", "(a fox:1)", "a (fox:1.5)")]
    )
    assert torch.equal(plain.prompt_embeds, neutral.prompt_embeds)
    assert torch.equal(plain.pooled_prompt_embeds, strong.pooled_prompt_embeds)
    assert not torch.allclose(plain.prompt_embeds, strong.prompt_embeds)
    # The first encoder's columns keep their mean, and so do the second's.
    for columns in (slice(8), slice(8, None)):
        before, after = (c.prompt_embeds[..., columns].mean() for c in (plain, strong))
        torch.testing.assert_close(before, after)


def test_clip_skip_counts_hidden_states_from_the_end(encoders):
    by_skip = [
        encode_prompts(encoders, [PromptTexts(("fox",), 1)], clip_skip=n)[0].prompt_embeds
        for n in (1, 2, 3, 4, 12)
    ]
    assert all(not torch.allclose(a, b) for a, b in pairwise(by_skip[:4]))
    assert torch.equal(by_skip[3], by_skip[4])


def test_known_texts_are_not_encoded_again(encoders):
    prompts = [PromptTexts(("a fox",), 1)]
    cache = {}
    (first,) = encode_prompts(encoders, prompts, cache=cache)
    silent = TextEncoders(encoders.tokenizers, (None, None))
    (again,) = encode_prompts(silent, prompts, cache=cache)
    assert torch.equal(first.prompt_embeds, again.prompt_embeds)
    assert list(cache) == [("a fox", 2, "", False)]


@pytest.mark.parametrize(
    ("texts", "pooled", "clip_skip", "message"),
    [
        ((), 0, 2, r"^pooled: expected 1 to 0 of the texts, got 0$"),
        (("a",), 2, 2, r"^pooled: expected 1 to 1 of the texts, got 2$"),
        (("a",), 1, 0, r"^clip_skip: expected at least 1, got 0$"),
        (("(x:nan)",), 1, 2, r"^prompt: expected finite weights, got nan in '\(x:nan\)'$"),
    ],
)
def test_wrong_prompts_are_refused(encoders, texts, pooled, clip_skip, message):
    with pytest.raises(ValueError, match=message):
        encode_prompts(encoders, [PromptTexts(texts, pooled)], clip_skip=clip_skip)


@pytest.mark.parametrize(
    ("first", "second", "repeats"),
    [(77, 77, (1, 1)), (154, 77, (1, 2)), (154, 231, (3, 2)), (308, 77, (1, 4)), (462, 77, None)],
)
def test_prompts_share_a_call_up_to_fourfold_length(first, second, repeats):
    assert repeat_to_common_length(first, second) == repeats


@given(st.integers(1, 12), st.integers(1, 12))
def test_repeats_give_one_length(first, second):
    repeats = repeat_to_common_length(77 * first, 77 * second)
    if repeats is not None:
        assert first * repeats[0] == second * repeats[1]
        assert max(repeats) <= 4
    assert repeats == repeat_to_common_length(77 * second, 77 * first) or repeats is not None
