"""Stand-ins on loopback for Google Cloud: Secret Manager, the login servers, and the metadata server.

Written from the vendor's public reference:

    access            https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
    metadata          https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/get
    numbers as enums  https://cloud.google.com/apis/docs/system-parameters ($alt=json;enum-encoding=int)
    regional secrets  https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.locations.secrets.versions
    versions, states  https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions#State
    aliases           https://cloud.google.com/secret-manager/docs/assign-alias-to-secret-version
    CRC32C            https://cloud.google.com/secret-manager/docs/data-integrity
    quotas            https://cloud.google.com/secret-manager/quotas
    errors            https://cloud.google.com/apis/design/errors (google.rpc.Status, ErrorInfo)
    OAuth tokens      https://developers.google.com/identity/protocols/oauth2/web-server#offline (refresh_token)
    self-signed JWTs  https://google.aip.dev/auth/4111
    token exchange    https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token (RFC 8693)
    impersonation     https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts
    metadata server   https://cloud.google.com/compute/docs/metadata/querying-metadata

A client reads; a test writes, through the methods of `Google`. Every request and login is kept.
"""

import base64
import datetime as dt
import json
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers.certificates import Pair

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
STATES = ("STATE_UNSPECIFIED", "ENABLED", "DISABLED", "DESTROYED")
"""By their numbers."""
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


class Request(NamedTuple):
    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def is_access(self) -> bool:
        """For a value; else it is for metadata."""
        return urlsplit(self.path).path.endswith(":access")


class Failure(Exception):
    """An error as Google's APIs tell it."""

    def __init__(
        self, code: int, status: str, message: str, reason: str = "", *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        error: dict[str, Any] = {"code": code, "message": message, "status": status}
        if reason:
            error["details"] = [
                {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
                {"@type": ERROR_INFO, "reason": reason, "domain": "googleapis.com", "metadata": {}},
            ]
        self.code = code
        self.body: dict[str, Any] = {"error": error}
        self.headers = dict(headers or {})


class OAuthFailure(Exception):
    """An error as RFC 6749 tells it."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.code = 401 if error == "invalid_client" else 400
        self.body = {"error": error, "error_description": description}
        self.headers: dict[str, str] = {}


class Version:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.state = "ENABLED"
        self.crc32c = google_crc32c.value(data)
        self.created = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Secret:
    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.aliases: dict[str, int] = {}
        self.readers: set[str] | None = None
        """The identities that may read it; None: all."""
        self.viewers: set[str] | None = None
        """The identities that may look at the metadata of its versions; None: all."""


class Account(NamedTuple):
    """A service account with a key."""

    email: str
    key: rsa.RSAPrivateKey

    def key_file(self, token_uri: str) -> dict[str, str]:
        """The JSON that the console gives out."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "other-project",
            "private_key_id": "0123456789abcdef",
            "private_key": pem.decode(),
            "client_email": self.email,
            "client_id": "100000000000000000001",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }


class Google:
    """Projects with secrets, identities with tokens, and the servers of both, from `__enter__` to `__exit__`."""

    POOL: ClassVar[str] = (
        "//iam.googleapis.com/projects/424242/locations/global/workloadIdentityPools/pool/providers/ci"
    )

    def __init__(self, pair: Pair, projects: Mapping[str, str]) -> None:
        """*projects*: their numbers by their ids."""
        self.numbers = dict(projects)
        self.secrets: dict[tuple[str, str | None, str], Secret] = {}
        """By the project's number, the location and the id."""
        self.requests: list[Request] = []
        """To the API."""
        self.logins: list[Request] = []
        """To all that give tokens."""
        self.tokens: dict[str, str] = {}
        """Of those in force: whose each is."""
        self.keys: dict[str, rsa.RSAPublicKey] = {}
        self.subject_tokens: dict[str, str] = {}
        """What the workload identity pool trusts, and whose it is."""
        self.refresh_tokens: dict[str, str] = {}
        self.disabled: str = ""
        """The reason that each 403 of the whole project has, such as SERVICE_DISABLED."""
        self.quota: int | None = None
        """So many accesses are answered, those after them with 429."""
        self.metadata_quota: int | None = None
        """So many requests for metadata are answered, those after them with 429."""
        self.damages = 0
        """So many of the next payloads are damaged on their way."""
        self.failures: list[Failure] = []
        """What the next accesses are answered with."""
        self.login_failures: list[Failure | OAuthFailure] = []
        self.lifetime = 3600
        """Of each token, in seconds."""
        self.metadata_identity: str | None = None
        """The service account of the machine; None: it has none."""
        self.latency = 0.0
        self.login_latency = 0.0
        self.api = _Server(self, _api, pair.server_context())
        self.login = _Server(self, _login, pair.server_context())
        self.metadata = _Server(self, _metadata, None)
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        for server in (self.api, self.login, self.metadata):
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.api, self.login, self.metadata):
            server.stop()

    def add(self, project: str, secret: str, data: bytes, *, location: str | None = None) -> str:
        """A new version of a secret; its number."""
        found = self.secrets.setdefault((self.numbers[project], location, secret), Secret())
        found.versions.append(Version(data))
        return str(len(found.versions))

    def secret(self, project: str, secret: str, location: str | None = None) -> Secret:
        return self.secrets[self.numbers[project], location, secret]

    def account(self, email: str, key: rsa.RSAPrivateKey) -> Account:
        self.keys[email] = key.public_key()
        return Account(email, key)

    def token(self, email: str) -> str:
        with self.lock:
            token = f"ya29.{email}.{len(self.tokens)}"
            self.tokens[token] = email
        return token

    def user_file(self, email: str) -> dict[str, str]:
        """What `gcloud auth application-default login` writes."""
        self.refresh_tokens["1//refresh"] = email
        return {
            "type": "authorized_user",
            "client_id": "764086051850.apps.googleusercontent.com",
            "client_secret": "not-a-secret",
            "refresh_token": "1//refresh",
        }

    def federation_file(self, subject: Path, impersonated: str = "") -> dict[str, Any]:
        """What `gcloud iam workload-identity-pools create-cred-config` writes for a token in a file."""
        path = f"{self.login.url}/v1/projects/-/serviceAccounts/{impersonated}:generateAccessToken"
        return {
            "type": "external_account",
            "audience": self.POOL,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.login.url}/v1/token",
            "credential_source": {"file": str(subject)},
            **({"service_account_impersonation_url": path} if impersonated else {}),
        }


