"""Embeddings: vectors from files stand in a prompt as if they were tokens of the vocabulary."""

import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from engine.conditioning.embeddings import (
    EmbeddingFiles,
    EmbeddingWord,
    embeddings_key,
    find_embeddings,
    read_embedding,
)
from engine.conditioning.text import PromptTexts, TextEncoders, encode_prompts
from engine.errors import ModelIncompatible
from tests.engine.conditioning.test_text import WordTokenizer, tiny_config

pytestmark = pytest.mark.torch

WIDTHS = (8, 12)
L = torch.arange(16.0).reshape(2, 8)
G = torch.arange(24.0).reshape(2, 12)


@pytest.fixture(scope="module")
def encoders() -> TextEncoders:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = (
            CLIPTextModel(tiny_config(8)).eval(),
            CLIPTextModelWithProjection(tiny_config(12)).eval(),
        )
    return TextEncoders(tokenizers=(WordTokenizer(), WordTokenizer()), models=models)


def vectors_of(encoders: TextEncoders, word: str):
    """What the two vocabularies hold for a word."""
    ids = torch.tensor(WordTokenizer()(word)["input_ids"])
    return tuple(model.get_input_embeddings()(ids).detach() for model in encoders.models)


def encode(encoders: TextEncoders, text: str, files=None, **more):
    embeddings = find_embeddings([text], (files or {}).get, encoders.widths)
    (encoded,) = encode_prompts(encoders, [PromptTexts((text,), 1)], embeddings=embeddings, **more)
    return encoded


def assert_same(first, second) -> None:
    torch.testing.assert_close(first.prompt_embeds, second.prompt_embeds)
    torch.testing.assert_close(first.pooled_prompt_embeds, second.pooled_prompt_embeds)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a embedding:e hill", "a fox hill"),
        ("a (embedding:e:1.4) hill", "a (fox:1.4) hill"),
        ("((embedding:e))", "((fox))"),
        ("embedding:e, a hill", "fox, a hill"),
        ("a\nembedding:e", "a\nfox"),
        ("x " * 74 + "embedding:e", "x " * 74 + "fox"),  # does not fit, so it moves on whole
    ],
)
def test_vectors_of_a_word_act_as_the_word(encoders, text, plain):
    files = {"e": vectors_of(encoders, "fox")}
    assert_same(encode(encoders, text, files), encode(encoders, plain))
    assert not torch.allclose(
        encode(encoders, text, files).prompt_embeds,
        encode(encoders, text.replace("embedding:e", "red")).prompt_embeds,
    )


def test_a_long_embedding_is_cut_where_a_chunk_ends(encoders):
    files = {"e": vectors_of(encoders, "x" * 80)}
    encoded = encode(encoders, "embedding:e", files)
    assert encoded.prompt_embeds.shape == (1, 154, 20)
    assert_same(encoded, encode(encoders, "x" * 80))


def test_vectors_for_one_encoder_leave_the_other_without(encoders):
    first, _ = vectors_of(encoders, "fox")
    encoded = encode(encoders, "a embedding:e", {"e": (first, None)})
    assert torch.equal(
        encoded.prompt_embeds[..., :8], encode(encoders, "a fox").prompt_embeds[..., :8]
    )
    assert torch.equal(encoded.prompt_embeds[..., 8:], encode(encoders, "a").prompt_embeds[..., 8:])


def test_an_encoder_with_fewer_chunks_gets_empty_ones(encoders):
    first, _ = vectors_of(encoders, "x" * 80)
    encoded = encode(encoders, "embedding:e", {"e": (first, None)})
    nothing = encode(encoders, "").prompt_embeds[..., 8:]
    assert torch.equal(encoded.prompt_embeds[..., 8:], torch.cat([nothing, nothing], 1))


def test_an_unknown_name_is_left_out_with_a_warning(encoders):
    warnings: list[str] = []
    text = "a embedding:gone, hill"
    found = find_embeddings([text, text], lambda name: None, WIDTHS, warnings.append)
    assert warnings == ["a prompt names an embedding that is not there; the word is left out"]
    (encoded,) = encode_prompts(encoders, [PromptTexts((text,), 1)], embeddings=found)
    assert_same(encoded, encode(encoders, "a , hill"))


