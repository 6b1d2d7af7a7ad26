"""A stand-in for Azure on loopback, over TLS: Key Vault's secrets, Entra ID's tokens, a managed identity endpoint.

    with Azure(certificate=pair) as azure:
        version = azure.put("db-password", "hunter2")
        azure.principals["client"] = "its secret"
        ...                                      # the store under test talks to azure.url
        assert azure.requests["GET /secrets/db-password/"] == 1

Written from the public references:

- Get Secret, and the attributes of a secret: https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret
  and https://learn.microsoft.com/azure/key-vault/secrets/about-secrets (an expired one is still given)
- Get Secret Versions: https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret-versions/get-secret-versions
  (25 on a page; a next link with the port), in the order of the ids, not of time
  (https://github.com/nagyesta/lowkey-vault/issues/428), and empty for a secret that is not there (what the vendor's own
  tests expect: "can list secret versions (non existing)" in azure-sdk-for-js, keyvault-secrets)
- error bodies: https://learn.microsoft.com/azure/key-vault/general/rest-error-codes
- the 401 challenge: https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses
- throttling: https://learn.microsoft.com/azure/key-vault/general/overview-throttling
- client credentials, with a secret or a federated token:
  https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
- its error codes: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
- managed identity (App Service, api-version 2019-08-01):
  https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference

One server plays all three: what Azure tells apart by host is told apart by path here. `Tunnel` is a proxy by which the
real host names lead to it.
"""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from tests.servers.certificates import Pair

TENANT = "5f2a7c1e-0b3d-4c55-9a7e-3f1d2c4b6a80"
RESOURCE = "https://vault.azure.net"
IDENTITY_HEADER = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"
PAGE = 25
FORBIDDEN = {
    "SecretDisabled": "Operation get is not allowed on a disabled secret.",
    "ForbiddenByRbac": "Caller is not authorized to perform action on resource.",
    "ForbiddenByPolicy": "The user, group or application does not have secrets get permission on key vault.",
    "ForbiddenByFirewall": "Client address is not authorized and caller is not a trusted service.",
    "ForbiddenByConnection": "Public network access is disabled and request is not from a private link.",
}


class Answer(NamedTuple):
    status: int
    body: Mapping[str, Any] | bytes = b""
    headers: Mapping[str, str] = {}


class Rule(NamedTuple):
    """An answer instead of the right one."""

    answer: Answer
    path: str = "^GET /secrets/"
    """A pattern of `METHOD /path`."""
    times: int = 1 << 30
    only_with_token: bool = False


class Version(NamedTuple):
    id: str
    value: str
    attributes: Mapping[str, Any]
    content_type: str | None
    managed: bool
    """It is of a certificate."""


