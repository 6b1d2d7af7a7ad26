"""The configuration of a process that lasts: read again when one of its files is another.

For Argo CD's daemon and for the Flux controller alike.
"""

import copy
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from secretweave.config import Config, files
from secretweave.errors import Faults, SecretweaveError

Load = Callable[[], Config]


class _Loaded(NamedTuple):
    stamp: object
    result: Config | SecretweaveError


class Configuration:
    """As the files are. Many threads may use it."""

    def __init__(
        self, load: Load, stamp: Callable[[], object], adopt: Callable[[Config | SecretweaveError], None]
    ) -> None:
        """*adopt* is called with each further one, or what is wrong with it."""
        import threading

        self._load = load
        self._stamp = stamp
        self._adopt = adopt
        self._lock = threading.Lock()
        seen = stamp()
        result: Config | SecretweaveError
        try:
            result = load()
        except SecretweaveError as error:
            # Whoever asks is told. To end for it would end, with this container, the Pod's place in its Service.
            result = error
        self.last = result if isinstance(result, Config) else Config()
        """The last that was whole."""
        self._loaded = _Loaded(seen, result)

    def current(self) -> Config:
        """Raises the faults of a broken one, each time."""
        with self._lock:
            seen = self._stamp()
            if seen != self._loaded.stamp:
                # The stamp is older than what is read: a change in between is read once more.
                self._loaded = _Loaded(seen, self._read())
            result = self._loaded.result
        if isinstance(result, SecretweaveError):
            raise _another(result)
        return result

    def _read(self) -> Config | SecretweaveError:
        result: Config | SecretweaveError
        try:
            result = self.last = self._load()
        except SecretweaveError as error:
            result = error
        self._adopt(result)
        return result


def _another(error: SecretweaveError) -> SecretweaveError:
    """The same fault for one more thread: raised in two it would be changed in both."""
    return Faults(map(_another, error.faults)) if isinstance(error, Faults) else copy.copy(error)


def stamp(given: str | None, environ: Mapping[str, str]) -> object:
    """Differs when a file of the configuration does, or another one would be read.

    *given*: its path, if the command line names one.
    """
    named = given if given is not None else environ.get("SECRETWEAVE_CONFIG") or None
    usual = (os.path.join(folder, name) for folder in files.folders(environ) for name in ("config.yaml", "config.d"))
    found = []
    for place in [named] if named is not None else usual:
        paths = [place]
        with suppress(OSError):
            paths += sorted(os.path.join(place, name) for name in os.listdir(place))
        for path in paths:
            with suppress(OSError):
                status = os.stat(path)
                found.append(
                    (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                )
    return found
