"""Have the values that an object was woven with changed? The stores are asked for versions, and for no value.

Where one cannot tell (stores.base.VersionedStore), or something is another version, the object is woven again: reading
decides, and a fault is found and told there. What one cannot tell of a secret today it is not asked again for an hour.

A version that is told again stands for the same value: stores do not change what a version holds. One that counts
versions begins anew with a secret that was deleted for good and made again; that is seen at the object's interval, at
which values are read in any case.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from secretweave import fetching
from secretweave.errors import NotFound
from secretweave.fetching import Errand, Times
from secretweave.flux.controller.sharing import Key, Read, Shared
from secretweave.model import Record
from secretweave.outputs import Outside
from secretweave.outputs.secret import context
from secretweave.service.kept import Kept, source
from secretweave.stores.base import Outcome

if TYPE_CHECKING:
    from secretweave.config import Config
    from secretweave.service.watch import Asker

UNTOLD_SECONDS = 3600.0


class Polling:
    """Many threads may use it."""

    def __init__(self, kept: Kept, shared: Shared) -> None:
        self._kept = kept
        self._shared = shared
        self._untold: dict[Key, float] = {}
        """What no version is told of, and until when it is not asked for."""

    def changed(
        self, asker: "Asker", reads: Sequence[Read], config: "Config", outside: Outside, seconds: float
    ) -> bool | None:
        """Is any of *reads* another version now? None: that cannot be told.

        *seconds*: so long ago it may have been told to another object of the same identity.
        """
        known = {(asker.identity, source(read.store, config), read.wanted): read for read in reads}
        now = time.monotonic()
        if any(self._untold.get(key, 0.0) > now for key in known):
            return None
        told: dict[Key, str] = {}
        for key in known:
            if (version := self._shared.find_version(key, seconds)) is not None:
                told[key] = version
        rest = {key: read for key, read in known.items() if key not in told}
        answers = self._ask(asker, rest, config, outside)
        if any(isinstance(each, Record) and each.version != rest[key].version for key, each in answers.items()):
            # A read that began before may give the value that was.
            self._kept.part(lambda identity: identity == asker.identity)
        for key, outcome in answers.items():
            if isinstance(outcome, Record):
                told[key] = outcome.version
                self._shared.keep_version(key, outcome.version, seconds, now)
            elif isinstance(outcome, NotFound):
                self._untold[key] = now + UNTOLD_SECONDS
        others = [key for key, read in known.items() if told.get(key) != read.version]
        for key in others:
            # Else the run that follows would have the value that was.
            self._shared.drop(key, but=told.get(key))
        return bool(others) if len(told) == len(known) else None

    def tidy(self) -> None:
        """To be called now and then."""
        now = time.monotonic()
        for key, until in list(self._untold.items()):
            if until <= now:
                self._untold.pop(key, None)

    def clear(self) -> None:
        self._untold.clear()

    def _ask(
        self, asker: "Asker", reads: Mapping[Key, Read], config: "Config", outside: Outside
    ) -> Mapping[Key, Outcome]:
        by_store: dict[object, list[Key]] = {}
        for key in reads:
            by_store.setdefault(key[1], []).append(key)
        asked = [(reads[keys[0]].store, keys) for keys in by_store.values()]
        opener = self._kept.telling_versions(asker, config)
        errands = [
            Errand(
                partial(opener, store, context(store, config, outside)),
                tuple(reads[key].wanted for key in keys),
                local=False,
            )
            for store, keys in asked
        ]
        limits = config.settings.limits
        answers = fetching.ask(errands, Times(outside.deadline, limits.deadline, limits.request))
        found: dict[Key, Outcome] = {}
        for (_, keys), answer in zip(asked, answers, strict=True):
            for key in keys:
                found[key] = answer[reads[key].wanted] if isinstance(answer, Mapping) else answer
        return found
