"""How to come to a Vault: its address, the proxy on the way, and TLS; from the settings, else from the environment."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from secretweave.errors import StoreError
from secretweave.forms import FilePath
from secretweave.sdk import load, network
from secretweave.stores.base import Context, Limits, SecretKeyRef

if TYPE_CHECKING:
    import ssl

    import requests

POOL = 16
"""How many requests at a time, each on a connection of its own."""
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
"""What Vault's own programs take for true in the environment."""


class Tls(NamedTuple):
    """What is not set here is taken from the environment: VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT,
    VAULT_CLIENT_KEY, VAULT_TLS_SERVER_NAME, VAULT_SKIP_VERIFY.
    """

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; only it is then trusted."""
    ca_secret_ref: SecretKeyRef | None = None
    """The same, as PEM text in a Secret."""
    cert_file: FilePath | None = None
    """The certificate by which the client shows itself."""
    key_file: FilePath | None = None
    server_name: str | None = None
    """The name that the server's certificate must have, if not that of the address."""
    insecure_skip_verify: bool | None = None
    """true: any certificate is taken, whoever it belongs to; every run warns of it."""


class Connection(NamedTuple):
    scheme: str
    host: str
    shown: str
    """The address, as it may stand in an error."""
    proxy: str
    proxied_by: str
    """The variable that names the proxy."""
    verified: bool
    trust: str
    """Whose certificates are taken, in words."""
    tls: "ssl.SSLContext | None"
    """None: there is none."""
    server_name: str
    """What the certificate must be for; empty: the host."""

    def transport(self, limits: Limits) -> Any:
        return _transport(self.tls, self.server_name, limits)


def variable(environ: Mapping[str, str], name: str) -> str:
    """VAULT_NAME, else OpenBao's BAO_NAME."""
    return environ.get(f"VAULT_{name}") or environ.get(f"BAO_{name}") or ""


def connection_of(url: str | None, tls: Tls, context: Context) -> Connection:
    """Raises StoreError: an address that is none, a certificate that cannot be used."""
    address = _address(url or variable(context.environ, "ADDR"))
    shown = f"{address.scheme}://{address.netloc}{address.path}".rstrip("/")
    proxied_by, proxy = _proxy(address, context.environ)
    trust, verified = "", True
    security, server_name = None, ""
    if address.scheme == "https":
        verified = not _skips(tls, context, shown)
        security, trust = _security(tls, context, verified=verified)
        server_name = tls.server_name or variable(context.environ, "TLS_SERVER_NAME")
    host = address.hostname or ""
    return Connection(address.scheme, host, shown, proxy, proxied_by, verified, trust, security, server_name)


def _address(url: str) -> SplitResult:
    if not url:
        raise StoreError(
            "the address of Vault is not known", fix="set spec.vault.url of the SecretStore, or VAULT_ADDR (BAO_ADDR)"
        )
    fix = "write https://HOST:PORT in spec.vault.url of the SecretStore (or VAULT_ADDR)"
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 - raises for one that is no number
    except ValueError:
        raise StoreError("the address of Vault cannot be read", fix=fix) from None
    if "@" in address.netloc:
        raise StoreError("the address of Vault holds a user name", why="Vault knows none", fix=fix)
    plain = url.isascii() and url.isprintable() and " " not in url
    if (
        address.scheme not in {"http", "https"}
        or not address.hostname
        or address.query
        or address.fragment
        or not plain
    ):
        raise StoreError("the address of Vault is no http or https address", fix=fix)
    return address


