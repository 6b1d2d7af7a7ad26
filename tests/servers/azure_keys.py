"""The keys of Azure Key Vault, beside the secrets and logins of the stand-in in `tests.servers.azure`.

    with AzureKeys(certificate=pair) as azure, Tunnel(azure.port) as tunnel:
        azure.principals["ci"] = "its secret"
        url = azure.key("flux")                  # https://shop.vault.azure.net/keys/flux/VERSION
        ...
        assert azure.requests[f"POST {urlsplit(url).path}/encrypt"] == 2    # the first is for the challenge

The client holds the resource of the 401's challenge to the vault's host, so that the name must be a real one: `Tunnel`
leads it here. Keys are of RSA, and used with RSA-OAEP-256, as the vendor's public references have it:

- Encrypt and Decrypt: https://learn.microsoft.com/rest/api/keyvault/keys/encrypt/encrypt
- Get Key: https://learn.microsoft.com/rest/api/keyvault/keys/get-key/get-key
- which permission each wants: https://learn.microsoft.com/azure/key-vault/keys/about-keys-details#key-access-control
- error bodies: https://learn.microsoft.com/azure/key-vault/general/rest-error-codes
- instance discovery: https://learn.microsoft.com/entra/identity-platform/msal-client-application-configuration#authority
"""

import base64
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers.azure import RESOURCE, TENANT, Answer, Azure
from tests.servers.certificates import Pair

VAULT = "shop.vault.azure.net"
LOGIN = "login.microsoftonline.com"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Key(NamedTuple):
    version: str
    pair: rsa.RSAPrivateKey


class AzureKeys(Azure):
    def __init__(self, certificate: Pair) -> None:
        """*certificate*: one that is good for VAULT, LOGIN and localhost."""
        super().__init__(certificate)
        self.permissions: dict[str, set[str]] = {}
        """By client id, of get, encrypt and decrypt; who is not in it may do all."""
        self.disabled: set[str] = set()
        """Names of keys."""
        self._holders: dict[str, str] = {}
        """The client ids that the tokens were given to."""
        self._keys: dict[str, list[Key]] = {}

    def key(self, name: str) -> str:
        """Adds a version, and gives its URL."""
        key = Key(uuid.uuid4().hex, rsa.generate_private_key(65537, 2048))
        self._keys.setdefault(name, []).append(key)
        return f"https://{VAULT}/keys/{name}/{key.version}"

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        url = urlsplit(target)
        line = f"{method} {url.path}"
        if line == "GET /common/discovery/instance":
            return self._instance()
        found = re.fullmatch(r"(?:GET|POST) /keys/([^/]+)(?:/([^/]*))?(?:/(encrypt|decrypt))?", line)
        if found is None:
            return self._login(method, target, headers, body)
        self.requests[line] += 1
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            challenge = f'Bearer authorization="https://{LOGIN}/{TENANT}", resource="{RESOURCE}"'
            message = "AKV10000: Request is missing a Bearer or PoP token."
            return Answer(401, _fault("Unauthorized", message), {"WWW-Authenticate": challenge})
        operation = found[3] or "get"
        if operation not in self.permissions.get(self._holders[token], {operation}):
            message = f"The user, group or application does not have keys {operation} permission on key vault."
            return Answer(403, _fault("Forbidden", message, "ForbiddenByPolicy"))
        return self._use(found[1], found[2] or "", operation, body)

    def _login(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        form = dict(parse_qsl(body.decode()))
        if "scope" in form:
            # MSAL asks for OpenID's scopes beside the resource's.
            form["scope"] = form["scope"].split()[0]
        answer = super().answer(method, target, headers, urlencode(form).encode())
        if isinstance(answer.body, Mapping) and "access_token" in answer.body:
            self._holders[answer.body["access_token"]] = form.get("client_id", "")
        return answer

    def _use(self, name: str, version: str, operation: str, body: bytes) -> Answer:
        key = next((each for each in reversed(self._keys.get(name, [])) if version in {"", each.version}), None)
        if key is None:
            message = f"A key with (name/id) {name}/{version} was not found in this key vault."
            return Answer(404, _fault("KeyNotFound", message))
        if name in self.disabled and operation != "get":
            message = f"Operation {operation} is not allowed on a disabled key."
            return Answer(403, _fault("Forbidden", message, "KeyDisabled"))
        kid = f"https://{VAULT}/keys/{name}/{key.version}"
        if operation == "get":
            return Answer(200, {"key": {"kid": kid, "kty": "RSA"}, "attributes": {"enabled": True}})
        asked = json.loads(body)
        if asked["alg"] != "RSA-OAEP-256":
            return Answer(400, _fault("BadParameter", "Invalid algorithm"))
        value = base64.urlsafe_b64decode(asked["value"] + "=" * (-len(asked["value"]) % 4))
        try:
            pair = key.pair
            made = pair.public_key().encrypt(value, OAEP) if operation == "encrypt" else pair.decrypt(value, OAEP)
        except ValueError:
            return Answer(400, _fault("BadParameter", "The parameter is incorrect."))
        return Answer(200, {"kid": kid, "value": base64.urlsafe_b64encode(made).rstrip(b"=").decode()})

    def _instance(self) -> Answer:
        known = {"preferred_network": LOGIN, "preferred_cache": "login.windows.net", "aliases": [LOGIN]}
        tenant = f"https://{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration"
        return Answer(200, {"tenant_discovery_endpoint": tenant, "api-version": "1.1", "metadata": [known]})


def _fault(code: str, message: str, inner: str = "") -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    return {"error": error | ({"innererror": {"code": inner}} if inner else {})}
