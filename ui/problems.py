"""What went wrong, as Gradio shows it: the one place where the engine's errors become toasts."""

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from engine import EngineError


@contextmanager
def as_toast(title: str = "This cannot be painted") -> Iterator[None]:
    """Show an engine error to the person as one sentence; anything else is a defect and goes on its way.

    Gradio reads the text of a toast as HTML; an error may quote what somebody wrote.
    """
    try:
        yield
    except EngineError as error:
        text = html.escape(str(error), quote=False)
        raise gr.Error(text, title=title, print_exception=False) from error
