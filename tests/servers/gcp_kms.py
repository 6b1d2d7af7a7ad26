"""A stand-in on loopback for Google Cloud KMS, over gRPC and over REST, both with TLS.

    with GoogleKms(certificate=pair) as kms:
        key = kms.key("projects/p/locations/global/keyRings/r/cryptoKeys/k", encrypters=["ci@example.com"])
        with Tunnel(kms.grpc_port) as tunnel:    # by which cloudkms.googleapis.com leads to it
            ...
        assert kms.calls == [("encrypt", key, "ci@example.com")]

It encrypts with AES-256-GCM and tells its callers by their tokens, as the vendor's public reference has it:

- encrypt and decrypt: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/encrypt
- the messages: https://cloud.google.com/kms/docs/reference/rpc/google.cloud.kms.v1 (of CRC32C SOPS sends none)
- permissions, and that Encrypt and Decrypt are two: https://cloud.google.com/kms/docs/reference/permissions-and-roles
- errors: https://cloud.google.com/apis/design/errors
- self-signed JWTs of service accounts: https://google.aip.dev/auth/4111
- and what they are given for them: https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests
"""

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, NoReturn, Self
from urllib.parse import parse_qsl

import grpc  # type: ignore[import-untyped]  # it has no types
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf import (  # type: ignore[import-untyped]  # it has no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from tests.servers.certificates import Pair
from tests.servers.gcp import SCOPE, Account

HOST = "cloudkms.googleapis.com"
LOGIN = "oauth2.googleapis.com"
SERVICE = "google.cloud.kms.v1.KeyManagementService"
NONCE = 12
CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
"""The HTTP status of each of google.rpc's."""
MESSAGES = {
    "EncryptRequest": {"name": 1, "plaintext": 2},
    "EncryptResponse": {"name": 1, "ciphertext": 2},
    "DecryptRequest": {"name": 1, "ciphertext": 2},
    "DecryptResponse": {"plaintext": 1},
}
"""The fields that are used here, and their numbers; `name` is text, the others are bytes."""


class Failure(Exception):
    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Key(NamedTuple):
    cipher: AESGCM
    encrypters: frozenset[str]
    decrypters: frozenset[str]


class Call(NamedTuple):
    operation: str
    key: str
    identity: str


class GoogleKms:
    """Serves from `__enter__` to `__exit__`."""

    def __init__(self, certificate: Pair) -> None:
        self.calls: list[Call] = []
        """Those of callers that it knows, refused or not."""
        self.tokens: dict[str, str] = {}
        """Access tokens, and whose each is."""
        self.failure: Failure | None = None
        """What each call is answered with."""
        self._accounts: dict[str, rsa.RSAPublicKey] = {}
        self._keys: dict[str, Key] = {}
        self._http = _HttpServer(self, certificate)
        self.rest_port: int = self._http.server_address[1]
        self._workers = ThreadPoolExecutor(4)
        self._grpc = grpc.server(self._workers, handlers=[_grpc_handler(self)])
        pair = certificate.key.read_bytes(), certificate.certificate.read_bytes()
        self.grpc_port: int = self._grpc.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()
        self._workers.shutdown()

    def key(self, name: str, *, encrypters: Iterable[str] = (), decrypters: Iterable[str] = ()) -> str:
        """A new key of its resource *name*, with the identities that may use it."""
        self._keys[name] = Key(AESGCM(AESGCM.generate_key(256)), frozenset(encrypters), frozenset(decrypters))
        return name

    def account(self, email: str) -> Account:
        """A service account that logs in with a key of its own."""
        key = rsa.generate_private_key(65537, 2048)
        self._accounts[email] = key.public_key()
        return Account(email, key)

    def answer(self, operation: str, name: str, data: bytes, authorization: str) -> bytes:
        """What encrypt or decrypt makes of *data*. Raises Failure."""
        identity = self._identity(authorization)
        self.calls.append(Call(operation, name, identity))
        if self.failure:
            raise self.failure
        key = self._keys.get(name)
        if key is None:
            raise Failure("NOT_FOUND", f"CryptoKey {name} not found.")
        if identity not in (key.encrypters if operation == "encrypt" else key.decrypters):
            permission = f"cloudkms.cryptoKeyVersions.useTo{operation.title()}"
            message = f"Permission '{permission}' denied on resource '{name}' (or it may not exist)."
            raise Failure("PERMISSION_DENIED", message)
        if operation == "encrypt":
            nonce = os.urandom(NONCE)
            return nonce + key.cipher.encrypt(nonce, data, None)
        try:
            return key.cipher.decrypt(data[:NONCE], data[NONCE:], None)
        except InvalidTag:
            message = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
            raise Failure("INVALID_ARGUMENT", message) from None

    def _identity(self, authorization: str) -> str:
        """Whose token it is: one that was given out, or one that a service account has signed."""
        kind, _, token = authorization.partition(" ")
        if kind == "Bearer" and token in self.tokens:
            return self.tokens[token]
        claims = self._claims(token)
        if SCOPE not in claims.get("scope", "").split() and claims.get("aud") != f"https://{HOST}/":
            raise Failure("UNAUTHENTICATED", "Request had invalid authentication credentials.")
        return str(claims["iss"])

    def login(self, assertion: str) -> str:
        """The access token for what a service account has signed. Raises Failure."""
        claims = self._claims(assertion)
        if claims["aud"] != f"https://{LOGIN}/token" or SCOPE not in claims["scope"].split():
            raise Failure("INVALID_ARGUMENT", "Invalid JWT")
        token = f"ya29.{len(self.tokens)}"
        self.tokens[token] = claims["iss"]
        return token

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            signed, _, signature = token.rpartition(".")
            claims: dict[str, Any] = json.loads(_unpadded(signed.split(".")[1]))
            key = self._accounts[claims["iss"]]
            key.verify(_unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (ValueError, LookupError, InvalidSignature):
            claims = {}
        if not claims.get("iat", 0) - 60 <= time.time() < claims.get("exp", 0):
            raise Failure("UNAUTHENTICATED", "Request had invalid authentication credentials.")
        return claims


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _messages() -> dict[str, Any]:
    """The classes of MESSAGES, which no package of the tests holds."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="kms.proto", package="google.cloud.kms.v1", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number in fields.items():
            kind = kinds.TYPE_STRING if field == "name" else kinds.TYPE_BYTES
            message.field.add(name=field, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{file.package}.{name}") for name in MESSAGES}
    return {name: message_factory.GetMessageClass(each) for name, each in found.items()}


def _grpc_handler(kms: GoogleKms) -> Any:
    messages = _messages()

    def answering(operation: str) -> Callable[[Any, Any], Any]:
        taken, given = ("plaintext", "ciphertext") if operation == "encrypt" else ("ciphertext", "plaintext")

        def answer(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            try:
                data = kms.answer(operation, request.name, getattr(request, taken), metadata.get("authorization", ""))
            except Failure as failure:
                abort(context, failure)
            return messages[f"{operation.title()}Response"](**{given: data})

        return answer

    def abort(context: Any, failure: Failure) -> NoReturn:
        context.abort(getattr(grpc.StatusCode, failure.status), str(failure))
        raise AssertionError

    handlers = {
        operation.title(): grpc.unary_unary_rpc_method_handler(
            answering(operation),
            messages[f"{operation.title()}Request"].FromString,
            messages[f"{operation.title()}Response"].SerializeToString,
        )
        for operation in ("encrypt", "decrypt")
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, kms: GoogleKms, certificate: Pair) -> None:
        self.kms = kms
        super().__init__(("127.0.0.1", 0), _Handler)
        # The handshake is left to the thread of the connection.
        tls = certificate.server_context()
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the certificate is no fault of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        code = 200
        try:
            told = self._answer(self.path.partition("?")[0], asked)
        except Failure as failure:
            code = CODES[failure.status]
            told = {"error": {"code": code, "message": str(failure), "status": failure.status}}
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str, asked: str) -> dict[str, Any]:
        kms = self.server.kms
        if path == "/token":
            token = kms.login(dict(parse_qsl(asked))["assertion"])
            return {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        name, _, operation = path.removeprefix("/v1/").partition(":")
        taken, given = ("plaintext", "ciphertext") if operation == "encrypt" else ("ciphertext", "plaintext")
        data = base64.b64decode(json.loads(asked)[taken])
        made = kms.answer(operation, name, data, self.headers.get("Authorization", ""))
        return {given: base64.b64encode(made).decode()}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Says nothing."""
