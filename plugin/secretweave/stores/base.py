"""What a store is, and what it is given.

A store is one module in this folder, called by its provider key in a SecretStore's `spec`. It has exactly

    a docstring                                        its page of the manual
    class Settings(NamedTuple)                         what stands under the provider key; read by secretweave.settings
    def connect(settings: Settings, context: Context) -> Store

and may have

    LOCAL = True                                       asked in the main thread: it answers from memory or disk
    def preload() -> None                              imports its SDK, which may happen while the input is still read

`connect` imports the SDK (through secretweave.sdk), not the module: start-up counts. A new store adds one file, and no
line elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from secretweave.errors import StoreError
from secretweave.model import Record, StoreConfig

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


class BatchStore(Store, Protocol):
    """A store that answers several with one request: by its API, or because they are parts of one thing."""

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """*wanted* cut up: each part, answered by one `fetch_batch`, costs one request."""

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        """What each of a batch gave, in its order. Raises what holds for all of them, as `fetch` does."""


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
