"""The page: one builder a tab. Knows nothing of what the tabs do."""

import gradio as gr

from ui.history_tab import history_tab
from ui.studio import Studio
from ui.text_tab import text_tab
from ui.theme import island


def build(studio: Studio) -> gr.Blocks:
    """Lay out the page; the caller launches it with `launch_options` and `routes`."""
    with gr.Blocks(title="Pochade", analytics_enabled=False, fill_width=True) as demo:
        island("masthead.js", "masthead")
        with gr.Tabs(elem_id="tabs", selected="text") as tabs:
            with gr.Tab("Text", id="text", elem_id="text_tab"):
                text_tab(studio, demo, tabs)
            with gr.Tab("History", id="history", elem_id="history_tab"):
                history_tab()
    return demo
