"""`azurekv`: secrets of an Azure Key Vault.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: azure}
    spec:
      azurekv:
        url: https://NAME.vault.azure.net       # or of any other cloud: .vault.azure.cn, .vault.usgovcloudapi.net
        tenantID: 00000000-0000-0000-0000-000000000000
        auth: {}                                # as below
        allowExpired: false                     # give secrets outside their `nbf` and `exp` as well
        caFile: ca.pem                          # trusted instead of the built-in authorities: a proxy that reads TLS
        authorityHost: login.microsoftonline.com
        verifyChallengeResource: true

`ref` is the name of a secret (letters, digits, `-`), or its full identifier if that is of this very vault:
`https://NAME.vault.azure.net/secrets/db-password[/VERSION]`. `version` is a version id, 32 hexadecimal digits; without
one the current version is read. A value is given verbatim as text, whatever its content type says: a certificate's
secret is base64 of PKCS#12 or PEM, a binary that was stored as base64 is still that. `#KEY` reads it as JSON or YAML.

A disabled secret is an error. So is one that has expired or is not valid yet, though Azure itself would give it: the
two dates are information to it. A deleted secret that can be recovered looks to a reader like one that never was.

Logins, exactly one of which `auth` may name:

    auth: {}                                    # ambient: DefaultAzureCredential's environment (AZURE_CLIENT_ID and
                                                #   AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH), workload
                                                #   identity, managed identity, az, PowerShell, azd; never a browser.
                                                #   AZURE_TOKEN_CREDENTIALS narrows it, as the SDK says.
    auth:                                       # a service principal, in a credential Secret
      clientIDSecretRef: {name: azure, key: clientID}          # or clientID: ...
      clientSecretSecretRef: {name: azure, key: clientSecret}
    auth:
      workloadIdentity: {clientID: ..., tokenFile: ...}        # by default AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE
    auth:
      managedIdentity: {clientID: ...}          # without clientID: the one that the system assigned
    auth:
      cli: {}                                   # who is logged in to `az`

No public source settles how the Humanitec Operator spells a service principal; these names follow its API's
`client_id` and `client_secret`. Without `tenantID`, AZURE_TENANT_ID or the tenant that the vault names is used; with
it, a vault of another tenant is refused. `authorityHost` is by default AZURE_AUTHORITY_HOST, else what belongs to the
vault's domain. `verifyChallengeResource: false` is for a vault behind a DNS name of your own: the SDK then no longer
compares the domain that the vault asks a token for with its address.

The least permission is the role `Key Vault Secrets User` on the vault or the secret, or `get` for secrets in an access
policy. Requests: one per secret and version, one that fetches the vault's challenge, and one login (two requests for a
service principal).

The Flux controller alone (`secretweave flux controller`) also asks for versions, to read only what has another one. It
lists the versions of a secret, which tells no value, and takes the one that was created last. That needs

    Microsoft.KeyVault/vaults/secrets/readMetadata/action    which the role `Key Vault Secrets User` has, too
    list                                                     for secrets, in an access policy

and without it values are read instead. So they are where the list leaves a doubt: two versions of the same second, a
newest one that is disabled or outside its dates, an older one of a certificate that was changed after the newest was
made, or more than 250 versions. A list is one request per secret for each 25 of its versions, in no order of time.

API: https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret
Versions: https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret-versions/get-secret-versions
Errors: https://learn.microsoft.com/azure/key-vault/general/rest-error-codes
Logins: https://learn.microsoft.com/python/api/overview/azure/identity-readme
"""

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.forms import FilePath
from secretweave.model import Record, SecretValue
from secretweave.sdk.azure_settings import Auth, Entra
from secretweave.stores.base import PROBE, Context, Limits, Store, Wanted

if TYPE_CHECKING:
    import threading

    from secretweave.sdk.azure_login import Login

T = TypeVar("T")


class Settings(NamedTuple):
    url: str
    """The vault's, https."""
    tenant_id: str | None = None
    auth: Auth = Auth()
    """Empty: the ambient login."""
    authority_host: str | None = None
    """Entra ID's host; by default AZURE_AUTHORITY_HOST, else that of the vault's cloud."""
    verify_challenge_resource: bool = True
    """False only where the vault has a DNS name of your own."""
    ca_file: FilePath | None = None
    """PEM certificates that are trusted instead of the built-in ones, for the vault and for the login."""
    allow_expired: bool = False
    """Give secrets outside their `nbf` and `exp` as well, as Azure does."""


