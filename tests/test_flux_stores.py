"""Which SecretStores of a cluster an object may use; what the cluster has is given here as its API gives it."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from secretweave import stores as kinds
from secretweave.config import Config
from secretweave.config.configuration import Credentials, SecretStores, Settings
from secretweave.errors import BadReference, ConfigError, Denied, NotFound, PolicyError, SecretweaveError
from secretweave.flux import stores
from secretweave.flux.cluster import Api
from secretweave.model import StoreConfig
from secretweave.stores import vault

OPERATORS = "humanitec-operator-system"
TOKEN = {"tokenSecretRef": {"name": "vault", "key": "token"}}
REF = {"name": "login", "key": "key"}
KEYS = {"accessKeyIDSecretRef": REF, "secretAccessKeySecretRef": REF}
OWN: dict[str, list[dict[str, Any]]] = {
    "vault": [
        TOKEN,
        {"appRole": {"roleID": "x", "secretIDSecretRef": REF}},
        {"userPass": {"username": "x", "passwordSecretRef": REF}},
    ],
    "awssm": [KEYS, {**KEYS, "roleARN": "arn:aws:iam::123456789012:role/x"}, {**KEYS, "sessionTokenSecretRef": REF}],
    "awsssm": [KEYS],
    "gcpsm": [{"secretAccessKeySecretRef": REF}],
    "azurekv": [
        {"clientIDSecretRef": REF, "clientSecretSecretRef": REF},
        {"clientID": "x", "clientSecretSecretRef": REF},
    ],
}
AMBIENT: dict[str, list[dict[str, Any]]] = {
    "vault": [{}, {"kubernetes": {"role": "x"}}, {**TOKEN, "kubernetes": {"role": "x"}}],
    "awssm": [
        {},
        {"profile": "x"},
        {"roleARN": "arn:aws:iam::123456789012:role/x"},
        {"accessKeyIDSecretRef": REF},
        {**KEYS, "profile": "x"},
    ],
    "awsssm": [{}],
    "gcpsm": [{}],
    "azurekv": [
        {},
        {"managedIdentity": {}},
        {"workloadIdentity": {}},
        {"cli": {}},
        {"clientID": "x"},
        {"clientSecretSecretRef": REF, "managedIdentity": {}},
    ],
}
MORE = {"azurekv": {"url": "https://x.vault.azure.net"}, "vault": {"url": "https://vault.example.com"}}


class Cluster:
    """An API that has these SecretStores."""

    def __init__(self, *found: Mapping[str, Any], error: SecretweaveError | None = None) -> None:
        self.found = found
        self.error = error
        self.asked: list[str] = []

    def list(self, api_version: str, plural: str, namespace: str) -> list[Mapping[str, Any]]:
        assert (api_version, plural) == ("humanitec.io/v1alpha1", "secretstores")
        self.asked.append(namespace)
        if self.error:
            raise self.error
        return [each for each in self.found if each["metadata"]["namespace"] == namespace]


def obj(name: str, spec: Any, namespace: str = "shop", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": labels, "managedFields": [{"manager": "x"}]}
    return {
        "apiVersion": "humanitec.io/v1alpha1",
        "kind": "SecretStore",
        "metadata": metadata,
        "spec": spec,
        "status": {"conditions": []},
    }


def provider(kind: str, auth: Any) -> dict[str, Any]:
    return {kind: {**MORE.get(kind, {}), "auth": auth}}


def configured(cluster: Cluster, config: Config | None = None, namespace: str = "shop") -> Config:
    return stores.configured(cast("Api", cluster), config or Config(), namespace)


def mounted(name: str = "platform", namespace: str | None = None, url: str = "https://mounted") -> StoreConfig:
    return StoreConfig(name, namespace, "vault", vault.Settings(url=url), default=False)


@pytest.mark.parametrize(("kind", "auth"), [(kind, auth) for kind, ways in OWN.items() for auth in ways])
def test_a_tenants_store_logs_in_with_its_own_secrets(kind: str, auth: dict[str, Any]):
    found = configured(Cluster(obj("mine", provider(kind, auth)))).store("mine", "shop")
    assert (found.type, found.namespace) == (kind, "shop")


@pytest.mark.parametrize(("kind", "auth"), [(kind, auth) for kind, ways in AMBIENT.items() for auth in ways])
def test_a_tenants_store_never_logs_in_as_the_controller(kind: str, auth: dict[str, Any]):
    cluster = Cluster(obj("mine", provider(kind, auth)))
    with pytest.raises(PolicyError) as caught:
        configured(cluster).store("mine", "shop")
    assert caught.value.what == "the SecretStore shop/mine of the cluster may not be used"
    assert "Secrets of the namespace shop" in caught.value.fix
    platforms = Cluster(obj("mine", provider(kind, auth), OPERATORS))
    assert configured(platforms).store("mine", "shop").type == kind


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vault", {"auth": {"tokenFile": "/var/run/secrets/token"}}),
        ("vault", {"auth": {"kubernetes": {"role": "x", "tokenFile": "/t"}}}),
        ("vault", {"auth": {"jwt": {"tokenFile": "/t"}}}),
        ("vault", {"auth": TOKEN, "tls": {"certFile": "/c", "keyFile": "/k"}}),
        ("awssm", {"auth": {"webIdentity": {"roleARN": "x", "tokenFile": "/t"}}}),
        ("gcpsm", {"auth": {"credentialsFile": "/c"}}),
        ("gcpsm", {"auth": {"secretAccessKeySecretRef": REF}, "caFile": "/c"}),
    ],
)
def test_a_tenants_store_names_no_file(kind: str, settings: dict[str, Any]):
    with pytest.raises(ConfigError) as caught:
        configured(Cluster(obj("mine", {kind: settings}))).store("mine", "shop")
    assert "a manifest may not name a file of this machine" in caught.value.why


@pytest.mark.parametrize("namespace", ["shop", OPERATORS])
@pytest.mark.parametrize("spec", [{"file": {"path": "/etc/passwd"}}, {"env": {"prefix": "X_"}}], ids=["file", "env"])
def test_no_store_of_the_cluster_reads_the_controllers_pod(namespace: str, spec: dict[str, Any]):
    with pytest.raises((PolicyError, ConfigError)):
        configured(Cluster(obj("mine", spec, namespace))).store("mine", "shop")


def test_a_tenant_reads_no_secrets_as_the_controller_not_even_its_own():
    spec = {"kubernetes": {"namespace": "shop"}}
    with pytest.raises(PolicyError, match="may not be used") as caught:
        configured(Cluster(obj("mine", spec))).store("mine", "shop")
    assert OPERATORS in caught.value.fix


def test_each_type_of_store_is_decided_of():
    local = {kind for kind in kinds.types() if kinds.is_local(kind)}
    assert set(kinds.types()) == local | set(stores.LOGINS) | {"kubernetes"}


@pytest.mark.parametrize("source", ["folder", "environment"])
def test_a_tenants_login_is_read_from_the_cluster_alone(source: Any):
    config = Config(settings=Settings(credentials=Credentials(from_=source, folder="/credentials")))
    cluster = Cluster(obj("mine", provider("vault", TOKEN)), obj("ours", provider("vault", TOKEN), OPERATORS))
    found = configured(cluster, config)
    with pytest.raises(PolicyError) as caught:
        found.store("mine", "shop")
    assert "credentials.from" in caught.value.why
    assert found.store("ours", "shop").id == f"{OPERATORS}/ours"


def test_the_namespace_goes_before_what_is_shared_and_the_file_before_the_cluster():
    cluster = Cluster(
        obj("platform", provider("vault", TOKEN)),
        obj("platform", provider("awssm", {}), OPERATORS),
        obj("other", provider("awssm", {}), OPERATORS),
    )
    found = configured(cluster, Config((mounted(),)))
    assert found.store("platform", "shop").namespace == "shop"
    assert configured(cluster, Config((mounted(),)), "cart").store("platform", "cart").settings.url == "https://mounted"
    own = configured(cluster, Config((mounted(namespace="shop"),))).store("platform", "shop")
    assert own.settings.url == "https://mounted"
    assert found.store("other", "shop").id == f"{OPERATORS}/other"


def test_what_is_refused_is_not_stood_in_for_by_another_of_its_name():
    cluster = Cluster(obj("platform", provider("vault", {})))
    with pytest.raises(PolicyError):
        configured(cluster, Config((mounted(),))).store("platform", "shop")


def test_only_the_own_namespace_and_the_operators_are_asked():
    cluster = Cluster(obj("theirs", provider("vault", TOKEN), "cart"))
    with pytest.raises(BadReference, match="no store is called `theirs`"):
        configured(cluster).store("theirs", "shop")
    assert cluster.asked == [OPERATORS, "shop"]


def test_a_mounted_store_of_another_namespace_is_not_for_this_one():
    with pytest.raises(PolicyError):
        configured(Cluster(), Config((mounted(namespace="cart"),))).store("platform", "cart")


def test_the_default_is_the_platforms():
    label = {"app.humanitec.io/default-store": "true"}
    cluster = Cluster(
        obj("mine", provider("vault", TOKEN), **label), obj("ours", provider("vault", TOKEN), OPERATORS, **label)
    )
    assert configured(cluster).store("", "shop").name == "ours"


def test_placeholders_are_the_objects_namespace():
    settings = {"url": "https://{namespace}.example.com", "path": "kv/{project}", "auth": TOKEN}
    found = configured(Cluster(obj("ours", {"vault": settings}, OPERATORS))).store("ours", "shop")
    assert (found.settings.url, found.settings.path) == ("https://shop.example.com", "kv/shop")


BROKEN: list[tuple[Any, str]] = [
    (None, "a SecretStore has exactly one provider"),
    ([], "exactly one provider"),
    ({}, "exactly one provider"),
    ({"vault": {}, "awssm": {}}, "exactly one provider"),
    ({"vautl": {}}, "unknown store type"),
    ({"vault": {"url": 1, "path": 2, "namespace": 3, "field": 4}}, "and 1 more"),
    ({"vault": {"auth": {"tokenSecretRef": {"name": "x"}}}}, "`key` is missing"),
    ({"vault": {"url": "https://{project}{namespace}", "auth": TOKEN}}, ""),
]


@pytest.mark.parametrize(("spec", "why"), BROKEN)
@pytest.mark.parametrize("namespace", ["shop", OPERATORS])
def test_a_broken_store_breaks_what_names_it_alone(spec: Any, why: str, namespace: str):
    found = configured(Cluster(obj("broken", spec, namespace), obj("well", provider("vault", TOKEN))))
    assert found.store("well", "shop").name == "well"
    with pytest.raises(ConfigError) as caught:
        found.store("broken", "shop")
    assert why in caught.value.why
    assert caught.value.fix


def test_a_store_that_is_called_like_no_store_is_told():
    found = configured(Cluster(obj("humanitec", provider("vault", TOKEN)), obj("x.y", provider("vault", TOKEN))))
    for name in ("humanitec", "x.y"):
        with pytest.raises(ConfigError, match=f"the SecretStore shop/{name} of the cluster is faulty"):
            found.store(name, "shop")


def test_a_cluster_without_the_kind_has_none():
    found = configured(Cluster(error=NotFound("no such kind")), Config((mounted(),)))
    assert [each.id for each in found.stores] == ["platform"]


def test_stores_of_a_tenants_source_are_never_used():
    config = Config((mounted(),), Settings(secret_stores=SecretStores(in_stream="use")))
    with pytest.raises(ConfigError, match="inStream `use` is not for a controller"):
        configured(Cluster(), config)


def test_where_stores_may_not_be_listed_none_is_taken_for_another():
    with pytest.raises(Denied):
        configured(Cluster(error=Denied("no")), Config((mounted(),)))


def test_the_operators_own_objects_are_asked_for_once():
    cluster = Cluster(obj("ours", provider("awssm", {}), OPERATORS))
    assert configured(cluster, namespace=OPERATORS).store("ours", OPERATORS).name == "ours"
    assert cluster.asked == [OPERATORS]
