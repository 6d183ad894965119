"""Keeps what was used last, within a number of bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by key; those not asked for longest go first when the room is full."""

    def __init__(self, room: int) -> None:
        """Keep at most `room` bytes."""
        self.room = room
        self.used = 0
        """Bytes that are kept."""
        self._items: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """Find a value, and count it as used just now."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def keep(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of `size` bytes; one that is larger than the whole room is not kept."""
        if size > self.room or key in self._items:
            return
        while self.used + size > self.room:
            _, (_, freed) = self._items.popitem(last=False)
            self.used -= freed
        self._items[key] = (value, size)
        self.used += size

    def take(self, key: Hashable) -> V | None:
        """Find a value and keep it no longer."""
        value, size = self._items.pop(key, (None, 0))
        self.used -= size
        return value
