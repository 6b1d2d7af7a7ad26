"""One read for all objects of one identity: what was read is handed to others for some seconds, from memory.

An identity is a namespace and a service account; whatever two objects differ in beside it (the store as it is bound) is
in the key, too. Errors are not handed on: kept.Kept knows when a store is down. Each object's use is in the audit log.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from secretweave import stores
from secretweave.model import Record, StoreConfig
from secretweave.outputs import Keeping
from secretweave.service.kept import frozen
from secretweave.stores.base import BatchStore, Context, Outcome, Store, Wanted

if TYPE_CHECKING:
    from secretweave.flux.controller.watch import Watch
    from secretweave.service.watch import Asker

OTHERS = "(of a namespace)"
"""What the metrics call each store that is not the controller's configuration: there is no end of them."""


class Shared:
    """Many threads may use it."""

    def __init__(self, watch: "Watch") -> None:
        import threading

        self._watch = watch
        self._lock = threading.Lock()
        self._held: dict[object, tuple[Record, float, float]] = {}
        """What was read, when, and until when it is kept."""

    def over(
        self, keeping: Keeping, asker: "Asker", seconds: float, known: frozenset[str], *, fresh: bool = False
    ) -> Keeping:
        """*keeping* for one object, whose stores are asked only for what nobody has just read.

        *seconds*: so long ago at the most; *known*: store names that metrics may have; *fresh*: they are asked for all,
        and others have the use of it.
        """

        def opened(store: StoreConfig, context: Context) -> Store:
            found = keeping.open(store, context)
            if stores.is_local(store.type) or seconds <= 0:
                return found
            key = (asker.identity, frozen(store))
            name = store.id if store.id in known else OTHERS
            told = self._watch.reading(asker, store.id, name)

            def find(wanted: Wanted) -> Record | None:
                record = None if fresh else self.find((key, wanted), seconds)
                if record is not None:
                    self._watch.shared(name)
                    told(wanted, record)
                return record

            def keep(wanted: Wanted, outcome: Outcome) -> None:
                if isinstance(outcome, Record):
                    self.keep((key, wanted), outcome, seconds)

            face = _SharingBatches if hasattr(found, "batches") else _Sharing
            return face(found, find, keep)

        return keeping._replace(open=opened)

    def find(self, key: object, seconds: float) -> Record | None:
        with self._lock:
            record, read, _ = self._held.get(key, (None, 0.0, 0.0))
        return record if time.monotonic() < read + seconds else None

    def keep(self, key: object, record: Record, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._held[key] = (record, now, now + seconds)

    def tidy(self) -> None:
        """Lets go of what is over; to be called every second: no value stays longer than it may be used."""
        now = time.monotonic()
        with self._lock:
            self._held = {key: held for key, held in self._held.items() if held[2] > now}

    def clear(self) -> None:
        with self._lock:
            self._held = {}


class _Sharing:
    def __init__(
        self,
        store: Store,
        find: Callable[[Wanted], Record | None],
        keep: Callable[[Wanted, Outcome], None],
    ) -> None:
        self._store = store
        self._find = find
        self._keep = keep
        self.concurrency = store.concurrency

    def fetch(self, ref: str, version: str | None) -> Record:
        wanted = Wanted(ref, version)
        found = self._find(wanted)
        if found is None:
            found = self._store.fetch(ref, version)
            self._keep(wanted, found)
        return found

    def close(self) -> None:
        self._store.close()


class _SharingBatches(_Sharing):
    _store: BatchStore

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        return self._store.batches(wanted)

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        found: dict[Wanted, Outcome] = {}
        for each in batch:
            if (record := self._find(each)) is not None:
                found[each] = record
        rest = [each for each in batch if each not in found]
        if rest:
            for each, outcome in zip(rest, self._store.fetch_batch(rest), strict=True):
                self._keep(each, outcome)
                found[each] = outcome
        return [found[each] for each in batch]
