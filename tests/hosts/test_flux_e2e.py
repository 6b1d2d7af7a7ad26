"""Flux from end to end: API server, kustomize-controller, Vault and our controller, each the real one.

The upstream is an artifact that the test serves, or a repository that the real source-controller fetches.
Values begin with MARK: nothing but the cluster's Secrets may ever show it, which the last test looks for.
"""

import base64
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from pyrage import x25519  # type: ignore[import-untyped]  # it has no types

from tests.hosts.flux import (
    LEASE,
    MANIFESTS,
    NAMESPACE,
    ApiServer,
    Artifacts,
    Cluster,
    Object,
    Weaver,
    artifacts,
    condition,
    fetched,
    git,
    install_crds,
    is_ready,
    kustomization,
    kustomize_controller,
    registry,
    secretweave,
    source_controller,
    weaver,
)
from tests.hosts.programs import Kubectl, need
from tests.hosts.vault import Stats, VaultServer, undisturbed
from tests.servers import moto

MOUNT, USERS, ACCOUNTS, TOKENS = "flux", "flux-userpass", "flux-kubernetes", "flux-jwt"
ISSUER, AUDIENCE = "https://kubernetes.default.svc", "vault"
PASSWORD = "correct horse flux"
MARK = "Value-of-the-test"
ACCOUNT = "weaver"
SHARE_SECONDS = 5
"""The controller's default: a value that was read serves other objects for so long."""
SEEN_SECONDS_MAX = 15
"""From a change in Vault to its sight in the API: a second for the refresh, the rest for two busy processors."""


@pytest.fixture(scope="module")
def cluster(kubeconfig: Path) -> Cluster:
    install_crds(kubeconfig, MANIFESTS / "crd" / "secretweaves.yaml")
    return Cluster(kubeconfig)


@pytest.fixture(scope="module", autouse=True)
def flux(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """What starts it anew."""
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.close()
            stack.enter_context(kustomize_controller(tmp_path_factory.mktemp("flux"), cluster))

        begin()
        yield begin


@pytest.fixture(scope="module")
def filled(vault: VaultServer, cluster: Cluster) -> VaultServer:
    """The shared Vault, where a namespace logs in by its name, or a service account of it by the cluster's word."""
    vault.mount(MOUNT, version="2")
    vault.enable_auth(USERS, "userpass")
    vault.enable_auth(ACCOUNTS, "kubernetes")
    ca = cluster.ca.read_text()
    config = {"kubernetes_host": cluster.address, "kubernetes_ca_cert": ca, "disable_local_ca_jwt": True}
    vault.write(f"auth/{ACCOUNTS}/config", config)
    vault.enable_auth(TOKENS, "jwt")
    config = {"jwt_validation_pubkeys": [signing_key(cluster)], "bound_issuer": ISSUER}
    vault.write(f"auth/{TOKENS}/config", config)
    return vault


def signing_key(cluster: Cluster) -> str:
    """By which the API server's tokens are known; the public half."""
    private = (cluster.kubeconfig.parent / "service-account.pem").read_bytes()
    public = serialization.load_pem_private_key(private, None).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.fixture
def server(filled: VaultServer) -> Iterator[VaultServer]:
    with undisturbed(filled) as server:
        yield server


@pytest.fixture(scope="module")
def only(cluster: Cluster, filled: VaultServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weaver]:
    """The one controller, for all tests: as in a cluster."""
    by_name = f'{{path: {USERS}, username: "{{namespace}}", passwordSecretRef: {{name: vault, key: password}}}}'
    logins = {
        "vault": f"{{userPass: {by_name}}}",
        "vault-accounts": f'{{kubernetes: {{path: {ACCOUNTS}, role: "{{namespace}}"}}}}',
        "vault-tokens": f'{{jwt: {{path: {TOKENS}, role: "{{namespace}}", audiences: [{AUDIENCE}]}}}}',
    }
    stores = "---\n".join(
        f"""\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: {name}}}
spec:
  vault:
    url: {filled.address}
    path: {MOUNT}
    kvVersion: 2
    auth: {auth}
    tls: {{caFile: {filled.ca}}}
"""
        for name, auth in logins.items()
    )
    cluster.namespace(NAMESPACE)
    cluster.apply("Secret", NAMESPACE, "vault", stringData={"password": PASSWORD})
    with weaver(tmp_path_factory.mktemp("weaver"), cluster, stores) as found:
        yield found


@pytest.fixture
def running(only: Weaver) -> Weaver:
    """The same, also where the test before has killed it."""
    if not only.lives():
        only.start()
    return only


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Artifacts]:
    with artifacts(cluster) as found:
        yield found


class Tenant(NamedTuple):
    """A namespace that may read `NAMESPACE/*` of the Vault, and nothing else."""

    name: str
    vault: VaultServer

    def put(self, path: str, **fields: str) -> None:
        self.vault.put(MOUNT, f"{self.name}/{path}", {key: f"{MARK}-{value}" for key, value in fields.items()})


@pytest.fixture
def tenants(cluster: Cluster, server: VaultServer) -> Iterator[Iterator[Tenant]]:
    made = []

    def tenant() -> Tenant:
        found = Tenant(f"tenant-{os.urandom(4).hex()}", server)
        name = found.name
        cluster.namespace(name)
        rules = (f'path "{MOUNT}/{part}/{name}/*" {{ capabilities = ["read"] }}' for part in ("data", "metadata"))
        server.policy(name, "\n".join(rules))
        server.write(f"auth/{USERS}/users/{name}", {"password": PASSWORD, "token_policies": name})
        made.append(name)
        return found

    yield (tenant() for _ in itertools.count())
    for namespace, kind in itertools.product(made, ("Kustomization", "SecretWeave")):
        for name in cluster.names(kind, namespace):
            cluster.delete(kind, namespace, name)


@pytest.fixture
def tenant(tenants: Iterator[Tenant]) -> Tenant:
    return next(tenants)


def manifests(namespace: str) -> dict[str, str | bytes]:
    """A set with references, as it stands in Git."""
    return {
        "deploy/kustomization.yaml": f"""\
namePrefix: shop-
resources: [app.yaml]
secretGenerator:
  - name: generated
    literals: ["password=secret://vault/{namespace}/db#password"]
""",
        "deploy/app.yaml": f"""\
apiVersion: v1
kind: Secret
metadata:
  name: app
stringData:
  password: secret://vault/{namespace}/db#password
  url: postgres://web:$(secret://vault/{namespace}/db#password)@db/shop
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
data:
  mode: "0644"
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: web
          image: web:1
          env:
            - name: TOKEN
              value: secret://vault/{namespace}/token#value
""",
        "README.md": "not a manifest\n",
    }


