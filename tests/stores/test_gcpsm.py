import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from secretweave import settings, yamltree
from secretweave.errors import Denied, NotFound, SecretweaveError, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.stores import gcpsm, open_store
from secretweave.stores.base import Context, SecretKeyRef, Store, Wanted
from tests.servers.certificates import Authority, Pair
from tests.servers.gcp import Account, Failure, Google
from tests.servers.proxy import Fault, Half, Hang, Proxy, Redirect, Reset, Rule, Status, elsewhere
from tests.stores.contract import Opened, Secret, StoreContract, context, plain, told_versions

ROOT = Path(__file__).parent.parent.parent
PROJECT, NUMBER, REGION = "my-project", "424242424242", "europe-west3"
EMAIL = "reader@my-project.iam.gserviceaccount.com"
KEY = SecretKeyRef("gsm", "key.json")
VALUE = b"hunter2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("google", names=("localhost", "oauth2.googleapis.com"))


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def google(pair: Pair) -> Iterator[Google]:
    with Google(pair, {PROJECT: NUMBER, "other-project": "777777777777"}) as servers:
        yield servers


@pytest.fixture
def account(google: Google, key: rsa.RSAPrivateKey) -> Account:
    return google.account(EMAIL, key)


class Tunnels:
    """A proxy that is asked to connect: to *routes* by a port of this machine, to all else it refuses."""

    def __init__(self, routes: Mapping[str, int]) -> None:
        self.asked: list[str] = []
        self._routes = routes
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._joined: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            taken, _ = self._socket.accept()
            line = taken.recv(4096).decode().partition("\r\n")[0]
            if not line:
                taken.close()
                return
            self.asked.append(line.split(" ")[1])
            port = self._routes.get(self.asked[-1])
            if port is None:
                taken.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                taken.close()
            else:
                taken.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                self._joined.append(taken)
                self._threads.append(threading.Thread(target=self._join, args=(taken, port)))
                self._threads[-1].start()

    @staticmethod
    def _join(client: socket.socket, port: int) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)

    def close(self) -> None:
        with socket.create_connection(self._socket.getsockname()):
            pass
        for each in self._joined:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()


@pytest.fixture
def tunnels(google: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tunnels]:
    """The platform's proxy, for all but this machine. gcloud's logins go to one address, whatever their file says."""
    proxy = Tunnels({"oauth2.googleapis.com:443": google.login.port})
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield proxy
    proxy.close()


class Opener:
    """Opens stores; by default with the account's key from a credential Secret."""

    def __init__(self, google: Google, account: Account, authority: Authority) -> None:
        self._google, self._account, self._authority = google, account, authority
        self._stores: list[Store] = []

    def __call__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        auth: gcpsm.Auth | None = None,
        change: Callable[[Context], Context] = lambda context: context,
        secret: str | None = None,
        **more: Any,
    ) -> Store:
        defaults = {"endpoint": self._google.api.host, "ca_file": str(self._authority.certificate)}
        chosen = gcpsm.Settings(**{"project_id": PROJECT, **defaults, "auth": auth or gcpsm.Auth(KEY), **more})
        config = StoreConfig("my-gsm", None, "gcpsm", chosen, default=False)
        text = secret if secret is not None else json.dumps(self._account.key_file(f"{self._google.login.url}/token"))
        self._stores.append(open_store(config, change(context(config, environ, credentials={KEY: text}))))
        return self._stores[-1]

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def opener(google: Google, account: Account, authority: Authority) -> Iterator[Opener]:
    opener = Opener(google, account, authority)
    yield opener
    opener.close()


def federated(google: Google, folder: Path, subject: str = "subject-token", **more: str) -> gcpsm.Auth:
    """A workload identity whose token stands in a file."""
    google.subject_tokens["subject-token"] = EMAIL
    content = {**google.federation_file(written(folder / "subject", subject)), **more}
    return gcpsm.Auth(credentials_file=str(written(folder / "federation.json", content)))


def words(error: StoreError) -> str:
    return f"{error.what}|{error.why}|{error.fix}"


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


class TestContract(StoreContract):
    lacks = frozenset({"fields"})

    def versions(self, _store: Store, _path: str, /) -> list[str]:
        return ["1", "2"]

    @pytest.fixture
    def opened(self, google: Google, opener: Opener) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            for path, value in secrets:
                text = value if isinstance(value, str | bytes) else json.dumps(value)
                google.add(PROJECT, path, text.encode() if isinstance(text, str) else text)
            return opener()

        return opened


# Names and versions


@pytest.mark.parametrize(
    ("ref", "version", "value", "number"),
    [
        ("db", None, b"third", "3"),
        ("db", "", b"third", "3"),
        ("db", "latest", b"third", "3"),
        ("db", "1", b"first", "1"),
        ("db", "blue", b"second", "2"),
        (f"projects/{PROJECT}/secrets/db", None, b"third", "3"),
        (f"projects/{NUMBER}/secrets/db", "1", b"first", "1"),
        (f"projects/{PROJECT}/secrets/db/versions/2", None, b"second", "2"),
        (f"projects/{PROJECT}/secrets/db/versions/2", "2", b"second", "2"),
        (f"projects/{PROJECT}/secrets/db/versions/blue", "", b"second", "2"),
        ("projects/other-project/secrets/db", None, b"other", "1"),
        (f"projects/{PROJECT}/locations/{REGION}/secrets/db", None, b"regional", "1"),
        (f"projects/{NUMBER}/locations/{REGION}/secrets/db/versions/1", None, b"regional", "1"),
    ],
)
def test_a_name_and_a_version_lead_to_one_value_and_its_number(
    google: Google, opener: Opener, ref: str, version: str | None, value: bytes, number: str
):
    for data in (b"first", b"second", b"third"):
        google.add(PROJECT, "db", data)
    google.secret(PROJECT, "db").aliases["blue"] = 2
    google.add("other-project", "db", b"other")
    google.add(PROJECT, "db", b"regional", location=REGION)
    store = opener()
    record = store.fetch(ref, version)
    assert (plain(record), record.version) == (value, number)
    assert len(google.requests) == 1
    assert told_version(store, ref, version) == number
    assert [request.is_access for request in google.requests] == [True, False]