class Azure:
    def __init__(self, certificate: Pair, *, resource: str = RESOURCE) -> None:
        self.secrets: dict[str, list[Version]] = {}
        self.principals: dict[str, str] = {}
        """Secrets by client id."""
        self.federated: dict[str, str] = {}
        """The token of another issuer that stands for a client id."""
        self.identities: set[str | None] = {None}
        """Client ids of the managed identities; None: the one that the system assigned."""
        self.forbidden: str | None = None
        """The inner error code of every read."""
        self.list_forbidden: str | None = None
        """The inner error code of every list of versions."""
        self.rules: list[Rule] = []
        self.delay = 0.0
        """Seconds before each answer."""
        self.expires_in = 3599
        self.requests: Counter[str] = Counter()
        """By `METHOD /path`, without the query."""
        self.connections = 0
        self.tokens: list[str] = []
        self.api_versions: set[str] = set()
        self._resource = resource
        self._lock = threading.Lock()
        self._server = _Server(self, certificate)
        self.port: int = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}"
        self.authority = f"localhost:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    def put(
        self,
        name: str,
        value: str,
        *,
        enabled: bool = True,
        exp: float | None = None,
        nbf: float | None = None,
        content_type: str | None = None,
        created: float | None = None,
        updated: float | None = None,
        managed: bool = False,
    ) -> str:
        """Adds a version, and gives its id. *created*: by default now; the vault keeps whole seconds."""
        at_first = int(time.time() if created is None else created)
        changed = at_first if updated is None else int(updated)
        attributes: dict[str, Any] = {"enabled": enabled, "created": at_first, "updated": changed}
        attributes |= {"recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90}
        attributes |= {key: int(at) for key, at in (("exp", exp), ("nbf", nbf)) if at is not None}
        version = Version(uuid.uuid4().hex, value, attributes, content_type, managed)
        self.secrets.setdefault(name, []).append(version)
        return version.id

    def change(self, name: str, version: str, *, enabled: bool) -> None:
        """Enables or disables a version, now."""
        changed = {"enabled": enabled, "updated": int(time.time())}
        versions = self.secrets[name]
        versions[:] = [
            each._replace(attributes={**each.attributes, **changed}) if each.id == version else each
            for each in versions
        ]

    def reads(self) -> int:
        """Requests for secrets, the one for the challenge included."""
        return sum(count for line, count in self.requests.items() if line.startswith("GET /secrets/"))

    def logins(self) -> int:
        """Tokens asked for, at Entra ID or of the managed identity."""
        return sum(
            count for line, count in self.requests.items() if line.endswith("/token") and not line.startswith("CONNECT")
        )

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        url = urlsplit(target)
        line = f"{method} {url.path}"
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        with self._lock:
            self.requests[line] += 1
            rule = next((each for each in self.rules if self._fits(each, line, headers)), None)
            if rule is not None:
                self.rules.remove(rule)
                if rule.times > 1:
                    self.rules.append(rule._replace(times=rule.times - 1))
        time.sleep(self.delay)
        if rule is not None:
            return rule.answer
        if (secret := re.fullmatch(r"GET /secrets/([^/]+)/versions", line)) is not None:
            return self._versions(secret[1], query, headers)
        if (secret := re.fullmatch(r"GET /secrets/([^/]+)/([^/]*)", line)) is not None:
            self.api_versions.add(query.get("api-version", ""))
            return self._secret(secret[1], secret[2], headers)
        if (tenant := re.fullmatch(r"GET /([^/]+)/v2.0/.well-known/openid-configuration", line)) is not None:
            return self._discovery(tenant[1], headers["host"])
        if (tenant := re.fullmatch(r"POST /([^/]+)/oauth2/v2.0/token", line)) is not None:
            form = {key: values[-1] for key, values in parse_qs(body.decode()).items()}
            return self._token(tenant[1], form)
        if line == "GET /msi/token":
            return self._managed_identity(query, headers)
        return Answer(404, b"<html>no such page</html>", {"Content-Type": "text/html"})

    def _fits(self, rule: Rule, line: str, headers: Mapping[str, str]) -> bool:
        return re.search(rule.path, line) is not None and (not rule.only_with_token or "authorization" in headers)

    def _challenge(self, headers: Mapping[str, str]) -> Answer | None:
        """What is answered to who has no token."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and token in self.tokens:
            return None
        what = "[BearerReadAccessTokenFailed] Error validating token" if token else "AKV10000: Request is missing a"
        challenge = f'Bearer authorization="https://login.windows.net/{TENANT}", resource="{self._resource}"'
        return _error(401, "Unauthorized", f"{what} Bearer or PoP token.", headers={"WWW-Authenticate": challenge})

    def _versions(self, name: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        challenge = self._challenge(headers)
        if challenge is not None:
            return challenge
        if self.list_forbidden:
            what = FORBIDDEN[self.list_forbidden].replace(" get ", " list ")
            return _error(403, "Forbidden", f"{what} Secret: {name}", self.list_forbidden)
        base = f"https://{headers['host']}/secrets/{name}"
        versions = sorted(self.secrets.get(name, []), key=lambda version: version.id)
        begin = int(query.get("$skiptoken", "0"))
        page = [_properties(each, base) for each in versions[begin : begin + PAGE]]
        host = headers["host"] if ":" in headers["host"] else f"{headers['host']}:443"
        more = f"https://{host}/secrets/{name}/versions?api-version={query['api-version']}&$skiptoken={begin + PAGE}"
        return Answer(200, {"value": page, "nextLink": more if begin + PAGE < len(versions) else None})

    def _secret(self, name: str, wanted: str, headers: Mapping[str, str]) -> Answer:
        challenge = self._challenge(headers)
        if challenge is not None:
            return challenge
        if self.forbidden:
            return _error(403, "Forbidden", f"{FORBIDDEN[self.forbidden]} Secret: {name}", self.forbidden)
        versions = self.secrets.get(name, [])
        version = next((each for each in reversed(versions) if wanted in {"", each.id}), None)
        if version is None:
            what = f"A secret with (name/id) {name}/{wanted} was not found in this key vault."
            return _error(404, "SecretNotFound", what)
        if not version.attributes["enabled"]:
            return _error(403, "Forbidden", FORBIDDEN["SecretDisabled"], "SecretDisabled")
        return Answer(200, {"value": version.value} | _properties(version, f"https://{headers['host']}/secrets/{name}"))

    def _discovery(self, tenant: str, host: str) -> Answer:
        if tenant != TENANT:
            return _refusal(400, "invalid_tenant", 90002, f"Tenant '{tenant}' not found.")
        base = f"https://{host}/{tenant}"
        endpoints = {name: f"{base}/oauth2/v2.0/{name.partition('_')[0]}" for name in ("token_endpoint",)}
        endpoints["authorization_endpoint"] = f"{base}/oauth2/v2.0/authorize"
        return Answer(200, endpoints | {"issuer": f"{base}/v2.0"})

    def _token(self, tenant: str, form: Mapping[str, str]) -> Answer:
        client = form.get("client_id", "")
        if tenant != TENANT:
            return _refusal(400, "invalid_tenant", 90002, f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials":
            return _refusal(400, "unsupported_grant_type", 70003, "The grant type is not supported.")
        if form.get("scope") != f"{self._resource}/.default":
            return _refusal(400, "invalid_scope", 70011, "The provided value for 'scope' is not valid.")
        if client not in self.principals and client not in self.federated:
            what = f"Application with identifier '{client}' was not found in the directory."
            return _refusal(400, "unauthorized_client", 700016, what)
        if "client_assertion" in form:
            kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            if form.get("client_assertion_type") != kind or form["client_assertion"] != self.federated.get(client):
                return _refusal(401, "invalid_client", 700213, "No matching federated identity record found.")
        elif form.get("client_secret") != self.principals.get(client):
            return _refusal(401, "invalid_client", 7000215, "Invalid client secret provided.")
        expiry = {"expires_in": self.expires_in, "ext_expires_in": self.expires_in}
        return Answer(200, {"token_type": "Bearer", "access_token": self._issue()} | expiry)

    def _managed_identity(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if headers.get("x-identity-header") != IDENTITY_HEADER:
            return Answer(401, {"statusCode": 401, "message": "Unauthorized"})
        if query.get("api-version") != "2019-08-01" or query.get("resource") != self._resource:
            return Answer(500, {"statusCode": 500, "message": "An unexpected error occured while fetching the token."})
        client = query.get("client_id")
        if client not in self.identities:
            return Answer(400, {"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found."})
        found = {"access_token": self._issue(), "expires_on": str(int(time.time()) + self.expires_in)}
        return Answer(200, found | {"resource": self._resource, "token_type": "Bearer", "client_id": client or ""})

    def _issue(self) -> str:
        token = f"token-{uuid.uuid4().hex}"
        self.tokens.append(token)
        return token


def _properties(version: Version, base: str) -> dict[str, Any]:
    """All of a version but its value."""
    more = {"contentType": version.content_type} if version.content_type else {}
    managed = {"managed": True} if version.managed else {}
    return {"id": f"{base}/{version.id}"} | more | managed | {"attributes": version.attributes, "tags": {}}


def _error(
    status: int, code: str, message: str, inner: str | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    error: dict[str, Any] = {"code": code, "message": message}
    return Answer(status, {"error": error | ({"innererror": {"code": inner}} if inner else {})}, headers or {})


def throttled(seconds: float | str) -> Answer:
    reason = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"
    return _error(429, "Throttled", reason, headers={"Retry-After": str(seconds)})


def _refusal(status: int, error: str, code: int, description: str) -> Answer:
    ids = {"trace_id": str(uuid.uuid4()), "correlation_id": str(uuid.uuid4()), "timestamp": "2026-01-01 00:00:00Z"}
    return Answer(
        status, {"error": error, "error_description": f"AADSTS{code}: {description}", "error_codes": [code]} | ids
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, azure: Azure, certificate: Pair) -> None:
        self.azure = azure
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        # The handshake is left to the thread of the connection.
        tls = certificate.server_context()
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.azure.connections += 1
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or that does not trust the certificate, is no fault of the server's."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.azure.answer(self.command, self.path, headers, body)
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        sent = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(content))}
        for name, value in (sent | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = _respond  # noqa: N815 - http.server calls it so
    do_POST = _respond  # noqa: N815 - http.server calls it so

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Says nothing."""


class Tunnel:
    """A proxy that leads every host to one address, and knows which ones were asked for."""

    def __init__(self, port: int) -> None:
        self.asked: Counter[str] = Counter()
        """By `host:port`."""
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.asked[head.split()[1].decode()] += 1
            server = socket.create_connection(self._to)
            self._open.append(server)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
            self._pump(client, server)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
