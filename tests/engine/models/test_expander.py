"""A language model continues prompts: by the seed, with plain words, and without touching anything else."""

import pytest
import torch

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.expander import ModelExpander
from tests.tiny_language import write_model

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def expander(tmp_path_factory) -> ModelExpander:
    return ModelExpander(write_model(tmp_path_factory.mktemp("language")))


def test_words_are_added_to_the_prompt(expander):
    expanded = expander.expand(" a fox,", 1)
    assert expanded.startswith("a fox, ")
    added = expanded.removeprefix("a fox, ")
    assert {"soft", "light", "calm"} & set(added.split())
    assert not set("()<>[]\n") & set(added)
    assert added == added.strip(",. ")
    assert len(added.split()) <= 72


def test_the_seed_decides(expander):
    assert expander.expand("a fox", 5) == expander.expand("a fox", 5)
    assert expander.expand("a fox", 5) != expander.expand("a fox", 6)
    assert expander.expand("a fox", 2**63 - 1).startswith("a fox, ")


def test_nothing_else_that_draws_is_disturbed(expander):
    before = torch.get_rng_state()
    expander.expand("a fox", 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_prompt_stays_empty_and_reads_no_model():
    assert ModelExpander("no/such").expand(" , ", 1) == ""


def test_a_text_that_the_model_ends_is_kept_whole(tmp_path):
    ending = ModelExpander(write_model(tmp_path, end=0))
    lengths = {len(ending.expand("a fox", seed).split()) for seed in range(20)}
    assert min(lengths) < 20


@pytest.mark.parametrize("context", [20, 90])
def test_a_prompt_longer_than_the_model_reads_is_continued(tmp_path, context):
    short = ModelExpander(write_model(tmp_path, context=context))
    prompt = "fox " * 200 + "a"
    assert short.expand(prompt, 1).startswith(prompt + ", ")


def test_a_model_that_is_not_there_is_a_sentence(tmp_path):
    message = r"^expansion model '.*gone': expected the folder of a language model with safetensors, got none$"
    with pytest.raises(ModelNotFound, match=message):
        ModelExpander(str(tmp_path / "gone")).expand("a fox", 1)


def test_pickled_weights_are_not_read(tmp_path):
    name = write_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match=r"with safetensors, got none$"):
        ModelExpander(name).expand("a fox", 1)


def test_a_file_that_is_no_model_is_a_sentence(tmp_path):
    name = write_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(ModelIncompatible, match=r"expected a transformers model that continues"):
        ModelExpander(name).expand("a fox", 1)
