"""Whose a Secret is, and when Direct mode stands back; with a real API server: tests/hosts/test_secret_mappings.py."""

import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from secretweave.config import Config
from secretweave.errors import Denied, NotFound, SecretweaveError, Unavailable
from secretweave.flux.cluster import Api, Conflict
from secretweave.flux.mappings import Mappings
from secretweave.outputs import Outside

OWNER = {"apiVersion": "humanitec.io/v1alpha1", "kind": "SecretMapping", "name": "app", "uid": "1"}
OURS = {"manager": "secretweave", "operation": "Apply", "fieldsV1": {"f:data": {}, "f:type": {}}}
LABELS = {"app.kubernetes.io/managed-by": "secretweave"}
MAPPING: dict[str, Any] = {
    "apiVersion": "humanitec.io/v1alpha1",
    "kind": "SecretMapping",
    "metadata": {"name": "app", "namespace": "shop", "uid": "1"},
    "spec": {"secretName": "db", "secretData": []},
}


class Cluster:
    """An API that has one Secret, `db`, one SecretMapping or none, and what else is given by its kind."""

    def __init__(self, secret: Mapping[str, Any] | None, **kinds: Any) -> None:
        self.secret = secret
        self.kinds = {"secretmappings": [MAPPING], "secretstores": [], "deployments": []} | kinds
        self.done: list[str] = []
        self.conflicts = 0
        self.asked: list[str] = []
        self.events: list[tuple[str, str]] = []

    def get(self, _api_version: str, _plural: str, _namespace: str, _name: str, *, metadata: bool) -> Any:
        assert metadata, "no value is read from the cluster"
        if self.secret is None:
            raise NotFound("not there")
        return {"metadata": {"name": "db", "uid": "2", "resourceVersion": "7", **self.secret}}

    def list(self, _api_version: str, plural: str, *_: Any, metadata: bool = False) -> Any:
        self.asked.append(plural)
        if plural == "secrets":
            assert metadata, "no value is read from the cluster"
            return [self.get("", "", "", "", metadata=True)] if self.secret is not None else []
        found = self.kinds[plural]
        if isinstance(found, SecretweaveError):
            raise found
        return found

    def apply(self, obj: Mapping[str, Any], _plural: str, *, manager: str, metadata: bool) -> Any:
        assert (manager, metadata) == ("secretweave", True)
        self.done.append(f"apply {obj['metadata'].get('resourceVersion', 'new')}")
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("changed meanwhile")
        return {"metadata": {"resourceVersion": "8"}}

    def delete(self, *_: Any, version: str, uid: str) -> None:
        self.done.append(f"delete {version} {uid}")

    def event(self, _about: Mapping[str, Any], *, kind: str, reason: str, message: str) -> None:
        assert kind in {"Normal", "Warning"}
        self.events.append((reason, message))


def mappings(cluster: Cluster, warnings: list[str], named: list[str] | None = None) -> Mappings:
    def outside(_namespace: str, names: str) -> Outside:
        if named is not None:
            named.append(names)
        return Outside({}, time.monotonic() + 10, warnings.append)

    return Mappings(cast("Api", cluster), Config, outside, warnings.append)


SECRETS: list[tuple[dict[str, Any] | None, bool]] = [
    (None, True),
    ({"labels": LABELS, "ownerReferences": [OWNER], "managedFields": [OURS]}, True),
    ({"labels": LABELS, "ownerReferences": [OWNER]}, True),
    ({"labels": LABELS, "ownerReferences": [OWNER], "managedFields": [OURS, {"manager": "kubectl-label"}]}, True),
    ({"labels": LABELS, "ownerReferences": [OWNER], "managedFields": [OURS, {**OURS, "manager": "kubectl"}]}, False),
    ({"labels": LABELS, "ownerReferences": [OWNER], "managedFields": [{**OURS, "operation": "Update"}]}, False),
    ({"labels": LABELS, "managedFields": [OURS]}, False),
    ({"labels": LABELS, "ownerReferences": [{**OWNER, "kind": "SecretWeave"}], "managedFields": [OURS]}, False),
    ({"labels": {}, "ownerReferences": [OWNER], "managedFields": [OURS]}, False),
    ({}, False),
]


