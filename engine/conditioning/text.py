"""From texts to what the UNet attends to: one or two CLIP encoders, weighted words, chunks of 77 tokens.

Knows nothing of vocabularies or widths: ids come from the tokenizers, sizes from the encoders' own answers.
"""

import math
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from engine.conditioning.embeddings import EmbeddingWord, VirtualTokens, embeddings_key
from engine.prompt.syntax import Token, chunk_prompt, first_chunk, frame

ROWS_AT_ONCE = 32
"""Chunks that one encoder call is given at most."""

LONGEST_STRETCH = 4
"""Prompts share a model call where the shorter fits at most this often into their common length."""


@dataclass(frozen=True, slots=True, eq=False)
class TextConditioning:
    """What one branch of an image is told in words; float32 on the CPU."""

    prompt_embeds: Tensor
    """(1, 77·k, C): the chunks of all texts along the tokens; C is all encoders' widths together."""
    pooled_prompt_embeds: Tensor
    """(1, P)"""


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The texts of one branch: encoded one by one, joined along the tokens."""

    texts: tuple[str, ...]
    """At least one."""
    pooled: int
    """How many of them, from the first, add to the pooled vector; at least 1."""


@dataclass(frozen=True, slots=True)
class TextEncoders:
    """The tokenizers and CLIP encoders of a pipeline: two of SDXL, whose second has the projection, one of SD 1.5."""

    tokenizers: tuple[Any, ...]
    models: tuple[Any, ...]
    is_normed: bool = False
    """Whether the hidden state that is taken goes through the encoder's last layer norm, as SD 1.5 has learned."""

    @classmethod
    def of_pipeline(cls, pipeline: Any) -> "TextEncoders":
        """Take them out of a diffusers `StableDiffusionXLPipeline` or `StableDiffusionPipeline`."""
        if not hasattr(pipeline, "text_encoder_2"):
            return cls((pipeline.tokenizer,), (pipeline.text_encoder,), is_normed=True)
        return cls(
            tokenizers=(pipeline.tokenizer, pipeline.tokenizer_2),
            models=(pipeline.text_encoder, pipeline.text_encoder_2),
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in a token's vector, for each encoder."""
        return tuple(int(model.get_input_embeddings().embedding_dim) for model in self.models)


def final_norm(model: Any) -> Any:
    """Give the last `LayerNorm` of a CLIP text encoder; newer ones of transformers have it one level higher."""
    return getattr(model, "text_model", model).final_layer_norm


TextCache = MutableMapping[tuple[str, int, str, bool], TextConditioning]
"""Encoded texts by (text, clip skip, embeddings in it, whether it was read plainly). The owner of the encoders drops it when their weights change."""


def encode_prompts(
    encoders: TextEncoders,
    prompts: Sequence[PromptTexts],
    *,
    clip_skip: int = 2,
    cache: TextCache | None = None,
    embeddings: Mapping[str, EmbeddingWord] = MappingProxyType({}),
    is_plain: bool = False,
) -> list[TextConditioning]:
    """Encode the texts of many branches together, in as few encoder calls as may be.

    The pooled vector of a branch is the sum over its first `pooled` texts.

    Args:
        encoders: What encodes them.
        prompts: One for each branch of each image.
        clip_skip: Which hidden state is taken, counted from the end; 1 is the last layer's. Beyond the number of
            layers it is the final, normalised output.
        cache: Texts known already; new ones are added. Texts that are encoded in other company may differ in the last
            bit, so a cache that outlives a job trades exact repeats for time.
        embeddings: What words stand for vectors, as `find_embeddings` gives it; others are read as text.
        is_plain: Whether brackets are letters, and what is beyond 77 tokens is not read, as in diffusers.

    Returns:
        One conditioning for each of `prompts`, in order.

    Raises:
        ValueError: a prompt without texts or without a pooled one, a clip skip below 1, or a weight that is not
            finite.
    """
    if clip_skip < 1:
        raise ValueError(f"clip_skip: expected at least 1, got {clip_skip}")
    for prompt in prompts:
        if not 1 <= prompt.pooled <= len(prompt.texts):
            raise ValueError(
                f"pooled: expected 1 to {len(prompt.texts)} of the texts, got {prompt.pooled}"
            )
    known: TextCache = {} if cache is None else cache
    texts = list(dict.fromkeys(text for prompt in prompts for text in prompt.texts))
    keys = {text: (text, clip_skip, embeddings_key([text], embeddings), is_plain) for text in texts}
    new = [text for text in texts if keys[text] not in known]
    fresh = _encode(encoders, new, embeddings, clip_skip, is_plain=is_plain)
    for text, encoded in zip(new, fresh, strict=True):
        known[keys[text]] = encoded
    return [_join([known[keys[text]] for text in p.texts], p.pooled) for p in prompts]


def repeat_to_common_length(first: int, second: int) -> tuple[int, int] | None:
    """Tell how often two prompts must be repeated along the tokens to share one model call.

    Attention over a text repeated whole is the same as over the text, so nothing changes but the length.

    Args:
        first: Tokens of the one, above 0.
        second: Tokens of the other.

    Returns:
        Repeats of both; None where the shorter would grow more than fourfold, so that they go alone.
    """
    common = math.lcm(first, second)
    if common > LONGEST_STRETCH * min(first, second):
        return None
    return common // first, common // second


def apply_weights(states: Tensor, weights: Tensor, empty: Tensor) -> Tensor:
    """Pull tokens away from the empty prompt, or towards it, and keep the mean of each chunk.

    Args:
        states: (n, 77, C) hidden states of n chunks.
        weights: (n, 77), 1 is neutral.
        empty: (77, C) hidden states of the empty prompt.

    Returns:
        (n, 77, C); where all weights are 1, `states` unchanged.
    """
    if bool((weights == 1).all()):
        return states
    scale = weights.unsqueeze(-1)
    weighted = torch.where(scale == 1, states, (states - empty) * scale + empty)
    dims = (1, 2)
    return weighted * (states.mean(dims, keepdim=True) / weighted.mean(dims, keepdim=True))


def framed_chunks(
    tokenizer: Any, text: str, virtual: VirtualTokens | None = None, *, is_plain: bool = False
) -> list[tuple[Token, ...]]:
    """Cut a text into the rows that an encoder is given: 77 tokens with BOS, EOS and pads of its tokenizer.

    Args:
        tokenizer: Of the encoder.
        text: A prompt with weights.
        virtual: Numbers the words that stand for vectors; None reads all words as text.
        is_plain: As in `encode_prompts`.

    Raises:
        ValueError: a weight in the text is not finite.
    """

    def tokenize(word: str) -> Sequence[int]:
        ids, rest = virtual.ids(word) if virtual else ((), word)
        # Else a "!" in a prompt is read as the padding of SDXL's second tokenizer, not as the letter.
        more: Sequence[int] = tokenizer(
            rest, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return [*ids, *more]

    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    cut = first_chunk(text, tokenize) if is_plain else chunk_prompt(text, tokenize)
    chunks = [frame(chunk, bos=bos, eos=eos, pad=pad) for chunk in cut]
    for token in (token for chunk in chunks for token in chunk):
        if not math.isfinite(token.weight):
            raise ValueError(f"prompt: expected finite weights, got {token.weight} in {text!r}")
    return chunks


def _encode(
    encoders: TextEncoders,
    texts: Sequence[str],
    embeddings: Mapping[str, EmbeddingWord],
    clip_skip: int,
    *,
    is_plain: bool,
) -> Iterable[TextConditioning]:
    if not texts:
        return []
    virtual = [VirtualTokens(embeddings, side) for side in range(len(encoders.models))]
    sides = [
        [framed_chunks(tokenizer, text, tokens, is_plain=is_plain) for text in texts]
        for tokenizer, tokens in zip(encoders.tokenizers, virtual, strict=True)
    ]
    empty = [framed_chunks(tokenizer, "")[0] for tokenizer in encoders.tokenizers]
    for rows in zip(*sides, strict=True):
        longest = max(map(len, rows))
        for chunks, nothing in zip(rows, empty, strict=True):
            # An embedding for one encoder alone can leave the other with fewer.
            chunks += [nothing] * (longest - len(chunks))
    encoded = [
        _encode_with(_Reader(model, tokens, clip_skip, encoders.is_normed), prompts, nothing)
        for model, prompts, nothing, tokens in zip(
            encoders.models, sides, empty, virtual, strict=True
        )
    ]
    return [
        TextConditioning(torch.cat([states for states, _ in parts], -1), parts[-1][1])
        for parts in zip(*encoded, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Reader:
    """One encoder, and which of its hidden states is read."""

    model: Any
    virtual: VirtualTokens
    clip_skip: int
    is_normed: bool

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (n, 77) ids: the chosen hidden state (n, 77, C) and the pooled vector (n, P)."""
        output = self.model(ids, output_hidden_states=True)
        layers = len(output.hidden_states) - 1
        if self.clip_skip > layers:
            return output.last_hidden_state, _pooled(output)
        chosen = output.hidden_states[-self.clip_skip]
        return final_norm(self.model)(chosen) if self.is_normed else chosen, _pooled(output)


def _encode_with(
    reader: _Reader, prompts: Sequence[Sequence[tuple[Token, ...]]], nothing: Sequence[Token]
) -> list[tuple[Tensor, Tensor]]:
    """Encode chunks with one encoder: hidden states (1, 77·k, C) and the pooled vector (1, P) of the first chunk."""
    empty = _ids(nothing)
    rows = dict.fromkeys(_ids(chunk) for chunks in prompts for chunk in chunks)
    if any(token.weight != 1 for chunks in prompts for chunk in chunks for token in chunk):
        rows[empty] = None
    place = {row: index for index, row in enumerate(rows)}
    states, pooled = _run(reader, list(rows))
    encoded = []
    for chunks in prompts:
        at = [place[_ids(chunk)] for chunk in chunks]
        weights = torch.tensor([[token.weight for token in chunk] for chunk in chunks])
        empty_states = states[place.get(empty, 0)]
        weighted = apply_weights(states[at], weights, empty_states)
        encoded.append((weighted.flatten(0, 1).unsqueeze(0), pooled[at[:1]]))
    return encoded


def _ids(chunk: Iterable[Token]) -> tuple[int, ...]:
    return tuple(token.id for token in chunk)


@torch.no_grad()
def _run(reader: _Reader, rows: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Encode chunks as `_Reader.read` does, in float32 on the CPU."""
    states, pooled = [], []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        ids, opened = reader.virtual.spliced(reader.model, rows[start : start + ROWS_AT_ONCE])
        with opened:
            chosen, vectors = reader.read(ids)
        states.append(chosen.float().cpu())
        pooled.append(vectors.float().cpu())
    return torch.cat(states), torch.cat(pooled)


def _pooled(output: Any) -> Tensor:
    """Take the projected vector of the EOS token, where the encoder has a projection."""
    pooled: Tensor = output.text_embeds if "text_embeds" in output else output.pooler_output
    return pooled


def _join(parts: Sequence[TextConditioning], pooled: int) -> TextConditioning:
    return TextConditioning(
        prompt_embeds=torch.cat([part.prompt_embeds for part in parts], 1),
        pooled_prompt_embeds=torch.stack(
            [part.pooled_prompt_embeds for part in parts[:pooled]]
        ).sum(0),
    )
