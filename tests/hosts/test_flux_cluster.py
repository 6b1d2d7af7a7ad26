"""The calls of flux/cluster.py, each on a real API server."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.flux import cluster
from secretweave.flux.cluster import Api, Conflict
from tests.hosts.programs import Kubectl
from tests.servers.certificates import Authority
from tests.servers.proxy import Proxy, Reset, Rule, Status

VALUE = "hunter2-hunter2"


def opened(path: Path, **more: Any) -> Api:
    return cluster.connect(str(path), None, environ={}, warn=pytest.fail, **more)


@pytest.fixture
def settings(kubectl: Kubectl) -> dict[str, Any]:
    """The kubeconfig, by which the server's certificate is checked."""
    found: dict[str, Any] = json.loads(kubectl.run("config", "view", "--raw", "--output=json").stdout)
    server = found["clusters"][0]["cluster"]["server"]
    authority = str(kubectl.kubeconfig.parent / "apiserver.crt")
    found["clusters"][0]["cluster"] = {"server": server, "certificate-authority": authority}
    return found


@pytest.fixture
def api(settings: dict[str, Any], tmp_path: Path) -> Iterator[Api]:
    (tmp_path / "admin").write_text(json.dumps(settings))
    found = opened(tmp_path / "admin")
    yield found
    found.close()


def config_map(kubectl: Kubectl, name: str = "settings", **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": kubectl.namespace, "labels": {"app": "shop"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def secret(kubectl: Kubectl, name: str = "db", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": kubectl.namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **more}


def deployment(kubectl: Kubectl) -> dict[str, Any]:
    labels = {"app": "web"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": kubectl.namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }


def shown(error: StoreError) -> str:
    return f"{error.what} {error.why} {error.fix} {error} {error.__context__ if not error.__suppress_context__ else ''}"


def test_what_is_applied_is_got_and_listed(api: Api, kubectl: Kubectl):
    made = api.apply(config_map(kubectl, a="1"), "configmaps", manager="one")
    assert made["data"] == {"a": "1"}
    assert api.get("v1", "configmaps", kubectl.namespace, "settings")["data"] == {"a": "1"}
    (listed,) = api.list("v1", "configmaps", kubectl.namespace, "app=shop")
    assert (listed["apiVersion"], listed["kind"], listed["data"]) == ("v1", "ConfigMap", {"a": "1"})
    assert api.list("v1", "configmaps", kubectl.namespace, "app in (other)") == []
    assert "settings" in {each["metadata"]["name"] for each in api.list("v1", "configmaps", labels="app=shop")}


def test_any_text_is_applied_as_it_is(api: Api, kubectl: Kubectl):
    """What is applied is read as YAML, which has other line breaks than JSON and no pairs of halves."""
    text = '\U0001f511 \u2028\u2029\x85\x7f\ufeff\t\\ "x" ${y}\n---\n'
    assert api.apply(config_map(kubectl, a=text), "configmaps", manager="one")["data"] == {"a": text}
    api.delete("v1", "configmaps", kubectl.namespace, "settings")
    assert api.create(config_map(kubectl, a=text), "configmaps")["data"] == {"a": text}


def test_what_is_applied_without_a_key_gives_it_up(api: Api, kubectl: Kubectl):
    api.apply(config_map(kubectl, a="1", b="2"), "configmaps", manager="one")
    assert api.apply(config_map(kubectl, b="2"), "configmaps", manager="one")["data"] == {"b": "2"}


def test_the_metadata_of_a_secret_comes_without_its_values(api: Api, kubectl: Kubectl):
    made = api.apply(secret(kubectl, stringData={"p": VALUE}), "secrets", manager="one", metadata=True)
    got = api.get("v1", "secrets", kubectl.namespace, "db", metadata=True)
    listed = api.list("v1", "secrets", kubectl.namespace, metadata=True)
    assert made["metadata"]["resourceVersion"] == got["metadata"]["resourceVersion"]
    assert [each["metadata"]["name"] for each in listed] == ["db"]
    assert all("data" not in each and "stringData" not in each for each in (made, got, *listed))


def test_a_field_of_another_manager_is_a_conflict_unless_forced(api: Api, kubectl: Kubectl):
    api.apply(config_map(kubectl, a="1"), "configmaps", manager="one")
    with pytest.raises(Conflict) as caught:
        api.apply(config_map(kubectl, a="2"), "configmaps", manager="two")
    assert 'conflict with "one": .data.a' in caught.value.why
    assert api.apply(config_map(kubectl, a="2"), "configmaps", manager="two", force=True)["data"] == {"a": "2"}


def test_a_conflict_in_a_secret_names_its_fields_and_no_value(api: Api, kubectl: Kubectl):
    api.apply(secret(kubectl, stringData={"password": VALUE}), "secrets", manager="one")
    with pytest.raises(Conflict) as caught:
        api.apply(secret(kubectl, stringData={"password": f"{VALUE}!"}), "secrets", manager="two")
    assert caught.value.why == '.stringData.password: conflict with "one"'
    assert VALUE not in shown(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"data": {"password": VALUE}},
        {"data": {"password": [VALUE]}},
        {"stringData": {"a b": VALUE}},
        {"data": VALUE},
        {"type": "kubernetes.io/tls", "stringData": {"tls.key": VALUE}},
    ],
    ids=["no base64", "a list", "a bad key", "no mapping", "keys missing"],
)
def test_a_secret_that_is_refused_is_told_without_what_was_sent(api: Api, kubectl: Kubectl, more: dict[str, Any]):
    with pytest.raises(StoreError) as caught:
        api.apply(secret(kubectl, **more), "secrets", manager="one")
    assert type(caught.value) is StoreError or isinstance(caught.value, Unavailable)
    assert VALUE not in shown(caught.value)


