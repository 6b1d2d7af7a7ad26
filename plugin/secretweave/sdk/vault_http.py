"""Vault's HTTP API through hvac: TLS, proxies, one request with its retries, and what can go wrong on the way to it.

The answers to a request that arrived are the store's business; what is wrong with the server as a whole is told here.
No request is redirected: a standby's 307 leads to another host, and requests would take the token along.
"""

import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

from secretweave.errors import StoreError, Unavailable
from secretweave.sdk import defer, importing, load, network, quiet
from secretweave.sdk.vault_connection import Connection
from secretweave.stores.base import Limits

Send = Callable[[Any], Any]
"""Sends one request through an hvac adapter, and gives the response of requests."""

MAY_PASS = frozenset({429, 500, 502, 503, 504})
OWN_TROUBLE = {
    429: ("it gets too many requests", "wait, or raise the rate limit quota"),
    472: (
        "it is a standby of a disaster recovery cluster",
        "write the address of the active cluster in spec.vault.url",
    ),
    473: ("it is a performance standby", "write the address of the active node in spec.vault.url"),
    501: ("it is not initialized", "look after the Vault server"),
}
ORIGIN = r"(https?)://(?:[^/@]*@)?([a-zA-Z0-9_.:\[\]-]{1,255})(?:[/?#]|$)"
NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "UNKNOWN_PROTOCOL")
OTHER_NAME = frozenset({62, 64})
EXPIRED = 10
"""OpenSSL's codes of a certificate for another name or address, and of one whose time is over."""


class Answer(NamedTuple):
    status: int
    body: Mapping[str, Any]

    @property
    def fault(self) -> str:
        """Vault's own words, to look at: they never go into a message."""
        errors = self.body.get("errors")
        return " ".join(each for each in errors if isinstance(each, str)) if isinstance(errors, list) else ""


def preload() -> None:
    """Imports what a run needs, which may be done while its input is still read."""
    _hvac()


def _hvac() -> Any:
    """The part of hvac that is used."""
    quiet()
    with importing:
        # It guesses at the character set of a text whose sender says none: not of an answer of Vault. requests asks it
        # for its version, and loads it for that.
        deferred = defer("charset_normalizer")
        if deferred is not None:
            with suppress(ImportError, AttributeError):
                vars(deferred)["__version__"] = import_module("charset_normalizer.version").__version__
        try:
            load("hvac.exceptions", "vault", bare=("hvac",))
            # The adapters need it for exceptions that are switched off here, and it imports `inspect`.
            defer("hvac.utils")
            return load("hvac.adapters", "vault", bare=("hvac",))
        except (StoreError, AttributeError):
            # Another version may need more of itself: then all of it, or a word about what is missing.
            for name in [name for name in sys.modules if f"{name}.".startswith("hvac.")]:
                del sys.modules[name]
            return load("hvac.adapters", "vault")


