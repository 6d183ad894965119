"""A studio for programs, as `app.py` puts it together, without the page and with the scripted engine.

python -m tests.clients.server PORT FOLDER
"""

import sys
from pathlib import Path

import uvicorn

from api import Front
from api.settings import KEEP_ALIVE_S
from app import Programs, home_names
from engine import Library
from engine.catalog import Catalog, Checkpoint, Weights
from engine.library import ROOT
from engine.prompt.styles import read_styles
from guard import Guard
from jobs import Jobs, JobSettings, ThreadWorker
from settings import read_settings
from tests.jobs.scripted_engine import ScriptedEngine

MODES = ("sdxl_lcm_lora", "sdxl_lightning_4step_lora", "sd_xl_offset_example-lora_1.0")
SLOTS = 4
STEP_S = 0.02


def library() -> Library:
    """What may be named: a toy model, the LoRAs of fal's defaults, all styles."""
    weights = [Weights(name=f"{name}.safetensors", path=Path(name), kind="lora") for name in MODES]
    return Library(
        catalog=Catalog([Checkpoint(name="toy", path=Path("toy"))], weights),
        styles=read_styles([ROOT / "styles"]),
        defaults={},
    )


async def page(scope, receive, send):
    """Stands for the page."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"the page"})


def main(port: int, folder: Path) -> None:
    folders = ["--data-dir", str(folder / "data"), "--output-dir", str(folder / "outputs")]
    settings = read_settings(["--port", str(port), *folders], {})
    jobs = Jobs(
        JobSettings(data_dir=settings.data_dir, output_dir=settings.output_dir, drain_s=2.0),
        lambda: ThreadWorker(lambda: ScriptedEngine(slots=SLOTS, step_s=STEP_S)),
    )
    jobs.start()
    programs = Programs(settings, jobs, library)
    programs.start()
    app = Guard(Front(page, programs.face), allowed=home_names(settings))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    programs.stop()
    jobs.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
