"""One job inside the engine: which of its images wait, run, are made or skipped, and what must be told of it."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.begin import tiles_of
from engine.errors import EngineError, ModelNotFound
from engine.events import Event, Failed, Finished, ImageReady, ImageSkipped, Progress, Stopped
from engine.fetching import Fetch
from engine.loop import Running
from engine.plan import Plan
from engine.stages.kept_latents import Kept, latents_file, passes_file, recorder_of
from engine.starts import Beginning, Sizes


@dataclass(eq=False)
class Work:
    """A plan on its way. Every change leaves its event in `outbox`; exactly one terminal event is the last."""

    job_id: str
    plan: Plan
    """Grows the words of an expansion model as images start."""
    pictures: Mapping[str, Path] = field(default_factory=dict)
    """Files that were sent along, by the names that the plan uses."""
    fetches: list[Fetch] = field(default_factory=list)
    """Files that are on their way."""
    waiting: list[int] = field(default_factory=list)
    """Indices of the images that have not started."""
    running: dict[int, Running] = field(default_factory=dict)
    outbox: list[Event] = field(default_factory=list)
    beginning: Beginning | None = None
    """What the images start from; None until it is looked at."""
    looking: Sizes | None = None
    """The look at it, while it goes on."""
    timings: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds by stage."""
    over: int = 0
    """Images that are made or skipped."""
    flags: dict[int, bool] = field(default_factory=dict)
    """Of each image that is made, whether the safety checker took it for unsafe."""
    kept: dict[int, Kept] = field(default_factory=dict)
    """Latents of each image that is made, where the plan asks for them."""
    notes: list[str] = field(default_factory=list)
    """What the person is told at the end."""
    needs_room: bool = False
    """Whether the next image begins only when nothing else runs."""
    has_tried_again: bool = False
    """Whether the image at hand was begun anew though memory had not grown."""
    is_over: bool = False
    admitted_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.waiting = list(range(len(self.plan.images)))

    @property
    def is_ready(self) -> bool:
        """Whether there are images to start and all files are there."""
        return bool(self.waiting) and not self.fetches

    def look_at_fetches(self) -> EngineError | None:
        """Tell how far the files are; returns why one will not come."""
        for fetch in list(self.fetches):
            if fetch.is_over:
                self.fetches.remove(fetch)
                if isinstance(fetch.error, ModelNotFound):
                    return ModelNotFound(f"{fetch.error}. The preset Pocket paints without it.")
                if fetch.error is not None:
                    return fetch.error
        if self.fetches:
            self.outbox.append(self.fetches[0].progress())
        else:
            self.outbox.append(Progress(stage="loading"))
        return None

    @property
    def rows_per_image(self) -> int:
        """UNet rows that one image takes in each step."""
        if not self.plan.needs_base_model:
            return 0
        sides = 2 if self.plan.guidance.needs_negative else 1
        tiles = tiles_of(self.plan)
        return sides if tiles is None else sides * tiles.count

    @property
    def rows(self) -> int:
        """UNet rows that run now."""
        return self.rows_per_image * len(self.running)

    def progress(self, index: int, preview: bytes | None) -> Progress:
        """Say how far a running image is."""
        shares = [min(1.0, image.step / max(1, image.steps)) for image in self.running.values()]
        return Progress(
            stage="sampling",
            image=index,
            step=self.running[index].step,
            steps=self.running[index].steps,
            fraction=(self.over + sum(shares)) / len(self.plan.images),
            preview=preview,
        )

    def done(self) -> Iterator[int]:
        """List the running images whose sampling is complete."""
        return (index for index, image in list(self.running.items()) if image.is_done)

    def look_on(self) -> Beginning | None:
        """Go on looking at what the images start from; None until that is done, which settles the plan's sizes."""
        assert self.looking is not None
        try:
            share = next(self.looking)
        except StopIteration as end:
            self.beginning, self.looking = end.value, None
            self.plan = self.beginning.plan
            return self.beginning
        self.outbox.append(Progress(stage="enlarging", step=round(100 * share), steps=100))
        return None

    def finish_image(self, ready: ImageReady) -> None:
        """Note that one image is made."""
        self.needs_room = self.has_tried_again = False
        self.running.pop(ready.index, None)
        self.flags[ready.index] = ready.has_nsfw_concept
        self._tell_over(ready)

    def finish_text(self, text: str) -> None:
        """End the job with words in place of pictures."""
        self.timings["total"] = time.monotonic() - self.admitted_at
        timings = {stage: round(seconds, 4) for stage, seconds in self.timings.items()}
        self._end(Finished(timings=timings, text=text, notes=self._told_notes()))

    def extras(self, index: int, *, is_flagged: bool) -> dict[str, bytes]:
        """Keep the latents of a running image that is done; with the job's last one, write those of all as files.

        Of what the safety checker took for unsafe nothing is kept.
        """
        studio, image = self.plan.studio, self.running[index]
        if studio is None or not (studio.keeps_latents or studio.keeps_passes):
            return {}
        if not is_flagged:
            self.kept[index] = Kept(image.latents, recorder_of(image.setup.seams))
        if self.over + 1 < len(self.plan.images) or not self.kept:
            return {}
        kept = [item for _, item in sorted(self.kept.items())]
        files = {"latents": latents_file(kept)} if studio.keeps_latents else {}
        return files | ({"passes": passes_file(kept)} if studio.keeps_passes else {})

    def skip(self) -> None:
        """End the image that is nearest to its end; the others go on."""
        if self.running:
            index = max(self.running, key=lambda i: self.running[i].calls)
            self.running.pop(index).close()
        elif self.waiting:
            index = self.waiting.pop(0)
        else:
            return
        self._tell_over(ImageSkipped(index))

    def wait_again(self) -> None:
        """Take back the images that run; they start anew later."""
        for image in self.running.values():
            image.close()
        self.waiting = sorted([*self.running, *self.waiting])
        self.running.clear()

    def wait_again_to_start(self) -> None:
        """Take back a look that ended early; it is begun anew."""
        self.looking = None

    def stop(self) -> None:
        """End the job; images that are ready stay."""
        self._end(Stopped())

    def fail(self, error: EngineError) -> None:
        """End the job because it cannot be done."""
        self._end(Failed(kind=error.kind, message=str(error), field=getattr(error, "field", None)))

    def _told_notes(self) -> tuple[str, ...]:
        """Give the notes, each once."""
        return tuple(dict.fromkeys(self.notes))

    def _tell_over(self, event: ImageReady | ImageSkipped) -> None:
        self.outbox.append(event)
        self.over += 1
        if self.over == len(self.plan.images):
            self.timings["total"] = time.monotonic() - self.admitted_at
            timings = {stage: round(seconds, 4) for stage, seconds in self.timings.items()}
            flags = tuple(flag for _, flag in sorted(self.flags.items()))
            notes = self._told_notes()
            self._end(Finished(timings=timings, has_nsfw_concepts=flags, notes=notes))

    def _end(self, event: Finished | Failed | Stopped) -> None:
        if self.is_over:
            return
        for image in self.running.values():
            image.close()
        self.running.clear()
        self.waiting.clear()
        self.looking = self.beginning = None
        self.is_over = True
        self.outbox.append(event)