def test_a_location_is_that_of_an_id_alone(google: Google, opener: Opener):
    google.add(PROJECT, "db", b"regional", location=REGION)
    google.add(PROJECT, "db", b"global")
    store = opener(location=REGION)
    assert plain(store.fetch("db", None)) == b"regional"
    assert plain(store.fetch(f"projects/{PROJECT}/secrets/db", None)) == b"global"


@pytest.mark.parametrize(
    ("project", "environ"), [(NUMBER, {}), (None, {"GOOGLE_CLOUD_PROJECT": PROJECT}), (PROJECT, {"X": "y"})]
)
def test_the_project_is_an_id_or_a_number_or_the_environments(
    google: Google, opener: Opener, project: str | None, environ: Mapping[str, str]
):
    google.add(PROJECT, "db", VALUE)
    assert plain(opener(environ, project_id=project).fetch("db", None)) == VALUE


def test_without_a_project_only_full_names_are_read(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    store = opener(project_id=None)
    assert plain(store.fetch(f"projects/{PROJECT}/secrets/db", None)) == VALUE
    with pytest.raises(StoreError, match="project is not known") as caught:
        store.fetch("db", None)
    assert not isinstance(caught.value, NotFound)
    assert "spec.gcpsm.projectID" in caught.value.fix


def test_two_versions_that_differ_are_refused(google: Google, opener: Opener):
    with pytest.raises(StoreError, match="two versions") as caught:
        opener().fetch(f"projects/{PROJECT}/secrets/db/versions/2", "3")
    assert not isinstance(caught.value, NotFound)
    assert google.requests == []


@pytest.mark.parametrize(
    ("ref", "version"),
    [
        ("a/b", None),
        ("..", None),
        ("db?x=y", None),
        (f"projects/{PROJECT}/secret/db", None),
        (f"projects/{PROJECT}/secrets/db/versions/1/../2", None),
        ("projects/../secrets/db", None),
        ("db", "1:destroy"),
        ("db", "1/../2"),
        ("x" * 256, None),
    ],
)
def test_what_is_no_name_is_not_asked_for(google: Google, opener: Opener, ref: str, version: str | None):
    with pytest.raises(NotFound):
        opener().fetch(ref, version)
    assert google.requests == []


@pytest.mark.parametrize(
    ("state", "version", "error", "what"),
    [
        ("DISABLED", None, StoreError, "the version is disabled"),
        ("DISABLED", "2", StoreError, "the version is disabled"),
        ("DESTROYED", None, NotFound, "the version is destroyed"),
        ("DESTROYED", "2", NotFound, "the version is destroyed"),
    ],
)
def test_a_version_that_is_not_enabled_is_told_as_what_it_is(
    google: Google, opener: Opener, state: str, version: str | None, error: type[StoreError], what: str
):
    google.add(PROJECT, "db", VALUE)
    google.add(PROJECT, "db", VALUE)
    google.secret(PROJECT, "db").versions[1].state = state
    store = opener()
    with pytest.raises(StoreError) as caught:
        store.fetch("db", version)
    assert type(caught.value) is error
    assert caught.value.what == what
    assert ("newest" in caught.value.why) == (version is None)
    assert plain(store.fetch("db", "1")) == VALUE
    assert len(google.requests) == 2


@pytest.mark.parametrize(
    ("ref", "version", "what", "why"),
    [
        ("absent", None, f"`projects/{PROJECT}/secrets/absent` is not there, or has no version", "regional"),
        ("db", "7", f"`projects/{PROJECT}/secrets/db` is not there in version `7`", "the version"),
        ("db", "green", f"`projects/{PROJECT}/secrets/db` is not there in version `green`", "the version"),
        (
            f"projects/{PROJECT}/locations/{REGION}/secrets/db",
            None,
            f"`projects/{PROJECT}/locations/{REGION}/secrets/db` is not there, or has no version",
            "location",
        ),
    ],
)
def test_what_is_not_there_is_told_with_its_project(
    google: Google, opener: Opener, ref: str, version: str | None, what: str, why: str
):
    google.add(PROJECT, "db", VALUE)
    with pytest.raises(NotFound) as caught:
        opener().fetch(ref, version)
    assert caught.value.what == what
    assert why in caught.value.why
    assert len(google.requests) == 1


# Versions without values


def told_version(store: Store, ref: str = "db", version: str | None = None) -> str | None:
    return told_versions(store, [Wanted(ref, version)])[Wanted(ref, version)]


def test_a_new_version_is_told_after_a_write(google: Google, opener: Opener):
    google.add(PROJECT, "db", b"first")
    store = opener()
    assert told_version(store) == "1"
    google.add(PROJECT, "db", b"second")
    assert [told_version(store), told_version(store, version="1")] == ["2", "1"]
    google.secret(PROJECT, "db").aliases["blue"] = 1
    assert told_version(store, version="blue") == "1"
    google.secret(PROJECT, "db").aliases["blue"] = 2
    assert told_version(store, version="blue") == "2"


def test_so_many_secrets_cost_so_many_requests_and_no_value_travels(google: Google, opener: Opener):
    wanted = [Wanted(f"s{number}", None) for number in range(20)]
    for each in wanted:
        google.add(PROJECT, each.ref, VALUE)
    assert told_versions(opener(), wanted) == dict.fromkeys(wanted, "1")
    assert [request.is_access for request in google.requests] == [False] * 20


@pytest.mark.parametrize("state", ["DISABLED", "DESTROYED", "STATE_UNSPECIFIED"])
def test_only_an_enabled_version_is_told(google: Google, opener: Opener, state: str):
    for data in (b"first", b"second"):
        google.add(PROJECT, "db", data)
    newest = google.secret(PROJECT, "db").versions[1]
    newest.state = state
    store = opener()
    assert [told_version(store, version=version) for version in (None, "2", "1")] == [None, None, "1"]
    newest.state = "ENABLED"
    assert told_version(store) == "2"


def test_of_what_is_not_there_nothing_is_told(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    wanted = [Wanted("absent", None), Wanted("db", "7"), Wanted("db", "green")]
    wanted += [Wanted(f"projects/{name}/secrets/db", None) for name in ("no-such-project", "other-project")]
    assert told_versions(opener(), wanted) == dict.fromkeys(wanted)
    assert len(google.requests) == 5


def test_what_is_no_name_is_not_looked_for(google: Google, opener: Opener):
    both = Wanted(f"projects/{PROJECT}/secrets/db/versions/2", "3")
    wanted = [Wanted("a/b", None), Wanted("db", "1:destroy"), both]
    assert told_versions(opener(), wanted) == dict.fromkeys(wanted)
    assert told_version(opener(project_id=None)) is None
    assert google.requests == []


def test_without_the_right_to_the_metadata_nothing_is_told_and_reads_go_on(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.secret(PROJECT, "db").viewers = set()
    store = opener()
    assert [told_version(store), told_version(store)] == [None, None]
    assert plain(store.fetch("db", None)) == VALUE
    assert [request.is_access for request in google.requests] == [False, False, True]


def test_an_api_that_is_turned_off_tells_nothing(google: Google, opener: Opener):
    google.disabled = "SERVICE_DISABLED"
    assert told_version(opener()) is None


def test_where_the_quota_of_metadata_is_used_up_nothing_is_told_at_once_and_reads_go_on(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.metadata_quota = 1
    store = opener()
    assert [told_version(store), told_version(store), told_version(store)] == ["1", None, None]
    assert plain(store.fetch("db", None)) == VALUE
    assert [request.is_access for request in google.requests] == [False, False, False, True]


def test_metadata_are_asked_for_again_and_then_the_api_is_unavailable(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.failures = [Failure(503, "UNAVAILABLE", ""), Failure(500, "INTERNAL", "")]
    store = opener()
    assert told_version(store) == "1"
    google.failures = [Failure(503, "UNAVAILABLE", "hunter2")] * 9
    with pytest.raises(Unavailable, match="answers with HTTP 503"):
        told_version(store)
    assert len(google.requests) == 3 + 3


def test_an_api_that_is_not_there_is_unavailable_for_metadata_too(opener: Opener):
    with pytest.raises(Unavailable, match="cannot be reached"):
        told_version(opener(endpoint=closed_host()))


def test_a_login_that_is_not_accepted_ends_the_asking_for_versions(google: Google, opener: Opener):
    google.failures = [Failure(401, "UNAUTHENTICATED", "hunter2")] * 9
    with pytest.raises(Denied, match=r"is not accepted \(401\)"):
        told_version(opener())


def test_a_closed_store_tells_no_version(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    store = opener()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        told_version(store)
    assert google.requests == []


def about(**parts: Any) -> Status:
    return Status(200, json.dumps({"name": f"projects/{NUMBER}/secrets/db/versions/1", "state": 1, **parts}).encode())


# A state that the SDK does not know. In a run sdk.quiet() has ended warnings.
@pytest.mark.filterwarnings("ignore:Unrecognized State enum value")
@pytest.mark.parametrize(
    "answer",
    [
        about(state=0),
        about(state=9),
        about(state="NEW_STATE"),
        about(state="DISABLED"),
        about(state=[]),
        about(name=""),
        about(name=f"projects/{NUMBER}/secrets/other/versions/1"),
        about(name=f"projects/{NUMBER}/secrets/db/versions/latest"),
        about(name=f"projects/{NUMBER}/secrets/db/versions/2"),
        Status(200, b"{}"),
        Status(200, b"[]"),
        Status(200, b"<html>welcome</html>", {"Content-Type": "text/html"}),
        Status(200, b"\xff"),
        Status(302, b"", {"Location": "https://localhost/"}),
        Status(400, b'{"error": {"status": "INVALID_ARGUMENT"}}'),
        Status(403, b"no"),
        Status(404, b"<html>lost</html>"),
        Status(501, b'{"error": {"status": "UNIMPLEMENTED"}}'),
    ],
    ids=lambda answer: f"{answer.code} {answer.body!r}"[:90],
)
def test_an_odd_answer_tells_no_version(
    google: Google, opener: Opener, authority: Authority, pair: Pair, answer: Status
):
    google.add(PROJECT, "db", VALUE)
    with Proxy(google.api.url, certificate=pair, trust=authority.certificate, rules=[Rule(answer, times=1)]) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}")
        assert told_version(store, version="1") is None
        assert plain(store.fetch("db", None)) == VALUE
        store.close()
    assert len(proxy.seen) == 2


@pytest.mark.parametrize("state", [1, "ENABLED"])
def test_the_state_is_read_as_a_number_and_as_a_name(opener: Opener, pair: Pair, state: object):
    with Proxy(certificate=pair, rules=[Rule(about(state=state))]) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}")
        assert told_version(store) == "1"
        store.close()


# Who may read


def test_a_denied_secret_names_the_permission_and_who_lacks_it(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.secret(PROJECT, "db").readers = set()
    store = opener()
    told = set()
    for ref in ("db", "db", "projects/no-such-project/secrets/db"):
        with pytest.raises(Denied) as caught:
            store.fetch(ref, None)
        told.add(words(caught.value))
    assert told == {
        f"reading it in project `{project}` is denied (PERMISSION_DENIED)|`{EMAIL}` lacks "
        "secretmanager.versions.access, or there is no such secret or project|grant the identity "
        "roles/secretmanager.secretAccessor on the secret, or correct the reference"
        for project in (PROJECT, "no-such-project")
    }
    assert len(google.requests) == 3


@pytest.mark.parametrize(
    ("reason", "what", "fix"),
    [
        ("SERVICE_DISABLED", "the Secret Manager API is not enabled", "gcloud services enable"),
        ("BILLING_DISABLED", "has no billing account", "link one"),
        ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "may not ask this API", "add the scope"),
        ("USER_PROJECT_DENIED", "the quota project may not be used", "spec.gcpsm.quotaProject"),
        ("CONSUMER_INVALID", "is not there, or is suspended", "spec.gcpsm.projectID"),
        ("SECURITY_POLICY_VIOLATED", "may not be asked from here", "perimeter"),
        ("SOMETHING_NEW", "is denied (PERMISSION_DENIED)", "roles/secretmanager.secretAccessor"),
    ],
)
def test_why_a_project_refuses_is_told(google: Google, opener: Opener, reason: str, what: str, fix: str):
    google.disabled = reason
    with pytest.raises(Denied) as caught:
        opener().fetch("db", None)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert "refused for" not in words(caught.value)


# Logins


class Identity(NamedTuple):
    auth: gcpsm.Auth
    environ: Mapping[str, str]
    email: str
    logins: int


def identity_of(kind: str, google: Google, account: Account, folder: Path) -> Identity:
    """One of the ways to be someone, ready to be used."""
    google.subject_tokens["subject-token"] = "principal"
    subject = written(folder / "token", "subject-token")
    files = {
        "key": account.key_file(f"{google.login.url}/token"),
        "user": google.user_file("user@example.com"),
        "federated": google.federation_file(subject),
        "impersonating": google.federation_file(subject, EMAIL),
    }
    form, _, content = kind.partition(" ")
    email, logins = {
        "key": (EMAIL, 0),
        "user": ("user@example.com", 1),
        "federated": ("principal", 1),
        "impersonating": (EMAIL, 2),
    }[content]
    path = str(written(folder / "gcloud" / "application_default_credentials.json", files[content]))
    if form == "credentialsFile":
        return Identity(gcpsm.Auth(credentials_file=path), {}, email, logins)
    environ = {
        "GOOGLE_APPLICATION_CREDENTIALS": {"GOOGLE_APPLICATION_CREDENTIALS": path},
        "CLOUDSDK_CONFIG": {"CLOUDSDK_CONFIG": str(folder / "gcloud")},
        "HOME": {"HOME": str(folder / "home")},
    }[form]
    written(folder / "home" / ".config" / "gcloud" / "application_default_credentials.json", files[content])
    return Identity(gcpsm.Auth(), environ, email, logins)


@pytest.mark.parametrize(
    "kind",
    [
        "credentialsFile key",
        "credentialsFile federated",
        "GOOGLE_APPLICATION_CREDENTIALS key",
        "GOOGLE_APPLICATION_CREDENTIALS user",
        "GOOGLE_APPLICATION_CREDENTIALS federated",
        "GOOGLE_APPLICATION_CREDENTIALS impersonating",
        "CLOUDSDK_CONFIG user",
        "HOME user",
    ],
)
def test_each_login_is_made_once_for_all_threads(
    kind: str, google: Google, account: Account, tunnels: Tunnels, opener: Opener, tmp_path: Path
):
    identity = identity_of(kind, google, account, tmp_path)
    for number in range(50):
        google.add(PROJECT, f"s{number}", f"value {number}".encode())
        google.secret(PROJECT, f"s{number}").readers = {identity.email}
    google.latency = google.login_latency = 0.01
    store = opener(identity.environ, auth=identity.auth)
    with ThreadPoolExecutor(store.concurrency) as threads:
        records = list(threads.map(lambda number: store.fetch(f"s{number}", None), range(50)))
    assert [plain(record) for record in records] == [f"value {number}".encode() for number in range(50)]
    assert len(google.requests) == 50
    assert len(google.logins) == identity.logins
    assert google.api.connections <= store.concurrency


def test_a_short_token_is_used_to_its_end(google: Google, opener: Opener, tmp_path: Path):
    google.add(PROJECT, "db", VALUE)
    google.lifetime = 60
    store = opener(auth=federated(google, tmp_path))
    assert [plain(store.fetch("db", None)) for _ in range(3)] == [VALUE] * 3
    assert len(google.logins) == 1


def test_a_token_that_is_over_is_renewed(google: Google, opener: Opener, tmp_path: Path):
    google.add(PROJECT, "db", VALUE)
    google.lifetime = 1
    store = opener(auth=federated(google, tmp_path))
    time.sleep(1.1)
    google.lifetime = 60
    assert [plain(store.fetch("db", None)) for _ in range(3)] == [VALUE] * 3
    assert (len(google.logins), len(google.requests)) == (2, 3)


def test_a_service_accounts_key_asks_no_login_server(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.secret(PROJECT, "db").readers = {EMAIL}
    assert plain(opener().fetch("db", None)) == VALUE
    assert google.logins == []


CHILD = f"""
import sys
from secretweave.model import StoreConfig
from secretweave.stores import gcpsm, open_store
from tests.stores.contract import context, plain
settings = gcpsm.Settings("{PROJECT}", endpoint=sys.argv[1], ca_file=sys.argv[2])
config = StoreConfig("my-gsm", None, "gcpsm", settings, default=False)
store = open_store(config, context(config, {{}}))
print(plain(store.fetch("db", None)).decode(), store.fetch("db", "1").version)
store.close()
"""


def child(google: Google, authority: Authority, **environ: str) -> subprocess.CompletedProcess[str]:
    """google-auth reads where its metadata server is when it is imported."""
    more = {"PYTHONPATH": f"{ROOT}/plugin:{ROOT}", "GCE_METADATA_HOST": google.metadata.host, **environ}
    return subprocess.run(
        [sys.executable, "-c", CHILD, google.api.host, str(authority.certificate)],
        env={**os.environ, "GCE_METADATA_IP": google.metadata.host, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_machines_own_account_comes_from_the_metadata_server(google: Google, authority: Authority):
    google.add(PROJECT, "db", VALUE)
    google.secret(PROJECT, "db").readers = {EMAIL}
    google.metadata_identity = EMAIL
    done = child(google, authority, HTTP_PROXY="http://127.0.0.1:1")
    assert (done.stdout, done.stderr, done.returncode) == ("hunter2 1\n", "", 0)
    assert len(google.logins) == 1
    assert len(google.requests) == 2


def test_a_machine_without_an_account_is_denied(google: Google, authority: Authority):
    done = child(google, authority)
    assert "secretweave.errors.Denied: the login is refused" in done.stderr
    assert google.requests == []


def test_it_says_when_there_are_no_credentials(google: Google, opener: Opener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GCE_METADATA_IP", closed_host())
    with pytest.raises(Denied, match="no credentials are found") as caught:
        opener({}, auth=gcpsm.Auth())
    assert "spec.gcpsm.auth" in caught.value.fix
    assert google.requests == google.logins == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "hunter2",
        "[]",
        "{}",
        '{"type": ["service_account"]}',
        '{"type": "service_account", "client_email": "hunter2"}',
        '{"type": "service_account", "client_email": "a@b", "token_uri": "x", "private_key": "hunter2"}',
    ],
)
@pytest.mark.parametrize("place", ["secret", "file"])
def test_a_key_that_is_none_is_denied(google: Google, opener: Opener, tmp_path: Path, content: str, place: str):
    path = written(tmp_path / "key.json", content)
    auth = gcpsm.Auth(KEY) if place == "secret" else gcpsm.Auth(credentials_file=str(path))
    with pytest.raises(Denied, match="cannot be used") as caught:
        opener(auth=auth, secret=content or " ")
    assert "hunter2" not in words(caught.value)
    assert "spec.gcpsm.auth." in caught.value.fix


def test_a_credential_secret_holds_no_other_kind_of_credentials(google: Google, opener: Opener, tmp_path: Path):
    """They name files, addresses and programs, which whoever may write the Secret would then choose."""
    google.subject_tokens["subject-token"] = EMAIL
    subject = written(tmp_path / "token", "subject-token")
    for content in (google.federation_file(subject), google.user_file(EMAIL)):
        with pytest.raises(Denied, match="cannot be used"):
            opener(secret=json.dumps(content))
    assert google.logins == []


def test_two_credentials_are_refused(opener: Opener, tmp_path: Path):
    with pytest.raises(StoreError, match="two credentials"):
        opener(auth=gcpsm.Auth(KEY, str(tmp_path / "key.json")))


def test_an_absent_credentials_file_is_told(opener: Opener, tmp_path: Path):
    path = str(tmp_path / "absent.json")
    with pytest.raises(Denied, match="cannot be read") as caught:
        opener({"GOOGLE_APPLICATION_CREDENTIALS": path}, auth=gcpsm.Auth())
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.fix


def test_a_revoked_login_is_refused(google: Google, tunnels: Tunnels, opener: Opener, tmp_path: Path):
    path = written(tmp_path / "user.json", google.user_file(EMAIL))
    google.refresh_tokens.clear()
    with pytest.raises(Denied) as caught:
        opener(auth=gcpsm.Auth(credentials_file=str(path)))
    assert caught.value.what == "the login is refused (invalid_grant)"
    assert "Token has been" not in words(caught.value)
    assert len(google.logins) == 1


def test_a_subject_token_that_the_pool_does_not_trust_is_refused(google: Google, opener: Opener, tmp_path: Path):
    with pytest.raises(Denied) as caught:
        opener(auth=federated(google, tmp_path, "hunter2"))
    assert caught.value.what == "the login is refused (invalid_grant)"
    assert "hunter2" not in words(caught.value)


def test_a_subject_token_that_is_not_there_is_refused(google: Google, opener: Opener, tmp_path: Path):
    path = written(tmp_path / "wif.json", google.federation_file(tmp_path / "absent"))
    with pytest.raises(Denied, match="the login is refused"):
        opener(auth=gcpsm.Auth(credentials_file=str(path)))
    assert google.logins == []


def test_a_login_server_that_is_busy_is_asked_again(google: Google, opener: Opener, tmp_path: Path):
    google.add(PROJECT, "db", VALUE)
    google.login_failures = [Failure(503, "UNAVAILABLE", "hunter2"), Failure(429, "RESOURCE_EXHAUSTED", "hunter2")]
    assert plain(opener(auth=federated(google, tmp_path)).fetch("db", None)) == VALUE
    assert len(google.logins) == 3


@pytest.mark.parametrize("kind", ["federated", "user"])
def test_a_login_server_that_stays_busy_is_unavailable(
    google: Google, tunnels: Tunnels, opener: Opener, tmp_path: Path, kind: str
):
    user = gcpsm.Auth(credentials_file=str(written(tmp_path / "user.json", google.user_file(EMAIL))))
    google.login_failures = [Failure(503, "UNAVAILABLE", "hunter2")] * 9
    with pytest.raises(Unavailable, match=r"the login server \S+ answers with HTTP 503"):
        opener(auth=user if kind == "user" else federated(google, tmp_path))
    assert len(google.logins) == 3


def test_a_login_server_that_is_gone_is_unavailable(google: Google, opener: Opener, tmp_path: Path):
    auth = federated(google, tmp_path, token_url=f"https://{closed_host()}/v1/token")
    with pytest.raises(Unavailable, match=r"the login server 127\.0\.0\.1 cannot be reached"):
        opener(auth=auth)


@pytest.mark.parametrize("body", [b"", b"[]", b"hunter2", b'{"access_token": "t", "expires_in": []}'])
def test_a_login_server_that_is_another_is_told(
    google: Google, opener: Opener, pair: Pair, tmp_path: Path, body: bytes
):
    unread = pytest.raises(Unavailable, match="the answer of the login server cannot be read")
    with Proxy(certificate=pair, rules=[Rule(Status(200, body))]) as proxy, unread as caught:
        opener(auth=federated(google, tmp_path, token_url=f"{proxy.url}/v1/token"))
    assert "hunter2" not in words(caught.value)


def test_a_token_that_ends_early_is_renewed_once_for_all_threads(google: Google, opener: Opener, tmp_path: Path):
    for number in range(50):
        google.add(PROJECT, f"s{number}", VALUE)
    google.latency = 0.02
    store = opener(auth=federated(google, tmp_path))
    barrier = threading.Barrier(store.concurrency, action=google.tokens.clear)

    def fetch(number: int) -> bytes:
        if number < store.concurrency:
            barrier.wait()
        value: bytes = plain(store.fetch(f"s{number}", None))
        return value

    with ThreadPoolExecutor(store.concurrency) as threads:
        assert list(threads.map(fetch, range(50))) == [VALUE] * 50
    assert len(google.logins) == 2
    assert 50 < len(google.requests) <= 50 + store.concurrency


def test_a_login_that_is_never_accepted_is_denied_for_all_threads(google: Google, opener: Opener, tmp_path: Path):
    store = opener(auth=federated(google, tmp_path))
    google.failures = [Failure(401, "UNAUTHENTICATED", "hunter2")] * 999

    def fetch(number: int) -> str:
        with pytest.raises(Denied) as caught:
            store.fetch(f"s{number}", None)
        return words(caught.value)

    with ThreadPoolExecutor(store.concurrency) as threads:
        told = set(threads.map(fetch, range(50)))
    assert len(told) == 1
    assert "(401)" in told.pop()
    assert len(google.logins) == 2


def test_the_quota_project_is_told_to_the_api(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    opener(quota_project="billed-project").fetch("db", None)
    opener({"GOOGLE_CLOUD_QUOTA_PROJECT": "ambient-project"}).fetch("db", None)
    opener().fetch("db", None)
    told = [request.headers.get("x-goog-user-project") for request in google.requests]
    assert told == ["billed-project", "ambient-project", None]


def test_what_requests_takes_from_the_environment_does_not_count(
    google: Google, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    google.add(PROJECT, "db", VALUE)
    monkeypatch.setenv("NETRC", str(written(tmp_path / "netrc", "machine 127.0.0.1 login root password toor\n")))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(written(tmp_path / "empty.pem", "")))
    assert plain(opener().fetch("db", None)) == VALUE
    assert google.requests[0].headers["authorization"].startswith("Bearer ")


# Damage and faults


@pytest.mark.parametrize(("damages", "requests"), [(0, 1), (1, 2)])
def test_a_damaged_value_is_asked_for_once_more(google: Google, opener: Opener, damages: int, requests: int):
    google.add(PROJECT, "db", VALUE)
    google.damages = damages
    assert plain(opener().fetch("db", None)) == VALUE
    assert len(google.requests) == requests


def test_a_value_that_stays_damaged_is_refused(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.damages = 99
    with pytest.raises(StoreError, match="damaged on the way") as caught:
        opener().fetch("db", None)
    assert type(caught.value) is StoreError
    assert "hunter" not in words(caught.value)
    assert len(google.requests) == 2


def test_what_can_pass_is_tried_again(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.failures = [Failure(503, "UNAVAILABLE", ""), Failure(500, "INTERNAL", "")]
    assert plain(opener().fetch("db", None)) == VALUE
    assert len(google.requests) == 3


def test_retry_after_is_waited_for(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.failures = [Failure(429, "RESOURCE_EXHAUSTED", "", headers={"Retry-After": "1"})]
    before = time.monotonic()
    assert plain(opener().fetch("db", None)) == VALUE
    assert 1 <= time.monotonic() - before < 5


def test_a_retry_after_beyond_the_end_of_the_run_is_not_waited_for(google: Google, opener: Opener):
    google.failures = [Failure(429, "RESOURCE_EXHAUSTED", "", headers={"Retry-After": "3600"})]
    before = time.monotonic()
    with pytest.raises(Unavailable, match="429"):
        opener().fetch("db", None)
    assert time.monotonic() - before < 5
    assert len(google.requests) == 1


def test_a_quota_that_is_used_up_is_unavailable(google: Google, opener: Opener):
    google.add(PROJECT, "db", VALUE)
    google.quota = 1
    store = opener()
    assert plain(store.fetch("db", None)) == VALUE
    with pytest.raises(Unavailable, match="too many requests"):
        store.fetch("db", None)
    assert len(google.requests) == 1 + 3


def in_time(seconds: float, attempt_seconds: float) -> Callable[[Context], Context]:
    def change(context: Context) -> Context:
        limits = context.limits._replace(deadline=time.monotonic() + seconds, attempt_seconds=attempt_seconds)
        return context._replace(limits=limits)

    return change


HTML = Status(200, b"<html>hunter2</html>", {"Content-Type": "text/html"})
OTHER = Status(200, b'{"name": "projects/1/secrets/other/versions/1", "payload": {"data": "aHVudGVyMg=="}}')
OLDER = Status(200, OTHER.body.replace(b"other", b"db"))
BARE = Status(200, b'{"name": "projects/1/secrets/db/versions/1"}')
KMS = b'{"error": {"status": "FAILED_PRECONDITION", "message": "CryptoKeyVersion hunter2 is in DESTROYED state"}}'
EMPTY = Status(200, b"{}", {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("fault", "error", "what", "requests"),
    [
        (Reset(), Unavailable, "cannot be reached", 3),
        (Reset(midway=True), Unavailable, "breaks off|cannot be reached", 3),
        (Half(), Unavailable, "breaks off", 3),
        (Hang(), Unavailable, "does not answer in time", 3),
        (Status(429, b"hunter2"), Unavailable, "too many requests (429)", 3),
        (Status(500, b'"hunter2"'), Unavailable, "answers with HTTP 500", 3),
        (Status(503, b'{"error": "hunter2"}'), Unavailable, "answers with HTTP 503", 3),
        (Status(504), Unavailable, "answers with HTTP 504", 3),
        (Status(403, b'{"error": "hunter2"}'), Denied, "is denied (PERMISSION_DENIED)", 1),
        (Status(403, b'{"error": {"details": "hunter2", "message": 1}}'), Denied, "is denied (PERMISSION_DENIED)", 1),
        (Status(401, b"hunter2"), Denied, "the login is not accepted (401)", 2),
        (Status(404, b"[1]"), Unavailable, "is not Secret Manager's", 1),
        (Status(404, b"<html>hunter2</html>"), Unavailable, "is not Secret Manager's", 1),
        (Status(400, KMS), StoreError, "refuses the request (FAILED_PRECONDITION)", 1),
        (Status(400, b'{"error": {"status": ["hunter2"], "message": "x"}}'), StoreError, "(HTTP 400)", 1),
        (Status(400, b'{"error": {"status": "INVALID_ARGUMENT"}}'), StoreError, "refuses the request (INVALID_", 1),
        (Status(418, b'{"error": {"status": "hunter2"}}'), StoreError, "refuses the request (HTTP 418)", 1),
        (HTML, Unavailable, "is not Secret Manager's", 1),
        (EMPTY, Unavailable, "is not Secret Manager's", 1),
        (OTHER, Unavailable, "is not Secret Manager's", 1),
        (OLDER, Unavailable, "is not Secret Manager's", 1),
        (BARE, Unavailable, "is not Secret Manager's", 1),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, tuple) else None,
)
def test_a_fault_is_told_without_a_word_of_what_came(
    google: Google,
    opener: Opener,
    authority: Authority,
    pair: Pair,
    capfd: pytest.CaptureFixture[str],
    fault: Fault,
    error: type[StoreError],
    what: str,
    requests: int,
):
    google.add(PROJECT, "db", VALUE)
    with Proxy(google.api.url, certificate=pair, trust=authority.certificate, rules=[Rule(fault)]) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}", change=in_time(20, 0.5))
        with pytest.raises(StoreError) as caught:
            store.fetch("db", "2" if fault is OLDER else None)
        store.close()
    assert type(caught.value) is error
    assert any(each in caught.value.what for each in what.split("|"))
    assert "hunter2" not in words(caught.value)
    assert caught.value.fix
    assert caught.value.__context__ is None
    assert len(proxy.seen) == requests
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", [Reset(), Half(), Status(502), Status(429, headers={"Retry-After": "0"})], ids=str)
def test_a_fault_that_passes_is_not_seen(
    google: Google, opener: Opener, authority: Authority, pair: Pair, fault: Fault
):
    google.add(PROJECT, "db", VALUE)
    rules = [Rule(fault, times=2)]
    with Proxy(google.api.url, certificate=pair, trust=authority.certificate, rules=rules) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}")
        assert plain(store.fetch("db", None)) == VALUE
        store.close()
    assert len(proxy.seen) == 3


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(google: Google, opener: Opener, authority: Authority, pair: Pair, code: int):
    with elsewhere(pair) as other, Proxy(certificate=pair, rules=[Rule(Redirect(other.url, code))]) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}")
        with pytest.raises(Unavailable, match="sends the request elsewhere"):
            store.fetch("db", None)
        store.close()
        assert other.seen == []


def test_a_redirected_login_is_not_followed(google: Google, opener: Opener, pair: Pair, tmp_path: Path):
    with elsewhere(pair) as other, Proxy(certificate=pair, rules=[Rule(Redirect(other.url))]) as proxy:
        with pytest.raises(Denied):
            opener(auth=federated(google, tmp_path, token_url=f"{proxy.url}/v1/token"))
        assert other.seen == []


def test_nothing_begins_after_the_end_of_the_run(google: Google, opener: Opener, pair: Pair):
    with Proxy(certificate=pair, rules=[Rule(Hang())]) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}", change=in_time(0.6, 5))
        before = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            store.fetch("db", None)
        assert time.monotonic() - before < 1.5
        with pytest.raises(Unavailable, match="the time of the run was over"):
            store.fetch("db", None)
        store.close()
    assert len(proxy.seen) == 1


def test_what_nobody_needs_of_the_sdk_is_not_loaded():
    code = (
        "import sys\nfrom secretweave.stores import gcpsm\ngcpsm.preload()\n"
        "print(*sorted(name.rpartition('.')[2] for name in sys.modules if name.startswith('google.cloud.secretm')))"
    )
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}/plugin"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"rest", "service", "secret_manager_service"} <= loaded
    assert loaded.isdisjoint({"client", "async_client", "pagers", "grpc", "grpc_asyncio"})


def closed_host() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_an_api_that_is_not_there_is_unavailable(opener: Opener):
    host = closed_host()
    with pytest.raises(Unavailable) as caught:
        opener(endpoint=host).fetch("db", None)
    assert caught.value.what == f"{host} cannot be reached"
    assert "spec.gcpsm.endpoint" in caught.value.fix


def test_an_authority_that_is_not_known_is_not_trusted(google: Google, opener: Opener, tmp_path: Path):
    google.add(PROJECT, "db", VALUE)
    for more in ({"ca_file": str(Authority(tmp_path).certificate)}, {"ca_file": None}):
        with pytest.raises(Unavailable, match="is not trusted") as caught:
            opener(**more).fetch("db", None)
        assert "spec.gcpsm.caFile" in caught.value.fix
    assert google.requests == []
    assert google.api.connections == 0


def test_a_certificate_of_another_name_is_not_trusted(google: Google, opener: Opener, authority: Authority):
    with Proxy(google.api.url, certificate=authority.issue("other", "127.0.0.2"), trust=authority.certificate) as proxy:
        store = opener(endpoint=f"127.0.0.1:{proxy.port}")
        with pytest.raises(Unavailable, match="is not trusted"):
            store.fetch("db", None)
        store.close()
        assert proxy.seen == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_platforms_authorities_are_trusted(google: Google, opener: Opener, authority: Authority, name: str):
    google.add(PROJECT, "db", VALUE)
    store = opener({name: str(authority.certificate)}, ca_file=None)
    assert plain(store.fetch("db", None)) == VALUE


@pytest.mark.parametrize("content", [None, "", "hunter2"])
def test_a_file_of_authorities_that_is_none_is_told(opener: Opener, tmp_path: Path, content: str | None):
    path = tmp_path / "ca.pem"
    if content is not None:
        written(path, content)
    with pytest.raises(Unavailable, match="CA certificates cannot be read") as caught:
        opener(ca_file=str(path))
    assert caught.value.fix == "correct spec.gcpsm.caFile"


@pytest.mark.parametrize(
    ("ref", "location", "host"),
    [
        ("db", None, "secretmanager.googleapis.com"),
        ("db", REGION, f"secretmanager.{REGION}.rep.googleapis.com"),
        (f"projects/p/locations/{REGION}/secrets/db", None, f"secretmanager.{REGION}.rep.googleapis.com"),
        ("projects/p/secrets/db", REGION, "secretmanager.googleapis.com"),
    ],
)
def test_a_secret_is_asked_for_where_it_is_through_the_platforms_proxy(
    opener: Opener, tunnels: Tunnels, ref: str, location: str | None, host: str
):
    with pytest.raises(Unavailable, match="the proxy on the way to") as caught:
        opener(endpoint=None, location=location).fetch(ref, None)
    assert host in caught.value.what
    assert set(tunnels.asked) == {f"{host}:443"}


def test_no_proxy_is_asked_where_none_shall_be(google: Google, opener: Opener, tunnels: Tunnels):
    google.add(PROJECT, "db", VALUE)
    assert plain(opener().fetch("db", None)) == VALUE
    assert tunnels.asked == []


# Settings


def read(text: str) -> tuple[gcpsm.Settings | None, list[SecretweaveError]]:
    faults: list[SecretweaveError] = []
    place = settings.Place("/etc/store.yaml")
    return settings.read(yamltree.load(text.encode())[0], gcpsm.Settings, place, faults), faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{projectID: my-project, auth: {}}", gcpsm.Settings("my-project")),
        ("{projectID: '123456', auth: {}}", gcpsm.Settings("123456")),
        ("{projectID: 123456}", gcpsm.Settings("123456")),
        ("{projectID: 'example.com:my-project'}", gcpsm.Settings("example.com:my-project")),
        (
            "{projectID: p, auth: {secretAccessKeySecretRef: {name: gsm, key: key.json}}}",
            gcpsm.Settings("p", gcpsm.Auth(KEY)),
        ),
        ("{auth: {credentialsFile: key.json}}", gcpsm.Settings(auth=gcpsm.Auth(credentials_file="/etc/key.json"))),
        ("{endpoint: 'https://gsm.example.com/'}", gcpsm.Settings(endpoint="gsm.example.com")),
        ("{endpoint: 'gsm.example.com:8443'}", gcpsm.Settings(endpoint="gsm.example.com:8443")),
        ("{location: europe-west3, quotaProject: q}", gcpsm.Settings(location=REGION, quota_project="q")),
        ("{caFile: ca.pem}", gcpsm.Settings(ca_file="/etc/ca.pem")),
    ],
)
def test_settings_are_read(text: str, expected: gcpsm.Settings):
    assert read(text) == (expected, [])


@pytest.mark.parametrize(
    "text",
    [
        "{projectID: '../x'}",
        "{projectID: projects/p}",
        "{endpoint: 'http://gsm.example.com'}",
        "{endpoint: 'gsm.example.com/path'}",
        "{endpoint: 'user@gsm.example.com'}",
        "{location: 'a.example.com/'}",
    ],
)
def test_settings_that_lead_elsewhere_are_refused(text: str):
    found, faults = read(text)
    assert found is None
    assert len(faults) == 1
