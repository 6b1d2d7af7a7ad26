"""The store `vault` against a real Vault: what it reads, and with how many requests."""

import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from secretweave import settings, yamltree
from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.sdk.vault_connection import Tls
from secretweave.sdk.vault_login import AppRole, Auth, Kubernetes, UserPass
from secretweave.stores import open_store, vault
from secretweave.stores.base import SecretKeyRef, Store, Wanted
from secretweave.stores.vault import Settings
from tests.hosts.vault import VaultServer
from tests.hosts.vault_store import (
    APP_ROLE,
    SECRET_REF,
    Asked,
    Said,
    app_role,
    as_batching,
    fetch_all,
    open_at,
    open_it,
    paths,
    say,
    scripted,
    told,
)
from tests.stores.contract import Opened, Secret, StoreContract, context, plain, told_versions

pytest_plugins = ["tests.hosts.vault_fixtures"]


class TestKv2(StoreContract):
    lacks = frozenset({"bytes"})
    version = "2"

    @pytest.fixture
    def opened(self, server: VaultServer) -> Iterator[Opened]:
        stores = []
        self.server = server
        self.mount = f"contract-{os.urandom(4).hex()}"
        server.mount(self.mount, version=self.version)

        def opened(secrets: list[Secret]) -> Store:
            blobs = any(isinstance(each.value, str) for each in secrets)
            for each in secrets:
                assert not isinstance(each.value, bytes)
                fields = {"value": each.value} if isinstance(each.value, str) else each.value
                if self.version == "2":
                    server.put(self.mount, each.path, fields)
                else:
                    server.write(f"{self.mount}/{each.path}", fields)
            stores.append(open_it(server, Settings(path=self.mount, field="value" if blobs else None)))
            return stores[-1]

        yield opened
        for each in stores:
            each.close()

    def versions(self, store: Store, path: str, /) -> list[str]:  # noqa: ARG002 - the suite's signature
        return sorted(self.server.read(f"{self.mount}/metadata/{path}")["data"]["versions"], key=int)


class TestKv1(TestKv2):
    lacks = frozenset({"bytes", "versions", "metadata"})
    version = "1"


# --- settings


MANUAL = vault.__doc__ or ""


def read_settings(text: str) -> tuple[Settings | None, list[str]]:
    faults: list[Any] = []
    found = settings.read(yamltree.load(text.encode())[0], Settings, settings.Place("config.yaml"), faults)
    return found, [fault.what for fault in faults]


def test_the_settings_of_the_manual_page_are_read():
    example = "\n".join(line[4:] for line in MANUAL.split("\n\n")[1].splitlines())
    _, _, text = example.partition("  vault:\n")
    found, faults = read_settings(text)
    assert faults == []
    assert found is not None
    assert found.auth.app_role == AppRole(role_id="59d6d1ca", secret_id_secret_ref=SecretKeyRef("vault", "secret-id"))
    assert found.auth.kubernetes == Kubernetes("secretweave")
    assert found.auth.user_pass == UserPass("web", SecretKeyRef("vault", "password"))
    assert (found.kv_version, found.field, found.path, found.namespace) == (2, "value", "secret", "team-a")


@pytest.mark.parametrize("auth", ["{}", "{tokenSecretRef: {name: vault-token, key: token}}"])
def test_a_store_of_the_operator_is_read_as_it_is(auth: str):
    found, faults = read_settings(f"{{url: 'https://vault.example.com:8200', path: secret, auth: {auth}}}")
    assert faults == []
    assert found is not None
    assert found.auth.token_secret_ref == (SecretKeyRef("vault-token", "token") if auth != "{}" else None)


ADDRESSES = [
    ("", "the address of Vault is not known"),
    ("vault.example.com:8200", "the address of Vault is no http or https address"),
    ("unix:///run/vault.sock", "the address of Vault is no http or https address"),
    ("https://", "the address of Vault is no http or https address"),
    ("https://vault.example.com/?x=1", "the address of Vault is no http or https address"),
    ("https://vault.example.com:x", "the address of Vault cannot be read"),
    ("https://web:hunter2@vault.example.com", "the address of Vault holds a user name"),
]


