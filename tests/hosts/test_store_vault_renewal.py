"""What becomes of a token in a store that is kept for hours: it is renewed while it is used, then another follows."""

import threading
import time
import urllib.error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from secretweave.errors import StoreError
from secretweave.model import StoreConfig
from secretweave.sdk import vault_login
from secretweave.sdk.vault_connection import Tls
from secretweave.stores import open_store
from secretweave.stores.base import CallLimits, SecretKeyRef, Store
from secretweave.stores.vault import Settings
from tests.hosts.vault import VaultServer
from tests.hosts.vault_store import (
    APP_ROLE,
    KV_2_ANSWER,
    SECRET_REF,
    Asked,
    Said,
    Script,
    app_role,
    paths,
    say,
    scripted,
)
from tests.stores.contract import context, plain

pytest_plugins = ["tests.hosts.vault_fixtures"]

RENEWAL = "auth/token/renew-self"
LOGIN = "auth/approle/login"


def kept(settings: Settings, credential: str = "", *, seconds: float = 15.0) -> Store:
    """The store as a daemon opens it: *seconds* for each call."""
    config = StoreConfig("shop", None, "vault", settings, default=False)
    credentials: dict[SecretKeyRef, str] = {SECRET_REF: credential} if credential else {}
    given = context(config, {}, credentials=credentials)
    limits = CallLimits(seconds, seconds / 3)
    return open_store(config, given._replace(limits=limits))


def of_role(server: VaultServer, name: str, **options: object) -> Store:
    auth, secret_id = app_role(server, name, **options)
    tls = Tls(ca_file=str(server.ca)) if server.authority else Tls()
    return kept(Settings(url=server.address, auth=auth, tls=tls, kv_version=2), secret_id)


def renewals(server: VaultServer) -> int:
    return server.stats().paths.get(f"POST /v1/{RENEWAL}", 0)


def reads_for(store: Store, seconds: float) -> int:
    """Four threads read all the time; how often in all. Raises what a read raises."""
    ends = time.monotonic() + seconds

    def work(_: int) -> int:
        count = 0
        while time.monotonic() < ends:
            assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}
            count += 1
            time.sleep(0.05)
        return count

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(work, range(4)))


def accessors(server: VaultServer) -> set[str]:
    return set(server.read("auth/token/accessors?list=true")["data"]["keys"])


# --- a real Vault


def test_a_token_is_renewed_as_long_as_it_is_used(server: VaultServer):
    before = accessors(server)
    store = of_role(server, "renewed", token_ttl="3s")
    reads = reads_for(store, 8)
    (accessor,) = accessors(server) - before
    assert (server.stats().logins, renewals(server)) in {(1, 3), (1, 4)}
    assert server.stats().requests == reads + 1 + renewals(server)
    store.close()
    with pytest.raises(urllib.error.HTTPError, match=r"40[034]"):
        server.write("auth/token/lookup-accessor", {"accessor": accessor})


def test_at_its_longest_time_it_is_followed_by_another(server: VaultServer):
    store = of_role(server, "longest", token_ttl="3s", token_max_ttl="5s")
    reads_for(store, 8)
    store.close()
    assert server.stats().logins == 2
    assert renewals(server) in {2, 3, 4}


def test_what_vault_lets_nobody_renew_is_followed_by_another(server: VaultServer):
    """Without the policy `default` a token may not renew itself."""
    store = of_role(server, "unfit", token_ttl="2s", token_no_default_policy=True)
    reads_for(store, 3)
    assert server.stats().logins == 2
    assert renewals(server) in {1, 2}


def test_a_periodic_token_is_renewed(server: VaultServer):
    store = of_role(server, "periodic", token_period="2s")
    reads_for(store, 5)
    assert server.stats().logins == 1


@pytest.mark.parametrize("options", [{"token_num_uses": 1000}, {"token_type": "batch"}])
def test_a_token_of_counted_uses_and_a_batch_token_are_not_renewed(server: VaultServer, options: dict[str, object]):
    store = of_role(server, "-".join(options), token_ttl="4s", **options)
    reads_for(store, 2.9)
    assert (server.stats().logins, renewals(server)) == (1, 0)


def test_a_token_that_was_revoked_meanwhile_is_followed_by_another(server: VaultServer):
    before = accessors(server)
    store = of_role(server, "gone", token_ttl="6s")
    store.fetch("shop/app/token", None)
    (accessor,) = accessors(server) - before
    server.write("auth/token/revoke-accessor", {"accessor": accessor})
    time.sleep(4.2)
    assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}
    assert (server.stats().logins, renewals(server)) == (2, 1)


def test_the_time_of_a_kept_store_is_that_of_each_call(server: VaultServer):
    auth, secret_id = app_role(server, "calls")
    tls = Tls(ca_file=str(server.ca)) if server.authority else Tls()
    store = kept(Settings(url=server.address, auth=auth, tls=tls, kv_version=2), secret_id, seconds=1.0)
    for _ in range(2):
        store.fetch("shop/app/token", None)
        time.sleep(1.2)
    store.close()
    assert server.stats().paths["POST /v1/auth/token/revoke-self"] == 1


# --- what takes a script, and a clock


