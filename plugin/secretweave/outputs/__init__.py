"""What a resolved reference leaves as: one module for each `--output`, found by name.

An output has a docstring (its line in `--help`), `MASKED` (its values are stand-ins that need not fit their place, and
literal values of Secrets are masked too), and `values(uses, config, outside) -> Outcome`. It may have
`seal(woven, config, outside) -> Iterable[bytes]`, which takes the whole woven stream and gives what is written instead;
it raises SecretweaveError or Faults before its first byte.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
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
    token: Callable[[Sequence[str]], str] | None = None
    """As stores.base.Context has it: what is opened with one must be kept apart from what is opened with another."""


class Sealing(NamedTuple):
    """How a run seals, beside what the configuration's `spec.sops` says."""

    age: tuple[str, ...] = ()
    """age recipients, in addition to those of `spec.sops.age`."""
    digest_key: bytes | None = None
    """At least 32 bytes; None: as `spec.sops` says. With it, ciphertext of what did not change is used again."""
    previous: tuple[str, ...] = ()
    """Files or folders of earlier sealed output; where one is not there, there is none yet."""
    unstable: bool = False
    """Fresh ciphertext each time, knowingly."""
    config: str | None = None
    """A .sops.yaml; None: as `spec.sops` says."""
    namespace: str | None = None
    """Of Secrets that name none: creation rules are matched against it."""


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
    sealing: Sealing = Sealing()
    """For an output that seals."""


Outcome = tuple[Values, list[SecretweaveError]]
"""The values that could be had, and a fault for each that could not."""


def names() -> tuple[str, ...]:
    return modules.names(__path__[0])


def find(name: str) -> Any:
    """The module of an output. Raises ConfigError."""
    if name not in names():
        raise ConfigError(f"no output is called {name}", fix=f"use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
