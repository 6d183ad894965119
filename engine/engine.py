"""The engine: jobs in, events out, one model call at a time.

`admit` takes a plan, `step` moves everything that runs one model call on and tells what happened, `skip` and `cancel` end
images between two steps. One thread calls it. Knows nothing of queues, owners, HTTP or Gradio.
"""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from engine.begin import begin_image
from engine.catalog import Catalog, Checkpoint, Weights
from engine.chains import Chains
from engine.errors import EngineError, ModelNotFound, OutOfMemory
from engine.events import Event, Progress
from engine.fetching import Fetches
from engine.finishing import Finishing
from engine.first_picture import paint_first
from engine.library import Shelves, read_weights
from engine.logs import of_job
from engine.loop import step
from engine.models.compiling import keep_compiled
from engine.models.devices import choose_device, free_bytes, make_current, use_threads
from engine.models.expander import ModelExpander
from engine.models.hashes import FileHashes, models_hashes
from engine.models.levers import Levers
from engine.models.memory import AUTO, Memory
from engine.needed import needed_weights
from engine.net import Fetcher
from engine.palette import Palette
from engine.plan import ImagePlan, Plan, with_expansion
from engine.room import Room, ran_out
from engine.showing import Place, show
from engine.stages.preview import PreviewPrinter
from engine.stages.safety import SafetyCheck
from engine.starts import Beginning, Starts
from engine.warm_models import usual_budget
from engine.work import Work

log = logging.getLogger(__name__)

CPU_ROWS = 8
"""UNet rows that run together on a CPU at most (design D8)."""
GPU_ROWS = 16
"""The same on a GPU, until memory runs out for the first time."""
TURN_S = 2.0
"""How long jobs that need the weights in force go first while others wait (design D8)."""
FETCH_LOOK_S = 0.5
"""How long to wait for files from the network before telling how far they are."""


def create(  # noqa: PLR0913  (one for each flag of the program)
    models_dir: str,
    model: str | None = None,
    device: str = "auto",
    *,
    fooocus_dir: str | None = None,
    presets_dir: str | None = None,
    expansion_model: str | None = None,
    allow_pickle: bool = False,
    allow_private_urls: bool = False,
    require_safety: bool = False,
    warm_gb: float | None = None,
    levers: Levers | None = None,
    memory: str = AUTO,
    compile_dir: str | None = None,
) -> "Engine":
    """Build an engine in the process that is to paint; arguments are plain text so that they cross processes.

    Args:
        models_dir: Folder of the weights.
        model: Name of the base model that is the default.
        device: Where to paint.
        fooocus_dir: A Fooocus folder whose weights are used too.
        presets_dir: Folder of a person's own presets, which may say where weights can be fetched.
        expansion_model: Folder or hub id of a language model that writes the words of *Fooocus V2*.
        allow_pickle: Whether weights may be read from pickled files.
        allow_private_urls: Whether weights that a request names may come from private addresses.
        require_safety: Whether pictures that are to be checked and cannot be are refused, rather than left unchecked; the
            safety checker is fetched then.
        warm_gb: Memory in gigabytes that base models may take together, so that the latest used need no loading; one stays in
            any case. None is 0.6 of a GPU's memory, or 0.4 of the machine's.
        levers: How UNets are run; None is as pays on the device.
        memory: What of a base model stays on the device while it is not at work: ``auto``, ``resident``, ``text-off``, ``fp8`` or
            ``streamed``.
        compile_dir: Folder where compiled parts of UNets are kept; None compiles nothing but what the levers ask for.

    Raises:
        InvalidRequest: the device is not there, or cannot do with that memory.
        ModelNotFound: `model` is not below `models_dir`.
    """
    chosen = choose_device(device)
    make_current(chosen)
    use_threads(chosen)
    if compile_dir is not None:
        keep_compiled(Path(compile_dir))
        levers = dataclasses.replace(levers or Levers.usual(chosen), compile=True)
    shelves = Shelves(
        models_dir=Path(models_dir),
        fooocus_dir=Path(fooocus_dir) if fooocus_dir else None,
        presets_dirs=(Path(presets_dir),) if presets_dir else (),
    )
    engine = Engine(
        lambda: read_weights(shelves, model),
        chosen,
        models_hashes(shelves.models_dir),
        guard=Fetcher(allow_private=allow_private_urls),
        expansion_model=expansion_model,
        allow_pickle=allow_pickle,
        require_safety=require_safety,
        warm_bytes=usual_budget(chosen) if warm_gb is None else int(warm_gb * 1e9),
        levers=levers,
        memory=memory,
    )
    log.info("%s; %.1f GB free", engine.device, free_bytes(chosen) / 1e9)
    return engine