@pytest.mark.parametrize(("secret", "ours"), SECRETS)
def test_only_a_secret_of_ours_is_written(secret: dict[str, Any] | None, *, ours: bool):
    cluster = Cluster(secret)
    found = mappings(cluster, [])
    if ours:
        assert found.reconcile("shop", "app", MAPPING) == 300
        assert cluster.done == [f"apply {'new' if secret is None else '7'}"]
        assert [reason for reason, _ in cluster.events] == ["Applied"]
    else:
        with pytest.raises(SecretweaveError, match="somebody else's"):
            found.reconcile("shop", "app", MAPPING)
        assert cluster.done == []
        assert [reason for reason, _ in cluster.events] == ["Refused"]


@pytest.mark.parametrize(("secret", "ours"), SECRETS[1:])
@pytest.mark.parametrize("obj", [None, {**MAPPING, "metadata": {**MAPPING["metadata"], "deletionTimestamp": "x"}}])
def test_only_a_secret_of_ours_is_removed(secret: dict[str, Any], obj: dict[str, Any] | None, *, ours: bool):
    cluster = Cluster(secret, secretmappings=[obj] if obj else [])
    assert mappings(cluster, []).reconcile("shop", "app", obj) is None
    assert cluster.done == (["delete 7 2"] if ours else [])


@pytest.mark.parametrize(("conflicts", "told"), [(1, "Applied"), (2, "StoreFailed")])
def test_what_another_mapping_has_just_written_is_looked_at_again(conflicts: int, told: str):
    cluster = Cluster(SECRETS[1][0])
    cluster.conflicts = conflicts
    found = mappings(cluster, [])
    if told == "Applied":
        found.reconcile("shop", "app", MAPPING)
    else:
        with pytest.raises(Conflict):
            found.reconcile("shop", "app", MAPPING)
    assert cluster.done == ["apply 7", "apply 7"]
    assert [reason for reason, _ in cluster.events] == [told]


@pytest.mark.parametrize(("count", "names"), [(1, "0"), (3, "0, 1, 2"), (500, "0, 1, 2 and 497 more of the Secret db")])
def test_a_line_of_the_log_has_an_end_however_many_mappings_feed_one_secret(count: int, names: str):
    feeding = [
        {**MAPPING, "metadata": {**MAPPING["metadata"], "name": str(each), "creationTimestamp": f"{each:04}"}}
        for each in range(count)
    ]
    named: list[str] = []
    mappings(Cluster(None, secretmappings=feeding), [], named).reconcile("shop", "0", feeding[0])
    assert named == [names]


def test_a_cluster_without_the_kind_has_no_mappings():
    cluster = Cluster(SECRETS[1][0], secretmappings=NotFound("no such kind"))
    assert mappings(cluster, []).reconcile("shop", "app", None) is None


def test_the_operator_is_looked_for_once_a_minute():
    cluster = Cluster(None)
    found = mappings(cluster, [])
    for _ in range(3):
        found.reconcile("shop", "app", MAPPING)
    assert cluster.asked.count("deployments") == 2, "one for each namespace where it may be"


def test_an_operator_that_cannot_be_looked_for_is_not_taken_for_none():
    cluster = Cluster(None, deployments=Unavailable("no answer"))
    with pytest.raises(Unavailable):
        mappings(cluster, []).reconcile("shop", "app", MAPPING)
    assert cluster.done == []
    assert [reason for reason, _ in cluster.events] == ["StoreFailed"]


@pytest.mark.parametrize("replicas", [{}, {"replicas": 1}, {"replicas": 0}])
def test_an_operator_stops_it_unless_it_is_scaled_to_nothing(replicas: dict[str, int]):
    operator = {"metadata": {"name": "humanitec"}, "spec": replicas}
    cluster, warnings = Cluster(None, deployments=[operator]), list[str]()
    found = mappings(cluster, warnings)
    assert found.reconcile("shop", "app", MAPPING) == 300
    runs = replicas.get("replicas", 1) > 0
    assert bool(found.operator_runs()) is runs
    assert cluster.done == ([] if runs else ["apply new"])
    assert len(warnings) == runs


@pytest.mark.parametrize(("manager", "runs"), [("manager", True), ("secretweave", False)])
def test_without_leave_to_see_it_a_foreign_status_stands_for_the_operator(manager: str, *, runs: bool):
    fields = [{"manager": "agent"}, {"manager": manager, "subresource": "status"}]
    mapping = {**MAPPING, "metadata": {**MAPPING["metadata"], "managedFields": fields}}
    cluster = Cluster(None, deployments=Denied("no"), secretmappings=[mapping])
    assert bool(mappings(cluster, []).operator_runs()) is runs