CONCURRENCY = 16
PAGES = 10
"""Of a list of versions, 25 on each; a read is cheaper than a longer list."""
NAME = re.compile(r"[0-9A-Za-z-]{1,127}")
VERSION = re.compile(r"[0-9A-Fa-f]{32}")
ROLE = "give the identity the role `Key Vault Secrets User`, or `get` for secrets in the vault's access policy"
REFUSALS = {
    "ForbiddenByRbac": ("no role of the identity allows it", ROLE),
    "ForbiddenByPolicy": ("the vault's access policy does not give the identity `get` for secrets", ROLE),
    "AccessDenied": ("the vault's access policy does not give the identity `get` for secrets", ROLE),
    "ForbiddenByFirewall": (
        "the vault's firewall does not let this network in",
        "allow this network in the vault's network settings, or use its private endpoint",
    ),
    "ForbiddenByConnection": (
        "the vault is closed to public networks",
        "use the vault's private endpoint, or open its network settings",
    ),
}
"""Inner error codes of a 403: why, and the fix."""


def preload() -> None:
    from secretweave.sdk import azure

    with contextlib.suppress(StoreError):
        azure.load()


def connect(settings: Settings, context: Context) -> Store:
    """The vault, not asked yet. Raises StoreError: settings that do not fit, no SDK, no credential Secret."""
    import threading

    from secretweave.sdk import azure, azure_login

    host = azure.host_of(settings.url)
    if host is None or ".managedhsm." in host:
        why = "a managed HSM has keys, but no secrets" if host else "it is not of the form https://HOST"
        fix = "write it as https://NAME.vault.azure.net"
        raise StoreError("spec.azurekv.url is not the address of a vault", why=why, fix=fix)
    choice = azure_login.choice_of(settings.auth)
    azure.load()
    from azure.keyvault.secrets import SecretClient

    limits = context.limits
    tls = azure.trust(settings.ca_file, context.environ)
    wire = azure.transport("the login endpoint", limits, tls, 1)
    options = {"transport": wire, **azure.retries(limits)}
    entra = Entra(settings.auth, settings.tenant_id, settings.authority_host)
    credential = azure_login.credential(choice, entra, host, context, options)
    ready = threading.Event()
    login = azure_login.Login(credential, wire, choice, settings.tenant_id, ready.set)
    client = SecretClient(
        f"https://{host}",
        login,
        verify_challenge_resource=settings.verify_challenge_resource,
        transport=azure.transport("the vault", limits, tls, CONCURRENCY),
        retry_policy=azure.retry_policy(limits),
        permit_redirects=False,
    )
    return AzureStore(client, login, ready, host, limits, allow_expired=settings.allow_expired)


