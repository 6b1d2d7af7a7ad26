"""The Vault that other tests rely on: it is a real one, it counts right, and it can be slow or sealed."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.vault import VaultServer
from tests.hosts.vault import vault as start_vault

POLICY = 'path "counted/data/*" { capabilities = ["read"] }'


@pytest.fixture
def fresh(vault: VaultServer):
    """The shared Vault, undisturbed and counting from zero."""
    vault.reset()
    yield vault
    vault.latency(0)
    vault.answer(0)


def ask(vault: VaultServer, path: str, token: str = "", fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a client under test would ask."""
    context = ssl.create_default_context(cafile=str(vault.ca)) if vault.authority else None
    if context and vault.client:
        context.load_cert_chain(vault.client.certificate, vault.client.key)
    data = json.dumps(fields).encode() if fields is not None else None
    request = urllib.request.Request(f"{vault.address}/v1/{path}", data, {"X-Vault-Token": token})
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_what_is_written_is_read_and_counted(fresh: VaultServer):
    fresh.mount("counted", version="2")
    assert fresh.put("counted", "db", {"port": 5432}) == "1"
    assert fresh.put("counted", "db", {"port": 5433}) == "2"
    assert ask(fresh, "counted/data/db", fresh.token)["data"]["data"] == {"port": 5433}
    stats = fresh.stats()
    assert (stats.requests, stats.logins, stats.paths) == (1, 0, {"GET /v1/counted/data/db": 1})


def test_a_login_with_approle_gives_a_token_that_obeys_its_policy(fresh: VaultServer):
    fresh.enable_auth("counted", "approle")
    fresh.policy("counted", POLICY)
    role = fresh.create_approle("reader", ["counted"], path="counted", token_num_uses=2)
    token = ask(fresh, "auth/counted/login", fields=role._asdict())["auth"]["client_token"]
    for path, code in (("counted/data/absent", 404), ("secret/data/db", 403), ("counted/data/used-up", 403)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(fresh, path, token)
        assert caught.value.code == code, path
    stats = fresh.stats()
    assert (stats.requests, stats.logins) == (4, 1)


def test_a_token_of_few_uses_is_used_up(fresh: VaultServer):
    token = fresh.create_token(["default"], num_uses=1)
    ask(fresh, "auth/token/lookup-self", token)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask(fresh, "auth/token/lookup-self", token)


def test_a_dynamic_engine_and_kv_1_are_read(fresh: VaultServer):
    fresh.mount("totp", "totp")
    fresh.write("totp/keys/shop", {"generate": True, "issuer": "shop", "account_name": "web"})
    assert len(ask(fresh, "totp/code/shop", fresh.token)["data"]["code"]) == 6
    fresh.mount("plain", version="1")
    fresh.write("plain/db", {"port": 5432})
    assert ask(fresh, "plain/db", fresh.token)["data"] == {"port": 5432}


@pytest.mark.parametrize("kind", ["jwt", "kubernetes", "userpass"])
def test_it_has_the_login_method(fresh: VaultServer, kind: str):
    fresh.enable_auth(f"has-{kind}", kind)
    assert fresh.read("sys/auth")["data"][f"has-{kind}/"]["type"] == kind


def test_slow_answers_wait_side_by_side(fresh: VaultServer):
    fresh.latency(300)
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(fresh, "sys/health"), range(8)))
    assert 0.3 <= time.monotonic() - start < 8 * 0.3


def test_it_answers_as_sealed_as_often_as_told(fresh: VaultServer):
    fresh.answer(503, times=1)
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(fresh, "sys/health")
    assert json.load(caught.value) == {"errors": ["Vault is sealed"]}
    assert ask(fresh, "sys/health")["sealed"] is False


def test_connections_that_are_kept_are_counted_once(fresh: VaultServer):
    port = int(fresh.address.rpartition(":")[2])
    client = http.client.HTTPSConnection(
        "127.0.0.1", port, context=ssl.create_default_context(cafile=str(fresh.ca)), timeout=10
    )
    for _ in range(3):
        client.request("GET", "/v1/sys/health")
        client.getresponse().read()
    client.close()
    stats = fresh.stats()
    assert (stats.requests, stats.connections) == (3, 1)


def test_one_that_demands_client_certificates_serves_none_without(tmp_path: Path):
    with start_vault(tmp_path, client_ca=True) as server:
        assert ask(server, "sys/health")["initialized"] is True
        with pytest.raises(OSError, match=r".") as caught:
            ask(server._replace(client=None), "sys/health")
        assert not isinstance(caught.value, urllib.error.HTTPError)
        assert server.stats().requests == 1


def test_it_ends_with_its_test(tmp_path: Path):
    with start_vault(tmp_path, tls=False) as server:
        assert ask(server, "sys/health")["initialized"] is True
    with pytest.raises(OSError, match="refused"):
        ask(server, "sys/health")