def one_secret(namespace: str, path: str = "db", store: str = "vault", name: str = "app") -> dict[str, str | bytes]:
    return {
        "app.yaml": f"""\
apiVersion: v1
kind: Secret
metadata:
  name: {name}
stringData:
  password: secret://{store}/{namespace}/{path}#password
"""
    }


def published(cluster: Cluster, namespace: str, name: str = "app") -> Object:
    """The artifact that kustomize-controller is told of."""
    found: Object = cluster.until_ready("ExternalArtifact", namespace, name)["status"]["artifact"]
    return found


def one_app(cluster: Cluster, served: Artifacts, tenant: Tenant, password: str = "first", **spec: Any) -> Object:
    """A SecretWeave and a Kustomization of one Secret; the artifact, when it is applied."""
    tenant.put("db", password=password)
    served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name))
    secretweave(cluster, tenant.name, "app", **spec)
    kustomization(cluster, tenant.name, "app", source=("ExternalArtifact", "app"), age="app-age")
    cluster.until_ready("SecretWeave", tenant.name, "app")
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-{password}"})
    return published(cluster, tenant.name)


# --- what it is for


@pytest.mark.usefixtures("running")
def test_references_end_as_decrypted_secrets(cluster: Cluster, served: Artifacts, tenant: Tenant):
    namespace = tenant.name
    tenant.put("db", password="db")
    tenant.put("token", value="token")
    source = served.publish("GitRepository", namespace, "shop", manifests(namespace), "main@sha1:0123abcd")
    secretweave(cluster, namespace, "app", path="./deploy")
    kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="app-age")
    applied = cluster.until_ready("Kustomization", namespace, "app")

    assert cluster.values(namespace, "shop-app") == {
        "password": f"{MARK}-db",
        "url": f"postgres://web:{MARK}-db@db/shop",
    }
    (generated,) = (name for name in cluster.names("Secret", namespace) if name.startswith("shop-generated-"))
    assert cluster.values(namespace, generated) == {"password": f"{MARK}-db"}
    (container,) = cluster.get("Deployment", namespace, "shop-web")["spec"]["template"]["spec"]["containers"]
    ref = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert cluster.values(namespace, ref["name"])[ref["key"]] == f"{MARK}-token"
    assert cluster.get("ConfigMap", namespace, "shop-web")["data"] == {"mode": "0644"}

    found = cluster.until_ready("SecretWeave", namespace, "app")
    status, artifact = found["status"], published(cluster, namespace)
    assert status["lastSourceRevision"] == source["artifact"]["revision"]
    assert status["artifact"]["digest"] == artifact["digest"]
    assert applied["status"]["lastAppliedRevision"] == artifact["revision"] == f"latest@{artifact['digest']}"
    assert {each["type"]: each["status"] for each in status["conditions"]} == {"Ready": "True"}
    external = cluster.get("ExternalArtifact", namespace, "app")
    (owner,) = external["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("SecretWeave", "app", found["metadata"]["uid"])
    assert external["spec"]["sourceRef"]["kind"] == "SecretWeave"
    files = fetched(artifact).files
    sealed = {name: text for name, text in files.items() if b"kind: Secret" in text}
    assert len(sealed) == 3
    assert all(b"ENC[AES256_GCM" in text for text in sealed.values())
    assert status["ageRecipient"].encode() in b"".join(sealed.values())


@pytest.mark.usefixtures("running")
def test_a_rotation_is_seen_within_seconds_and_what_is_unchanged_stays(
    cluster: Cluster, served: Artifacts, tenant: Tenant
):
    namespace = tenant.name
    tenant.put("other", password="other")
    files = one_secret(namespace) | {"other.yaml": one_secret(namespace, "other", name="other")["app.yaml"]}
    tenant.put("db", password="first")
    served.publish("GitRepository", namespace, "shop", files)
    secretweave(cluster, namespace, "app")
    kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="app-age")
    cluster.until_values(namespace, "app", {"password": f"{MARK}-first"})
    before = published(cluster, namespace)
    sources = len(served.asked)

    for value in ("second", "third"):
        tenant.put("db", password=value)
        took = cluster.until_values(namespace, "app", {"password": f"{MARK}-{value}"})
        print(f"seen in the API after {took:.1f} s")
        assert took < SEEN_SECONDS_MAX
    after = published(cluster, namespace)
    assert after["digest"] != before["digest"]
    old, new = (fetched(each).files for each in (before, after))
    # Ciphertext of what is unchanged is the same, byte for byte.
    assert [name for name in new if new[name] != old[name]] == ["secret_app.yaml"]
    version = cluster.get("ExternalArtifact", namespace, "app")["metadata"]["resourceVersion"]
    tenant.vault.reset()
    deadline = time.monotonic() + 30
    while tenant.vault.stats().paths.get(f"GET /v1/{MOUNT}/metadata/{namespace}/db", 0) < 3:
        assert time.monotonic() < deadline, tenant.vault.stats()
        time.sleep(0.2)
    # It is asked for versions, and no value leaves it.
    assert [path for path in tenant.vault.stats().paths if "/data/" in path] == []
    assert cluster.get("ExternalArtifact", namespace, "app")["metadata"]["resourceVersion"] == version
    # Only the stores are asked in between: the source is fetched at its interval.
    assert len(served.asked) == sources


@pytest.mark.usefixtures("running")
def test_a_new_revision_of_the_source_is_woven_and_what_left_it_is_pruned(
    cluster: Cluster, served: Artifacts, tenant: Tenant
):
    one_app(cluster, served, tenant)
    served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name, name="renamed"), "main@sha1:beef")
    cluster.until_values(tenant.name, "renamed", {"password": f"{MARK}-first"})
    cluster.until_values(tenant.name, "app", {})
    assert cluster.until_ready("SecretWeave", tenant.name, "app")["status"]["lastSourceRevision"] == "main@sha1:beef"


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", ["OCIRepository", "ExternalArtifact"])
def test_other_kinds_of_source(cluster: Cluster, served: Artifacts, tenant: Tenant, kind: str):
    tenant.put("db", password="first")
    served.publish(kind, tenant.name, "shop", one_secret(tenant.name))
    secretweave(cluster, tenant.name, "app", source=(kind, "shop"))
    kustomization(cluster, tenant.name, "app", source=("ExternalArtifact", "app"), age="app-age")
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-first"})


