"""Pochade: settings, store, worker and page, put together on one port. The only file that knows everyone."""

import argparse
import contextlib
import ctypes
import gc
import logging
import os
import queue
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from settings import Settings, read_settings
from space import (
    find_space,
    is_kept,
    is_space,
    is_zero_gpu,
    keep_caches,
    usual_address,
    usual_folder,
)

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import Route

    from api.keys import Keys
    from engine import Catalog, Library, Plan, TextRequest
    from engine.net import DownloadPolicy
    from jobs import Build, EngineSpec, Jobs, RayCluster
    from people import Admin, Entrance, People

log = logging.getLogger("pochade")

MAX_RANDOM_SEED = 2**53
"""Random seeds stay below this, so that a browser shows them exactly."""
MAX_UPLOAD = "64mb"
MAX_SESSIONS = 100
"""Browser tabs whose state Gradio keeps; each takes about half a megabyte, and one that is forgotten starts afresh."""
STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the studio."""
M_ARENA_MAX = -8
"""From malloc.h: how many heaps there may be."""
JOBS_END_S = 20
"""Seconds that jobs which run get at the end, as people are told; see `jobs.JobSettings.drain_s`."""


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
        shelves,
        settings.model,
        expand=None if settings.expansion_model else expand,
        may_fetch=download_policy(settings).allows,
    )


def download_policy(settings: Settings) -> "DownloadPolicy":
    """Say from where weights may come that a request names by their address (design D11)."""
    from engine.net import DownloadPolicy

    hosts = frozenset(host.lower() for host in settings.allow_downloads)
    return DownloadPolicy(is_loopback=is_loopback(settings), hosts=hosts)


def is_loopback(settings: Settings) -> bool:
    """Say whether only this machine's people reach the studio."""
    from guard import LOOPBACK

    return settings.host in LOOPBACK and not settings.share


def starting_point(settings: Settings, library: "Library") -> dict[str, Any]:
    """Write the request that the page starts from: of the preset that is named, else of one that needs nothing fetched.

    Raises:
        InvalidRequest: there is no preset of that name.
    """
    from engine import InvalidRequest

    catalog, presets = library.catalog, library.presets
    if settings.preset is None and library.defaults is not None:
        return library.usable(library.defaults, with_base=settings.model is None)
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
        "models_dir": str(settings.models_dir.absolute()),
        "model": settings.model,
        "device": settings.device.partition(",")[0],
        "fooocus_dir": str(settings.fooocus_dir.absolute()) if settings.fooocus_dir else None,
        "presets_dir": str((settings.data_dir / "presets").absolute()),
        "expansion_model": settings.expansion_model,
        "allow_pickle": settings.allow_pickle,
        "allow_private_urls": settings.allow_private_urls,
        "require_safety": settings.require_safety,
        "warm_gb": settings.warm_gb,
        "memory": settings.memory,
        "compile_dir": str(settings.data_dir / "compiled") if settings.compile else None,
    }
    return EngineSpec(
        factory="engine.engine:create", kwargs=arguments, base_model=catalog.default().name
    )


def open_cluster(settings: Settings) -> "RayCluster | None":
    """Find the machines that paint besides this one, where there are any; of its own cluster ``local`` is left to start.

    Raises:
        InvalidRequest: Ray is not installed.
    """
    from jobs import RayCluster

    return None if settings.ray is None else RayCluster(settings.ray)


