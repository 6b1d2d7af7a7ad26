"""A real Kubernetes API server with etcd on loopback: no controllers, no nodes, one admin."""

import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.programs import need
from tests.servers.certificates import Authority

READY_SECONDS_MAX = 120
UNCOLLECTED = {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
"""Without the collection of garbage a third of the CPU of its start is saved; its life is short."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def service_account_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own: an interrupt of the tests does not reach it before its turn; yet it ends with them."""
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig=KILL", *command]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            env=os.environ | UNCOLLECTED,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """The API server would wait for its etcd and its requests: nothing of it is kept, so it is ended at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    trust_all = ssl.create_default_context()
    trust_all.check_hostname, trust_all.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/readyz", context=trust_all, timeout=2):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise RuntimeError(f"the API server did not come up:\n{log.read_text()[-3000:]}")


def kubeconfig(path: Path, address: str, token: str) -> None:
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: "{address}", insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
current-context: test
"""
    )
    path.chmod(0o600)


@contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """The kubeconfig of a cluster that lives in *folder*.

    Beside it lie apiserver.crt, which vouches for the server, and client.pem and client.key of the user `client`.
    """
    token = secrets.token_hex(16)
    client, peer, secure = free_ports(3)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    service_account_key(folder / "service-account.pem")
    authority = Authority(folder)
    authority.issue("client")
    etcd = start(
        [
            str(need("etcd")),
            f"--data-dir={folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        ],
        folder / "etcd.log",
    )
    server = start(
        [
            str(need("kube-apiserver")),
            f"--etcd-servers=http://127.0.0.1:{client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={folder}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            f"--client-ca-file={authority.certificate}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'service-account.pem'}",
            f"--service-account-signing-key-file={folder / 'service-account.pem'}",
            # No controller makes the default service accounts.
            "--disable-admission-plugins=ServiceAccount",
        ],
        folder / "kube-apiserver.log",
    )
    try:
        address = f"https://127.0.0.1:{secure}"
        wait_until_ready(address, server, folder / "kube-apiserver.log")
        kubeconfig(folder / "kubeconfig", address, token)
        yield folder / "kubeconfig"
    finally:
        stop(server)
        stop(etcd)
