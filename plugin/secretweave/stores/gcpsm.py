"""`gcpsm`: Google Cloud Secret Manager.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: my-gsm}
    spec:
      gcpsm:
        projectID: my-project     # or its number; by default GOOGLE_CLOUD_PROJECT
        auth: {}
        location: europe-west3    # for regional secrets
        endpoint: secretmanager.example.com          # a private endpoint; host, or host:port
        caFile: /etc/ssl/private-ca.pem              # whom to trust instead of the public authorities
        quotaProject: billed-project                 # whose quota is used; by default that of the credentials

*ref* is the id of a secret of that project, such as `cloudsql-username`; or a full name, as gcloud and Terraform write
it: `projects/P/secrets/S`, `projects/P/secrets/S/versions/V`, or either with `/locations/L` behind the project. A full
name reaches every project that the identity may read; IAM limits that, not `projectID`.

*version* is a number, an alias, or `latest`, which is meant where there is none: the newest version, also if it is
disabled. The version told is always the number. The value is the payload, byte by byte; its checksum (CRC32C) is
verified. `#KEY` reads the payload as JSON or YAML and takes that field.

`auth` says who asks:

    {}                                      Application Default Credentials: the file named by the environment's
                                            GOOGLE_APPLICATION_CREDENTIALS (a key, or workload identity federation),
                                            gcloud's login, or the metadata server (GKE workload identity, Compute
                                            Engine, Cloud Run)
    secretAccessKeySecretRef: {name, key}   a service account's key (JSON) in a Kubernetes Secret
    credentialsFile: PATH                   a file as GOOGLE_APPLICATION_CREDENTIALS may name it

It needs `secretmanager.versions.access` and no more: the role roles/secretmanager.secretAccessor, best on the secrets
themselves. A service account's key signs its own tokens, so no login server is asked; every other login is made once.

The Flux controller alone (`secretweave flux controller`) also asks for versions, to read only what has another one: for
the metadata of each, which hold no value, one request for each. That needs `secretmanager.versions.get`, which the
role roles/secretmanager.viewer has:

    gcloud secrets add-iam-policy-binding SECRET --member=serviceAccount:EMAIL --role=roles/secretmanager.viewer

and without it values are read instead. So they are where a version is not enabled, and where the project's quota of
metadata is used up: 600 requests a minute, beside the 90000 for values. A secret that is deleted and made again under
the same id counts its versions from 1 again; which of the two a number is of, a read alone can tell.

The name `secretAccessKeySecretRef` is not written down in the Operator's public sources; it follows from the field
`secret_access_key` of its API.

API: https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
Versions: https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/get
Quotas: https://cloud.google.com/secret-manager/quotas
Regional secrets: https://cloud.google.com/secret-manager/regional-secrets/data-residency
Errors: https://cloud.google.com/apis/design/errors, reasons: google/api/error_reason.proto
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from secretweave.errors import Denied, NotFound, StoreError
from secretweave.forms import FilePath, Form
from secretweave.model import Record, SecretValue
from secretweave.sdk import gcp, gcp_faults, load
from secretweave.sdk.gcp_faults import EXTRA
from secretweave.stores.base import PROBE, Context, SecretKeyRef, Store, Wanted

T = TypeVar("T")
F = TypeVar("F")

_PROJECT = r"(?:[a-z0-9.-]{1,100}:)?[a-z0-9][a-z0-9-]{0,62}"
_LOCATION = r"[a-z][a-z0-9-]{1,62}"
_HOST = r"(?:https://)?([A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?)/?"

Project = Annotated[str, Form("the id or the number of a project", _PROJECT, lambda match, _folder: match[0])]
Location = Annotated[str, Form("a location such as `europe-west3`", _LOCATION, lambda match, _folder: match[0])]
Host = Annotated[str, Form("a host, with or without a port", _HOST, lambda match, _folder: match[1])]

NAME = re.compile(
    rf"projects/(?P<project>{_PROJECT})(?:/locations/(?P<location>{_LOCATION}))?"
    r"/secrets/(?P<secret>[A-Za-z0-9_-]{1,255})(?:/versions/(?P<version>[A-Za-z0-9_-]{1,63}))?"
)
SECRET = re.compile(r"[A-Za-z0-9_-]{1,255}")
VERSION = re.compile(r"[A-Za-z0-9_-]{1,63}")
NUMBER = re.compile(r"[0-9]{1,19}")
LATEST = "latest"

SERVICE = "google.cloud.secretmanager_v1"
PARTS = f"{SERVICE}.services.secret_manager_service"
BARE = (SERVICE, f"{SERVICE}.types", f"{SERVICE}.services", PARTS, f"{PARTS}.transports")
"""Their `__init__` loads the asynchronous client, its pages and the transports that are not used."""


class Auth(NamedTuple):
    """Who asks. By default Application Default Credentials."""

    secret_access_key_secret_ref: SecretKeyRef | None = None
    """A Kubernetes Secret's key with the JSON of a service account's key."""
    credentials_file: FilePath | None = None
    """A service account's key, or a configuration of workload identity federation."""