@pytest.mark.parametrize(("url", "what"), ADDRESSES)
def test_an_address_that_is_none_is_refused_without_showing_it(url: str, what: str):
    config = StoreConfig("shop", None, "vault", Settings(), default=False)
    with pytest.raises(StoreError) as caught:
        open_store(config, context(config, {"VAULT_ADDR": url, "VAULT_TOKEN": "t"}))
    assert caught.value.what == what
    assert "hunter2" not in told(caught.value)


def test_the_address_comes_from_the_environment_too(server: VaultServer):
    for variable in ("VAULT_ADDR", "BAO_ADDR"):
        config = StoreConfig("shop", None, "vault", Settings(tls=Tls(ca_file=str(server.ca))), default=False)
        store = open_store(config, context(config, {variable: server.address, "BAO_TOKEN": server.token}))
        assert store.fetch("shop/app/token", None).version == "1"
        store.close()


# --- refs


REFS = [
    (None, "shop/app/db", "shop/data/app/db", {"user": "web", "port": 5432}),
    (None, "shop/data/app/db", "shop/data/app/db", {"user": "web", "port": 5432}),
    (None, "/shop/app/db/", "shop/data/app/db", {"user": "web", "port": 5432}),
    (None, "shop/data/data/x", "shop/data/data/x", {"value": "awkward"}),
    (None, "shop-team/kv/app/db", "shop-team/kv/data/app/db", {"user": "team"}),
    (None, "shop-team/kv/data/app/db", "shop-team/kv/data/app/db", {"user": "team"}),
    (None, "shop-old/app/db", "shop-old/app/db", {"user": "old"}),
    ("shop", "app/db", "shop/data/app/db", {"user": "web", "port": 5432}),
    ("/shop/", "data/app/db", "shop/data/app/db", {"user": "web", "port": 5432}),
    ("shop", "shop/data/app/db", "shop/data/app/db", {"user": "web", "port": 5432}),
    ("shop", "data/data/x", "shop/data/data/x", {"value": "awkward"}),
    ("shop-team/kv", "app/db", "shop-team/kv/data/app/db", {"user": "team"}),
    ("shop-old", "app/db", "shop-old/app/db", {"user": "old"}),
]


@pytest.mark.parametrize(("path", "ref", "asked", "fields"), REFS)
def test_a_ref_is_read_in_every_spelling(
    server: VaultServer, path: str | None, ref: str, asked: str, fields: dict[str, Any]
):
    store = open_it(server, Settings(path=path))
    assert plain(store.fetch(ref, None)) == fields
    mount = "sys/internal/ui/mounts/" + ((path or ref).strip("/"))
    assert server.stats().paths == {f"GET /v1/{mount}": 1, f"GET /v1/{asked}": 1}


KNOWN_VERSIONS = [
    (Settings(kv_version=2), "shop/app/db", "shop/data/app/db"),
    (Settings(kv_version=2), "shop-team/kv/data/app/db", "shop-team/kv/data/app/db"),
    (Settings(kv_version=2, path="shop-team/kv"), "app/db", "shop-team/kv/data/app/db"),
    (Settings(kv_version=1), "shop-old/app/db", "shop-old/app/db"),
    (Settings(kv_version=1, path="shop-old"), "app/db", "shop-old/app/db"),
]


@pytest.mark.parametrize(("wanted", "ref", "asked"), KNOWN_VERSIONS)
def test_with_a_known_kv_version_nothing_is_looked_up(server: VaultServer, wanted: Settings, ref: str, asked: str):
    assert "user" in plain(open_it(server, wanted).fetch(ref, None))
    assert server.stats().paths == {f"GET /v1/{asked}": 1}


def test_several_spellings_of_a_secret_are_one_request(server: VaultServer):
    store = as_batching(open_it(server))
    refs = ["shop/app/db", "shop/data/app/db", "shop/app/db/", "shop/app/token", "shop-old/app/db"]
    batches = store.batches([Wanted(ref, None) for ref in refs] + [Wanted("shop/app/db", "1"), Wanted("a//b", None)])
    assert [[each.ref for each in batch] for batch in batches] == [refs[:3], [refs[3]], [refs[4]], [refs[0]], ["a//b"]]
    records = store.fetch_batch(batches[0])
    assert [plain(each) for each in records if not isinstance(each, StoreError)] == [{"user": "web", "port": 5432}] * 3
    assert server.stats().paths == {
        "GET /v1/sys/internal/ui/mounts/shop/app/db": 1,
        "GET /v1/sys/internal/ui/mounts/shop-old/app/db": 1,
        "GET /v1/shop/data/app/db": 1,
    }


