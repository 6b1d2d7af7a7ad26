"""The cluster's API in memory, as far as the controller's parts ask it, for tests that need no API server.

As the real one: resourceVersions that conflict, generations that only a spec moves, uids, a status subresource. The
real one is in hosts/test_flux_controller.py.
"""

import copy
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from secretweave.errors import NotFound, Unavailable
from secretweave.flux.cluster import Api, Conflict


class Memory:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str | None, str], dict[str, Any]] = {}
        self.events: list[tuple[str, str, str, str]] = []
        """(name, kind, reason, message)"""
        self.calls: list[tuple[str, str]] = []
        """(verb, plural)"""
        self.down = False
        self._lock = threading.RLock()
        self._version = 0

    @property
    def api(self) -> Api:
        return cast("Api", self)

    def get(self, _api_version: str, plural: str, namespace: str | None, name: str) -> dict[str, Any]:
        with self._lock:
            self._asked("get", plural)
            return copy.deepcopy(self._present(plural, namespace, name))

    def list(
        self,
        _api_version: str,
        plural: str,
        namespace: str | None = None,
        labels: str = "",
        *,
        metadata: bool = False,
    ) -> list[dict[str, Any]]:
        with self._lock:
            self._asked("list", plural)
            assert not labels, "nobody needs it here"
            return [
                {"metadata": copy.deepcopy(obj["metadata"])} if metadata else copy.deepcopy(obj)
                for (kind, where, _), obj in self.objects.items()
                if kind == plural and namespace in {None, where}
            ]

    def create(self, obj: Mapping[str, Any], plural: str) -> dict[str, Any]:
        with self._lock:
            self._asked("create", plural)
            key = _key(obj, plural)
            if key in self.objects:
                raise Conflict("it is there")
            return self._put(key, obj, {})

    def replace(self, obj: Mapping[str, Any], plural: str) -> dict[str, Any]:
        with self._lock:
            self._asked("replace", plural)
            key = _key(obj, plural)
            before = self._present(*key)
            if obj["metadata"].get("resourceVersion", "") != before["metadata"]["resourceVersion"]:
                raise Conflict("it has changed")
            return self._put(key, obj, before)

    def apply(self, obj: Mapping[str, Any], plural: str, *, manager: str, force: bool = False) -> dict[str, Any]:
        assert (manager, force) == ("secretweave", True), "what is ours is ours"
        with self._lock:
            self._asked("apply", plural)
            key = _key(obj, plural)
            before = self.objects.get(key, {})
            whole = {**before, **obj, "metadata": {**before.get("metadata", {}), **obj["metadata"]}}
            return self._put(key, whole, before)

    def patch_status(
        self,
        _api_version: str,
        plural: str,
        namespace: str | None,
        name: str,
        status: Mapping[str, Any],
        *,
        uid: str = "",
    ) -> dict[str, Any]:
        with self._lock:
            self._asked("patch_status", plural)
            obj = self._present(plural, namespace, name)
            if uid not in {"", obj["metadata"]["uid"]}:
                raise Conflict("it is another one")
            merged = {**obj.get("status", {}), **copy.deepcopy(dict(status))}
            obj["status"] = {key: value for key, value in merged.items() if value is not None}
            self._stamp(obj)
            return copy.deepcopy(obj)

    def delete(self, _api_version: str, plural: str, namespace: str | None, name: str) -> None:
        with self._lock:
            self._asked("delete", plural)
            self._present(plural, namespace, name)
            del self.objects[plural, namespace, name]

    def event(self, about: Mapping[str, Any], *, kind: str, reason: str, message: str) -> None:
        self.events.append((about["metadata"]["name"], kind, reason, message))

    def token(self, namespace: str, account: str, audiences: Sequence[str], seconds: int = 600) -> str:
        return f"{namespace}/{account}/{','.join(audiences)}/{seconds}"

    def _asked(self, verb: str, plural: str) -> None:
        self.calls.append((verb, plural))
        if self.down:
            raise Unavailable("the API server does not answer")

    def _present(self, plural: str, namespace: str | None, name: str) -> dict[str, Any]:
        found = self.objects.get((plural, namespace, name))
        if found is None:
            raise NotFound(f"no {plural} {name}")
        return found

    def _put(
        self, key: tuple[str, str | None, str], obj: Mapping[str, Any], before: Mapping[str, Any]
    ) -> dict[str, Any]:
        whole = copy.deepcopy(dict(obj))
        metadata = whole["metadata"]
        metadata["uid"] = before.get("metadata", {}).get("uid") or str(uuid.uuid4())
        generation = before.get("metadata", {}).get("generation", 0)
        metadata["generation"] = generation if before.get("spec") == whole.get("spec") and before else generation + 1
        if before and "status" in before:
            whole["status"] = before["status"]
        self._stamp(whole)
        self.objects[key] = whole
        return copy.deepcopy(whole)

    def _stamp(self, obj: dict[str, Any]) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)


def _key(obj: Mapping[str, Any], plural: str) -> tuple[str, str | None, str]:
    return plural, obj["metadata"].get("namespace"), obj["metadata"]["name"]
