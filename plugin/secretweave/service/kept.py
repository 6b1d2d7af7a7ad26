"""Store clients that outlive the request that opened them: logged in once, shared by what may share them.

A client serves one identity, and one store as it is bound to it (config/binding.py): whatever two requests differ in
is in the key, so that nobody reads with another's login. Equal reads that are under way at the same time are one read,
and so are logins; nothing is kept of a value, nor of an error, once those who waited for it have it.

A client ends when it was not used for long, when too many are kept, with its configuration, and when it has proved to
be no good: after a call that hung, after a second failure to reach the store, and after a refusal if it is not new. The
next request then opens another one, with the credentials of that moment.

A store that does not answer is left alone for a while that grows with each failure: what asks meanwhile is told at once
what was found, and one request after each pause finds out whether it still holds.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from secretweave import stores
from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.fetching import slow
from secretweave.model import Record, SecretFields, StoreConfig
from secretweave.outputs import Keeping
from secretweave.service.watch import Asker, Watch
from secretweave.stores.base import BatchStore, CallLimits, Context, Outcome, Store, VersionedStore, Wanted

if TYPE_CHECKING:
    from secretweave.config import Config

PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 30.0
REFUSED_SECONDS = 30.0
"""A client that is refused is replaced when it is so old: more often would be a login for each request."""
FAILURES_MAX = 2
"""A client that could not reach its store so many times in a row is replaced: what it holds may be the cause."""
LEFT_SECONDS = 60.0
"""A client that was dropped is closed after so long without a call, though a request has never given it back; and what
is known of a store that has no client is forgotten."""
CLOSING_SECONDS_MAX = 3.0
"""At the service's end, for all clients together."""
SLACK_SECONDS = 1.0
"""A call is held to hang when it has taken so much more than its limit."""

NO_VALUE = SecretFields({})

T = TypeVar("T")


class _Flight:
    """Something that one thread does and others wait for."""

    def __init__(self) -> None:
        import threading

        self.done = threading.Event()
        self.result: Any = None
        self.begun = time.monotonic()

    def land(self, result: Any) -> None:
        self.result = result
        self.done.set()


class _Outage(NamedTuple):
    error: Unavailable
    since: float
    """On time.time's clock, as it is told."""
    failures: int
    noted: float
    """On time.monotonic's, like the next one."""
    until: float
    """Nobody asks before."""


class _Client:
    """One open store. Everything in it changes under the lock of its Kept."""

    def __init__(self, slot: "_Slot", store: Store, limits: CallLimits) -> None:
        import threading

        self.slot = slot
        self.store = store
        self.limits = limits
        self.opened = self.used = time.monotonic()
        self.users = 0
        self.failures = 0
        self.calls: dict[object, float] = {}
        """When each call under way began."""
        self.flights: dict[tuple[Ask, Wanted], _Flight] = {}
        self.room = threading.BoundedSemaphore(store.concurrency)
        """So many calls at a time, whatever the number of requests: it has as many connections."""
        self.dropped = False
        self.closed = False

    def hangs(self, now: float) -> bool:
        return any(now > begun + self.limits.seconds + SLACK_SECONDS for begun in self.calls.values())


class _Slot:
    """What there is for one key: a client or not, and how its store fares."""

    def __init__(self, identity: str, name: str) -> None:
        self.identity = identity
        self.name = name
        """Of the store, as a metric may call it."""
        self.client: _Client | None = None
        self.opening: _Flight | None = None
        self.outage: _Outage | None = None
        self.probe: tuple[object, float] | None = None
        """Who finds out whether the outage is over, and since when."""
        self.used = time.monotonic()
        self.gone = False
        """Nobody finds it any more: it takes no client."""


