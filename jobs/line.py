"""The line between a worker that lives in a thread and whoever stands outside: two queues."""

import queue

from jobs.protocol import Command, Message


class Line:
    """Both ends; `receive` and `send` are the worker's."""

    def __init__(self) -> None:
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        """What the worker says; None once it says no more."""

    def receive(self, timeout: float) -> Command | None:
        """Wait for the next command; None when none came in time."""
        try:
            return self.commands.get(timeout=timeout) if timeout > 0 else self.commands.get_nowait()
        except queue.Empty:
            return None

    def send(self, message: Message) -> None:
        """Tell the other end."""
        self.messages.put(message)
