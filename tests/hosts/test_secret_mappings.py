"""Direct mode and the stores of an object, on a real API server; a tenant's store on a real Vault."""

import base64
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from secretweave import config as configs
from secretweave.errors import BadReference, Denied, Faults, PolicyError, SecretweaveError, Unavailable
from secretweave.flux import cluster, stores
from secretweave.flux.cluster import Api
from secretweave.flux.mappings import Mappings
from secretweave.outputs import Outside
from tests.hosts.programs import Kubectl
from tests.hosts.vault import VaultServer

OPERATORS = "humanitec-operator-system"
VALUE = "hunter2-hunter2"
CONFIG = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: shop}}
spec: {{file: {{path: {folder}/secrets.json}}}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec: {{credentials: {{kubeconfig: {folder}/admin}}}}
"""


def crd(kind: str) -> dict[str, Any]:
    """The originals' schemas are not public: anything goes."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.humanitec.io"},
        "spec": {
            "group": "humanitec.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }


@pytest.fixture
def api(kubectl: Kubectl, tmp_path: Path) -> Iterator[Api]:
    found = json.loads(kubectl.run("config", "view", "--raw", "--output=json").stdout)
    server = found["clusters"][0]["cluster"]["server"]
    authority = str(kubectl.kubeconfig.parent / "apiserver.crt")
    found["clusters"][0]["cluster"] = {"server": server, "certificate-authority": authority}
    (tmp_path / "admin").write_text(json.dumps(found))
    api = cluster.connect(str(tmp_path / "admin"), None, environ={}, warn=pytest.fail)
    yield api
    api.close()


@pytest.fixture
def humanitec(api: Api, kubectl: Kubectl) -> None:
    """The kinds, and the operator's namespace without an operator."""
    for kind in ("SecretMapping", "SecretStore"):
        api.apply(crd(kind), "customresourcedefinitions", manager="test", force=True)
        waited = kubectl.run("wait", "--for=condition=Established", f"crd/{kind.lower()}s.humanitec.io")
        assert waited.returncode == 0, waited.stderr
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATORS}}
    api.apply(namespace, "namespaces", manager="test")


class Shop:
    """One namespace, and the platform's file of secrets."""

    def __init__(self, api: Api, namespace: str, folder: Path) -> None:
        self.api = api
        self.namespace = namespace
        self.folder = folder
        self.warnings: list[str] = []
        self.store(token=VALUE)
        (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
        self.mappings = self.started()

    def started(self, config: configs.Config | None = None) -> Mappings:
        """As a controller that knows nothing of what was before."""
        return Mappings(self.api, lambda: config or self.config(), self.outside, self.warnings.append)

    def config(self) -> configs.Config:
        return configs.load(str(self.folder / "config.yaml"), {})

    def outside(self, namespace: str, _names: str) -> Outside:
        assert namespace == self.namespace
        return Outside({}, time.monotonic() + 20, self.warnings.append)

    def store(self, **values: str) -> None:
        (self.folder / "secrets.json").write_text(json.dumps(values))
        (self.folder / "secrets.json").chmod(0o600)

    def mapping(
        self, name: str, target: str, *, store: str = "shop", metadata: Mapping[str, Any] | None = None, **keys: str
    ) -> dict[str, Any]:
        """*keys*: of the Secret, with the refs of their values."""
        data = [
            {"secretKey": key, "secretStoreName": store, "remoteRef": {"key": ref, "version": ""}}
            for key, ref in keys.items()
        ]
        return self.api.apply(
            {
                "apiVersion": "humanitec.io/v1alpha1",
                "kind": "SecretMapping",
                "metadata": {"name": name, "namespace": self.namespace, **(metadata or {})},
                "spec": {"secretName": target, "secretData": data},
            },
            "secretmappings",
            manager="orchestrator",
            force=True,
        )

    def delete(self, name: str) -> None:
        self.api.delete("humanitec.io/v1alpha1", "secretmappings", self.namespace, name)
        assert self.mappings.reconcile(self.namespace, name, None) is None

    def reconcile(self, obj: Mapping[str, Any]) -> float | None:
        return self.mappings.reconcile(self.namespace, obj["metadata"]["name"], obj)

    def fails(self, obj: Mapping[str, Any]) -> SecretweaveError:
        with pytest.raises(SecretweaveError) as caught:
            self.reconcile(obj)
        assert VALUE not in "".join(self.notes())
        error = caught.value
        return error.faults[0] if isinstance(error, Faults) else error

    def secret(self, name: str) -> dict[str, Any]:
        return self.api.get("v1", "secrets", self.namespace, name)

    def data(self, name: str) -> dict[str, str]:
        found = self.secret(name).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in found.items()}

    def names(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.api.list("v1", "secrets", self.namespace)]

    def notes(self, reason: str = "") -> list[str]:
        found = self.api.list("events.k8s.io/v1", "events", self.namespace)
        return [each["note"] for each in found if reason in {"", each["reason"]}]


