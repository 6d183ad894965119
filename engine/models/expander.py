"""Prompt expansion by a language model that a person has installed, in place of our own words.

Any transformers model that continues text will do. It runs on the CPU in float32, so that a seed gives the same words
whatever paints. Knows nothing of styles or plans.
"""

import re
from functools import cached_property
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.devices import quiet_libraries
from engine.prompt.syntax import clean

TOP_K = 100
"""Words are drawn from this many of the likeliest."""
CHUNK = 75
"""A prompt is continued to a multiple of this many tokens, which is what a text encoder reads at once."""

_MARKUP = re.compile(r"[()\[\]{}<>\\\s]+")
_UNREADABLE = (ValueError, KeyError, RuntimeError, AttributeError, TypeError, SafetensorError)


class ModelExpander:
    """Continues prompts with a language model; the model is read when it is first needed."""

    def __init__(self, name: str) -> None:
        """Name the model.

        Args:
            name: A folder with a tokenizer and safetensors, or the hub id of a model that was fetched before.
        """
        self._name = name

    def expand(self, prompt: str, seed: int) -> str:
        """Continue a prompt.

        Args:
            prompt: One line, without LoRA tags.
            seed: Of the image; the same prompt and seed give the same words.

        Returns:
            The cleaned prompt, a comma and what the model added, without parentheses and other markup. Empty where the
            prompt is, or where the model adds nothing.

        Raises:
            ModelNotFound: the model is not there.
            ModelIncompatible: it is no model in safetensors that continues text.
        """
        prompt = clean(prompt)
        if not prompt:
            return ""
        tokenizer, model = self._parts
        try:
            ids = tokenizer(prompt + ",", return_tensors="pt", verbose=False)["input_ids"]
            room = getattr(model.config, "max_position_embeddings", None) or 1024
            ids = ids[:, -max(1, room - CHUNK) :]
            missing = CHUNK - ids.shape[1] % CHUNK
            added, is_whole = _continue(model, ids, seed, min(missing, room - ids.shape[1]))
            text = tokenizer.decode(added, skip_special_tokens=True)
        except _UNREADABLE as error:
            raise self._incompatible(error) from error
        words = clean(_MARKUP.sub(" ", text if is_whole else _without_last(text)))
        return f"{prompt}, {words}" if words else ""

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        quiet_libraries()
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._name, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                self._name, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except OSError as error:
            problem = "expected the folder of a language model with safetensors, got none"
            raise ModelNotFound(f"expansion model {self._name!r}: {problem}") from error
        except _UNREADABLE as error:
            raise self._incompatible(error) from error
        return tokenizer, model.eval().requires_grad_(requires_grad=False)

    def _incompatible(self, error: Exception) -> ModelIncompatible:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"expected a transformers model that continues text, got: {reason}"
        return ModelIncompatible(f"expansion model {self._name!r}: {problem}")


@torch.no_grad()
def _continue(model: Any, ids: Tensor, seed: int, count: int) -> tuple[list[int], bool]:
    """Draw up to `count` tokens after `ids` (1, n).

    Returns:
        The new tokens, and whether the model ended the text itself.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    ends = _ends(model)
    added: list[int] = []
    known = None
    for _ in range(count):
        output = model(ids, past_key_values=known, use_cache=True)
        scores = output.logits[0, -1].float()
        likeliest = scores.topk(min(TOP_K, len(scores)))
        drawn = torch.multinomial(likeliest.values.softmax(-1), 1, generator=generator)
        ids, known = likeliest.indices[drawn].unsqueeze(0), output.past_key_values
        if int(ids) in ends:
            return added, True
        added.append(int(ids))
    return added, False


def _ends(model: Any) -> frozenset[int]:
    ends = getattr(model.generation_config, "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def _without_last(text: str) -> str:
    """Drop what stands after the last comma, or else the last blank: it may be cut off."""
    for mark in (",", " "):
        if mark in text:
            return text.rpartition(mark)[0]
    return ""
