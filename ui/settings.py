"""The settings column: what decides the picture beside its words."""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from engine import Catalog, Checkpoint, TextRequest
from engine.geometry import reduced_ratio
from engine.requests import Advanced
from ui.form import Part, component

STUDIOS_OWN = ""
"""The choice that leaves the base model to the studio, so that a new checkpoint takes over after a restart."""


def settings(catalog: Catalog, preset: Mapping[str, Any]) -> dict[str, Part]:
    """Lay out the column.

    Args:
        catalog: The base models to choose from.
        preset: Values by dotted field name.

    Returns:
        The components by dotted field name.
    """

    def part(name: str, **look: Any) -> Part:
        return component(TextRequest, name, preset, **look)

    fields = {
        "performance": part("performance", info=None),
        "aspect_ratio": _sizes(catalog, preset),
        "num_images": part("num_images", info=None),
        "negative_prompt": part(
            "negative_prompt", lines=2, info=None, placeholder="What to leave out"
        ),
        "seed": _seed(preset),
        "guidance_scale": part("guidance_scale"),
        "sharpness": part("sharpness"),
        "output_format": part("output_format", info=None),
    }
    special: dict[str, Callable[[], Part]] = {
        "base_model": lambda: _base_model(catalog, preset),
        "num_inference_steps": lambda: part(
            "advanced.num_inference_steps", placeholder="As the performance says"
        ),
    }
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        for leaf in Advanced.model_fields:
            name = f"advanced.{leaf}"
            fields[name] = special[leaf]() if leaf in special else part(name)
    _follow_base_model(catalog, fields)
    return fields


def sizes_of(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Write the sizes of a base model for the page: what is shown and what is asked for."""
    return [
        (f"{size.width}×{size.height}   {reduced_ratio(size)}", str(size))
        for size in checkpoint.sizes
    ]


def _sizes(catalog: Catalog, preset: Mapping[str, Any]) -> Part:
    base = catalog.checkpoint(preset.get("advanced.base_model"))
    offered = {str(size) for size in base.sizes}
    wanted = preset.get("aspect_ratio")
    return component(
        TextRequest,
        "aspect_ratio",
        preset,
        kind=gr.Dropdown,
        choices=sizes_of(base),
        value=wanted if wanted in offered else str(base.default_size),
        allow_custom_value=True,
        info=None,
    )


def _seed(preset: Mapping[str, Any]) -> Part:
    with gr.Row(elem_id="seed_row"):
        seed = component(
            TextRequest, "seed", preset, placeholder="Random", info=None, scale=1, min_width=0
        )
        clear = gr.Button("Random", size="sm", elem_id="random_seed", scale=0, min_width=80)
    clear.click(
        lambda: "", None, seed, queue=False, show_progress="hidden", api_visibility="private"
    )
    return seed


def _base_model(catalog: Catalog, preset: Mapping[str, Any]) -> Part:
    names = [item.name for item in catalog.checkpoints]
    own = (f"The studio's own ({catalog.default().name})", STUDIOS_OWN)
    return component(
        TextRequest,
        "advanced.base_model",
        preset,
        kind=gr.Dropdown,
        choices=[own, *((name, name) for name in names)],
        value=preset.get("advanced.base_model") or STUDIOS_OWN,
        visible=len(names) > 1,
    )


def _follow_base_model(catalog: Catalog, fields: Mapping[str, Part]) -> None:
    """Offer the sizes of whichever base model is chosen, and leave a size that only another one offers."""
    chosen, size = fields["advanced.base_model"], fields["aspect_ratio"]

    def follow(name: str, wanted: str) -> Any:
        base = catalog.checkpoint(name or None)
        foreign = {str(other) for item in catalog.checkpoints for other in item.sizes}
        foreign -= {str(own) for own in base.sizes}
        value = str(base.default_size) if wanted in foreign else wanted
        return gr.update(choices=sizes_of(base), value=value)

    chosen.change(
        follow,
        [chosen, size],
        size,
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )
