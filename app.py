"""Pochade: settings, store, worker and page, put together on one port. The only file that knows everyone."""

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine import Catalog, Library, TextRequest
    from jobs import EngineSpec, Jobs

log = logging.getLogger("pochade")

HERE = Path(__file__).resolve().parent
MAX_RANDOM_SEED = 2**53
"""Random seeds stay below this, so that a browser shows them exactly."""
DEVICES = ("auto", "cpu", "cuda", "mps")
MAX_UPLOAD = "64mb"
MAX_SESSIONS = 200
"""Browser tabs whose state Gradio keeps; each takes about 170 kB."""


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
    once: str | None
    negative_prompt: str
    seed: int | None
    output: Path
    allow_origin: tuple[str, ...]
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

    flag(
        "host",
        "0.0.0.0" if "SPACE_ID" in environment else "127.0.0.1",
        "address to listen on; 0.0.0.0 lets the whole network in",
    )
    flag("port", "7860", "port to listen on", type=int)
    parser.add_argument(
        "--share",
        action="store_true",
        default=_is_on(parser, "POCHADE_SHARE", environment.get("POCHADE_SHARE", "")),
        help="make a public link through Gradio's tunnel",
    )
    flag("preset", None, "settings the page starts from: a file name of presets/ without .json")
    flag(
        "model",
        None,
        "base model: a name in MODELS_DIR/checkpoints, a Hugging Face id, or 'pocket'",
    )
    flag("models-dir", str(HERE / "models"), "folder of the weights", type=Path)
    flag("fooocus-dir", None, "a Fooocus folder: its models, presets, styles are used", type=Path)
    flag(
        "expansion-model",
        None,
        "language model that writes the words of Fooocus V2: a folder or a Hugging Face id",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        default=_is_on(parser, "POCHADE_ALLOW_PICKLE", environment.get("POCHADE_ALLOW_PICKLE", "")),
        help="read embeddings (.pt, .bin) that are pickled files; safe ones are safetensors",
    )
    flag("styles-dir", None, "folder of your own styles (JSON files, also of Fooocus)", type=Path)
    flag("wildcards-dir", None, "folder of your own wildcard lists (text files)", type=Path)
    flag("output-dir", "outputs", "folder of the finished pictures, a folder a day", type=Path)
    flag("data-dir", "data", "folder of the database and of input pictures", type=Path)
    flag("device", "auto", "device to paint on: auto, cpu, cuda, cuda:1 or mps")
    flag("once", None, "paint this prompt without the page, and leave", metavar="PROMPT")
    flag("negative-prompt", "", "with --once: what the picture must not show")
    flag("seed", None, "with --once: the seed; drawn when not given", type=int)
    flag("output", "picture.png", "with --once: file to write (.png, .jpg or .webp)", type=Path)
    parser.add_argument(
        "--allow-origin",
        action="append",
        metavar="NAME",
        help="host name that pages of the studio may be reached under or come from; may be repeated",
    )
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    flag("log-level", "INFO", "how much is logged", type=str.upper, choices=levels)
    values = vars(parser.parse_args(arguments))
    named = values["allow_origin"] or environment.get("POCHADE_ALLOW_ORIGIN", "").split(",")
    values["allow_origin"] = tuple(filter(None, named))
    return Settings(**values)


def _is_on(parser: argparse.ArgumentParser, name: str, value: str) -> bool:
    """Read a switch from the environment."""
    if value.lower() in ("", "0", "false", "no", "off"):
        return False
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    parser.error(f"{name}: expected 1 or 0, true or false, yes or no, on or off, got {value!r}")


