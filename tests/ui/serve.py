"""Opens the page with the painting engine, to look at it: ``python -m tests.ui.serve [PORT] [SECONDS_A_STEP]``."""

import sys
import tempfile
from pathlib import Path

import ui
from tests.ui.studios import full_library, open_jobs
from ui.image_input import Uploads
from ui.lora_library import LoraLibrary


def serve(port: int, step_s: float) -> None:
    """Run until it is interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = open_jobs(Path(folder), step_s=step_s)
        studio = ui.Studio(
            jobs=jobs,
            library=full_library(),
            read_library=full_library,
            presets_dir=Path(folder) / "presets",
            uploads=Uploads(Path(folder) / "uploads"),
            loras=LoraLibrary(Path(folder) / "models", Path(folder) / "data"),
        )
        demo = ui.build(studio)
        demo.launch(
            **ui.launch_options(),
            server_name="127.0.0.1",
            server_port=port,
            app_kwargs={"routes": ui.routes(studio)},
        )
        jobs.close()


if __name__ == "__main__":
    serve(
        *(
            kind(given)
            for kind, given in zip((int, float), [*sys.argv[1:3], "7860", "0.2"][:2], strict=True)
        )
    )
