"""Azure's SDK as a store uses it: loaded without what it seldom needs, and held to the limits of the run.

The SDK's client, credentials, pipeline and retry policy do the work. What is set here is below and between them: one
transport for the vault and one for the login, each with a pool of connections and one TLS context; no request and no
pause that would pass the run's deadline; and a plain word for what went wrong on the network.
"""

import random
import re
import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from secretweave import sdk
from secretweave.errors import StoreError, Unavailable
from secretweave.sdk import network

if TYPE_CHECKING:
    from secretweave.stores.base import Limits

EXTRA = "azure"
WRONG_NAME = frozenset({62, 64})
OUT_OF_DATE = frozenset({9, 10})
UNKNOWN_ISSUER = frozenset({2, 7, 18, 19, 20, 21})
"""X509_V_ERR_... of OpenSSL, as `ssl.SSLCertVerificationError.verify_code` has them."""


def load() -> None:
    """Imports it. Raises StoreError: it is not installed."""
    sdk.quiet()
    sdk.load("azure.keyvault.secrets", EXTRA)
    sdk.load("azure.identity", EXTRA)
    sdk.load("requests", EXTRA)
    from azure.core.settings import settings

    # A span of a tracing SDK that happens to be installed would carry addresses out of the run.
    settings.tracing_enabled = False


