"""Asks the stores: all of them at once, each with as many requests at a time as it likes, within the time there is.

A store that answers from memory or disk is asked in the main thread. For every other one there is a thread that opens
it, and workers that ask it. They are daemons: what hangs in an SDK is left behind when its time is over, and the run
goes on to tell what it knows. Why not concurrent.futures: its workers are waited for at the end, whatever they hang in.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from secretweave.errors import StoreError, Unavailable
from secretweave.stores.base import BatchStore, Outcome, Store, Wanted

if TYPE_CHECKING:
    import threading

CLOSING_SECONDS_MAX = 2.0
"""How long the run waits for a store to log out."""

Answers = Mapping[Wanted, Outcome] | StoreError
"""What each secret of a store gave; or why the store could not be opened."""


class Errand(NamedTuple):
    """What one store is asked for."""

    open: Callable[[], Store]
    """Raises StoreError where it cannot be."""
    wanted: tuple[Wanted, ...]
    """Distinct."""
    local: bool
    """Does it answer from memory, disk or a program?"""


class Times(NamedTuple):
    """How long it may take."""

    deadline: float
    """The end of the run, on time.monotonic's clock."""
    run_seconds: float
    """The whole time of the run, as a fault tells it."""
    request_seconds: float
    """For opening a store, and for one read; with their retries."""


def ask(errands: Sequence[Errand], times: Times) -> list[Answers]:
    """The answers to each errand, in order: a record or an error for each of its secrets, or an error for the store."""
    remotes = [_Remote(errand) for errand in errands if not errand.local]
    asking = _Asking(remotes, times)
    asking.begin()
    here = [_ask_here(errand) for errand in errands if errand.local]
    asking.end()
    answers = {False: iter([remote.answers() for remote in remotes]), True: iter(here)}
    return [next(answers[errand.local]) for errand in errands]


def _ask_here(errand: Errand) -> Answers:
    try:
        store = errand.open()
    except StoreError as error:
        return error
    try:
        return {each: outcome for batch in _batches(store, errand.wanted) for each, outcome in _answer(store, batch)}
    finally:
        store.close()


def _batches(store: Store, wanted: tuple[Wanted, ...]) -> Sequence[Sequence[Wanted]]:
    batching: BatchStore | None = store if hasattr(store, "batches") else None  # type: ignore[assignment]
    return batching.batches(wanted) if batching is not None else [[each] for each in wanted]


def _answer(store: Store, batch: Sequence[Wanted]) -> Iterator[tuple[Wanted, Outcome]]:
    try:
        if len(batch) == 1:
            yield batch[0], store.fetch(*batch[0])
        else:
            batching: BatchStore = store  # type: ignore[assignment]  # it made the batch
            yield from zip(batch, batching.fetch_batch(batch), strict=True)
    except StoreError as error:
        for each in batch:
            yield each, error