def hire(
    settings: Settings, spec: "EngineSpec", cluster: "RayCluster | None"
) -> "Mapping[str, Build]":
    """Say what makes each worker, by its name.

    Raises:
        InvalidRequest: a device is none, or the cluster does not answer.
    """
    from jobs.gpus import count_gpus
    from jobs.staff import devices_of, on_cluster, on_devices

    if cluster is None:
        return on_devices(spec, devices_of(settings.device, count_gpus))
    log.info("asking the Ray cluster (%s)", settings.ray)
    return on_cluster(spec, cluster, settings.ray_workers)


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
    prepare_process()
    from starlette.middleware import Middleware

    from api import Front
    from guard import Guard
    from people import Door, pages

    library = open_library(settings)
    spec = engine_spec(settings, library.catalog)
    preset = starting_point(settings, library)
    signals = hear_signals()
    require_known_device(settings.device)
    require_entry(settings)
    require_free_port(settings)
    cluster = open_cluster(settings)
    jobs = make_jobs(settings, spec, library, cluster, lambda: demo)
    jobs.open()
    import ui
    from api.settings import KEEP_ALIVE_S
    from engine.net import Fetcher
    from ui.image_input import Uploads
    from ui.lora_library import LoraLibrary

    studio = ui.Studio(
        jobs=jobs,
        library=library,
        preset=preset,
        read_library=lambda: open_library(settings),
        presets_dir=settings.data_dir / "presets",
        uploads=Uploads(settings.data_dir / "uploads"),
        loras=LoraLibrary(settings.models_dir, settings.data_dir),
        fetcher=Fetcher(allow_private=settings.allow_private_urls),
        owner_of=visitor_name,
        visitor_of=visitor_facts,
        place_of=place_facts(settings),
        seconds_of=lent_seconds(jobs),
    )
    demo = ui.build(studio)
    programs = Programs(settings, jobs, lambda: studio.library)
    admin = open_admin(settings, jobs)
    entrance = open_entrance(settings, admin.people)
    own_pages = pages(entrance, admin, sign_in_routes(entrance))
    demo.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=settings.share,
        app_kwargs={
            "routes": ui.routes(studio),
            "middleware": [
                *lent_middleware(),
                Middleware(Guard, allowed=home_names(settings)),
                Middleware(Front, api=programs.face),
                Middleware(Door, entrance=entrance, pages=own_pages),
            ],
        },
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=MAX_UPLOAD,
        state_session_capacity=MAX_SESSIONS,
        **ui.launch_options(),
    )
    demo.server.config.timeout_keep_alive = KEEP_ALIVE_S
    jobs.listen(lambda event: studio.look_for_arrivals())
    jobs.start()
    programs.start()
    gc.collect()
    gc.freeze()  # or each full collection walks all that start-up made, and nobody is answered for 0.2 s
    if not is_loopback(settings) and not is_space(os.environ) and not admin.people.list():
        log.warning("the page is closed until there are people (python app.py people add NAME)")
    sys.stdout.write(f"Pochade is open at http://{settings.host}:{settings.port}\n")
    sys.stdout.flush()
    try:
        while not is_told(signals, timeout_s=1.0):
            see_off(admin)
    finally:
        begin_to_end(jobs)
        programs.stop()
        jobs.close()
        if cluster is not None:
            cluster.close()
        demo.close()
    return 0


def hear_signals() -> "queue.SimpleQueue[int]":
    """Have signals to stop come into a queue; one may come while another is taken, which an `Event` cannot bear."""
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in STOPPING:
        signal.signal(number, lambda number, _: told.put(number))
    return told


def is_told(signals: "queue.SimpleQueue[int]", timeout_s: float) -> bool:
    """Wait for a signal to stop; False when none came in time."""
    try:
        signals.get(timeout=timeout_s)
    except queue.Empty:
        return False
    return True


def prepare_process() -> None:
    """Keep Gradio from telling its makers, and let all threads take memory from one heap.

    With a heap of its own for each thread, as glibc has it, what a burst has filled stays with one thread.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def begin_to_end(jobs: "Jobs") -> None:
    """Say at once what the end waits for, and let a second signal not wait."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    running, waiting = jobs.running(), jobs.waiting()
    words = ["Stopping."]
    if running:
        words.append(f"Jobs that run get some {JOBS_END_S} seconds to end: {running}.")
    if waiting:
        words.append(f"Jobs that wait go on at the next start: {waiting}.")
    words.append("Ctrl+C again stops now; what ran then begins anew at the next start.")
    sys.stderr.write(" ".join(words) + "\n")
    sys.stderr.flush()


def make_jobs(
    settings: Settings,
    spec: "EngineSpec",
    library: "Library",
    cluster: "RayCluster | None",
    page: "Callable[[], Any]",
) -> "Jobs":
    """Make the queue and what paints for it: processes of their own, but on ZeroGPU calls that `page` is charged for.

    Raises:
        EngineError: on ZeroGPU, the engine cannot be built; elsewhere, a device is none or the cluster does not answer.
    """
    from jobs import Jobs, JobSettings

    facts = JobSettings(data_dir=settings.data_dir, output_dir=settings.output_dir)
    if not is_zero_gpu(os.environ):
        return Jobs(facts, hire(settings, spec, cluster))
    from engine import Fetch, Fetches, Plan
    from engine.needed import needed_weights
    from engine.net import Fetcher
    from zero_gpu import open_jobs

    guard = Fetcher(allow_private=settings.allow_private_urls)
    fetches = Fetches(guard, allow_pickle=settings.allow_pickle)

    def fetch(plan: Plan | None) -> list[Fetch]:
        catalog = library.catalog
        return fetches.start([catalog.default()] if plan is None else needed_weights(catalog, plan))

    return open_jobs(facts, spec, fetch, page)


