"""The store `kubernetes` and the credentials of the cluster, on a real API server; faults through a proxy before it."""

import base64
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secretweave import credentials
from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import SecretValue, StoreConfig
from secretweave.sdk import cluster
from secretweave.stores import kubernetes, open_store
from secretweave.stores.base import BatchStore, Context, Limits, SecretKeyRef, Store, Wanted
from tests.hosts.programs import Kubectl
from tests.servers.certificates import Authority
from tests.servers.proxy import Exchange, Fault, Half, Hang, Proxy, Redirect, Reset, Rule, Status, elsewhere
from tests.stores.contract import BINARY, Opened, Secret, StoreContract, context, plain, told_versions

VALUE = "hunter2-hunter2"


class Api(NamedTuple):
    """The API server, as its admin."""

    kubectl: Kubectl
    address: str
    authority: Path
    token: str

    @property
    def namespace(self) -> str:
        return self.kubectl.namespace

    @property
    def folder(self) -> Path:
        return self.kubectl.kubeconfig.parent

    def apply(self, *objects: Mapping[str, Any]) -> None:
        items = [{"apiVersion": "v1", **each} for each in objects]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        applied = self.kubectl.run("apply", "--filename=-", text=text)
        assert applied.returncode == 0, applied.stderr

    def secret(self, name: str, **data: str | bytes) -> None:
        self.apply({"kind": "Secret", "metadata": {"name": name}, "data": encoded(data)})

    def reader(self, name: str, *secrets: str, kind: str = "ServiceAccount") -> str:
        """A ServiceAccount, or a User, that may get these Secrets; a ServiceAccount's token."""
        rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(secrets), "verbs": ["get"]}]
        group = "" if kind == "ServiceAccount" else "rbac.authorization.k8s.io"
        subject = {"kind": kind, "name": name} | ({"apiGroup": group} if group else {"namespace": self.namespace})
        rbac = "rbac.authorization.k8s.io/v1"
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        self.apply(
            {"kind": "ServiceAccount", "metadata": {"name": name}},
            {"apiVersion": rbac, "kind": "Role", "metadata": {"name": name}, "rules": rules},
            {
                "apiVersion": rbac,
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "subjects": [subject],
                "roleRef": role,
            },
        )
        return self.kubectl.run("create", "token", name).stdout


def encoded(data: Mapping[str, str | bytes]) -> dict[str, str]:
    return {
        key: base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        for key, value in data.items()
    }


def kubeconfig(path: Path, server: str, user: Mapping[str, Any], **more: Any) -> str:
    """A kubeconfig of one context, `test`; *more* of its cluster, with `_` for `-`."""
    details = {"server": server} | {key.replace("_", "-"): value for key, value in more.items()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": details}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(document))
    return str(path)


Open = Callable[..., BatchStore]


@pytest.fixture
def api(kubectl: Kubectl) -> Api:
    folder = kubectl.kubeconfig.parent
    view = json.loads(kubectl.run("config", "view", "--raw", "--output=json").stdout)
    address, token = view["clusters"][0]["cluster"]["server"], view["users"][0]["user"]["token"]
    return Api(kubectl, address, folder / "apiserver.crt", token)


@pytest.fixture
def opened_stores() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def asked(config: StoreConfig, environ: Mapping[str, str] | None = None, **limits: Any) -> Context:
    """A store's context, with limits of the test's own."""
    given = context(config, environ or {})
    return given._replace(limits=given.limits._replace(**limits))


@pytest.fixture
def opens(api: Api, tmp_path: Path, opened_stores: ExitStack) -> Open:
    """Opens the store on the API server, or on what stands before it."""

    def opens(
        server: str = "",
        user: Mapping[str, Any] | None = None,
        *,
        ca: Path | None = None,
        limits: Mapping[str, Any] | None = None,
        warn: Callable[[str], None] = pytest.fail,
        show: bool = True,
        **settings: Any,
    ) -> BatchStore:
        trusted = {"certificate_authority": str(ca or api.authority)}
        path = kubeconfig(
            tmp_path / "kubeconfig", server or api.address, {"token": api.token} if user is None else user, **trusted
        )
        chosen = kubernetes.Settings(**{"namespace": api.namespace, "kubeconfig": path} | settings)
        config = StoreConfig("cluster", None, "kubernetes", chosen, default=False)
        given = asked(config, **(limits or {}))._replace(warn=warn, show_key_names=show)
        store: BatchStore = open_store(config, given)  # type: ignore[assignment]  # the type says which it is
        opened_stores.callback(store.close)
        return store

    return opens


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "authority").mkdir()
    return Authority(tmp_path / "authority")


@pytest.fixture
def proxy(api: Api, authority: Authority) -> Iterator[Proxy]:
    with Proxy(api.address, trust=api.authority, certificate=authority.issue("proxy")) as proxy:
        yield proxy


@pytest.fixture
def through(opens: Open, proxy: Proxy, authority: Authority) -> Open:
    """Opens the store through the proxy."""
    return lambda **more: opens(proxy.url, ca=authority.certificate, **more)


class TestContract(StoreContract):
    lacks = frozenset({"typed fields", "versions"})

    @pytest.fixture
    def opened(self, api: Api, opens: Open) -> Opened:
        """A blob is the key `value`, which the setting `key` then stands for."""

        def opened(secrets: list[Secret]) -> Store:
            for path, value in secrets:
                api.secret(path, **(value if isinstance(value, Mapping) else {"value": value}))
            is_blob = bool(secrets) and not isinstance(secrets[0].value, Mapping)
            return opens(key="value" if is_blob else None)

        return opened

    @pytest.mark.parametrize("field", ["tls.key", "--flag", "A_b", ".a"])
    def test_field_names_are_free(self, opened: Opened, field: str):
        """As far as Kubernetes allows them."""
        assert plain(opened([Secret("db", {field: "x", "other": "y"})]).fetch("db", None))[field] == "x"

    def test_no_value_shows_in_an_error(self, opened: Opened):
        store = opened([Secret("db", {"password": VALUE})])
        for ref in ("db/absent", "absent", f"db/{VALUE}/x"):
            with pytest.raises(StoreError) as caught:
                store.fetch(ref, None)
            assert "hunter2" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


