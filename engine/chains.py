"""Enhancing finished pictures: one job that is done as several, one after the other.

The pictures are painted first; then, for each of them, a mask is found and a part repainted, or the whole is changed, each time
on the result of the time before. What happens is told as the story of one job. Pictures from between are held as PNG files.
"""

import dataclasses
import io
import logging
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

from PIL import Image

from engine.errors import EngineError, InvalidRequest
from engine.events import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Progress,
    is_terminal,
)
from engine.image_inputs import NO_PICTURE
from engine.plan import FOUND_MASK, Enhancement, Given, Plan, plan_from_json, plan_to_json
from engine.stages.metadata import content_type, encode_image
from engine.starts import require_writable

log = logging.getLogger(__name__)

Admit = Callable[[str, Plan, Mapping[str, Path]], None]
Phase = Literal["painting", "finding", "repainting"]


@dataclass(eq=False)
class _Chain:
    """One such job on its way."""

    job_id: str
    plan: Plan
    inputs: Mapping[str, Path]
    folder: Path = field(default_factory=lambda: Path(mkdtemp(prefix="pochade-")))
    """Holds what the parts are given; gone with this."""
    phase: Phase = "painting"
    todo: list[tuple[int, int]] = field(default_factory=list)
    """Index of the picture and of the enhancement, of all that is not done."""
    latest: dict[int, ImageReady] = field(default_factory=dict)
    """The latest version of each picture, a PNG."""
    mask: Path | None = None
    """What was found for the enhancement at hand."""
    misses: list[str] = field(default_factory=list)
    """What was looked for and not found."""
    notes: list[str] = field(default_factory=list)
    """What people should know of its parts."""
    timings: Counter[str] = field(default_factory=Counter)
    flags: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def length(self) -> int:
        """How often each picture is enhanced."""
        return len(self.plan.enhancements[0])

    @property
    def is_given(self) -> bool:
        """Whether there is a picture already."""
        return isinstance(self.plan.start, Given)

    @property
    def at(self) -> tuple[int, int]:
        """Index of the picture and of the enhancement at hand."""
        return self.todo[0]

    @property
    def step(self) -> Enhancement:
        """The enhancement at hand."""
        image, number = self.at
        return self.plan.enhancements[image][number]

    def place(self, image: int, number: int) -> int | None:
        """Say which picture of the job one is: `number` -1 is as it was painted; None is not kept."""
        if self.plan.keeps_final_only:
            return None
        if self.is_given:
            return None if number < 0 else image * self.length + number
        return image * (1 + self.length) + 1 + number

    def first(self) -> Plan:
        """Plan what is enhanced."""
        request = self.plan.request.model_copy(update={"enhance": None})
        return dataclasses.replace(
            self.plan,
            enhancements=(),
            request=request,
            output_format="png",
            safety=self.plan.safety and not self.is_given,
        )

    def next(self) -> tuple[Plan, dict[str, Path]]:
        """Plan what comes now, and name its files."""
        files = {**self.inputs, NO_PICTURE: self._path("picture")}
        files[NO_PICTURE].write_bytes(self.latest[self.at[0]].data)
        paint = dataclasses.replace(self.step.paint, output_format="png")
        if self.step.find is not None and self.mask is None:
            self.phase = "finding"
            return dataclasses.replace(
                paint, start=self.step.find, safety=False, save_metadata=False
            ), files
        self.phase = "repainting"
        return paint, files if self.mask is None else {**files, FOUND_MASK: self.mask}

    def keep_mask(self, data: bytes) -> None:
        self.mask = self._path("mask")
        self.mask.write_bytes(data)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def told(self, ready: ImageReady, place: int) -> ImageReady:
        """Bring a picture to the format that was asked for.

        Raises:
            InvalidRequest: it is too large for that.
        """
        plan = self.plan
        self.flags[place] = ready.has_nsfw_concept
        if plan.output_format == "png":
            return dataclasses.replace(ready, index=place)
        require_writable(plan, ready.size, "enhance")
        assert ready.plan is not None
        painted = dataclasses.replace(plan_from_json(ready.plan), output_format=plan.output_format)
        with Image.open(io.BytesIO(ready.data)) as picture:
            data = encode_image(picture.convert("RGB"), painted, 0)
        return dataclasses.replace(
            ready,
            index=place,
            content_type=content_type(plan.output_format),
            data=data,
            plan=plan_to_json(painted),
        )

    def progress(self, event: Progress) -> Progress:
        """Say how far the whole job is."""
        images = len(self.plan.images)
        first = 0 if self.is_given else images
        total = first + images * self.length
        if self.phase == "painting":
            share, image, number = event.fraction * first, event.image, -1
        else:
            done = total - len(self.todo)
            share = done + (event.fraction if self.phase == "repainting" else 0.0)
            image, number = self.at
        place = self.place(image, number)
        return dataclasses.replace(
            event, image=image if place is None else place, fraction=share / total
        )


