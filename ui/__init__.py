"""The Gradio face: one page that submits to the queue and watches it. Imports no torch and never meets the API face."""

from ui.page import build
from ui.studio import Studio
from ui.theme import launch_options
from ui.web import routes

__all__ = ["Studio", "build", "launch_options", "routes"]
