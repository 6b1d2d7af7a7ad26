"""Store clients that are kept: against a server that speaks Vault's API as far as a script lets it."""

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from secretweave import stores
from secretweave.argocd import weaving
from secretweave.argocd.app import App
from secretweave.argocd.daemon.watch import Watch
from secretweave.config import Config
from secretweave.config.configuration import Limits as RunLimits
from secretweave.config.configuration import Settings as Configured
from secretweave.errors import SecretweaveError
from secretweave.model import StoreConfig
from secretweave.outputs import Outside
from secretweave.sdk.vault_login import AppRole, Auth, Jwt
from secretweave.service import kept
from secretweave.service.kept import Kept
from secretweave.service.watch import Asker
from secretweave.stores.base import CallLimits, Context, Store
from secretweave.stores.vault import Settings
from tests.hosts.vault_store import Asked, Said, Scripted, say, scripted

# Threads and locks of ours, and a third of the time are pauses.
pytestmark = pytest.mark.once

APP = App("web", "shop", "default", "", "", ())
ROLE = Auth(app_role=AppRole(role_id="{project}"))


def stream(*refs: str) -> bytes:
    lines = "".join(f"  key{number}: secret://vault/{ref}#value\n" for number, ref in enumerate(refs))
    return f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: web\nstringData:\n{lines}".encode()


class Vault:
    """A script: answers logins and reads, and does what a test wants besides."""

    def __init__(self) -> None:
        self.server: Scripted
        self.reading: Callable[[Asked], Said | None] | None = None
        """Stands in the place of the answer to a read."""
        self.seconds = 0.0
        """How long a read takes."""
        self.logins = 0

    def __call__(self, asked: Asked) -> Said | None:
        if asked.path.endswith("/login"):
            self.logins += 1
            token = {"client_token": f"hvs.{self.logins}", "token_type": "service", "lease_duration": 3600}
            return say(auth=token | {"num_uses": 0})
        if asked.method == "POST":
            return say(204)
        time.sleep(self.seconds)
        if self.reading:
            return self.reading(asked)
        name = asked.path.rpartition("/")[2]
        return say(data={"data": {"value": f"value of {name}"}, "metadata": {"version": 7}})

    @property
    def reads(self) -> Counter[str]:
        """By ref."""
        paths = [asked.path.removeprefix("/v1/secret/data/") for asked in self.server.asked if asked.method == "GET"]
        return Counter(paths)

    @property
    def revoked(self) -> list[str]:
        """The tokens."""
        asked = [each for each in self.server.asked if each.path.endswith("/revoke-self")]
        return [each.headers["X-Vault-Token"] for each in asked]

    def config(self, auth: Auth = ROLE, *, request: float = 15.0) -> Config:
        settings = Settings(url=self.server.address, path="secret", kv_version=2, auth=auth)
        limits = RunLimits(deadline=20.0, request=request)
        return Config((StoreConfig("vault", None, "vault", settings, default=True),), Configured(limits=limits))


@pytest.fixture
def vault() -> Iterator[Vault]:
    script = Vault()
    with scripted(script) as server:
        script.server = server
        yield script


def slot_of(clients: Kept) -> kept._Slot:
    (slot,) = clients._slots.values()  # noqa: SLF001 - what is known of the one store shows nowhere else
    return slot