@pytest.mark.usefixtures("running")
def test_one_may_be_woven_from_what_another_one_published(cluster: Cluster, served: Artifacts, tenant: Tenant):
    namespace = tenant.name
    identity = x25519.Identity.generate()
    cluster.apply("Secret", namespace, "mine", stringData={"age.agekey": f"{identity}\n"})
    tenant.put("db", password="first")
    served.publish("GitRepository", namespace, "shop", one_secret(namespace, name="other"))
    keys = {"secretRef": {"name": "mine"}}
    secretweave(cluster, namespace, "below", keys=keys)
    secretweave(cluster, namespace, "app", source=("ExternalArtifact", "below"), keys=keys)
    kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="mine")
    cluster.until_values(namespace, "other", {"password": f"{MARK}-first"})
    tenant.put("db", password="rotated")
    cluster.until_values(namespace, "other", {"password": f"{MARK}-rotated"})
    below = published(cluster, namespace, "below")
    cluster.until(
        "SecretWeave", namespace, "app", lambda found: found["status"]["lastSourceRevision"] == below["revision"]
    )


# --- what goes wrong leaves the cluster as it is


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("how", ["down", "denied"])
def test_without_its_store_nothing_changes_and_the_condition_says_why(
    cluster: Cluster, served: Artifacts, tenant: Tenant, how: str
):
    before = one_app(cluster, served, tenant)
    applied = cluster.get("Secret", tenant.name, "app")["metadata"]["resourceVersion"]
    if how == "down":
        tenant.vault.answer(503)
    else:
        tenant.vault.policy(tenant.name, f'path "{MOUNT}/data/elsewhere" {{ capabilities = ["read"] }}')
    message = cluster.until_not_ready("SecretWeave", tenant.name, "app", reason="StoreFailed")
    told = "sealed" if how == "down" else "Vault does not let it be read"
    assert told in message
    found = cluster.get("SecretWeave", tenant.name, "app")
    assert condition(found, "Reconciling")["status"] == "True"
    external = cluster.get("ExternalArtifact", tenant.name, "app")
    assert is_ready(external)
    assert external["status"]["artifact"] == before
    assert fetched(before).digest == before["digest"]
    assert cluster.get("Secret", tenant.name, "app")["metadata"]["resourceVersion"] == applied
    assert is_ready(cluster.get("Kustomization", tenant.name, "app"))
    assert any(
        each["regarding"]["name"] == "app" and (each["type"], each["reason"]) == ("Warning", "StoreFailed")
        for each in cluster.list("Event", tenant.name)
    )

    tenant.vault.answer(0)
    tenant.vault.policy(tenant.name, f'path "{MOUNT}/data/{tenant.name}/*" {{ capabilities = ["read"] }}')
    tenant.put("db", password="after it")
    cluster.until_ready("SecretWeave", tenant.name, "app", seconds=60)
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-after it"})


@pytest.mark.usefixtures("running")
def test_a_source_that_does_not_build_changes_nothing(cluster: Cluster, served: Artifacts, tenant: Tenant):
    before = one_app(cluster, served, tenant, retryInterval="1s")
    served.publish("GitRepository", tenant.name, "shop", {"kustomization.yaml": "resources: [nowhere.yaml]\n"})
    assert "nowhere.yaml" in cluster.until_not_ready("SecretWeave", tenant.name, "app", reason="BuildFailed")
    served.publish("GitRepository", tenant.name, "shop", {"README.md": "emptied by mistake\n"})
    cluster.until(
        "SecretWeave", tenant.name, "app", lambda found: "no manifest" in condition(found, "Ready").get("message", "")
    )
    assert published(cluster, tenant.name) == before
    assert cluster.values(tenant.name, "app") == {"password": f"{MARK}-first"}
    served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name))
    cluster.until_ready("SecretWeave", tenant.name, "app")


@pytest.mark.usefixtures("running")
def test_an_archive_that_is_not_what_its_source_says_is_refused(cluster: Cluster, served: Artifacts, tenant: Tenant):
    tenant.put("db", password="first")
    status = served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name))
    path = "/" + status["artifact"]["path"]
    right = served.served[path]
    served.served[path] = right[:-1] + bytes([right[-1] ^ 1])
    secretweave(cluster, tenant.name, "app", retryInterval="1s")
    assert "digest" in cluster.until_not_ready("SecretWeave", tenant.name, "app", reason="ArtifactFailed")
    served.served[path] = right
    cluster.until_ready("SecretWeave", tenant.name, "app")


@pytest.mark.usefixtures("running")
def test_an_archive_that_would_leave_its_folder_is_refused(cluster: Cluster, served: Artifacts, tenant: Tenant):
    before = one_app(cluster, served, tenant, retryInterval="1s")
    served.publish("GitRepository", tenant.name, "shop", {"../app.yaml": one_secret(tenant.name)["app.yaml"]})
    cluster.until_not_ready("SecretWeave", tenant.name, "app", reason="ArtifactFailed")
    assert published(cluster, tenant.name) == before


@pytest.mark.usefixtures("running")
def test_a_missing_source_is_waited_for(cluster: Cluster, served: Artifacts, tenant: Tenant):
    tenant.put("db", password="first")
    secretweave(cluster, tenant.name, "app")
    message = cluster.until_not_ready("SecretWeave", tenant.name, "app", reason="ArtifactFailed")
    assert "gitrepositories `shop`" in message or "GitRepository" in message
    served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name))
    cluster.until_ready("SecretWeave", tenant.name, "app")


# --- killed at any moment


KILLS = 6