def lent_middleware() -> "list[Middleware]":
    """List what ZeroGPU needs around every route; nothing elsewhere."""
    from starlette.middleware import Middleware

    if not is_zero_gpu(os.environ):
        return []
    from zero_gpu import KeepVisitor

    return [Middleware(KeepVisitor)]


def lent_seconds(jobs: "Jobs") -> "Callable[[Plan], int] | None":
    """Make what says for how long a plan needs a card that is lent; None where none is."""
    if not is_zero_gpu(os.environ):
        return None
    from zero_gpu import LentJobs

    assert isinstance(jobs, LentJobs)
    return jobs.seconds


def see_off(admin: "Admin") -> None:
    """Do what is left to do for people who were removed, also by the command; the next call does what fails now."""
    from engine import EngineError

    try:
        admin.see_off()
    except EngineError as error:
        log.warning("people: %s", error)


class Programs:
    """The fal face and what belongs to it: its files, its keys, the webhooks it sends."""

    def __init__(self, settings: Settings, jobs: "Jobs", library: "Callable[[], Library]") -> None:
        """Put it together; nothing is sent or swept before `start`."""
        from api import Api, build
        from api.files import FileStore
        from api.keys import Keys
        from api.signing import open_signing_key
        from api.webhooks import Webhooks
        from engine.net import Fetcher

        self._files = FileStore(settings.data_dir, settings.output_dir)
        key, is_home = open_signing_key(settings.data_dir), is_loopback(settings)
        keys = Keys(settings.data_dir)
        api = Api(
            jobs=jobs,
            library=library,
            start=program_start(settings, library()),
            files=self._files,
            keys=keys,
            fetcher=Fetcher(allow_private=settings.allow_private_urls),
            signing_key=key,
            public_url=settings.public_url,
            is_open=openness(settings, keys),
            aliases=read_aliases(settings.alias),
            require_safety=settings.require_safety,
        )
        self.face = build(api)
        """The ASGI application."""
        allow_private = settings.allow_private_urls or is_home
        self._webhooks = Webhooks(api, key, Fetcher(allow_private=allow_private))

    def start(self) -> None:
        """Sweep old files and send webhooks from now on."""
        self._files.start()
        self._webhooks.start()

    def stop(self) -> None:
        """End both."""
        self._webhooks.stop()
        self._files.close()


def openness(settings: Settings, keys: "Keys") -> "Callable[[], bool]":
    """Make what says whether programs need no key now, as people and keys come and go.

    None is needed while there are no people, and either it is a Space or only this machine reaches the studio and there are
    no keys.
    """
    from people import People

    people = People(settings.data_dir)
    is_home, is_public = is_loopback(settings), is_space(os.environ)

    def is_open() -> bool:
        return (is_public or (is_home and not keys.list())) and not people.list()

    return is_open


def program_start(settings: Settings, library: "Library") -> dict[str, Any]:
    """Write the base model and VAE that programs' pictures start from; all else starts from fal's defaults (design D9)."""
    more = starting_point(settings, library).get("advanced", {})
    return {name: more[name] for name in ("base_model", "vae") if more.get(name)}


