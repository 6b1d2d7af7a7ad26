"""How an SDK is loaded: late, quietly, without what nobody needs of it, and with a word to who lacks it."""

import sys
from _thread import RLock
from collections.abc import Sequence
from importlib import import_module, util
from types import ModuleType
from typing import Any

from secretweave.errors import StoreError

_state: dict[str, bool] = {"quiet": False}
importing = RLock()
"""Held by who imports parts of an SDK. Python gives half-made modules to threads that import, at the same time,
packages which need one another; and `bare` packages, and those taken out again, are seen by every thread."""


def load(name: str, extra: str, *, bare: Sequence[str] = ()) -> Any:
    """The module *name* of an SDK, which *extra* of ours installs. Raises StoreError: it is not installed, or broken.

    *bare*: packages on the way to it whose `__init__` is left out, because it imports the whole SDK; where the module
    does not load without them (another version may need more), they are loaded after all.
    """
    quiet()
    with importing:
        return _load(name, extra, bare)


def _load(name: str, extra: str, bare: Sequence[str]) -> Any:
    if bare:
        before = set(sys.modules)
        try:
            for package in bare:
                _bare(package)
            return import_module(name)
        except (ImportError, AttributeError):
            roots = {package.partition(".")[0] for package in bare}
            for module in set(sys.modules) - before:
                if module.partition(".")[0] in roots:
                    del sys.modules[module]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise missing(error.name, extra) from None
        raise _broken(name, extra) from None
    except ImportError:
        raise _broken(name, extra) from None


def defer(name: str) -> ModuleType | None:
    """Puts a module in place that loads when something is first sought in it; None: it is loaded, or not there."""
    spec = None if name in sys.modules else util.find_spec(name)
    if spec is None or spec.loader is None:
        return None
    loader, lock = spec.loader, RLock()
    begun: list[bool] = []
    module = util.module_from_spec(spec)

    def find(attribute: str) -> Any:
        with lock:
            if not begun:
                begun.append(True)
                loader.exec_module(module)
                vars(module).pop("__getattr__", None)
        if attribute not in vars(module):
            raise AttributeError(attribute)
        return vars(module)[attribute]

    vars(module)["__getattr__"] = find
    sys.modules[name] = module
    package, _, own = name.rpartition(".")
    if package:
        setattr(sys.modules[package], own, module)
    return module


def missing(name: str, extra: str) -> StoreError:
    return StoreError(
        f"the Python package {name} is not installed",
        why=f"this environment was made without the extra `{extra}`",
        fix=f"pip install 'secretweave[{extra}]'; for the Helm plugin: SECRETWEAVE_EXTRAS={extra} plugin/bin/install",
    )


def _broken(name: str, extra: str) -> StoreError:
    return StoreError(
        f"the Python package {name} is installed, but does not load",
        why="a package that it needs is missing, or of a version that does not fit",
        fix=f"pip install --force-reinstall 'secretweave[{extra}]'",
    )


def quiet() -> None:
    """Turns off what SDKs write to stderr by themselves: their log lines and warnings hold URLs, headers and bodies."""
    if _state["quiet"]:
        return
    import logging
    import warnings

    _state["quiet"] = True
    logging.disable(logging.CRITICAL)
    logging.lastResort = None
    warnings.simplefilter("ignore")


def _bare(package: str) -> None:
    """Puts an empty module in the place of a package's `__init__`; its sub-modules are found as before."""
    if package in sys.modules:
        return
    spec = util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(name=package)
    module = ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    module.__spec__ = spec
    module.__file__ = spec.origin
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)
