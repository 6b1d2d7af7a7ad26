"""What a resolved reference leaves as: one module for each `--output`, found by name.

An output has a docstring (its line in `--help`), `MASKED` (its values are stand-ins that need not fit their place, and
literal values of Secrets are masked too), and `values(uses, config, environ, warn) -> Outcome`.
"""

import importlib
from typing import Any

from secretweave import modules
from secretweave.errors import ConfigError, SecretweaveError
from secretweave.render import Values

Outcome = tuple[Values, list[SecretweaveError]]
"""The values that could be had, and a fault for each that could not."""


def names() -> tuple[str, ...]:
    return modules.names(__path__[0])


def find(name: str) -> Any:
    """The module of an output. Raises ConfigError."""
    if name not in names():
        raise ConfigError(f"no output is called {name}", fix=f"use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
