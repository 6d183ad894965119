"""The page: one desk to paint at, for two ways to ask, and what was painted. Knows nothing of what the tabs do."""

import gradio as gr

from ui.desk import desk
from ui.history_tab import history_tab
from ui.studio import Studio
from ui.theme import island


def build(studio: Studio) -> gr.Blocks:
    """Lay out the page; the caller launches it with `launch_options` and `routes`."""
    with gr.Blocks(title="Pochade", analytics_enabled=False, fill_width=True) as demo:
        island("masthead.js", "masthead")
        with gr.Tabs(elem_id="tabs", selected="text") as tabs:
            # Both ways to ask share the desk below, which the page brings to sight with either.
            with gr.Tab("Text", id="text", elem_id="text_tab"):
                pass
            with gr.Tab("LoRA", id="lora", elem_id="lora_tab"):
                pass
            with gr.Tab("History", id="history", elem_id="history_tab"):
                history_tab()
        desk(studio, demo, tabs)
        if studio.place_of is not None:
            island("place.js", "place")
    return demo