NO_SECRETS = ["", "/", "shop", "shop//app", "shop/../sys/health", "shop/./app", "shop/a\nb", "sys/health"]
NO_SECRETS += ["auth/token/lookup-self", "team/auth/token/lookup-self"]


@pytest.mark.parametrize("ref", NO_SECRETS)
def test_a_ref_that_names_no_secret_is_refused(server: VaultServer, ref: str):
    with pytest.raises(StoreError, match=r"^the ref ") as caught:
        open_it(server).fetch(ref, None)
    assert not isinstance(caught.value, NotFound)
    assert not [path for path in server.stats().paths if "internal/ui" not in path]


def test_characters_that_mean_something_in_an_address_are_part_of_the_path(server: VaultServer):
    path = "a b/ü?x=1#f%2e%2e&+;@:"
    server.write("shop-old/" + urllib.parse.quote(path), {"user": "odd"})
    assert plain(open_it(server).fetch(f"shop-old/{path}", None)) == {"user": "odd"}


def test_a_path_that_is_no_mount_is_told(server: VaultServer):
    store = open_it(server, Settings(path="shop/app"))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"inside the mount `shop/`"):
            store.fetch("db", None)


# --- versions


def test_versions_are_numbers_of_kv_2(server: VaultServer):
    for value in ("one", "two", "three", "four"):
        server.put("shop", "versions", {"value": value})
    server.write("shop/delete/versions", {"versions": [2]})
    server.write("shop/destroy/versions", {"versions": [3]})
    store = open_it(server, Settings(path="shop", field="value"))
    record = store.fetch("versions", "1")
    assert (plain(record), record.version) == (b"one", "1")
    record = store.fetch("versions", None)
    assert (plain(record), record.version) == (b"four", "4")
    for version, cls, text in (
        ("2", NotFound, r"^version 2 was deleted at 20\d\d-"),
        ("3", NotFound, r"^version 3 was destroyed$"),
        ("9", NotFound, r"^nothing is stored at `shop/data/versions` in version 9$"),
        ("0", StoreError, r"^the version is no whole number$"),
        ("-1", StoreError, r"^the version is no whole number$"),
        ("latest", StoreError, r"^the version is no whole number$"),
    ):
        with pytest.raises(cls, match=text) as caught:
            store.fetch("versions", version)
        assert type(caught.value) is cls
    with pytest.raises(StoreError, match=r"^a KV version 1 engine has no versions$"):
        open_it(server).fetch("shop-old/app/db", "1")
    with pytest.raises(StoreError, match=r"^the totp engine has no versions$"):
        open_it(server).fetch("shop-totp/code/web", "1")


def test_a_secret_whose_latest_version_was_deleted_is_not_found(server: VaultServer):
    server.put("shop", "gone", {"value": "x"})
    server.delete("shop/data/gone")
    with pytest.raises(NotFound, match=r"^version 1 was deleted at "):
        open_it(server).fetch("shop/gone", None)


# --- versions that are told without a read


def told_one(store: Store, ref: str, version: str | None = None) -> str | None:
    return told_versions(store, [Wanted(ref, version)])[Wanted(ref, version)]


def test_what_the_manual_grants_lets_versions_be_told_and_no_value_be_read(server: VaultServer):
    server.put("shop", "told", {"value": "one"})
    (granted,) = [line for line in MANUAL.splitlines() if line.startswith('`path "secret/metadata/app/db"')]
    server.policy("shop-told", granted.split("`")[1].replace("secret/metadata/app/db", "shop/metadata/told"))
    environ = {"VAULT_TOKEN": server.create_token(["shop-told"])}
    store = open_it(server, Settings(path="shop"), environ)
    with pytest.raises(Denied):
        store.fetch("told", None)
    server.reset()
    assert told_one(store, "told") == "1"
    server.put("shop", "told", {"value": "two"})
    assert told_one(store, "told") == "2"
    assert told_one(store, "told", "1") == "1"
    assert server.stats().paths == {"GET /v1/shop/metadata/told": 3}