class Log:
    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []

    def __call__(self, line: str) -> None:
        import json

        self.lines.append(json.loads(line))

    def __getitem__(self, event: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clients(log: Log) -> Iterator[Kept]:
    found = Kept(Watch(log), 256, 3600)
    yield found
    found.close()


def weave(clients: Kept, config: Config, *refs: str, app: App = APP) -> str:
    out = io.BytesIO()
    outside = Outside({}, time.monotonic() + 20, pytest.fail, clients.keeping(Asker(app.project, app.name), config))
    weaving.weave(app, config, [("stdin", io.BytesIO(stream(*refs)))], out, outside)
    return out.getvalue().decode()


def fault(clients: Kept, config: Config, *refs: str, app: App = APP) -> SecretweaveError:
    with pytest.raises(SecretweaveError) as told:
        weave(clients, config, *refs, app=app)
    error: SecretweaveError = told.value.faults[0]  # type: ignore[attr-defined]  # of several
    return error


def wait(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_one_login_serves_many_requests(vault: Vault, clients: Kept):
    for _ in range(5):
        assert "value of db" in weave(clients, vault.config(), "db", "cache")
    assert vault.logins == 1
    assert vault.reads == {"db": 5, "cache": 5}
    assert vault.revoked == []


def test_fifty_at_once_are_one_login_and_one_read_of_each_secret(vault: Vault, clients: Kept, log: Log):
    """What none of them had begun to wait for is asked anew: no value outlives its read."""
    vault.seconds = 1.0
    config, ready = vault.config(), threading.Barrier(50)

    def one(number: int) -> str:
        ready.wait()
        return weave(clients, config, "db", "cache", app=APP._replace(name=f"app{number}"))

    with ThreadPoolExecutor(50) as pool:
        assert len(set(pool.map(one, range(50)))) == 1
    assert vault.logins == 1
    assert vault.reads["db"] == vault.reads["cache"] == 1
    assert len(log["open"]) == 1
    told = {(line["app"], line["ref"], line["version"], line["outcome"]) for line in log["read"]}
    assert told == {(f"app{number}", ref, "7", "ok") for number in range(50) for ref in ("db", "cache")}


def test_two_projects_never_share_a_client(vault: Vault, clients: Kept):
    for project in ("a", "b", "a", "b"):
        weave(clients, vault.config(), "db", app=APP._replace(project=project))
    assert vault.logins == 2
    tokens = [asked.headers["X-Vault-Token"] for asked in vault.server.asked if asked.method == "GET"]
    assert tokens == ["hvs.1", "hvs.2", "hvs.1", "hvs.2"]
    # Not even where nothing in the store's settings names the project.
    same = vault.config(Auth(app_role=AppRole(role_id="fixed")))
    for project in ("a", "b"):
        weave(clients, same, "db", app=APP._replace(project=project))
    assert vault.logins == 4


def test_two_namespaces_share_a_client_unless_it_is_bound_to_one(vault: Vault, clients: Kept):
    for namespace in ("one", "two"):
        weave(clients, vault.config(), "db", app=APP._replace(namespace=namespace))
    assert vault.logins == 1
    bound = vault.config(Auth(app_role=AppRole(role_id="{project}/{namespace}")))
    for namespace in ("one", "two"):
        weave(clients, bound, "db", app=APP._replace(namespace=namespace))
    assert vault.logins == 3


def test_other_settings_are_another_client(vault: Vault, clients: Kept):
    weave(clients, vault.config(), "db")
    weave(clients, vault.config(request=14.0), "db")
    assert vault.logins == 2


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), ((1,), [1]), ({"a": "b"}, {"a": "c"}), ("", None)])
def test_a_key_tells_apart_what_python_holds_equal(one: object, other: object):
    assert kept.frozen((one,)) != kept.frozen((other,))
    assert len({kept.frozen((one,)), kept.frozen((one,))}) == 1


def test_nothing_is_kept_of_a_value_or_of_an_absence(vault: Vault, clients: Kept):
    vault.reading = lambda _: say(404, errors=[])
    assert "nothing is stored" in fault(clients, vault.config(), "db").what
    vault.reading = None
    assert "value of db" in weave(clients, vault.config(), "db")
    assert vault.logins == 1


