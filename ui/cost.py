"""What a job costs where a graphics card is lent by the second: one line beside the button, before it is pressed."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from engine import EngineError, TextRequest, plan
from ui.form import Form, Part
from ui.studio import Studio

DECIDING = (
    "num_images",
    "performance",
    "aspect_ratio",
    "advanced.base_model",
    "advanced.num_inference_steps",
    "studio.num_inference_steps",
)
"""Fields that change it the most; the line is written anew with them."""


def cost_lines(studio: Studio, *used: str) -> list[gr.Markdown]:
    """Make the line of each form, by the class that shows it; none where nothing is lent."""
    if studio.seconds_of is None:
        return []
    return [gr.Markdown("", elem_id=f"cost_{it}", elem_classes=["cost", it]) for it in used]


def connect_costs(
    studio: Studio, demo: gr.Blocks, lines: Sequence[gr.Markdown], *forms: Form[TextRequest]
) -> None:
    """Let the lines say for how many seconds the jobs of their forms need the card.

    Args:
        studio: Knows how long jobs take.
        demo: The page, for what happens when it is opened.
        lines: As `cost_lines` made them; one is empty while its form cannot be read.
        forms: What is asked for, in the same order.
    """
    for line, form in zip(lines, forms, strict=False):
        parts = [form.fields[name] for name in DECIDING if name in form.fields]
        gr.on(
            [demo.load, *(part.change for part in parts)],
            partial(_tell, studio, form),
            form.inputs,
            line,
            show_progress="hidden",
            queue=False,
            trigger_mode="always_last",
            api_visibility="private",
        )


def _tell(studio: Studio, form: Form[TextRequest], values: Mapping[Part, Any]) -> str:
    assert studio.seconds_of is not None
    try:
        wanted = plan(form.read(values), studio.library, seed=0)
    except EngineError:
        return ""
    return f"Needs up to {studio.seconds_of(wanted)} s of ZeroGPU"
