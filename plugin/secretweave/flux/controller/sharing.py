"""One read for all objects of one identity: what was read is handed to others for some seconds, from memory.

An identity is a namespace and a service account; whatever two objects differ in beside it (the store as it is bound) is
in the key, too. Errors are not handed on: kept.Kept knows when a store is down. Each object's use is in the audit log.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from secretweave import stores
from secretweave.errors import StoreError
from secretweave.model import Record, StoreConfig
from secretweave.outputs import Keeping
from secretweave.service.kept import frozen, source
from secretweave.stores.base import BatchStore, Context, Outcome, Store, Wanted

if TYPE_CHECKING:
    from secretweave.config import Config
    from secretweave.flux.controller.watch import Watch
    from secretweave.service.watch import Asker

RENEWED_SECONDS = 3600.0
"""Longer than any request takes."""

Key = tuple[str, object, Wanted]
"""Identity (NAMESPACE:ACCOUNT), what its store is (kept.source), the secret."""
T = TypeVar("T")


class Read(NamedTuple):
    """A secret that was read, in the version that a store gave."""

    store: StoreConfig
    wanted: Wanted
    version: str


class Reads:
    """What one run reads. Many threads may note something."""

    def __init__(self) -> None:
        self._versions: dict[object, Read] = {}
        self._is_whole = True

    def note(self, store: StoreConfig, wanted: Wanted, outcome: Outcome) -> None:
        if isinstance(outcome, Record) and outcome.version:
            self._versions[frozen(store), wanted] = Read(store, wanted, outcome.version)
        else:
            # A secret that is not there, and optional, may come to be; that no version tells.
            self._is_whole = False

    def note_unversioned(self) -> None:
        self._is_whole = False

    def all(self) -> tuple[Read, ...] | None:
        """None: there is something that only a read can tell."""
        return tuple(self._versions.values()) if self._is_whole else None


class _Held(NamedTuple, Generic[T]):
    what: T
    asked: float
    """When the question was put, on time.monotonic's clock."""
    had: float
    """When there was an answer."""
    until: float


class Shared:
    """Many threads may use it."""

    def __init__(self, watch: "Watch") -> None:
        import threading

        self._watch = watch
        self._lock = threading.Lock()
        self._records: dict[Key, _Held[Record]] = {}
        self._versions: dict[Key, _Held[str]] = {}
        self._renewed: dict[str, float] = {}
        """By namespace, since when what was asked before does not count."""

    def over(
        self, keeping: Keeping, asker: "Asker", config: "Config", seconds: float, reads: Reads | None = None
    ) -> Keeping:
        """*keeping* for one object, whose stores are asked only for what nobody has just read.

        *seconds*: so long ago at the most; *config* is the controller's; *reads* takes what is had.
        """

        def opened(store: StoreConfig, context: Context) -> Store:
            found = keeping.open(store, context)
            if stores.is_local(store.type):
                if reads is not None:
                    reads.note_unversioned()
                return found
            identity, of = asker.identity, source(store, config)
            name = self._watch.called(store, config)
            told = self._watch.reading(asker, store.id, name)

            def find(wanted: Wanted) -> Record | None:
                record = self.find((identity, of, wanted), seconds)
                if record is not None:
                    self._watch.shared(name)
                    told(wanted, record)
                return record

            def keep(wanted: Wanted, outcome: Outcome, begun: float) -> None:
                if isinstance(outcome, Record):
                    self.keep((identity, of, wanted), outcome, seconds, begun)

            def note(wanted: Wanted, outcome: Outcome) -> None:
                if reads is not None:
                    reads.note(store, wanted, outcome)

            face = _SharingBatches if hasattr(found, "batches") else _Sharing
            return face(found, find, keep, note)

        return keeping._replace(open=opened)

    def find(self, key: Key, seconds: float) -> Record | None:
        return self._find(self._records, key, seconds)

    def find_version(self, key: Key, seconds: float) -> str | None:
        return self._find(self._versions, key, seconds)

    def keep(self, key: Key, record: Record, seconds: float, asked: float) -> None:
        """*asked*: when, on time.monotonic's clock. What was asked later, or told since, stands against it."""
        with self._lock:
            told = self._versions.get(key)
            if told is None or told.had < asked or told.what == record.version:
                self._keep(self._records, key, record, seconds, asked)

    def keep_version(self, key: Key, version: str, seconds: float, asked: float) -> None:
        with self._lock:
            self._keep(self._versions, key, version, seconds, asked)

    def drop(self, key: Key, *, but: str | None) -> None:
        """Its value is an old one, unless it is of the version *but*."""
        with self._lock:
            held = self._records.get(key)
            if held is not None and held.what.version != but:
                del self._records[key]

    def renew(self, namespace: str) -> None:
        """Whoever asks by hand has just changed something: of what was asked before, nothing serves there any more."""
        with self._lock:
            self._renewed[namespace] = time.monotonic()

    def tidy(self) -> None:
        """Lets go of what is over; to be called every second: no value stays longer than it may be used."""
        now = time.monotonic()
        with self._lock:
            self._records = {key: held for key, held in self._records.items() if held.until > now}
            self._versions = {key: held for key, held in self._versions.items() if held.until > now}
            self._renewed = {each: since for each, since in self._renewed.items() if since + RENEWED_SECONDS > now}

    def clear(self) -> None:
        with self._lock:
            self._records, self._versions = {}, {}

    def _find(self, among: "Mapping[Key, _Held[T]]", key: Key, seconds: float) -> T | None:
        with self._lock:
            held = among.get(key)
            since = self._renewed.get(_namespace(key), 0.0)
        return held.what if held and held.asked >= since and time.monotonic() < held.asked + seconds else None

    def _keep(self, among: "dict[Key, _Held[T]]", key: Key, what: T, seconds: float, asked: float) -> None:
        held = among.get(key)
        if held is None or held.asked <= asked:
            among[key] = _Held(what, asked, time.monotonic(), asked + seconds)


def _namespace(key: Key) -> str:
    return key[0].partition(":")[0]


class _Sharing:
    def __init__(
        self,
        store: Store,
        find: Callable[[Wanted], Record | None],
        keep: Callable[[Wanted, Outcome, float], None],
        note: Callable[[Wanted, Outcome], None],
    ) -> None:
        """*keep* takes what was asked of the store, and when; *note* what was had, and from wherever."""
        self._store = store
        self._find = find
        self._keep = keep
        self._note = note
        self.concurrency = store.concurrency

    def fetch(self, ref: str, version: str | None) -> Record:
        wanted = Wanted(ref, version)
        found = self._find(wanted)
        if found is None:
            asked = time.monotonic()
            try:
                found = self._store.fetch(ref, version)
            except StoreError as error:
                self._note(wanted, error)
                raise
            self._keep(wanted, found, asked)
        self._note(wanted, found)
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
            asked = time.monotonic()
            for each, outcome in zip(rest, self._store.fetch_batch(rest), strict=True):
                self._keep(each, outcome, asked)
                found[each] = outcome
        for each in batch:
            self._note(each, found[each])
        return [found[each] for each in batch]