def test_one_key_is_a_blob_and_all_of_them_are_fields(api: Api, opens: Open):
    api.secret("db", user="web", keystore=BINARY)
    store = opens()
    assert plain(store.fetch("db", None)) == {"user": "web", "keystore": BINARY}
    assert store.fetch("db/keystore", None).value == SecretValue(BINARY)


def test_a_secret_without_data_has_no_fields(api: Api, opens: Open):
    api.secret("empty")
    assert plain(opens().fetch("empty", None)) == {}


def test_an_immutable_secret_of_another_type_is_read(api: Api, opens: Open):
    data = encoded({"username": "web", "password": VALUE})
    api.apply(
        {
            "kind": "Secret",
            "metadata": {"name": "login"},
            "type": "kubernetes.io/basic-auth",
            "immutable": True,
            "data": data,
        }
    )
    assert plain(opens().fetch("login/password", None)) == VALUE.encode()


def test_the_version_read_is_the_resource_version_and_no_other_can_be_asked_for(api: Api, opens: Open):
    api.secret("db", user="web")
    version = api.kubectl.get("secret", "db")["metadata"]["resourceVersion"]
    store = opens()
    assert store.fetch("db", None).version == version
    assert store.fetch("db/user", version).version == version
    with pytest.raises(StoreError, match="version") as caught:
        store.fetch("db", "1")
    assert not isinstance(caught.value, NotFound), "a default would stand for another version"
    assert caught.value.why == "Kubernetes keeps only the present one of a Secret"


def test_an_absent_key_is_not_found_and_names_the_others_if_it_may(api: Api, opens: Open):
    api.secret("db", user="web", password=VALUE)
    with pytest.raises(NotFound) as caught:
        opens().fetch("db/passwort", None)
    assert caught.value.why == "it has: `password`, `user`"
    with pytest.raises(NotFound) as caught:
        opens(show=False).fetch("db/passwort", None)
    assert "user" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


def test_an_absent_secret_names_the_namespace(api: Api, opens: Open):
    with pytest.raises(NotFound) as caught:
        opens().fetch("db", None)
    assert caught.value.what == f"the namespace `{api.namespace}` has no Secret `db`"


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "/",
        "db/",
        "/db",
        "..",
        "../x",
        "../../kube-system/secrets/x",
        "db/..",
        "db/../x",
        "db/a/b",
        "db?watch=true",
        "db%2F..%2Fx",
        "db#x",
        "DB",
        "db_a",
        "db.",
        ".db",
        "-db",
        "db name",
        "db\n",
        "db\r\nHost: x",
        "dü",
        "a" * 254,
        f"{'a' * 254}/key",
        "db/a b",
        "db/" + "k" * 254,
        "db/\x00",
    ],
)
def test_a_ref_never_leads_elsewhere(through: Open, proxy: Proxy, ref: str):
    store = through()
    with pytest.raises(StoreError) as caught:
        store.fetch(ref, None)
    assert not isinstance(caught.value, NotFound | Denied | Unavailable)
    assert [list(batch) for batch in store.batches([Wanted(ref, None)])] == [[Wanted(ref, None)]]
    assert proxy.seen == []


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "a/secrets/x?", "A", "a" * 64, "a\n"])
def test_nor_does_a_namespace(through: Open, proxy: Proxy, namespace: str):
    with pytest.raises(StoreError, match="namespace"):
        through(namespace=namespace).fetch("db", None)
    assert proxy.seen == []


def test_a_secret_of_another_namespace_is_not_seen(api: Api, opens: Open):
    api.secret("db", user="web")
    with pytest.raises(NotFound):
        opens(namespace="default").fetch("db", None)


def test_config_maps_are_refused_unless_they_are_allowed(api: Api, through: Open, proxy: Proxy):
    data = {"level": "debug", "text": "Grüße"}
    binary = encoded({"logo": BINARY})
    api.apply({"kind": "ConfigMap", "metadata": {"name": "app"}, "data": data, "binaryData": binary})
    api.secret("app", level="secret")
    refusing = through()
    for ref in ("configmap/app", "configmap/app/level"):
        with pytest.raises(StoreError, match="ConfigMaps are not read") as caught:
            refusing.fetch(ref, None)
        assert not isinstance(caught.value, NotFound)
    assert proxy.seen == []
    store = through(config_maps=True)
    assert plain(store.fetch("configmap/app", None)) == data | {"logo": BINARY}
    assert plain(store.fetch("configmap/app/level", None)) == b"debug"
    assert plain(store.fetch("app/level", None)) == b"secret"
    with pytest.raises(NotFound, match="ConfigMap `other`"):
        store.fetch("configmap/other", None)


def test_a_secret_costs_one_request_however_many_of_its_keys_are_asked_for(api: Api, through: Open, proxy: Proxy):
    api.secret("db", user="web", password=VALUE)
    api.secret("token", value=VALUE)
    store = through(key="value")
    refs = ("db/user", "token", "db/password", "db/absent", "token/value", "absent/key", "no name")
    batches = store.batches([Wanted(ref, None) for ref in refs])
    outcomes: dict[str, Any] = {}
    for batch in batches:
        try:
            found = store.fetch_batch(batch)
        except StoreError as error:
            found = [error] * len(batch)
        outcomes |= {each.ref: outcome for each, outcome in zip(batch, found, strict=True)}
    assert outcomes["db/user"].value == SecretValue(b"web")
    assert outcomes["db/password"].value == outcomes["token"].value == SecretValue(VALUE.encode())
    assert isinstance(outcomes["db/absent"], NotFound)
    assert isinstance(outcomes["absent/key"], NotFound)
    assert type(outcomes["no name"]) is StoreError
    secrets = f"/api/v1/namespaces/{api.namespace}/secrets"
    assert [seen.line for seen in proxy.seen] == [f"GET {secrets}/{name}" for name in ("db", "token", "absent")]
    assert proxy.connections == 1