@pytest.fixture
def shop(api: Api, humanitec: None, kubectl: Kubectl, tmp_path: Path) -> Shop:
    return Shop(api, kubectl.namespace, tmp_path)


def test_a_mapping_becomes_a_secret_and_follows_its_values(shop: Shop):
    mapping = shop.mapping("app", "app-secrets", TOKEN="token")
    assert shop.reconcile(mapping) == 300
    made = shop.secret("app-secrets")
    assert shop.data("app-secrets") == {"TOKEN": VALUE}
    assert made["type"] == "Opaque"
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "secretweave"}
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("SecretMapping", "app", mapping["metadata"]["uid"])
    assert shop.notes("Applied") == ["made the Secret app-secrets: keys TOKEN"]

    shop.reconcile(mapping)
    assert shop.secret("app-secrets")["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert len(shop.notes()) == 1, "nothing changed, nothing is told"

    shop.store(token="rotated")
    shop.reconcile(mapping)
    assert shop.data("app-secrets") == {"TOKEN": "rotated"}
    assert sorted(shop.notes("Applied"))[1] == "updated the Secret app-secrets: keys TOKEN"
    assert shop.warnings == []


def test_keys_and_targets_that_a_mapping_no_longer_names_go(shop: Shop):
    shop.reconcile(shop.mapping("app", "one", A="token", B="token"))
    shop.reconcile(shop.mapping("app", "one", B="token"))
    assert shop.data("one") == {"B": VALUE}
    shop.mappings = shop.started()
    shop.reconcile(shop.mapping("app", "two", B="token"))
    assert shop.names() == ["two"]


def test_with_its_mapping_a_secret_goes(shop: Shop):
    shop.reconcile(shop.mapping("app", "one", A="token"))
    shop.mappings = shop.started()
    shop.delete("app")
    assert shop.names() == []
    assert shop.mappings.reconcile(shop.namespace, "app", None) is None


def test_two_mappings_share_one_secret(shop: Shop):
    shop.store(token=VALUE, other="o")
    one = shop.mapping("one", "shared", A="token")
    shop.reconcile(one)
    two = shop.mapping("two", "shared", A="token", B="other")
    shop.reconcile(two)
    assert shop.data("shared") == {"A": VALUE, "B": "o"}
    assert {each["name"] for each in shop.secret("shared")["metadata"]["ownerReferences"]} == {"one", "two"}
    shop.reconcile(one)
    shop.delete("two")
    assert shop.data("shared") == {"A": VALUE}
    assert [each["name"] for each in shop.secret("shared")["metadata"]["ownerReferences"]] == ["one"]
    shop.delete("one")
    assert shop.names() == []


def test_one_key_from_two_sources_is_refused_to_both(shop: Shop):
    shop.store(token=VALUE, other="o")
    one, two = shop.mapping("one", "shared", A="token"), None
    shop.reconcile(one)
    two = shop.mapping("two", "shared", A="other")
    for each in (one, two):
        assert "the key A of the Secret shared from two different sources" in shop.fails(each).what
    assert shop.data("shared") == {"A": VALUE}
    assert len(shop.notes("Malformed")) == 2


@pytest.mark.parametrize("label", [{}, {"app.kubernetes.io/managed-by": "secretweave"}], ids=["plain", "our label"])
def test_a_secret_of_somebody_else_is_left_alone(shop: Shop, label: dict[str, str]):
    metadata = {"name": "theirs", "namespace": shop.namespace, "labels": label}
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"K": "eA=="}}
    shop.api.apply(theirs, "secrets", manager="somebody")
    mapping = shop.mapping("app", "theirs", TOKEN="token")
    error = shop.fails(mapping)
    assert isinstance(error, PolicyError)
    assert "`somebody` owns keys of its data" in error.why
    shop.delete("app")
    assert shop.data("theirs") == {"K": "x"}
    (note,) = shop.notes("Refused")
    assert "somebody else's" in note


