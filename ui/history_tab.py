"""*History*: every picture that was made. The browser draws it from our routes; nothing passes through Gradio."""

from ui.theme import island


def history_tab() -> None:
    """Lay out the tab."""
    island("history.js", "history")
