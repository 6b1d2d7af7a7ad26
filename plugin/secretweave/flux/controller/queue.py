"""Which object is next: one worker at a time for each, the newest wish wins, failures wait longer each time.

Of what is due the namespace with the fewest workers goes first, and none has all of them: one tenant's many slow
objects keep nobody else's from their turn.

An object that is wished for while a worker has it comes again when that worker is done: what it saw may be old.
"""

import math
import random
import time
from collections import Counter
from typing import NamedTuple

FIRST_SECONDS = 1.0
"""The pause after a first failure."""
MOST_SECONDS = 300.0
WAIT_SECONDS = 3600.0
"""A worker looks anew after so long: what threading can wait for has a limit, an interval has none."""


class Key(NamedTuple):
    namespace: str
    name: str
    plural: str = "secretweaves"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Queue:
    """Many threads may use it."""

    def __init__(self) -> None:
        import threading

        self._most: float = math.inf
        self._changed = threading.Condition()
        self._due: dict[Key, float] = {}
        """When each is wanted next, on time.monotonic's clock."""
        self._running: dict[Key, float] = {}
        """Since when a worker has it."""
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._last = ""
        """The namespace of what was taken last."""
        self._closed = False

    def reserve(self, most: int) -> None:
        """One namespace has so many workers at the most: the others are left for the rest."""
        with self._changed:
            self._most = most

    def add(self, key: Key, after: float = 0.0) -> None:
        """Wants it in so many seconds, or earlier where that is wished already."""
        with self._changed:
            if key in self._running and after <= 0:
                self._again.add(key)
                return
            due = time.monotonic() + after
            self._due[key] = min(self._due.get(key, due), due)
            self._changed.notify()

    def take(self) -> Key | None:
        """Waits for the next one; None: the queue is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                held = Counter(key.namespace for key in self._running)
                waiting = [
                    (due, key)
                    for key, due in self._due.items()
                    if key not in self._running and held[key.namespace] < self._most
                ]
                ready = [
                    (held[key.namespace], key.namespace == self._last, due, key) for due, key in waiting if due <= now
                ]
                if ready:
                    *_, key = min(ready)
                    del self._due[key]
                    self._running[key] = now
                    self._last = key.namespace
                    return key
                first = min((due for due, _ in waiting), default=now + WAIT_SECONDS)
                self._changed.wait(min(first - now, WAIT_SECONDS))
            return None

    def done(self, key: Key, after: float | None) -> None:
        """It went well; the next time is in so many seconds. None: when something happens."""
        with self._changed:
            self._failures.pop(key, None)
            self._end(key, after)

    def failed(self, key: Key, *, after: float | None = None, most: float = MOST_SECONDS) -> float:
        """It is tried again after a pause that is told: *after*, or one that grows with each failure up to *most*."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = after if after is not None else min(FIRST_SECONDS * 2.0 ** min(failures - 1, 20), most)
            pause *= random.uniform(0.8, 1.2)  # noqa: S311 - it spreads requests, and guards nothing
            self._end(key, pause)
            return pause

    def forget(self, key: Key) -> None:
        """The object is gone; to be called by the worker that has it, before it is done."""
        with self._changed:
            self._due.pop(key, None)
            self._failures.pop(key, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def depth(self) -> int:
        """How many are due and wait for a worker."""
        with self._changed:
            now = time.monotonic()
            return len(self._again) + sum(1 for due in self._due.values() if due <= now)

    def longest(self) -> float:
        """For how many seconds a worker has had the same object; 0: none has one."""
        with self._changed:
            return time.monotonic() - min(self._running.values()) if self._running else 0.0

    def _end(self, key: Key, after: float | None) -> None:
        del self._running[key]
        if key in self._again:
            self._again.discard(key)
            after = 0.0
        if after is not None:
            due = time.monotonic() + after
            self._due[key] = min(self._due.get(key, due), due)
        # It may be wanted already, and was passed over while it was in a worker's hands.
        self._changed.notify()
