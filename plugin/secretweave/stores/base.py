"""What a store is, and what it is given.

A store is one module in this folder, called by its provider key in a SecretStore's `spec`. It has exactly

    a docstring                                        its page of the manual
    class Settings(NamedTuple)                         what stands under the provider key; read by secretweave.settings
    def connect(settings: Settings, context: Context) -> Store

and may have

    LOCAL = True                                       asked in the main thread: it answers from memory or disk
    def preload() -> None                              imports its SDK, which may happen while the input is still read
    def words(settings: Settings) -> frozenset[str]    segments of a ref that are no part of a secret's name, where one
                                                       secret has several spellings: no tenant may be called like that

Its Store may be a BatchStore, a ProbedStore and a VersionedStore, too. `connect` imports the SDK (through
secretweave.sdk), not the module: start-up counts. A new store adds one file, and no line elsewhere.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from secretweave.errors import StoreError
from secretweave.model import Record, StoreConfig

if TYPE_CHECKING:
    import threading

Outcome = Record | StoreError


class Wanted(NamedTuple):
    """One secret, as a store is asked for it."""

    ref: str
    version: str | None
    """None: the latest."""


class Store(Protocol):
    """One configured store, open for one run. It may be asked from `concurrency` threads at once."""

    @property
    def concurrency(self) -> int:
        """How many requests at a time serve it best: 1 for one that answers from memory, 16 for most others."""

    def fetch(self, ref: str, version: str | None) -> Record:
        """The record at *ref*, in *version* or the latest.

        Raises NotFound, Denied, Unavailable (nothing more is then asked of the store) or another StoreError.
        """

    def close(self) -> None:
        """Gives back what the store holds; raises nothing. More than one call is allowed, a fetch after it is not."""


PROBE = "secretweave-doctor-probe"
"""No secret is called so."""


class ProbedStore(Store, Protocol):
    """A store that can say whether it answers, and knows who asks, without a secret being read."""

    def probe(self) -> None:
        """For `doctor`. Raises StoreError: no answer, or no login; that something may not be read is neither."""


class BatchStore(Store, Protocol):
    """A store that answers several with one request: by its API, or because they are parts of one thing."""

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """*wanted* cut up: each part, answered by one `fetch_batch`, costs one request."""

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        """What each of a batch gave, in its order. Raises what holds for all of them, as `fetch` does."""


class VersionedStore(Store, Protocol):
    """A store that tells which version a read would give without reading a value, where its API has a way to."""

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """*wanted* cut up: each part, answered by one `versions`, costs one request."""

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        """For each of a batch, in its order, the `Record.version` that `fetch` would give now.

        None: only a read can tell. So it is where something may not be looked at, is not there, is deleted or disabled,
        or has no versions; a store that is in doubt says None. Raises StoreError only for what ends all asking of the
        store (Unavailable, a login that is refused).
        """


class SecretKeyRef(NamedTuple):
    """A credential in a Kubernetes Secret, in the namespace of the SecretStore."""

    name: str
    key: str


class Limits(NamedTuple):
    """How long, and how often, a store may be asked."""

    deadline: float
    """The end of the run on time.monotonic's clock: no request and no wait begins that would pass it."""
    attempts: int = 3
    """Of one request, the first included."""
    attempt_seconds: float = 5.0
    """To connect, and between two pieces of an answer: the timeout to give to an SDK."""
    pause_seconds: float = 0.2
    """The first pause before another attempt, doubled for each further one and jittered."""
    pause_seconds_max: float = 2.0


class CallLimits(Limits):
    """The limits of a store that outlives the run which opened it: their deadline is that of the call under way.

    It is told for each thread, since several runs ask at once; where no call is, a thread has the time of one. So a
    store reads `limits.deadline` when it needs it, and never keeps the number.
    """

    def __new__(cls, seconds: float, attempt_seconds: float) -> Self:
        """*seconds*: the longest that one call may take."""
        import threading

        limits = super().__new__(cls, 0.0, attempt_seconds=attempt_seconds)
        limits.seconds = seconds
        limits._call = threading.local()
        return limits

    seconds: float
    _call: "threading.local"

    @property
    def deadline(self) -> float:
        ends: float = getattr(self._call, "ends", 0.0) or time.monotonic() + self.seconds
        return ends

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call of the store, in this thread."""
        self._call.ends = time.monotonic() + self.seconds
        try:
            yield
        finally:
            self._call.ends = 0.0


class Context(NamedTuple):
    """What a store may use of the run, beside its own settings."""

    store: StoreConfig
    environ: Mapping[str, str]
    """The platform's environment. A store reads no other."""
    show_key_names: bool
    """May an error name the paths and fields that are there?"""
    warn: Callable[[str], None]
    """Takes what the user should know but what stops nothing."""
    credential: Callable[[SecretKeyRef], str]
    """The text of a credential Secret's key, from where the configuration says. Raises StoreError."""
    limits: Limits
    """Its deadline may be another one the next time that it is read: CallLimits."""
    token: Callable[[Sequence[str]], str] | None = None
    """A token, for these audiences, of the service account for whom the run is: a login by one uses that, never the
    process's own. None: there is no such account. Raises StoreError."""
