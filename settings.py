"""How the studio runs: every flag, each also an environment variable. The standard library only."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from space import is_space, usual_address, usual_folder, usual_port

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the studio runs; each field is a flag and an environment variable."""

    host: str
    port: int
    share: bool
    preset: str | None
    model: str | None
    models_dir: Path
    fooocus_dir: Path | None
    expansion_model: str | None
    allow_pickle: bool
    styles_dir: Path | None
    wildcards_dir: Path | None
    output_dir: Path
    data_dir: Path
    device: str
    ray: str | None
    ray_workers: int | None
    once: str | None
    negative_prompt: str
    seed: int | None
    output: Path
    allow_origin: tuple[str, ...]
    alias: tuple[str, ...]
    allow_downloads: tuple[str, ...]
    allow_private_urls: bool
    public_url: str | None
    require_safety: bool
    warm_gb: float | None
    memory: str
    compile: bool
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

    def switch(name: str, meaning: str) -> None:
        variable = "POCHADE_" + name.upper().replace("-", "_")
        default = _is_on(parser, variable, environment.get(variable, ""))
        parser.add_argument(f"--{name}", action="store_true", default=default, help=meaning)

    def several(name: str, metavar: str, meaning: str) -> None:
        parser.add_argument(
            f"--{name}", action="append", metavar=metavar, help=f"{meaning}; may be repeated"
        )

    flag(
        "host",
        "0.0.0.0" if is_space(environment) else "127.0.0.1",
        "address to listen on; 0.0.0.0 lets the whole network in",
    )
    flag("port", usual_port(environment), "port to listen on", type=int)
    switch("share", "make a public link through Gradio's tunnel")
    flag("preset", None, "settings the page starts from: a file name of presets/ without .json")
    flag(
        "model",
        None,
        "base model: a name in MODELS_DIR/checkpoints, a Hugging Face id, or 'pocket'",
    )
    flag("models-dir", str(HERE / "models"), "folder of the weights", type=Path)
    flag(
        "fooocus-dir",
        None,
        "a Fooocus folder: its models, presets, styles, wildcards and settings are used in place",
        type=Path,
    )
    flag(
        "expansion-model",
        None,
        "language model that writes the words of Fooocus V2: a folder or a Hugging Face id",
    )
    switch("allow-pickle", "read any pickled file of weights (.pt, .pth, .bin, .patch)")
    flag("styles-dir", None, "folder of your own styles (JSON files, also of Fooocus)", type=Path)
    flag("wildcards-dir", None, "folder of your own wildcard lists (text files)", type=Path)
    outputs, data = (usual_folder(environment, name) for name in ("outputs", "data"))
    flag("output-dir", outputs, "folder of the finished pictures, a folder a day", type=Path)
    flag("data-dir", data, "folder of the database and of input pictures", type=Path)
    flag(
        "device",
        "auto",
        "device to paint on: auto, cpu, cuda, mps, or several: cuda:0,cuda:1; auto and cuda are all GPUs",
    )
    flag("ray", None, "Ray cluster that paints: HOST:PORT, auto, or local", metavar="ADDRESS")
    flag(
        "ray-workers",
        None,
        "with --ray: how many of its machines or GPUs paint (default: all)",
        type=int,
    )
    flag("once", None, "paint this prompt without the page, and leave", metavar="PROMPT")
    flag("negative-prompt", "", "with --once: what the picture must not show")
    flag("seed", None, "with --once: the seed; drawn when not given", type=int)
    flag("output", "picture.png", "with --once: file to write (.png, .jpg or .webp)", type=Path)
    several("allow-origin", "NAME", "host name that pages may be reached under or come from")
    several("alias", "NAME=MODEL", "other name of a base model, for programs")
    several("allow-downloads", "HOST", "host that weights which a program names may come from")
    switch("allow-private-urls", "read addresses of this machine and its network for programs")
    flag(
        "public-url",
        usual_address(environment),
        "address of the studio as programs reach it, where it is another",
    )
    switch("require-safety", "refuse pictures of programs that no safety checker has seen")
    flag(
        "warm-gb",
        None,
        "memory for base models that stay loaded, in GB; one always does",
        type=float,
    )
    tiers = ("auto", "resident", "text-off", "fp8", "streamed")
    flag("memory", "auto", "what of a base model stays on the device", choices=tiers)
    switch("compile", "compile parts of models in the background, for speed on a large GPU")
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    flag("log-level", "INFO", "how much is logged", type=str.upper, choices=levels)
    values = vars(parser.parse_args(arguments))
    for name in ("allow_origin", "alias", "allow_downloads"):
        named = values[name] or environment.get(f"POCHADE_{name.upper()}", "").split(",")
        values[name] = tuple(filter(None, named))
    return Settings(**values)


def _is_on(parser: argparse.ArgumentParser, name: str, value: str) -> bool:
    """Read a switch from the environment."""
    if value.lower() in ("", "0", "false", "no", "off"):
        return False
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    parser.error(f"{name}: expected 1 or 0, true or false, yes or no, on or off, got {value!r}")