def test_another_objects_refusal_says_why(api: Api, kubectl: Kubectl):
    with pytest.raises(StoreError, match=r"refuses to patch configmaps `settings`.*422") as caught:
        api.apply({**config_map(kubectl), "data": {"a b": "x"}}, "configmaps", manager="one")
    assert "a valid config key" in caught.value.why


def test_the_status_is_merged(api: Api, kubectl: Kubectl):
    api.apply(deployment(kubectl), "deployments", manager="one")
    for status in ({"replicas": 3, "observedGeneration": 1}, {"replicas": None, "observedGeneration": 2}):
        api.patch_status("apps/v1", "deployments", kubectl.namespace, "web", status)
    assert api.get("apps/v1", "deployments", kubectl.namespace, "web")["status"] == {"observedGeneration": 2}


def test_a_kind_without_a_status_has_none(api: Api, kubectl: Kubectl):
    api.apply(config_map(kubectl), "configmaps", manager="one")
    with pytest.raises(NotFound):
        api.patch_status("v1", "configmaps", kubectl.namespace, "settings", {"x": 1})


def test_a_status_meant_for_an_object_of_that_name_that_is_no_more_is_refused(api: Api, kubectl: Kubectl):
    found = api.create(deployment(kubectl), "deployments")
    with pytest.raises(Conflict):
        api.patch_status("apps/v1", "deployments", kubectl.namespace, "web", {"replicas": 3}, uid="another")
    uid = found["metadata"]["uid"]
    api.patch_status("apps/v1", "deployments", kubectl.namespace, "web", {"observedGeneration": 1}, uid=uid)


def test_what_is_created_twice_or_replaced_in_an_old_version_is_a_conflict(api: Api, kubectl: Kubectl):
    lease: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader", "namespace": kubectl.namespace},
        "spec": {"holderIdentity": "a"},
    }
    made = api.create(lease, "leases")
    with pytest.raises(Conflict):
        api.create(lease, "leases")
    replaced = api.replace({**made, "spec": {"holderIdentity": "b"}}, "leases")
    assert replaced["spec"]["holderIdentity"] == "b"
    with pytest.raises(Conflict):
        api.replace({**made, "spec": {"holderIdentity": "c"}}, "leases")