def test_a_secret_of_ours_that_somebody_writes_into_is_no_longer_ours(shop: Shop):
    mapping = shop.mapping("app", "one", A="token")
    shop.reconcile(mapping)
    made = shop.secret("one")
    shop.api.replace({**made, "data": {**made["data"], "B": "eA=="}}, "secrets")
    assert isinstance(shop.fails(mapping), PolicyError)
    shop.delete("app")
    assert shop.data("one") == {"A": VALUE, "B": "x"}
    assert "outlives its SecretMappings" in shop.warnings[0]


def test_a_store_that_fails_leaves_the_secret_as_it_is(shop: Shop):
    mapping = shop.mapping("app", "one", A="token")
    shop.reconcile(mapping)
    (shop.folder / "secrets.json").unlink()
    assert shop.fails(mapping).exit_code == 6
    assert shop.data("one") == {"A": VALUE}
    (note,) = shop.notes("StoreFailed")
    assert "store" in note or "shop" in note


def test_a_mapping_that_is_malformed_is_told(shop: Shop):
    mapping = shop.mapping("app", "", A="token")
    assert isinstance(shop.fails(mapping), BadReference)
    mapping = shop.mapping("app", "Not_A_Name", A="token")
    assert "metadata.name" in shop.fails(mapping).why
    mapping = shop.mapping("app", "a/b", A="token")
    shop.fails(mapping)
    assert shop.names() == []


def test_a_mapping_that_renames_itself_leaves_a_bad_target_behind(shop: Shop):
    shop.reconcile(shop.mapping("app", "one", A="token"))
    shop.fails(shop.mapping("app", "two", A="absent"))
    assert shop.names() == [], "what it no longer names does not wait for what it names now"


def test_labels_come_along_and_the_marks_of_deployment_tools_do_not(shop: Shop):
    text = 'eins \u2028 zwei \U0001f511 \x85 "drei"\n'
    metadata = {
        "labels": {
            "app": "shop",
            "app.kubernetes.io/instance": "shop",
            "app.kubernetes.io/managed-by": "Helm",
            "kustomize.toolkit.fluxcd.io/name": "apps",
        },
        "annotations": {
            "example.com/note": text,
            "argocd.argoproj.io/tracking-id": "x",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "meta.helm.sh/release-name": "x",
        },
    }
    shop.reconcile(shop.mapping("app", "one", A="token", metadata=metadata))
    made = shop.secret("one")["metadata"]
    assert made["labels"] == {"app": "shop", "app.kubernetes.io/managed-by": "secretweave"}
    assert made["annotations"] == {"example.com/note": text}