def test_many_threads_share_at_most_16_connections(api: Api, through: Open, proxy: Proxy):
    names = [f"db-{index}" for index in range(60)]
    api.apply(*({"kind": "Secret", "metadata": {"name": name}, "data": encoded({"value": name})} for name in names))
    store = through(key="value")
    with ThreadPoolExecutor(store.concurrency) as pool:
        found = list(pool.map(lambda name: plain(store.fetch(name, None)), names))
    assert found == [name.encode() for name in names]
    assert len(proxy.seen) == len(names)
    assert proxy.connections <= store.concurrency == 16


# Versions that are told without a read.


class Heard(NamedTuple):
    """Lets the API server answer, and keeps what it says."""

    bodies: list[bytes]

    async def meet(self, exchange: Exchange) -> None:
        answer = await exchange.upstream()
        self.bodies.append(answer.body)
        await exchange.send(answer)


def told_one(store: Store, ref: str, version: str | None = None) -> str | None:
    return told_versions(store, [Wanted(ref, version)])[Wanted(ref, version)]


def test_a_version_is_told_with_one_request_by_object_that_brings_no_data(api: Api, through: Open, proxy: Proxy):
    # `kubectl apply` would write the values into an annotation, too.
    api.kubectl.run("create", "secret", "generic", "db", "--from-literal=user=web", f"--from-literal=password={VALUE}")
    api.kubectl.run("create", "secret", "generic", "token", f"--from-literal=value={VALUE}")
    api.kubectl.run("create", "configmap", "app", f"--from-literal=level={VALUE}")
    store = through(key="value", config_maps=True)
    versions = {ref: store.fetch(ref, None).version for ref in ("db/user", "token", "configmap/app/level")}
    heard = Heard([])
    proxy.rules = [Rule(heard)]
    refs = (
        "db/user",
        "token",
        "db/password",
        "db/absent",
        "configmap/app/level",
        "no name",
        "absent",
        "configmap/absent",
    )
    told = told_versions(store, [Wanted(ref, None) for ref in refs])
    assert {each.ref: version for each, version in told.items()} == {
        "db/user": versions["db/user"],
        "token": versions["token"],
        "db/password": versions["db/user"],
        "db/absent": versions["db/user"],
        "configmap/app/level": versions["configmap/app/level"],
        "no name": None,
        "absent": None,
        "configmap/absent": None,
    }
    names = ("secrets/db", "secrets/token", "configmaps/app", "secrets/absent", "configmaps/absent")
    assert [seen.line for seen in proxy.seen] == [f"GET /api/v1/namespaces/{api.namespace}/{name}" for name in names]
    assert len(heard.bodies) == len(names)
    for body in heard.bodies:
        assert VALUE.encode() not in body
        assert base64.b64encode(VALUE.encode()) not in body
        assert "data" not in json.loads(body)


def test_a_written_secret_has_a_new_version_and_a_deleted_one_none(api: Api, opens: Open):
    api.secret("db", user="web")
    store = opens()
    first = told_one(store, "db")
    assert first == store.fetch("db", None).version == told_one(store, "db", first)
    assert told_one(store, "db", "1") is None
    api.secret("db", user="other")
    second = told_one(store, "db")
    assert second == store.fetch("db", None).version != first
    assert told_one(store, "db/user", first) is None
    api.kubectl.run("delete", "secret", "db")
    assert told_one(store, "db") is None
    api.secret("db", user="web")
    assert told_one(store, "db") == store.fetch("db", None).version
    assert told_one(store, "db") not in {first, second}


def test_the_right_to_get_one_name_lets_its_version_be_told(api: Api, opens: Open):
    api.secret("db", user="web")
    api.secret("other", user="web")
    store = opens(user={"token": api.reader("weaver", "db")})
    assert told_one(store, "db") == store.fetch("db", None).version
    assert told_one(store, "other") is None
    assert told_one(store, "absent") is None
    assert plain(store.fetch("db/user", None)) == b"web"


def test_of_a_config_map_that_may_not_be_read_no_version_is_told(through: Open, proxy: Proxy):
    assert told_one(through(), "configmap/app") is None
    assert proxy.seen == []


def partial(**changes: Any) -> bytes:
    document = {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": {"name": "db", "resourceVersion": "7"},
    }
    return json.dumps(document | changes).encode()


METADATA: tuple[tuple[str, Fault, str | None], ...] = (
    ("as it is", Status(200, partial()), "7"),
    ("the whole Secret", Status(200, partial(apiVersion="v1", kind="Secret")), None),
    ("of another API", Status(200, partial(apiVersion="v1")), None),
    ("no metadata", Status(200, partial(metadata=None)), None),
    ("a list of metadata", Status(200, partial(metadata=["7"])), None),
    ("no version", Status(200, partial(metadata={"name": "db"})), None),
    ("an empty version", Status(200, partial(metadata={"resourceVersion": ""})), None),
    ("a number", Status(200, partial(metadata={"resourceVersion": 7})), None),
    ("a list", Status(200, b"[]"), None),
    ("a page", Status(200, b"<html>"), None),
    ("no content", Status(204), None),
    ("no such form", Status(406, b'{"kind": "Status", "reason": "NotAcceptable"}'), None),
    ("a page that is not there", Status(404, b"<html>"), None),
    ("a redirect", Redirect("https://127.0.0.1:1"), None),
)


@pytest.mark.parametrize(("answer", "expected"), [each[1:] for each in METADATA], ids=[each[0] for each in METADATA])
def test_an_odd_answer_tells_no_version(through: Open, proxy: Proxy, answer: Fault, expected: str | None):
    proxy.rules = [Rule(answer)]
    assert told_one(through(), "db") == expected
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("fault", [Reset(), Status(503)], ids=lambda fault: type(fault).__name__)
def test_a_server_that_fails_is_unavailable_for_versions_too(api: Api, through: Open, proxy: Proxy, fault: Fault):
    api.secret("db", user="web")
    proxy.rules = [Rule(fault)]
    with pytest.raises(Unavailable, match="the API server does not answer"):
        told_one(through(), "db")
    assert len(proxy.seen) == 3
    proxy.rules = [Rule(fault, times=2)]
    assert told_one(through(), "db") is not None


