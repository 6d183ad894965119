"""Python values over two byte streams, between a server and the worker process it started.

Values are pickled: both ends are ours, and nobody else can write to these streams. A thread reads all the time, so that
neither end ever waits for the other to listen, and a closed line is noticed at once.
"""

import contextlib
import pickle
import queue
import struct
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

LENGTH = struct.Struct(">Q")
"""What stands before each value: its size in bytes."""


class Pipe:
    """One end of a line that carries values both ways."""

    def __init__(
        self, reader: BinaryIO, writer: BinaryIO, *, on_closed: Callable[[], None] | None = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_closed = on_closed
        self._inbox: queue.SimpleQueue[tuple[Any] | None] = queue.SimpleQueue()
        self._write_lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="pipe", daemon=True)
        self._thread.start()

    def send(self, value: Any) -> None:
        """Write one value whole; nothing happens when the other end is closed."""
        body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        # A closed file raises ValueError, a dead reader BrokenPipeError.
        with self._write_lock, contextlib.suppress(OSError, ValueError):
            self._writer.write(LENGTH.pack(len(body)))
            self._writer.write(body)
            self._writer.flush()

    def receive(self, timeout: float) -> Any:
        """Wait for the next value; None when none came within `timeout` seconds.

        Raises:
            EOFError: the other end is closed and all it wrote has been received.
        """
        try:
            item = self._inbox.get(timeout=timeout) if timeout > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self._inbox.put(None)
            raise EOFError("the other end is closed")
        return item[0]

    def close(self) -> None:
        """Close both streams; the other end must be gone or be leaving, since reading ends only then."""
        with contextlib.suppress(OSError):
            self._writer.close()
        self._thread.join()
        self._reader.close()

    def _read(self) -> None:
        while (value := self._read_one()) is not None:
            self._inbox.put(value)
        self._inbox.put(None)
        if self._on_closed is not None:
            self._on_closed()

    def _read_one(self) -> tuple[Any] | None:
        head = self._reader.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(head)
        body = self._reader.read(length)
        return (pickle.loads(body),) if len(body) == length else None