def test_a_kill_at_any_moment_leaves_no_half_artifact(
    cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant
):
    one_app(cluster, served, tenant)
    chance = random.Random(6)
    midway = 0
    seen: set[str] = set()
    faults: list[str] = []
    ended = threading.Event()

    def follow() -> None:
        """As kustomize-controller: what is pointed to is fetched, and must be what it was said to be."""
        while not ended.is_set():
            artifact = cluster.get("ExternalArtifact", tenant.name, "app")["status"]["artifact"]
            try:
                fetched(artifact)
                seen.add(artifact["digest"])
            except (urllib.error.HTTPError, AssertionError) as error:
                faults.append(f"{artifact}: {error}")
            except (OSError, http.client.HTTPException):
                # It is being started, or was killed while it answered.
                pass
            time.sleep(0.02)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        for number in range(KILLS):
            size = running.log.stat().st_size
            tenant.put("db", password=f"number {number}")
            # From the read on: it encrypts, writes the archive, and tells the cluster of it.
            version = f'"version": "{number + 2}"'.encode()
            while version not in running.log.read_bytes()[size:]:
                assert running.lives()
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.1))
            running.kill()
            midway += b'"event": "published"' not in running.log.read_bytes()[size:]
            running.start()
        cluster.until_values(tenant.name, "app", {"password": f"{MARK}-number {KILLS - 1}"}, seconds=60)
    finally:
        ended.set()
        thread.join()
    print(f"{midway} of {KILLS} kills came before the publication was through; {len(seen)} artifacts were seen")
    assert faults == []
    assert midway
    assert len(seen) >= 2
    whole = [path for path in running.files() if path.name.endswith(".tar.gz") and not path.name.startswith(".")]
    assert whole
    for path in whole:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.removesuffix(".tar.gz")


def test_a_restart_serves_the_same_artifact(cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant):
    one_app(cluster, served, tenant)
    before = cluster.get("ExternalArtifact", tenant.name, "app")
    # What was published is there without the source, and without the store.
    tenant.vault.answer(503)
    served.served.clear()
    assert running.stop() == 0
    running.start()
    artifact = before["status"]["artifact"]
    assert fetched(artifact).digest == artifact["digest"]
    cluster.until_not_ready("SecretWeave", tenant.name, "app")
    after = cluster.get("ExternalArtifact", tenant.name, "app")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_after_a_crash_the_same_is_served_at_once_and_new_is_made_when_the_lease_is_over(
    cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant
):
    before = one_app(cluster, served, tenant)
    running.kill(lease_ends=False)
    tenant.put("db", password="after it")
    begun = time.monotonic()
    running.start(ready=False)
    until_served(before)
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-after it"}, seconds=60)
    print(f"a change is seen after {time.monotonic() - begun:.1f} s")


def test_a_lost_volume_is_filled_again(cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant):
    one_app(cluster, served, tenant)
    assert running.stop() == 0
    for path in running.files():
        path.unlink()
    running.start()

    def is_served(external: Object) -> bool:
        with contextlib.suppress(urllib.error.HTTPError):
            return fetched(external["status"]["artifact"]).digest != ""
        return False

    cluster.until("ExternalArtifact", tenant.name, "app", is_served)
    tenant.put("db", password="after it")
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-after it"})


@pytest.fixture(scope="session")
def api_server(kubeconfig: Path) -> Iterator[ApiServer]:
    found = ApiServer(kubeconfig)
    yield found
    found.end()


@pytest.fixture
def in_a_pod(running: Weaver) -> Iterator[Weaver]:
    """As the Deployment has it: whenever it ends it is started again, under the same name."""
    assert running.stop() == 0
    running.pod = "secretweave-0"
    running.start()
    yield running
    running.pod = ""
    if running.lives():
        running.kill()


def test_without_the_api_server_it_serves_what_it_has_and_begins_again_with_it(
    cluster: Cluster,
    served: Artifacts,
    in_a_pod: Weaver,
    tenant: Tenant,
    api_server: ApiServer,
    flux: Callable[[], None],
):
    before = one_app(cluster, served, tenant)
    begun = time.monotonic()
    with api_server.away():
        until_served(before)
        assert in_a_pod.ended() == 75
        print(f"it gave its Lease up after {time.monotonic() - begun:.1f} s")
        assert in_a_pod.lines("lease lost")
        in_a_pod.start(ready=False)
        until_served(before)
        assert not in_a_pod.is_ready()
    in_a_pod.until_ready()
    back = time.monotonic()
    print(f"the API server was away for {back - begun:.1f} s")
    assert fetched(published(cluster, tenant.name)).digest == before["digest"]
    tenant.put("db", password="after it")
    cluster.until(
        "ExternalArtifact", tenant.name, "app", lambda found: found["status"]["artifact"]["digest"] != before["digest"]
    )
    print(f"a rotation is published {time.monotonic() - back:.1f} s after it")
    # Flux's own, with a Lease as in a cluster, would have ended and been started again, too.
    flux()
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-after it"}, seconds=60)
    print(f"and applied {time.monotonic() - back:.1f} s after it")


def until_served(artifact: Object) -> None:
    """By a controller that is being started."""
    begun = time.monotonic()
    while True:
        with contextlib.suppress(urllib.error.URLError):
            assert fetched(artifact).digest == artifact["digest"]
            break
        assert time.monotonic() - begun < 10
        time.sleep(0.05)
    print(f"served again after {time.monotonic() - begun:.1f} s")


# --- tenants


@pytest.mark.usefixtures("running")
def test_a_tenant_reads_nothing_of_another_one(cluster: Cluster, served: Artifacts, tenants: Iterator[Tenant]):
    a, b = next(tenants), next(tenants)
    one_app(cluster, served, a, "of a")
    one_app(cluster, served, b, "of b")
    # The path of a, with the login of b; its value has just been read for a, and is still in memory.
    served.publish("GitRepository", b.name, "shop", one_secret(a.name))
    assert "Vault does not let it be read" in cluster.until_not_ready(
        "SecretWeave", b.name, "app", reason="StoreFailed"
    )
    assert cluster.values(b.name, "app") == {"password": f"{MARK}-of b"}


@pytest.mark.usefixtures("running")
def test_a_source_of_another_namespace_is_refused(cluster: Cluster, served: Artifacts, tenants: Iterator[Tenant]):
    a, b = next(tenants), next(tenants)
    served.publish("GitRepository", a.name, "shop", one_secret(a.name))
    asked = len(served.asked)
    ref = {"kind": "GitRepository", "name": "shop", "namespace": a.name}
    secretweave(cluster, b.name, "app", sourceRef=ref)
    message = cluster.until_not_ready("SecretWeave", b.name, "app", reason="AccessDenied")
    assert "allowCrossNamespace" in message
    assert condition(cluster.get("SecretWeave", b.name, "app"), "Stalled")["status"] == "True"
    assert len(served.asked) == asked
    assert cluster.find("ExternalArtifact", b.name, "app") is None


