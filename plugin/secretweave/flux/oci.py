"""The few calls to an OCI registry that a push makes.

By `requests`, and not by `oras`, which was read first: version 0.2.43 takes every failure, a wrong password too, for a
reason to wait and ask again, more than two minutes in all, without a timeout for a request and without a deadline for
the whole; it must be told before it asks whether a registry wants Basic authentication or tokens; it exchanges no
identity tokens; and it pushes files, where what may be plaintext must not become one.

Credentials go to the registry itself and to where its token service is, and to no place that it redirects to.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
https://distribution.github.io/distribution/spec/auth/token/ and its neighbour `oauth`
"""

import hashlib
import json
import os
import re
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from secretweave import __version__
from secretweave.errors import ConfigError, Denied, StoreError, Unavailable
from secretweave.flux.docker import HUB, Login
from secretweave.sdk import load, network, quiet
from secretweave.stores.base import Limits

EXTRA = "flux"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_MAX = 4 << 20
"""https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests"""
ANSWER_MAX = 64 << 10
PIECE = 1 << 16
REDIRECTS_MAX = 5
ATTEMPTS = 6
MAY_PASS = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CLIENT = "secretweave"
HUB_API = "registry-1.docker.io"

_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    r"oci://(?P<registry>(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*):(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})"
)
LOOPBACK = re.compile(r"localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\]")


class Reference(NamedTuple):
    registry: str
    """`HOST` or `HOST:PORT`."""
    repository: str
    tag: str
    loopback: bool = False

    def pinned(self, digest: str) -> str:
        """As `cosign sign` and others take it."""
        return f"{self.registry}/{self.repository}@{digest}"