def test_what_has_changed_is_not_deleted(api: Api, kubectl: Kubectl):
    old = api.apply(config_map(kubectl, a="1"), "configmaps", manager="one")["metadata"]
    new = api.apply(config_map(kubectl, a="2"), "configmaps", manager="one")["metadata"]
    place = ("v1", "configmaps", kubectl.namespace, "settings")
    with pytest.raises(Conflict):
        api.delete(*place, version=old["resourceVersion"])
    with pytest.raises(Conflict):
        api.delete(*place, uid="another")
    api.delete(*place, version=new["resourceVersion"], uid=new["uid"])
    for call in (api.get, api.delete):
        with pytest.raises(NotFound, match=f"no configmaps `settings` in the namespace `{kubectl.namespace}`"):
            call(*place)


def test_a_kind_that_is_not_served_is_not_found(api: Api):
    for version in ("nobody.example.com/v1", "apps/v9"):
        with pytest.raises(NotFound):
            api.list(version, "things")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a%2fb"])
def test_no_name_leads_elsewhere(api: Api, kubectl: Kubectl, name: str):
    with pytest.raises(StoreError, match="what should be a name is none"):
        api.get("v1", "secrets", kubectl.namespace, name)
    with pytest.raises(StoreError):
        api.get("v1", "secrets", "a/b", "c")
    with pytest.raises(NotFound):
        api.get("v1", "secrets", kubectl.namespace, "a?b=c#d")


def test_events_tell_of_their_object_and_warnings_once(api: Api, kubectl: Kubectl):
    about = api.apply(config_map(kubectl), "configmaps", manager="one")
    for _ in range(2):
        api.event(about, kind="Warning", reason="BuildFailed", message="ü" * 2000)
        api.event(about, kind="Normal", reason="Succeeded", message="done")
    found = api.list("events.k8s.io/v1", "events", kubectl.namespace)
    assert sorted((each["type"], each["reason"]) for each in found) == [
        ("Normal", "Succeeded"),
        ("Normal", "Succeeded"),
        ("Warning", "BuildFailed"),
    ]
    assert {each["regarding"]["uid"] for each in found} == {about["metadata"]["uid"]}
    assert {each["note"] for each in found} == {"done", "ü" * 512}
    described = kubectl.run("events", "--for=configmap/settings").stdout
    assert "BuildFailed" in described


def test_an_event_never_raises(api: Api):
    about = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x", "namespace": "is/none"}}
    api.event(about, kind="Normal", reason="X", message="x")
    api.event({}, kind="Normal", reason="X", message="x")


def test_a_token_is_the_accounts_and_for_its_audience(api: Api, kubectl: Kubectl):
    assert kubectl.run("create", "serviceaccount", "shop").returncode == 0
    token = api.token(kubectl.namespace, "shop", ["vault"], 700)
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["vault"]},
    }
    status = api.create(review, "tokenreviews")["status"]
    assert status["user"]["username"] == f"system:serviceaccount:{kubectl.namespace}:shop"
    assert status["audiences"] == ["vault"]
    with pytest.raises(NotFound):
        api.token(kubectl.namespace, "absent", [])


