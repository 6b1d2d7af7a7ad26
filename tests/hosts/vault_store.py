"""How the tests of the store `vault` open it, and a server that plays a script where a real Vault is too good."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from secretweave.errors import StoreError
from secretweave.model import StoreConfig
from secretweave.sdk.vault_connection import Tls
from secretweave.sdk.vault_login import AppRole, Auth
from secretweave.stores import open_store
from secretweave.stores.base import BatchStore, SecretKeyRef, Store, Wanted
from secretweave.stores.vault import Settings
from tests.hosts.vault import VaultServer
from tests.servers.certificates import Pair
from tests.stores.contract import context, plain

SECRET_REF = SecretKeyRef("vault", "credential")


def open_it(
    server: VaultServer,
    wanted: Settings | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    credential: str = "",
    warn: Callable[[str], None] = pytest.fail,
    seconds: float = 30,
) -> Store:
    """The store at a server, asked with the root token unless *wanted* or *environ* say otherwise."""
    wanted = wanted or Settings()
    if wanted.url is None:
        wanted = wanted._replace(url=server.address)
    if server.authority and wanted.tls == Tls():
        wanted = wanted._replace(tls=Tls(ca_file=str(server.ca)))
    given = {"VAULT_TOKEN": server.token} if environ is None else environ
    config = StoreConfig("shop", None, "vault", wanted, default=False)
    credentials = {SECRET_REF: credential} if credential else {}
    return open_store(config, context(config, given, warn=warn, credentials=credentials, seconds=seconds))


def as_batching(store: Store) -> BatchStore:
    assert hasattr(store, "batches")
    return store  # type: ignore[return-value]  # it has the methods, as was just seen


def told(error: StoreError) -> str:
    return f"{error.what} | {error.why} | {error.fix}"


def fetch_all(store: Store, refs: list[str]) -> list[Any]:
    """As the core does: batches first, then as many at a time as the store likes."""
    batches = as_batching(store).batches([Wanted(ref, None) for ref in refs])
    with ThreadPoolExecutor(store.concurrency) as pool:
        return list(pool.map(lambda batch: plain(store.fetch(*batch[0])), batches))


def app_role(server: VaultServer, name: str, **options: Any) -> tuple[Auth, str]:
    """The auth setting of a role of its own, and its secret ID."""
    role = server.create_approle(name, ["shop"], path="shop-approle", **options)
    return Auth(app_role=AppRole("shop-approle", role.role_id, secret_id_secret_ref=SECRET_REF)), role.secret_id


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]


Said = tuple[int, dict[str, str], bytes]
"""A status, headers and a body."""
Script = Callable[[Asked], Said | None]
"""What a scripted server says; None: it breaks the connection off."""


class Scripted(NamedTuple):
    address: str
    asked: list[Asked]


@contextmanager
def scripted(script: Script, pair: Pair | None = None) -> Iterator[Scripted]:
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(Asked(self.command, self.path, dict(self.headers)))
            said = script(asked[-1])
            if said is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, headers, body = said
            self.send_response(status)
            for name, value in (
                {"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = "Content-Length" in headers

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *arguments: Any) -> None:
            """Nothing on the tests' stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if pair:
            server.socket = pair.server_context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield Scripted(f"http{'s' if pair else ''}://127.0.0.1:{server.server_port}", asked)
        server.shutdown()


def say(status: int = 200, headers: Mapping[str, str] | None = None, **body: Any) -> Said:
    return status, dict(headers or {}), json.dumps(body).encode()


KV_2_ANSWER: dict[str, Any] = {"data": {"data": {"value": "x"}, "metadata": {"version": 1}}}


def open_at(url: str, wanted: Settings | None = None, environ: Mapping[str, str] | None = None, **more: Any) -> Store:
    nowhere = VaultServer(url, "", "hvs.hunter2", None, None)
    return open_it(nowhere, wanted or Settings(kv_version=2), environ, **more)


def leasing(uses: int = 0, lease: str = "database/creds/web/1", seconds: int = 3600) -> Script:
    """A Vault with a database engine. *uses*, *seconds*: of its tokens."""

    def script(asked: Asked) -> Said:
        if asked.path.endswith("/login"):
            token = {"client_token": "hvs.own", "token_type": "service"}
            return say(auth=token | {"lease_duration": seconds, "num_uses": uses})
        if "internal/ui/mounts/database" in asked.path:
            return say(data={"path": "database/", "type": "database", "options": None})
        if "internal/ui/mounts/shop" in asked.path:
            return say(data={"path": "shop/", "type": "kv", "options": {"version": "2"}})
        if asked.path.startswith("/v1/database"):
            return say(lease_id=lease, lease_duration=600, data={"username": "v-web", "password": "p"})
        return say(204) if asked.method == "POST" else say(**KV_2_ANSWER)

    return script


APP_ROLE = Settings(auth=Auth(app_role=AppRole(role_id="59d6d1ca")))


def paths(server: Scripted) -> list[str]:
    """What it was asked, look-ups of mounts left out."""
    return [asked.path.removeprefix("/v1/") for asked in server.asked if "internal/ui" not in asked.path]
