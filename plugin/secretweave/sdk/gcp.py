"""How Google Cloud is logged in to and asked: one login for all threads, one reading of the CA bundle.

The credentials, the requests and the repeats are google-auth's, requests' and google.api_core's own. Application
Default Credentials are looked for here, in google-auth's order: its google.auth.default() also looks for a project,
which we know, with workload identity federation by a request to Cloud Resource Manager, with gcloud's file by starting
a program; and where there are none it waits for up to 12 s.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from secretweave.errors import Denied, StoreError, Unavailable, Where
from secretweave.sdk import load, network
from secretweave.sdk.gcp_faults import EXTRA, PASSING, asked_pause, can_pass, refused, unavailable
from secretweave.stores.base import Limits

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

CONNECTIONS = 16
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
AWS_TOKEN = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105 - the name of a kind of token
KINDS = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "from_impersonated_service_account_info"),
    "external_account_authorized_user": ("google.auth.external_account_authorized_user", "from_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
}
"""The `type` of a credentials file: the module of its class, and how that is made of it."""
EMAIL = re.compile(r"[\w.+-]{1,64}@[\w.-]{1,190}")


def preload() -> None:
    """Imports what every login needs."""
    load("google.auth.transport.requests", EXTRA)
    load("google.api_core.retry", EXTRA)
    load("google.api_core.exceptions", EXTRA)


class Attempts:
    """Repeats what can pass, in the SDK's retry loop: so often, and so long, as the run allows."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._retry = load("google.api_core.retry", EXTRA)

    def run(self, attempt: Callable[[float], T], passes: Callable[[Exception], bool] | None = None) -> T:
        """What *attempt* gives; it is told its time-out. Raises what the last one raised, or Unavailable."""
        limits, failures = self._limits, list[Exception]()
        gave_up = load("google.api_core.exceptions", EXTRA).RetryError

        def again(error: Exception) -> bool:
            failures.append(error)
            return len(failures) < limits.attempts and (can_pass(error) or bool(passes and passes(error)))

        def pauses() -> Iterator[float]:
            for pause in self._retry.exponential_sleep_generator(limits.pause_seconds, limits.pause_seconds_max):
                yield max(pause, asked_pause(failures[-1]))

        def once() -> T:
            return attempt(min(limits.attempt_seconds, self._left()))

        try:
            done: T = self._retry.retry_target(once, again, pauses(), timeout=self._left())
        except gave_up:
            # The next pause would have passed the end of the run.
            raise failures[-1] from None
        return done

    def _left(self) -> float:
        left = self._limits.deadline - time.monotonic()
        if left <= 0:
            raise Unavailable(
                "the time of the run was over before it was asked",
                fix="look after the stores, or raise limits.deadline in the configuration",
            )
        return left


class Connector(NamedTuple):
    """How connections are made: to the API and to the login servers alike."""

    tls: "ssl.SSLContext"
    attempts: Attempts

    def prepare(self, session: Any) -> None:
        """Readies a requests.Session: our TLS, and nothing of what requests takes from the environment."""
        # It would put a password of ~/.netrc in the place of the token, and REQUESTS_CA_BUNDLE in that of `caFile`.
        session.trust_env = False
        session.mount("https://", network.adapter(EXTRA, self.tls)(CONNECTIONS, CONNECTIONS))

    @staticmethod
    def proxy(url: str) -> str | None:
        """The proxy for *url*, as requests finds it: HTTPS_PROXY and NO_PROXY."""
        utils = load("requests.utils", EXTRA)
        proxy: str | None = utils.select_proxy(url, utils.get_environ_proxies(url))
        return proxy


def connector(ca_file: str | None, environ: Mapping[str, str], limits: Limits) -> Connector:
    """Raises Unavailable: the CA bundle cannot be read."""
    import ssl

    bundle = ca_file or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    bundle = bundle or load("requests.certs", EXTRA).where()
    try:
        folder = os.path.isdir(bundle)
        tls = ssl.create_default_context(capath=bundle) if folder else ssl.create_default_context(cafile=bundle)
    except OSError:
        fix = "correct spec.gcpsm.caFile" if ca_file else "correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
        raise Unavailable("the file of CA certificates cannot be read", where=Where(bundle), fix=fix) from None
    return Connector(tls, Attempts(limits))


class LoginRequest:
    """What google-auth asks login servers with: our TLS, time-outs and repeats, and no redirects."""

    def __init__(self, connector: Connector) -> None:
        transport = load("google.auth.transport.requests", EXTRA)
        self._errors = load("google.api_core.exceptions", EXTRA)
        self._transport_error = load("google.auth.exceptions", EXTRA).TransportError
        self._attempts = connector.attempts
        self._proxy = connector.proxy
        self.session = load("requests", EXTRA).Session()
        """google-auth mounts the client certificate of a metadata server here, where there is one."""
        connector.prepare(self.session)
        self._send = transport.Request(self.session)

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Any = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Any:
        """Raises Unavailable, which google-auth's own loops of repeats let through."""
        host = load("urllib3.util", EXTRA).parse_url(url).host
        # A metadata server, the one that is asked without TLS, is no further away than this machine.
        proxy = self._proxy(url) if url.startswith("https:") else None
        more = {**more, "allow_redirects": False, "proxies": {"https": proxy} if proxy else {}}

        def attempt(seconds: float) -> Any:
            answer = self._send(url, method, body, headers, timeout=min(seconds, timeout or seconds), **more)
            if answer.status in PASSING:
                raise self._errors.from_http_status(answer.status, "", response=answer)
            return answer

        try:
            return self._attempts.run(attempt)
        except (self._errors.GoogleAPICallError, self._transport_error) as error:
            failure = unavailable(error, f"the login server {host}")
        # Here, where it does not keep what was caught, and with that the answer.
        raise failure