class AzureStore:
    concurrency = CONCURRENCY

    def __init__(
        self, client: Any, login: "Login", ready: "threading.Event", host: str, limits: Limits, *, allow_expired: bool
    ) -> None:
        import threading

        self._client = client
        self._login = login
        self._ready = ready
        """Set when the vault's challenge is known and there is a token, or when that has failed."""
        self._first = threading.Lock()
        self._failed: StoreError | None = None
        """Why there is no token, or none that the vault accepts: it holds for every secret."""
        self._host = host
        self._limits = limits
        self._allow_expired = allow_expired
        self._closed = False

    def fetch(self, ref: str, version: str | None) -> Record:
        self._check_open()
        name, given = self._address(ref, version)
        return self._in_turn(lambda: self._read(name, given))

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """One list tells of all versions of a secret. What can be no secret of this vault costs no request."""
        batches: dict[str, list[Wanted]] = {}
        for each in wanted:
            address = self._address_or_none(each)
            batches.setdefault(address[0].lower() if address else "", []).append(each)
        return list(batches.values())

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        self._check_open()
        addresses = [self._address_or_none(each) for each in batch]
        name = next((each[0] for each in addresses if each), None)
        if name is None:
            return [None] * len(batch)
        told = self._in_turn(lambda: self._look(name, {each[1] for each in addresses if each}))
        return [told[each[1]] if each else None for each in addresses]

    def probe(self) -> None:
        try:
            self.fetch(PROBE, None)
        except NotFound:
            pass
        except Denied as denied:
            if self._failed is not None or denied.fix != ROLE:
                raise

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(Exception):
                self._client.close()
            self._login.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="report it: this is a defect")

    def _in_turn(self, ask: Callable[[], T]) -> T:
        if not self._ready.is_set() and self._first.acquire(blocking=False):
            # It goes ahead alone: all at once would each ask for the challenge, and then for a token.
            try:
                return ask()
            except StoreError as error:
                if not self._login.succeeded:
                    self._failed = error
                raise
            finally:
                self._ready.set()
        self._ready.wait(max(self._limits.deadline - time.monotonic(), 0))
        if self._failed is not None:
            from secretweave.sdk.azure import again

            raise again(self._failed)
        return ask()

    def _ours(self, url: SplitResult) -> bool:
        return url.scheme == "https" and url.netloc.lower().removesuffix(":443") == self._host

    def _address_or_none(self, wanted: Wanted) -> tuple[str, str | None] | None:
        with contextlib.suppress(StoreError):
            return self._address(*wanted)
        return None

    def _address(self, ref: str, version: str | None) -> tuple[str, str | None]:
        """The name and the version that *ref* means. Raises StoreError: of another vault, or no name."""
        if "://" in ref:
            url = urlsplit(ref)
            _, kind, name, *versions = [*url.path.split("/"), "", ""][:5]
            if not self._ours(url) or kind != "secrets":
                raise StoreError(
                    "the reference is an identifier, but of no secret in this store's vault",
                    why=f"this store is https://{self._host}",
                    fix="name the store of that vault, or write the secret's name alone",
                )
            given = next((each for each in versions if each), None)
            if given and version and given != version:
                raise StoreError("the reference names two versions", fix="write the version once")
            ref, version = name, version or given
        if not NAME.fullmatch(ref):
            raise NotFound(
                "no secret can have this name",
                why="a secret's name in Key Vault has letters, digits and `-`, and nothing else",
                fix="correct the reference; a field of a JSON secret is written `#KEY`",
            )
        if version and not VERSION.fullmatch(version):
            raise NotFound(
                "no secret can have this version",
                why="a version id in Key Vault is 32 hexadecimal digits",
                fix="write the version's id, or no version for the current one",
            )
        return ref, version

    def _read(self, name: str, version: str | None) -> Record:
        try:
            secret = self._client.get_secret(name, version)
        except Exception as error:  # noqa: BLE001 - an answer that is none breaks the SDK in many ways
            raise self._fault(error, version) from None
        return self._record(secret, version)

    def _record(self, secret: Any, wanted: str | None) -> Record:
        from secretweave.select import text

        about = secret.properties
        if not about.version or (wanted and about.version.lower() != wanted.lower()):
            raise StoreError("the vault gave another version than was asked", fix="look after what answers at its url")
        unfit = self._unfit(about)
        if unfit is not None:
            raise unfit
        return Record(SecretValue(text(secret.value)), about.version)

    def _unfit(self, about: Any) -> StoreError | None:
        """Why this version is not to be given, though the vault has it."""
        if about.enabled is False:
            return _disabled()
        now = datetime.now(UTC)
        if not self._allow_expired and about.expires_on and about.expires_on <= now:
            fix = "store a new version, or set spec.azurekv.allowExpired"
            return StoreError(f"it has expired on {_date(about.expires_on)}", fix=fix)
        if not self._allow_expired and about.not_before and about.not_before > now:
            fix = "wait, correct the secret's activation date, or set spec.azurekv.allowExpired"
            return StoreError(f"it is not valid before {_date(about.not_before)}", fix=fix)
        return None

    def _look(self, name: str, wanted: set[str | None]) -> dict[str | None, str | None]:
        """For each of these versions the one that a read would give. Raises what every read would meet as well."""
        try:
            listed, all_of_them = self._list(name)
            found = {version: _one(listed, version) for version in wanted if version or all_of_them}
            # As the list writes it, not as it was asked for: so does a read.
            return {
                version: about.version if about and about.enabled and self._unfit(about) is None else None
                for version, about in (dict.fromkeys(wanted) | found).items()
            }
        except Exception as error:  # noqa: BLE001 - an answer that is none breaks the SDK in many ways
            if self._ends_all(error):
                raise self._fault(error, None) from None
            return dict.fromkeys(wanted)

    def _list(self, name: str) -> tuple[list[Any], bool]:
        """The properties of the versions of a secret, and whether these are all of them."""
        pages = self._client.list_properties_of_secret_versions(name).by_page()
        listed: list[Any] = []
        for page in itertools.islice(pages, PAGES):
            listed += page
            if any((each.name or "").lower() != name.lower() for each in listed):
                return [], False
            if not pages.continuation_token:
                return listed, True
            if not self._ours(urlsplit(pages.continuation_token)):
                # It is an address, which the SDK would send the token to.
                break
        return listed, False

    def _ends_all(self, error: Exception) -> bool:
        """Would a read fail like this, too? Not for want of the right to list, or where lists alone get odd answers."""
        from azure.core.exceptions import AzureError

        from secretweave.sdk.azure import can_pass

        if isinstance(error, AzureError):
            status = getattr(error, "status_code", None)
            return status is None or status == 401 or can_pass(status)
        # The challenge of another domain: the oldest SDK that we allow keeps it, and would answer it the next time.
        return isinstance(error, StoreError) or (type(error) is ValueError and not self._login.succeeded)

    def _fault(self, error: Exception, version: str | None) -> StoreError:
        """What the SDK raised, in our words."""
        from azure.core.exceptions import AzureError

        from secretweave.sdk.azure import unreachable

        if isinstance(error, StoreError):
            return error
        # To the SDK an answer that breaks off is an answer, too; it has no status.
        if getattr(error, "status_code", None) is not None:
            return self._refused(error, version)
        if isinstance(error, AzureError):
            return unreachable(error, f"the vault {self._host}")
        # It raises this very class where the challenge wants a token for another domain than the vault's.
        return self._not_this_vault() if type(error) is ValueError else self._not_a_vault()

    def _refused(self, error: Any, version: str | None) -> StoreError:
        """An answer that is no secret, in our words. The vault's own are for the log that we do not write."""
        from secretweave.sdk.azure import again, busy, can_pass

        status, codes = error.status_code, _codes(error)
        if status == 404 and "SecretNotFound" in codes:
            return NotFound(
                "the vault has no such secret, or no such version" if version else "the vault has no such secret",
                why=f"{self._host} never had it, or it was deleted: one that can be recovered looks the same",
                fix="correct the reference or its store, or add or recover the secret",
            )
        if "SecretDisabled" in codes:
            return _disabled()
        if status == 403:
            why, fix = next(
                (REFUSALS[code] for code in codes if code in REFUSALS), ("the identity may not read it", ROLE)
            )
            return Denied("the vault refuses to give it", why=why, fix=fix)
        if status == 401 and self._login.succeeded:
            # The SDK has sent it twice; no other secret is asked for with it.
            self._failed = Denied(
                "the vault does not accept the token",
                why="it has been revoked, or is of another tenant or cloud than the vault",
                fix="correct spec.azurekv.tenantID or authorityHost, or the identity",
            )
            return again(self._failed)
        if status is not None and can_pass(status):
            return busy(status, f"the vault {self._host}")
        if status == 400:
            return StoreError(
                "the vault calls the request malformed", why="it takes no such name or version", fix="correct the ref"
            )
        return self._not_this_vault() if status == 401 else self._not_a_vault()

    def _not_a_vault(self) -> Unavailable:
        return Unavailable(
            f"{self._host} does not answer as a Key Vault does",
            why="something else answers at its address, or sends elsewhere",
            fix="correct spec.azurekv.url, or the network on the way to it",
        )

    def _not_this_vault(self) -> Unavailable:
        """Its challenge is none, or wants a token for another domain than the vault's."""
        return Unavailable(
            f"{self._host} does not ask for a login as a Key Vault at this address does",
            why="something else answers there, or the vault has a DNS name of its own",
            fix="correct spec.azurekv.url; for a DNS name of your own set verifyChallengeResource: false",
        )


def _one(listed: Sequence[Any], version: str | None) -> Any:
    """This version of those that are listed, or the one that the vault gives where none is named; None: in doubt."""
    if version:
        return next((each for each in listed if (each.version or "").lower() == version.lower()), None)
    if not listed or not all(isinstance(each.created_on, datetime) for each in listed):
        return None
    newest = max(listed, key=lambda each: each.created_on)
    # Seconds are all that is told. A certificate's version can wait for its merge, and be the latest only then.
    rivals = (max(each.created_on, each.updated_on) if each.managed else each.created_on for each in listed)
    return newest if sum(moment >= newest.created_on for moment in rivals) == 1 else None


def _codes(error: Any) -> list[str]:
    """The codes in a Key Vault error, the innermost first; its texts stay where they are."""
    codes: list[str] = []
    with contextlib.suppress(Exception):
        inner = error.response.json().get("error")
        while isinstance(inner, dict):
            codes.insert(0, str(inner.get("code")))
            inner = inner.get("innererror") or inner.get("innerError")
    return codes


def _disabled() -> StoreError:
    return StoreError("it is disabled", fix="enable this version of the secret, or store a new one")


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