def test_wrong_credentials_end_the_asking_for_versions(opens: Open):
    with pytest.raises(Denied, match="does not accept the credentials"):
        told_one(opens(user={"token": "not-the-token"}), "db")


# Who may read.


def test_a_role_on_one_name_is_enough_for_it_and_for_no_other(api: Api, opens: Open):
    api.secret("db", user="web")
    api.secret("other", user="web")
    store = opens(user={"token": api.reader("weaver", "db")})
    assert plain(store.fetch("db/user", None)) == b"web"
    faults = []
    for name in ("other", "absent"):
        with pytest.raises(Denied) as caught:
            store.fetch(name, None)
        faults.append((caught.value.what, caught.value.why, caught.value.fix))
    assert faults[0] == faults[1], "what has the same cause is told once"
    assert faults[0] == (
        f"the API server denies reading Secrets in the namespace `{api.namespace}`",
        "no rule of RBAC lets the context `test` of the kubeconfig get them",
        "give it a Role there with `verbs: [get]` on `secrets`, and their names in `resourceNames`",
    )


def test_wrong_credentials_are_denied(opens: Open):
    with pytest.raises(Denied, match="does not accept the credentials") as caught:
        opens(user={"token": "not-the-token"}).fetch("db", None)
    assert "not-the-token" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


def test_no_credentials_are_denied(opens: Open):
    with pytest.raises(Denied):
        opens(user={}).fetch("db", None)


def plugin(path: Path, status: Mapping[str, Any], *, version: str = "v1", code: int = 0, noise: str = "") -> str:
    """A credential plugin, which also notes what it was given."""
    answer = {"apiVersion": f"client.authentication.k8s.io/{version}", "kind": "ExecCredential", "status": status}
    path.write_text(
        textwrap.dedent(f"""\
            #!{sys.executable}
            import json, os, sys
            told = dict(os.environ) | {{"stdin": sys.stdin.read(), "args": sys.argv[1:]}}
            open({str(path.with_suffix(".told"))!r}, "w").write(json.dumps(told))
            sys.stderr.write({noise!r})
            print({json.dumps(answer)!r})
            sys.exit({code})
            """)
    )
    path.chmod(0o700)
    return path.name


def data_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


Login = Callable[[Api, Path], Mapping[str, Any]]


def token_file(api: Api, folder: Path) -> Mapping[str, Any]:
    (folder / "token").write_text(api.reader("weaver", "db") + "\n")
    return {"tokenFile": "token"}


def certificate_files(api: Api, _folder: Path) -> Mapping[str, Any]:
    return {
        "client-certificate": str(api.folder / "client.pem"),
        "client-key": str(api.folder / "client.key"),
    }


def certificate_data(api: Api, _folder: Path) -> Mapping[str, Any]:
    return {
        "client-certificate-data": data_of(api.folder / "client.pem"),
        "client-key-data": data_of(api.folder / "client.key"),
    }


def plugin_with_token(api: Api, folder: Path) -> Mapping[str, Any]:
    name = plugin(folder / "login", {"token": api.reader("weaver", "db").strip()})
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": f"./{name}"}}


def plugin_with_certificate(api: Api, folder: Path) -> Mapping[str, Any]:
    status = {
        "clientCertificateData": (api.folder / "client.pem").read_text(),
        "clientKeyData": (api.folder / "client.key").read_text(),
    }
    name = plugin(folder / "login", status, version="v1beta1")
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": f"./{name}"}}


@pytest.mark.parametrize(
    "login", [token_file, certificate_files, certificate_data, plugin_with_token, plugin_with_certificate]
)
def test_every_way_to_log_in_that_a_kubeconfig_has(api: Api, tmp_path: Path, opens: Open, login: Login):
    api.secret("db", user="web")
    api.reader("client", "db", kind="User")
    assert plain(opens(user=login(api, tmp_path)).fetch("db/user", None)) == b"web"


def test_a_key_in_the_kubeconfig_is_written_to_no_disk(api: Api, tmp_path: Path, opens: Open, monkeypatch: Any):
    api.secret("db", user="web")
    api.reader("client", "db", kind="User")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    handles = set(os.listdir("/proc/self/fd"))
    store = opens(user=certificate_data(api, tmp_path))
    store.fetch("db", None)
    assert os.listdir(tmp_path / "temporary") == []
    store.close()
    left = {
        os.readlink(f"/proc/self/fd/{each}")
        for each in set(os.listdir("/proc/self/fd")) - handles
        if os.path.exists(f"/proc/self/fd/{each}")
    }
    assert not [each for each in left if "memfd" in each]


def test_a_plugin_is_told_the_cluster_and_is_kept_from_our_input_and_environment(
    api: Api, tmp_path: Path, opened_stores: ExitStack
):
    api.secret("db", user="web")
    plugin(tmp_path / "login", {"token": api.token}, noise="to be dropped")
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "login",
            "args": ["--for", "test"],
            "env": [{"name": "PROFILE", "value": "shop"}],
            "provideClusterInfo": True,
            "interactiveMode": "IfAvailable",
        }
    }
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "shop"}}
    path = kubeconfig(
        tmp_path / "kubeconfig",
        api.address,
        user,
        certificate_authority=os.path.relpath(api.authority, tmp_path),
        extensions=[extension],
    )
    settings = kubernetes.Settings(api.namespace, path)
    config = StoreConfig("cluster", None, "kubernetes", settings, default=False)
    store = open_store(config, context(config, {"PATH": str(tmp_path)}))
    opened_stores.callback(store.close)
    assert plain(store.fetch("db/user", None)) == b"web"
    told = json.loads((tmp_path / "login.told").read_text())
    info = json.loads(told.pop("KUBERNETES_EXEC_INFO"))
    told.pop("LC_CTYPE", None)
    assert told == {"PATH": str(tmp_path), "PROFILE": "shop", "stdin": "", "args": ["--for", "test"]}
    assert info["spec"] == {
        "interactive": False,
        "cluster": {
            "server": api.address,
            "certificate-authority-data": data_of(api.authority),
            "config": {"audience": "shop"},
        },
    }


