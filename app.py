"""Pochade: settings, store, worker and page, put together on one port. The only file that knows everyone."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MAX_RANDOM_SEED = 2**53
"""Random seeds stay below this, so that a browser shows them exactly."""
MAX_UPLOAD = "64mb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the studio runs; each field is a flag and an environment variable."""

    host: str
    port: int
    share: bool
    preset: str | None
    model: str | None
    models_dir: Path
    output_dir: Path
    data_dir: Path
    device: str
    once: str | None
    negative_prompt: str
    seed: int | None
    output: Path
    log_level: str


def read_settings(
    arguments: Sequence[str], environment: "os._Environ[str] | dict[str, str]"
) -> Settings:
    """Read the flags; each falls back to its environment variable ``POCHADE_<FLAG>``, then to its default."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Pochade, a local studio for SDXL pictures.",
        epilog="Every flag is also an environment variable: --models-dir is POCHADE_MODELS_DIR.",
    )

    def flag(name: str, default: Any, meaning: str, **more: Any) -> None:
        variable = "POCHADE_" + name.upper().replace("-", "_")
        shown = "" if default in (None, "") else f" (default: {default})"
        parser.add_argument(
            f"--{name}", default=environment.get(variable, default), help=meaning + shown, **more
        )

    flag("host", "127.0.0.1", "address to listen on; 0.0.0.0 lets the whole network in")
    flag("port", "7860", "port to listen on", type=int)
    parser.add_argument(
        "--share",
        action="store_true",
        default=environment.get("POCHADE_SHARE", "") not in ("", "0", "false"),
        help="make a public link through Gradio's tunnel",
    )
    flag("preset", None, "settings the page starts from: a file name of presets/ without .json")
    flag(
        "model",
        None,
        "base model: a name in MODELS_DIR/checkpoints, a Hugging Face id, or 'pocket'",
    )
    flag("models-dir", str(HERE / "models"), "folder of the weights", type=Path)
    flag("output-dir", "outputs", "folder of the finished pictures, a folder a day", type=Path)
    flag("data-dir", "data", "folder of the database and of input pictures", type=Path)
    flag("device", "auto", "device to paint on: auto, cpu, cuda, cuda:1 or mps")
    flag("once", None, "paint this prompt without the page, and leave", metavar="PROMPT")
    flag("negative-prompt", "", "with --once: what the picture must not show")
    flag("seed", None, "with --once: the seed; drawn when not given", type=int)
    flag("output", "picture.png", "with --once: file to write (.png, .jpg or .webp)", type=Path)
    flag("log-level", "INFO", "how much is logged: DEBUG, INFO, WARNING or ERROR")
    return Settings(**vars(parser.parse_args(arguments)))


def main() -> int:
    """Run the studio, or paint once; returns the exit status."""
    settings = read_settings(sys.argv[1:], os.environ)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from engine.errors import EngineError

    try:
        if settings.once is not None:
            return paint_once(settings)
        return serve(settings)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