def test_an_outage_is_asked_about_once_in_a_while(
    vault: Vault, clients: Kept, log: Log, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kept, "PAUSE_SECONDS", 2.0)
    weave(clients, vault.config(), "db")
    vault.reading = lambda _: None
    first = fault(clients, vault.config(), "db")
    asked = len(vault.server.asked)
    with ThreadPoolExecutor(20) as pool:
        others = list(pool.map(lambda _: fault(clients, vault.config(), "db"), range(20)))
    assert first.what == f"the store `vault`: Vault at {vault.server.address} does not answer"
    told = f"the store `vault` cannot be opened: Vault at {vault.server.address} does not answer"
    assert {each.what for each in others} == {told}
    assert all("; it is asked again in " in each.why and "so since " in each.why for each in others)
    assert len(vault.server.asked) == asked
    vault.reading = None
    begun = time.monotonic()
    while True:
        try:
            weave(clients, vault.config(), "db")
            break
        except SecretweaveError:
            assert time.monotonic() < begun + 5
            time.sleep(0.05)
    # The client was good all the time.
    assert vault.logins == 1
    assert [line["event"] for line in log.lines if line["event"].startswith("store ")] == ["store down", "store up"]


def test_the_pause_grows_and_one_request_finds_out(vault: Vault, clients: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "PAUSE_SECONDS", 0.2)
    vault.reading = lambda _: None
    for number in range(4):
        fault(clients, vault.config(), "db")
        outage = slot_of(clients).outage
        assert outage is not None
        assert outage.failures == number + 1
        assert 0.1 * 2**number <= outage.until - outage.noted <= 0.2 * 2**number
        time.sleep(max(outage.until - time.monotonic(), 0))
    asked, ready = len(vault.server.asked), threading.Barrier(20)

    def one(_: int) -> SecretweaveError:
        ready.wait()
        return fault(clients, vault.config(), "db")

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(one, range(20)))
    assert sum("so since" not in each.why for each in found) == 1
    # Of that one: a login, and as many attempts as a read has.
    assert len(vault.server.asked) - asked <= 4


def test_a_client_that_failed_twice_is_replaced(vault: Vault, clients: Kept, monkeypatch: pytest.MonkeyPatch):
    """What it remembers of a failure must not outlive that."""
    monkeypatch.setattr(kept, "PAUSE_SECONDS", 0.01)
    weave(clients, vault.config(), "db")
    vault.reading = lambda _: None
    for _ in range(2):
        fault(clients, vault.config(), "db")
        time.sleep(0.05)
    vault.reading = None
    assert "value of db" in weave(clients, vault.config(), "db")
    assert vault.logins == 2
    wait(lambda: vault.revoked == ["hvs.1"])


def test_a_refused_client_is_replaced_if_it_is_not_new(vault: Vault, clients: Kept, monkeypatch: pytest.MonkeyPatch):
    vault.reading = lambda _: say(403, errors=["1 error occurred:\n\t* permission denied\n\n"])
    for _ in range(3):
        assert "does not let it be read" in fault(clients, vault.config(), "db").what
    assert vault.logins == 1
    monkeypatch.setattr(kept, "REFUSED_SECONDS", 0.0)
    fault(clients, vault.config(), "db")
    vault.reading = None
    assert "value of db" in weave(clients, vault.config(), "db")
    assert vault.logins == 2