def test_what_is_deleted_or_destroyed_has_no_version_to_tell(server: VaultServer):
    for value in ("one", "two", "three"):
        server.put("shop", "dying", {"value": value})
    store = open_it(server, Settings(path="shop"))
    server.write("shop/delete/dying", {"versions": [3]})
    server.write("shop/destroy/dying", {"versions": [1]})
    wanted = [Wanted("dying", version) for version in (None, "1", "2", "3", "4", "0", "02", "latest", "")]
    assert told_versions(store, wanted) == dict.fromkeys(wanted) | {Wanted("dying", "2"): "2"}
    server.write("shop/undelete/dying", {"versions": [3]})
    assert told_one(store, "dying") == store.fetch("dying", None).version == "3"
    server.write("shop/metadata/unwritten", {"max_versions": 3})
    assert told_one(store, "unwritten") is None


@pytest.mark.parametrize(("lasts", "expected"), [("2m", None), ("1h", "1")])
def test_what_vault_will_delete_is_told_until_its_last_minutes(server: VaultServer, lasts: str, expected: str | None):
    server.write(f"shop/metadata/brief-{lasts}", {"delete_version_after": lasts})
    server.put("shop", f"brief-{lasts}", {"value": "x"})
    store = open_it(server)
    assert told_one(store, f"shop/brief-{lasts}") == expected
    assert store.fetch(f"shop/brief-{lasts}", None).version == "1"


def test_a_secret_that_is_made_anew_counts_from_one_as_the_manual_says(server: VaultServer):
    server.put("shop", "anew", {"value": "old"})
    store = open_it(server, Settings(path="shop"))
    assert told_one(store, "anew") == "1"
    server.delete("shop/metadata/anew")
    assert told_one(store, "anew") is None
    server.put("shop", "anew", {"value": "new"})
    assert told_one(store, "anew") == store.fetch("anew", None).version == "1"


def test_versions_cost_one_request_for_each_secret_that_has_some(server: VaultServer):
    store = open_it(server)
    wanted = [
        Wanted(ref, version)
        for ref in ("shop/app/db", "shop/data/app/db", "/shop/app/token", "shop-team/kv/app/db", "shop/nope")
        for version in (None, "1", "7")
    ]
    none = [Wanted(ref, None) for ref in ("shop-old/app/db", "shop-totp/code/web", "shop", "a//b", "sys/health", "")]
    expected = {each: "1" if each.version != "7" and each.ref != "shop/nope" else None for each in wanted}
    assert told_versions(store, wanted + none) == expected | dict.fromkeys(none)
    assert {path: count for path, count in server.stats().paths.items() if "internal/ui" not in path} == {
        "GET /v1/shop/metadata/app/db": 1,
        "GET /v1/shop/metadata/app/token": 1,
        "GET /v1/shop-team/kv/metadata/app/db": 1,
        "GET /v1/shop/metadata/nope": 1,
    }


def test_a_refused_look_at_the_metadata_costs_nothing_but_a_read(server: VaultServer):
    auth, secret_id = app_role(server, "no-metadata")
    store = open_it(server, Settings(auth=auth), {}, credential=secret_id)
    for _ in range(2):
        assert told_one(store, "shop/app/db") is None
        assert store.fetch("shop/app/db", None).version == "1"
    stats = server.stats()
    assert stats.logins == 1
    assert (stats.paths["GET /v1/shop/metadata/app/db"], stats.paths["GET /v1/shop/data/app/db"]) == (2, 2)


def test_a_missing_field_does_not_hide_the_version(server: VaultServer):
    """It is compared with that of a read that gave the field: a version's fields never change."""
    store = open_it(server, Settings(path="shop", field="value"))
    assert told_one(store, "app/db") == "1"
    with pytest.raises(NotFound):
        store.fetch("app/db", None)


