"""The stores of the cases, each with its server behind the fault proxy, and the words of its vendor."""

import base64
import json
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from ruamel.yaml import YAML

from tests.faults.running import Adapter, Front, Started, value
from tests.faults.table import BODY_CANARY, REFS, Kind, Vendor
from tests.hosts.cluster import cluster
from tests.hosts.vault import VaultServer
from tests.hosts.vault import vault as start_vault
from tests.servers.azure import IDENTITY_HEADER, TENANT, Azure
from tests.servers.certificates import Authority
from tests.servers.gcp import Google
from tests.servers.moto import REGION, running
from tests.servers.proxy import Rule, Status

NOWHERE = "https://127.0.0.1:9"
"""Until a case tells where its redirect leads."""


def said(code: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Status:
    return Status(code, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})


@contextmanager
def azurekv(folder: Path, authority: Authority) -> Iterator[Adapter]:
    """https://learn.microsoft.com/azure/key-vault/general/rest-error-codes"""
    del folder

    def error(code: int, name: str, inner: str = "", headers: Mapping[str, str] | None = None) -> Status:
        told: dict[str, Any] = {"code": name, "message": BODY_CANARY}
        return said(code, {"error": told | ({"innererror": {"code": inner}} if inner else {})}, headers)

    challenge = f'Bearer authorization="https://login.windows.net/{TENANT}", resource="https://vault.azure.net"'
    answers: dict[Kind, Status] = {
        "throttled": error(429, "Throttled"),
        "broken": error(500, "InternalServerError"),
        "away": error(503, "ServiceUnavailable"),
        "forbidden": error(403, "Forbidden", "ForbiddenByRbac"),
        "expired": error(401, "Unauthorized", headers={"WWW-Authenticate": challenge}),
    }

    def spec(front: Front) -> str:
        vault = f"url: {front.url}, verifyChallengeResource: false, caFile: {front.ca}"
        return f"{{azurekv: {{{vault}, auth: {{managedIdentity: {{}}}}}}}}"

    with Azure(authority.issue("azure")) as server:
        for number in range(REFS):
            server.put(f"s{number}", value(number))
        yield Adapter(
            "azurekv",
            server.url,
            authority.certificate,
            True,
            spec,
            lambda _: {"IDENTITY_ENDPOINT": f"{server.url}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER},
            lambda number: f"s{number}",
            Vendor("^GET /secrets/", answers, NOWHERE),
            (IDENTITY_HEADER, "token-"),
            lambda number: [Rule(answers["forbidden"], f"^GET /secrets/s{number}/", known=True)],
        )


@contextmanager
def gcpsm(folder: Path, authority: Authority) -> Iterator[Adapter]:
    """https://cloud.google.com/apis/design/errors"""

    def error(code: int, status: str) -> Status:
        return said(code, {"error": {"code": code, "message": BODY_CANARY, "status": status}})

    answers: dict[Kind, Status] = {
        "throttled": error(429, "RESOURCE_EXHAUSTED"),
        "broken": error(500, "INTERNAL"),
        "away": error(503, "UNAVAILABLE"),
        "forbidden": error(403, "PERMISSION_DENIED"),
        "expired": error(401, "UNAUTHENTICATED"),
    }
    key = rsa.generate_private_key(65537, 2048)

    def spec(front: Front) -> str:
        at = f"endpoint: {front.url.removeprefix('https://')}, caFile: {front.ca}"
        return f"{{gcpsm: {{projectID: shop, {at}, auth: {{credentialsFile: {folder / 'key.json'}}}}}}}"

    with Google(authority.issue("google"), {"shop": "4242"}) as server:
        for number in range(REFS):
            server.add("shop", f"s{number}", value(number).encode())
        account = server.account("reader@shop.iam.gserviceaccount.com", key)
        (folder / "key.json").write_text(json.dumps(account.key_file(f"{server.login.url}/token")))
        yield Adapter(
            "gcpsm",
            server.api.url,
            authority.certificate,
            True,
            spec,
            lambda _: {},
            lambda number: f"s{number}",
            Vendor("^GET /v1/projects/shop/secrets/", answers, NOWHERE),
            ("PRIVATE KEY", "Bearer"),
            lambda number: [Rule(answers["forbidden"], f"/secrets/s{number}/versions/")],
        )


@contextmanager
def _aws(
    name: str, service: str, target: str, put: Callable[[Any, int], None], read: str, several: str
) -> Iterator[Adapter]:
    """https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html

    *read* and *several*: the operations for one secret and for several.
    """

    def error(code: int, kind: str) -> Status:
        told = {"__type": kind, "message": BODY_CANARY}
        return Status(code, json.dumps(told).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    answers: dict[Kind, Status] = {
        "throttled": error(400, "ThrottlingException"),
        "broken": error(500, "InternalServiceError"),
        "away": error(503, "ServiceUnavailable"),
        "forbidden": error(400, "AccessDeniedException"),
        "expired": error(400, "ExpiredTokenException"),
    }

    def environ(front: Front) -> Mapping[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "k3y-secret", "AWS_SESSION_TOKEN": "k3y-t"}
        return {**keys, "AWS_CA_BUNDLE": str(front.ca), "AWS_EC2_METADATA_DISABLED": "true"}

    with running() as server:
        client = server.client(service)
        for number in range(REFS):
            put(client, number)
        yield Adapter(
            name,
            server.url,
            None,
            True,
            lambda front: f"{{{name}: {{region: {REGION}, endpoint: '{front.url}'}}}}",
            environ,
            lambda number: f"s{number}",
            Vendor(f"{target}[.]({read}|{several})$", answers, NOWHERE),
            ("k3y-",),
            # For several at once AWS tells it of each, or of all.
            lambda number: [
                Rule(answers["forbidden"], f"[.]{several}$"),
                Rule(answers["forbidden"], f"[.]{read}$", body=f'"s{number}"'.encode()),
            ],
        )


@contextmanager
def awssm(folder: Path, authority: Authority) -> Iterator[Adapter]:
    del folder, authority

    def put(client: Any, number: int) -> None:
        client.create_secret(Name=f"s{number}", SecretString=value(number))

    operations = ("GetSecretValue", "BatchGetSecretValue")
    with _aws("awssm", "secretsmanager", "secretsmanager", put, *operations) as adapter:
        yield adapter


@contextmanager
def awsssm(folder: Path, authority: Authority) -> Iterator[Adapter]:
    del folder, authority

    def put(client: Any, number: int) -> None:
        client.put_parameter(Name=f"s{number}", Value=value(number), Type="SecureString")

    with _aws("awsssm", "ssm", "AmazonSSM", put, "GetParameter", "GetParameters") as adapter:
        yield adapter


def _vault_answers() -> Mapping[Kind, Status]:
    """https://developer.hashicorp.com/vault/api-docs#http-status-codes"""

    def error(code: int, text: str) -> Status:
        return said(code, {"errors": [text], "request_id": BODY_CANARY})

    return {
        "throttled": error(429, "request path: rate limit quota exceeded"),
        "broken": error(500, "internal error"),
        "away": error(503, "Vault is sealed"),
        "forbidden": error(403, "1 error occurred:\n\t* permission denied\n\n"),
        # As Vault 1.16 tells a token that it does not know, or no more.
        "expired": error(403, "permission denied"),
    }


@contextmanager
def _vault(
    folder: Path, name: str, log_in: Callable[[VaultServer], tuple[str, Mapping[str, str], tuple[str, ...]]]
) -> Iterator[Adapter]:
    """*log_in*: what stands under `auth`, the environment, and the credentials in it."""
    with start_vault(folder) as server:
        server.mount("faults", version="2")
        for number in range(REFS):
            server.put("faults", f"s{number}", {"value": value(number)})
        server.policy("faults", 'path "faults/*" { capabilities = ["read"] }')
        auth, environ, credentials = log_in(server)

        def spec(front: Front) -> str:
            return f"{{vault: {{url: {front.url}, path: faults, tls: {{caFile: {front.ca}}}, auth: {auth}}}}}"

        yield Adapter(
            name,
            server.address,
            server.ca,
            True,
            spec,
            lambda _: environ,
            lambda number: f"s{number}",
            Vendor("^GET /v1/faults/data/", _vault_answers(), NOWHERE),
            credentials,
            lambda number: [Rule(_vault_answers()["forbidden"], f"^GET /v1/faults/data/s{number}$")],
        )


@contextmanager
def vault(folder: Path, authority: Authority) -> Iterator[Adapter]:
    """With a token that was given."""
    del authority

    def log_in(server: VaultServer) -> tuple[str, Mapping[str, str], tuple[str, ...]]:
        token = server.create_token(["faults"])
        return "{}", {"VAULT_TOKEN": token}, (token,)

    with _vault(folder, "vault", log_in) as adapter:
        yield adapter


@contextmanager
def vault_with_a_login(folder: Path, authority: Authority) -> Iterator[Adapter]:
    """With an AppRole."""
    del authority

    def log_in(server: VaultServer) -> tuple[str, Mapping[str, str], tuple[str, ...]]:
        server.enable_auth("approle")
        role = server.create_approle("faults", ["faults"])
        return "{}", {"VAULT_ROLE_ID": role.role_id, "VAULT_SECRET_ID": role.secret_id}, (*role, "hvs.")

    with _vault(folder, "vault with a login", log_in) as adapter:
        yield adapter


@contextmanager
def kubernetes(folder: Path, authority: Authority) -> Iterator[Adapter]:
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/"""
    del authority

    def error(code: int, reason: str) -> Status:
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
        return said(code, {**told, "message": BODY_CANARY})

    answers: dict[Kind, Status] = {
        "throttled": error(429, "TooManyRequests"),
        "broken": error(500, "InternalError"),
        "away": error(503, "ServiceUnavailable"),
        "forbidden": error(403, "Forbidden"),
        "expired": error(401, "Unauthorized"),
    }
    with cluster(folder) as path:
        config = YAML(typ="safe", pure=True).load(path)
        server = config["clusters"][0]["cluster"]["server"]
        token = config["users"][0]["user"]["token"]
        trust = ssl.create_default_context(cafile=folder / "apiserver.crt")

        def create(kind: str, body: Mapping[str, Any]) -> None:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            request = urllib.request.Request(f"{server}/api/v1/{kind}", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, context=trust):
                pass

        create("namespaces", {"metadata": {"name": "faults"}})
        for number in range(REFS):
            data = {"value": base64.b64encode(value(number).encode()).decode()}
            create("namespaces/faults/secrets", {"metadata": {"name": f"s{number}"}, "data": data})

        def spec(front: Front) -> str:
            file = front.folder / "kubeconfig"
            config["clusters"][0]["cluster"] = {"server": front.url, "certificate-authority": str(front.ca)}
            file.write_text(json.dumps(config))
            file.chmod(0o600)
            return f"{{kubernetes: {{namespace: faults, kubeconfig: {file}}}}}"

        yield Adapter(
            "kubernetes",
            server,
            folder / "apiserver.crt",
            True,
            spec,
            lambda _: {},
            lambda number: f"s{number}/value",
            Vendor("^GET /api/v1/namespaces/faults/secrets/", answers, NOWHERE),
            (token,),
            lambda number: [Rule(answers["forbidden"], f"/secrets/s{number}$")],
        )


STANDING: dict[str, Started] = {"awssm": awssm, "awsssm": awsssm, "azurekv": azurekv, "gcpsm": gcpsm}
"""Those whose servers need no program that must be built."""
BUILT: dict[str, Started] = {"vault": vault, "vault with a login": vault_with_a_login, "kubernetes": kubernetes}
"""The others."""
