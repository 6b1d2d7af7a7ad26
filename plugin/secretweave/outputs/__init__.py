"""What a resolved reference leaves as: one module for each `--output`, found by name.

An output has a docstring (its line in `--help`), `MASKED` (its values are stand-ins that need not fit their place, and
literal values of Secrets are masked too), and `values(uses, config, outside) -> Outcome`.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from secretweave import modules
from secretweave.errors import ConfigError, SecretweaveError
from secretweave.render import Values


class Outside(NamedTuple):
    """What a run meets outside of its input and its configuration."""

    environ: Mapping[str, str]
    """The platform's environment."""
    deadline: float
    """The end of the run, on time.monotonic's clock."""
    warn: Callable[[str], None]
    """Takes what the user should know but what stops nothing."""


Outcome = tuple[Values, list[SecretweaveError]]
"""The values that could be had, and a fault for each that could not."""


def names() -> tuple[str, ...]:
    return modules.names(__path__[0])


def find(name: str) -> Any:
    """The module of an output. Raises ConfigError."""
    if name not in names():
        raise ConfigError(f"no output is called {name}", fix=f"use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