class Login:
    """Credentials for all threads: one logs in, the others wait for its token, or its failure.

    It has the two methods of google.auth's credentials that an AuthorizedSession calls.
    """

    def __init__(self, credentials: Any, request: LoginRequest) -> None:
        import threading

        self._credentials = credentials
        self.request = request
        self._lock = threading.Lock()
        self._used = threading.local()
        self._tokens = 0
        """How many were got so far."""
        self._renewed = False
        self._failure: StoreError | None = None

    @property
    def who(self) -> str:
        """The identity, as an error tells it."""
        names = ("service_account_email", "signer_email", "account")
        found = (getattr(self._credentials, name, None) for name in names)
        email = next((each for each in found if isinstance(each, str) and EMAIL.fullmatch(each)), None)
        return f"`{email}`" if email else "the identity"

    def log_in(self) -> None:
        with self._lock:
            self._get_token()

    def before_request(self, _request: Any, _method: str, _url: str, headers: Any) -> None:
        """Adds the token to *headers*."""
        with self._lock:
            # Not `valid`: that ends 225 s early, and a token that was given for less would be fetched for each request.
            if self._credentials.token_state.name == "INVALID":
                self._get_token()
            self._used.token = self._tokens
            self._credentials.apply(headers)

    def refresh(self, _request: Any) -> None:
        """Called after a 401: the token was taken back, or expired early. A second time it is a refusal."""
        with self._lock:
            if self._used.token < self._tokens:
                # Another thread has a new one already.
                return
            if self._renewed:
                self._failure = Denied(
                    "the login is not accepted (401)",
                    why=f"{self.who} is disabled, or its key or token is revoked",
                    fix="renew the credentials of spec.gcpsm.auth",
                )
            self._renewed = True
            self._get_token()

    def close(self) -> None:
        self.request.session.close()

    def _get_token(self) -> None:
        self._failure = self._failure or self._try()
        if self._failure is not None:
            # A new one for each thread, because the core writes its place into what it is given.
            raise type(self._failure)(self._failure.what, why=self._failure.why, fix=self._failure.fix)
        self._tokens += 1

    def _try(self) -> StoreError | None:
        try:
            self._credentials.refresh(self.request)
        except StoreError as error:
            return error
        except load("google.auth.exceptions", EXTRA).GoogleAuthError as error:
            return refused(error)
        except (ValueError, LookupError, TypeError, AttributeError):
            fix = "check the addresses in the credentials file"
            return Unavailable("the answer of the login server cannot be read", why="it is not Google's", fix=fix)
        return None


def ambient(environ: Mapping[str, str], request: LoginRequest) -> Any:
    """Application Default Credentials. Raises Denied: there are none."""
    path = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if path:
        return from_file(path, "GOOGLE_APPLICATION_CREDENTIALS")
    folder = environ.get("CLOUDSDK_CONFIG") or os.path.join(environ.get("HOME", ""), ".config", "gcloud")
    path = os.path.join(folder, "application_default_credentials.json")
    if os.path.isabs(path) and os.path.isfile(path):
        return from_file(path, "`gcloud auth application-default login`")
    try:
        there = load("google.auth.compute_engine._metadata", EXTRA).is_on_gce(request)
    except Unavailable:
        there = False
    if there:
        return _for_secrets(load("google.auth.compute_engine", EXTRA).Credentials())
    raise Denied(
        "no credentials are found",
        why="GOOGLE_APPLICATION_CREDENTIALS is not set, gcloud has no login here, and no metadata server answers",
        fix="give the pod a workload identity, set GOOGLE_APPLICATION_CREDENTIALS, or set spec.gcpsm.auth",
    )


def from_file(path: str, source: str) -> Any:
    """The credentials in a file, of any kind. Raises Denied."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        what = "the credentials file cannot be read"
        raise Denied(what, where=Where(path), why=error.strerror or "", fix=f"correct {source}") from None
    return from_text(text, source, KINDS)


def from_text(text: str | bytes, source: str, kinds: Mapping[str, tuple[str, str]]) -> Any:
    """The credentials that a JSON text spells, if they are of one of *kinds*. Raises Denied."""
    try:
        info = json.loads(text)
        kind = info.get("type")
        module, make = kinds[kind]
        if kind == "external_account":
            module = _federation(info)
        return _for_secrets(getattr(load(module, EXTRA).Credentials, make)(info))
    except (ValueError, LookupError, TypeError, AttributeError, load("google.auth.exceptions", EXTRA).GoogleAuthError):
        raise Denied(
            "the credentials cannot be used",
            why="they are not JSON, not complete, or not of the type " + " or ".join(kinds),
            fix=f"correct {source}",
        ) from None


def _federation(info: Any) -> str:
    """The module for a workload identity of AWS, of a program, or of a file or an address."""
    if info.get("subject_token_type") == AWS_TOKEN:
        return "google.auth.aws"
    if "executable" in info["credential_source"]:
        return "google.auth.pluggable"
    return "google.auth.identity_pool"


def _for_secrets(credentials: Any) -> Any:
    if hasattr(credentials, "with_always_use_jwt_access"):
        # A service account signs its token itself (https://google.aip.dev/auth/4111): no login server is asked.
        credentials = credentials.with_always_use_jwt_access(True)
    return load("google.auth.credentials", EXTRA).with_scopes_if_required(credentials, None, default_scopes=SCOPES)
