"""What is done when memory runs out: fewer rows share a call, others make room, tiers go down, and at last a picture fails.

A picture is begun anew each time; what became of it is told at the end of its job. Knows nothing of how pictures are painted.
"""

import logging
from collections.abc import Callable, Sequence

from engine.errors import OutOfMemory
from engine.models.memory import Tier, free_unused, is_out_of_memory
from engine.palette import Palette
from engine.work import Work

log = logging.getLogger(__name__)

TOO_LARGE = "the device has too little memory for this picture"
WITH_LESS = "memory ran out, so it was painted with less"
LEAST_ROWS = 2
"""Rows that share a call at least: both sides of one picture."""


def ran_out(work: Callable[[], object], job: str) -> bool:
    """Do some work; True where memory ran out meanwhile. Nothing is held any more then of what the work held."""
    try:
        work()
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
            raise
        log.warning("out of memory: %s", str(error).partition("\n")[0], extra={"job": job})
        return True
    return False


class Room:
    """Makes room on the device, and knows how many rows it takes at a time."""

    def __init__(self, palette: Palette, rows: int, forget: Callable[[], None]) -> None:
        """Begin with all the room there is.

        Args:
            palette: The base models in memory.
            rows: UNet rows that share a call at most.
            forget: Gives up helpers that are in memory beside the base models.
        """
        self._palette = palette
        self._usual_rows = self.max_rows = rows
        self._forget = forget

    def after_start(self, work: Work, busy: Sequence[Work]) -> None:
        """After memory ran out where an image of `work` was to start: it waits until nothing else runs, then gets more room."""
        work.wait_again_to_start()
        if busy:
            work.needs_room = True
        else:
            self._again(work)

    def after_step(self, busy: Sequence[Work]) -> None:
        """After memory ran out in a model call: start anew with half the rows, or with more room where there are not more."""
        images = [image for work in busy for image in work.running.values()]
        rows = min(self.max_rows, sum(work.rows for work in busy))  # of one UNet call
        for work in busy:
            work.wait_again()
        if len(images) > 1 or rows > LEAST_ROWS:
            self.max_rows = max(LEAST_ROWS, rows // 2)
            self._free()
        else:
            self._again(busy[0])

    def give_up(self, work: Work, busy: Sequence[Work]) -> None:
        """End a job that does not fit; what comes next finds all as in the beginning, and what runs starts anew."""
        memory, tier = self._palette.memory, self._palette.tier
        for other in busy:
            if other is not work:
                other.wait_again()
        work.fail(OutOfMemory(f"{TOO_LARGE}; {memory.remedy(tier)}"))
        memory.recover()
        self.max_rows = self._usual_rows
        self._clear()

    def _again(self, work: Work) -> None:
        """Make room for a job whose image is begun anew, now that nothing runs; where all was tried it fails."""
        memory, tier = self._palette.memory, self._palette.tier
        if self._palette.let_others_go():
            self._free()
            return
        lower = memory.step_down(tier) if work.plan.needs_base_model else None
        if lower is not None:
            earlier = (note for note in work.notes if not note.startswith(WITH_LESS))
            work.notes = [*earlier, f"{WITH_LESS}: {lower.words}"]
        elif work.has_tried_again:
            self.give_up(work, ())
            return
        else:
            work.has_tried_again = True
        self._clear()

    def _free(self) -> None:
        """Give back what nobody holds, and what is soon worked out again.

        Where streaming broke off, weights of some layers lie on the device, out of reach of patches; such a model is read anew.
        """
        if self._palette.tier is Tier.STREAMED:
            self._palette.let_go()
        self._palette.forget_texts()
        free_unused()

    def _clear(self) -> None:
        self._palette.let_go()
        self._forget()
        free_unused()
