"""How the page looks and what it is launched with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

STATIC = Path(__file__).parent / "static"
_STYLES = (
    "theme.css",
    "pictures.css",
    "downloads.css",
    "lora_library.css",
    "grid_sheet.css",
    "place.css",
)


def launch_options() -> dict[str, Any]:
    """Arguments of ``demo.launch`` that belong to the page; the caller adds address, limits and routes."""
    return {
        "theme": _theme(),
        "css": "\n".join((STATIC / name).read_text(encoding="utf-8") for name in _STYLES),
        "head": '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">',
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
    }


def island(
    module: str,
    elem_id: str,
    *,
    events: tuple[str, ...] = (),
    value: Any = None,
    label: str | None = None,
    classes: tuple[str, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> gr.HTML:
    """Make a part of the page that one of our modules draws.

    The template is empty and stays so: what a visitor wrote never comes near it, since Gradio runs templates as code.

    Args:
        module: File in ``ui/static``; its function ``mount`` is called.
        elem_id: Name of the part.
        events: Gradio events that the module triggers; Gradio finds them by name in the script.
        value: What the part holds, where it stands for a field.
        label: Name of that field.
        classes: CSS classes.
        facts: What the module needs to know; nothing that a visitor wrote.
    """
    boot = (STATIC / "boot.js").read_text(encoding="utf-8")
    known = json.dumps({"module": module, "events": events, "facts": facts or {}})
    return gr.HTML(
        value,
        label=label,
        elem_id=elem_id,
        elem_classes=list(classes),
        html_template="<div></div>",
        js_on_load=(
            f"const pochade = {known};\n"
            "const context = {element, props, trigger, watch, facts: pochade.facts};\n"
            f"{boot}"
        ),
        apply_default_css=False,
    )


def _theme() -> gr.themes.Base:
    return gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        spacing_size="sm",
        radius_size="md",
        text_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    ).set(
        color_accent="*primary_600",
        slider_color="*primary_600",
        slider_color_dark="*primary_600",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_600",
        checkbox_border_color_selected="*primary_600",
        checkbox_border_color_selected_dark="*primary_600",
    )