class _Remote:
    """One remote store: what it was asked and what it has said. Everything in it is changed under one lock."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.store: Store | None = None
        self.outcomes: dict[Wanted, Outcome] = {}
        self.failed: StoreError | None = None
        """It could not be opened."""
        self.crash: BaseException | None = None
        """A defect, in the store or in its SDK."""
        self.waiting: deque[Sequence[Wanted]] = deque()
        self.workers = 0
        self.since: dict[object, float] = {}
        """When each step that is under way began: of a worker, or `opening`."""
        self.over = False
        """Nothing more is asked of it, and what it still says does not count."""
        self.closed = False

    def is_quiet(self) -> bool:
        """Is there nothing to wait for: it is closed, or was never open, or hangs?"""
        return self.closed or self.store is None or bool(self.since)

    def answers(self) -> Answers:
        return self.failed or self.outcomes

    def end(self, error: StoreError) -> None:
        """Gives it up: *error* stands for all that it has not said."""
        if self.over:
            return
        if self.store is None:
            self.failed = error
        for each in self.errand.wanted:
            self.outcomes.setdefault(each, error)
        self.waiting.clear()
        self.over = True

    def late(self, now: float, times: Times) -> StoreError | None:
        """What is wrong, if something takes too long."""
        if now >= times.deadline:
            return Unavailable(
                f"it had not answered when the run's deadline of {times.run_seconds:g} s was over",
                why="the store is slow, or the time went by before it was asked",
                fix="look after the store, or raise limits.deadline in the configuration",
            )
        if any(now >= since + times.request_seconds for since in self.since.values()):
            return slow(times.request_seconds)
        return None


def slow(seconds: float) -> Unavailable:
    """What is wrong with a store that takes longer than that for one thing."""
    return Unavailable(
        f"it did not answer within {seconds:g} s",
        why="the store, or the network on the way to it, is slow or hangs",
        fix="look after the store, or raise limits.request in the configuration",
    )


class _Asking:
    """The remote stores of a run, under one lock."""

    def __init__(self, remotes: Sequence[_Remote], times: Times) -> None:
        self._remotes = remotes
        self._times = times
        self._changed: threading.Condition

    def begin(self) -> None:
        if not self._remotes:
            return
        import threading

        self._changed = threading.Condition()
        for remote in self._remotes:
            remote.since["opening"] = time.monotonic()
            self._start(self._open, remote)

    def end(self) -> None:
        """Waits until every store has answered or its time is over. Raises what crashed."""
        if not self._remotes:
            return
        with self._changed:
            while any(not remote.over for remote in self._remotes):
                now = time.monotonic()
                for remote in self._remotes:
                    late = remote.late(now, self._times)
                    if late is not None:
                        remote.end(late)
                if any(not remote.over for remote in self._remotes):
                    self._changed.wait(self._next(now))
            seconds = min(CLOSING_SECONDS_MAX, self._times.deadline - time.monotonic())
            self._changed.wait_for(lambda: all(remote.is_quiet() for remote in self._remotes), max(seconds, 0))
        for remote in self._remotes:
            if remote.crash is not None:
                raise remote.crash

    def _next(self, now: float) -> float:
        """Seconds until something can be late; what begins meanwhile, and tells nobody, cannot be so before."""
        begun = [now, *(since for remote in self._remotes for since in remote.since.values())]
        return max(min(min(begun) + self._times.request_seconds, self._times.deadline) - now, 0)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        import threading

        def run() -> None:
            remote = arguments[0]
            assert isinstance(remote, _Remote)
            try:
                work(*arguments)
            except BaseException as crash:  # noqa: BLE001 - told in the main thread, which would wait for ever
                with self._changed:
                    remote.crash = crash
                    remote.end(Unavailable("it crashed", fix="report it: this is a defect"))
                    self._changed.notify_all()

        threading.Thread(target=run, daemon=True).start()

    def _open(self, remote: _Remote) -> None:
        store: Store | None = None
        batches: Sequence[Sequence[Wanted]] = ()
        failed = None
        try:
            store = remote.errand.open()
            batches = _batches(store, remote.errand.wanted)
        except StoreError as error:
            failed = error
        with self._changed:
            del remote.since["opening"]
            remote.store = store
            if failed is not None:
                remote.end(failed)
            if store is not None and not remote.over:
                remote.waiting.extend(batches)
                remote.workers = min(store.concurrency, len(batches))
            for number in range(remote.workers):
                self._start(self._work, remote, store, number)
            idle = not remote.workers
            remote.over = remote.over or idle
            self._changed.notify_all()
        if idle and store is not None:
            self._close(remote, store)

    def _work(self, remote: _Remote, store: Store, number: int) -> None:
        while True:
            with self._changed:
                remote.since.pop(number, None)
                if not remote.waiting:
                    remote.workers -= 1
                    last = not remote.workers
                    if last:
                        remote.over = True
                        self._changed.notify_all()
                    break
                batch = remote.waiting.popleft()
                remote.since[number] = time.monotonic()
            answered = list(_answer(store, batch))
            with self._changed:
                for each, outcome in answered:
                    remote.outcomes.setdefault(each, outcome)
                down = next((outcome for _, outcome in answered if isinstance(outcome, Unavailable)), None)
                if down is not None:
                    # The others would find the same: a store that is down is found once.
                    remote.end(down)
                    self._changed.notify_all()
        if last:
            self._close(remote, store)

    def _close(self, remote: _Remote, store: Store) -> None:
        store.close()
        with self._changed:
            remote.closed = True
            self._changed.notify_all()