class Kept:
    """All of them. Many threads may use it."""

    def __init__(self, watch: Watch, most: int, idle_seconds: float) -> None:
        import threading

        self._watch = watch
        self._most = most
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._slots: dict[object, _Slot] = {}
        self._dropped: list[_Client] = []
        self._closing: list[threading.Thread] = []

    def keeping(self, asker: Asker, config: "Config") -> Keeping:
        """For one run on behalf of *asker*; *config* is the service's."""
        borrow = self._borrowing(asker, config, _Loan)

        def opened(store: StoreConfig, context: Context) -> Store:
            told = self._watch.reading(asker, store.id, self._watch.called(store, config))
            if stores.is_local(store.type):
                return _lent(_Local(stores.open_store(store, context)), told)
            return _lent(borrow(store, context), told)

        return Keeping(opened, lambda text: self._watch.note("warning", text=text))

    def telling_versions(self, asker: Asker, config: "Config") -> Callable[[StoreConfig, Context], Store]:
        """Opens a remote store that is asked for versions: its records have no value, and no log tells of them.

        Raises StoreError: it cannot be opened, or tells none.
        """
        borrow = self._borrowing(asker, config, _VersionsLoan)

        def opened(store: StoreConfig, context: Context) -> Store:
            loan = borrow(store, context)
            if not loan.batching:
                loan.close()
                raise _untold()
            return _lent(loan, lambda _wanted, _outcome: None)

        return opened

    def _borrowing(
        self, asker: Asker, config: "Config", loan: "type[_Loan]"
    ) -> "Callable[[StoreConfig, Context], _Loan]":
        # What a client depends on beside what it reads: what its errors may tell, how long it may take.
        terms = frozen((config.settings.report, config.settings.limits))

        def borrow(store: StoreConfig, context: Context) -> _Loan:
            key = asker.identity, source(store, config), terms
            name = self._watch.called(store, config)
            return self._borrow(loan(self), key, asker.identity, name, store, context)

        return borrow

    def part(self, concerns: Callable[[str], bool]) -> None:
        """Who asks from now on, for an identity that *concerns* tells, joins no read that is under way."""
        with self._lock:
            held = [slot.client for slot in self._slots.values() if slot.client]
            for client in (*held, *self._dropped):
                if concerns(client.slot.identity):
                    client.flights.clear()

    def resize(self, most: int, idle_seconds: float) -> None:
        with self._lock:
            self._most = most
            self._idle_seconds = idle_seconds

    def tidy(self) -> None:
        """Closes what is no more wanted; to be called now and then."""
        now = time.monotonic()
        with self._lock:
            for key, slot in list(self._slots.items()):
                client = slot.client
                if client is not None and client.hangs(now):
                    self._hung(slot, client)
                elif client is not None and now > client.used + self._idle_seconds and not client.users:
                    self._drop(slot)
                if slot.client is None and slot.opening is None and now > slot.used + LEFT_SECONDS:
                    slot.gone = True
                    del self._slots[key]
            self._shrink()
            self._count()
            for client in self._dropped:
                if now > client.used + LEFT_SECONDS and not client.calls:
                    self._close(client)
            self._settle()

    def clear(self) -> None:
        """Lets go of all of them; what is in use is closed when it is given back."""
        with self._lock:
            for slot in self._slots.values():
                slot.gone = True
                self._drop(slot)
            self._slots = {}
            self._count()
            self._settle()

    def close(self) -> None:
        """Closes all of them, within a time. Whatever still hangs is left behind."""
        self.clear()
        with self._lock:
            for client in self._dropped:
                self._close(client)
            self._settle()
            closing = list(self._closing)
        ends = time.monotonic() + CLOSING_SECONDS_MAX
        for thread in closing:
            thread.join(max(ends - time.monotonic(), 0))

    def _borrow(
        self, loan: "_Loan", key: object, identity: str, name: str, config: StoreConfig, context: Context
    ) -> "_Loan":
        """*loan*, with a client in it. Raises StoreError."""
        limits = context.limits
        assert isinstance(limits, CallLimits), "the context is one for a store that is kept"
        ends = time.monotonic() + limits.seconds
        while True:
            with self._lock:
                slot = self._slots.get(key) or _Slot(identity, name)
                self._slots[key] = slot
                slot.used = time.monotonic()
                self._admit(slot, loan, limits)
                client = slot.client
                if client is not None and client.hangs(slot.used):
                    self._hung(slot, client)
                    self._admit(slot, loan, limits)
                    client = None
                if client is not None:
                    client.users += 1
                    client.used = slot.used
                    loan.client = client
                    return loan
                flight = slot.opening
                hangs = flight is not None and slot.used > flight.begun + limits.seconds + SLACK_SECONDS
                if hangs:
                    slot.opening = None
                    self._failed(slot, None, slow(limits.seconds), slot.used)
                    self._admit(slot, loan, limits)
                mine = flight is None or hangs
                if mine:
                    flight = slot.opening = _Flight()
            assert flight is not None
            if mine:
                self._open(slot, flight, config, context, limits)
            elif not flight.done.wait(max(ends - time.monotonic(), 0)):
                with self._lock:
                    self._give_up_probe(slot, loan)
                raise slow(limits.seconds)
            if isinstance(flight.result, StoreError):
                with self._lock:
                    self._give_up_probe(slot, loan)
                raise _again(flight.result)
            if isinstance(flight.result, BaseException):
                raise flight.result if mine else _crashed()

    def _open(self, slot: _Slot, flight: _Flight, config: StoreConfig, context: Context, limits: CallLimits) -> None:
        """Puts a client into the slot, and lands the flight either way."""
        begun = time.monotonic()
        result: Any = None
        store: Store | None = None
        try:
            with limits.call():
                store = stores.open_store(config, context)
        except BaseException as error:  # noqa: BLE001 - whoever waits must not wait for ever; it is raised again
            result = error
        self._watch.opened(slot.identity, config.id, slot.name, result)
        with self._lock:
            if slot.opening is flight:
                slot.opening = None
            if isinstance(result, Unavailable):
                self._failed(slot, None, result, begun)
            if store is not None:
                client = _Client(slot, store, limits)
                if slot.client is None and not slot.gone:
                    slot.client = client
                    # Else it would be the one that was used longest ago, and the first to go.
                    slot.used = client.opened
                    self._shrink()
                else:
                    # This one hung, and another was opened meanwhile; or the slot was let go.
                    client.dropped = True
                    self._dropped.append(client)
                    self._close(client)
            self._count()
        flight.land(result)

    def give_back(self, loan: "_Loan", client: _Client) -> None:
        with self._lock:
            client.users -= 1
            client.used = client.slot.used = time.monotonic()
            self._give_up_probe(client.slot, loan)
            if client.dropped and not client.users:
                self._close(client)
                self._settle()

    def call(self, loan: "_Loan", client: _Client, work: Callable[[], T], *, asks: bool = True) -> T:
        """One call of the store, with what it tells of the client. Raises what it raises.

        *asks*: does the store answer it? Else that it goes well says nothing of the store.
        """
        limits = client.limits
        with self._lock:
            self._admit(client.slot, loan, limits)
        if not client.room.acquire(timeout=limits.seconds):
            raise slow(limits.seconds)
        begun, call = time.monotonic(), object()
        with self._lock:
            client.calls[call] = client.used = begun
        try:
            with limits.call():
                result = work()
        except Unavailable as error:
            with self._lock:
                self._failed(client.slot, client, error, begun)
            raise
        except StoreError as error:
            if isinstance(error, NotFound | Denied):
                self._well(client)
            if not isinstance(error, NotFound):
                self._refused(client)
            raise
        finally:
            client.room.release()
            with self._lock:
                del client.calls[call]
                client.used = time.monotonic()
        if asks:
            self._well(client)
        return result

    def share(self, loan: "_Loan", client: _Client, batch: Sequence[Wanted], ask: "Ask") -> list[Outcome]:
        """What each of a batch gave, in its order; what another thread is asking for already is waited for."""
        with self._lock:
            now = time.monotonic()
            flights: dict[Wanted, _Flight] = {}
            mine: list[Wanted] = []
            for each in batch:
                flight = client.flights.get((ask, each))
                if flight is None or now > flight.begun + client.limits.seconds + SLACK_SECONDS:
                    flight = client.flights[ask, each] = _Flight()
                    mine.append(each)
                flights[each] = flight
        if mine:
            self._fly(loan, client, mine, flights, ask)
        if ask is _read:
            for _ in range(len(batch) - len(mine)):
                self._watch.shared(client.slot.name)
        return [self._landed(client, flights[each]) for each in batch]

    def _fly(
        self, loan: "_Loan", client: _Client, mine: list[Wanted], flights: Mapping[Wanted, _Flight], ask: "Ask"
    ) -> None:
        outcomes: Sequence[Outcome | BaseException] = [_crashed()] * len(mine)
        try:
            outcomes = self.call(loan, client, lambda: ask(client.store, mine))
        except StoreError as error:
            outcomes = [error] * len(mine)
        finally:
            with self._lock:
                for each in mine:
                    if client.flights.get((ask, each)) is flights[each]:
                        del client.flights[ask, each]
            for each, outcome in zip(mine, outcomes, strict=True):
                flights[each].land(outcome)
        # One of a batch may be refused while the others are had.
        if any(isinstance(each, StoreError) and not isinstance(each, NotFound) for each in outcomes):
            self._refused(client)

    def _landed(self, client: _Client, flight: _Flight) -> Outcome:
        seconds = client.limits.seconds
        if not flight.done.wait(max(flight.begun + seconds + SLACK_SECONDS - time.monotonic(), 0)):
            return slow(client.limits.seconds)
        outcome: Outcome = flight.result
        return _again(outcome) if isinstance(outcome, StoreError) else outcome

    # What follows is called under the lock.

    def _admit(self, slot: _Slot, loan: "_Loan", limits: CallLimits) -> None:
        """Raises Unavailable: the store is down, and this is not the one who finds out whether it still is."""
        outage, now = slot.outage, time.monotonic()
        if outage is None:
            return
        if slot.probe is not None:
            who, since = slot.probe
            if who is loan:
                return
            if now <= since + limits.seconds + SLACK_SECONDS:
                raise _told(outage, now)
        elif now < outage.until:
            raise _told(outage, now)
        slot.probe = (loan, now)

    def _give_up_probe(self, slot: _Slot, loan: "_Loan") -> None:
        if slot.probe is not None and slot.probe[0] is loan:
            slot.probe = None

    def _failed(self, slot: _Slot, client: _Client | None, error: Unavailable, begun: float) -> None:
        last, now = slot.outage, time.monotonic()
        if last is not None and begun < last.noted:
            # It was asked before that became known: the same failure, found by several.
            return
        failures = last.failures + 1 if last else 1
        pause = min(PAUSE_SECONDS * 2.0 ** (failures - 1), PAUSE_SECONDS_MAX)
        pause *= random.uniform(0.5, 1)  # noqa: S311 - it spreads requests, and guards nothing
        slot.outage = _Outage(_again(error), last.since if last else time.time(), failures, now, now + pause)
        slot.probe = None
        self._count()
        if last is None:
            self._watch.note("store down", store=slot.name, what=error.what, why=error.why)
        if client is not None:
            client.failures += 1
            if client.failures >= FAILURES_MAX and slot.client is client:
                self._drop(slot)

    def _hung(self, slot: _Slot, client: _Client) -> None:
        self._failed(slot, None, slow(client.limits.seconds), time.monotonic())
        self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        client, slot.client = slot.client, None
        if client is not None:
            client.dropped = True
            self._dropped.append(client)
            if not client.users:
                self._close(client)
            self._count()

    def _shrink(self) -> None:
        held = sorted((slot for slot in self._slots.values() if slot.client), key=lambda slot: slot.used)
        for slot in held[: max(len(held) - self._most, 0)]:
            self._drop(slot)

    def _close(self, client: _Client) -> None:
        """Logs out, in a thread of its own: nobody waits for it."""
        import threading

        if not client.closed:
            client.closed = True
            thread = threading.Thread(target=client.store.close, daemon=True)
            # Where no thread can be had, what it holds ends by its own time.
            with suppress(RuntimeError):
                thread.start()
                self._closing.append(thread)

    def _settle(self) -> None:
        self._dropped = [client for client in self._dropped if not client.closed]
        self._closing = [thread for thread in self._closing if thread.is_alive()]

    def _count(self) -> None:
        slots = self._slots.values()
        self._watch.state(sum(1 for slot in slots if slot.client), [slot.name for slot in slots if slot.outage])

    # These take the lock.

    def _well(self, client: _Client) -> None:
        with self._lock:
            client.failures = 0
            slot = client.slot
            if slot.outage is not None:
                slot.outage = slot.probe = None
                self._count()
                self._watch.note("store up", store=slot.name)

    def _refused(self, client: _Client) -> None:
        with self._lock:
            if time.monotonic() > client.opened + REFUSED_SECONDS and client.slot.client is client:
                self._drop(client.slot)