class Chains:
    """The jobs whose pictures are enhanced. An engine admits their parts and passes on what it tells."""

    def __init__(self, admit: Admit) -> None:
        """Begin without any.

        Args:
            admit: Takes a part of a job, under the job's own id; one at a time.
        """
        self._admit = admit
        self._chains: dict[str, _Chain] = {}

    def begin(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job.

        Raises:
            EngineError: its first part cannot be done.
        """
        chain = _Chain(job_id, plan, inputs)
        self._admit(job_id, chain.first(), inputs)
        self._chains[job_id] = chain

    def forget(self, job_id: str) -> None:
        """Let go of a job; what is told of it from now on passes as it is."""
        self._chains.pop(job_id, None)

    def follow(self, told: Sequence[tuple[str, Event]]) -> Sequence[tuple[str, Event]]:
        """Turn what happened to parts into what happened to jobs, and begin what comes next."""
        if not self._chains:
            return told
        return [(job_id, event) for job_id, it in told for event in self._of_job(job_id, it)]

    def _of_job(self, job_id: str, event: Event) -> Iterator[Event]:
        chain = self._chains.get(job_id)
        if chain is None:
            yield event
            return
        for told in self._guarded(chain, event):
            if is_terminal(told):
                self.forget(job_id)
            yield told

    def _guarded(self, chain: _Chain, event: Event) -> Iterator[Event]:
        try:
            yield from self._follow(chain, event)
        except EngineError as error:
            yield Failed(kind=error.kind, message=str(error), field=getattr(error, "field", None))

    def _follow(self, chain: _Chain, event: Event) -> Iterator[Event]:
        match event:
            case Progress():
                yield chain.progress(event)
            case ImageReady():
                yield from _ready(chain, event)
            case ImageSkipped(index=index) if chain.phase == "painting":
                yield from _never_painted(chain, index)
            case ImageSkipped():
                pass  # by a person; its part is over then
            case Finished():
                chain.timings.update(event.timings)
                chain.notes += event.notes
                yield from self._go_on(chain)
            case Failed() if _is_nothing(chain, event):
                log.info("%s: %s", chain.step.name, event.message, extra={"job": chain.job_id})
                chain.misses.append(f"{chain.step.name}: nothing was found to repaint")
                chain.mask = None
                yield from self._step_over(chain)
            case _:
                yield event

    def _go_on(self, chain: _Chain) -> Iterator[Event]:
        """Begin what comes next: the repainting of what was found, the next enhancement, or the end."""
        match chain.phase:
            case "painting":
                chain.todo = [
                    (image, number)
                    for image in sorted(chain.latest)
                    for number in range(chain.length)
                ]
                yield from self._begin_next(chain)
            case "finding" if chain.mask is not None:
                self._admit(chain.job_id, *chain.next())
            case _:
                yield from self._step_over(chain)

    def _step_over(self, chain: _Chain) -> Iterator[Event]:
        """Leave the enhancement at hand; one that brought no picture counts as skipped."""
        image, number = chain.at
        place = chain.place(image, number)
        if place is not None and place not in chain.flags:
            yield ImageSkipped(place)
        chain.todo.pop(0)
        chain.mask = None
        is_last = not any(other == image for other, _ in chain.todo)
        if is_last and chain.plan.keeps_final_only:
            yield chain.told(chain.latest[image], image)
        yield from self._begin_next(chain)

    def _begin_next(self, chain: _Chain) -> Iterator[Event]:
        if chain.todo:
            self._admit(chain.job_id, *chain.next())
            return
        if chain.misses and not chain.flags:
            raise InvalidRequest("enhance.regions", "; ".join(chain.misses))
        timings = {stage: round(seconds, 4) for stage, seconds in chain.timings.items()}
        flags = tuple(flag for _, flag in sorted(chain.flags.items()))
        notes = tuple(dict.fromkeys([*chain.misses, *chain.notes]))
        yield Finished(timings=timings, has_nsfw_concepts=flags, notes=notes)


def _ready(chain: _Chain, ready: ImageReady) -> Iterator[Event]:
    """Keep what a part made, and tell of it where it is a picture of the job."""
    if chain.phase == "finding":
        chain.keep_mask(ready.data)
        return
    image, number = (ready.index, -1) if chain.phase == "painting" else chain.at
    chain.latest[image] = ready
    place = chain.place(image, number)
    if place is not None:
        yield chain.told(ready, place)


def _never_painted(chain: _Chain, image: int) -> Iterator[Event]:
    """Tell that a person skipped a picture, and with it all its versions."""
    if chain.plan.keeps_final_only:
        yield ImageSkipped(image)
        return
    for number in range(-1, chain.length):
        place = chain.place(image, number)
        if place is not None:
            yield ImageSkipped(place)


def _is_nothing(chain: _Chain, event: Failed) -> bool:
    """Whether a part failed because there is nothing to repaint."""
    is_empty = event.field is not None and event.field.startswith(("mask_from.", "inpaint.mask"))
    return chain.phase != "painting" and event.kind == InvalidRequest.kind and is_empty
