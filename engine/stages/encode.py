"""From the texts of an image to the two branches of guidance."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.convert import convert_text
from engine.conditioning.embeddings import EmbeddingFiles, embeddings_key, find_embeddings
from engine.conditioning.learned_words import NO_WORDS, LearnedWords
from engine.conditioning.size_ids import (
    NEGATIVE_SCORE,
    POSITIVE_SCORE,
    SizeIds,
    refiner_ids,
    size_ids,
)
from engine.conditioning.text import (
    PromptTexts,
    TextConditioning,
    TextEncoders,
    encode_prompts,
    final_norm,
    repeat_to_common_length,
)
from engine.families import Family
from engine.models.checkpoints import LoadedModel
from engine.plan import ImagePlan, Plan

_KEPT = 16

Branches = tuple[Branch, Branch | None]
"""The positive branch, and the negative one where guidance needs it."""


class PromptEncoder:
    """Encodes the prompts of one loaded model, and remembers the latest ones.

    Whole images are remembered, not single texts: what is encoded in other company differs in the last bit.
    """

    def __init__(
        self, model: LoadedModel, find_embedding: Callable[[str], Path | None] = lambda name: None
    ) -> None:
        """Encode with the text encoders of `model`.

        Args:
            model: The base model.
            find_embedding: The file of a textual inversion by name; None when there is none that may be read.
        """
        self._model = model
        self._encoders = TextEncoders.of_pipeline(model.pipeline)
        self._find_embedding = find_embedding
        self._embedding_files = EmbeddingFiles(find_embedding, self._encoders.widths)
        self._known: OrderedDict[tuple[object, ...], list[TextConditioning]] = OrderedDict()

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in a token's vector, for each text encoder."""
        return self._encoders.widths

    def forget(self) -> None:
        """Drop what is remembered: the encoders' weights are others now."""
        self._known.clear()

    def branches(self, plan: Plan, image: ImagePlan) -> Branches:
        """Encode the texts of one image.

        Texts of unequal length are repeated to a common one, so that both branches share a UNet call, unless that would
        be more than four times the shorter. Pooled vectors and sizes are for SDXL alone.
        """
        texts = self._encode(plan, image)
        if self._model.family == "sd15":
            return self._branches(
                [(text.prompt_embeds, None) for text in texts], [None, None], self._model.unet
            )
        sizes = plan.size_conditioning
        scales = (sizes.positive_scale, sizes.negative_scale)
        grid = max(1, sizes.grid * plan.native_size // 1024)
        ids = [size_ids(plan.sample_size, scale, end=sizes.end, grid=grid) for scale in scales]
        told = [(text.prompt_embeds, text.pooled_prompt_embeds) for text in texts]
        return self._branches(told, ids, self._model.unet)

    def refiner_branches(self, plan: Plan, image: ImagePlan, family: Family, unet: Any) -> Branches:
        """Turn the texts of one image into what a refiner is told.

        Args:
            plan: Of the job.
            image: One of its images.
            family: Of the refiner.
            unet: The refiner's.
        """
        if family == "sdxl":
            return self.branches(plan, image)
        norm = final_norm(self._model.pipeline.text_encoder)
        told = [convert_text(text, family, norm) for text in self._encode(plan, image)]
        scores = (POSITIVE_SCORE, NEGATIVE_SCORE)
        ids = [refiner_ids(plan.sample_size, score) for score in scores]
        return self._branches(told, ids if family == "sdxl-refiner" else [None, None], unet)

    def _encode(self, plan: Plan, image: ImagePlan) -> Sequence[TextConditioning]:
        prompts = [PromptTexts(image.positive, image.pooled_positive)]
        if plan.guidance.needs_negative:
            prompts.append(PromptTexts(image.negative, image.pooled_negative))
        learned = self._learned(plan)
        prompts = [
            PromptTexts(tuple(map(learned.named, prompt.texts)), prompt.pooled)
            for prompt in prompts
        ]
        texts = [text for prompt in prompts for text in prompt.texts]
        lookup = learned.lookup(self._embedding_files)
        embeddings = find_embeddings(texts, lookup, self._encoders.widths)
        is_plain = plan.studio is not None and not plan.studio.is_weighted
        key = (*prompts, plan.clip_skip, is_plain, embeddings_key(texts, embeddings))
        if key not in self._known:
            try:
                self._known[key] = encode_prompts(
                    self._encoders,
                    prompts,
                    clip_skip=plan.clip_skip,
                    embeddings=embeddings,
                    is_plain=is_plain,
                )
            finally:
                self._model.put_texts_off()
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _learned(self, plan: Plan) -> LearnedWords:
        """Read the words that a plan teaches."""
        if plan.studio is None or not plan.studio.embeddings:
            return NO_WORDS
        return LearnedWords(plan.studio.embeddings, self._find_embedding, self._encoders.widths)

    def _branches(
        self,
        told: Sequence[tuple[Tensor, Tensor | None]],
        ids: Sequence[SizeIds | None],
        unet: Any,
    ) -> Branches:
        """Put contexts and pooled vectors where the UNet is; both branches at one length where that is cheap."""
        place = {"device": self._model.device, "dtype": unet.dtype}
        lengths = [context.shape[1] for context, _ in told]
        repeats = repeat_to_common_length(*lengths) if len(told) == 2 else None
        branches = [
            Branch(
                context=context.repeat(1, times, 1).to(**place),
                pooled=None if pooled is None else pooled.to(**place),
                size_ids=size,
            )
            for (context, pooled), size, times in zip(told, ids, repeats or (1, 1), strict=False)
        ]
        return branches[0], branches[1] if len(branches) == 2 else None