class _Loan:
    """A client in the hands of one request."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.client: _Client | None = None

    @property
    def _mine(self) -> _Client:
        assert self.client is not None, "it was given back"
        return self.client

    @property
    def concurrency(self) -> int:
        return self._mine.store.concurrency

    @property
    def batching(self) -> bool:
        return hasattr(self._mine.store, "batches")

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        store: BatchStore = self._mine.store  # type: ignore[assignment]  # `batching` says so
        return self._kept.call(self, self._mine, lambda: store.batches(wanted), asks=False)

    def ask(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        return self._kept.share(self, self._mine, batch, _read)

    def close(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            self._kept.give_back(self, client)


class _VersionsLoan(_Loan):
    """One that is asked for versions in the place of records."""

    @property
    def batching(self) -> bool:
        return hasattr(self._mine.store, "versions")

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        store: VersionedStore = self._mine.store  # type: ignore[assignment]  # `batching` says so
        return self._kept.call(self, self._mine, lambda: store.version_batches(wanted), asks=False)

    def ask(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        return self._kept.share(self, self._mine, batch, _read_versions)


class _Local:
    """A store that is opened for one request; it has the face of a loan."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.concurrency = store.concurrency
        self.batching = hasattr(store, "batches")

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        store: BatchStore = self._store  # type: ignore[assignment]  # `batching` says so
        return store.batches(wanted)

    def ask(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        return _read(self._store, batch)

    def close(self) -> None:
        self._store.close()


Told = Callable[[Wanted, Outcome], None]


class _Lent:
    """The store that a run is given: what it reads is told to the watch."""

    def __init__(self, of: _Loan | _Local, told: Told) -> None:
        self._of = of
        self._told = told
        self.concurrency = of.concurrency

    def fetch(self, ref: str, version: str | None) -> Record:
        (outcome,) = self._answers([Wanted(ref, version)])
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def close(self) -> None:
        self._of.close()

    def _answers(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        try:
            outcomes = self._of.ask(batch)
        except StoreError as error:
            for each in batch:
                self._told(each, error)
            raise
        for each, outcome in zip(batch, outcomes, strict=True):
            self._told(each, outcome)
        return outcomes


class _LentBatching(_Lent):
    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        return self._of.batches(wanted)

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        return self._answers(batch)


def _lent(of: _Loan | _Local, told: Told) -> Store:
    return _LentBatching(of, told) if of.batching else _Lent(of, told)


Ask = Callable[[Store, Sequence[Wanted]], Sequence[Outcome]]


def _read(store: Store, batch: Sequence[Wanted]) -> Sequence[Outcome]:
    if len(batch) == 1:
        return [store.fetch(*batch[0])]
    batching: BatchStore = store  # type: ignore[assignment]  # it made the batch
    return batching.fetch_batch(batch)


def _read_versions(store: Store, batch: Sequence[Wanted]) -> Sequence[Outcome]:
    versioned: VersionedStore = store  # type: ignore[assignment]  # it made the batch
    return [_untold() if version is None else Record(NO_VALUE, version) for version in versioned.versions(batch)]


def _untold() -> NotFound:
    return NotFound("only a read can tell its version", fix="read it")


def source(store: StoreConfig, config: "Config") -> object:
    """What equals another exactly if one identity reads the same from both: *store* as it is bound, and where its
    credentials lie.
    """
    return frozen((store, config.settings.credentials, config.settings.operator_namespace))


def frozen(value: Any) -> object:
    """What equals another exactly if all in it does; hashable, which a setting that is a mapping is not."""
    if isinstance(value, Mapping):
        return ("mapping", tuple(sorted((key, frozen(each)) for key, each in value.items())))
    if isinstance(value, tuple | list):
        return (type(value), tuple(map(frozen, value)))
    # A type of its own: to Python 1, 1.0 and True are equal.
    return (type(value), value)


def _again(error: StoreError) -> Any:
    """An error for one more thread: raised in two it would be changed in both."""
    return type(error)(error.what, where=error.where, why=error.why, fix=error.fix)


def _told(outage: _Outage, now: float) -> Unavailable:
    error = outage.error
    since = time.strftime("%H:%M:%S", time.gmtime(outage.since))
    again = f"so since {since} UTC; it is asked again in {max(outage.until - now, 0) + 0.5:.0f} s"
    return Unavailable(
        error.what, where=error.where, why=f"{error.why}; {again}" if error.why else again, fix=error.fix
    )


def _crashed() -> StoreError:
    return StoreError("it crashed, asked by another request", fix="report it: this is a defect")