@pytest.fixture
def accounts(cluster: Cluster, tenant: Tenant) -> Kubectl:
    """The tenant's service accounts: the controller may make tokens of ACCOUNT and of `stranger`, not of `nobodys`."""
    namespace = tenant.name
    kubectl = Kubectl(need("kubectl"), cluster.kubeconfig, namespace)
    for account in (ACCOUNT, "stranger", "nobodys"):
        cluster.apply("ServiceAccount", namespace, account)
    # As in flux/example/shop.yaml.
    named = f"--resource-name={ACCOUNT} --resource-name=stranger"
    for command in (
        f"create role tokens --verb=create --resource=serviceaccounts/token {named}",
        f"create rolebinding tokens --role=tokens --serviceaccount={NAMESPACE}:secretweave",
    ):
        done = kubectl.run(*command.split())
        assert done.returncode == 0, done.stderr
    return kubectl


REFUSED = {"stranger": "Vault refuses the login", "nobodys": "serviceaccounts/token", "nobody": "nobody"}
"""Service accounts, and what is told of each."""


@pytest.mark.usefixtures("running")
def test_vault_knows_the_service_account_of_the_object(
    cluster: Cluster, served: Artifacts, tenant: Tenant, accounts: Kubectl
):
    namespace = tenant.name
    tenant.put("db", password="by account")
    for account in (ACCOUNT, "stranger"):
        # Vault has the API server check a login's token with the token itself.
        of = f"--serviceaccount={namespace}:{account}"
        done = accounts.run(
            "create", "clusterrolebinding", f"{namespace}-{account}", "--clusterrole=system:auth-delegator", of
        )
        assert done.returncode == 0, done.stderr
    tenant.vault.write(
        f"auth/{ACCOUNTS}/role/{namespace}",
        {
            "bound_service_account_names": ACCOUNT,
            "bound_service_account_namespaces": namespace,
            "token_policies": namespace,
        },
    )
    by_account(cluster, served, namespace, "vault-accounts")
    cluster.until_values(namespace, "app", {"password": f"{MARK}-by account"})
    for account, told in REFUSED.items():
        secretweave(cluster, namespace, account, serviceAccountName=account)
        assert told in cluster.until_not_ready("SecretWeave", namespace, account, reason="StoreFailed")


@pytest.mark.usefixtures("running", "accounts")
def test_vault_knows_the_service_account_by_its_token_alone(cluster: Cluster, served: Artifacts, tenant: Tenant):
    """`jwt`: Vault asks no API server, and takes what is signed for it, of one service account."""
    namespace = tenant.name
    tenant.put("db", password="by token")
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": [AUDIENCE],
        "bound_subject": f"system:serviceaccount:{namespace}:{ACCOUNT}",
        "token_policies": namespace,
    }
    # A token for Vault is none for anybody else.
    tenant.vault.write(f"auth/{TOKENS}/role/{namespace}", role | {"bound_audiences": [ISSUER]})
    by_account(cluster, served, namespace, "vault-tokens")
    assert "Vault refuses the login" in cluster.until_not_ready("SecretWeave", namespace, "app", reason="StoreFailed")
    tenant.vault.write(f"auth/{TOKENS}/role/{namespace}", role)
    cluster.until_values(namespace, "app", {"password": f"{MARK}-by token"})
    tenant.put("db", password="rotated")
    cluster.until_values(namespace, "app", {"password": f"{MARK}-rotated"})
    for account, told in REFUSED.items():
        secretweave(cluster, namespace, account, serviceAccountName=account)
        assert told in cluster.until_not_ready("SecretWeave", namespace, account, reason="StoreFailed")
    # Without an account there is no token to log in with: the controller's own is not taken.
    secretweave(cluster, namespace, "none")
    assert "no tokenFile" in cluster.until_not_ready("SecretWeave", namespace, "none", reason="StoreFailed")


def by_account(cluster: Cluster, served: Artifacts, namespace: str, store: str) -> None:
    served.publish("GitRepository", namespace, "shop", one_secret(namespace, store=store))
    secretweave(cluster, namespace, "app", serviceAccountName=ACCOUNT)
    kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="app-age")


STORES = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: secretstores.humanitec.io}
spec:
  group: humanitec.io
  names: {kind: SecretStore, plural: secretstores, singular: secretstore}
  scope: Namespaced
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


@pytest.fixture
def stores(cluster: Cluster) -> Iterator[Kubectl]:
    """The kind SecretStore; of the original system's schema only this much is public."""
    kubectl = Kubectl(need("kubectl"), cluster.kubeconfig, "default")
    assert kubectl.run("apply", "--filename=-", text=STORES).returncode == 0
    waited = kubectl.run("wait", "--for=condition=Established", "crd/secretstores.humanitec.io")
    assert waited.returncode == 0, waited.stderr
    yield kubectl
    kubectl.run("delete", "crd", "secretstores.humanitec.io")


@pytest.mark.usefixtures("running")
def test_a_store_of_a_tenant_is_not_there_for_another_one(
    cluster: Cluster, served: Artifacts, stores: Kubectl, tenants: Iterator[Tenant]
):
    a, b = next(tenants), next(tenants)
    a.put("db", password="of a")
    login = {"token": a.vault.create_token([a.name]), "ca": a.vault.ca.read_text()}
    cluster.apply("Secret", a.name, "login", stringData=login)
    made = stores._replace(namespace=a.name).run(
        "apply",
        "--filename=-",
        text=f"""\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: own, namespace: {a.name}}}
spec:
  vault:
    url: {a.vault.address}
    path: {MOUNT}
    kvVersion: 2
    auth: {{tokenSecretRef: {{name: login, key: token}}}}
    tls: {{caSecretRef: {{name: login, key: ca}}}}
""",
    )
    assert made.returncode == 0, made.stderr
    for tenant in (a, b):
        served.publish("GitRepository", tenant.name, "shop", one_secret(a.name, store="own"))
        secretweave(cluster, tenant.name, "app")
    kustomization(cluster, a.name, "app", source=("ExternalArtifact", "app"), age="app-age")
    cluster.until_values(a.name, "app", {"password": f"{MARK}-of a"})
    assert "own" in cluster.until_not_ready("SecretWeave", b.name, "app", reason="ReferenceInvalid")


@pytest.mark.usefixtures("running")
def test_an_object_may_use_the_stores_that_it_names_alone(cluster: Cluster, served: Artifacts, tenant: Tenant):
    one_app(cluster, served, tenant)
    secretweave(cluster, tenant.name, "app", stores=["vault-accounts"])
    message = cluster.until_not_ready("SecretWeave", tenant.name, "app")
    assert "spec.stores does not name it" in message


