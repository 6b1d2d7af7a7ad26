"""What a resolved reference leaves as: one module for each `--output`, found by name.

An output has a docstring (its line in `--help`), `MASKED` (its values are stand-ins that need not fit their place, and
literal values of Secrets are masked too), and `values(uses, config, outside) -> Outcome`.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import modules
from secretweave.errors import ConfigError, SecretweaveError
from secretweave.model import StoreConfig
from secretweave.render import Values

if TYPE_CHECKING:
    from secretweave.stores.base import Context, Store


class Keeping(NamedTuple):
    """Where stores outlive the run that opens them: a daemon's."""

    open: "Callable[[StoreConfig, Context], Store]"
    """In the place of stores.open_store, and like it. Closing what it gives is only to have done with it."""
    warn: Callable[[str], None]
    """Takes what a store that is kept warns of: that concerns no run more than another."""


class Outside(NamedTuple):
    """What a run meets outside of its input and its configuration."""

    environ: Mapping[str, str]
    """The platform's environment."""
    deadline: float
    """The end of the run, on time.monotonic's clock."""
    warn: Callable[[str], None]
    """Takes what the user should know but what stops nothing."""
    keeping: Keeping | None = None
    """None: each store is opened for this run, and closed with it."""


Outcome = tuple[Values, list[SecretweaveError]]
"""The values that could be had, and a fault for each that could not."""


def names() -> tuple[str, ...]:
    return modules.names(__path__[0])


def find(name: str) -> Any:
    """The module of an output. Raises ConfigError."""
    if name not in names():
        raise ConfigError(f"no output is called {name}", fix=f"use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
