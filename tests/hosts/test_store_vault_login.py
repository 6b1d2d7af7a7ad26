"""Who asks Vault, and what becomes of the token: every login is real; leases are those of a script."""

import time
import urllib.error
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization

from secretweave.errors import Denied, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.sdk.vault_login import AppRole, Auth, Jwt, Kubernetes, UserPass
from secretweave.stores import open_store
from secretweave.stores.base import Store, Wanted
from secretweave.stores.vault import Settings
from tests.hosts.programs import Kubectl, documents, need
from tests.hosts.vault import VaultServer
from tests.hosts.vault_store import (
    APP_ROLE,
    SECRET_REF,
    Asked,
    Said,
    app_role,
    as_batching,
    fetch_all,
    leasing,
    open_at,
    open_it,
    paths,
    say,
    scripted,
    told,
)
from tests.stores.contract import context, plain

pytest_plugins = ["tests.hosts.vault_fixtures"]

# --- who asks


def test_a_refusal_names_who_asked_and_the_policy_that_would_allow_it(server: VaultServer):
    auth, secret_id = app_role(server, "refused")
    with pytest.raises(Denied) as caught:
        open_it(server, Settings(auth=auth), {}, credential=secret_id).fetch("shop-old/app/db", None)
    assert caught.value.what == "Vault does not let it be read"
    assert caught.value.why.startswith("no policy of the AppRole at auth/shop-approle allows it; ")
    assert "(status 403), so it was taken for KV version 2" in caught.value.why
    server.policy("shop-half", 'path "shop/data/app/*" { capabilities = ["read"] }')
    token = server.create_token(["shop-half"])
    with pytest.raises(Denied) as caught:
        open_it(server, environ={"VAULT_TOKEN": token}).fetch("shop/other", None)
    assert told(caught.value) == (
        "Vault does not let it be read | no policy of the token of VAULT_TOKEN allows it | "
        'add to a policy: path "shop/data/PATH" { capabilities = ["read"] }'
    )


def test_a_token_that_vault_does_not_know_is_denied_as_such(server: VaultServer):
    with pytest.raises(Denied) as caught:
        open_it(server, environ={"VAULT_TOKEN": "hvs.hunter2"}).fetch("shop/app/db", None)
    assert caught.value.what == "Vault does not know the token"
    assert "the token of VAULT_TOKEN has expired" in caught.value.why
    assert "hunter2" not in told(caught.value)


def test_without_a_token_vault_is_asked_without_one(server: VaultServer):
    """An agent of Vault's that adds its own serves such a request."""
    with pytest.raises(Denied, match=r"^Vault wants a token, and there is none$"):
        open_it(server, environ={}).fetch("shop/app/db", None)


def test_where_the_look_up_is_refused_another_mount_is_looked_up_all_the_same(server: VaultServer):
    token = server.create_token(["shop"])
    store = as_batching(open_it(server, environ={"VAULT_TOKEN": token}))
    refs = ["shop-old/app/db", "shop-old/app/web", "shop/app/db"]
    store.batches([Wanted(ref, None) for ref in refs])
    assert server.stats().requests == 2
    assert plain(store.fetch("shop/app/db", None))["user"] == "web"


def test_credentials_come_from_where_the_settings_say(server: VaultServer, tmp_path: Path):
    (tmp_path / "token").write_text(server.token + "\n")
    for auth in (Auth(token_file=str(tmp_path / "token")), Auth(token_secret_ref=SECRET_REF)):
        store = open_it(server, Settings(auth=auth), {}, credential=server.token)
        assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}


def test_the_environment_is_asked_in_the_order_of_the_manual_page(server: VaultServer, tmp_path: Path):
    role = server.create_approle("ambient", ["shop"], path="shop-approle")
    server.write("auth/shop-userpass/users/ambient", {"password": "hunter2", "token_policies": ["shop"]})
    (tmp_path / "file").write_text(server.token)
    (tmp_path / ".vault-token").write_text(f"{server.token}\n")
    home = {"HOME": str(tmp_path)}
    ids = {
        "VAULT_ROLE_ID": role.role_id,
        "VAULT_SECRET_ID": role.secret_id,
        "VAULT_LOGIN_MOUNT_POINT": "/shop-approle",
    }
    bad = {"VAULT_TOKEN": "hvs.unknown"}
    file = {"VAULT_TOKEN_FILE": str(tmp_path / "file")}
    cases: list[tuple[dict[str, str], int]] = [
        ({"VAULT_AUTH_METHOD": "approle"} | bad | ids, 1),
        ({"VAULT_TOKEN": server.token} | ids, 0),
        ({"BAO_TOKEN": server.token, "VAULT_TOKEN_FILE": "/nowhere"} | ids, 0),
        (ids | file | home, 1),
        (file | {"HOME": "/nowhere"}, 0),
        (home, 0),
        (
            {"VAULT_AUTH_METHOD": "userpass", "VAULT_USERNAME": "ambient", "VAULT_LOGIN_MOUNT_POINT": "shop-userpass"}
            | {"VAULT_PASSWORD_ENV": "MY_PASSWORD", "MY_PASSWORD": "hunter2"},
            1,
        ),
    ]
    for environ, logins in cases:
        server.reset()
        store = open_it(server, environ=environ)
        assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}, environ
        store.close()
        assert server.stats().logins == logins, environ