def test_plaintext_is_refused_unless_it_is_allowed_and_is_gone_once_it_is_sealed(
    cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant
):
    namespace = tenant.name
    tenant.put("db", password="first")
    served.publish("GitRepository", namespace, "shop", one_secret(namespace))
    secretweave(cluster, namespace, "app", output="secret")
    assert "flux.allowPlaintext" in cluster.until_not_ready("SecretWeave", namespace, "app", reason="AccessDenied")
    stalled = condition(cluster.get("SecretWeave", namespace, "app"), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "AccessDenied")
    assert cluster.find("ExternalArtifact", namespace, "app") is None

    with running.plaintext_allowed():
        kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"))
        cluster.until_values(namespace, "app", {"password": f"{MARK}-first"})
        tenant.put("db", password="second")
        cluster.until_values(namespace, "app", {"password": f"{MARK}-second"})
        plain = published(cluster, namespace)
        assert f"{MARK}-second".encode() in b"".join(fetched(plain).files.values())
        assert "ageRecipient" not in cluster.until_ready("SecretWeave", namespace, "app")["status"]
        assert "app-age" not in cluster.names("Secret", namespace)
    # Whose turn it was is not published anew, and what was stays.
    cluster.until_not_ready("SecretWeave", namespace, "app", reason="AccessDenied")
    assert published(cluster, namespace) == plain

    tenant.put("db", password="third")
    secretweave(cluster, namespace, "app")
    kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="app-age")
    cluster.until_values(namespace, "app", {"password": f"{MARK}-third"})
    sealed = fetched(published(cluster, namespace))
    assert b"ENC[AES256_GCM" in b"".join(sealed.files.values())
    assert MARK.encode() not in b"".join(sealed.files.values())
    # It is kept for a while, for who comes to fetch it.
    gone = running.aged(namespace, "app")
    gone.remove(running.file(namespace, "app", sealed.digest))
    assert running.file(namespace, "app", plain["digest"]) in gone
    until_gone(gone)


@pytest.mark.usefixtures("running")
def test_an_external_artifact_of_somebody_else_is_left_alone(cluster: Cluster, served: Artifacts, tenant: Tenant):
    tenant.put("db", password="first")
    served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name))
    theirs = served.publish("ExternalArtifact", tenant.name, "app", {"a.yaml": "# theirs\n"})
    secretweave(cluster, tenant.name, "app")
    assert "is not ours" in cluster.until_not_ready("SecretWeave", tenant.name, "app", reason="AccessDenied")
    assert cluster.get("ExternalArtifact", tenant.name, "app")["status"]["artifact"] == theirs["artifact"]


# --- keys


@pytest.mark.usefixtures("running")
def test_the_age_key_is_rotated_and_what_was_published_can_still_be_opened(
    cluster: Cluster, served: Artifacts, tenant: Tenant
):
    one_app(cluster, served, tenant)
    secret = cluster.get("Secret", tenant.name, "app-age")
    first = cluster.get("SecretWeave", tenant.name, "app")["status"]["ageRecipient"]
    assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "secretweave"
    assert [each["name"] for each in secret["metadata"]["ownerReferences"]] == ["app"]
    before = published(cluster, tenant.name)
    secretweave(cluster, tenant.name, "app", keys={"rotateAfter": "4s"})
    cluster.until(
        "SecretWeave", tenant.name, "app", lambda found: found["status"].get("ageRecipient") not in {None, first}
    )
    secretweave(cluster, tenant.name, "app")
    after = cluster.until(
        "ExternalArtifact", tenant.name, "app", lambda found: found["status"]["artifact"]["digest"] != before["digest"]
    )
    identities = base64.b64decode(cluster.get("Secret", tenant.name, "app-age")["data"]["age.agekey"]).decode()
    assert identities.count("AGE-SECRET-KEY-1") == 2
    assert first.encode() not in b"".join(fetched(after["status"]["artifact"]).files.values())
    tenant.put("db", password="after it")
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-after it"})


@pytest.mark.usefixtures("running")
def test_a_key_of_ones_own(cluster: Cluster, served: Artifacts, tenant: Tenant):
    identity = x25519.Identity.generate()
    cluster.apply("Secret", tenant.name, "mine", stringData={"age.agekey": f"{identity}\n"})
    tenant.put("db", password="first")
    served.publish("GitRepository", tenant.name, "shop", one_secret(tenant.name))
    secretweave(cluster, tenant.name, "app", keys={"secretRef": {"name": "mine"}})
    kustomization(cluster, tenant.name, "app", source=("ExternalArtifact", "app"), age="mine")
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-first"})
    assert cluster.get("SecretWeave", tenant.name, "app")["status"]["ageRecipient"] == str(identity.to_public())
    assert "app-age" not in cluster.names("Secret", tenant.name)


# --- by Flux's conventions


@pytest.mark.usefixtures("running")
def test_a_suspended_object_rests_and_one_that_is_asked_for_does_not_wait(
    cluster: Cluster, served: Artifacts, tenant: Tenant
):
    one_app(cluster, served, tenant)
    secretweave(cluster, tenant.name, "app", suspend=True)
    cluster.until(
        "SecretWeave",
        tenant.name,
        "app",
        lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"],
    )
    tenant.vault.reset()
    tenant.put("db", password="second")
    # Long enough for what was read before to be shared no longer.
    time.sleep(SHARE_SECONDS + 1)
    assert tenant.vault.stats().requests == 0
    assert cluster.values(tenant.name, "app") == {"password": f"{MARK}-first"}
    # So long an interval that only the request is why it comes.
    secretweave(cluster, tenant.name, "app", refresh="1h", suspend=False)
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-second"})
    tenant.put("db", password="third")
    cluster.annotate("SecretWeave", tenant.name, "app", "reconcile.fluxcd.io/requestedAt", "2026-01-31T12:00:00Z")
    cluster.until_values(tenant.name, "app", {"password": f"{MARK}-third"})
    assert cluster.get("SecretWeave", tenant.name, "app")["status"]["lastHandledReconcileAt"] == "2026-01-31T12:00:00Z"


