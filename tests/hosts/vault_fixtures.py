"""Fixtures of the tests of the store `vault`; a plugin of theirs, since they share one Vault."""

from collections.abc import Iterator

import pytest

from tests.hosts.vault import VaultServer, undisturbed


@pytest.fixture(scope="session")
def filled(vault: VaultServer) -> VaultServer:
    """The shared Vault with engines for the store's tests."""
    vault.mount("shop", version="2")
    vault.mount("shop-old", version="1")
    vault.mount("shop-team/kv", version="2")
    vault.mount("shop-totp", "totp")
    vault.put("shop", "app/db", {"user": "web", "port": 5432})
    vault.put("shop", "app/token", {"value": "t0ken"})
    vault.put("shop", "data/x", {"value": "awkward"})
    vault.put("shop-team/kv", "app/db", {"user": "team"})
    vault.write("shop-old/app/db", {"user": "old"})
    vault.write("shop-totp/keys/web", {"generate": True, "issuer": "shop", "account_name": "web"})
    vault.policy("shop", 'path "shop/data/*" { capabilities = ["read"] }')
    for kind in ("approle", "userpass"):
        vault.enable_auth(f"shop-{kind}", kind)
    return vault


@pytest.fixture
def server(filled: VaultServer) -> Iterator[VaultServer]:
    with undisturbed(filled) as server:
        yield server