UNFIT = [
    (Auth(token_file="/nowhere"), {}, "the file of spec.vault.auth.tokenFile cannot be read"),
    (Auth(token_secret_ref=SECRET_REF), {}, "no credential Secret vault with a key credential"),
    (Auth(app_role=AppRole()), {}, "the AppRole has no role ID"),
    (Auth(token_file="/a", kubernetes=Kubernetes("x")), {}, "spec.vault.auth of the SecretStore names more than one"),
    (Auth(), {"VAULT_AUTH_METHOD": "github"}, "VAULT_AUTH_METHOD names no way to log in that is known"),
    (Auth(), {"VAULT_AUTH_METHOD": "kubernetes"}, "VAULT_AUTH_METHOD is kubernetes, and VAULT_ROLE_ID is not set"),
    (Auth(), {"VAULT_TOKEN": "two\r\nlines"}, "VAULT_TOKEN holds no token"),
    (Auth(), {"VAULT_TOKEN_FILE": "/nowhere"}, "the file of VAULT_TOKEN_FILE cannot be read"),
]


@pytest.mark.parametrize(("auth", "environ", "what"), UNFIT)
def test_credentials_that_are_none_are_told_before_vault_is_asked(auth: Auth, environ: dict[str, str], what: str):
    config = StoreConfig("shop", None, "vault", Settings(url="http://127.0.0.1:1", auth=auth), default=False)
    with pytest.raises(StoreError) as caught:
        open_store(config, context(config, environ))
    assert caught.value.what.startswith(what)


def accessors(server: VaultServer) -> set[str]:
    return set(server.read("auth/token/accessors?list=true")["data"]["keys"])


def logged_in(server: VaultServer, method: str) -> Store:
    """A store that logs in by a method."""
    if method == "approle":
        auth, credential = app_role(server, "login")
    else:
        server.write("auth/shop-userpass/users/web.user-1", {"password": "hunter2", "token_policies": ["shop"]})
        auth, credential = Auth(user_pass=UserPass("web.user-1", SECRET_REF, "shop-userpass")), "hunter2"
    return open_it(server, Settings(auth=auth), {}, credential=credential)


@pytest.mark.parametrize("method", ["approle", "userpass"])
def test_a_login_is_made_once_and_its_token_revoked_at_the_end(server: VaultServer, method: str):
    before = accessors(server)
    store = logged_in(server, method)
    store.fetch("shop/app/db", None)
    store.fetch("shop/app/token", None)
    (accessor,) = accessors(server) - before
    store.close()
    assert (server.stats().logins, server.stats().requests) == (1, 5)
    with pytest.raises(urllib.error.HTTPError, match=r"40[034]"):
        server.write("auth/token/lookup-accessor", {"accessor": accessor})


@pytest.mark.parametrize("method", ["approle", "userpass"])
def test_a_login_that_is_refused_is_denied_and_tried_once(server: VaultServer, method: str):
    auth, _ = app_role(server, "wrong")
    if method == "userpass":
        auth = Auth(user_pass=UserPass("nobody", SECRET_REF, "shop-userpass"))
    store = open_it(server, Settings(auth=auth, kv_version=2), {}, credential="hunter2")
    for _ in range(3):
        with pytest.raises(Denied, match=r"^Vault refuses the login$") as caught:
            store.fetch("shop/app/db", None)
        assert f"auth/shop-{method}" in caught.value.why
        assert "hunter2" not in told(caught.value)
    assert (server.stats().logins, server.stats().requests) == (1, 1)


