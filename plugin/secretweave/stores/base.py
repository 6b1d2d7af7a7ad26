"""What a store is, and what it is given.

A store is one module in this folder, called by its provider key in a SecretStore's `spec`. It has exactly

    a docstring                                        its page of the manual
    class Settings(NamedTuple)                         what stands under the provider key; read by secretweave.settings
    def connect(settings: Settings, context: Context) -> Store

`connect` imports the SDK, not the module: start-up counts. A new store adds one file, and no line elsewhere.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from secretweave.model import Record, StoreConfig


class Store(Protocol):
    """One configured store, open for one run. `fetch` may be called from `concurrency` threads at once."""

    @property
    def concurrency(self) -> int:
        """How many fetches at a time serve it best: 1 for one that answers from memory, 16 for most others."""

    def fetch(self, ref: str, version: str | None) -> Record:
        """The record at *ref*, in *version* or the latest.

        Raises NotFound, Denied, Unavailable or another StoreError.
        """

    def close(self) -> None:
        """Gives back what the store holds; more than one call is allowed, a fetch after it is not."""


class Context(NamedTuple):
    """What a store may use of the run, beside its own settings."""

    store: StoreConfig
    environ: Mapping[str, str]
    """The platform's environment. A store reads no other."""
    show_key_names: bool
    """May an error name the paths and fields that are there?"""
    warn: Callable[[str], None]
    """Takes what the user should know but what stops nothing."""
