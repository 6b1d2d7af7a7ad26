"""AWS: one login, and a client for each region that is asked.

The SDK is botocore, which boto3 is made of and brings: what boto3 adds (resources, S3 transfers) has no use here. It
finds the credentials, signs, tries again (its mode `standard`) and knows the endpoints:
https://botocore.amazonaws.com/v1/documentation/api/latest/index.html.
"""

import os
import re
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from secretweave import __version__
from secretweave.errors import Denied, StoreError, Unavailable
from secretweave.forms import FilePath
from secretweave.sdk import load, network
from secretweave.sdk.aws_faults import THROTTLED, Refused, Teller
from secretweave.stores.base import Context, SecretKeyRef

CONCURRENCY = 16
EXTRA = "aws"
SESSION_NAME = "secretweave"
ENDPOINT = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?(/[^\s?#]*)?")
LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
PAUSE_SECONDS_MAX = 20
"""The longest pause of the SDK's mode `standard`, whose n-th is at most 2 ** (n - 1)."""


class WebIdentity(NamedTuple):
    """A role that is taken with an OpenID Connect token, such as a Pod's projected one."""

    role_arn: str
    token_file: FilePath
    """It is read anew at each login, so it may be rotated."""


class Auth(NamedTuple):
    """Who asks. Empty: what the SDK finds (environment, profile, IRSA, Pod Identity, a container's or instance's role).

    Else one of a pair of keys, `profile` and `webIdentity`; on top of each of these ways, `roleARN`.
    """

    access_key_id_secret_ref: SecretKeyRef | None = None
    secret_access_key_secret_ref: SecretKeyRef | None = None
    session_token_secret_ref: SecretKeyRef | None = None
    """Of temporary keys."""
    profile: str | None = None
    """In the AWS configuration of the machine."""
    web_identity: WebIdentity | None = None
    role_arn: str | None = None
    """A role that this identity assumes, once for the run."""
    external_id: str | None = None
    """What the trust policy of that role asks for."""
    session_name: str | None = None
    """How CloudTrail calls the role's session. Left out: secretweave."""


class Service(NamedTuple):
    store: str
    """The store's type."""
    client: str
    """How the SDK calls the service."""
    title: str


def preload(service: Service) -> None:
    """Imports the SDK, and reads what it knows of a service. Raises StoreError: it is not installed."""
    load("botocore.session", EXTRA)
    _models().read(service.client)


@cache
def _models() -> Any:
    """The SDK's descriptions of services, read once for all stores."""
    loader: Any = load("botocore.loaders", EXTRA).Loader
    from threading import Lock

    class Models(loader):  # type: ignore[misc]  # the SDK has no types
        def __init__(self) -> None:
            super().__init__()
            self._reading = Lock()

        def list_available_services(self, type_name: str) -> list[str]:
            """The folders' names suffice: to look into each of the 400, twice, is a tenth of the SDK's start-up."""
            del type_name
            return sorted({name for path in self.search_paths if os.path.isdir(path) for name in os.listdir(path)})

        def read(self, service: str) -> None:
            """Two who need it at the same time read it once."""
            with self._reading:
                for kind in ("service-2", "endpoint-rule-set-1"):
                    self.load_service_model(service, kind, api_version=None)
                for name in ("endpoints", "partitions", "sdk-default-configuration"):
                    self.load_data_with_path(name)

    return Models()


class _Given:
    """Stands in for the SDK's search for credentials where the settings name them."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        return self._credentials


class Aws:
    """One login, and a client of one service for each region that is asked. Many threads may share it."""

    def __init__(
        self, service: Service, context: Context, *, region: str | None, endpoint: str | None, auth: Auth
    ) -> None:
        """Logs in. Raises StoreError."""
        self.service = service
        self.teller = Teller(service.store, context.limits.attempts, context.limits.attempt_seconds)
        self.region = region
        """Of the secrets that are called by name."""
        self._endpoint = endpoint
        self._context = context
        self._closed = False
        self._clients: dict[str, Any] = {}
        self._logins: list[Any] = []
        self._down: dict[str, StoreError] = {}
        _check(f"spec.{service.store}", endpoint, auth)
        sessions = load("botocore.session", EXTRA)
        from threading import Lock

        self._lock = Lock()
        self._config = load("botocore.config", EXTRA).Config(
            connect_timeout=context.limits.attempt_seconds,
            read_timeout=context.limits.attempt_seconds,
            retries={"mode": "standard", "total_max_attempts": context.limits.attempts},
            max_pool_connections=CONCURRENCY,
            user_agent_extra=f"secretweave/{__version__}",
        )
        _models().read(service.client)
        try:
            self._session = sessions.Session(profile=auth.profile)
            self._session.register_component("data_loader", _models())
            self._session.register("before-send", self._still_in_time)
            environ = context.environ
            found = region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
            self.region = found or self._session.get_config_variable("region")
            self._log_in(auth)
            if self.region:
                self._client(self.region)
        except Exception as error:  # noqa: BLE001 - what the SDK raises has no common root; each is told as a fault
            self.close()
            fault = self.teller.fault(error, "the AWS login")
            raise (self.teller.not_given() if isinstance(fault, Refused) else fault) from None

    def call(self, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """What AWS answers. Raises Refused for a refusal that is about what was asked, else StoreError."""
        self.must_be_open()
        if region in self._down:
            raise self._down[region]
        try:
            answer: dict[str, Any] = getattr(self._client(region), operation)(**parameters)
        except Exception as error:  # noqa: BLE001 - as above
            fault = self.teller.fault(error, self.name(region))
        else:
            if not _is_empty(answer):
                return answer
            fault = self.teller.unreadable(self.name(region))
        if isinstance(fault, Unavailable) and region != self.region:
            # One region that does not answer, or that is none, is not the store as a whole.
            fault = self._down[region] = StoreError(fault.what, why=fault.why, fix=fault.fix)
        raise fault

    def name(self, region: str) -> str:
        return f"{self.service.title} in {region}"

    def home(self) -> str:
        """The region of what is called by name. Raises StoreError: none is known."""
        if self.region:
            return self.region
        raise StoreError(
            "no AWS region is known",
            why="neither the SecretStore, nor the environment, nor a profile names one",
            fix=f"set spec.{self.service.store}.region, or AWS_REGION; an ARN names its own",
        )

    def must_be_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="report it: this is a defect")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            clients = [*self._clients.values(), *self._logins]
            self._clients, self._logins = {}, []
        for client in clients:
            client.close()

    def _log_in(self, auth: Auth) -> None:
        sdk = load("botocore.credentials", EXTRA)
        name = {"RoleSessionName": auth.session_name or SESSION_NAME}
        keys = auth.access_key_id_secret_ref, auth.secret_access_key_secret_ref, auth.session_token_secret_ref
        if keys[0]:
            self._tell(who=f"the access key of the Secret `{keys[0].name}`")
            # A file that holds a key often ends with a line break, which no key has.
            credentials = sdk.Credentials(*(self._context.credential(key).strip() if key else None for key in keys))
        elif auth.web_identity:
            token = load("botocore.utils", EXTRA).FileWebIdentityTokenLoader(auth.web_identity.token_file)
            self._tell(who="the bearer of the web identity token", role=f"the role {auth.web_identity.role_arn}")
            web = sdk.AssumeRoleWithWebIdentityCredentialFetcher(self._sts, token, auth.web_identity.role_arn, name)
            credentials = sdk.DeferredRefreshableCredentials(web.fetch_credentials, "assume-role-with-web-identity")
            credentials.get_frozen_credentials()
            self._tell(who=self.teller.role)
        else:
            credentials = self._found(auth)
        if auth.role_arn:
            self._tell(role=f"the role {auth.role_arn}")
            extra = name | ({"ExternalId": auth.external_id} if auth.external_id else {})
            role = sdk.AssumeRoleCredentialFetcher(self._sts, credentials, auth.role_arn, extra)
            credentials = sdk.DeferredRefreshableCredentials(role.fetch_credentials, "assume-role")
            credentials.get_frozen_credentials()
            self._tell(who=self.teller.role)
        # One login, before there are threads; what ends before the run is renewed by the SDK.
        credentials.get_frozen_credentials()
        self._session.register_component("credential_provider", _Given(credentials))

    def _tell(self, *, who: str | None = None, role: str | None = None) -> None:
        self.teller = self.teller._replace(who=who or self.teller.who, role=role or self.teller.role)

    def _found(self, auth: Auth) -> Any:
        """The credentials that the SDK finds."""
        if auth.profile:
            self._tell(who=f"the AWS profile `{auth.profile}`")
        resolver = self._session.get_component("credential_provider")
        # It would ask for an MFA code on the terminal, or on stdin, where the manifests are.
        resolver.get_provider("assume-role")._prompter = _no_prompt  # noqa: SLF001 - there is no other way to set it
        credentials = resolver.load_credentials()
        if credentials is None:
            raise load("botocore.exceptions", EXTRA).NoCredentialsError
        if not auth.profile:
            self._tell(who=f"the AWS identity that was found here ({credentials.method})")
        return credentials

    def _sts(self, service: str, *, config: Any = None, **credentials: Any) -> Any:
        """The client for a login, as the SDK's fetchers of credentials ask for it."""
        merged = self._config.merge(config) if config else self._config
        client = self._made(service, self.home(), None, merged, credentials)
        self._logins.append(client)
        return client

    def _client(self, region: str) -> Any:
        with self._lock:
            if region not in self._clients:
                self.must_be_open()
                client = self._made(self.service.client, region, self._endpoint, self._config, {})
                self._clients[region] = client
                url = ENDPOINT.fullmatch(client.meta.endpoint_url)
                if url and url["scheme"] == "http" and not LOOPBACK.fullmatch(url["host"]):
                    self._context.warn(f"{self.service.title} is asked without TLS: secrets cross the network in clear")
            return self._clients[region]

    def _made(
        self, service: str, region: str, endpoint: str | None, config: Any, credentials: Mapping[str, Any]
    ) -> Any:
        client = self._session.create_client(
            service, region_name=region, endpoint_url=endpoint, config=config, **credentials
        )
        event = f"needs-retry.{client.meta.service_model.service_id.hyphenize()}"
        client.meta.events.register_first(event, self._before_another_attempt)
        return client

    def _still_in_time(self, **_: Any) -> None:
        """Called by the SDK before each request, those of its own logins too."""
        if time.monotonic() >= self._context.limits.deadline:
            raise self._late()

    def _before_another_attempt(
        self, attempts: int, operation: Any, response: Any = None, caught_exception: Any = None, **_: Any
    ) -> float | None:
        """Called by the SDK after each attempt, before its own rule: a number is a pause, and then another attempt."""
        limits = self._context.limits
        if attempts >= limits.attempts:
            return None
        if caught_exception and "CERTIFICATE_VERIFY_FAILED" in str(caught_exception):
            # It is no better the next time.
            raise caught_exception
        status = response[0].status_code if response else 0
        code = response[1].get("Error", {}).get("Code", "") if response else ""
        pause = pause_max = None
        if status == 429 or (status == 200 and _is_empty(response[1])):
            # What the SDK does not try again: a proxy's plain 429, in older versions; and half of an answer, since it
            # takes what is no JSON for an answer that says nothing.
            pause = pause_max = _retry_after(response[0].headers) or network.pause(limits, attempts)
        elif caught_exception or status >= 500 or code in THROTTLED:
            pause_max = min(2 ** (attempts - 1), PAUSE_SECONDS_MAX)
        if pause_max is not None and time.monotonic() + pause_max >= limits.deadline:
            if status >= 400:
                raise load("botocore.exceptions", EXTRA).ClientError(response[1], operation.name)
            raise caught_exception or self._late()
        return pause

    def _late(self) -> Unavailable:
        return Unavailable(
            f"{self.service.title} did not answer in the time of the run",
            why="the attempts so far used it up",
            fix="look after the way to AWS, or raise limits.deadline in the configuration",
        )


def _check(where: str, endpoint: str | None, auth: Auth) -> None:
    """Raises StoreError: the settings contradict one another."""
    keys = auth.access_key_id_secret_ref, auth.secret_access_key_secret_ref
    if any(keys) and not all(keys):
        missing = "secretAccessKeySecretRef" if keys[0] else "accessKeyIDSecretRef"
        raise StoreError("half of the AWS keys is missing", fix=f"add {where}.auth.{missing}")
    if auth.session_token_secret_ref and not any(keys):
        raise StoreError("an AWS session token stands without its keys", fix=f"add {where}.auth.accessKeyIDSecretRef")
    if [any(keys), bool(auth.profile), bool(auth.web_identity)].count(True) > 1:
        fix = f"keep the keys, `profile` or `webIdentity` in {where}.auth"
        raise StoreError("several AWS identities are named", fix=fix)
    if auth.external_id and not auth.role_arn:
        raise StoreError("an external id stands without a role to assume", fix=f"add {where}.auth.roleARN")
    if auth.session_name and not (auth.role_arn or auth.web_identity):
        raise StoreError("a session name stands without a role", fix=f"add {where}.auth.roleARN")
    if endpoint and not ENDPOINT.fullmatch(endpoint):
        raise StoreError("the endpoint is no URL", fix=f"correct {where}.endpoint")


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that an answer asks to wait; 0: it asks for none."""
    asked = headers.get("Retry-After", "")
    return float(asked) if re.fullmatch(r"[0-9]{1,6}", asked) else 0


def _is_empty(answer: Mapping[str, Any]) -> bool:
    return not answer.keys() - {"ResponseMetadata"}


def _no_prompt(_text: str) -> str:
    raise Denied(
        "the AWS profile asks for an MFA code",
        why="nobody can be asked for it here",
        fix="use a profile without mfa_serial, or sign in first and hand over its temporary keys",
    )