def test_vectors_of_another_model_are_left_out_with_a_warning(encoders, caplog):
    encoded = encode(encoders, "a embedding:e", {"e": (torch.zeros(1, 768), None)})
    assert_same(encoded, encode(encoders, "a"))
    assert "a prompt's embedding: expected vectors of 8 or 12 numbers" in caplog.text


def test_encoders_are_as_before_after_a_prompt_with_vectors(encoders):
    before = encode(encoders, "a fox")
    encode(encoders, "embedding:e", {"e": (L, G)})
    assert torch.equal(before.prompt_embeds, encode(encoders, "a fox").prompt_embeds)


def test_other_vectors_under_one_name_are_encoded_anew(encoders):
    cache = {}
    one = encode(encoders, "embedding:e", {"e": (L, G)}, cache=cache)
    two = encode(encoders, "embedding:e", {"e": (-L, G)}, cache=cache)
    again = encode(encoders, "embedding:e", {"e": (L.clone(), G)}, cache=cache)
    assert not torch.allclose(one.prompt_embeds, two.prompt_embeds)
    assert again.prompt_embeds.data_ptr() != two.prompt_embeds.data_ptr()
    assert len(cache) == 2


def test_only_named_embeddings_are_part_of_the_key():
    known = {"embedding:e": EmbeddingWord((L, G), "", "abc")}
    assert embeddings_key(["a fox", "(embedding:e:1.2)"], known) == "abc"
    assert embeddings_key(["embedding:other"], known) == ""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("both.safetensors", {"clip_l": L, "clip_g": G}, (L, G)),
        ("g.safetensors", {"clip_g": G}, (None, G)),
        ("half.safetensors", {"clip_l": L.half(), "clip_g": torch.zeros(1, 5)}, (L, None)),
        ("web.safetensors", {"emb_params": G}, (None, G)),
        ("token.safetensors", {"<cat>": L[0]}, (L[:1], None)),
        ("two.bin", {"<cat>": L, "<cat_2>": G}, (L, G)),
        ("a1111.pt", {"string_to_param": {"*": L}, "name": "x", "step": 3}, (L, None)),
        (
            "param.pt",
            {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(G)}},
            (None, G),
        ),
    ],
)
def test_known_forms_of_files_are_read(tmp_path, name, content, expected):
    path = tmp_path / name
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    for vectors, wanted in zip(read_embedding(path, WIDTHS), expected, strict=True):
        assert (vectors is None) == (wanted is None)
        if wanted is not None:
            assert torch.equal(vectors, wanted)
            assert vectors.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"clip_l": torch.zeros(1, 768)},
            r"^bad\.pt: expected 1 to 256 finite vectors of 8 or 12 numbers, got \(1, 768\)$",
        ),
        (
            {"clip_l": torch.full((1, 8), torch.nan)},
            r"^bad\.pt: expected 1 to 256 finite vectors of 8 or 12 numbers, got \(1, 8\)$",
        ),
        (
            {"a": torch.zeros(300, 8)},
            r"^bad\.pt: expected 1 to 256 finite vectors of 8 or 12 numbers, got \(300, 8\)$",
        ),
        (
            {"a": 3},
            r"^bad\.pt: expected 1 to 256 finite vectors of 8 or 12 numbers, got nothing$",
        ),
        ([L], r"^bad\.pt: expected an embedding, got: a list$"),
        ({"string_to_param": L}, r"^bad\.pt: expected an embedding, got: 'Tensor' object.*$"),
        (SimpleNamespace(a=1), r"^bad\.pt: expected an embedding, got: Weights only load failed.*"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ModelIncompatible, match=message):
        read_embedding(tmp_path / "bad.pt", WIDTHS)


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(ModelIncompatible, match=r"^bad\.safetensors: expected an embedding, got: "):
        read_embedding(tmp_path / "bad.safetensors", WIDTHS)


def test_files_are_read_again_when_they_change(tmp_path, caplog):
    path = tmp_path / "e.safetensors"
    save_file({"clip_l": L}, path)
    files = EmbeddingFiles({"e": path, "gone": tmp_path / "gone.pt"}.get, WIDTHS)
    assert files("e") is files("e")
    assert files("other") is None
    save_file({"clip_l": -L, "clip_g": G}, path)
    first, second = files("e")
    assert torch.equal(first, -L)
    assert torch.equal(second, G)
    with caplog.at_level(logging.WARNING):
        assert files("gone") is None
    assert "embedding left out" in caplog.text