@pytest.mark.parametrize(
    ("made", "settings", "why"),
    [
        ({"status": {}}, {}, "it gave neither a token nor a client certificate with its key"),
        (
            {"status": {"clientCertificateData": "x"}},
            {},
            "it gave neither a token nor a client certificate with its key",
        ),
        ({"status": {"token": VALUE}, "code": 3, "noise": VALUE}, {}, "it ended with the code 3"),
        ({"status": {"token": VALUE}, "version": "v1beta1"}, {}, "it gave no ExecCredential of its version"),
        ({"status": {}}, {"command": "./absent"}, "it cannot be started: No such file or directory"),
        ({"status": {}}, {"command": "/bin/sleep", "args": ["60"]}, "it did not end in time"),
        ({"status": {}}, {"command": "/bin/echo", "args": [VALUE]}, "it gave no ExecCredential of its version"),
        ({"status": {}}, {"interactiveMode": "Always"}, "it speaks another version of the protocol, or asks a person"),
        (
            {"status": {}},
            {"apiVersion": "client.authentication.k8s.io/v1alpha1"},
            "it speaks another version of the protocol, or asks a person",
        ),
    ],
)
def test_a_plugin_that_fails_ends_it(
    tmp_path: Path, opens: Open, made: dict[str, Any], settings: dict[str, Any], why: str
):
    name = plugin(tmp_path / "login", **made)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": f"./{name}"} | settings}
    with pytest.raises(StoreError, match="the credential plugin of the kubeconfig failed") as caught:
        opens(user=user, limits={"deadline": time.monotonic() + 2})
    assert caught.value.why == why


# Which cluster.


class Clusters(NamedTuple):
    """Reads the Secret `db` from where an environment and settings lead."""

    api: Api
    stack: ExitStack

    def read(self, environ: Mapping[str, str], **more: Any) -> bytes:
        limits = Limits(time.monotonic() + 30, attempts=1)
        found = cluster.connect(environ, limits, pytest.fail, **more)
        self.stack.callback(found.close)
        return found.get("Secret", self.api.namespace, "db").data["user"]


@pytest.fixture
def clusters(api: Api, opened_stores: ExitStack) -> Clusters:
    api.secret("db", user="web")
    return Clusters(api, opened_stores)


def several(api: Api, path: Path, contexts: Mapping[str, str], current: str | None = None) -> str:
    """A kubeconfig with a context for each token."""
    ca = data_of(api.authority)
    document = {
        "clusters": [{"name": "c", "cluster": {"server": api.address, "certificate-authority-data": ca}}],
        "users": [{"name": name, "user": {"token": token}} for name, token in contexts.items()],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in contexts],
    } | ({"current-context": current} if current else {})
    path.write_text(json.dumps(document))
    return str(path)


def test_a_context_is_chosen_by_name_or_is_the_current_one(api: Api, tmp_path: Path, clusters: Clusters):
    path = several(api, tmp_path / "config", {"bad": "wrong", "good": api.token}, current="bad")
    assert clusters.read({}, kubeconfig=path, context="good") == b"web"
    with pytest.raises(Denied, match="does not accept") as caught:
        clusters.read({}, kubeconfig=path)
    assert caught.value.why == "those of the context `bad` of the kubeconfig are wrong or have expired"
    with pytest.raises(StoreError, match="has no context `none`"):
        clusters.read({}, kubeconfig=path, context="none")


def test_several_files_of_the_environment_are_one_kubeconfig(api: Api, tmp_path: Path, clusters: Clusters):
    first = several(api, tmp_path / "first", {"bad": "wrong"}, current="bad")
    second = several(api, tmp_path / "second", {"good": api.token})
    paths = f"{tmp_path / 'absent'}:{first}:{second}"
    assert clusters.read({"KUBECONFIG": paths}, context="good") == b"web"


def test_the_order_in_which_a_cluster_is_looked_for(api: Api, tmp_path: Path, clusters: Clusters):
    good, bad = {"x": api.token}, {"x": "wrong"}
    environ = {"HOME": str(tmp_path)}
    (tmp_path / ".kube").mkdir()
    several(api, tmp_path / ".kube" / "config", good, current="x")
    assert clusters.read(environ) == b"web"
    several(api, tmp_path / ".kube" / "config", bad, current="x")
    account = service_account(api, tmp_path / "account", api.token)
    environ |= pod(api)
    assert clusters.read(environ, service_account=account) == b"web"
    service_account(api, tmp_path / "account", "wrong")
    environ["KUBECONFIG"] = several(api, tmp_path / "environment", good, current="x")
    assert clusters.read(environ, service_account=account) == b"web"
    environ["KUBECONFIG"] = several(api, tmp_path / "environment", bad, current="x")
    setting = several(api, tmp_path / "setting", good, current="x")
    assert clusters.read(environ, service_account=account, kubeconfig=setting) == b"web"


def test_without_any_cluster_it_says_what_to_set(tmp_path: Path):
    limits = Limits(time.monotonic() + 30)
    for environ in ({"HOME": str(tmp_path)}, {}, {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}):
        with pytest.raises(StoreError, match="no Kubernetes cluster is configured") as caught:
            cluster.connect(environ, limits, pytest.fail, service_account=str(tmp_path))
        assert "KUBECONFIG" in caught.value.fix


def service_account(api: Api, folder: Path, token: str, ca: str | None = None) -> str:
    """A folder as a Pod has it: what it holds are links into one that is replaced as a whole."""
    (folder / "..data").mkdir(parents=True, exist_ok=True)
    (folder / "..data" / "token").write_text(token)
    (folder / "..data" / "ca.crt").write_text(api.authority.read_text() if ca is None else ca)
    for name in ("token", "ca.crt"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    return str(folder)


def pod(api: Api) -> dict[str, str]:
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": api.address.rpartition(":")[2],
    }