class Settings(NamedTuple):
    project_id: Project | None = None
    """The project of a ref that is only an id; by default GOOGLE_CLOUD_PROJECT."""
    auth: Auth = Auth()
    location: Location | None = None
    """Of regional secrets: where a ref that is only an id is looked for."""
    endpoint: Host | None = None
    """By default secretmanager.googleapis.com, or secretmanager.LOCATION.rep.googleapis.com for a regional secret."""
    ca_file: FilePath | None = None
    """The authorities to trust, for the API and the login alike; by default the public ones."""
    quota_project: Project | None = None
    """The project whose quota is used, where that is not the credentials' own."""


class Name(NamedTuple):
    """A version of a secret, in the API's terms."""

    project: str
    location: str | None
    secret: str
    version: str

    @property
    def path(self) -> str:
        """The full name of the secret."""
        location = f"/locations/{self.location}" if self.location else ""
        return f"projects/{self.project}{location}/secrets/{self.secret}"

    @property
    def version_path(self) -> str:
        return f"{self.path}/versions/{self.version}"


class _DamagedError(Exception):
    """The payload is not what its checksum says."""


def preload() -> None:
    gcp.preload()
    _api()


def words(_settings: Settings) -> frozenset[str]:
    """A full name, `projects/P/locations/L/secrets/S/versions/V`, reaches every project."""
    return frozenset({"projects", "locations", "secrets", "versions"})


def connect(settings: Settings, context: Context) -> Store:
    """Logs in. Raises StoreError."""
    connector = gcp.connector(settings.ca_file, context.environ, context.limits)
    request = gcp.LoginRequest(connector)
    try:
        login = gcp.Login(_credentials(settings, context, request), request)
        login.log_in()
    except StoreError:
        request.session.close()
        raise
    return GoogleStore(settings, context, connector, login)


def _credentials(settings: Settings, context: Context, request: gcp.LoginRequest) -> Any:
    ref, path = settings.auth.secret_access_key_secret_ref, settings.auth.credentials_file
    if ref and path:
        what = "spec.gcpsm.auth names two credentials"
        raise StoreError(what, fix="remove one of secretAccessKeySecretRef and credentialsFile")
    if ref:
        # Of this type alone: the others name files, addresses and programs, which is not for a Secret to decide.
        kinds = {"service_account": gcp.KINDS["service_account"]}
        credentials = gcp.from_text(context.credential(ref), "spec.gcpsm.auth.secretAccessKeySecretRef", kinds)
    elif path:
        credentials = gcp.from_file(path, "spec.gcpsm.auth.credentialsFile")
    else:
        credentials = gcp.ambient(context.environ, request)
    quota = settings.quota_project or context.environ.get("GOOGLE_CLOUD_QUOTA_PROJECT")
    return credentials.with_quota_project(quota) if quota else credentials


def _api() -> tuple[Any, Any, Any]:
    """The SDK's transport over HTTPS, the types of its messages, and the checksum."""
    transport = load(f"{PARTS}.transports.rest", EXTRA, bare=BARE)
    return transport, load(f"{SERVICE}.types.service", EXTRA), load("google_crc32c", EXTRA)