class Clock:
    """Goes as the real one, and can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(vault_login, "time", found)
    return found


def script(renewal: Callable[[], Said], *, seconds: int = 60, renewable: bool = True, lease: str = "") -> Script:
    """A Vault whose tokens live so long, and which says that to a renewal."""

    def said(asked: Asked) -> Said:
        if asked.path.endswith("/login"):
            token = {"client_token": "hvs.own", "token_type": "service", "renewable": renewable}
            return say(auth=token | {"lease_duration": seconds})
        if asked.path.endswith("/renew-self"):
            return renewal()
        if "internal/ui/mounts/database" in asked.path:
            return say(data={"path": "database/", "type": "database", "options": None})
        if "internal/ui/mounts/shop" in asked.path:
            return say(data={"path": "shop/", "type": "kv", "options": {"version": "2"}})
        if asked.path.startswith("/v1/database"):
            return say(lease_id=lease, lease_duration=600, data={"username": "v-web"})
        return say(204) if asked.method == "POST" else say(**KV_2_ANSWER)

    return said


def renewed(seconds: int = 60) -> Said:
    return say(auth={"client_token": "hvs.own", "lease_duration": seconds, "renewable": True})


def test_who_reads_meanwhile_does_not_wait_for_the_renewal(clock: Clock):
    asked, answer = threading.Event(), threading.Event()

    def slow() -> Said:
        asked.set()
        answer.wait(5)
        return renewed()

    with scripted(script(slow)) as server, ThreadPoolExecutor(4) as pool:
        store = kept(APP_ROLE._replace(url=server.address))
        store.fetch("shop/a", None)
        clock.ahead += 42
        first = pool.submit(store.fetch, "shop/b", None)
        assert asked.wait(5)
        for each in [pool.submit(store.fetch, "shop/c", None) for _ in range(3)]:
            each.result(4)
        answer.set()
        first.result(5)
        assert [paths(server).count(path) for path in (RENEWAL, LOGIN)] == [1, 1]


@pytest.mark.parametrize(
    "refusal", [say(403, errors=["permission denied"]), say(400, errors=["x"]), say(auth={"lease_duration": 0}), say()]
)
def test_a_renewal_that_is_refused_is_tried_once(clock: Clock, refusal: Said):
    with scripted(script(lambda: refusal)) as server:
        store = kept(APP_ROLE._replace(url=server.address))
        store.fetch("shop/a", None)
        clock.ahead += 42
        store.fetch("shop/b", None)
        store.fetch("shop/c", None)
        assert paths(server) == [LOGIN, "shop/data/a", RENEWAL, "shop/data/b", "shop/data/c"]
        clock.ahead += 21
        store.fetch("shop/d", None)
        assert paths(server)[5:] == [LOGIN, "shop/data/d"]


def test_while_vault_is_in_trouble_the_renewal_is_tried_again(clock: Clock):
    answers = [say(503)] * 3 + [renewed()]
    with scripted(script(lambda: answers.pop(0))) as server:
        store = kept(APP_ROLE._replace(url=server.address))
        store.fetch("shop/a", None)
        clock.ahead += 42
        store.fetch("shop/b", None)
        store.fetch("shop/c", None)
        assert paths(server) == [LOGIN, "shop/data/a", *[RENEWAL] * 3, "shop/data/b", "shop/data/c"]
        clock.ahead += 7
        store.fetch("shop/d", None)
        assert paths(server)[7:] == [RENEWAL, "shop/data/d"]
        clock.ahead += 30
        store.fetch("shop/e", None)
        assert paths(server)[9:] == ["shop/data/e"]


def test_a_renewed_token_keeps_its_leases(clock: Clock):
    with scripted(script(renewed, lease="database/creds/web/1")) as server:
        store = kept(APP_ROLE._replace(url=server.address, kv_version=None))
        store.fetch("database/creds/web", None)
        for _ in range(2):
            clock.ahead += 42
            store.fetch("shop/a", None)
        store.close()
        assert paths(server) == [LOGIN, "database/creds/web", *[RENEWAL, "shop/data/a"] * 2]


def test_no_lease_hangs_on_a_token_that_is_about_to_end(clock: Clock):
    """And when an older one with leases has ended, that fails nobody who reads later."""
    with scripted(script(renewed, lease="database/creds/web/1", renewable=False)) as server:
        store = kept(APP_ROLE._replace(url=server.address, kv_version=None))
        store.fetch("database/creds/web", None)
        clock.ahead += 42
        store.fetch("shop/a", None)
        store.fetch("database/creds/web", None)
        clock.ahead += 20
        store.fetch("shop/b", None)
        assert paths(server) == [
            LOGIN,
            "database/creds/web",
            "shop/data/a",
            LOGIN,
            "database/creds/web",
            "shop/data/b",
        ]
        clock.ahead += 45
        store.fetch("shop/c", None)
        store.close()
        assert paths(server)[6:] == [LOGIN, "shop/data/c", "auth/token/revoke-self"]


def test_less_time_than_before_is_the_last_of_it(clock: Clock):
    answers = [renewed(30)]
    with scripted(script(lambda: answers.pop(0))) as server:
        store = kept(APP_ROLE._replace(url=server.address))
        store.fetch("shop/a", None)
        clock.ahead += 42
        store.fetch("shop/b", None)
        clock.ahead += 24
        store.fetch("shop/c", None)
        assert paths(server) == [LOGIN, "shop/data/a", RENEWAL, "shop/data/b", "shop/data/c"]
        clock.ahead += 12
        store.fetch("shop/d", None)
        assert paths(server)[5:] == [LOGIN, "shop/data/d"]


def test_a_run_of_its_own_still_fails_when_its_leases_have_ended(clock: Clock):
    with scripted(script(renewed, lease="database/creds/web/1", renewable=False)) as server:
        config = StoreConfig("shop", None, "vault", APP_ROLE._replace(url=server.address), default=False)
        store = open_store(config, context(config))
        store.fetch("database/creds/web", None)
        clock.ahead += 61
        with pytest.raises(StoreError, match=r"^the token ended during the run"):
            store.fetch("shop/a", None)
