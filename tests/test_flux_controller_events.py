"""What the controller makes of events: which objects come to their turn; no API server, and no worker runs."""

# ruff: noqa: SLF001 - events and ticks come in threads of their own; here they come one by one

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretweave import config as configs
from secretweave.errors import Denied, NotFound, Unavailable
from secretweave.flux import cluster
from secretweave.flux.controller.queue import Key
from secretweave.flux.controller.reconcile import Done, sweep_temporary
from secretweave.flux.controller.run import Controller, Terms
from secretweave.model import Record, SecretFields
from secretweave.stores.base import Wanted
from tests.flux_api import Memory

# The end of each test waits for its servers; what it proves is the order of our own calls.
pytestmark = pytest.mark.once

WEB = Key("shop", "web")


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def controller(tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setattr(cluster, "connect", lambda *_, **_more: memory.api)
    path = tmp_path / "config.json"
    artifacts = {"folder": str(tmp_path / "data"), "address": "127.0.0.1:0", "url": "http://weaver"}
    flux = {"artifacts": artifacts, "health": "127.0.0.1:0", "metrics": "127.0.0.1:0"}
    whole = {"apiVersion": "secretweave.dev/v1alpha1", "kind": "Configuration", "spec": {"flux": flux}}
    path.write_text(json.dumps(whole))
    found = Controller(
        lambda: configs.load(str(path), {}), str(path), Terms(), {"RUNTIME_NAMESPACE": "flux-system"}, lambda _: None
    )
    yield found
    for each in found._servings:
        each.end()


def woven(**ref: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop", "uid": "1", "generation": 1}
    return {"metadata": metadata, "spec": {"sourceRef": {"kind": "GitRepository", "name": "app", **ref}}}


def source(revision: str) -> dict[str, Any]:
    artifact = {"digest": f"sha256:{revision}", "url": "http://x", "revision": revision}
    return {"metadata": {"name": "app", "namespace": "shop"}, "status": {"artifact": artifact}}


def waiting(controller: Controller) -> int:
    return controller._queue.depth()


def reconciled(controller: Controller, done: Done) -> None:
    assert controller._queue.take() == WEB
    controller._note(WEB, done, 0.1)


def test_a_source_that_changed_before_it_was_first_listed_wakes_who_was_woven_from_the_old_one(
    controller: Controller,
):
    controller._saw("", woven())
    reconciled(controller, Done(True, "ok", 600, state="ready", revision="1"))
    controller._saw_source("GitRepository", "", source("2"))
    assert waiting(controller) == 1


def test_a_list_wakes_nobody_who_has_seen_it(controller: Controller):
    controller._saw("", woven())
    reconciled(controller, Done(True, "ok", 600, state="ready", revision="1"))
    for _ in range(2):
        controller._saw_source("GitRepository", "", source("1"))
        controller._saw("", woven())
    assert waiting(controller) == 0
    controller._saw_source("GitRepository", "MODIFIED", source("2"))
    assert waiting(controller) == 1


def test_an_external_artifact_of_ours_that_somebody_deletes_is_made_again(controller: Controller):
    controller._saw("", woven())
    reconciled(controller, Done(True, "ok", 600, state="ready", revision="1"))
    made = {**source("9"), "metadata": {"name": "web", "namespace": "shop"}}
    controller._saw_source("ExternalArtifact", "ADDED", made)
    controller._saw_source("ExternalArtifact", "MODIFIED", made)
    assert waiting(controller) == 0
    controller._saw_source("ExternalArtifact", "DELETED", made)
    assert waiting(controller) == 1


@pytest.mark.parametrize("spec", [None, [], "x", {"sourceRef": "x"}, {"sourceRef": {"kind": [], "name": ["x"]}}])
def test_an_object_of_any_form_is_queued(controller: Controller, spec: Any):
    controller._saw("ADDED", {**woven(), "spec": spec})
    controller._saw_source("GitRepository", "ADDED", source("1"))
    assert waiting(controller) == 1


def test_files_are_swept_only_by_what_the_api_server_says(
    controller: Controller, memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    swept: list[list[Key]] = []
    monkeypatch.setattr(controller.published, "sweep", lambda known: swept.append(list(known)))
    memory.create({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}}, "secretweaves")
    # No event has told of it.
    controller._compare()
    assert swept == [[WEB]]
    assert waiting(controller) == 1
    memory.down = True
    controller._compare()
    assert len(swept) == 1


def test_an_object_that_seemed_gone_has_its_turns_again(controller: Controller, memory: Memory):
    memory.create({**woven(), "metadata": {"name": "web", "namespace": "shop"}}, "secretweaves")
    controller._list()
    # An API server that has just started does not know its CRDs.
    reconciled(controller, Done(True, "gone"))
    assert waiting(controller) == 0
    controller._compare()
    reconciled(controller, Done(True, "ok", 600, state="ready", revision="1"))
    controller._compare()
    assert waiting(controller) == 0
    controller._saw_source("GitRepository", "MODIFIED", source("2"))
    assert waiting(controller) == 1


def test_what_is_asked_for_by_hand_is_not_served_from_what_was_read_before(controller: Controller):
    key, record = ("shop:", "a store", Wanted("db", None)), Record(SecretFields({}), "1")
    other = ("bank:", *key[1:])
    controller._saw("ADDED", woven())
    for each in (key, other):
        controller._shared.keep(each, record, 60, time.monotonic())
    controller._saw("MODIFIED", woven())
    assert controller._shared.find(key, 60) is record
    asked = woven()
    asked["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": "now"}
    controller._saw("MODIFIED", asked)
    assert controller._shared.find(key, 60) is None
    assert controller._shared.find(other, 60) is record
    controller._shared.keep(key, record, 60, time.monotonic())
    controller._saw("MODIFIED", asked)
    assert controller._shared.find(key, 60) is record
    controller._saw("ADDED", woven(), "secretmappings")
    controller._saw("MODIFIED", asked, "secretmappings")
    assert controller._shared.find(key, 60) is None


def test_that_there_are_no_mappings_is_told_once_for_each_reason(
    controller: Controller, memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    monkeypatch.setattr(controller, "_warn", told.append)
    controller._look_for_mappings()
    assert told == []
    controller._terms = controller._terms._replace(secret_mappings=True)
    errors = [NotFound("no such kind"), NotFound("no such kind"), Unavailable("away"), Denied("no")]

    def listing(*_: Any, **_more: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return []

    monkeypatch.setattr(memory, "list", listing)
    for _ in range(6):
        controller._look_for_mappings()
    assert told == [
        "no SecretMapping is looked after: the cluster has no such kind",
        "no SecretMapping is looked after: the controller may not list them",
        "SecretMappings are looked after",
    ]


def test_a_defect_is_in_the_objects_status_without_its_message(
    controller: Controller, memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    memory.create({**woven(), "metadata": {"name": "web", "namespace": "shop"}}, "secretweaves")
    controller._begin()

    def reconcile(_: Key) -> Done:
        raise KeyError("hunter2")

    monkeypatch.setattr(controller._reconciler, "reconcile", reconcile)
    controller._saw("MODIFIED", {**woven(), "metadata": {**woven()["metadata"], "generation": 2}})
    ends = time.monotonic() + 10
    while not (status := memory.objects["secretweaves", "shop", "web"].get("status") or {}).get("conditions") or (
        status["conditions"][0]["reason"] != "InternalError"
    ):
        assert time.monotonic() < ends, status
        time.sleep(0.02)
    controller._drain(controller._workers)
    assert controller._states == {WEB: "not ready"}
    (ready,) = (each for each in status["conditions"] if each["type"] == "Ready")
    assert ready["message"].startswith("the controller failed at it (KeyError), which is a defect of its own")
    assert "hunter2" not in json.dumps(status)


@pytest.mark.parametrize(
    ("error", "is_there", "state"),
    [
        (Unavailable("the store is down"), True, "not ready"),
        (KeyError("x"), True, "not ready"),
        (Unavailable("the store of another of its Secret is down"), False, None),
    ],
)
def test_a_mapping_that_fails_is_counted_as_what_it_is(
    controller: Controller,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    state: str | None,
    *,
    is_there: bool,
):
    controller._begin()
    mapping = WEB._replace(plural="secretmappings")
    controller._states[mapping] = "ready"
    if is_there:
        memory.create({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}}, "secretmappings")

    def reconcile(*_: Any) -> None:
        raise error

    monkeypatch.setattr(controller._mappings, "reconcile", reconcile)
    controller._saw("ADDED", woven(), "secretmappings")
    ends = time.monotonic() + 10
    while controller._states.get(mapping) == "ready":
        assert time.monotonic() < ends
        time.sleep(0.02)
    controller._drain(controller._workers)
    assert controller._states.get(mapping) == state


def test_folders_that_a_crash_has_left_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ("secretweave-flux-old", "secretweave-flux-new", "secretweave-other", "someone-else")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifests.yaml").write_text("a: b\n")
        if name != "secretweave-flux-new":
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / "secretweave-flux-link").symlink_to(tmp_path / "someone-else")
    sweep_temporary()
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], "secretweave-flux-link"}
    assert (tmp_path / "someone-else" / "manifests.yaml").exists()


def test_a_worker_that_ended_is_told_to_who_can_start_the_controller_again(controller: Controller):
    controller._leads = True
    assert controller._probed("/healthz").status == 200
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    controller._workers = [ended]
    assert controller._probed("/healthz").status == 503