def paint_once(settings: Settings) -> int:
    """Paint one picture with the thread worker, without page or database, and write it whole; returns the exit status."""
    from engine import Failed, ImageReady, is_terminal, plan, plan_to_json
    from jobs import ThreadWorker
    from jobs.protocol import JobEvent, Run, WorkerGone

    library = open_library(settings)
    request = once_request(settings, library)
    engine = engine_spec(settings, library.catalog).build()
    worker = ThreadWorker(lambda: engine)
    worker.start()
    job = plan(request, library, seed=secrets.randbelow(MAX_RANDOM_SEED))
    worker.send(Run("once", plan_to_json(job), {}))
    try:
        while True:
            try:
                message = worker.receive(timeout=1.0)
            except WorkerGone as error:
                sys.stderr.write(f"{error}\n")
                return 1
            if not isinstance(message, JobEvent):
                continue
            match message.event:
                case ImageReady(data=data, seed=seed, size=size):
                    save_picture(settings.output, data)
                    sys.stdout.write(f"{settings.output}: {size}, seed {seed}\n")
                case Failed(message=reason):
                    sys.stderr.write(f"{reason}\n")
                    return 1
                case _:
                    pass
            if is_terminal(message.event):
                return 0
    finally:
        worker.stop(timeout=5.0)


def once_request(settings: Settings, library: "Library") -> "TextRequest":
    """Make the request of ``--once``: the preset, the prompt, one picture, the format of the output's ending.

    Raises:
        InvalidRequest: a flag breaks its field's rule.
    """
    from engine import InvalidRequest, TextRequest

    formats = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
    suffix = settings.output.suffix.lower()
    if suffix not in formats:
        raise InvalidRequest(
            "output",
            f"expected a name ending in {', '.join(formats)}, got {settings.output.name!r}",
        )
    return TextRequest.parse(
        {
            **starting_point(settings, library),
            "prompt": settings.once,
            "negative_prompt": settings.negative_prompt,
            "num_images": 1,
            "seed": settings.seed,
            "output_format": formats[suffix],
        }
    )


def open_library(settings: Settings) -> "Library":
    """Read what requests may name: weights, presets, styles, wildcards.

    Raises:
        EngineError: the base model that is asked for is not there, or a preset is not one.
    """
    from engine import Shelves, read_library
    from engine.prompt.expansion import expand

    shelves = Shelves(
        models_dir=settings.models_dir,
        fooocus_dir=settings.fooocus_dir,
        presets_dirs=(settings.data_dir / "presets",),
        styles_dirs=() if settings.styles_dir is None else (settings.styles_dir,),
        wildcards_dirs=() if settings.wildcards_dir is None else (settings.wildcards_dir,),
    )
    return read_library(
        shelves, settings.model, expand=None if settings.expansion_model else expand
    )


def starting_point(settings: Settings, library: "Library") -> dict[str, Any]:
    """Write the request that the page starts from: of the preset that is named, else of one that needs nothing fetched.

    Raises:
        InvalidRequest: there is no preset of that name.
    """
    from engine import InvalidRequest

    catalog, presets = library.catalog, library.presets
    if settings.preset is None and library.defaults is not None:
        return dict(library.defaults)
    if settings.preset is None:
        name = "pocket" if catalog.default().is_pocket else "default"
        return presets[name].for_own_model(catalog)
    if settings.preset not in presets:
        names = ", ".join(presets)
        raise InvalidRequest("preset", f"expected one of {names}, got {settings.preset!r}")
    preset = presets[settings.preset]
    return preset.for_own_model(catalog) if settings.model else preset.starting_point(catalog)


def engine_spec(settings: Settings, catalog: "Catalog") -> "EngineSpec":
    """Say how a worker builds the engine; nothing of it is imported here."""
    from jobs import EngineSpec

    arguments = {
        "models_dir": str(settings.models_dir),
        "model": settings.model,
        "device": settings.device,
        "fooocus_dir": str(settings.fooocus_dir) if settings.fooocus_dir else None,
        "expansion_model": settings.expansion_model,
        "allow_pickle": settings.allow_pickle,
    }
    return EngineSpec(
        factory="engine.engine:create", kwargs=arguments, base_model=catalog.default().name
    )