def _proxy(address: SplitResult, environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that names a proxy for the address, and the proxy; empty where there is none."""
    own = ("VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY", "BAO_PROXY_ADDR", "BAO_HTTP_PROXY")
    common = (f"{address.scheme}_proxy", f"{address.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    name = next((each for each in (*own, *common) if environ.get(each)), "")
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not name or (name in common and _goes_direct(address, excepted)):
        return "", ""
    return name, environ[name]


def _goes_direct(address: SplitResult, excepted: str) -> bool:
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

    host = address.hostname or ""
    if proxy_bypass_environment(f"{host}:{address.port}" if address.port else host, {"no": excepted}):
        return True
    import ipaddress

    try:
        own = ipaddress.ip_address(host)
    except ValueError:
        return False
    for each in excepted.split(","):
        try:
            if own in ipaddress.ip_network(each.strip(), strict=False):
                return True
        except ValueError:
            pass
    return False


def _skips(tls: Tls, context: Context, shown: str) -> bool:
    """Is the server's certificate taken unseen?"""
    if tls.insecure_skip_verify is None:
        setting, skips = "VAULT_SKIP_VERIFY", variable(context.environ, "SKIP_VERIFY") in TRUE
    else:
        setting, skips = "spec.vault.tls.insecureSkipVerify", tls.insecure_skip_verify
    if skips:
        context.warn(f"the certificate of {shown} is not verified ({setting}): who answers there gets the credentials")
    return skips


def _security(tls: Tls, context: Context, *, verified: bool) -> tuple["ssl.SSLContext", str]:
    """How to speak TLS, and whom it trusts, in words."""
    import ssl

    security = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca_file = tls.ca_file or variable(context.environ, "CACERT")
    ca_path = variable(context.environ, "CAPATH")
    certificate = tls.cert_file or variable(context.environ, "CLIENT_CERT")
    key = tls.key_file or variable(context.environ, "CLIENT_KEY")
    setting = "tls.caFile or VAULT_CACERT"
    try:
        if tls.ca_secret_ref:
            setting, trust = "tls.caSecretRef", "the authorities in spec.vault.tls.caSecretRef"
            security.load_verify_locations(cadata=context.credential(tls.ca_secret_ref))
        elif ca_file:
            trust = "the authorities in " + ("spec.vault.tls.caFile" if tls.ca_file else "VAULT_CACERT")
            security.load_verify_locations(cafile=ca_file)
        elif ca_path:
            setting, trust = "VAULT_CAPATH", "the authorities in VAULT_CAPATH"
            for name in sorted(os.listdir(ca_path)):
                if not name.startswith(".") and os.path.isfile(os.path.join(ca_path, name)):
                    security.load_verify_locations(cafile=os.path.join(ca_path, name))
        else:
            trust = "the authorities that this machine trusts"
            _trust_machine(security)
        setting = "tls.certFile and tls.keyFile, or VAULT_CLIENT_CERT and VAULT_CLIENT_KEY"
        if certificate or key:
            if not (certificate and key):
                raise StoreError("a client certificate needs a file and its key", fix=f"set {setting}: both")
            # Without a password of ours, OpenSSL would ask the terminal for that of an encrypted key.
            security.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        raise StoreError(
            f"what {setting} names for TLS cannot be used",
            why="it is not there, may not be read, or is no PEM of that kind (an encrypted key is not supported)",
            fix=f"correct {setting} of the SecretStore's spec.vault",
        ) from None
    if not verified:
        security.check_hostname = False
        security.verify_mode = ssl.CERT_NONE
    return security, trust


def _trust_machine(security: "ssl.SSLContext") -> None:
    """The system's authorities, as Vault's own programs; where the system has none, those that requests brings."""
    import ssl

    places = ssl.get_default_verify_paths()
    if places.cafile or (places.capath and os.listdir(places.capath)):
        security.load_default_certs()
    else:
        security.load_verify_locations(cafile=load("certifi", "vault").where())


def _transport(tls: "ssl.SSLContext | None", server_name: str, limits: Limits) -> Any:
    class Transport(network.adapter("vault", tls, server_name=server_name)):  # type: ignore[misc]  # loaded late: Any
        """Bounded by the time that there is."""

        def send(
            self,
            request: "requests.PreparedRequest",
            stream: bool = False,
            timeout: Any = None,
            verify: Any = True,
            cert: Any = None,
            proxies: Any = None,
        ) -> Any:
            left = max(limits.deadline - time.monotonic(), 0.001)
            return super().send(request, stream, min(timeout, limits.attempt_seconds, left), verify, cert, proxies)

    return Transport(pool_connections=1, pool_maxsize=POOL)
