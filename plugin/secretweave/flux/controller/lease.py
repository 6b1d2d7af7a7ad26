"""One replica at work, by a Lease of coordination.k8s.io/v1.

The package `kubernetes` has no lock on Leases before its newest version, which others that we stand beside forbid, so
this small one is ours. It goes by client-go's rules: times of others are never compared with this machine's clock, only
watched for change; who holds it gives up earlier than others may take over.
https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.flux.cluster import Conflict

if TYPE_CHECKING:
    import threading

    from secretweave.flux.cluster import Api

API_VERSION, PLURAL = "coordination.k8s.io/v1", "leases"
LEASE_SECONDS = 15
"""Others take over after so long without a sign."""
GIVE_UP_SECONDS = 10.0
"""Who could not renew for so long is no longer the one."""
RETRY_SECONDS = 2.0
DENIED_SECONDS = 30.0
"""An API server that has just begun knows no roles yet, and denies everything for some seconds."""
CALL_SECONDS = 2.0
"""The most that a call may take of the Api that is given here: two failed renewals then end before others take over."""


class Lease:
    """Used by one thread at a time."""

    def __init__(self, api: "Api", namespace: str, name: str, holder: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._seen: object = None
        """What the Lease said when it last changed."""
        self._seen_at = 0.0
        self.renewed = 0.0

    def acquire(self, stop: "threading.Event") -> bool:
        """Waits until it is this one's; False: *stop* came first. Raises StoreError: it may not be had at all; Denied:
        not for half a minute.
        """
        denied: float | None = None
        while not stop.is_set():
            begun = time.monotonic()
            try:
                if self._attempt():
                    self.renewed = begun
                    return True
                denied = None
            except (Conflict, Unavailable):
                # Another was faster, or the API server is away: that passes.
                denied = None
            except Denied:
                denied = begun if denied is None else denied
                if begun - denied > DENIED_SECONDS:
                    raise
            stop.wait(RETRY_SECONDS)
        return False

    def hold(self, stop: "threading.Event", lost: Callable[[], None]) -> None:
        """Renews it until *stop*; calls *lost* once it is not this one's any more."""
        while not stop.wait(RETRY_SECONDS):
            begun = time.monotonic()
            # Whatever goes wrong: to end with it would leave this process at work without a Lease.
            with suppress(Exception):
                if not self._attempt():
                    # Another one holds it: there may be two at work.
                    lost()
                    return
                self.renewed = begun
            if time.monotonic() - self.renewed > GIVE_UP_SECONDS:
                lost()
                return

    def release(self) -> None:
        """Lets the next one begin at once."""
        try:
            found = self._api.get(API_VERSION, PLURAL, self._namespace, self._name)
            if (found.get("spec") or {}).get("holderIdentity") == self._holder:
                spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                self._api.replace({**found, "spec": spec}, PLURAL)
        except StoreError:
            # It ends by its time.
            return

    def _attempt(self) -> bool:
        """Takes or renews it. False: another one holds it. Raises StoreError; Conflict: it has changed meanwhile."""
        try:
            found = self._api.get(API_VERSION, PLURAL, self._namespace, self._name)
        except NotFound:
            spec = self._spec({})
            metadata = {"name": self._name, "namespace": self._namespace}
            self._api.create({"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}, PLURAL)
            return True
        spec, now = found.get("spec") or {}, time.monotonic()
        holder = spec.get("holderIdentity") or ""
        if (said := (holder, spec.get("renewTime"))) != self._seen:
            self._seen, self._seen_at = said, now
        seconds = spec.get("leaseDurationSeconds") or LEASE_SECONDS
        if holder not in {"", self._holder} and now < self._seen_at + seconds:
            return False
        self._api.replace({**found, "spec": self._spec(spec)}, PLURAL)
        return True

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now, mine = _now(), before.get("holderIdentity") == self._holder
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime") if mine else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if mine or not before else 1),
        }


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1_000_000):06}Z"
