"""Finds the modules of a folder by name without importing them: a store, a grammar, an output is one file."""

import os
from collections.abc import Container


def names(folder: str, *, but: Container[str] = frozenset()) -> tuple[str, ...]:
    """The modules of a package's folder, sorted; without private ones and those in *but*."""
    # Not pkgutil.iter_modules: it imports `inspect`, a twentieth of the start-up budget.
    found = (name.removesuffix(".py") for name in os.listdir(folder) if name.endswith(".py"))
    return tuple(sorted(name for name in found if name not in but and not name.startswith("_")))
