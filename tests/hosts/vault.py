"""A real Vault on loopback, and what a test prepares in it."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.hosts.programs import need
from tests.servers.certificates import Authority, Pair

READY_SECONDS_MAX = 30


class Stats(NamedTuple):
    """What the address was asked since the last reset; a test's preparations do not count."""

    requests: int
    logins: int
    connections: int
    """Opened, not open."""
    paths: dict[str, int]
    """By method and path: `GET /v1/secret/data/db`."""


class AppRole(NamedTuple):
    role_id: str
    secret_id: str


class VaultServer(NamedTuple):
    address: str
    """What a client under test is given."""
    control: str
    """The program's own; for preparations it serves Vault too, without TLS."""
    token: str
    """The root token."""
    authority: Authority | None
    """None: the address is plain HTTP."""
    client: Pair | None
    """The client certificate that it demands, if it does."""

    @property
    def ca(self) -> Path:
        assert self.authority is not None, "started without TLS"
        return self.authority.certificate

    def stats(self) -> Stats:
        return Stats(**self._call("GET", "/stats"))

    def reset(self) -> None:
        """Counts from zero."""
        self._call("POST", "/reset")

    def latency(self, milliseconds: int) -> None:
        """Each answer waits so long, several side by side."""
        self._call("POST", f"/latency?ms={milliseconds}")

    def answer(self, code: int, *, times: int | None = None) -> None:
        """Answers with this status (503: sealed) in Vault's place, always or so many *times*; 0 ends it."""
        self._call("POST", f"/answer?code={code}" + (f"&times={times}" if times else ""))

    def read(self, path: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/{path}")

    def write(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", f"/v1/{path}", fields)

    def delete(self, path: str) -> None:
        self._call("DELETE", f"/v1/{path}")

    def mount(self, path: str, kind: str = "kv", **options: str) -> None:
        """A secrets engine, ready to be used: `mount("secret", version="2")`."""
        self.write(f"sys/mounts/{path}", {"type": kind, "options": options})
        deadline = time.monotonic() + READY_SECONDS_MAX
        while options.get("version") == "2":
            try:
                self.read(f"{path}/config")
            except urllib.error.HTTPError:
                # A fresh KV 2 refuses everything until its "upgrade" is through.
                assert time.monotonic() < deadline, f"{path} does not come up"
                time.sleep(0.02)
            else:
                return

    def enable_auth(self, path: str, kind: str | None = None) -> None:
        """An auth method, by default the one of the path's name: `enable_auth("approle")`."""
        self.write(f"sys/auth/{path}", {"type": kind or path})

    def policy(self, name: str, hcl: str) -> None:
        self.write(f"sys/policies/acl/{name}", {"policy": hcl})

    def put(self, mount: str, path: str, fields: Mapping[str, Any]) -> str:
        """Writes to a KV 2 engine; gives the version that it became."""
        return str(self.write(f"{mount}/data/{path}", {"data": fields})["data"]["version"])

    def create_token(self, policies: Sequence[str], *, num_uses: int = 0, ttl: str = "1h") -> str:
        """*num_uses* 0: as often as one likes."""
        wanted = {"policies": policies, "num_uses": num_uses, "ttl": ttl, "explicit_max_ttl": ttl}
        token: str = self.write("auth/token/create", wanted)["auth"]["client_token"]
        return token

    def create_approle(self, name: str, policies: Sequence[str], *, path: str = "approle", **options: Any) -> AppRole:
        """A role of the enabled method at *path*; *options* are the role's: `token_num_uses=3`."""
        role = f"auth/{path}/role/{name}"
        self.write(role, {"token_policies": policies, **options})
        role_id = self.read(f"{role}/role-id")["data"]["role_id"]
        return AppRole(role_id, self.write(f"{role}/secret-id", {})["data"]["secret_id"])

    def _call(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(self.control + path, data, {"X-Vault-Token": self.token}, method=method)
        with urllib.request.urlopen(request, timeout=READY_SECONDS_MAX) as answer:
            text = answer.read()
        found: dict[str, Any] = json.loads(text) if text else {}
        return found


@contextmanager
def undisturbed(server: VaultServer) -> Iterator[VaultServer]:
    """A shared Vault for one test: it counts from zero, and is itself again afterwards."""
    server.reset()
    yield server
    server.latency(0)
    server.answer(0)


@contextmanager
def vault(folder: Path, *, tls: bool = True, client_ca: bool = False) -> Iterator[VaultServer]:
    """A Vault with nothing in it. *folder* takes its certificates; *client_ca*: it demands one of its clients too."""
    command = [str(need("vault"))]
    authority = Authority(folder) if tls or client_ca else None
    client = None
    if authority:
        pair = authority.issue("vault")
        command += ["-cert", str(pair.certificate), "-key", str(pair.key)]
        if client_ca:
            client = authority.issue("client")
            command += ["-client-ca", str(authority.certificate)]
    log = folder / "vault.log"
    # In a session of its own an interrupt of the tests does not reach it before its turn; it ends with its stdin.
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            if not ready:
                raise RuntimeError(f"the Vault did not come up:\n{log.read_text()[-3000:]}")
            yield VaultServer(**json.loads(ready), authority=authority, client=client)
        finally:
            process.terminate()