def test_a_token_that_ended_is_replaced_for_versions_too(server: VaultServer):
    server.policy("shop-versions", 'path "shop/metadata/*" { capabilities = ["read"] }')
    role = server.create_approle("versions", ["shop-versions"], path="shop-approle", token_num_uses=1)
    auth = Auth(app_role=AppRole("shop-approle", role.role_id, secret_id_secret_ref=SECRET_REF))
    store = open_it(server, Settings(auth=auth, kv_version=2), {}, credential=role.secret_id)
    assert [told_one(store, "shop/app/db") for _ in range(3)] == ["1"] * 3
    assert server.stats().logins == 3


def test_a_token_that_vault_does_not_know_ends_the_asking(server: VaultServer):
    for environ, what in (({"VAULT_TOKEN": "hvs.hunter2"}, "does not know the token"), ({}, "wants a token")):
        with pytest.raises(Denied, match=what) as caught:
            told_one(open_it(server, None, environ), "shop/app/db")
        assert "hunter2" not in told(caught.value)


def test_a_vault_that_does_not_work_is_unavailable_for_versions_too(server: VaultServer):
    server.answer(503)
    with pytest.raises(Unavailable, match="does not answer"):
        told_one(open_it(server, Settings(kv_version=2)), "shop/app/db")
    assert server.stats().requests == 3


def test_a_path_that_is_no_mount_ends_the_asking_as_it_ends_all_reading(server: VaultServer):
    with pytest.raises(StoreError, match=r"inside the mount `shop/`"):
        told_one(open_it(server, Settings(path="shop/app")), "db")


VERSION = {"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": False}
ABOUT: dict[str, Any] = {"current_version": 1, "versions": {"1": VERSION}}


def about(**more: Any) -> Said:
    return say(data=ABOUT | {"versions": {"1": VERSION | more}})


METADATA: list[tuple[str, Said, str | None]] = [
    ("as it is", about(), "1"),
    ("to be deleted", about(deletion_time="2999-03-22T02:24:06.945319214Z"), "1"),
    ("to be deleted, in another zone", about(deletion_time="2999-03-22T02:24:06+02:00"), "1"),
    ("deleted", about(deletion_time="2018-03-22T02:24:06.945319214Z"), None),
    ("without a zone", about(deletion_time="2999-03-22T02:24:06"), None),
    ("at no time", about(deletion_time="soon"), None),
    ("at a number", about(deletion_time=32503680000), None),
    ("at null", about(deletion_time=None), None),
    ("destroyed", about(destroyed=True), None),
    ("destroyed, perhaps", about(destroyed=None), None),
    ("of no number", say(data=ABOUT | {"current_version": "one"}), None),
    ("of no current number", say(data={"versions": {"1": VERSION}}), None),
    ("of number 0", say(data={"current_version": 0, "versions": {"0": VERSION}}), None),
    ("of another number", say(data=ABOUT | {"current_version": 2}), None),
    ("of a version that is none", say(data=ABOUT | {"versions": {"1": "x"}}), None),
    ("without versions", say(data={"current_version": 1}), None),
    ("a list of versions", say(data=ABOUT | {"versions": [VERSION, VERSION]}), None),
    ("a list", say(data=[]), None),
    ("nothing", say(), None),
    ("a secret of KV 1", say(data={"user": "web"}), None),
    ("forbidden", say(403, errors=["1 error occurred:\n\t* permission denied\n\n"]), None),
    ("forbidden by a guard", (403, {}, b"<html>"), None),
    ("absent", say(404, errors=[]), None),
    ("absent with data", say(404, data=ABOUT), None),
    ("not understood", say(400, errors=["x"]), None),
    ("no such operation", say(405, errors=["unsupported operation"]), None),
]


@pytest.mark.parametrize(("answer", "expected"), [each[1:] for each in METADATA], ids=[each[0] for each in METADATA])
@pytest.mark.parametrize("look_up", [403, 404])
def test_doubtful_metadata_tell_no_version(answer: Said, expected: str | None, look_up: int):
    """Of a mount, too, that is taken for a KV 2."""

    def script(asked: Asked) -> Said:
        refused = ["preflight capability check returned 403"] if look_up == 403 else []
        return say(look_up, errors=refused) if "internal/ui" in asked.path else answer

    with scripted(script) as server:
        assert told_one(open_at(server.address, Settings()), "shop/app/x") == expected
        assert paths(server) == ["shop/metadata/app/x"]


