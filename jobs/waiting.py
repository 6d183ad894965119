"""Who is next: fair between owners, first come first served within one.

Safe to use from several threads. Knows nothing of plans, workers or the database.
"""

import bisect
import heapq
import threading


class Waiting:
    """The jobs that wait, in the order in which they will start.

    Owners take turns; the one whose turn is longest ago is next. Jobs that have to run alone, because a worker died
    while it ran them, come before all others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, list[tuple[int, str]]] = {}
        self._alone: list[tuple[int, str]] = []
        self._served: dict[str, int] = {}
        self._turn = 0

    def add(self, job_id: str, *, number: int, owner: str, alone: bool = False) -> None:
        """Let a job wait; `number` rises with the time of submission and orders the jobs of one owner."""
        with self._lock:
            queue = self._alone if alone else self._queues.setdefault(owner, [])
            bisect.insort(queue, (number, job_id))

    def remove(self, job_id: str) -> bool:
        """Take a job out; False when it does not wait."""
        with self._lock:
            for queue in (self._alone, *self._queues.values()):
                for item in queue:
                    if item[1] == job_id:
                        queue.remove(item)
                        return True
            return False

    def first(self) -> str | None:
        """Name the job that is next; None when none waits."""
        with self._lock:
            return next(iter(self._order(1)), None)

    def take(self, job_id: str) -> None:
        """Take the job out that `first` named and let its owner's turn pass."""
        with self._lock:
            if self._alone and self._alone[0][1] == job_id:
                del self._alone[0]
                return
            owner = next(
                name for name, queue in self._queues.items() if queue and queue[0][1] == job_id
            )
            del self._queues[owner][0]
            self._turn += 1
            self._served[owner] = self._turn
            if not any(self._queues.values()):
                self._queues.clear()
                self._served.clear()

    def order(self) -> list[str]:
        """List all jobs in the order in which they will start if nobody else comes."""
        with self._lock:
            return self._order(len(self))

    def __len__(self) -> int:
        return len(self._alone) + sum(map(len, self._queues.values()))

    def _order(self, count: int) -> list[str]:
        order = [job_id for _, job_id in self._alone[:count]]
        turn = self._turn
        heads = [
            (self._served.get(name, 0), queue[0], name, 0)
            for name, queue in self._queues.items()
            if queue
        ]
        heapq.heapify(heads)
        while heads and len(order) < count:
            _, (_, job_id), name, index = heapq.heappop(heads)
            order.append(job_id)
            turn += 1
            if index + 1 < len(self._queues[name]):
                heapq.heappush(heads, (turn, self._queues[name][index + 1], name, index + 1))
        return order