def test_in_a_pod_its_service_account_reads(api: Api, tmp_path: Path, clusters: Clusters):
    account = service_account(api, tmp_path, api.reader("weaver", "db") + "\n")
    assert clusters.read(pod(api), service_account=account) == b"web"
    account = service_account(api, tmp_path, api.reader("other", "other"))
    with pytest.raises(Denied) as caught:
        clusters.read(pod(api), service_account=account)
    assert "the ServiceAccount of this Pod" in caught.value.why


@pytest.mark.parametrize(("token", "ca"), [("", None), ("x", "")])
def test_a_service_account_that_is_half_mounted_is_told(api: Api, tmp_path: Path, token: str, ca: str | None):
    account = service_account(api, tmp_path, token, ca)
    limits = Limits(time.monotonic() + 30)
    with pytest.raises(StoreError, match="the ServiceAccount of this Pod cannot be used"):
        cluster.connect(pod(api), limits, pytest.fail, service_account=account)


BROKEN: tuple[tuple[str, str, str], ...] = (
    ("not yaml", "{", "the kubeconfig cannot be used"),
    ("empty", "", "the kubeconfig cannot be used"),
    ("a list", "[]", "the kubeconfig cannot be used"),
    ("no context", "{clusters: [], users: [], contexts: []}", "the kubeconfig has no current context"),
    ("a context without a cluster", "{contexts: [{name: a, context: {}}], current-context: a}", "cannot be used"),
    (
        "an absent cluster",
        "{contexts: [{name: a, context: {cluster: b}}], current-context: a}",
        "the kubeconfig has no cluster `b`",
    ),
    (
        "an absent user",
        (
            "{clusters: [{name: b, cluster: {}}], contexts: [{name: a, context: {cluster: b, user: c}}],"
            " current-context: a}"
        ),
        "the kubeconfig has no user `c`",
    ),
)