class Engine:
    """Paints the images of several jobs together on one device."""

    def __init__(  # noqa: PLR0913  (what `create` settles)
        self,
        read_catalog: Callable[[], Catalog],
        device: torch.device,
        hashes: FileHashes,
        *,
        guard: Fetcher,
        expansion_model: str | None = None,
        allow_pickle: bool = False,
        require_safety: bool = False,
        warm_bytes: int = 0,
        levers: Levers | None = None,
        memory: str = AUTO,
    ) -> None:
        self._read_catalog = read_catalog
        self._device = device
        self._palette = Palette(
            read_catalog(),
            device,
            allow_pickle=allow_pickle,
            budget=warm_bytes,
            levers=levers,
            memory=Memory(device, memory),
        )
        self._fetches = Fetches(guard, allow_pickle=allow_pickle)
        self._expander = ModelExpander(expansion_model) if expansion_model else None
        self._hashes = hashes
        self._safety = SafetyCheck(
            device, hashes.get, is_required=require_safety, allow_pickle=allow_pickle
        )
        self._works: dict[str, Work] = {}
        self._chains = Chains(self._admit)
        self._starts = Starts(device, allow_pickle=allow_pickle)
        self._counters: Counter[str] = Counter()
        rows = CPU_ROWS if device.type == "cpu" else GPU_ROWS
        self._room = Room(self._palette, rows, self._forget)
        self._printer: PreviewPrinter[Place] = PreviewPrinter(device)
        self._finishing = Finishing(self._palette, self._safety, hashes, self._counters)

    def preload(self, base_model: str) -> None:
        """Bring a base model into memory now rather than at its first job, and paint a tiny picture with it.

        Raises:
            EngineError: it is not there, not SDXL, or too large for the device.
        """
        palette = self._palette
        while ran_out(lambda: paint_first(palette.load(base_model), palette.catalog), base_model):
            tier = palette.tier
            palette.let_go()
            if palette.memory.step_down(tier) is None:
                raise OutOfMemory(f"{base_model}: the device has too little memory for it")

    def slots(self) -> int:
        """Jobs that it makes sense to admit at a time."""
        return self._room.max_rows // 2

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._works

    def counters(self) -> Mapping[str, int]:
        """``unet_calls`` and ``unet_rows`` since the start, and ``images`` made."""
        return dict(self._counters)

    def load(self, base_model: str) -> None:
        """Bring a base model into memory and paint nothing, for a device that is lent later.

        Raises:
            EngineError: it is not there, or no base model.
        """
        self._palette.load(base_model)

    def hash_weights(self, plan: Plan) -> None:
        """Work out the hashes that a plan's pictures record, before any lent time goes by with it.

        Raises:
            ModelNotFound: weights that it needs are not in the catalog.
        """
        for item in self._weights_of(plan) if plan.save_metadata else ():
            with suppress(OSError):  # one that is gone is told of when the plan is painted
                self._hashes.get(item.path)

    @property
    def device(self) -> str:
        """Name the device, for people, and what of a base model stays on it where not all has to."""
        return self._palette.memory.named(self._palette.tier)

    def admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job; its images start as there is room for them, and when all its weights are there.

        Raises:
            ModelNotFound: weights that it needs are not in the catalog.
            InvalidRequest: its pictures must be checked, and nothing can check them.
        """
        if plan.enhancements:
            self._weights_of(plan)
            self._chains.begin(job_id, plan, inputs)
        else:
            self._admit(job_id, plan, inputs)

    def _admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job, or a part of one, that is done in one go."""
        weights = self._weights_of(plan)
        checker = self._safety.find(self._palette.catalog, plan)
        needed = weights if checker is None else [*weights, checker]
        work = self._works[job_id] = Work(job_id, plan, inputs, self._fetches.start(needed))
        has_model = not plan.needs_base_model or self._palette.has_base(plan)
        if not work.fetches and not has_model:
            work.outbox.append(Progress(stage="loading"))

    def _weights_of(self, plan: Plan) -> list[Checkpoint | Weights]:
        """Find the weights of a plan; those that came after the last look into the folders count too."""
        try:
            return needed_weights(self._palette.catalog, plan)
        except ModelNotFound:
            self._palette.catalog = self._read_catalog()
            return needed_weights(self._palette.catalog, plan)

    def skip(self, job_id: str) -> None:
        """End the image of a job that is nearest to its end; the others go on."""
        if work := self._works.get(job_id):
            work.skip()

    def cancel(self, job_id: str) -> None:
        """End a job; images that are ready stay."""
        self._chains.forget(job_id)
        if work := self._works.get(job_id):
            work.stop()

    def step(self) -> Sequence[tuple[str, Event]]:
        """Start what fits, advance all running images by one model call, finish what is done.

        What is already known is told before anything slow begins.
        """
        return self._chains.follow(self._step())

    def _step(self) -> Sequence[tuple[str, Event]]:
        if told := self._tell():
            return told
        self._watch_fetches()
        self._start_images()
        busy = self._busy()
        if ran_out(partial(self._advance, busy), ",".join(work.job_id for work in busy)):
            self._room.after_step(busy)
        return self._tell()

    def _busy(self) -> list[Work]:
        """List the jobs with images that run."""
        return [work for work in self._works.values() if work.running]

    def _advance(self, busy: Sequence[Work]) -> None:
        """Make one model call for all that run, and do what follows from it."""
        if images := [image for work in busy for image in work.running.values()]:
            started = time.monotonic()
            calls = step(images, apart=len(busy) == 1, max_rows=self._room.max_rows)
            self._counters["unet_calls"] += calls
            self._counters["unet_rows"] += sum(work.rows for work in busy)
            for work in busy:
                work.timings["sample"] += time.monotonic() - started
            show(busy, self._palette, self._printer)
            self._finish_images(busy)

    def _tell(self) -> list[tuple[str, Event]]:
        """Empty the outboxes, and let go of what is over."""
        told = [(job_id, event) for job_id, work in self._works.items() for event in work.outbox]
        self._works = {job_id: work for job_id, work in self._works.items() if not work.is_over}
        for work in self._works.values():
            work.outbox.clear()
        return told

    def _watch_fetches(self) -> None:
        """Tell how far files are on their way; while nothing else is to do, wait a little for them."""
        waiting = [work for work in self._works.values() if work.fetches]
        if waiting and not any(work.running or work.is_ready for work in self._works.values()):
            waiting[0].fetches[0].wait(FETCH_LOOK_S)
        for work in waiting:
            if error := work.look_at_fetches():
                work.fail(error)
            elif not work.fetches:  # what came has a name of its own from now on
                self._palette.catalog = self._read_catalog()

    def _start_images(self) -> None:
        """Begin images while their rows fit: one of each job in turn, so that a large job leaves room for others.

        A job that has to look at its picture for longer does so a little at a time; meanwhile others of its weights begin.
        """
        looking: set[Work] = set()
        while waiting := self._startable(looking):
            work = self._next(waiting)
            if not self._fits(work):
                return
            try:
                with of_job(work.job_id):
                    is_short = ran_out(partial(self._start_image, work, looking), work.job_id)
            except EngineError as error:
                work.fail(error)
                continue
            if is_short:
                self._room.after_start(work, self._busy())

    def _startable(self, looking: Set[Work]) -> list[Work]:
        """List the jobs whose images may start, beside those that look at their pictures in this step."""
        return [
            work
            for work in self._works.values()
            if work.is_ready
            and work not in looking
            and (not looking or self._palette.serves(work.plan))
        ]

    def _next(self, waiting: Sequence[Work]) -> Work:
        """Choose whose turn it is: for a while that of jobs which need the weights that are in force (design D8)."""
        served = [work for work in waiting if self._palette.serves(work.plan)]
        is_their_turn = time.monotonic() - self._palette.changed_at < TURN_S
        chosen = served if served and (is_their_turn or len(served) == len(waiting)) else waiting
        return min(chosen, key=lambda work: len(work.running))

    def _fits(self, work: Work) -> bool:
        rows = sum(other.rows for other in self._works.values())
        is_lone = len(self._works) == 1
        if rows and (is_lone or work.needs_room or not self._palette.serves(work.plan)):
            return False  # a lone job's pictures come one after the other, as if each were alone
        return not rows or rows + work.rows_per_image <= self._room.max_rows

    def _start_image(self, work: Work, looking: set[Work]) -> None:
        """Begin one image; a job that has to look at its picture for longer is added to those that do."""
        started = time.monotonic()
        if work.plan.needs_base_model:
            self._palette.bring(work.plan)
        self._safety.prepare(self._palette.catalog, work.plan)
        loaded = time.monotonic()
        if not work.flags and not work.running and work.looking is None:
            self._hashes.prefetch(item.path for item in self._weights_of(work.plan))
        work.timings["load"] += loaded - started
        beginning = work.beginning or self._look_at_start(work)
        if beginning is None:
            looking.add(work)
        else:
            self._begin(work, beginning)
        work.timings["encode"] += time.monotonic() - loaded

    def _look_at_start(self, work: Work) -> Beginning | None:
        if work.looking is None:
            palette = self._palette
            work.looking = self._starts.begin(
                lambda: palette.model, palette.catalog, work.plan, work.pictures
            )
        return work.look_on()

    def _begin(self, work: Work, beginning: Beginning) -> None:
        """Begin the next image of a job; one that needs no painting is ready at once."""
        index = work.waiting[0]
        if beginning.text is not None:
            work.finish_text(beginning.text)
            return
        if beginning.result is not None:
            ready = self._finishing.ready(work, index, Image.fromarray(beginning.result))
            work.waiting.pop(0)  # not before: where memory runs out it is begun anew
            work.finish_image(ready)
            return
        image, model = self._expanded(work, index), self._palette.model
        followed = model.guides.follow(self._palette.catalog, work.plan, work.pictures)
        work.running[index] = begin_image(model, image, beginning, followed)
        work.waiting.pop(0)

    def _forget(self) -> None:
        """Give up the helpers in memory; they are read again when they are needed."""
        self._starts.forget()
        self._safety.forget()

    def _expanded(self, work: Work, index: int) -> ImagePlan:
        """Give the plan of an image, with the words that an expansion model adds to it."""
        image = work.plan.images[index]
        if not image.is_to_expand or self._expander is None:
            return image
        text = self._expander.expand(image.prompt.partition("\n")[0], image.seed)
        work.plan = with_expansion(work.plan, index, text)
        return work.plan.images[index]

    def _finish_images(self, busy: Sequence[Work]) -> None:
        for work in busy:
            for index in work.done():
                with of_job(work.job_id):
                    is_short = ran_out(partial(self._finish_image, work, index), work.job_id)
                if is_short:
                    self._room.give_up(work, busy)
                    return

    def _finish_image(self, work: Work, index: int) -> None:
        work.finish_image(self._finishing.decode(work, index))
