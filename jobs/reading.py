"""A job's story as an event loop reads it: from the start, then as it happens, up to its end."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import Event, ImageReady
from jobs.story import Entry, Story


@contextmanager
def news_of(story: Story) -> Iterator[asyncio.Event]:
    """Set an event of the running loop whenever there is more to read."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # that loop has ended
            loop.call_soon_threadsafe(news.set)

    with story.listening(wake):
        yield news


async def read_on(
    story: Story, after: int, ask: Callable[[], None]
) -> AsyncGenerator[tuple[int, Event]]:
    """Read what comes after the event numbered `after`, pictures with their bytes; one whose file was removed is left out.

    Args:
        story: What is read; it must be told by somebody, or be closed.
        after: The number of the last event that is known already.
        ask: Called once when the reader listens.
    """
    with news_of(story) as news:
        ask()
        while True:
            news.clear()
            entries, over = story.read(after)
            for entry in entries:
                after = entry.seq
                if (event := await _whole(entry)) is not None:
                    yield entry.seq, event
            if over:
                return
            await news.wait()


async def _whole(entry: Entry) -> Event | None:
    """Read the bytes of an image back into its event; None when its file was removed since."""
    if not isinstance(entry.event, ImageReady) or entry.path is None:
        return entry.event
    data = await asyncio.to_thread(_read, entry.path)
    return None if data is None else dataclasses.replace(entry.event, data=data)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