def read_aliases(named: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=MODEL`` pairs.

    Raises:
        InvalidRequest: one is not such a pair.
    """
    from engine import InvalidRequest

    pairs = [item.partition("=") for item in named]
    for name, _, model in pairs:
        if not name or not model:
            raise InvalidRequest("alias", f"expected NAME=MODEL, got {name!r}")
    return {name: model for name, _, model in pairs}


def open_entrance(settings: Settings, people: "People") -> "Entrance":
    """Make what says who comes in to the page: everybody while it has no people, and nobody else reaches it or it is a Space."""
    from api.tickets import Tickets, read_secret
    from people import Entrance, SpaceEntrance

    tickets, space = Tickets(read_secret(settings.data_dir / "login.key")), find_space(os.environ)
    if space is not None:
        return SpaceEntrance(people, tickets, space.author)
    return Entrance(people, tickets, is_home=is_loopback(settings))


def sign_in_routes(entrance: "Entrance") -> "list[Route]":
    """List the pages by which visitors of a Space sign in; none where it has no OAuth application."""
    from people import Accounts

    space = find_space(os.environ)
    if space is None or space.sign_in is None or space.host is None:
        return []
    return Accounts(space, space.sign_in, entrance.tickets).routes


def open_admin(settings: Settings, jobs: "Jobs") -> "Admin":
    """Make what owners look after."""
    from api.keys import Keys
    from people import Admin, People

    data_dir = settings.data_dir
    folders = {
        "Pictures": settings.output_dir,
        "Data": data_dir,
        "Models": settings.models_dir,
    }
    return Admin(people=People(data_dir), keys=Keys(data_dir), jobs=jobs, folders=folders)


def visitor_name(request: "Request") -> str:
    """Name whose jobs and pictures a visitor of the page sees; the door has said who it is."""
    from people import VISITOR

    name: str = request.scope[VISITOR].name
    return name


def visitor_facts(request: "Request") -> dict[str, str] | None:
    """Write what the page shows of a visitor; None where nobody has to log in, and everybody may change everything."""
    from people import VISITOR
    from people.accounts import ACCOUNT

    visitor = request.scope[VISITOR]
    if not visitor.has_login:
        return None if visitor.role == "owner" else {"name": "", "role": visitor.role}
    if visitor.name.startswith(ACCOUNT):
        name = visitor.name.removeprefix(ACCOUNT)
        return {"name": name, "role": visitor.role, "account": "huggingface"}
    return {"name": visitor.name, "role": visitor.role}


def place_facts(settings: Settings) -> "Callable[[Request], dict[str, Any]] | None":
    """Make what tells visitors of a Space what it is; None anywhere else."""
    from people import VISITOR

    space = find_space(os.environ)
    if space is None:
        return None
    facts = {
        "hardware": space.hardware,
        "kept": is_kept(settings.output_dir) and is_kept(settings.data_dir),
        "sign_in": space.sign_in is not None and space.host is not None,
        "address": usual_address(os.environ) or "",
        "duplicate": f"https://huggingface.co/spaces/{space.id}?duplicate=true",
    }
    return lambda request: {**facts, "known": request.scope[VISITOR].cookie is None}


def require_entry(settings: Settings) -> None:
    """Refuse to let others in while nobody needs a login or a key; a Space says on its page that it is open.

    Raises:
        InvalidRequest: the studio listens to others, and has neither people nor a key.
    """
    from api.keys import Keys
    from engine import InvalidRequest
    from people import People

    if is_loopback(settings) or is_space(os.environ):
        return
    if People(settings.data_dir).list() or Keys(settings.data_dir).list():
        return
    place = "--share" if settings.share else f"--host {settings.host}"
    ways = "python app.py people add NAME --owner; for programs alone, keys add NAME"
    problem = f"expected people before others are let in ({ways})"
    raise InvalidRequest("host", f"{problem}, got {place} and none")


def home_names(settings: Settings) -> list[str]:
    """List the host names the studio answers to, besides loopback and bare addresses."""
    from api.addresses import FAL_HOSTS

    names = [
        *settings.allow_origin,
        *FAL_HOSTS,
        settings.host,
        socket.gethostname(),
        f"{socket.gethostname()}.local",
    ]
    if settings.share:
        names.append(".gradio.live")
    if space := find_space(os.environ):
        names += [*space.hosts, "huggingface.co"]
    return names


def require_known_device(named: str) -> None:
    """Refuse a device that no machine has; whether this one has it is looked at later.

    Raises:
        InvalidRequest: it is no kind of device.
    """
    from jobs.staff import devices_of

    devices_of(named, lambda: None)


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


def keys(arguments: Sequence[str]) -> int:
    """Run ``python app.py keys [--data-dir DIR] add | list | revoke``; returns the exit status."""
    from api.keys import keys_command

    return run_command("keys", keys_command, arguments)


def people(arguments: Sequence[str]) -> int:
    """Run ``python app.py people [--data-dir DIR] add | list | remove | password``; returns the exit status."""
    from people.command import people_command

    return run_command("people", people_command, arguments)


def run_command(
    name: str, command: Callable[[Sequence[str], Path], int], arguments: Sequence[str]
) -> int:
    """Run a command on the data folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"app.py {name}", add_help=False)
    default = Path(os.environ.get("POCHADE_DATA_DIR") or usual_folder(os.environ, "data"))
    parser.add_argument("--data-dir", type=Path, default=default)
    known, rest = parser.parse_known_args(arguments)
    return command(rest, known.data_dir)


def main() -> int:
    """Run the studio, or paint once; returns the exit status."""
    if sys.argv[1:2] == ["keys"]:
        return keys(sys.argv[2:])
    if sys.argv[1:2] == ["people"]:
        return people(sys.argv[2:])
    settings = read_settings(sys.argv[1:], os.environ)
    os.environ["POCHADE_LOG_LEVEL"] = settings.log_level  # the worker process reads it
    from engine.errors import EngineError
    from engine.logs import write_log

    write_log(settings.log_level)

    try:
        if settings.once is not None:
            return paint_once(settings)
        if find_space(os.environ):
            keep_caches(os.environ, settings.data_dir)
        return serve(settings)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
