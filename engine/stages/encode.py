"""From the texts of an image to the two branches of guidance."""

from collections import OrderedDict
from collections.abc import Sequence

from engine.conditioning.branch import Branch
from engine.conditioning.size_ids import size_ids
from engine.conditioning.text import (
    PromptTexts,
    TextConditioning,
    TextEncoders,
    encode_prompts,
    repeat_to_common_length,
)
from engine.models.checkpoints import LoadedModel
from engine.plan import ImagePlan, Plan

GRID = 64
"""Pixels that target sizes are rounded to at the native size 1024."""
_KEPT = 16

Branches = tuple[Branch, Branch | None]
"""The positive branch, and the negative one where guidance needs it."""


class PromptEncoder:
    """Encodes the prompts of one loaded model, and remembers the latest ones.

    Whole images are remembered, not single texts: what is encoded in other company differs in the last bit.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._encoders = TextEncoders.of_pipeline(model.pipeline)
        self._known: OrderedDict[tuple[object, ...], list[TextConditioning]] = OrderedDict()

    def branches(self, plan: Plan, image: ImagePlan) -> Branches:
        """Encode the texts of one image.

        Texts of unequal length are repeated to a common one, so that both branches share a UNet call, unless that would
        be more than four times the shorter.
        """
        conditionings = self._encode(plan, image)
        if len(conditionings) == 1:
            return self._branch(
                plan, conditionings[0], 1, plan.size_conditioning.positive_scale
            ), None
        positive, negative = conditionings
        lengths = (positive.prompt_embeds.shape[1], negative.prompt_embeds.shape[1])
        repeats = repeat_to_common_length(*lengths) or (1, 1)
        return (
            self._branch(plan, positive, repeats[0], plan.size_conditioning.positive_scale),
            self._branch(plan, negative, repeats[1], plan.size_conditioning.negative_scale),
        )

    def _encode(self, plan: Plan, image: ImagePlan) -> Sequence[TextConditioning]:
        prompts = [PromptTexts(image.positive, image.pooled_positive)]
        if plan.guidance.needs_negative:
            prompts.append(PromptTexts(image.negative, image.pooled_negative))
        key = (*prompts, plan.clip_skip)
        if key not in self._known:
            self._known[key] = encode_prompts(self._encoders, prompts, clip_skip=plan.clip_skip)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _branch(self, plan: Plan, text: TextConditioning, repeats: int, scale: float) -> Branch:
        place = {"device": self._model.device, "dtype": self._model.unet.dtype}
        ids = size_ids(
            plan.sample_size,
            scale,
            end=plan.size_conditioning.end,
            grid=max(1, GRID * plan.native_size // 1024),
        )
        return Branch(
            context=text.prompt_embeds.repeat(1, repeats, 1).to(**place),
            pooled=text.pooled_prompt_embeds.to(**place),
            size_ids=ids,
        )
