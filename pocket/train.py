"""Train the pocket model, one stage after another: `python -m pocket.train STAGE --work FOLDER`.

Every stage goes on from its checkpoint in the work folder, if there is one.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocket.cache import fill_cache
from pocket.export import write_adapters, write_folder
from pocket.fit import Run
from pocket.paths import fill_paths
from pocket.seed import unpack
from pocket.team import Team, run_team
from pocket.train_control import train_control
from pocket.train_image_prompt import train_image_prompt
from pocket.train_lcm import train_lcm
from pocket.train_preview import train_preview
from pocket.train_sight import train_sight
from pocket.train_style import train_style
from pocket.train_text import train_text
from pocket.train_unet import train_unet
from pocket.train_vae import train_vae
from pocket.twins import HINTS, fill_hints, fill_twins

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "models" / "pocket"
STAGES = ("text", "vae", "cache", "unet", "preview", "paths", "lcm", "style", "write", "adapters")
PARTNER_STAGES = ("sight", "twins", "image_prompt", "edges", "layout")


def _stage(team: Team, stage: str, options: argparse.Namespace) -> None:
    """Run one stage in one process of the team."""
    level = logging.INFO if team.leads else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    work: Path = options.work
    if stage == "text":
        train_text(team, work, steps=options.steps or 500, batch=64)
    elif stage == "vae":
        train_vae(team, work, steps=(options.steps or 800, options.decoder_steps), batch=8)
    elif stage == "cache":
        fill_cache(team, work, count=options.drawings)
    elif stage == "unet":
        run = Run(
            "unet",
            options.steps or 8000,
            options.rate,
            options.batch,
            warmup=150,
            ema=0.998,
            decay=0.01,
            cooldown=0.4,
        )
        start = work if options.resume_from else None
        train_unet(team, work, run, start, compiled=options.compile)
    elif stage == "preview":
        train_preview(team, work, steps=options.steps or 2500, batch=32)
    elif stage == "paths":
        fill_paths(team, work, count=options.paths)
    elif stage == "lcm":
        run = Run("lcm", options.steps or 1500, options.rate, options.batch, ema=0.99, cooldown=0.5)
        train_lcm(team, work, run)
    elif stage == "style":
        run = Run(
            "style", options.steps or 1200, options.rate, options.batch, ema=0.99, cooldown=0.5
        )
        train_style(team, work, run, drawings=4096)
    elif stage in PARTNER_STAGES:
        _partner_stage(team, stage, options)
    else:
        raise ValueError(f"stage: expected one of {(*STAGES, *PARTNER_STAGES)}, got {stage!r}")


def _partner_stage(team: Team, stage: str, options: argparse.Namespace) -> None:
    """Run one stage of what images are followed with."""
    work: Path = options.work
    run = Run(stage, options.steps or 4000, options.rate, options.batch, decay=0.01)
    if stage == "twins":
        if team.leads:
            fill_twins(work, count=options.drawings)
            fill_hints(work, HINTS)
    elif stage == "sight":
        train_sight(team, work, replace(run, steps=options.steps or 1500, ema=0.99, decay=0.0))
    elif stage == "image_prompt":
        train_image_prompt(team, work, run)
    else:
        train_control(team, work, run, options.control)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, *PARTNER_STAGES))
    parser.add_argument("--work", type=Path, required=True, help="folder of data and checkpoints")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--steps", type=int, help="length of the stage; each has its own default")
    parser.add_argument("--decoder-steps", type=int, default=0, help="vae: then the decoder alone")
    parser.add_argument("--drawings", type=int, default=30000, help="cache: square pictures")
    parser.add_argument("--paths", type=int, default=1600, help="paths: how many in all")
    parser.add_argument("--batch", type=int, default=32, help="pictures a process and step")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="learning rate")
    parser.add_argument("--compile", action="store_true", help="unet: compile the square bucket")
    parser.add_argument("--control", type=Path, help="layout: a finished ControlNet to begin from")
    parser.add_argument("--resume-from", type=Path, help="a finished folder to begin from")
    parser.add_argument(
        "--to", type=Path, default=MODEL, help="write, adapters: the folder to write"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage."""
    options = _options(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.resume_from:
        unpack(options.resume_from, options.work)
    if options.stage == "write":
        write_folder(options.work, options.to)
    elif options.stage == "adapters":
        write_adapters(options.work, options.to)
    else:
        run_team(options.processes, _stage, options.stage, options)


if __name__ == "__main__":
    main()