@pytest.mark.parametrize(("text", "what"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_kubeconfig_that_cannot_be_used_is_told_without_its_text(tmp_path: Path, text: str, what: str):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(StoreError, match=what):
        cluster.connect({}, Limits(time.monotonic() + 30), pytest.fail, kubeconfig=str(path))


@pytest.mark.parametrize(
    ("user", "details", "what"),
    [
        ({"token": VALUE, "as": "admin"}, {}, "impersonates another user"),
        ({"auth-provider": {"name": "oidc", "config": {"id-token": VALUE}}}, {}, "uses `auth-provider`"),
        ({"token": VALUE}, {"insecure_skip_tls_verify": "false"}, "is neither true nor false"),
        ({"token": VALUE}, {"server": "127.0.0.1:6443"}, "has no usable address"),
        ({"token": VALUE}, {"server": "ftp://127.0.0.1"}, "has no usable address"),
        ({"token": VALUE}, {"server": "https://"}, "has no usable address"),
        ({"token": VALUE}, {"proxy_url": "socks5://127.0.0.1:1"}, "the proxy to the API server has no usable address"),
        ({"token": VALUE}, {"certificate_authority": "/absent/ca.crt"}, "the kubeconfig cannot be used"),
        ({"token": VALUE}, {"certificate_authority_data": "%%%"}, "the kubeconfig cannot be used"),
        ({"tokenFile": "absent"}, {}, "the kubeconfig cannot be used"),
        ({"exec": {"command": VALUE}}, {}, "the kubeconfig cannot be used"),
        ({"token": f"{VALUE}\r\nX-Header: x"}, {}, "the token of the context `test` of the kubeconfig is no token"),
    ],
)
def test_what_a_kubeconfig_may_not_say(
    tmp_path: Path, opened_stores: ExitStack, user: dict[str, Any], details: dict[str, Any], what: str
):
    path = kubeconfig(tmp_path / "config", **{"server": "https://127.0.0.1:1", "user": user} | details)

    def read() -> None:
        found = cluster.connect({}, Limits(time.monotonic() + 30), pytest.fail, kubeconfig=path)
        opened_stores.callback(found.close)
        found.get("Secret", "default", "db")

    with pytest.raises(StoreError, match=what) as caught:
        read()
    assert VALUE not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


# How it is reached.


def test_a_certificate_of_another_authority_is_not_trusted(opens: Open, proxy: Proxy, api: Api):
    with pytest.raises(Unavailable, match="the API server is not trusted"):
        opens(proxy.url, ca=api.authority).fetch("db", None)
    assert proxy.seen == []
    assert proxy.connections == 1, "another attempt would find the same"


def test_the_check_is_off_only_where_the_kubeconfig_says_so_and_is_warned_of(api: Api, tmp_path: Path):
    api.secret("db", user="web")
    path = kubeconfig(tmp_path / "config", api.address, {"token": api.token}, insecure_skip_tls_verify=True)
    script = f"""
import time
from secretweave.sdk import cluster
from secretweave.stores.base import Limits
found = cluster.connect({{}}, Limits(time.monotonic() + 30), print, kubeconfig={path!r})
print(found.get("Secret", {api.namespace!r}, "db").data)
found.close()
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    warning = "the API server's certificate is not checked (insecure-skip-tls-verify)"
    assert result.stdout.splitlines() == [f"the context `test` of the kubeconfig: {warning}", "{'user': b'web'}"]
    assert result.stderr == ""


def test_a_server_may_be_checked_by_another_name(api: Api, tmp_path: Path, authority: Authority, opened_stores: Any):
    api.secret("db", user="web")
    pair = authority.issue("named", "127.0.0.9", names=("api.example.com",))
    with Proxy(api.address, trust=api.authority, certificate=pair) as proxy:
        ca = str(authority.certificate)
        for name, reads in (("api.example.com", True), ("other.example.com", False)):
            path = kubeconfig(
                tmp_path / "config", proxy.url, {"token": api.token}, certificate_authority=ca, tls_server_name=name
            )
            found = cluster.connect({}, Limits(time.monotonic() + 30), pytest.fail, kubeconfig=path)
            opened_stores.callback(found.close)
            if reads:
                assert found.get("Secret", api.namespace, "db").data == {"user": b"web"}
            else:
                with pytest.raises(Unavailable, match="not trusted"):
                    found.get("Secret", api.namespace, "db")


def test_without_tls_no_credentials_are_sent(api: Api, tmp_path: Path, opened_stores: ExitStack):
    warnings: list[str] = []
    with Proxy(api.address, trust=api.authority) as proxy:
        path = kubeconfig(tmp_path / "config", proxy.url, {"token": api.token}, tls_server_name="x")
        found = cluster.connect({}, Limits(time.monotonic() + 30), warnings.append, kubeconfig=path)
        opened_stores.callback(found.close)
        with pytest.raises(Denied):
            found.get("Secret", api.namespace, "db")
        assert [seen.credentials for seen in proxy.seen] == [frozenset()]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("environ", "details", "way"),
    [
        ({"HTTPS_PROXY": "proxy"}, {}, "direct"),
        ({}, {"proxy_url": "proxy"}, "proxy"),
        ({"NO_PROXY": "*"}, {"proxy_url": "proxy"}, "proxy"),
    ],
    ids=["none to this machine", "proxy-url", "proxy-url wins over NO_PROXY"],
)
def test_which_proxy_is_taken(
    api: Api,
    tmp_path: Path,
    opened_stores: ExitStack,
    environ: dict[str, str],
    details: dict[str, str],
    way: str,
):
    api.secret("db", user="web")
    refused = Rule(Status(403), path="^CONNECT")
    with Proxy(rules=[refused]) as proxy:
        address = proxy.url.replace("://", "://user:pass@")
        environ, details = ({k: v.replace("proxy", address) for k, v in each.items()} for each in (environ, details))
        path = kubeconfig(
            tmp_path / "config",
            api.address,
            {"token": api.token},
            certificate_authority=str(api.authority),
            **details,
        )
        limits = Limits(time.monotonic() + 30, attempts=1)
        found = cluster.connect(environ, limits, pytest.fail, kubeconfig=path)
        opened_stores.callback(found.close)
        if way == "direct":
            assert found.get("Secret", api.namespace, "db").data == {"user": b"web"}
            assert proxy.seen == []
            return
        with pytest.raises(Unavailable) as caught:
            found.get("Secret", api.namespace, "db")
        assert caught.value.why == "the proxy does not let it through"
        assert [seen.line for seen in proxy.seen] == [f"CONNECT {api.address.removeprefix('https://')}"]
        login = base64.b64encode(b"user:pass").decode()
        assert proxy.seen[0].headers["proxy-authorization"] == f"Basic {login}"
        assert not proxy.seen[0].holds(api.token)


def test_a_proxy_of_the_environment_is_taken_for_other_machines(tmp_path: Path, opened_stores: ExitStack):
    with Proxy(rules=[Rule(Status(403))]) as proxy:
        for environ, asked_proxy in (
            ({"HTTPS_PROXY": proxy.url}, True),
            ({"https_proxy": proxy.url.removeprefix("http://")}, True),
            ({"HTTP_PROXY": proxy.url}, False),
            ({"HTTPS_PROXY": proxy.url, "NO_PROXY": ".example.invalid"}, False),
        ):
            proxy.rules = [Rule(Status(403))]
            path = kubeconfig(tmp_path / "config", "https://api.example.invalid", {"token": "t"})
            limits = Limits(time.monotonic() + 30, attempts=1)
            found = cluster.connect(environ, limits, pytest.fail, kubeconfig=path)
            opened_stores.callback(found.close)
            with pytest.raises(Unavailable):
                found.get("Secret", "default", "db")
            assert bool(proxy.seen) is asked_proxy, environ


# What goes wrong on the way.

HTML = b"<html>sign in</html>"
STATUS = json.dumps({"kind": "Status", "message": VALUE, "reason": "X"}).encode()
FAULTS: tuple[tuple[str, Fault, str, int], ...] = (
    ("reset", Reset(), "the API server does not answer", 3),
    ("reset midway", Reset(midway=True), "the API server does not answer", 3),
    ("half an answer", Half(), "the API server does not answer", 3),
    ("no answer", Hang(), "the API server does not answer", 3),
    ("429", Status(429, STATUS), "the API server does not answer", 3),
    ("500", Status(500, STATUS), "the API server does not answer", 3),
    ("503", Status(503, STATUS), "the API server does not answer", 3),
    ("504", Status(504, HTML), "the API server does not answer", 3),
    ("400", Status(400, STATUS), "what answers is not the Kubernetes API", 1),
    ("a page", Status(200, HTML), "what answers is not the Kubernetes API", 1),
    ("another object", Status(200, b'{"kind": "SecretList", "items": []}'), "is not the Kubernetes API", 1),
    ("a list", Status(200, b"[]"), "is not the Kubernetes API", 1),
    ("deep JSON", Status(200, b"[" * 200_000), "is not the Kubernetes API", 1),
    ("a page that is not there", Status(404, HTML), "is not the Kubernetes API", 1),
    ("another Status", Status(404, STATUS), "is not the Kubernetes API", 1),
)


@pytest.mark.parametrize(("fault", "what", "attempts"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_a_server_that_fails_is_unavailable(
    api: Api, through: Open, proxy: Proxy, fault: Fault, what: str, attempts: int
):
    api.secret("db", user=VALUE)
    proxy.rules = [Rule(fault)]
    with pytest.raises(Unavailable, match=what) as caught:
        through(limits={"attempt_seconds": 0.3}).fetch("db", None)
    assert VALUE not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
    assert len(proxy.seen) == attempts
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("fault", [Reset(), Half(), Status(429), Status(503)], ids=lambda fault: type(fault).__name__)
def test_what_passes_is_waited_for(api: Api, through: Open, proxy: Proxy, fault: Fault):
    api.secret("db", user="web")
    proxy.rules = [Rule(fault, times=2)]
    assert plain(through().fetch("db/user", None)) == b"web"
    assert len(proxy.seen) == 3


def test_the_wait_that_the_server_asks_for_is_kept(api: Api, through: Open, proxy: Proxy):
    api.secret("db", user="web")
    proxy.rules = [Rule(Status(429, headers={"Retry-After": "1"}), times=1)]
    began = time.monotonic()
    assert plain(through().fetch("db/user", None)) == b"web"
    assert 1 <= time.monotonic() - began < 5


def test_no_wait_passes_the_deadline(through: Open, proxy: Proxy):
    proxy.rules = [Rule(Status(429, headers={"Retry-After": "60"}))]
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        through(limits={"deadline": began + 5}).fetch("db", None)
    assert time.monotonic() - began < 4
    assert caught.value.why == "it answers with status 429"
    assert len(proxy.seen) == 1


def test_nothing_is_asked_when_the_time_is_over(through: Open, proxy: Proxy):
    with pytest.raises(Unavailable, match="was not asked"):
        through(limits={"deadline": time.monotonic() - 1}).fetch("db", None)
    assert proxy.seen == []


def test_an_answer_is_not_waited_for_beyond_the_deadline(through: Open, proxy: Proxy):
    proxy.rules = [Rule(Hang())]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        through(limits={"deadline": began + 1, "attempt_seconds": 30}).fetch("db", None)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(through: Open, proxy: Proxy, authority: Authority, code: int):
    with elsewhere(authority.issue("elsewhere")) as other:
        proxy.rules = [Rule(Redirect(other.url, code))]
        with pytest.raises(Unavailable, match="is not the Kubernetes API"):
            through().fetch("db", None)
        assert other.seen == []


def test_a_server_that_is_not_there_is_unavailable(opens: Open):
    with Proxy(refuse=True) as nobody, pytest.raises(Unavailable) as caught:
        opens(nobody.url.replace("http", "https")).fetch("db", None)
    assert caught.value.why == "no connection: it refuses, or its name is unknown"
    assert str(nobody.port) in caught.value.fix


def test_a_wrong_secret_is_told_without_its_content(through: Open, proxy: Proxy):
    secret = {"kind": "Secret", "metadata": {"resourceVersion": "1"}, "data": {"user": f"not base64: {VALUE}"}}
    proxy.rules = [Rule(Status(200, json.dumps(secret).encode()))]
    with pytest.raises(StoreError, match="no readable Secret") as caught:
        through().fetch("db", None)
    assert VALUE not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


# Credential Secrets.


@pytest.fixture
def credential(api: Api, proxy: Proxy, authority: Authority, tmp_path: Path) -> Callable[[str, str], str]:
    path = kubeconfig(
        tmp_path / "credentials",
        proxy.url,
        {"token": api.reader("weaver", "vault", "absent")},
        certificate_authority=str(authority.certificate),
    )
    read = credentials.reader(
        "cluster",
        api.namespace,
        folder=None,
        kubeconfig=path,
        kube_context="test",
        environ={},
        limits=Limits(time.monotonic() + 30),
        warn=pytest.fail,
    )
    return lambda name, key: read(SecretKeyRef(name, key))


def test_a_credential_secret_is_read_once(api: Api, proxy: Proxy, credential: Callable[[str, str], str]):
    api.secret("vault", token=f"{VALUE}\n", role="shop", bytes=BINARY, nothing="")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda key: credential("vault", key), ["token", "role"] * 4)) == [VALUE, "shop"] * 4
    for key, what in (("absent", "has no key `absent`"), ("bytes", "is not text"), ("nothing", "is empty")):
        with pytest.raises(StoreError, match=what) as caught:
            credential("vault", key)
        assert VALUE not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
    assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("name", "cls", "what"), [("absent", StoreError, "has no credential Secret"), ("x", Denied, "`x`")]
)
def test_a_credential_secret_that_is_not_to_be_had(
    proxy: Proxy, credential: Callable[[str, str], str], name: str, cls: type[StoreError], what: str
):
    for _ in range(2):
        with pytest.raises(StoreError, match=what) as caught:
            credential(name, "token")
        assert type(caught.value) is cls
    assert len(proxy.seen) == 1


# What it costs to begin.

START = """
import resource, sys, time
from secretweave.sdk import cluster
from secretweave.stores.base import Limits
found = cluster.connect({environ!r}, Limits(time.monotonic() + 30), print, {more})
print(found.get("Secret", {namespace!r}, "db").data)
found.close()
sys.stdout.write(" ".join(name for name in sys.modules if name.startswith("kubernetes.client.models.")))
"""


def started(api: Api, before: str = "", *, environ: Mapping[str, str] | None = None, **more: Any) -> list[str]:
    arguments = ", ".join(f"{name}={value!r}" for name, value in more.items())
    script = before + START.format(environ=dict(environ or {}), more=arguments, namespace=api.namespace)
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_the_models_of_the_sdk_are_not_imported(api: Api, tmp_path: Path):
    api.secret("db", user="web")
    account = service_account(api, tmp_path, api.token)
    assert started(api, environ=pod(api), service_account=account) == ["{'user': b'web'}"]
    path = several(api, tmp_path / "config", {"x": api.token}, current="x")
    assert started(api, kubeconfig=path) == ["{'user': b'web'}"]


REFUSING = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r} and not hasattr(sys.modules["kubernetes"], "__version__"):
            raise ImportError("another version needs the whole package")
sys.meta_path.insert(0, Refusing())
"""


@pytest.mark.parametrize(
    "name", ["kubernetes.client.configuration", "kubernetes.client.rest", "kubernetes.config.kube_config"]
)
def test_the_whole_sdk_is_imported_where_less_does_not_do(api: Api, tmp_path: Path, name: str):
    api.secret("db", user="web")
    path = several(api, tmp_path / "config", {"x": api.token}, current="x")
    first, models = started(api, REFUSING.format(name=name), kubeconfig=path)
    assert first == "{'user': b'web'}"
    assert "kubernetes.client.models.v1_secret" in models
