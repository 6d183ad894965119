"""How often passwords may be tried: after some wrong ones each try has to wait, longer each time.

A try counts before it is looked at, so tries that come at once gain nothing. Whoever guesses from elsewhere can make a
person wait for seconds, not for ever.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

FORGET_S = 3600.0
"""Wrong tries are forgotten when so long none came."""
MAX_KNOWN = 20_000
"""Names and addresses that are remembered; of more, those that tried longest ago start afresh."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How many tries are free, and how long a further one waits at most, in seconds."""

    free: int
    longest_s: float


PLACE = Patience(free=5, longest_s=300.0)
"""Of one name from one address."""
ADDRESS = Patience(free=20, longest_s=300.0)
NAME = Patience(free=15, longest_s=30.0)
"""Of one name from anywhere: short, or strangers could keep a person out."""


@dataclass(slots=True)
class _Tries:
    count: int = 0
    until: float = 0.0
    last: float = 0.0


class Lockout:
    """Remembers wrong tries. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], _Tries] = OrderedDict()

    def begin(self, name: str, address: str) -> float:
        """Ask whether a password may be tried now: 0, and the try counts as wrong until `forgive`, or seconds to wait."""
        with self._lock:
            now = self._clock()
            tries = {key: self._recall(key, now) for key in _keys(name, address)}
            wait = max(it.until - now for it in tries.values())
            if wait > 0:
                return wait
            for key, patience in _keys(name, address).items():
                held = tries[key]
                held.count += 1
                held.last = now
                held.until = now + _wait_after(held.count, patience)
            return 0.0

    def forgive(self, name: str, address: str) -> None:
        """Tell that the last try was right: the name starts afresh, and the address has one wrong try less."""
        with self._lock:
            now = self._clock()
            for key, patience in _keys(name, address).items():
                if patience is not ADDRESS:
                    self._known.pop(key, None)
                    continue
                held = self._recall(key, now)
                held.count, held.until = max(held.count - 1, 0), now

    def _recall(self, key: tuple[str, ...], now: float) -> _Tries:
        held = self._known.pop(key, None)
        if held is None or now - held.last > FORGET_S:
            held = _Tries(until=now, last=now)
        self._known[key] = held
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return held


def _wait_after(count: int, patience: Patience) -> float:
    """Say how long the next try has to wait: 1 s after the last free one, then twice as long each time."""
    late = count - patience.free
    return 0.0 if late < 0 else min(2.0 ** min(late, 30), patience.longest_s)


def _keys(name: str, address: str) -> Mapping[tuple[str, ...], Patience]:
    name = name.casefold()[:200]
    return {
        ("place", name, address): PLACE,
        ("address", address): ADDRESS,
        ("name", name): NAME,
    }