def test_a_token_that_vault_knows_no_more_is_replaced():
    known: set[str] = set()

    def script(asked: Asked) -> Said:
        if asked.path.endswith("/login"):
            known.add(f"hvs.{len(server.asked)}")
            return say(auth={"client_token": f"hvs.{len(server.asked)}", "lease_duration": 0, "token_type": "batch"})
        if asked.headers["X-Vault-Token"] not in known:
            return say(403, errors=["permission denied"])
        return about()

    with scripted(script) as server:
        store = open_at(server.address, APP_ROLE._replace(kv_version=2))
        assert told_one(store, "shop/x") == "1"
        known.clear()
        assert told_one(store, "shop/x") == "1"
        login = "auth/approle/login"
        assert paths(server) == [login, "shop/metadata/x", "shop/metadata/x", login, "shop/metadata/x"]


# --- what is not there


ABSENT = [
    (Settings(), "shop/nope", "nothing is stored at `shop/data/nope`", ""),
    (Settings(), "shop/data/data/app/db", "nothing is stored at `shop/data/data/app/db`", "`data/` is written twice"),
    (Settings(path="shop"), "metadata/app/db", "", "`metadata/` stands where `data/` may stand"),
    (Settings(path="shop"), "shop/app/db", "", "spec.vault.path names the mount `shop` already"),
    (Settings(path="shop-old"), "shop-old/app/db", "", "spec.vault.path names the mount `shop-old` already"),
    (Settings(), "shop-old/data/app/db", "", "the engine is KV version 1, whose paths have no `data/`"),
    (Settings(path="shop", field="nope"), "app/db", "the secret has no field `nope`", "spec.vault.field of the"),
]


@pytest.mark.parametrize(("wanted", "ref", "what", "why"), ABSENT)
def test_what_is_absent_is_not_found_and_the_likely_cause_told(
    server: VaultServer, wanted: Settings, ref: str, what: str, why: str
):
    with pytest.raises(NotFound) as caught:
        open_it(server, wanted).fetch(ref, None)
    assert caught.value.what.startswith(what)
    assert caught.value.why.startswith(why)
    assert bool(caught.value.why) == bool(why)
    assert server.stats().requests == 2, "no request is made to guess"


MISCONFIGURED = [
    (Settings(kv_version=1), "shop/app/db", "the engine is KV version 2"),
    (Settings(kv_version=1), "shop/data/app/db", "the engine is KV version 2"),
    (Settings(), "nowhere/app/db", "no engine of Vault is mounted there"),
    (Settings(), "shop-totp/keys", "Vault has nothing to read there"),
    (Settings(), "shop-totp/code/nope", "the totp engine gives nothing for this path"),
]


@pytest.mark.parametrize(("wanted", "ref", "what"), MISCONFIGURED)
def test_what_a_default_must_not_answer_is_not_called_absent(
    server: VaultServer, wanted: Settings, ref: str, what: str
):
    with pytest.raises(StoreError) as caught:
        open_it(server, wanted).fetch(ref, None)
    assert caught.value.what.startswith(what)
    assert type(caught.value) is StoreError


def test_a_kv_1_taken_for_a_kv_2_is_told(server: VaultServer):
    server.write("shop-old/data/app", {"user": "x"})
    with pytest.raises(StoreError, match=r"^Vault's answer is not that of a KV version 2 engine$"):
        open_it(server, Settings(kv_version=2)).fetch("shop-old/app", None)


def test_a_field_is_the_secret_where_the_store_says_so(server: VaultServer):
    server.put("shop", "typed", {"value": 5432, "other": "x"})
    server.put("shop", "nested", {"value": {"user": "web"}})
    server.put("shop", "null", {"value": None})
    store = open_it(server, Settings(path="shop", field="value"))
    assert plain(store.fetch("typed", None)) == b"5432"
    assert plain(store.fetch("nested", None)) == b'{"user":"web"}'
    with pytest.raises(StoreError, match=r"null"):
        store.fetch("null", None)