class GoogleStore:
    concurrency = gcp.CONNECTIONS

    def __init__(self, settings: Settings, context: Context, connector: gcp.Connector, login: gcp.Login) -> None:
        self._settings = settings
        self._project = settings.project_id or context.environ.get("GOOGLE_CLOUD_PROJECT")
        self._connector = connector
        self._login = login
        self._rest, self._types, self._crc32c = _api()
        self._parse_error = load("google.protobuf.json_format", EXTRA).ParseError
        self._call_error = load("google.api_core.exceptions", EXTRA).GoogleAPICallError
        self._request_error = load("requests.exceptions", EXTRA).RequestException
        self._anonymous = load("google.auth.credentials", EXTRA).AnonymousCredentials()
        transport = load("google.auth.transport.requests", EXTRA)
        self._session = transport.AuthorizedSession(login, auth_request=login.request)
        connector.prepare(self._session)
        self._session.hooks["response"].append(self._judge)
        self._clients: dict[str, Any] = {}
        # Made here, not by each of the threads that ask first at the same time.
        self._client(self._host(settings.location))
        self._closed = False

    def fetch(self, ref: str, version: str | None) -> Record:
        self._check_open()
        name = self._name(ref, version)
        asked = self._types.AccessSecretVersionRequest(name=name.version_path)
        # A damaged answer is asked for once more, whatever else goes wrong.
        more = iter((True,))

        def read(client: Any, seconds: float) -> Record:
            record = self._record(client.access_secret_version(asked, timeout=seconds), name)
            if record is None:
                raise gcp_faults.not_the_api(self._host(name.location))
            return record

        def damaged(error: Exception) -> bool:
            return isinstance(error, _DamagedError) and next(more, False)

        outcome = self._ask(name, read, lambda error: self._fault(error, name), damaged)
        if isinstance(outcome, StoreError):
            # Raised here, where it does not keep what was caught, and with that the answer.
            raise outcome
        return outcome

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        return [[each] for each in wanted]

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        self._check_open()
        return [self._look(each) for each in batch]

    def probe(self) -> None:
        if not self._project:
            # Each ref names its own, and the login was made already.
            return
        try:
            self.fetch(PROBE, None)
        except NotFound:
            pass
        except Denied as denied:
            if denied.fix != gcp_faults.GRANT:
                raise

    def close(self) -> None:
        self._closed = True
        self._session.close()
        self._login.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="report it: this is a defect")

    def _look(self, wanted: Wanted) -> str | None:
        """The number of the version that a read would give. Raises what every read would meet as well."""
        try:
            name = self._name(*wanted)
        except StoreError:
            return None
        asked = self._types.GetSecretVersionRequest(name=name.version_path)

        def look(client: Any, seconds: float) -> str | None:
            try:
                answer = client.get_secret_version(asked, timeout=seconds)
            except self._call_error as error:
                if error.code == 429:
                    # Metadata have a quota of their own, a small one: a read may still be answered, at once.
                    return None
                raise
            return self._number(answer.name, name) if answer.state == type(answer).State.ENABLED else None

        def fault(error: Exception) -> StoreError | None:
            refused = isinstance(error, self._call_error) and error.code not in gcp_faults.PASSING
            odd = isinstance(error, (self._parse_error, UnicodeDecodeError))
            return None if refused or odd else self._fault(error, name)

        outcome = self._ask(name, look, fault)
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def _ask(
        self,
        name: Name,
        ask: Callable[[Any, float], T],
        fault: Callable[[Exception], F],
        passes: Callable[[Exception], bool] | None = None,
    ) -> T | F:
        """What *ask* gives, called with a client and a time-out in seconds, or what *fault* makes of a failure."""
        client = self._client(self._host(name.location))
        faults = (self._parse_error, UnicodeDecodeError, self._call_error, self._request_error)
        try:
            return self._connector.attempts.run(lambda seconds: ask(client, seconds), passes)
        except (StoreError, _DamagedError, *faults) as error:
            return fault(error)

    def _fault(self, error: Exception, name: Name) -> StoreError:
        host = self._host(name.location)
        if isinstance(error, StoreError):
            return error
        if isinstance(error, _DamagedError):
            what = "the value was damaged on the way: it does not fit its checksum (CRC32C)"
            fix = "try again; if it stays so, look at what stands between here and the API"
            return StoreError(what, fix=fix)
        if isinstance(error, self._call_error):
            return self._translated(error, name, host)
        if isinstance(error, self._request_error):
            return gcp_faults.unavailable(error, host)
        return gcp_faults.not_the_api(host)

    def _name(self, ref: str, version: str | None) -> Name:
        version = version or None
        full = NAME.fullmatch(ref)
        if full is None and not SECRET.fullmatch(ref):
            fix = "write the id of a secret, or projects/PROJECT/secrets/ID"
            raise NotFound(f"`{ref}` is no name that a secret can have", fix=fix)
        if version and not VERSION.fullmatch(version):
            fix = "write a number, `latest` or an alias"
            raise NotFound(f"`{version}` is no version that a secret can have", fix=fix)
        if full:
            if version and full["version"] not in {None, version}:
                raise StoreError("the reference names two versions", fix="remove one of them")
            return Name(full["project"], full["location"], full["secret"], version or full["version"] or LATEST)
        if not self._project:
            raise StoreError(
                "the project is not known",
                why="the reference is only an id, and neither projectID nor GOOGLE_CLOUD_PROJECT is set",
                fix="set spec.gcpsm.projectID of the SecretStore",
            )
        return Name(self._project, self._settings.location, ref, version or LATEST)

    def _host(self, location: str | None) -> str:
        regional = f"secretmanager.{location}.rep.googleapis.com" if location else None
        return self._settings.endpoint or regional or "secretmanager.googleapis.com"

    def _client(self, host: str) -> Any:
        if host not in self._clients:
            url = f"https://{host}"
            proxy = self._connector.proxy(url)
            if proxy:
                self._session.proxies[f"https://{host.partition(':')[0]}"] = proxy
            client = self._rest.SecretManagerServiceRestTransport(host=url, credentials=self._anonymous)
            # The one way to give it a session of ours: with the one login, all connections and no redirects.
            client._session = self._session  # noqa: SLF001
            self._clients[host] = client
        return self._clients[host]

    @staticmethod
    def _judge(response: Any, **_: Any) -> None:
        """Raises what an answer means before the session follows a redirect, or the SDK makes a message of its text."""
        code = response.status_code
        if code >= 300 and code != 401:
            # Read here, where a connection that breaks is tried again.
            _ = response.content
            raise load("google.api_core.exceptions", EXTRA).from_http_status(code, "", response=response)

    def _record(self, answer: Any, name: Name) -> Record | None:
        """What an answer holds; None: it is not the answer to this question."""
        number, payload = self._number(answer.name, name), answer.payload
        if number is None:
            return None
        if "data_crc32c" not in payload:
            # Nothing at all would be taken for an empty value.
            return Record(SecretValue(payload.data), number) if payload.data else None
        value = SecretValue(payload.data)
        if self._crc32c.value(payload.data) != payload.data_crc32c:
            raise _DamagedError
        return Record(value, number)

    @staticmethod
    def _number(answered: str, name: Name) -> str | None:
        """The number of the version that an answer is about; None: it is about another than was asked for."""
        told = NAME.fullmatch(answered)
        if told is None or told["secret"] != name.secret or not NUMBER.fullmatch(told["version"] or ""):
            return None
        if NUMBER.fullmatch(name.version) and int(name.version) != int(told["version"]):
            return None
        return told["version"]

    def _translated(self, error: Any, name: Name, host: str) -> StoreError:
        status, reason, state = gcp_faults.told(error)
        if error.code == 404 and status != "NOT_FOUND":
            # A default would stand for the value wherever something else than the API answers.
            return gcp_faults.not_the_api(host)
        if error.code == 404:
            also = "the location" if name.location else "the secret is regional and spec.gcpsm.location is not set"
            wrong = f"the id, the version or the project is wrong, or {also}"
            version = f" in version `{name.version}`" if name.version != LATEST else ", or has no version"
            return NotFound(f"`{name.path}` is not there{version}", why=wrong, fix="correct the reference or the store")
        if state == "DESTROYED":
            return NotFound(
                "the version is destroyed",
                why="`latest` is the newest version, whatever its state" if name.version == LATEST else "",
                fix="add a version to the secret, or name another one",
            )
        if state == "DISABLED":
            return StoreError(
                "the version is disabled",
                why="`latest` is the newest version, whatever its state" if name.version == LATEST else "",
                fix="enable it (gcloud secrets versions enable), or name another one",
            )
        if error.code == 403:
            return gcp_faults.denied(reason, name.project, self._login.who)
        if error.code < 400 or error.code in gcp_faults.PASSING:
            return gcp_faults.unavailable(error, host)
        return StoreError(
            f"the API refuses the request ({status})" if status else f"the API refuses the request (HTTP {error.code})",
            why="the secret's key in Cloud KMS may be disabled" if status == "FAILED_PRECONDITION" else "",
            fix="look at the secret and its version in the console",
        )