def test_what_belongs_to_a_deleted_object_and_what_was_replaced_is_collected(
    cluster: Cluster, served: Artifacts, running: Weaver, tenants: Iterator[Tenant]
):
    tenant, other = next(tenants), next(tenants)
    one_app(cluster, served, tenant)
    cluster.delete("SecretWeave", tenant.name, "app")
    assert cluster.find("SecretWeave", tenant.name, "app") is None
    # The cluster's garbage collector, which does not run here, goes by ownerReferences.
    for kind, name in (("ExternalArtifact", "app"), ("Secret", "app-age")):
        (owner,) = cluster.get(kind, tenant.name, name)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("SecretWeave", "app")
        cluster.delete(kind, tenant.name, name)
    gone = running.aged(tenant.name, "app")
    assert gone
    # Of plaintext that was replaced, though its object is not looked at again for an hour.
    other.put("db", password="first")
    served.publish("GitRepository", other.name, "shop", one_secret(other.name))
    with running.plaintext_allowed():
        secretweave(cluster, other.name, "app", output="secret", refresh="1h")
        plain = published(cluster, other.name)["digest"]
        secretweave(cluster, other.name, "app", refresh="1h")
        cluster.until(
            "ExternalArtifact", other.name, "app", lambda found: found["status"]["artifact"]["digest"] != plain
        )
    cluster.until_ready("SecretWeave", other.name, "app")
    left = running.file(other.name, "app", published(cluster, other.name)["digest"])
    running.aged(other.name, "app")
    gone.append(running.file(other.name, "app", plain))
    until_gone(gone, seconds=90)
    assert left.exists()


def until_gone(paths: list[Path], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while any(path.exists() for path in paths):
        assert time.monotonic() < deadline, "archives stay on the volume"
        time.sleep(0.5)


def test_a_second_replica_waits_for_the_first(
    cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant, tmp_path: Path
):
    one_app(cluster, served, tenant)
    holder = cluster.get("Lease", NAMESPACE, LEASE)["spec"]["holderIdentity"]
    second = running.replica(tmp_path)
    second.start(ready=False)
    try:
        time.sleep(6)
        assert second.lives()
        assert second.lines("reconcile") == []
        assert cluster.get("Lease", NAMESPACE, LEASE)["spec"]["holderIdentity"] == holder
        assert running.stop() == 0
        tenant.put("db", password="by the second")
        # Its volume is another one: it fills it, and points to itself.
        cluster.until_values(tenant.name, "app", {"password": f"{MARK}-by the second"}, seconds=60)
        assert cluster.get("Lease", NAMESPACE, LEASE)["spec"]["holderIdentity"] != holder
    finally:
        second.kill()


# --- many


ADDRESSES, OBJECTS = 5, 50


@pytest.mark.usefixtures("running")
def test_fifty_objects_with_five_addresses_are_five_reads_a_round(cluster: Cluster, served: Artifacts, tenant: Tenant):
    namespace = tenant.name
    for number in range(ADDRESSES):
        tenant.put(f"n{number}", password=f"number {number}")
    lines = "".join(f"  p{number}: secret://vault/{namespace}/n{number}#password\n" for number in range(ADDRESSES))
    for number in range(OBJECTS):
        name = f"app-{number}"
        text = f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\nstringData:\n{lines}"
        served.publish("GitRepository", namespace, name, {"app.yaml": text})
    # 250 references.
    assert one_round(cluster, tenant, "1h").logins <= 1
    expected = {f"p{number}": f"{MARK}-number {number}" for number in range(ADDRESSES)}
    kustomization(cluster, namespace, "app-7", source=("ExternalArtifact", "app-7"), age="app-7-age")
    cluster.until_values(namespace, "app-7", expected)

    # A rotation, and all of them at once again.
    tenant.put("n3", password="rotated")
    time.sleep(SHARE_SECONDS)
    one_round(cluster, tenant, "30m")
    cluster.until_values(namespace, "app-7", expected | {"p3": f"{MARK}-rotated"})


def one_round(cluster: Cluster, tenant: Tenant, refresh: str) -> Stats:
    """What Vault was asked for all objects together."""
    tenant.vault.reset()
    begun = time.monotonic()
    for number in range(OBJECTS):
        name = f"app-{number}"
        secretweave(cluster, tenant.name, name, source=("GitRepository", name), refresh=refresh)
    for number in range(OBJECTS):
        cluster.until_ready("SecretWeave", tenant.name, f"app-{number}", seconds=180)
    seconds = time.monotonic() - begun
    stats = tenant.vault.stats()
    reads = sum(count for path, count in stats.paths.items() if path.startswith(f"GET /v1/{MOUNT}/data/"))
    print(f"{OBJECTS} objects Ready after {seconds:.1f} s; {reads} reads, {stats.logins} logins")
    # What was read serves others for five seconds; at a boundary several workers may read the same.
    assert reads <= ADDRESSES * (seconds / SHARE_SECONDS + 1) * 2
    return stats


# --- with Flux's own source-controller


@pytest.fixture
def sources(cluster: Cluster, tenant: Tenant, tmp_path: Path) -> Iterator[None]:
    """Looks after the tenant's namespace."""
    with source_controller(tmp_path, cluster, tenant.name):
        yield


@pytest.mark.usefixtures("running", "sources")
def test_from_a_git_repository_to_secrets(cluster: Cluster, tenant: Tenant, tmp_path: Path):
    namespace = tenant.name
    tenant.put("db", password="db")
    tenant.put("token", value="token")
    (tmp_path / "git").mkdir()
    with git(tmp_path / "git") as server:
        commit = server.commit("shop", manifests(namespace))
        spec = {"url": f"{server.url}/shop.git", "interval": "2s", "ref": {"branch": "main"}}
        cluster.apply("GitRepository", namespace, "shop", spec=spec)
        secretweave(cluster, namespace, "app", path="./deploy")
        kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="app-age")
        url = f"postgres://web:{MARK}-db@db/shop"
        cluster.until_values(namespace, "shop-app", {"password": f"{MARK}-db", "url": url})
        found = cluster.until_ready("SecretWeave", namespace, "app")
        assert found["status"]["lastSourceRevision"] == f"main@sha1:{commit}"
        # A rotation without a commit, and a commit without a rotation.
        tenant.put("db", password="rotated")
        url = f"postgres://web:{MARK}-rotated@db/shop"
        cluster.until_values(namespace, "shop-app", {"password": f"{MARK}-rotated", "url": url})
        commit = server.commit("shop", one_secret(namespace, name="moved") | {"deploy/kustomization.yaml": MOVED})
        cluster.until_values(namespace, "moved", {"password": f"{MARK}-rotated"})
        found = cluster.until_ready("SecretWeave", namespace, "app")
        assert found["status"]["lastSourceRevision"] == f"main@sha1:{commit}"


MOVED = "resources: [../app.yaml]\n"