def parse(text: str) -> Reference:
    """`oci://HOST[:PORT]/REPO:TAG`. Raises ConfigError."""
    match = REFERENCE.fullmatch(text)
    fix = "write oci://HOST[:PORT]/REPOSITORY:TAG, such as oci://registry.example.com/team/app:latest"
    if match is None:
        why = "the repository has lower-case letters, and the tag at most 128 letters, digits, `.`, `_` and `-`"
        if "@" in text:
            why = "a digest cannot be pushed to: it comes from what is pushed"
        raise ConfigError("the artifact's address is malformed", why=why, fix=fix)
    host, registry = match["host"], match["registry"]
    if "." not in host and ":" not in registry and host != "localhost":
        raise ConfigError("the artifact's address names no host", why="a host has a dot or a port in it", fix=fix)
    loopback = LOOPBACK.fullmatch(host) is not None
    return Reference(HUB if registry == "docker.io" else registry, match["repository"], match["tag"], loopback)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """One repository of a registry. Every method raises StoreError, of which Denied and Unavailable."""

    def __init__(self, reference: Reference, login: Login | None, deadline: float, *, plain_http: bool = False) -> None:
        """*deadline*: on time.monotonic's clock. *plain_http*: speak it; on loopback that is found out."""
        quiet()
        self._requests = load("requests", EXTRA)
        self._reference = reference
        self._login = login
        self._limits = Limits(deadline, attempts=ATTEMPTS, attempt_seconds=30.0)
        self._authorization = ""
        self._session = self._requests.Session()
        self._session.cookies.set_policy(_no_cookies())
        self._session.mount("https://", network.adapter(EXTRA, _security())())
        scheme = "http" if plain_http or (reference.loopback and self._speaks_no_tls()) else "https"
        host = HUB_API if reference.registry == HUB else reference.registry
        self._base = f"{scheme}://{host}/v2/{reference.repository}/"

    def close(self) -> None:
        self._session.close()

    def manifest(self) -> bytes | None:
        """What the tag names; None: nothing."""
        answer = self._ask(
            "GET", self._tag(), headers={"Accept": f"{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}"}, limit=MANIFEST_MAX
        )
        return None if answer.status == 404 else answer.body

    def blob(self, digest: str, limit: int) -> bytes | None:
        """None: the registry has none of that digest."""
        answer = self._ask("GET", f"{self._base}blobs/{digest}", limit=limit)
        if answer.status == 404:
            return None
        if digest_of(answer.body) != digest:
            raise StoreError(f"{self._name} gave other bytes than those of the digest", fix="look after the registry")
        return answer.body

    def upload(self, data: bytes) -> None:
        """Puts a blob there, unless it is there."""
        digest = digest_of(data)
        if self._ask("HEAD", f"{self._base}blobs/{digest}").status == 200:
            return
        for attempt in range(ATTEMPTS):
            begun = self._ask("POST", f"{self._base}blobs/uploads/", good=(202,))
            place = self._sent_to(self._base, begun)
            place += ("&" if urlsplit(place).query else "?") + urlencode({"digest": digest})
            headers = {"Content-Type": "application/octet-stream"}
            done = self._ask("PUT", place, data=data, headers=headers, good=(201, 204, 404))
            if done.status != 404:
                return
            # The upload was forgotten, by a restart or another replica: it begins anew.
            self._wait(attempt + 1, done)
        raise StoreError(f"{self._name} forgets uploads before they are done", fix="look after the registry")

    def tag(self, manifest: bytes) -> None:
        """Lets the tag name the manifest, and looks whether it does."""
        self._ask("PUT", self._tag(), data=manifest, headers={"Content-Type": MANIFEST}, good=(201, 200))
        expected = digest_of(manifest)
        answer = self._ask("HEAD", self._tag(), headers={"Accept": MANIFEST})
        digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:
            digest = digest_of(self.manifest() or b"")
        if digest != expected:
            raise StoreError(
                f"the tag {self._reference.tag} names another artifact than the one that was pushed",
                why="somebody else pushed to it at the same time, or the registry changes what it is given",
                fix="push again; let one pipeline alone push to a tag",
            )

    @property
    def _name(self) -> str:
        return f"the registry {self._reference.registry}"

    def _tag(self) -> str:
        return f"{self._base}manifests/{self._reference.tag}"

    def _ask(
        self,
        method: str,
        url: str,
        *,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit: int = ANSWER_MAX,
        good: tuple[int, ...] = (200, 404),
    ) -> _Answer:
        """One call with its login, its redirects and its further attempts."""
        headers = dict(headers or {})
        answer = self._try(method, url, data, headers, limit)
        ours = _origin(url) == _origin(self._base)
        if answer.status == 401 and ours and self._log_in(answer.headers.get("WWW-Authenticate", "")):
            answer = self._try(method, url, data, headers, limit)
        for _ in range(REDIRECTS_MAX):
            if answer.status not in REDIRECTS or method not in {"GET", "HEAD"}:
                break
            url = self._sent_to(url, answer)
            answer = self._try(method, url, data, headers, limit)
        if answer.status in good:
            return answer
        raise self._refusal(answer)

    def _sent_to(self, url: str, answer: _Answer) -> str:
        """The address that an answer names; never one on the way to which others read what they could not before."""
        try:
            place = urljoin(url, answer.headers.get("Location", ""))
            scheme = urlsplit(place).scheme
        except ValueError:
            place, scheme = "", "no known form"
        if scheme not in {"https", urlsplit(self._base).scheme}:
            raise self._misled(scheme)
        return place

    def _misled(self, form: str) -> StoreError:
        return StoreError(
            f"{self._name} sends on to an address of {form}",
            why="it is behind a proxy, and does not know its own address",
            fix="let the proxy set X-Forwarded-Proto, or configure the address in the registry",
        )

    def _try(self, method: str, url: str, data: bytes, headers: Mapping[str, str], limit: int) -> _Answer:
        attempt = 1
        while True:
            fault: StoreError | None = None
            answer = _Answer(0, {}, b"")
            try:
                answer = self._once(method, url, data, headers, limit)
                if answer.status not in MAY_PASS:
                    return answer
            except self._requests.RequestException as error:
                fault = self._unreached(error)
                if not isinstance(fault, Unavailable):
                    raise fault from None
            except ValueError:
                # requests looks at where it is sent on to, whether it goes there or not.
                raise self._misled("no known form") from None
            if attempt >= ATTEMPTS or not self._wait(attempt, answer):
                raise fault or self._refusal(answer)
            attempt += 1

    def _once(self, method: str, url: str, data: bytes, headers: Mapping[str, str], limit: int) -> _Answer:
        own = {"User-Agent": f"{CLIENT}/{__version__}"}
        if self._authorization and _origin(url) == _origin(self._base):
            own["Authorization"] = self._authorization
        left = self._limits.deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        response = self._session.request(
            method,
            url,
            data=data or None,
            headers={**headers, **own},
            stream=True,
            allow_redirects=False,
            timeout=min(self._limits.attempt_seconds, left),
            # A login of ~/.netrc would take the place of the one above.
            auth=lambda request: request,
        )
        with response:
            return _Answer(response.status_code, response.headers, self._body(response, limit))

    def _body(self, response: Any, limit: int) -> bytes:
        body = bytearray()
        for piece in response.iter_content(PIECE):
            body += piece
            if len(body) > limit:
                raise StoreError(
                    f"{self._name} gives more than {limit} bytes where that is the most", fix="look after the registry"
                )
            if time.monotonic() > self._limits.deadline:
                raise self._late()
        return bytes(body)

    def _wait(self, attempt: int, answer: _Answer) -> bool:
        """False: there is no time for another attempt."""
        seconds = max(network.pause(self._limits, attempt), network.retry_after(answer.headers))
        if time.monotonic() + seconds >= self._limits.deadline:
            return False
        time.sleep(seconds)
        return True

    def _log_in(self, challenge: str) -> bool:
        """Is there another login than the one that was refused?"""
        scheme, _, rest = challenge.partition(" ")
        told = {name.lower(): value for name, value in re.findall(r'(\w+)="([^"]*)"', rest)}
        before = self._authorization
        if scheme.lower() == "bearer":
            self._authorization = f"Bearer {self._token(told)}"
        elif scheme.lower() == "basic" and self._login is not None and self._login.user:
            self._authorization = self._basic()
        return self._authorization != before

    def _basic(self) -> str:
        assert self._login is not None
        return f"Basic {b64encode(f'{self._login.user}:{self._login.password}'.encode()).decode()}"

    def _token(self, told: Mapping[str, str]) -> str:
        login = self._login or Login()
        if login.token:
            return login.token
        try:
            realm = urlsplit(told.get("realm", ""))
        except ValueError:
            realm = urlsplit("")
        if realm.scheme != "https" and (realm.scheme, self._base[:5]) != ("http", "http:"):
            raise StoreError(
                f"{self._name} names no token service that is reached by https", fix="look after the registry"
            )
        asked = {name: told[name] for name in ("service", "scope") if told.get(name)}
        if login.identity_token:
            form = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": login.identity_token, **asked}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._try("POST", told["realm"], urlencode(form).encode(), headers, ANSWER_MAX)
        else:
            url = told["realm"] + ("&" if realm.query else "?") + urlencode(asked)
            headers = {"Authorization": self._basic()} if login.user else {}
            answer = self._try("GET", url, b"", headers, ANSWER_MAX)
        if answer.status != 200:
            raise self._refusal(answer)
        try:
            given = json.loads(answer.body)
            return str(given.get("token") or given["access_token"])
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise StoreError(f"the token service of {self._name} gave no token", fix="look after it") from None

    def _refusal(self, answer: _Answer) -> StoreError:
        """A registry's own words can hold anything, and are not shown."""
        if answer.status in {401, 403}:
            if self._login is None:
                return Denied(
                    f"{self._name} wants a login",
                    why="neither Docker's config.json nor a credential helper that it names has one for it",
                    fix=f"run `docker login {self._reference.registry}`, or let DOCKER_CONFIG name a folder with a "
                    "config.json",
                )
            return Denied(
                f"{self._name} refuses the login, or its right to push to {self._reference.repository}",
                why="the user or the password is wrong, the token is over, or the user may not write there",
                fix=f"run `docker login {self._reference.registry}` anew, and have push rights granted",
            )
        if answer.status in MAY_PASS:
            return Unavailable(
                f"{self._name} answers with HTTP status {answer.status}, again and again",
                fix="look after the registry, or raise limits.deadline in the configuration",
            )
        why = {
            404: "there is no such repository, and it makes none by itself",
            405: "it, or the repository, is read-only",
            413: "the artifact is larger than it takes",
        }.get(answer.status, "")
        return StoreError(
            f"{self._name} answers with HTTP status {answer.status}", why=why, fix="look after the registry"
        )

    def _unreached(self, error: Exception) -> StoreError:
        import socket

        for cause in network.causes(error):
            if isinstance(cause, StoreError):
                return cause
            if isinstance(cause, ssl.SSLCertVerificationError):
                return StoreError(
                    f"the certificate of {self._name} is not trusted",
                    why="an authority signed it that this machine does not know, or it is for another name, or over",
                    fix="let SSL_CERT_FILE name a file with the authority's certificate",
                )
            if isinstance(cause, ssl.SSLError):
                return StoreError(
                    f"{self._name} speaks no TLS that is understood",
                    why="it speaks plain HTTP, or TLS of an old version",
                    fix="correct the port; pass --insecure-registry for a registry that speaks plain HTTP",
                )
            if isinstance(cause, socket.gaierror):
                return Unavailable(
                    f"there is no host of the name of {self._name}", fix="correct the address, or the resolver"
                )
            if isinstance(cause, ConnectionRefusedError):
                return Unavailable(f"{self._name} takes no connection", fix="correct the port, or start the registry")
        if time.monotonic() >= self._limits.deadline:
            return self._late()
        return Unavailable(
            f"{self._name} does not answer", fix="look after it, the network, and HTTPS_PROXY and NO_PROXY"
        )

    def _late(self) -> Unavailable:
        return Unavailable(
            f"the run's deadline was over before {self._name} had all",
            fix="raise limits.deadline in the configuration, or look after the registry",
        )

    def _speaks_no_tls(self) -> bool:
        try:
            self._once("GET", f"https://{self._reference.registry}/v2/", b"", {}, ANSWER_MAX)
        except self._requests.exceptions.SSLError as error:
            return not any(isinstance(each, ssl.SSLCertVerificationError) for each in network.causes(error))
        except self._requests.RequestException:
            return False
        return False


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _no_cookies() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=())


def _security() -> ssl.SSLContext:
    """Trusts what the machine trusts (SSL_CERT_FILE and SSL_CERT_DIR say another place, as with Flux's own command)."""
    security = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    places = ssl.get_default_verify_paths()
    if places.cafile or (places.capath and os.listdir(places.capath)):
        security.load_default_certs()
    else:
        security.load_verify_locations(cafile=load("certifi", EXTRA).where())
    return security