def trust(ca_file: str | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Checks servers against *ca_file*, or what the environment names for `requests`, or what comes with that.

    It is made once: `requests` itself would read the whole bundle again for every connection, 13 ms each.
    """
    from certifi import where
    from urllib3.util.ssl_ import create_urllib3_context

    bundle = ca_file or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or where()
    context = create_urllib3_context()
    try:
        try:
            context.load_verify_locations(cafile=bundle)
        except IsADirectoryError:
            context.load_verify_locations(capath=bundle)
    except OSError:
        raise StoreError(
            "the file of trusted certificates cannot be used",
            why="it is not there, not readable, or holds no certificate in PEM form",
            fix="correct spec.azurekv.caFile, or REQUESTS_CA_BUNDLE in the environment",
        ) from None
    return context


def retries(limits: "Limits") -> dict[str, Any]:
    """The SDK's settings for what may be tried again, for any of its pipelines."""
    again = limits.attempts - 1
    counts = {f"retry_{kind}": again for kind in ("total", "connect", "read", "status")}
    return counts | {"retry_backoff_factor": limits.pause_seconds, "retry_backoff_max": limits.pause_seconds_max}


def retry_policy(limits: "Limits") -> Any:
    """The SDK's policy, which would otherwise try again at once, the first time, and for other faults as well."""
    from azure.core.pipeline.policies import RetryPolicy

    class Policy(RetryPolicy[Any, Any]):
        def get_backoff_time(self, settings: dict[str, Any]) -> float:
            pauses = self.total_retries - int(settings["total"])
            return min(limits.pause_seconds * 2.0 ** (pauses - 1), limits.pause_seconds_max)

        def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
            return can_pass(response.http_response.status_code) and bool(super().is_retry(settings, response))

    return Policy(**retries(limits))


def can_pass(status: int) -> bool:
    return status in {408, 429, 500, 502, 503, 504}


def transport(role: str, limits: "Limits", tls: ssl.SSLContext, connections: int) -> Any:
    """The SDK's transport over `requests`, on as many *connections*, within *limits*. *role*: who is asked."""
    import threading

    import requests
    from azure.core.exceptions import AzureError
    from azure.core.pipeline.transport import RequestsTransport

    class Adapter(network.adapter(EXTRA, tls)):  # type: ignore[misc]  # loaded late: Any
        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            """Never by what REQUESTS_CA_BUNDLE or a setting of the SDK says."""
            return super().send(request, *arguments, **options | {"verify": True})

    class Transport(RequestsTransport):  # type: ignore[misc] # azure-core gives it by __getattr__, without a type
        def __init__(self) -> None:
            session = requests.Session()
            # Without it `requests` would look into ~/.netrc, and send what it finds there instead of the token.
            session.auth = lambda request: request
            session.mount("https://", Adapter(pool_maxsize=connections))
            super().__init__(session=session)
            self._last = threading.local()

        @property
        def trouble(self) -> Unavailable | None:
            """Why the last request of this thread had no answer to use; the SDK's own errors often lose it."""
            return getattr(self._last, "trouble", None)

        def send(self, request: Any, *, proxies: Any = None, **options: Any) -> Any:
            remaining = limits.deadline - time.monotonic()
            if remaining <= 0:
                raise self.trouble or _no_time(role)
            for name in ("connection_timeout", "read_timeout"):
                options[name] = min(options.get(name, limits.attempt_seconds), limits.attempt_seconds, remaining)
            host = urlsplit(request.url).hostname or ""
            try:
                response = super().send(request, proxies=proxies, **options)
            except AzureError as error:
                self._last.trouble = unreachable(error, f"{role} {host}")
                if _certificate_fault(error) is not None:
                    # Not the SDK's error, which would be tried again: a certificate is no better the next time.
                    raise self._last.trouble from None
                raise
            bad = can_pass(response.status_code)
            self._last.trouble = busy(response.status_code, f"{role} {host}") if bad else None
            return response

        def sleep(self, duration: float) -> None:
            pause = duration * random.uniform(1, 1.3)  # noqa: S311 - spreads the requests of many runs, hides nothing
            if time.monotonic() + pause >= limits.deadline:
                raise self.trouble or _no_time(role)
            super().sleep(pause)

    return Transport()


def busy(status: int, who: str) -> Unavailable:
    if status == 429:
        return Unavailable(
            f"{who} answers HTTP 429",
            why="it is asked too often, by this run or by others",
            fix="render less often or less at a time, or spread the secrets over several vaults",
        )
    return Unavailable(f"{who} answers HTTP {status}", why="it is out of order", fix="try again later")


def unreachable(error: BaseException, who: str) -> Unavailable:
    """What a failure on the network was, in words that hold nothing of the SDK's."""
    causes = tuple(network.causes(error))
    certificate = _certificate_fault(error)
    if certificate is not None:
        fix = "correct the address, or set spec.azurekv.caFile to the certificate of the authority that signed it"
        return Unavailable(f"{who} cannot be trusted", why=_why_not_trusted(certificate.verify_code), fix=fix)
    why, fix = "the connection broke", "look after the network on the way to it"
    if any(type(each).__name__ == "ProxyError" for each in causes):
        why, fix = "the proxy does not lead there", "correct HTTPS_PROXY or NO_PROXY in the environment"
    elif any(isinstance(each, socket.gaierror) for each in causes):
        why, fix = "DNS does not know this name", "correct spec.azurekv.url or authorityHost, or the DNS"
    elif any(isinstance(each, ConnectionRefusedError) for each in causes):
        why = "nothing listens there"
    elif any(isinstance(each, ssl.SSLError) for each in causes):
        why = "it does not speak TLS as it should"
    elif any(isinstance(each, TimeoutError) or "Timeout" in type(each).__name__ for each in causes):
        why = "it did not answer in time"
    return Unavailable(f"{who} cannot be reached", why=why, fix=fix)


def again(error: StoreError) -> StoreError:
    """The same error for another thread."""
    return type(error)(error.what, why=error.why, fix=error.fix)


def host_of(url: str) -> str | None:
    """HOST or HOST:PORT of https://HOST[:PORT][/]; None: it is something else."""
    match = re.fullmatch(r"https://([0-9a-z.-]+(?::[0-9]{1,5})?)/?", url.lower())
    return match[1].removesuffix(":443") if match else None


def _certificate_fault(error: BaseException) -> ssl.SSLCertVerificationError | None:
    return next((each for each in network.causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None)


def _why_not_trusted(code: int) -> str:
    if code in WRONG_NAME:
        return "its certificate is for another name"
    if code in OUT_OF_DATE:
        return "its certificate has expired, or is not valid yet"
    if code in UNKNOWN_ISSUER:
        return "its certificate is signed by an authority that is not trusted here"
    return "its certificate is not valid"


def _no_time(role: str) -> Unavailable:
    return Unavailable(
        f"{role} was not asked any more",
        why="the run's time is over",
        fix="look after the store, or raise limits.deadline in the configuration",
    )