def test_what_rbac_does_not_allow_is_denied(api: Api, kubectl: Kubectl, settings: dict[str, Any], tmp_path: Path):
    assert kubectl.run("create", "serviceaccount", "nobody").returncode == 0
    own = settings
    own["users"][0]["user"] = {"token": api.token(kubectl.namespace, "nobody", [])}
    (tmp_path / "kubeconfig").write_text(json.dumps(own))
    nobody = opened(tmp_path / "kubeconfig")
    with pytest.raises(Denied, match=r"denies the context `test` of the kubeconfig to list secrets in the") as caught:
        nobody.list("v1", "secrets", kubectl.namespace)
    assert "verbs: [list]" in caught.value.fix
    with pytest.raises(Denied, match="to get configmaps `x`") as caught:
        nobody.get("v1", "configmaps", kubectl.namespace, "x")
    assert "cannot get resource" in caught.value.why
    with pytest.raises(Denied):
        nobody.apply(secret(kubectl, stringData={"p": VALUE}), "secrets", manager="one")
    nobody.event({"metadata": {"name": "x", "namespace": kubectl.namespace}}, kind="Normal", reason="X", message="x")
    own["users"][0]["user"] = {"token": "wrong"}
    (tmp_path / "kubeconfig").write_text(json.dumps(own))
    with pytest.raises(Denied, match="does not accept the credentials"):
        opened(tmp_path / "kubeconfig").get("v1", "configmaps", kubectl.namespace, "x")


@pytest.fixture
def proxy(settings: dict[str, Any], tmp_path: Path) -> Iterator[tuple[Proxy, Path]]:
    """A proxy before the API server, and the kubeconfig that leads to it."""
    own = settings
    (tmp_path / "authority").mkdir()
    authority = Authority(tmp_path / "authority")
    before = own["clusters"][0]["cluster"]
    trust = Path(before["certificate-authority"])
    with Proxy(before["server"], trust=trust, certificate=authority.issue("proxy")) as found:
        own["clusters"][0]["cluster"] = {"server": found.url, "certificate-authority": str(authority.certificate)}
        (tmp_path / "kubeconfig").write_text(json.dumps(own))
        yield found, tmp_path / "kubeconfig"


@pytest.mark.parametrize("fault", [Reset(), Status(429), Status(500), Status(503)], ids=str)
def test_what_passes_is_waited_for(proxy: tuple[Proxy, Path], kubectl: Kubectl, fault: Any):
    server, path = proxy
    server.rules = [Rule(fault, times=2)]
    assert opened(path).apply(config_map(kubectl, a="1"), "configmaps", manager="one")["data"] == {"a": "1"}
    assert len(server.seen) == 3


def test_no_call_takes_longer_than_its_time(proxy: tuple[Proxy, Path], kubectl: Kubectl):
    server, path = proxy
    server.rules = [Rule(Status(429, headers={"Retry-After": "60"}))]
    with pytest.raises(Unavailable) as caught:
        opened(path, seconds=5).get("v1", "configmaps", kubectl.namespace, "x")
    assert caught.value.why == "it answers with status 429"
    assert len(server.seen) == 1


@pytest.mark.parametrize("fault", [Status(200, b"<html>"), Status(302, b""), Status(404, b"<html>")], ids=str)
def test_what_is_no_api_is_told(proxy: tuple[Proxy, Path], kubectl: Kubectl, fault: Any):
    server, path = proxy
    server.rules = [Rule(fault)]
    with pytest.raises((Unavailable, NotFound)):
        opened(path).get("v1", "configmaps", kubectl.namespace, "x")


def test_a_server_that_is_not_there_is_unavailable(proxy: tuple[Proxy, Path], kubectl: Kubectl):
    server, path = proxy
    server.rules = [Rule(Reset())]
    found = opened(path)
    with pytest.raises(Unavailable, match="does not answer"):
        found.get("v1", "configmaps", kubectl.namespace, "x")
    server.rules = []
    assert found.list("v1", "configmaps", kubectl.namespace) == []


def test_several_threads_may_ask(api: Api, kubectl: Kubectl):
    def work(number: int) -> str:
        api.apply(config_map(kubectl, f"m{number}", a=str(number)), "configmaps", manager="one")
        value: str = api.get("v1", "configmaps", kubectl.namespace, f"m{number}")["data"]["a"]
        return value

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [str(number) for number in range(24)]