def test_a_dynamic_engine_is_read_as_it_is(server: VaultServer):
    record = open_it(server).fetch("shop-totp/code/web", None)
    assert len(plain(record)["code"]) == 6
    assert record.version == ""
    assert server.stats().paths == {
        "GET /v1/sys/internal/ui/mounts/shop-totp/code/web": 1,
        "GET /v1/shop-totp/code/web": 1,
    }


# --- how many requests


def test_requests_are_the_distinct_paths_and_one_look_up_login_and_revocation(server: VaultServer):
    refs = []
    for number in range(60):
        mount = ("shop", "shop-team/kv")[number % 2]
        server.put(mount, f"many/{number}", {"value": number})
        refs.append(f"{mount}/many/{number}")
    server.policy(
        "shop-many",
        'path "+/data/*" { capabilities = ["read"] } path "shop-team/kv/data/*" { capabilities = ["read"] }',
    )
    role = server.create_approle("many", ["shop-many"], path="shop-approle")
    auth = Auth(app_role=AppRole("shop-approle", role.role_id, secret_id_secret_ref=SECRET_REF))
    server.latency(20)
    store = open_it(server, Settings(auth=auth), {}, credential=role.secret_id)
    begin = time.monotonic()
    assert fetch_all(store, refs) == [{"value": number} for number in range(60)]
    seconds = time.monotonic() - begin
    store.close()
    stats = server.stats()
    assert (stats.requests, stats.logins) == (60 + 2 + 1 + 1, 1)
    assert set(stats.paths.values()) == {1}
    assert stats.connections <= 16
    assert seconds < 60 * 0.02, "one after the other"


def test_threads_that_begin_at_once_log_in_once(server: VaultServer):
    auth, secret_id = app_role(server, "at-once")
    server.latency(50)
    store = open_it(server, Settings(auth=auth, kv_version=2), {}, credential=secret_id)
    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(lambda _: store.fetch("shop/app/db", None), range(16)))) == 16
    assert (server.stats().logins, server.stats().requests) == (1, 17)


def test_a_mount_is_looked_up_once_by_all_threads(server: VaultServer):
    server.latency(50)
    store = open_it(server)
    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(lambda _: store.fetch("shop/app/db", None), range(16)))) == 16
    assert server.stats().requests == 17


# --- start-up


def test_only_what_is_used_of_the_sdk_is_imported():
    """The rest is there for who wants it: another SDK in the same process, say."""
    code = (
        "import sys; from secretweave.stores import vault; assert 'requests' not in sys.modules; vault.preload();"
        "print(*sorted(set(sys.modules) & {'hvac.adapters', 'hvac.api', 'hvac.v1', 'requests', 'inspect'}));"
        "import charset_normalizer, hvac.utils, requests;"
        "print('charset_normalizer.api' in sys.modules, charset_normalizer.__version__ > '2');"
        "print(requests.compat.chardet.detect('größer'.encode('utf-16'))['encoding']);"
        "print(hvac.utils.format_url('/{a}', a='b c'))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    expected = ["hvac.adapters requests", "False True", "UTF-16", "/b%20c"]
    assert (found.stdout.splitlines(), found.stderr) == (expected, "")


def test_another_hvac_that_needs_more_of_itself_is_loaded_whole(tmp_path: Path):
    package = tmp_path / "hvac"
    package.mkdir()
    for name, text in (
        ("__init__", "WHOLE = True"),
        ("exceptions", ""),
        ("utils", "import inspect"),
        ("adapters", "from hvac import WHOLE, utils; inspect = utils.inspect"),
    ):
        (package / f"{name}.py").write_text(text)
    code = "from secretweave.sdk import vault_http; print(vault_http._hvac().WHOLE)"
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (found.stdout, found.stderr) == ("True\n", "")


def test_without_hvac_it_is_told_how_to_install_it():
    code = """
import sys
from secretweave.errors import StoreError
from secretweave.stores import vault

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hvac":
            raise ModuleNotFoundError(name="hvac")

sys.meta_path.insert(0, Lacking())
try:
    vault.preload()
except StoreError as error:
    print(error.what, error.fix.partition(";")[0], sep=" | ")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert found.stderr == ""
    assert found.stdout.startswith("the Python package hvac")
    assert found.stdout.endswith(" is not installed | pip install 'secretweave[vault]'\n")