def test_beside_the_original_operator_nothing_is_done(shop: Shop):
    labels = {"app.kubernetes.io/name": "humanitec-operator"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "manager", "image": "x"}]}}
    name = "humanitec-operator-controller-manager"
    operator: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": OPERATORS, "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
    }
    shop.api.apply(operator, "deployments", manager="test", force=True)
    try:
        mapping = shop.mapping("app", "one", A="token")
        assert shop.reconcile(mapping) == 300
        assert shop.names() == []
        (note,) = shop.notes("StandsBack")
        assert f"the Deployment {name} in the namespace {OPERATORS}" in note
        assert shop.warnings == [note]
        shop.delete("app")
        shop.api.apply({**operator, "spec": {**operator["spec"], "replicas": 0}}, "deployments", manager="test")
        assert shop.started().operator_runs() is None
    finally:
        shop.api.delete("apps/v1", "deployments", OPERATORS, name)


def test_where_deployments_may_not_be_seen_a_status_tells_of_the_operator(shop: Shop, kubectl: Kubectl):
    mapping = shop.mapping("app", "one", A="token")
    kubectl.run("create", "serviceaccount", "weaver")
    role = kubectl.run("create", "role", "weaver", "--verb=get,list", "--resource=secretmappings.humanitec.io")
    assert role.returncode == 0
    settings = json.loads((shop.folder / "admin").read_text())
    settings["users"][0]["user"] = {"token": shop.api.token(shop.namespace, "weaver", [])}
    (shop.folder / "weaver").write_text(json.dumps(settings))
    user = f"--serviceaccount={shop.namespace}:weaver"
    kubectl.run("create", "clusterrole", "weaver", "--verb=list", "--resource=secretmappings.humanitec.io")
    kubectl.run("create", "clusterrolebinding", "weaver", "--clusterrole=weaver", user)
    try:
        weaver = cluster.connect(str(shop.folder / "weaver"), None, environ={}, warn=pytest.fail)
        with pytest.raises(Denied):
            weaver.list("apps/v1", "deployments", OPERATORS)
        found = Mappings(weaver, shop.config, shop.outside, shop.warnings.append)
        assert found.operator_runs() is None
        patch = kubectl.run(
            "patch", "secretmapping", "app", "--subresource=status", "--type=merge", '--patch={"status":{"x":"y"}}'
        )
        assert patch.returncode == 0, patch.stderr
        found = Mappings(weaver, shop.config, shop.outside, shop.warnings.append)
        assert "`kubectl-patch` has written a status" in (found.operator_runs() or "")
        shop.delete(mapping["metadata"]["name"])
    finally:
        kubectl.run("delete", "clusterrolebinding,clusterrole", "weaver")


# Whose stores.


def secret_store(shop: Shop, name: str, spec: Mapping[str, Any], namespace: str = "", **labels: str) -> None:
    metadata = {"name": name, "namespace": namespace or shop.namespace, "labels": labels}
    found = {"apiVersion": "humanitec.io/v1alpha1", "kind": "SecretStore", "metadata": metadata, "spec": spec}
    shop.api.apply(found, "secretstores", manager="test", force=True)


def secret(shop: Shop, name: str, namespace: str, **data: str) -> None:
    found = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": data,
    }
    shop.api.apply(found, "secrets", manager="test", force=True)


@pytest.fixture(scope="module")
def engine(vault: VaultServer) -> VaultServer:
    vault.mount("direct", version="2")
    return vault


@pytest.fixture
def filled(engine: VaultServer) -> VaultServer:
    engine.put("direct", "db", {"value": VALUE})
    return engine


def vault_spec(vault: VaultServer, auth: Mapping[str, Any]) -> dict[str, Any]:
    tls = {"caSecretRef": {"name": "vault", "key": "ca"}}
    return {"vault": {"url": vault.address, "path": "direct", "auth": auth, "tls": tls}}


