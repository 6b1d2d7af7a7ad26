"""Finds the store modules by name without importing them, and opens a store."""

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

from secretweave import modules
from secretweave.errors import StoreError
from secretweave.model import StoreConfig
from secretweave.stores.base import Context, Store

NOT_STORES = frozenset({"base"})


def types() -> tuple[str, ...]:
    """The store types there are: the provider keys that a SecretStore may have."""
    return modules.names(__path__[0], but=NOT_STORES)


def settings_class(kind: str) -> Any:
    """The `Settings` of a store type."""
    return _module(kind).Settings


def open_store(config: StoreConfig, context: Context) -> Store:
    """The store, open. Raises StoreError where it cannot be."""
    store: Store = _module(config.type).connect(config.settings, context)
    return store


def is_local(kind: str) -> bool:
    """Is a store of this type asked in the main thread?"""
    return getattr(_module(kind), "LOCAL", False)


def words(config: StoreConfig) -> frozenset[str]:
    """What may stand as a whole segment in a ref of this store without being a part of the secret's name."""
    module = _module(config.type)
    found: frozenset[str] = module.words(config.settings) if hasattr(module, "words") else frozenset()
    return found


def preload(kinds: Iterable[str]) -> None:
    """Begins, in a thread of its own, to import what stores of these types will need, one after the other."""
    found = [_module(kind).preload for kind in kinds if hasattr(_module(kind), "preload")]
    if not found:
        return
    import threading

    def work() -> None:
        for each in found:
            # A fault is told when the store is opened, if it is; the next store may be well.
            with suppress(StoreError):
                each()

    threading.Thread(target=work, daemon=True).start()


def _module(kind: str) -> Any:
    """A store's module, if it is one of ours: text of a configuration never reaches an import unchecked."""
    if kind not in types():
        raise ValueError("not a store type")
    return import_module(f"{__name__}.{kind}")
