"""Logins to Entra ID for a store: which one its settings name, one token for all threads, and why there is none.

The credentials are azure-identity's own. What is added: a login happens once, also when it fails; and what went wrong
is told by Entra ID's error code or by the kind of login, not in the SDK's words, which quote what went to and fro.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from secretweave.errors import Denied, StoreError, Unavailable, Where
from secretweave.sdk import azure, network

if TYPE_CHECKING:
    from secretweave.sdk.azure_settings import Auth, Entra
    from secretweave.stores.base import Context, SecretKeyRef

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
AUTHORITIES = {
    ".vault.azure.cn": "login.chinacloudapi.cn",
    ".vault.usgovcloudapi.net": "login.microsoftonline.us",
}
PUBLIC_AUTHORITY = "login.microsoftonline.com"
METADATA_HOST = "169.254.169.254"
SPARE_SECONDS = 10
"""A token that ends sooner is not used any more."""
LOGIN_REFUSALS = {
    "7000215": ("the client secret is wrong", "correct the client secret: its value, not its id"),
    "7000222": ("the client secret has expired", "make a new client secret and store that"),
    "700016": ("the tenant has no such application", "correct the client id, or tenantID"),
    "7000112": ("the application is disabled", "enable the application in Entra ID"),
    "90002": ("there is no such tenant", "correct tenantID, or authorityHost"),
    "900023": ("the tenant's id is malformed", "correct tenantID"),
    "700211": ("no federated credential trusts the token's issuer", "add one to the identity, for this cluster"),
    "700212": ("no federated credential has the token's audience", "use the audience api://AzureADTokenExchange"),
    "700213": ("no federated credential has the token's subject", "add one for this ServiceAccount to the identity"),
    "70021": ("no federated credential fits the token", "add one for this ServiceAccount to the identity"),
    "700024": ("the federated token has expired", "mount a projected token, which Kubernetes renews"),
    "53003": ("a conditional access policy forbids it", "exempt the identity from the policy"),
}
"""Entra ID's AADSTS codes: why, and the fix."""


FOR = {
    "ambient": "auth is ambient: it comes from the environment",
    "secret": "spec.azurekv.auth.clientSecretSecretRef",
    "workloadIdentity": "spec.azurekv.auth.workloadIdentity",
    "managedIdentity": "spec.azurekv.auth.managedIdentity",
    "cli": "spec.azurekv.auth.cli",
}
CHOICES = {
    "ambient": (
        "neither environment, workload identity, managed identity, az, PowerShell nor azd gave a token",
        "set up one of them for this process, or name a login in spec.azurekv.auth",
    ),
    "secret": ("Entra ID does not accept the client id and secret", "correct the credential Secret, or tenantID"),
    "workloadIdentity": (
        "Entra ID does not accept the federated token",
        "correct clientID and tenantID, and the identity's federated credential for this ServiceAccount",
    ),
    "managedIdentity": (
        "this machine has no managed identity, or not that one",
        "assign it to the machine, correct managedIdentity.clientID, or name another login",
    ),
    "cli": ("`az` is not installed here, or nobody is logged in to it", "run `az login`, or name another login"),
}
"""Each login: why it gave no token, and the fix."""


def choice_of(auth: "Auth") -> str:
    """Which login *auth* names. Raises StoreError: several, or half of one."""
    principal = auth.client_id or auth.client_id_secret_ref or auth.client_secret_secret_ref
    named = {
        "secret": principal,
        "workloadIdentity": auth.workload_identity,
        "managedIdentity": auth.managed_identity,
        "cli": auth.cli,
    }
    chosen = [name for name, value in named.items() if value is not None]
    if len(chosen) > 1:
        raise StoreError("spec.azurekv.auth names several logins", fix="keep one of them")
    if chosen == ["secret"]:
        if auth.client_secret_secret_ref is None:
            raise StoreError("spec.azurekv.auth has a client id, but no secret", fix="add clientSecretSecretRef")
        if (auth.client_id is None) == (auth.client_id_secret_ref is None):
            raise StoreError(
                "spec.azurekv.auth must name one client id", fix="add clientIDSecretRef or clientID, not both"
            )
    return chosen[0] if chosen else "ambient"