def test_a_tenants_vault_is_logged_in_to_with_a_secret_of_its_namespace(shop: Shop, filled: VaultServer):
    secret(shop, "vault", shop.namespace, token=filled.token, ca=filled.ca.read_text())
    secret_store(shop, "mine", vault_spec(filled, {"tokenSecretRef": {"name": "vault", "key": "token"}}))
    mapping = shop.mapping("app", "one", store="mine", A="db")
    shop.reconcile(mapping)
    assert shop.data("one") == {"A": VALUE}
    filled.put("direct", "db", {"value": "rotated"})
    shop.reconcile(mapping)
    assert shop.data("one") == {"A": "rotated"}
    secret(shop, "vault", shop.namespace, token="wrong", ca=filled.ca.read_text())
    assert isinstance(shop.fails(mapping), Denied)
    secret_store(
        shop,
        "mine",
        {"vault": {"url": "http://127.0.0.1:1", "auth": {"tokenSecretRef": {"name": "vault", "key": "token"}}}},
    )
    assert isinstance(shop.fails(mapping), Unavailable)
    assert shop.data("one") == {"A": "rotated"}


@pytest.mark.parametrize(
    "auth",
    [{}, {"kubernetes": {"role": "x"}}, {"tokenSecretRef": {"name": "t", "key": "t"}, "kubernetes": {"role": "x"}}],
    ids=["ambient", "the controller's account", "both"],
)
def test_a_tenants_store_does_not_show_who_the_controller_is(shop: Shop, filled: VaultServer, auth: dict[str, Any]):
    filled.reset()
    secret_store(shop, "mine", vault_spec(filled, auth))
    error = shop.fails(shop.mapping("app", "one", store="mine", A="db"))
    assert isinstance(error, PolicyError)
    assert "spec.vault.auth.tokenSecretRef" in error.fix
    assert filled.stats().requests == 0
    assert shop.names() == []


def test_the_cluster_is_read_by_the_platforms_stores_alone(shop: Shop):
    hidden = f"hidden-{os.urandom(4).hex()}"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": hidden}}
    shop.api.apply(namespace, "namespaces", manager="test")
    secret(shop, "db", hidden, password=VALUE)
    spec = {"kubernetes": {"namespace": hidden, "kubeconfig": str(shop.folder / "admin")}}
    secret_store(shop, "mine", {"kubernetes": {"namespace": hidden}})
    assert isinstance(shop.fails(shop.mapping("app", "one", store="mine", A="db/password")), PolicyError)
    secret_store(shop, "cluster", spec, OPERATORS)
    try:
        shop.reconcile(shop.mapping("app", "one", store="cluster", A="db/password"))
    finally:
        shop.api.delete("humanitec.io/v1alpha1", "secretstores", OPERATORS, "cluster")
    assert shop.data("one") == {"A": VALUE}


def test_a_store_of_another_namespace_is_not_found(shop: Shop, filled: VaultServer):
    secret_store(shop, "theirs", vault_spec(filled, {"tokenSecretRef": {"name": "t", "key": "t"}}), "default")
    error = shop.fails(shop.mapping("app", "one", store="theirs", A="db"))
    assert error.what == "no store is called `theirs`"


def test_a_broken_store_is_a_fault_of_what_names_it_alone(shop: Shop):
    secret_store(shop, "broken", {"vault": {"url": 7, "auth": {"tokenSecretRef": {"name": "t"}}}})
    secret_store(
        shop,
        "joined",
        {
            "vault": {
                "url": "https://{project}-{namespace}.example.com",
                "auth": {"tokenSecretRef": {"name": "t", "key": "t"}},
            }
        },
    )
    shop.reconcile(shop.mapping("app", "one", A="token"))
    error = shop.fails(shop.mapping("other", "two", store="broken", A="x"))
    assert error.what == f"the SecretStore {shop.namespace}/broken of the cluster is faulty"
    assert "spec.vault.url: expected text, found a whole number" in error.why
    assert (
        "nothing holds two placeholders apart" in shop.fails(shop.mapping("other", "two", store="joined", A="x")).what
    )
    assert shop.names() == ["one"]


def test_without_the_kinds_there_are_the_configurations_stores(api: Api, kubectl: Kubectl, tmp_path: Path):
    shop = Shop(api, kubectl.namespace, tmp_path)
    kubectl.run("delete", "crd", "secretstores.humanitec.io", "--ignore-not-found")
    found = stores.configured(api, shop.config(), shop.namespace)
    assert [each.id for each in found.stores] == ["shop"]
