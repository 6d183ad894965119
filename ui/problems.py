"""What went wrong, as Gradio shows it: the one place where the engine's errors become toasts."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from engine import EngineError


@contextmanager
def as_toast() -> Iterator[None]:
    """Show an engine error to the person as one sentence; anything else is a defect and goes on its way."""
    try:
        yield
    except EngineError as error:
        raise gr.Error(str(error), title="This cannot be painted", print_exception=False) from error