class Http:
    """The way to one Vault: an hvac adapter over pooled connections."""

    def __init__(self, connection: Connection, namespace: str, limits: Limits) -> None:
        self.shown = connection.shown
        self._connection = connection
        self._limits = limits
        adapters = _hvac()
        import requests
        from urllib3 import exceptions

        self._errors = (requests.RequestException, exceptions.HTTPError, OSError, ValueError)
        session = requests.Session()
        # It would read ~/.netrc, and proxies and authorities from this process's environment.
        session.trust_env = False
        session.verify = connection.verified
        session.headers.clear()
        session.headers.update({"Accept": "application/json", "User-Agent": "secretweave"})
        session.proxies = {"http": connection.proxy, "https": connection.proxy} if connection.proxy else {}
        session.mount(f"{connection.scheme}://", connection.transport(limits))
        # No exceptions of its own: it has one and the same for 405, 472 and 504, and each holds the whole answer.
        self._adapter = adapters.RawAdapter(
            base_uri=connection.shown,
            verify=connection.verified,
            allow_redirects=False,
            session=session,
            namespace=namespace or None,
            ignore_exceptions=True,
        )

    def ask(self, send: Send, *, twice: bool = True, last_word: frozenset[int] = frozenset()) -> Answer:
        """Vault's answer. Raises Unavailable: there is none, or none from a Vault that works.

        *twice*: may it be sent again when Vault may already have acted on it? *last_word*: statuses that are an answer,
        though for others they mean that Vault is in trouble.
        """
        for attempt in range(1, self._limits.attempts + 1):
            if time.monotonic() >= self._limits.deadline:
                raise self._down("the run's time is over", "raise limits.deadline in the configuration")
            after = 0.0
            try:
                response = send(self._adapter)
            except self._errors as error:
                failure, again = self._unreachable(error, twice=twice)
            else:
                if response.status_code not in MAY_PASS - last_word:
                    return self._answer(response)
                failure, again, after = self._trouble(response), True, network.retry_after(response.headers)
            pause = max(network.pause(self._limits, attempt), after)
            if not again or attempt == self._limits.attempts or time.monotonic() + pause >= self._limits.deadline:
                raise failure
            time.sleep(pause)
        raise AssertionError("the last attempt ends the loop")

    def try_once(self, send: Send) -> None:
        """For what may fail: nobody waits long for it, and nobody is told."""
        if time.monotonic() < self._limits.deadline:
            with suppress(*self._errors):
                send(self._adapter)

    def close(self) -> None:
        self._adapter.close()

    def _down(self, why: str, fix: str) -> Unavailable:
        return Unavailable(f"Vault at {self.shown} does not answer", why=why, fix=fix)

    def _no_answer(self, found: str) -> Unavailable:
        return self._down(
            f"what is there gave something else than an answer of Vault ({found})",
            "correct spec.vault.url, or look after what stands between",
        )

    def _answer(self, response: Any) -> Answer:
        import json

        status: int = response.status_code
        if 300 <= status < 400:
            raise self._redirected(response)
        if status in OWN_TROUBLE or (status >= 500 and status not in MAY_PASS):
            raise self._trouble(response)
        try:
            body = json.loads(response.content) if response.content else {}
        except (ValueError, RecursionError):
            body = None
        if status in {401, 403} and not isinstance(body, dict):
            return Answer(status, {})
        # A 404 counts as "nothing stored there" only from Vault itself: not from a web server that happens to be there.
        if isinstance(body, dict) and (status < 400 or {"errors", "data"} & set(body)):
            return Answer(status, body)
        if b"HTTP request to an HTTPS server" in response.content[:200]:
            raise self._down("it speaks TLS", "write https:// in spec.vault.url")
        raise self._no_answer(f"status {status}")

    def _redirected(self, response: Any) -> Unavailable:
        found = re.match(ORIGIN, response.headers.get("Location", ""))
        where = f"{found[1]}://{found[2]}" if found else "another path"
        return Unavailable(
            f"Vault at {self.shown} redirects to {where}",
            why="it is a standby that does not forward requests, or no Vault; the token is not sent to another address",
            fix="write the address of the active node, or of its load balancer, in spec.vault.url",
        )

    def _trouble(self, response: Any) -> Unavailable:
        status: int = response.status_code
        if status == 503 and b"sealed" in response.content[:500]:
            return self._down("it is sealed", "unseal it")
        why, fix = OWN_TROUBLE.get(status, ("", "look after the Vault server, or what stands before it"))
        return self._down(f"{why or 'it is in trouble'} (status {status})", fix)

    def _unreachable(self, error: Exception, *, twice: bool) -> tuple[Unavailable, bool]:
        """What an exception of requests means, and whether another attempt makes sense."""
        import socket
        import ssl

        import requests
        from urllib3 import exceptions

        causes = tuple(network.causes(error))

        def find(*classes: type[BaseException]) -> Any:
            return next((each for each in causes if isinstance(each, classes)), None)

        if found := find(ssl.SSLCertVerificationError):
            return self._not_trusted(found.verify_code), False
        if found := find(ssl.SSLError):
            return self._no_tls("EOF" if isinstance(found, ssl.SSLEOFError) else found.reason or ""), False
        if isinstance(error, ValueError):
            return self._no_answer("a redirect that cannot be read"), False
        if find(exceptions.ProxyError):
            return self._down(
                f"the proxy of {self._connection.proxied_by} does not", "correct it, or name the host in NO_PROXY"
            ), True
        if find(socket.gaierror):
            return self._down(
                f"the name {self._connection.host} is unknown", "correct spec.vault.url, or look after the DNS"
            ), True
        if find(ConnectionRefusedError):
            return self._down("nothing listens there", "correct spec.vault.url, or start Vault"), True
        if find(requests.ConnectTimeout):
            fix = "correct spec.vault.url, or look after the network on the way (a firewall?)"
            return self._down("no connection came about in time", fix), True
        if find(requests.Timeout, exceptions.ReadTimeoutError):
            return self._down("nothing came in time", "look after the Vault server"), twice
        never_sent = find(exceptions.NewConnectionError) is not None
        return self._down("the connection broke off", "look after the network, or the proxies on the way"), (
            twice or never_sent
        )

    def _not_trusted(self, code: int) -> Unavailable:
        if code in OTHER_NAME:
            why = "its certificate is for other names"
            fix = "write a name of the certificate in spec.vault.url, or in spec.vault.tls.serverName"
        elif code == EXPIRED:
            why, fix = "its certificate has expired", "renew the server's certificate"
        else:
            why = f"its certificate is signed by none of {self._connection.trust}"
            fix = "name the authority that signed it in spec.vault.tls.caFile or VAULT_CACERT"
        return Unavailable(f"Vault at {self.shown} is not trusted", why=why, fix=fix)

    def _no_tls(self, reason: str) -> Unavailable:
        if reason.endswith(NOT_TLS):
            return self._down(
                "what is there does not speak TLS", "write http:// in spec.vault.url, or correct the port"
            )
        if "ALERT" in reason:
            return self._down(
                "it demands a client certificate, or refuses ours",
                "set spec.vault.tls.certFile and keyFile (VAULT_CLIENT_CERT, VAULT_CLIENT_KEY)",
            )
        if reason == "EOF":
            # Behind a refusal in TLS 1.3, which comes after the handshake, a busy machine sees only the end.
            return self._down(
                "it ended the connection in TLS: it may demand a client certificate, or refuse ours",
                "set spec.vault.tls.certFile and keyFile (VAULT_CLIENT_CERT, VAULT_CLIENT_KEY), or mend the network",
            )
        return self._down("no TLS connection came about", "look after the server's TLS settings")