def _api(google: Google, request: Request) -> dict[str, Any]:
    with google.lock:
        google.requests.append(request)
        failure = google.failures.pop(0) if google.failures else None
        quota = google.quota if request.is_access else google.metadata_quota
        over = quota is not None and sum(each.is_access == request.is_access for each in google.requests) > quota
    time.sleep(google.latency)
    if failure:
        raise failure
    identity = _identity(google, request.headers.get("authorization", ""))
    path = unquote(urlsplit(request.path).path)
    parts = path.removeprefix("/v1/").removesuffix(":access").split("/")
    if request.method != "GET" or ":" in parts[-1] or len(parts) not in {6, 8}:
        raise Failure(404, "NOT_FOUND", "Method not found.")
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    if over:
        kind = "Access" if request.is_access else "Read"
        message = f"Quota exceeded for quota metric '{kind} requests' and limit '{kind} requests per minute'"
        raise Failure(429, "RESOURCE_EXHAUSTED", message, "RATE_LIMIT_EXCEEDED")
    if google.disabled:
        raise Failure(403, "PERMISSION_DENIED", f"refused for {google.disabled}", google.disabled)
    if request.is_access:
        return _access(google, named, identity)
    alternative = parse_qs(urlsplit(request.path).query).get("$alt", ["json"])[0]
    return _metadata_of(google, named, identity, numbers="enum-encoding=int" in alternative)


def _metadata_of(google: Google, named: Mapping[str, str], identity: str, *, numbers: bool) -> dict[str, Any]:
    """A SecretVersion, in whatever state it is; its state in *numbers*, where that is asked for."""
    name, version = _version(google, named, identity, "get")
    return {
        "name": name,
        "createTime": version.created,
        **({"destroyTime": version.created} if version.state == "DESTROYED" else {}),
        "state": STATES.index(version.state) if numbers else version.state,
        **({} if "locations" in named else {"replicationStatus": {"automatic": {}}}),
        "etag": '"16214548671110"',
        "clientSpecifiedPayloadChecksum": True,
    }


def _version(google: Google, named: Mapping[str, str], identity: str, right: str) -> tuple[str, Version]:
    """The full name of the version that is meant, with its number, for who has the *right*: `access` or `get`."""
    project, location = named["projects"], named.get("locations")
    number = project if project in google.numbers.values() else google.numbers.get(project)
    denied = Failure(
        403,
        "PERMISSION_DENIED",
        f"Permission 'secretmanager.versions.{right}' denied for resource 'projects/{project}/secrets/"
        f"{named['secrets']}/versions/{named['versions']}' (or it may not exist).",
        "IAM_PERMISSION_DENIED",
    )
    if number is None:
        raise denied
    name = f"projects/{number}{f'/locations/{location}' if location else ''}/secrets/{named['secrets']}"
    secret = google.secrets.get((number, location, named["secrets"]))
    if secret is None or not secret.versions:
        raise Failure(404, "NOT_FOUND", f"Secret [{name}] not found or has no versions.")
    allowed = secret.readers if right == "access" else secret.viewers
    if allowed is not None and identity not in allowed:
        raise denied
    asked = named["versions"]
    index = len(secret.versions) if asked == "latest" else secret.aliases.get(asked)
    if index is None and asked.isdigit():
        index = int(asked)
    if index is None or not 1 <= index <= len(secret.versions):
        raise Failure(404, "NOT_FOUND", f"Secret Version [{name}/versions/{asked}] not found.")
    return f"{name}/versions/{index}", secret.versions[index - 1]