@pytest.mark.usefixtures("running", "sources")
def test_from_a_bucket_to_secrets(cluster: Cluster, tenant: Tenant):
    namespace = tenant.name
    tenant.put("db", password="db")
    with moto.running() as server:
        keys = server.user("s3:*")
        server.enforce()
        s3 = server.client("s3", keys=keys)
        s3.create_bucket(Bucket="shop", CreateBucketConfiguration={"LocationConstraint": moto.REGION})
        cluster.apply("Secret", namespace, "s3", stringData={"accesskey": keys.id, "secretkey": keys.secret})
        spec = {
            "provider": "generic",
            "endpoint": server.url.removeprefix("http://"),
            "insecure": True,
            "region": moto.REGION,
            "bucketName": "shop",
            "prefix": "deploy/",
            "interval": "2s",
            "secretRef": {"name": "s3"},
        }
        put(s3, one_secret(namespace))
        cluster.apply("Bucket", namespace, "shop", spec=spec)
        secretweave(cluster, namespace, "app", source=("Bucket", "shop"), path="./deploy")
        kustomization(cluster, namespace, "app", source=("ExternalArtifact", "app"), age="app-age")
        cluster.until_values(namespace, "app", {"password": f"{MARK}-db"})
        # A rotation, and then an object that is another one.
        tenant.put("db", password="rotated")
        cluster.until_values(namespace, "app", {"password": f"{MARK}-rotated"})
        put(s3, one_secret(namespace, name="renamed"))
        cluster.until_values(namespace, "renamed", {"password": f"{MARK}-rotated"})
        cluster.until_values(namespace, "app", {})
        revision = cluster.get("Bucket", namespace, "shop")["status"]["artifact"]["revision"]
        cluster.until("SecretWeave", namespace, "app", lambda found: found["status"]["lastSourceRevision"] == revision)


def put(s3: Any, files: Mapping[str, str | bytes]) -> None:
    for name, text in files.items():
        s3.put_object(Bucket="shop", Key=f"deploy/{name}", Body=text)


@pytest.mark.usefixtures("sources")
def test_what_ci_pushes_is_applied(cluster: Cluster, tenant: Tenant, tmp_path: Path):
    """`secretweave flux push` -> OCIRepository -> Kustomization, without a controller of ours."""
    namespace = tenant.name
    tenant.put("db", password="db")
    tenant.put("token", value="token")
    identity = x25519.Identity.generate()
    cluster.apply("Secret", namespace, "mine", stringData={"age.agekey": f"{identity}\n"})
    for name, text in manifests(namespace).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(str(text))
    (tmp_path / "config.yaml").write_text(f"""\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: vault}}
spec:
  vault:
    url: {tenant.vault.address}
    path: {MOUNT}
    kvVersion: 2
    tls: {{caFile: {tenant.vault.ca}}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  sops: {{program: {need("sops")}, age: [{identity.to_public()}]}}
  flux: {{kustomize: {{program: {need("kustomize")}}}}}
""")
    with registry(tmp_path) as host:
        address = f"oci://{host}/shop/app:latest"
        command = [sys.executable, "-m", "secretweave", "flux", "push", address]
        done = subprocess.run(
            [*command, "--path", str(tmp_path / "deploy"), "--kustomize", "--unstable"],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "SECRETWEAVE_CONFIG": str(tmp_path / "config.yaml"),
                "VAULT_TOKEN": tenant.vault.token,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        spec = {"url": f"oci://{host}/shop/app", "interval": "2s", "insecure": True, "ref": {"tag": "latest"}}
        cluster.apply("OCIRepository", namespace, "shop", spec=spec)
        kustomization(cluster, namespace, "app", source=("OCIRepository", "shop"), age="mine")
        cluster.until_ready("OCIRepository", namespace, "shop")
        url = f"postgres://web:{MARK}-db@db/shop"
        cluster.until_values(namespace, "shop-app", {"password": f"{MARK}-db", "url": url})
        cluster.until_ready("Kustomization", namespace, "app")
    for path in (tmp_path / "registry").rglob("*"):
        assert path.is_dir() or MARK.encode() not in path.read_bytes()


# --- what nobody may see


def test_no_value_is_anywhere_but_in_the_secrets(cluster: Cluster, served: Artifacts, running: Weaver, tenant: Tenant):
    """Of all the tests above, too, whose objects, log and volume are still there."""
    one_app(cluster, served, tenant, retryInterval="1s")
    # With a fault that is about the value's own place.
    served.publish(
        "GitRepository",
        tenant.name,
        "shop",
        {
            "a.yaml": f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data: {{password: "secret://vault/{tenant.name}/db#password"}}
"""
        },
    )
    cluster.until_not_ready("SecretWeave", tenant.name, "app")
    encoded = base64.b64encode(MARK[: len(MARK) // 3 * 3].encode())
    hidden = (MARK.encode(), encoded, b"AGE-SECRET-KEY-1", b"hvs.", PASSWORD.encode())
    texts = {str(path): path.read_bytes() for path in (running.log, *running.files())}
    for path in running.files():
        if path.name.endswith(".tar.gz"):
            texts |= {f"{path}!": b"".join(_members(path).values())}
    texts["metrics"] = running.metrics().encode()
    for kind in ("SecretWeave", "ExternalArtifact", "Kustomization", "Event", "ConfigMap"):
        texts[kind] = json.dumps(cluster.list(kind, "")).encode()
    # They would be found: this is what the Secrets hold.
    assert encoded in json.dumps(cluster.list("Secret", "")).encode()
    assert len(texts) > 5
    assert any(b"ENC[AES256_GCM" in text for text in texts.values())
    for where, text in texts.items():
        for each in hidden:
            assert each not in text, f"{each!r} stands in {where}"
    # Nor in a temporary file that was left behind.
    left = [path for path in running.log.parent.rglob("*") if path.is_file() and running.volume not in path.parents]
    assert {path.name for path in left} <= {"controller.log", "controller.yaml", "kubeconfig"}


def _members(path: Path) -> dict[str, bytes]:
    import tarfile

    with tarfile.open(path) as tar:
        return {each.name: file.read() for each in tar if (file := tar.extractfile(each)) is not None}


def test_metrics_tell_of_it_without_names(running: Weaver):
    text = running.metrics()
    assert 'secretweave_reads_total{outcome="ok",store="vault"}' in text
    assert "secretweave_leader 1.0" in text
    assert "tenant-" not in text
