"""Who is next: fair between owners, first come first served within one, those of low priority last.

Safe to use from several threads. Knows nothing of plans, workers or the database.
"""

import bisect
import heapq
import threading
from itertools import chain
from typing import Literal

Priority = Literal["normal", "low"]


class Waiting:
    """The jobs that wait, in the order in which they will start.

    Owners take turns; the one whose turn is longest ago is next. Jobs of low priority come after all others, and take turns
    among themselves. Jobs that have to run alone, because a worker died while it ran them, come before all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone: list[tuple[int, str]] = []
        self._lanes: dict[Priority, _Lane] = {"normal": _Lane(), "low": _Lane()}
        self._positions: dict[str, int] | None = {}

    def add(
        self,
        job_id: str,
        *,
        number: int,
        owner: str,
        alone: bool = False,
        priority: Priority = "normal",
    ) -> None:
        """Let a job wait; `number` rises with the time of submission and orders the jobs of one owner."""
        with self._lock:
            self._positions = None
            queue = self._alone if alone else self._lanes[priority].queue(owner)
            bisect.insort(queue, (number, job_id))

    def remove(self, job_id: str) -> bool:
        """Take a job out; False when it does not wait."""
        with self._lock:
            self._positions = None
            for queue in self._queues():
                for item in queue:
                    if item[1] == job_id:
                        queue.remove(item)
                        return True
            return False

    def first(self, *, with_alone: bool = True) -> str | None:
        """Name the job that is next, of all or of those that need not run alone; None when none waits."""
        with self._lock:
            skipped = 0 if with_alone else len(self._alone)
            return next(iter(self._order(skipped + 1)[skipped:]), None)

    def take(self, job_id: str) -> None:
        """Take the job out that `first` named and let its owner's turn pass."""
        with self._lock:
            self._positions = None
            if self._alone and self._alone[0][1] == job_id:
                del self._alone[0]
            elif not self._lanes["normal"].take(job_id):
                self._lanes["low"].take(job_id)

    def order(self) -> list[str]:
        """List all jobs in the order in which they will start if nobody else comes."""
        with self._lock:
            return self._order(len(self))

    def positions(self) -> dict[str, int]:
        """Say how many jobs start before each one; worked out anew only after a change."""
        with self._lock:
            if self._positions is None:
                order = self._order(len(self))
                self._positions = {job_id: place for place, job_id in enumerate(order)}
            return self._positions

    def count(self, owner: str) -> int:
        """Count the jobs of one owner."""
        with self._lock:
            return sum(len(lane.queues.get(owner, ())) for lane in self._lanes.values())

    def __len__(self) -> int:
        return sum(map(len, self._queues()))

    def _queues(self) -> list[list[tuple[int, str]]]:
        lanes = (lane.queues.values() for lane in self._lanes.values())
        return [self._alone, *chain.from_iterable(lanes)]

    def _order(self, count: int) -> list[str]:
        order = [job_id for _, job_id in self._alone[:count]]
        for lane in self._lanes.values():
            order += lane.order(count - len(order))
        return order


class _Lane:
    """The queues of all owners, and whose turn was when."""

    def __init__(self) -> None:
        self.queues: dict[str, list[tuple[int, str]]] = {}
        self._served: dict[str, int] = {}
        self._turn = 0

    def queue(self, owner: str) -> list[tuple[int, str]]:
        return self.queues.setdefault(owner, [])

    def take(self, job_id: str) -> bool:
        """Take the first job of an owner; False when none is first of that id."""
        for owner, queue in self.queues.items():
            if queue and queue[0][1] == job_id:
                del queue[0]
                self._turn += 1
                self._served[owner] = self._turn
                if not any(self.queues.values()):
                    self.queues.clear()
                    self._served.clear()
                return True
        return False

    def order(self, count: int) -> list[str]:
        order: list[str] = []
        turn = self._turn
        heads = [
            (self._served.get(name, 0), queue[0], name, 0)
            for name, queue in self.queues.items()
            if queue
        ]
        heapq.heapify(heads)
        while heads and len(order) < count:
            _, (_, job_id), name, index = heapq.heappop(heads)
            order.append(job_id)
            turn += 1
            if index + 1 < len(self.queues[name]):
                heapq.heappush(heads, (turn, self.queues[name][index + 1], name, index + 1))
        return order