def _access(google: Google, named: Mapping[str, str], identity: str) -> dict[str, Any]:
    name, version = _version(google, named, identity, "access")
    if version.state != "ENABLED":
        message = f"Secret Version [{name}] is in {version.state} state."
        raise Failure(400, "FAILED_PRECONDITION", message)
    with google.lock:
        damaged, google.damages = google.damages > 0, max(google.damages - 1, 0)
    data = version.data[:-1] if damaged else version.data
    payload = {"data": base64.b64encode(data).decode(), "dataCrc32c": str(version.crc32c)}
    return {"name": name, "payload": payload}


def _identity(google: Google, header: str) -> str:
    """Whose token it is: one that was given out, or one that a service account has signed."""
    kind, _, token = header.partition(" ")
    refused = "Request had invalid authentication credentials. Expected OAuth 2 access token."
    if kind != "Bearer":
        message = "Request is missing required authentication credential."
        raise Failure(401, "UNAUTHENTICATED", message, "CREDENTIALS_MISSING")
    if token in google.tokens:
        return google.tokens[token]
    try:
        signed, _, signature = token.rpartition(".")
        head, claims = (json.loads(_unpadded(part)) for part in signed.split("."))
        key = google.keys[claims["iss"]]
        key.verify(_unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, LookupError, InvalidSignature):
        raise Failure(401, "UNAUTHENTICATED", refused, "ACCESS_TOKEN_TYPE_UNSUPPORTED") from None
    now = time.time()
    if head["alg"] != "RS256" or claims["scope"] != SCOPE or not claims["iat"] - 60 <= now < claims["exp"]:
        raise Failure(401, "UNAUTHENTICATED", refused, "ACCESS_TOKEN_EXPIRED")
    return str(claims["sub"])


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _login(google: Google, request: Request) -> dict[str, Any]:
    with google.lock:
        google.logins.append(request)
        failure = google.login_failures.pop(0) if google.login_failures else None
    time.sleep(google.login_latency)
    if failure:
        raise failure
    if request.path.endswith(":generateAccessToken"):
        if google.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer ")) is None:
            raise Failure(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        email = unquote(request.path).rpartition("/")[2].partition(":")[0]
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=google.lifetime)
        return {"accessToken": google.token(email), "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    if request.path == "/token" and form.get("grant_type") == "refresh_token":
        email = google.refresh_tokens.get(form.get("refresh_token", ""), "")
        if not email:
            raise OAuthFailure("invalid_grant", "Token has been expired or revoked.")
    elif request.path == "/v1/token" and form.get("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange":
        if form.get("audience") != google.POOL:
            raise OAuthFailure("invalid_target", "The target service indicated by the audience parameter is invalid.")
        email = google.subject_tokens.get(form.get("subject_token", ""), "")
        if not email:
            raise OAuthFailure("invalid_grant", "The given credential is rejected by the attribute condition.")
        if form.get("scope") not in {SCOPE, "https://www.googleapis.com/auth/iam"}:
            raise OAuthFailure("invalid_request", "The scope is not valid.")
    else:
        raise OAuthFailure("unsupported_grant_type", "Invalid grant_type")
    issued = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    return {"access_token": google.token(email), "expires_in": google.lifetime, "token_type": "Bearer", **issued}


def _metadata(google: Google, request: Request) -> dict[str, Any]:
    path = urlsplit(request.path).path
    if request.headers.get("metadata-flavor") != "Google":
        raise Failure(403, "PERMISSION_DENIED", "Missing Metadata-Flavor:Google header.")
    account = "/computeMetadata/v1/instance/service-accounts/default"
    if path in {"", "/"}:
        return {}
    if path not in {f"{account}/", f"{account}/token"} or google.metadata_identity is None:
        raise Failure(404, "NOT_FOUND", "The requested service account is not defined")
    if path == f"{account}/":
        return {"aliases": ["default"], "email": google.metadata_identity, "scopes": [SCOPE]}
    with google.lock:
        google.logins.append(request)
    return {
        "access_token": google.token(google.metadata_identity),
        "expires_in": google.lifetime,
        "token_type": "Bearer",
    }


class _Server:
    """HTTP/1.1 with kept connections, each in a thread of its own."""

    def __init__(self, google: Google, answer: Any, tls: ssl.SSLContext | None) -> None:
        self.connections = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    code, told, more = 200, answer(google, Request(self.command, self.path, headers, body)), {}
                except (Failure, OAuthFailure) as failure:
                    code, told, more = failure.code, failure.body, failure.headers
                data = json.dumps(told).encode()
                self.send_response(code)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(data)))
                if tls is None:
                    self.send_header("Metadata-Flavor", "Google")
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def finish_request(self, request: Any, client_address: Any) -> None:
                if tls is not None:
                    request = tls.wrap_socket(request, server_side=True)
                try:
                    super().finish_request(request, client_address)
                finally:
                    request.close()

            def handle_error(self, *_: object) -> None:
                """A client that does not trust the certificate goes away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