def credential(choice: str, settings: "Entra", vault: str, context: "Context", options: dict[str, Any]) -> Any:
    """The SDK's credential. Raises StoreError: something that it needs is not there."""
    import azure.identity as sdk

    auth, environ = settings.auth, context.environ
    authority = _authority(settings.authority_host or environ.get("AZURE_AUTHORITY_HOST"), vault)
    tenant = settings.tenant_id or environ.get("AZURE_TENANT_ID")
    # Instance discovery asks login.microsoftonline.com whether a host is one of Microsoft's. Ours comes from the
    # configuration or the platform's environment, not from the vault; and a private cloud's is never known there.
    entra = options | {"authority": f"https://{authority}", "disable_instance_discovery": True}
    seconds = max(1, min(10, int(context.limits.deadline - time.monotonic())))
    try:
        if choice == "ambient":
            return sdk.DefaultAzureCredential(
                **entra,
                **({"workload_identity_tenant_id": settings.tenant_id} if settings.tenant_id else {}),
                exclude_interactive_browser_credential=True,
                exclude_shared_token_cache_credential=True,
                exclude_visual_studio_code_credential=True,
                exclude_broker_credential=True,
                process_timeout=seconds,
            )
        if choice == "cli":
            return sdk.AzureCliCredential(tenant_id=settings.tenant_id or "", process_timeout=seconds)
        if choice == "managedIdentity":
            assert auth.managed_identity is not None
            return sdk.ManagedIdentityCredential(client_id=auth.managed_identity.client_id, **options)
        if choice == "workloadIdentity":
            assert auth.workload_identity is not None
            client = auth.workload_identity.client_id or environ.get("AZURE_CLIENT_ID")
            file = auth.workload_identity.token_file or environ.get("AZURE_FEDERATED_TOKEN_FILE")
            _needed("workloadIdentity.clientID", "AZURE_CLIENT_ID", client)
            _needed("workloadIdentity.tokenFile", "AZURE_FEDERATED_TOKEN_FILE", file)
            _needed("tenantID", "AZURE_TENANT_ID", tenant)
            if not os.access(str(file), os.R_OK):
                raise StoreError(
                    "the federated token cannot be read",
                    where=Where(str(file)),
                    fix="mount it, or correct workloadIdentity.tokenFile or AZURE_FEDERATED_TOKEN_FILE",
                )
            return sdk.WorkloadIdentityCredential(tenant_id=tenant, client_id=client, token_file_path=file, **entra)
        _needed("tenantID", "AZURE_TENANT_ID", tenant)
        client = auth.client_id or _text(auth.client_id_secret_ref, context)
        secret = _text(auth.client_secret_secret_ref, context)
        return sdk.ClientSecretCredential(str(tenant), client, secret, **entra)
    except ValueError:
        raise StoreError(
            "the SDK cannot make a login of these settings",
            why="an id in spec.azurekv is malformed, or AZURE_TOKEN_CREDENTIALS in the environment is",
            fix="correct tenantID and auth, or the environment",
        ) from None


def _text(ref: "SecretKeyRef | None", context: "Context") -> str:
    """A credential without the line break that many tools store behind it."""
    assert ref is not None
    return context.credential(ref).strip()


def _needed(key: str, variable: str, value: str | None) -> None:
    if not value:
        fix = f"set it, or {variable} in the environment"
        if key.startswith("workload"):
            fix += ", as the label azure.workload.identity/use of the pod does"
        raise StoreError(f"spec.azurekv.{'' if key == 'tenantID' else 'auth.'}{key} is missing", fix=fix)


def _authority(host: str | None, vault: str) -> str:
    if not host:
        name = vault.partition(":")[0]
        return next((host for suffix, host in AUTHORITIES.items() if name.endswith(suffix)), PUBLIC_AUTHORITY)
    found = azure.host_of(host if "://" in host else f"https://{host}")
    if found is None:
        raise StoreError(
            "the host of Entra ID is malformed", fix="correct spec.azurekv.authorityHost, or AZURE_AUTHORITY_HOST"
        )
    return found


class Login:
    """The SDK's credential, for all threads: one token, and one failure. It is a TokenCredential itself."""

    def __init__(
        self, credential: Any, wire: Any, choice: str, tenant: str | None, succeeded: Callable[[], None]
    ) -> None:
        import threading

        self.succeeded = False
        self._credential = credential
        self._wire = wire
        self._choice = choice
        self._tenant = tenant
        self._tell = succeeded
        self._lock = threading.Lock()
        self._token: Any = None
        self._claims: str | None = None
        self._failed: StoreError | None = None

    def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **_options: object
    ) -> Any:
        """Called by the SDK: *claims* and *tenant_id* are what the vault's challenge asks for."""
        with self._lock:
            if self._failed is not None:
                raise azure.again(self._failed)
            fresh = self._token is not None and self._token.expires_on > time.time() + SPARE_SECONDS
            if not fresh or claims not in {None, self._claims}:
                try:
                    self._token = self._ask(scopes, claims, tenant_id)
                except StoreError as error:
                    self._failed = error
                    raise
                self._claims = claims
                self.succeeded = True
                self._tell()
            return self._token

    def close(self) -> None:
        # Without the lock: a login that hangs must not hang the end of the run.
        with contextlib.suppress(Exception):
            self._credential.close()
            self._wire.close()

    def _ask(self, scopes: tuple[str, ...], claims: str | None, tenant: str | None) -> Any:
        ids = [each.lower() for each in (self._tenant, tenant) if each and GUID.fullmatch(each.lower())]
        if len(set(ids)) == 2:
            raise Denied(
                "the vault is of another tenant",
                why=f"it names the tenant {ids[1]}, spec.azurekv.tenantID is {ids[0]}",
                fix="correct spec.azurekv.tenantID, or url",
            )
        try:
            return self._credential.get_token(*scopes, claims=claims, tenant_id=self._tenant or tenant, enable_cae=True)
        except Exception as error:  # noqa: BLE001 - credentials raise whatever the libraries and programs below them do
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> StoreError:
        trouble: Unavailable | None = self._wire.trouble
        # Where there is no managed identity, the ambient login asks for one in vain before it goes on.
        if trouble is not None and not (self._choice == "ambient" and METADATA_HOST in trouble.what):
            return trouble
        text = " ".join(str(each) for each in network.causes(error))
        code = next((each for each in re.findall(r"AADSTS([0-9]{4,8})", text) if each in LOGIN_REFUSALS), None)
        if code is None:
            why, fix = CHOICES[self._choice]
            return Denied("the login failed", why=why, fix=fix)
        why, fix = LOGIN_REFUSALS[code]
        return Denied(f"the login was refused (AADSTS{code})", why=why, fix=f"{fix} ({FOR[self._choice]})")
