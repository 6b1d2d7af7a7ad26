"""The store for Azure Key Vault: the real SDK against a stand-in for Key Vault, Entra ID and a managed identity."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest

from secretweave import yamltree
from secretweave.errors import Denied, NotFound, SecretweaveError, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.settings import Place, read
from secretweave.stores import open_store
from secretweave.stores.azurekv import Settings
from secretweave.stores.base import SecretKeyRef, Store, VersionedStore, Wanted
from tests.servers.azure import IDENTITY_HEADER, TENANT, Answer, Azure, Rule, Tunnel, throttled
from tests.servers.certificates import Authority, Pair
from tests.stores.contract import Opened, Secret, StoreContract, context, plain, told_versions

CLIENT = "0c6e3f4a-11d8-4a56-b2a0-8d0f6a5c7e21"
CLIENT_SECRET = "zq8Q~client-secret"
VALUE = "hunter2-is-the-value"
AT = {SecretKeyRef("azure", "id"): CLIENT, SecretKeyRef("azure", "secret"): f"{CLIENT_SECRET}\n"}
PRINCIPAL = "{clientIDSecretRef: {name: azure, key: id}, clientSecretSecretRef: {name: azure, key: secret}}"
CLOUDS = ("demo.vault.azure.net", "demo.vault.azure.cn", "demo.vault.usgovcloudapi.net")
ENTRA = ("login.microsoftonline.com", "login.chinacloudapi.cn", "login.microsoftonline.us")

# The oldest azure-identity that we allow calls a newer msal by an old name. In a run sdk.quiet() has ended warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:Use list\(search:DeprecationWarning")

HOUR = 3600.0

Connect = Callable[..., Store]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("azure", names=("localhost", *CLOUDS, *ENTRA))


@pytest.fixture
def azure(pair: Pair) -> Iterator[Azure]:
    with Azure(pair) as server:
        server.principals[CLIENT] = CLIENT_SECRET
        yield server


@pytest.fixture(autouse=True)
def _no_azure_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads the process's environment: nothing of this machine may be in it."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "IMDS_", "MSI_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/nonexistent")


def settings(text: str, folder: Path) -> Settings:
    """What stands under `azurekv`, read as a SecretStore is."""
    faults: list[SecretweaveError] = []
    found = read(yamltree.load(text.encode())[0], Settings, Place(str(folder / "store.yaml")), faults)
    assert found is not None, [str(fault.what) for fault in faults]
    return found


@pytest.fixture
def connect(azure: Azure, authority: Authority, tmp_path: Path) -> Iterator[Connect]:
    """Opens a store at the stand-in; *spec*: what its settings have besides."""
    # The SDK remembers challenges by address for as long as the process lives, and ports come back.
    challenges = import_module("azure.keyvault.secrets._shared.http_challenge_cache")
    challenges.clear()
    stores: list[Store] = []

    def opened(
        spec: str = "",
        *,
        auth: str = PRINCIPAL,
        url: str = "",
        tenant: str = f"tenantID: {TENANT}",
        verify: str = "false",
        ca: Path | None = None,
        environ: Mapping[str, str] | None = None,
        credentials: Mapping[SecretKeyRef, str] = AT,
        seconds: float = 30,
    ) -> Store:
        lines = [f"url: {url or azure.url}", tenant, f"auth: {auth}", f"caFile: {ca or authority.certificate}", spec]
        lines += [f"verifyChallengeResource: {verify}"]
        lines += [f"authorityHost: {azure.authority}"] if "authorityHost" not in spec and not environ else []
        config = StoreConfig("azure", None, "azurekv", settings("\n".join(lines), tmp_path), default=True)
        store = open_store(config, context(config, environ, credentials=credentials, seconds=seconds))
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def told(error: StoreError) -> str:
    return f"{error.what}; {error.why}; {error.fix}"


class TestContract(StoreContract):
    lacks = frozenset({"bytes", "fields"})

    @pytest.fixture
    def opened(self, azure: Azure, connect: Connect) -> Opened:
        self.azure = azure

        def opened(secrets: list[Secret]) -> Store:
            for number, secret in enumerate(secrets):
                assert not isinstance(secret.value, bytes)
                text = secret.value if isinstance(secret.value, str) else json.dumps(secret.value)
                # Seconds apart, as people write them.
                azure.put(secret.path, text, created=time.time() - HOUR + number)
            return connect()

        return opened

    def versions(self, _store: Store, path: str, /) -> list[str]:
        return [version.id for version in self.azure.secrets[path]]


def test_what_was_stored_as_base64_is_still_that(azure: Azure, connect: Connect):
    azure.put("certificate", "MIIKcQIBAzCC", content_type="application/x-pkcs12")
    assert plain(connect().fetch("certificate", None)) == b"MIIKcQIBAzCC"


class TestIdentifiers:
    def test_the_identifier_of_a_secret_is_a_reference_to_it(self, azure: Azure, connect: Connect):
        first, second = azure.put("key", "first"), azure.put("key", "second")
        store = connect()
        assert store.fetch(f"{azure.url}/secrets/key", None).version == second
        assert store.fetch(f"{azure.url}/secrets/key/", None).version == second
        assert plain(store.fetch(f"{azure.url}/secrets/key/{first}", None)) == b"first"
        assert plain(store.fetch(f"{azure.url}/secrets/key/{first}", first)) == b"first"

    @pytest.mark.parametrize(
        "ref",
        [
            "https://other.vault.azure.net/secrets/key",
            "http://localhost/secrets/key",
            "{url}/keys/key",
            "https://localhost@evil.example.com/secrets/key",
            "https://evil.example.com\\@localhost/secrets/key",
        ],
    )
    def test_one_of_another_vault_is_refused_without_a_request(self, azure: Azure, connect: Connect, ref: str):
        with pytest.raises(StoreError, match="of no secret in this store's vault") as caught:
            connect().fetch(ref.format(url=azure.url), None)
        assert not isinstance(caught.value, NotFound)
        assert not azure.requests

    def test_two_versions_are_refused(self, azure: Azure, connect: Connect):
        version = azure.put("key", "first")
        with pytest.raises(StoreError, match="two versions"):
            connect().fetch(f"{azure.url}/secrets/key/{version}", "0" * 32)

    @pytest.mark.parametrize(
        ("ref", "version"),
        [("a/b", None), ("../keys/a", None), ("a_b", None), ("a?b", None), ("", None), ("a", "1/..")],
    )
    def test_what_can_be_no_name_or_version_costs_no_request(
        self, azure: Azure, connect: Connect, ref: str, version: str | None
    ):
        with pytest.raises(NotFound, match="no secret can have this"):
            connect().fetch(ref, version)
        assert not azure.requests


class TestSecretsThatAreNotToBeUsed:
    def test_a_disabled_one_is_named_as_such(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE, enabled=False)
        with pytest.raises(StoreError, match="it is disabled") as caught:
            connect().fetch("key", None)
        assert not isinstance(caught.value, NotFound | Denied | Unavailable)

    def test_an_older_version_may_still_be_enabled(self, azure: Azure, connect: Connect):
        first = azure.put("key", "first")
        azure.put("key", VALUE, enabled=False)
        assert plain(connect().fetch("key", first)) == b"first"

    def test_an_expired_one_is_told_with_its_date(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE, exp=1767225600)
        with pytest.raises(StoreError, match="it has expired on 2026-01-01T00:00:00Z") as caught:
            connect().fetch("key", None)
        assert "allowExpired" in caught.value.fix
        assert VALUE not in told(caught.value)

    def test_one_that_is_not_valid_yet_is_told_with_its_date(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE, nbf=4102444800)
        with pytest.raises(StoreError, match="it is not valid before 2100-01-01T00:00:00Z"):
            connect().fetch("key", None)

    def test_allow_expired_gives_both(self, azure: Azure, connect: Connect):
        azure.put("old", "o", exp=time.time() - HOUR)
        azure.put("new", "n", nbf=time.time() + HOUR)
        store = connect("allowExpired: true")
        assert [plain(store.fetch(name, None)) for name in ("old", "new")] == [b"o", b"n"]

    def test_one_between_its_dates_is_given(self, azure: Azure, connect: Connect):
        azure.put("key", "v", nbf=time.time() - HOUR, exp=time.time() + HOUR)
        assert plain(connect().fetch("key", None)) == b"v"

    def test_a_deleted_one_is_not_found_and_the_fault_says_what_it_may_be(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE)
        del azure.secrets["key"]
        with pytest.raises(NotFound, match="the vault has no such secret") as caught:
            connect().fetch("key", None)
        assert "one that can be recovered looks the same" in caught.value.why

    def test_half_a_character_is_no_text(self, azure: Azure, connect: Connect):
        azure.put("key", "\ud800")
        with pytest.raises(StoreError, match="not text"):
            connect().fetch("key", None)


class TestDenied:
    @pytest.mark.parametrize(
        ("code", "why", "fix"),
        [
            ("ForbiddenByRbac", "no role of the identity", "Key Vault Secrets User"),
            ("ForbiddenByPolicy", "access policy", "`get` for secrets"),
            ("ForbiddenByFirewall", "firewall", "network settings"),
            ("ForbiddenByConnection", "closed to public networks", "private endpoint"),
        ],
    )
    def test_a_refusal_tells_what_to_change(self, azure: Azure, connect: Connect, code: str, why: str, fix: str):
        azure.put("key", VALUE)
        azure.forbidden = code
        with pytest.raises(Denied) as caught:
            connect().fetch("key", None)
        assert why in caught.value.why
        assert fix in caught.value.fix
        assert "Secret: key" not in told(caught.value), "the vault's own words"

    def test_the_refusals_of_many_secrets_are_one_cause(self, azure: Azure, connect: Connect):
        azure.forbidden = "ForbiddenByRbac"
        store = connect()
        causes = set()
        for name in ("a", "b", "c"):
            with pytest.raises(Denied) as caught:
                store.fetch(name, None)
            causes.add(told(caught.value))
        assert len(causes) == 1

    @pytest.mark.parametrize("spelled", ["innererror", "innerError"])
    def test_the_inner_code_is_found_however_it_is_spelled(self, azure: Azure, connect: Connect, spelled: str):
        body = {"error": {"code": "Forbidden", "message": "m", spelled: {"code": "SecretDisabled"}}}
        azure.rules = [Rule(Answer(403, body), only_with_token=True)]
        with pytest.raises(StoreError, match="it is disabled"):
            connect().fetch("key", None)

    def test_a_token_that_the_vault_does_not_accept(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE)
        store = connect()
        store.fetch("key", None)
        azure.tokens.clear()
        with pytest.raises(Denied, match="does not accept the token"):
            store.fetch("key", None)

    def test_a_404_that_is_not_key_vaults_does_not_let_a_default_stand(self, azure: Azure, connect: Connect):
        azure.rules = [Rule(Answer(404, b"<html>lost</html>", {"Content-Type": "text/html"}), only_with_token=True)]
        with pytest.raises(Unavailable, match="does not answer as a Key Vault does"):
            connect().fetch("key", None)


def together(store: Store, names: list[str]) -> list[Any]:
    """What each fetch gave, all of them begun at the same moment as far as 16 threads can."""
    barrier = threading.Barrier(16)
    met = threading.local()

    def fetch(name: str) -> Any:
        if not hasattr(met, "yes"):
            met.yes = True
            barrier.wait(10)
        try:
            return plain(store.fetch(name, None))
        except StoreError as error:
            return error

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(fetch, names))


class TestRequests:
    @pytest.mark.parametrize("delay", [0.0, 0.02])
    def test_sixteen_threads_and_fifty_secrets_cost_one_challenge_and_one_login(
        self, azure: Azure, connect: Connect, delay: float
    ):
        names = [f"secret-{number}" for number in range(50)]
        for name in names:
            azure.put(name, f"value of {name}")
        azure.delay = delay
        found = together(connect(), names)
        assert found == [f"value of {name}".encode() for name in names]
        assert azure.reads() == 50 + 1
        assert azure.logins() == 1
        assert azure.requests[f"GET /{TENANT}/v2.0/.well-known/openid-configuration"] == 1
        assert sum(azure.requests.values()) == 50 + 1 + 2
        assert azure.connections <= 16 + 1

    def test_one_secret_costs_two_requests_and_the_login(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE)
        connect().fetch("key", None)
        assert dict(azure.requests) == {
            "GET /secrets/key/": 2,
            f"GET /{TENANT}/v2.0/.well-known/openid-configuration": 1,
            f"POST /{TENANT}/oauth2/v2.0/token": 1,
        }

    def test_opening_it_costs_none(self, azure: Azure, connect: Connect):
        connect()
        assert not azure.requests

    def test_a_missing_secret_that_goes_first_does_not_stand_for_the_others(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        store = connect()
        with pytest.raises(NotFound):
            store.fetch("absent", None)
        assert plain(store.fetch("key", None)) == b"v"
        assert azure.reads() == 3

    def test_a_login_that_fails_is_tried_once_for_all(self, azure: Azure, connect: Connect):
        azure.principals[CLIENT] = "another"
        found = together(connect(), [f"secret-{number}" for number in range(20)])
        assert {type(each) for each in found} == {Denied}
        assert len({told(each) for each in found}) == 1
        assert azure.logins() == 1
        assert azure.reads() == 1

    def test_a_token_that_soon_ends_is_renewed(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        azure.expires_in = 5
        store = connect()
        store.fetch("key", None)
        azure.expires_in = 3599
        store.fetch("key", None)
        store.fetch("key", None)
        assert azure.logins() == 2


def told_version(store: Store, ref: str = "key", version: str | None = None) -> str | None:
    return told_versions(store, [Wanted(ref, version)])[Wanted(ref, version)]


LIST = "GET /secrets/key/versions"


def item(azure: Azure, *, name: str = "key", **attributes: Any) -> Answer:
    """A list of one version."""
    found = {"id": f"{azure.url}/secrets/{name}/{'a' * 32}", "attributes": {"enabled": True, **attributes}}
    return Answer(200, {"value": [found], "nextLink": None})


class TestVersions:
    def test_a_new_version_is_told_after_a_write(self, azure: Azure, connect: Connect):
        store = connect()
        first = azure.put("key", "first", created=time.time() - HOUR)
        assert told_version(store) == first == store.fetch("key", None).version
        second = azure.put("key", "second")
        assert told_version(store) == second == store.fetch("key", None).version

    def test_one_list_tells_of_all_versions_however_they_are_written(self, azure: Azure, connect: Connect):
        first = azure.put("key", VALUE, created=time.time() - HOUR)
        second = azure.put("key", VALUE)
        store = connect()
        wanted = [
            Wanted("key", None),
            Wanted("key", ""),
            Wanted("key", first),
            Wanted("key", first.upper()),
            Wanted(f"{azure.url}/secrets/key", None),
            Wanted(f"{azure.url}/secrets/key/{first}", None),
            Wanted("key", "0" * 32),
        ]
        assert list(told_versions(store, wanted).values()) == [second, second, first, first, second, first, None]
        assert azure.requests[LIST] == 1 + 1, "the one for the challenge, and the list"

    def test_no_value_travels_and_so_many_secrets_cost_so_many_requests(self, azure: Azure, connect: Connect):
        names = [f"secret-{number}" for number in range(20)]
        newest = {Wanted(name, None): azure.put(name, VALUE) for name in names}
        store = cast("VersionedStore", connect())
        azure.delay = 0.01
        batches = store.version_batches(list(newest))
        assert [len(batch) for batch in batches] == [1] * 20
        with ThreadPoolExecutor(16) as pool:
            told = list(pool.map(store.versions, batches))
        assert [version for batch in told for version in batch] == list(newest.values())
        assert azure.logins() == 1
        assert azure.reads() == 20 + 1
        assert not [line for line in azure.requests if "/secrets/" in line and not line.endswith("/versions")]

    def test_a_disabled_one_is_not_told_and_one_that_is_enabled_again_is(self, azure: Azure, connect: Connect):
        first, second = azure.put("key", "first", created=time.time() - HOUR), azure.put("key", "second")
        store = connect()
        azure.change("key", second, enabled=False)
        assert [told_version(store), told_version(store, version=second)] == [None, None]
        assert told_version(store, version=first) == first
        azure.change("key", second, enabled=True)
        assert told_version(store) == second

    def test_that_an_old_one_is_disabled_later_leaves_no_doubt(self, azure: Azure, connect: Connect):
        first, second = [azure.put("key", VALUE, created=time.time() - age) for age in (2 * HOUR, HOUR)]
        azure.change("key", first, enabled=False)
        assert told_version(connect()) == second

    def test_what_is_outside_its_dates_is_told_only_where_it_is_given(self, azure: Azure, connect: Connect):
        old = azure.put("old", VALUE, exp=time.time() - HOUR)
        new = azure.put("new", VALUE, nbf=time.time() + HOUR)
        now = azure.put("now", VALUE, nbf=time.time() - HOUR, exp=time.time() + HOUR)
        names = ("old", "new", "now")
        assert [told_version(connect(), name) for name in names] == [None, None, now]
        assert [told_version(connect("allowExpired: true"), name) for name in names] == [old, new, now]

    def test_a_deleted_one_is_not_told(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE)
        store = connect()
        del azure.secrets["key"]
        assert told_version(store) is None

    def test_of_two_from_one_second_neither_is_taken_for_the_latest(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE, created=1700000000)
        same = [azure.put("key", VALUE, created=1700000001.1), azure.put("key", VALUE, created=1700000001.9)]
        store = connect()
        assert told_version(store) is None
        assert [told_version(store, version=each) for each in same] == same
        newest = azure.put("key", VALUE, created=1700000002)
        assert told_version(store) == newest

    def test_a_certificate_that_was_merged_late_leaves_a_doubt(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE, created=1700000000, updated=1700000009, managed=True)
        newest = azure.put("key", VALUE, created=1700000005, managed=True)
        assert told_version(connect()) is None
        assert told_version(connect(), version=newest) == newest

    def test_a_certificates_secret_is_told_like_any(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE, created=1700000000, updated=1700000004, managed=True)
        newest = azure.put("key", VALUE, created=1700000005, updated=1700000009, managed=True)
        assert told_version(connect()) == newest

    def test_the_newest_is_found_on_whichever_page_it_stands(self, azure: Azure, connect: Connect):
        made = [azure.put("key", VALUE, created=1700000000 + number) for number in range(60)]
        store = connect()
        assert told_version(store) == made[-1] == store.fetch("key", None).version
        assert azure.requests[LIST] == 1 + 3
        # Once more with the newest on the first page, and on the last.
        for pick in (min, max):
            azure.secrets["key"].sort(key=lambda version: version.id, reverse=pick is min)
            versions = azure.secrets["key"]
            versions[:] = [
                version._replace(attributes={**version.attributes, "created": 1700000000 + number})
                for number, version in enumerate(versions)
            ]
            assert told_version(store) == pick(made) == store.fetch("key", None).version

    def test_more_pages_than_a_read_is_worth_are_not_asked_for(self, azure: Azure, connect: Connect):
        made = sorted(azure.put("key", VALUE, created=1700000000 + number) for number in range(251))
        wanted = [Wanted("key", None), Wanted("key", made[0]), Wanted("key", made[-1])]
        assert list(told_versions(connect(), wanted).values()) == [None, made[0], None]
        assert azure.requests[LIST] == 1 + 10

    def test_as_many_versions_as_the_manual_says_are_looked_through(self, azure: Azure, connect: Connect):
        newest = [azure.put("key", VALUE, created=1700000000 + number) for number in range(250)][-1]
        assert told_version(connect()) == newest
        assert azure.requests[LIST] == 1 + 10

    def test_the_next_page_is_not_asked_for_elsewhere(self, azure: Azure, pair: Pair, connect: Connect):
        azure.put("key", VALUE)
        with Azure(pair) as other:
            link = f"{other.url}/secrets/key/versions?$skiptoken=25"
            body = {"value": item(azure, created=1700000000).body["value"], "nextLink": link}  # type: ignore[call-overload]
            azure.rules = [Rule(Answer(200, body), path="/versions$", only_with_token=True)]
            store = connect()
            assert told_version(store) is None
            assert told_version(store, version="a" * 32) == "a" * 32
            assert other.connections == 0

    def test_the_pages_of_a_real_address_cost_no_second_challenge(
        self, pair: Pair, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ):
        with Azure(pair) as cloud, Tunnel(cloud.port) as tunnel:
            monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
            cloud.principals[CLIENT] = CLIENT_SECRET
            newest = [cloud.put("key", VALUE, created=1700000000 + number) for number in range(30)][-1]
            store = connect(url=f"https://{CLOUDS[0]}/", verify="true", environ={"LANG": "C"})
            assert told_version(store) == newest
            store.close()
            assert cloud.requests[LIST] == 1 + 2

    @pytest.mark.parametrize("code", ["ForbiddenByRbac", "ForbiddenByPolicy", "ForbiddenByFirewall"])
    def test_without_the_right_to_list_nothing_is_told_and_reads_go_on(self, azure: Azure, connect: Connect, code: str):
        azure.put("key", "v")
        azure.list_forbidden = code
        store = connect()
        assert [told_version(store) for _ in range(2)] == [None, None]
        assert plain(store.fetch("key", None)) == b"v"
        assert azure.requests[LIST] == 1 + 2, "no attempt more"
        assert azure.logins() == 1

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(200, b"{"),
            Answer(200, b"[]"),
            Answer(200, b"\xff"),
            Answer(200, b'{"value": 5}'),
            Answer(200, b'{"value": [{}]}'),
            Answer(200, b"<html>welcome</html>", {"Content-Type": "text/html"}),
            Answer(302, b"", {"Location": "https://localhost/elsewhere"}),
            Answer(400, b"oops"),
            Answer(404, b"<html>lost</html>", {"Content-Type": "text/html"}),
            Answer(501, b"oops"),
        ],
        ids=lambda answer: f"{answer.status} {answer.body!r}"[:30],
    )
    @pytest.mark.parametrize("with_token", [True, False])
    def test_an_odd_answer_tells_nothing_and_spoils_no_read(
        self, azure: Azure, connect: Connect, answer: Answer, with_token: bool
    ):
        azure.put("key", "v")
        azure.rules = [Rule(answer, path="/versions$", only_with_token=with_token)]
        store = connect()
        assert told_version(store) is None
        assert plain(store.fetch("key", None)) == b"v"

    @pytest.mark.parametrize(
        "attributes", [{}, {"created": None}, {"created": "x"}, {"created": 1700000000, "enabled": None}], ids=str
    )
    def test_what_says_not_all_that_counts_is_not_told(
        self, azure: Azure, connect: Connect, attributes: Mapping[str, Any]
    ):
        azure.rules = [Rule(item(azure, **attributes), path="/versions$", only_with_token=True)]
        assert told_version(connect()) is None

    def test_an_identifier_that_is_none_tells_nothing(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        answer = Answer(200, b'{"value": [{"id": "x", "attributes": {}}]}')
        azure.rules = [Rule(answer, path="/versions$", only_with_token=True)]
        store = connect()
        assert told_version(store) is None
        assert plain(store.fetch("key", None)) == b"v"

    def test_the_list_of_another_secret_is_not_this_ones(self, azure: Azure, connect: Connect):
        azure.rules = [Rule(item(azure, name="other", created=1700000000), path="/versions$", only_with_token=True)]
        wanted = [Wanted("key", None), Wanted("key", "a" * 32)]
        assert told_versions(connect(), wanted) == dict.fromkeys(wanted)

    def test_what_can_be_no_name_costs_no_request(self, azure: Azure, connect: Connect):
        refs = ["a/b", "a_b", "", "https://other.vault.azure.net/secrets/key", f"{azure.url}/keys/key"]
        wanted = [*(Wanted(ref, None) for ref in refs), Wanted("key", "7")]
        assert told_versions(connect(), wanted) == dict.fromkeys(wanted)
        assert not azure.requests

    def test_what_can_pass_is_tried_again_and_then_raised(self, azure: Azure, connect: Connect):
        version = azure.put("key", VALUE)
        azure.rules = [Rule(Answer(503, b"oops"), only_with_token=True, times=2)]
        assert told_version(connect()) == version
        azure.rules = [Rule(Answer(503, b"oops"), only_with_token=True)]
        with pytest.raises(Unavailable, match="answers HTTP 503"):
            told_version(connect())

    def test_a_vault_that_is_down_is_raised_and_not_asked_again(self, connect: Connect):
        store = connect(url=f"https://localhost:{unused_port()}")
        with pytest.raises(Unavailable) as caught:
            told_version(store)
        assert caught.value.why == "nothing listens there"
        with pytest.raises(Unavailable):
            store.fetch("key", None)

    def test_a_login_that_is_refused_is_raised(self, azure: Azure, connect: Connect):
        azure.principals[CLIENT] = "another"
        with pytest.raises(Denied, match="AADSTS7000215"):
            told_version(connect())

    def test_a_token_that_is_no_longer_accepted_is_raised(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE)
        store = connect()
        store.fetch("key", None)
        azure.tokens.clear()
        with pytest.raises(Denied, match="does not accept the token"):
            told_version(store)

    def test_the_challenge_of_another_domain_gets_no_token(self, azure: Azure, connect: Connect):
        store = connect(verify="true")
        with pytest.raises(Unavailable, match="does not ask for a login as a Key Vault"):
            told_version(store)
        with pytest.raises(Unavailable, match="does not ask for a login as a Key Vault"):
            store.fetch("key", None)
        assert azure.logins() == 0

    def test_a_closed_store_tells_nothing(self, azure: Azure, connect: Connect):
        azure.put("key", VALUE)
        store = connect()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            told_version(store)


class TestLogins:
    def test_a_client_id_may_stand_in_the_settings(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        auth = f"{{clientID: {CLIENT}, clientSecretSecretRef: {{name: azure, key: secret}}}}"
        assert plain(connect(auth=auth).fetch("key", None)) == b"v"

    def test_workload_identity_by_settings(self, azure: Azure, connect: Connect, tmp_path: Path):
        (tmp_path / "token").write_text("projected.service.account-token")
        azure.federated["app"] = "projected.service.account-token"
        azure.put("key", "v")
        store = connect(auth="{workloadIdentity: {clientID: app, tokenFile: token}}")
        assert plain(store.fetch("key", None)) == b"v"
        assert azure.requests[f"POST /{TENANT}/oauth2/v2.0/token"] == 1
        assert sum(azure.requests.values()) == 3

    def test_workload_identity_by_the_environment_of_the_pod(self, azure: Azure, connect: Connect, tmp_path: Path):
        (tmp_path / "token").write_text("t")
        azure.federated["app"] = "t"
        azure.put("key", "v")
        environ = {
            "AZURE_CLIENT_ID": "app",
            "AZURE_TENANT_ID": TENANT,
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
            "AZURE_AUTHORITY_HOST": f"https://{azure.authority}/",
        }
        store = connect(auth="{workloadIdentity: {}}", tenant="", environ=environ)
        assert plain(store.fetch("key", None)) == b"v"

    @pytest.mark.parametrize(
        ("auth", "client"), [("{managedIdentity: {}}", None), ("{managedIdentity: {clientID: own}}", "own")]
    )
    def test_managed_identity(
        self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch, auth: str, client: str | None
    ):
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
        azure.identities = {client}
        azure.put("key", "v")
        assert plain(connect(auth=auth).fetch("key", None)) == b"v"
        assert dict(azure.requests) == {"GET /secrets/key/": 2, "GET /msi/token": 1}

    def test_the_cli(self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        azure.tokens.append("token-of-az")
        azure.put("key", "v")
        program = tmp_path / "az"
        token = json.dumps({"accessToken": "token-of-az", "expires_on": int(time.time()) + 3600, "tokenType": "Bearer"})
        program.write_text(f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/asked'\necho '{token}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert plain(connect(auth="{cli: {}}").fetch("key", None)) == b"v"
        asked = (tmp_path / "asked").read_text().splitlines()
        assert len(asked) == 1
        assert f"--resource https://vault.azure.net --tenant {TENANT}" in asked[0]

    def test_the_ambient_login_takes_the_environments_principal(
        self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ):
        for name, value in (("ID", CLIENT), ("SECRET", CLIENT_SECRET)):
            monkeypatch.setenv(f"AZURE_CLIENT_{name}", value)
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        azure.put("key", "v")
        assert plain(connect(auth="{}").fetch("key", None)) == b"v"
        assert azure.logins() == 1

    def test_the_ambient_login_takes_the_pods_workload_identity(
        self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        (tmp_path / "token").write_text("t")
        azure.federated["app"] = "t"
        azure.put("key", "v")
        monkeypatch.setenv("AZURE_CLIENT_ID", "app")
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://{azure.authority}/")
        assert plain(connect(auth="{}").fetch("key", None)) == b"v"

    def test_the_ambient_login_takes_the_managed_identity(
        self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
        azure.put("key", "v")
        assert plain(connect(auth="{}").fetch("key", None)) == b"v"

    def test_no_ambient_login_at_all_is_told_as_that(self, connect: Connect, monkeypatch: pytest.MonkeyPatch):
        # The way to a virtual machine's metadata service, which is asked in vain: by a proxy that is not there.
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
        with pytest.raises(Denied, match="the login failed") as caught:
            connect(auth="{}").fetch("key", None)
        assert "managed identity" in caught.value.why
        assert "spec.azurekv.auth" in caught.value.fix

    def test_a_netrc_does_not_take_the_place_of_the_token(
        self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine localhost login someone password else\n")
        monkeypatch.setenv("NETRC", str(netrc))
        azure.put("key", "v")
        assert plain(connect().fetch("key", None)) == b"v"


class TestLoginsThatFail:
    @pytest.mark.parametrize(
        ("change", "spec", "code", "why"),
        [
            ({CLIENT: "another"}, {}, "7000215", "the client secret is wrong"),
            ({}, {}, "700016", "no such application"),
            ({CLIENT: CLIENT_SECRET}, {"tenant": "tenantID: nobody.example.com"}, "90002", "no such tenant"),
        ],
    )
    def test_entra_ids_code_says_why(
        self,
        azure: Azure,
        connect: Connect,
        change: Mapping[str, str],
        spec: Mapping[str, str],
        code: str,
        why: str,
    ):
        azure.principals = dict(change)
        with pytest.raises(Denied, match=f"AADSTS{code}") as caught:
            connect(**spec).fetch("key", None)
        assert why in caught.value.why
        assert CLIENT_SECRET not in told(caught.value)
        assert "spec.azurekv.auth" in caught.value.fix

    def test_a_federated_token_that_nobody_trusts(self, azure: Azure, connect: Connect, tmp_path: Path):
        (tmp_path / "token").write_text("of-another-cluster")
        azure.federated["app"] = "t"
        with pytest.raises(Denied, match="AADSTS700213") as caught:
            connect(auth="{workloadIdentity: {clientID: app, tokenFile: token}}").fetch("key", None)
        assert "of-another-cluster" not in told(caught.value)
        assert "subject" in caught.value.why

    def test_an_ambient_principal_that_is_refused_ends_the_search(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ):
        for name, value in (("ID", CLIENT), ("SECRET", "wrong-one")):
            monkeypatch.setenv(f"AZURE_CLIENT_{name}", value)
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        with pytest.raises(Denied, match="AADSTS7000215") as caught:
            connect(auth="{}").fetch("key", None)
        assert "wrong-one" not in told(caught.value)

    def test_a_managed_identity_that_is_not_there(
        self, azure: Azure, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
        with pytest.raises(Denied, match="the login failed") as caught:
            connect(auth="{managedIdentity: {clientID: own}}").fetch("key", None)
        assert "managed identity" in caught.value.why

    def test_a_machine_without_the_metadata_service(self, connect: Connect, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
        with pytest.raises(Unavailable, match=r"the login endpoint 169\.254\.169\.254 cannot be reached"):
            connect(auth="{managedIdentity: {}}").fetch("key", None)

    def test_no_az_is_told_as_that(self, connect: Connect):
        with pytest.raises(Denied) as caught:
            connect(auth="{cli: {}}").fetch("key", None)
        assert "`az` is not installed" in caught.value.why

    def test_a_vault_of_another_tenant_gets_no_token(self, azure: Azure, connect: Connect):
        other = "00000000-0000-0000-0000-000000000001"
        with pytest.raises(Denied, match="of another tenant") as caught:
            connect(tenant=f"tenantID: {other}").fetch("key", None)
        assert TENANT in caught.value.why
        assert azure.logins() == 0

    @pytest.mark.parametrize(
        ("auth", "what"),
        [
            ("{managedIdentity: {}, cli: {}}", "several logins"),
            ("{clientID: x, workloadIdentity: {}}", "several logins"),
            ("{clientID: x}", "no secret"),
            ("{clientSecretSecretRef: {name: azure, key: secret}}", "one client id"),
            ("{workloadIdentity: {tokenFile: token}}", "workloadIdentity.clientID is missing"),
            ("{workloadIdentity: {clientID: x}}", "workloadIdentity.tokenFile is missing"),
            ("{workloadIdentity: {clientID: x, tokenFile: nowhere}}", "federated token cannot be read"),
            ("{clientID: x, clientSecretSecretRef: {name: other, key: secret}}", "no credential Secret"),
        ],
    )
    def test_half_a_login_does_not_open(self, connect: Connect, auth: str, what: str):
        with pytest.raises(StoreError, match=what):
            connect(auth=auth)

    def test_a_principal_without_a_tenant_does_not_open(self, connect: Connect):
        with pytest.raises(StoreError, match=r"spec\.azurekv\.tenantID is missing"):
            connect(tenant="")

    @pytest.mark.parametrize(
        "url",
        [
            "http://demo.vault.azure.net",
            "demo.vault.azure.net",
            "https://demo.vault.azure.net/secrets/key",
            "https://user@demo.vault.azure.net",
            "https://demo.managedhsm.azure.net",
        ],
    )
    def test_what_is_no_vaults_address_does_not_open(self, connect: Connect, url: str):
        with pytest.raises(StoreError, match="not the address of a vault"):
            connect(url=url)

    def test_an_authority_that_is_not_https_does_not_open(self, connect: Connect):
        with pytest.raises(StoreError, match="Entra ID is malformed"):
            connect("authorityHost: http://login.example.com")


class TestFaults:
    def test_429_is_tried_again_after_the_time_it_names(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        azure.rules = [Rule(throttled(0.3), only_with_token=True, times=1)]
        start = time.monotonic()
        assert plain(connect().fetch("key", None)) == b"v"
        assert time.monotonic() - start >= 0.3
        assert azure.reads() == 3

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_what_can_pass_is_tried_again(self, azure: Azure, connect: Connect, status: int):
        azure.put("key", "v")
        azure.rules = [Rule(Answer(status, b"oops"), only_with_token=True, times=2)]
        assert plain(connect().fetch("key", None)) == b"v"
        assert azure.reads() == 1 + 3

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_does_not_pass_is_given_up_after_the_attempts(self, azure: Azure, connect: Connect, status: int):
        azure.rules = [Rule(Answer(status, {"error": {"code": "X", "message": VALUE}}), only_with_token=True)]
        with pytest.raises(Unavailable, match=f"the vault localhost:{azure.port} answers HTTP {status}") as caught:
            connect().fetch("key", None)
        assert azure.reads() == 1 + 3
        assert VALUE not in told(caught.value)

    @pytest.mark.parametrize("status", [400, 403, 404, 501])
    def test_what_cannot_pass_is_not_tried_again(self, azure: Azure, connect: Connect, status: int):
        azure.rules = [Rule(Answer(status, b"oops", {"Retry-After": "1"}), only_with_token=True)]
        with pytest.raises(StoreError):
            connect().fetch("key", None)
        assert azure.reads() == 2

    def test_no_wait_passes_the_deadline(self, azure: Azure, connect: Connect):
        azure.rules = [Rule(throttled(60), only_with_token=True)]
        start = time.monotonic()
        with pytest.raises(Unavailable, match="answers HTTP 429"):
            connect(seconds=3).fetch("key", None)
        assert time.monotonic() - start < 2
        assert azure.reads() == 2

    def test_no_wait_for_the_login_passes_the_deadline(self, azure: Azure, connect: Connect):
        azure.rules = [Rule(throttled(60), path="^POST .*/token$")]
        start = time.monotonic()
        with pytest.raises(Unavailable, match="the login endpoint localhost answers HTTP 429"):
            connect(seconds=3).fetch("key", None)
        assert time.monotonic() - start < 2

    def test_a_store_that_hangs_is_given_up_at_the_deadline(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        azure.delay = 3
        start = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            connect(seconds=1).fetch("key", None)
        assert time.monotonic() - start < 2
        assert caught.value.why == "it did not answer in time"

    def test_nothing_is_asked_after_the_deadline(self, azure: Azure, connect: Connect):
        store = connect(seconds=-1)
        with pytest.raises(Unavailable, match="not asked any more"):
            store.fetch("key", None)
        assert not azure.requests

    @pytest.mark.parametrize("path", ["^POST .*/token$", "^GET .*openid-configuration$"])
    def test_a_login_endpoint_that_is_out_of_order(self, azure: Azure, connect: Connect, path: str):
        azure.rules = [Rule(Answer(503, b"oops"), path=path)]
        with pytest.raises(Unavailable, match="the login endpoint localhost answers HTTP 503"):
            connect().fetch("key", None)

    def test_a_login_endpoint_that_passes_its_trouble(self, azure: Azure, connect: Connect):
        azure.put("key", "v")
        azure.rules = [Rule(Answer(503, b"oops"), path="^POST .*/token$", times=1)]
        assert plain(connect().fetch("key", None)) == b"v"

    def test_a_redirect_is_not_followed(self, azure: Azure, connect: Connect):
        moved = Answer(302, b"", {"Location": f"{azure.url}/secrets/elsewhere/"})
        azure.rules = [Rule(moved, path="^GET /secrets/key/", only_with_token=True)]
        with pytest.raises(Unavailable, match="does not answer as a Key Vault does"):
            connect().fetch("key", None)
        assert azure.requests["GET /secrets/elsewhere/"] == 0

    @pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"{}", b'{"value": "hunter2-is-the-value"}', b"\xff"])
    def test_an_answer_that_is_no_secret(self, azure: Azure, connect: Connect, body: bytes):
        azure.rules = [Rule(Answer(200, body), only_with_token=True)]
        with pytest.raises(StoreError) as caught:
            connect().fetch("key", None)
        assert not isinstance(caught.value, NotFound)
        assert VALUE not in told(caught.value)

    def test_a_version_other_than_the_one_asked_for_is_refused(self, azure: Azure, connect: Connect):
        body = {"value": VALUE, "id": f"{azure.url}/secrets/key/{'a' * 32}", "attributes": {"enabled": True}}
        azure.rules = [Rule(Answer(200, body), only_with_token=True)]
        with pytest.raises(StoreError, match="another version"):
            connect().fetch("key", "b" * 32)

    def test_what_gives_answers_without_a_login_is_no_vault(self, azure: Azure, connect: Connect):
        azure.rules = [Rule(Answer(401, b"basic", {"WWW-Authenticate": "Basic"}))]
        # Before 4.9 the SDK itself breaks on such a challenge.
        with pytest.raises(Unavailable, match=r"does not (ask for a login|answer) as a Key Vault"):
            connect().fetch("key", None)
        assert azure.logins() == 0

    def test_the_challenge_of_another_domain_gets_no_token(self, azure: Azure, connect: Connect):
        with pytest.raises(Unavailable, match="does not ask for a login as a Key Vault") as caught:
            connect(verify="true").fetch("key", None)
        assert "verifyChallengeResource" in caught.value.fix
        assert azure.logins() == 0

    def test_a_vault_that_is_down_is_found_once(self, connect: Connect):
        store = connect(url=f"https://localhost:{unused_port()}")
        start = time.monotonic()
        found = together(store, [f"secret-{number}" for number in range(20)])
        assert {type(each) for each in found} == {Unavailable}
        assert {each.why for each in found} == {"nothing listens there"}
        assert time.monotonic() - start < 2

    def test_a_name_that_dns_does_not_know(self, connect: Connect):
        with pytest.raises(Unavailable) as caught:
            connect(url="https://nowhere.invalid").fetch("key", None)
        assert caught.value.why == "DNS does not know this name"

    def test_a_certificate_of_an_authority_that_is_not_trusted(self, azure: Azure, connect: Connect, tmp_path: Path):
        other = Authority(tmp_path)
        with pytest.raises(Unavailable, match="the vault localhost cannot be trusted") as caught:
            connect(ca=other.certificate).fetch("key", None)
        assert "not trusted here" in caught.value.why
        assert "caFile" in caught.value.fix
        assert azure.connections == 1, "a wrong certificate is no better the next time"

    def test_a_certificate_for_another_name(self, authority: Authority, connect: Connect):
        with (
            Azure(authority.issue("other", names=("other.example.com",))) as other,
            pytest.raises(Unavailable) as caught,
        ):
            connect(url=other.url).fetch("key", None)
        assert caught.value.why == "its certificate is for another name"

    def test_a_file_without_certificates_does_not_open(self, connect: Connect, tmp_path: Path):
        (tmp_path / "empty.pem").write_text("")
        for name in ("empty.pem", "absent.pem"):
            with pytest.raises(StoreError, match="trusted certificates cannot be used"):
                connect(ca=tmp_path / name)

    def test_no_value_nor_token_shows_in_any_output(self, azure: Azure, connect: Connect, capfd: Any):
        azure.put("key", VALUE)
        store = connect()
        record = store.fetch("key", None)
        assert VALUE not in repr(record)
        assert VALUE not in repr(vars(store))
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("vault", "entra"), list(zip(CLOUDS, ENTRA, strict=True)))
def test_every_cloud_has_its_own_login_and_its_challenge_is_checked(
    pair: Pair, authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch, vault: str, entra: str
):
    resource = f"https://{vault.removeprefix('demo.')}"
    with Azure(pair, resource=resource) as cloud, Tunnel(cloud.port) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        cloud.principals[CLIENT] = CLIENT_SECRET
        cloud.put("key", "v")
        store = connect(url=f"https://{vault}/", verify="true", environ={"LANG": "C"})
        assert plain(store.fetch("key", None)) == b"v"
        store.close()
        assert dict(tunnel.asked) == {f"{vault}:443": 1, f"{entra}:443": 1}


def test_a_proxy_that_is_not_there_is_told_as_that(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(Unavailable) as caught:
        connect(url="https://demo.vault.azure.net").fetch("key", None)
    assert caught.value.why == "the proxy does not lead there"
    assert "HTTPS_PROXY" in caught.value.fix