def test_a_refused_login_is_tried_again_with_the_credentials_of_then(
    vault: Vault, clients: Kept, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    token = tmp_path / "token"
    config = vault.config(Auth(jwt=Jwt(str(token), role="shop")))
    assert "cannot be read" in fault(clients, config, "db").what
    token.write_text("eyJ")
    assert "cannot be read" in fault(clients, config, "db").what
    monkeypatch.setattr(kept, "REFUSED_SECONDS", 0.0)
    fault(clients, config, "db")
    assert "value of db" in weave(clients, config, "db")


def test_a_call_that_hangs_costs_its_client_and_no_more(vault: Vault, clients: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "SLACK_SECONDS", 0.1)
    monkeypatch.setattr(kept, "PAUSE_SECONDS", 0.1)
    config, release = vault.config(request=0.6), threading.Event()
    weave(clients, config, "db")
    slot = slot_of(clients)
    hung = slot.client
    assert hung is not None
    # The store's own time-outs are got around: what hangs is no request.
    monkeypatch.setattr(hung.store, "fetch", lambda *_: release.wait(20))
    assert "did not answer within 0.6 s" in fault(clients, config, "db").what
    time.sleep(0.3)
    # The first to come finds it, and is told; after the pause there is another client.
    wait(lambda: "value of db" in _tried(clients, config))
    assert slot.client is not hung
    assert vault.logins == 2
    release.set()


def _tried(clients: Kept, config: Config) -> str:
    try:
        return weave(clients, config, "db")
    except SecretweaveError:
        return ""


def test_what_is_not_used_is_closed(vault: Vault, clients: Kept):
    weave(clients, vault.config(), "db")
    clients.tidy()
    assert vault.revoked == []
    clients.resize(256, 0.0)
    time.sleep(0.01)
    clients.tidy()
    wait(lambda: vault.revoked == ["hvs.1"])
    weave(clients, vault.config(), "db")
    assert vault.logins == 2


def test_the_one_used_longest_ago_goes_first(vault: Vault, clients: Kept):
    clients.resize(2, 3600)
    for project in ("a", "b", "a", "c"):
        weave(clients, vault.config(), "db", app=APP._replace(project=project))
    wait(lambda: vault.revoked == ["hvs.2"])
    weave(clients, vault.config(), "db", app=APP._replace(project="a"))
    assert vault.logins == 3


def test_the_end_revokes_every_token(vault: Vault, clients: Kept):
    for project in ("a", "b", "c"):
        weave(clients, vault.config(), "db", app=APP._replace(project=project))
    clients.close()
    assert sorted(vault.revoked) == ["hvs.1", "hvs.2", "hvs.3"]


def test_what_is_let_go_while_it_is_used_is_closed_when_it_is_given_back(vault: Vault, clients: Kept):
    vault.seconds = 0.5
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(weave, clients, vault.config(), "db")
        wait(lambda: vault.reads)
        clients.clear()
        assert "value of db" in running.result()
    wait(lambda: vault.revoked == ["hvs.1"])


def test_what_is_opened_while_all_are_let_go_is_used_by_nobody(vault: Vault, clients: Kept):
    """The configuration changed in between: another client is opened for the request."""
    config, let_go = vault.config(), threading.Event()
    whole = stores.open_store

    def opened(store: StoreConfig, context: Context) -> Store:
        if not let_go.is_set():
            let_go.set()
            clients.clear()
        return whole(store, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "open_store", opened)
        assert "value of db" in weave(clients, config, "db")
    assert "value of db" in weave(clients, config, "db")
    assert vault.logins == 1
    clients.close()
    assert vault.revoked == ["hvs.1"]


def test_a_client_is_asked_by_no_more_threads_than_it_likes(vault: Vault, clients: Kept):
    most, now, lock = 0, 0, threading.Lock()

    @contextmanager
    def counted() -> Iterator[None]:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        yield
        with lock:
            now -= 1

    def reading(_: Asked) -> Said:
        with counted():
            time.sleep(0.02)
            return say(data={"data": {"value": "x"}, "metadata": {"version": 1}})

    vault.reading = reading
    refs = [[f"{project}-{number}" for number in range(30)] for project in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda own: weave(clients, vault.config(), *own), refs))
    assert most <= 16
    assert vault.logins == 1


def test_the_limits_of_a_kept_store_begin_with_each_call():
    limits, seen = CallLimits(10.0, 3.0), []
    begun = time.monotonic()
    assert limits.attempt_seconds == 3.0
    with limits.call():
        first = limits.deadline
        time.sleep(0.05)
        assert limits.deadline == first
        other = threading.Thread(target=lambda: seen.append(limits.deadline))
        other.start()
        other.join()
    assert begun + 10 <= first < seen[0]
    with limits.call():
        assert limits.deadline > first


def test_a_crash_is_told_to_its_own_request_and_waited_for_by_none(vault: Vault, clients: Kept, log: Log):
    config = vault.config()
    weave(clients, config, "db")
    slot = slot_of(clients)
    assert slot.client is not None
    slot.client.store.fetch = lambda *_: 1 / 0  # type: ignore[method-assign, assignment]  # a defect
    with pytest.raises(ZeroDivisionError):
        weave(clients, config, "db")
    assert slot.client.flights == {}
    assert slot.client.calls == {}
    assert [line["outcome"] for line in log["read"]] == ["ok"]