def test_a_given_token_is_neither_looked_up_nor_revoked(server: VaultServer):
    token = server.create_token(["shop"], num_uses=2)
    store = open_it(server, Settings(kv_version=2), {"VAULT_TOKEN": token})
    assert store.fetch("shop/app/db", None)
    assert store.fetch("shop/app/token", None)
    store.close()
    assert server.stats().requests == 2
    token = server.create_token(["shop"])
    store = open_it(server, environ={"VAULT_TOKEN": token})
    store.fetch("shop/app/db", None)
    store.close()
    assert server.write("auth/token/lookup", {"token": token})["data"]["policies"] == ["default", "shop"]


def test_the_look_up_of_a_mount_costs_no_use_of_a_token(server: VaultServer):
    token = server.create_token(["shop"], num_uses=1)
    assert open_it(server, environ={"VAULT_TOKEN": token}).fetch("shop/app/db", None)


@pytest.mark.parametrize("uses", [1, 3, 8])
def test_a_token_whose_uses_are_spent_is_followed_by_another(server: VaultServer, uses: int):
    refs = [f"shop/few/{number}" for number in range(8)]
    for ref in refs:
        server.put("shop", ref.removeprefix("shop/"), {"value": ref})
    auth, secret_id = app_role(server, f"few-{uses}", token_num_uses=uses)
    store = open_it(server, Settings(auth=auth), {}, credential=secret_id)
    assert fetch_all(store, refs) == [{"value": ref} for ref in refs]
    store.close()
    stats = server.stats()
    logins = -(-8 // uses)
    revoked = stats.paths.get("POST /v1/auth/token/revoke-self", 0)
    assert (stats.logins, revoked) == (logins, 1 if 8 % uses else 0)
    assert stats.requests == 8 + 1 + logins + revoked


def test_a_secret_id_of_one_use_is_enough(server: VaultServer):
    auth, secret_id = app_role(server, "one", secret_id_num_uses=1, token_num_uses=2)
    store = open_it(server, Settings(auth=auth), {}, credential=secret_id)
    assert len(fetch_all(store, ["shop/app/db", "shop/app/token"])) == 2


def test_a_token_that_ends_during_the_run_is_followed_by_another(server: VaultServer):
    auth, secret_id = app_role(server, "short", token_ttl="2s", token_max_ttl="2s")
    store = open_it(server, Settings(auth=auth, kv_version=2), {}, credential=secret_id)
    store.fetch("shop/app/db", None)
    time.sleep(2.2)
    assert len(fetch_all(store, ["shop/app/db", "shop/app/token"])) == 2
    assert (server.stats().logins, server.stats().requests) == (2, 5)


def test_a_token_that_was_revoked_during_the_run_is_followed_by_one_other(server: VaultServer):
    before = accessors(server)
    auth, secret_id = app_role(server, "revoked")
    store = open_it(server, Settings(auth=auth, kv_version=2), {}, credential=secret_id)
    store.fetch("shop/app/db", None)
    (accessor,) = accessors(server) - before
    server.write("auth/token/revoke-accessor", {"accessor": accessor})
    assert len(fetch_all(store, ["shop/app/db", "shop/app/token"])) == 2
    assert server.stats().logins == 2
    for accessor in accessors(server) - before:
        server.write("auth/token/revoke-accessor", {"accessor": accessor})
    with pytest.raises(Denied, match=r"^Vault does not know the token$"):
        store.fetch("shop/app/db", None)
    assert server.stats().logins == 2


# --- leases


def test_a_token_with_a_lease_is_not_revoked():
    with scripted(leasing()) as server:
        store = open_at(server.address, APP_ROLE, {})
        record = store.fetch("database/creds/web", None)
        assert (plain(record), record.version) == ({"username": "v-web", "password": "p"}, "")
        store.close()
        assert paths(server) == ["auth/approle/login", "database/creds/web"]
        server.asked.clear()
        store = open_at(server.address, APP_ROLE, {})
        store.fetch("shop/x", None)
        store.close()
        assert paths(server) == ["auth/approle/login", "shop/data/x", "auth/token/revoke-self"]


def test_a_token_of_an_engine_that_gave_no_lease_is_revoked():
    with scripted(leasing(lease="")) as server:
        store = open_at(server.address, APP_ROLE, {})
        store.fetch("database/creds/web", None)
        store.close()
        assert paths(server)[-1] == "auth/token/revoke-self"


def test_the_last_use_of_a_token_with_a_lease_is_not_spent():
    """Vault would revoke the token with it, and the lease with the token."""
    with scripted(leasing(uses=3)) as server:
        store = open_at(server.address, APP_ROLE, {})
        for ref in ("shop/a", "database/creds/web", "shop/b", "shop/c"):
            store.fetch(ref, None)
        store.close()
        assert paths(server) == [
            "auth/approle/login",
            "shop/data/a",
            "database/creds/web",
            "auth/approle/login",
            "shop/data/b",
            "shop/data/c",
            "auth/token/revoke-self",
        ]


def test_a_run_whose_leases_have_ended_with_their_token_fails():
    with scripted(leasing(seconds=1)) as server:
        store = open_at(server.address, APP_ROLE, {})
        store.fetch("database/creds/web", None)
        time.sleep(1.1)
        with pytest.raises(StoreError, match=r"^the token ended during the run"):
            store.fetch("shop/a", None)
        store.close()
        assert paths(server) == ["auth/approle/login", "database/creds/web"]


def test_a_lease_that_came_unexpectedly_keeps_its_token_too():
    """Where the settings say KV 1, nothing tells a dynamic engine from it but the answer."""
    with scripted(leasing(uses=2)) as server:
        store = open_at(server.address, APP_ROLE._replace(kv_version=1), {})
        store.fetch("database/creds/web", None)
        store.fetch("shop/a", None)
        store.close()
        assert paths(server) == [
            "auth/approle/login",
            "database/creds/web",
            "auth/approle/login",
            "shop/a",
            "auth/token/revoke-self",
        ]


def test_what_makes_credentials_is_not_asked_twice_and_its_failure_is_its_own():
    def script(asked: Asked) -> Said | None:
        if "internal/ui" in asked.path or not asked.path.startswith("/v1/database"):
            return leasing()(asked)
        return say(500, errors=["hunter2"]) if asked.path.endswith("web") else None

    with scripted(script) as server:
        store = open_at(server.address, Settings())
        with pytest.raises(
            StoreError, match=r"^the database engine gives nothing for this path \(status 500\)"
        ) as caught:
            store.fetch("database/creds/web", None)
        assert type(caught.value) is StoreError
        with pytest.raises(Unavailable):
            store.fetch("database/creds/other", None)
        assert paths(server) == ["database/creds/web", "database/creds/other"]


def test_a_lease_with_the_last_use_of_a_token_is_told():
    text = "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked."
    with (
        scripted(lambda _: say(400, errors=[text])) as server,
        pytest.raises(StoreError, match=r"^the token has one use"),
    ):
        open_at(server.address, Settings(kv_version=1)).fetch("database/creds/web", None)


LOGINS: list[tuple[Said | None, int, type[StoreError], str]] = [
    (say(400, errors=["hunter2"]), 1, Denied, "Vault refuses the login"),
    (say(403, errors=["permission denied"]), 1, Denied, "Vault refuses the login"),
    (say(auth=None), 1, StoreError, "Vault's answer to the login holds no token"),
    (say(auth={"client_token": "a b"}), 1, StoreError, "Vault's answer to the login holds no token"),
    (
        say(auth={"client_token": "", "mfa_requirement": {}}),
        1,
        StoreError,
        "Vault's answer to the login holds no token",
    ),
    (
        say(auth={"client_token": "", "mfa_requirement": {"mfa_request_id": "1"}}),
        1,
        Denied,
        "Vault wants a second factor for the login",
    ),
    (say(503, errors=[]), 3, Unavailable, "Vault at {} does not answer"),
    (None, 1, Unavailable, "Vault at {} does not answer"),
]


@pytest.mark.parametrize(("answer", "requests", "cls", "what"), LOGINS)
def test_a_login_that_gives_no_token_is_told(answer: Said | None, requests: int, cls: type[StoreError], what: str):
    with scripted(lambda _: answer) as server, pytest.raises(StoreError) as caught:
        open_at(server.address, APP_ROLE, {}).fetch("shop/x", None)
    assert type(caught.value) is cls
    assert caught.value.what == what.format(server.address)
    assert len(server.asked) == requests


def test_a_batch_token_is_not_revoked():
    def script(asked: Asked) -> Said | None:
        if asked.path.endswith("/login"):
            return say(auth={"client_token": "hvb.own", "lease_duration": 60, "token_type": "batch"})
        return leasing()(asked)

    with scripted(script) as server:
        store = open_at(server.address, APP_ROLE, {})
        store.fetch("shop/x", None)
        store.close()
        assert paths(server) == ["auth/approle/login", "shop/data/x"]


def test_the_end_of_a_run_waits_for_no_revocation_and_fails_by_none():
    def script(asked: Asked) -> Said | None:
        if asked.path.endswith("/revoke-self"):
            time.sleep(4)
            return None
        return leasing()(asked)

    with scripted(script) as server:
        store = open_at(server.address, APP_ROLE, {})
        store.fetch("shop/x", None)
        begin = time.monotonic()
        store.close()
        assert time.monotonic() - begin < 2
        assert paths(server)[-1] == "auth/token/revoke-self"


# --- workload identity


class Cluster(NamedTuple):
    address: str
    ca: str
    token: str
    """Of the service account `secretweave`."""
    key: str
    """By which it is signed; the public half."""


@pytest.fixture(scope="module")
def cluster(kubeconfig: Path) -> Cluster:
    kubectl = Kubectl(need("kubectl"), kubeconfig, "default")
    for arguments in (
        "create serviceaccount secretweave",
        # Vault has the API server review a token with that token itself.
        "create clusterrolebinding reviews --clusterrole=system:auth-delegator --serviceaccount=default:secretweave",
    ):
        made = kubectl.run(*arguments.split())
        assert made.returncode == 0, made.stderr
    (config,) = documents(kubeconfig.read_text())
    found = kubectl.run("create", "token", "secretweave", "--duration=10m")
    assert found.returncode == 0, found.stderr
    address = config["clusters"][0]["cluster"]["server"]
    pair = serialization.load_pem_private_key((kubeconfig.parent / "service-account.pem").read_bytes(), None)
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    key = pair.public_key().public_bytes(serialization.Encoding.PEM, public).decode()
    return Cluster(address, (kubeconfig.parent / "apiserver.crt").read_text(), found.stdout.strip(), key)


def test_a_pod_logs_in_with_its_service_account(server: VaultServer, cluster: Cluster, tmp_path: Path):
    server.enable_auth("shop-kubernetes", "kubernetes")
    server.write(
        "auth/shop-kubernetes/config",
        {"kubernetes_host": cluster.address, "kubernetes_ca_cert": cluster.ca, "disable_local_ca_jwt": True},
    )
    bound = {"bound_service_account_names": "secretweave", "bound_service_account_namespaces": "default"}
    server.write("auth/shop-kubernetes/role/web", bound | {"token_policies": ["shop"]})
    server.write("auth/shop-kubernetes/role/other", bound | {"bound_service_account_names": "someone-else"})
    (tmp_path / "token").write_text(cluster.token)
    auth = Auth(kubernetes=Kubernetes("web", "shop-kubernetes", str(tmp_path / "token")))
    ambient = {
        "VAULT_AUTH_METHOD": "kubernetes",
        "VAULT_ROLE_ID": "web",
        "VAULT_KUBERNETES_MOUNT_POINT": "/shop-kubernetes",
        "VAULT_KUBERNETES_JWT_TOKEN_PATH": str(tmp_path / "token"),
    }
    for given, environ in ((auth, {}), (Auth(), ambient)):
        store = open_it(server, Settings(auth=given), environ)
        assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}
        store.close()
    wrong = Auth(kubernetes=Kubernetes("other", "shop-kubernetes", str(tmp_path / "token")))
    with pytest.raises(Denied, match=r"^Vault refuses the login$") as caught:
        open_it(server, Settings(auth=wrong), {}).fetch("shop/app/token", None)
    assert caught.value.why.startswith("the role other at auth/shop-kubernetes is not there, or its")


def test_a_projected_token_logs_in_by_the_cluster_s_own_keys(server: VaultServer, cluster: Cluster, tmp_path: Path):
    server.enable_auth("shop-jwt", "jwt")
    server.write(
        "auth/shop-jwt/config",
        {
            # Not by their URL: the Vault that is built here fails its own check of one.
            "jwt_validation_pubkeys": [cluster.key],
            "bound_issuer": "https://kubernetes.default.svc",
            "default_role": "web",
        },
    )
    server.write(
        "auth/shop-jwt/role/web",
        {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["https://kubernetes.default.svc"],
            "bound_subject": "system:serviceaccount:default:secretweave",
            "token_policies": ["shop"],
        },
    )
    (tmp_path / "token").write_text(cluster.token)
    for role in ("web", None):
        auth = Auth(jwt=Jwt(str(tmp_path / "token"), role, "shop-jwt"))
        store = open_it(server, Settings(auth=auth), {})
        assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}
        store.close()
    (tmp_path / "token").write_text(cluster.token[:-4] + "AAAA")
    with pytest.raises(Denied, match=r"^Vault refuses the login$"):
        open_it(server, Settings(auth=auth), {}).fetch("shop/app/token", None)
