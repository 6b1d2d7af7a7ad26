"""The daemon in front of a real Vault: logins, reads, tenants, an outage, and the end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from secretweave.argocd.app import App
from secretweave.errors import SecretweaveError
from tests.hosts.vault import VaultServer, undisturbed
from tests.servers.daemon import Daemon, daemon

MOUNT, LOGIN = "tenants", "tenants-userpass"
PASSWORD = "correct horse"
REVOKED = "POST /v1/auth/token/revoke-self"


@pytest.fixture(scope="session")
def filled(vault: VaultServer) -> VaultServer:
    """The shared Vault with two tenants: each may log in by its project's name, and read its own folder."""
    vault.mount(MOUNT, version="2")
    vault.enable_auth(LOGIN, "userpass")
    for project in ("a", "b"):
        vault.policy(f"tenant-{project}", f'path "{MOUNT}/data/{project}/*" {{ capabilities = ["read"] }}')
        vault.write(f"auth/{LOGIN}/users/{project}", {"password": PASSWORD, "token_policies": f"tenant-{project}"})
        for name in ("db", "cache", "queue"):
            vault.put(MOUNT, f"{project}/{name}", {"value": f"{name} of {project}"})
    return vault


@pytest.fixture
def server(filled: VaultServer) -> Iterator[VaultServer]:
    with undisturbed(filled) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, server: VaultServer) -> Path:
    (tmp_path / "config.yaml").write_text(f"""\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: vault}}
spec:
  vault:
    url: {server.address}
    path: {MOUNT}
    kvVersion: 2
    auth: {{userPass: {{path: {LOGIN}, username: "{{project}}", passwordSecretRef: {{name: vault, key: password}}}}}}
    tls: {{caFile: {server.ca}}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  credentials: {{from: environment}}
""")
    return tmp_path / "config.yaml"


@pytest.fixture
def running(tmp_path: Path, config: Path) -> Iterator[Daemon]:
    with daemon(tmp_path, config, {"SECRETWEAVE_CREDENTIAL_VAULT_PASSWORD": PASSWORD}) as found:
        yield found


def stream(project: str, *names: str) -> bytes:
    lines = "".join(f"  {name}: secret://vault/{project}/{name}#value\n" for name in names)
    return f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: web\nstringData:\n{lines}".encode()


def woven(running: Daemon, text: bytes, project: str = "a") -> str:
    out, found = BytesIO(), running.client()
    found.begin(App("web", project, "default", "", "", ()))
    found.weave([("stdin", BytesIO(text))], out, pytest.fail)
    return out.getvalue().decode()


def test_fifty_apps_at_once_are_one_login_and_one_read_of_each_secret(server: VaultServer, running: Daemon):
    server.latency(700)
    with ThreadPoolExecutor(50) as pool:
        found = set(pool.map(lambda _: woven(running, stream("a", "db", "cache", "queue")), range(50)))
    (text,) = found
    assert "db of a" in text
    stats = server.stats()
    assert stats.logins == 1
    reads = [stats.paths[f"GET /v1/{MOUNT}/data/a/{name}"] for name in ("db", "cache", "queue")]
    # 16 are served at a time: 50 are four waves, and each of them reads a secret once.
    assert all(count <= 5 for count in reads), reads
    assert len(running.events("read")) == 150


def test_two_projects_have_two_logins_and_not_each_other_s_secrets(server: VaultServer, running: Daemon):
    for project in ("a", "b", "a", "b"):
        assert f"db of {project}" in woven(running, stream(project, "db"), project)
    assert server.stats().logins == 2
    for mine, other in (("a", "b"), ("b", "a")):
        done = running.ask(stream(other, "db"), mine)
        assert (done.returncode, done.stdout) == (6, b"")
        assert f"no policy of the user {mine} at auth/{LOGIN} allows it".encode() in done.stderr
    denied = [(line["project"], line["ref"]) for line in running.events("read") if line["outcome"] == "denied"]
    assert denied == [("a", "b/db"), ("b", "a/db")]
    assert server.stats().logins == 2


def test_an_outage_ends_requests_and_not_the_daemon(server: VaultServer, running: Daemon):
    assert woven(running, stream("a", "db"))
    server.answer(503)
    first = running.ask(stream("a", "db"), "a")
    assert (first.returncode, first.stdout) == (6, b"")
    begun = time.monotonic()
    second = running.ask(stream("a", "db"), "a")
    assert b"so since " in second.stderr
    assert time.monotonic() - begun < 2
    server.answer(0)
    while True:
        try:
            assert "db of a" in woven(running, stream("a", "db"))
            break
        except SecretweaveError:
            assert time.monotonic() < begun + 15
            time.sleep(0.1)
    assert running.process.poll() is None
    assert server.stats().logins == 1


def test_the_end_revokes_the_tokens(server: VaultServer, running: Daemon):
    for project in ("a", "b"):
        woven(running, stream(project, "db"), project)
    assert REVOKED not in server.stats().paths
    assert running.end(signal.SIGTERM) == 0
    assert server.stats().paths[REVOKED] == 2


def test_a_changed_configuration_logs_in_anew(server: VaultServer, config: Path, running: Daemon):
    woven(running, stream("a", "db"))
    config.write_text(config.read_text() + "  limits: {request: 14s}\n")
    woven(running, stream("a", "db"))
    stats = server.stats()
    assert stats.logins == 2
    assert stats.paths[REVOKED] == 1


def test_the_bytes_are_those_of_a_run_without_it(server: VaultServer, config: Path, running: Daemon):
    plain = config.read_text().replace("{project}", "a")
    (config.parent / "alone.yaml").write_text(plain)
    environ = {"PATH": os.environ["PATH"], "SECRETWEAVE_CREDENTIAL_VAULT_PASSWORD": PASSWORD}
    for text in (stream("a", "db", "cache"), stream("a", "db", "nowhere"), stream("b", "db")):
        alone = subprocess.run(
            [sys.executable, "-m", "secretweave", "render", "--namespace=default", "--identity=a"],
            input=text,
            capture_output=True,
            check=False,
            env=environ | {"SECRETWEAVE_CONFIG": str(config.parent / "alone.yaml")},
            timeout=60,
        )
        found = running.ask(text, "a")
        assert (found.returncode, found.stdout, found.stderr) == (alone.returncode, alone.stdout, alone.stderr)
        assert bool(alone.stdout) == (alone.returncode == 0)


def test_no_value_and_no_credential_is_in_the_log(server: VaultServer, running: Daemon):
    woven(running, stream("a", "db"))
    running.ask(stream("b", "db"), "a")
    log = running.log.read_text()
    assert "db of a" not in log
    assert PASSWORD not in log
    assert "hvs." not in log