def save_picture(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        InvalidRequest: it cannot be written there.
    """
    from engine import InvalidRequest
    from jobs.files import write_whole

    try:
        write_whole(path, data)
    except OSError as error:
        problem = f"expected a place that can be written, got {str(path)!r} ({error.strerror})"
        raise InvalidRequest("output", problem) from error


def serve(settings: Settings) -> int:
    """Run page, queue and worker until a signal says stop; returns the exit status."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from starlette.middleware import Middleware

    from guard import LOOPBACK, Guard
    from jobs import Jobs, JobSettings, ProcessWorker

    library = open_library(settings)
    spec = engine_spec(settings, library.catalog)
    preset = starting_point(settings, library)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    jobs = Jobs(
        JobSettings(data_dir=settings.data_dir, output_dir=settings.output_dir),
        lambda: ProcessWorker(spec),
    )
    require_known_device(settings.device)
    require_free_port(settings)
    jobs.open()
    import ui

    studio = ui.Studio(
        jobs=jobs,
        library=library,
        preset=preset,
        read_library=lambda: open_library(settings),
        presets_dir=settings.data_dir / "presets",
    )
    demo = ui.build(studio)
    demo.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=settings.share,
        app_kwargs={
            "routes": [*health_routes(jobs), *ui.routes(studio)],
            "middleware": [Middleware(Guard, allowed=home_names(settings))],
        },
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=MAX_UPLOAD,
        state_session_capacity=MAX_SESSIONS,
        **ui.launch_options(),
    )
    jobs.start()
    if settings.share or settings.host not in LOOPBACK:
        log.warning("everyone who reaches this address sees and can delete the same history")
    sys.stdout.write(f"Pochade is open at http://{settings.host}:{settings.port}\n")
    sys.stdout.flush()
    try:
        while not stop.wait(timeout=1.0):
            pass
    finally:
        log.info(
            "stopping; jobs that run may take some seconds to end, the others wait for the next start"
        )
        jobs.close()
        demo.close()
    return 0


def home_names(settings: Settings) -> list[str]:
    """List the host names the studio answers to, besides loopback and bare addresses."""
    names = [
        *settings.allow_origin,
        settings.host,
        socket.gethostname(),
        f"{socket.gethostname()}.local",
    ]
    if settings.share:
        names.append(".gradio.live")
    if "SPACE_HOST" in os.environ:
        names += [os.environ["SPACE_HOST"], "huggingface.co"]
    return names


def require_known_device(device: str) -> None:
    """Refuse a device that no machine has; whether this one has it, the worker says.

    Raises:
        InvalidRequest: it is no kind of device.
    """
    from engine import InvalidRequest

    if device.partition(":")[0] not in DEVICES:
        raise InvalidRequest("device", f"expected one of {', '.join(DEVICES)}, got {device!r}")


def require_free_port(settings: Settings) -> None:
    """Make sure that nobody listens where the page is to be.

    Raises:
        InvalidRequest: somebody does, or the address is not this machine's.
    """
    from engine import InvalidRequest

    if not 0 < settings.port < 65536:
        raise InvalidRequest("port", f"expected 1 to 65535, got {settings.port}")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            place = f"{settings.host}:{settings.port}"
            raise InvalidRequest(
                "port", f"expected a free address, got {place} ({error})"
            ) from error


def health_routes(jobs: "Jobs") -> list[Any]:
    """Answer ``/health/live`` while the server runs, ``/health/ready`` while pictures can be painted."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(request: Request) -> JSONResponse:
        status = jobs.status()
        is_ready = status.state == "ready"
        return JSONResponse({"status": status.state}, status_code=200 if is_ready else 503)

    return [Route("/health/live", live), Route("/health/ready", ready)]


def main() -> int:
    """Run the studio, or paint once; returns the exit status."""
    settings = read_settings(sys.argv[1:], os.environ)
    os.environ["POCHADE_LOG_LEVEL"] = settings.log_level  # the worker process reads it
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for library in ("httpx", "httpx2", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
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
