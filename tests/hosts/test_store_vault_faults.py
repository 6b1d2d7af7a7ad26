"""What goes wrong on the way to Vault, and the ways there are: TLS, proxies, redirects."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.sdk.vault_connection import Tls, connection_of
from secretweave.sdk.vault_http import Http
from secretweave.stores import open_store
from secretweave.stores.vault import Settings
from tests.hosts.vault import VaultServer
from tests.hosts.vault import vault as start_vault
from tests.hosts.vault_store import (
    APP_ROLE,
    KV_2_ANSWER,
    SECRET_REF,
    Asked,
    Said,
    leasing,
    open_at,
    open_it,
    say,
    scripted,
    told,
)
from tests.servers.certificates import Authority
from tests.stores.contract import context, plain

pytest_plugins = ["tests.hosts.vault_fixtures"]

# A test of an unverified certificate would fail by urllib3's own warning, which secretweave turns off.
pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
SECONDS_MAX = 10

# --- what goes wrong on the way


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(server: VaultServer, code: int):
    server.answer(code, times=2)
    assert plain(open_it(server, Settings(kv_version=2)).fetch("shop/app/token", None)) == {"value": "t0ken"}
    assert server.stats().requests == 3


STATUSES = [
    (429, 3, "it gets too many requests (status 429)"),
    (472, 1, "it is a standby of a disaster recovery cluster (status 472)"),
    (473, 1, "it is a performance standby (status 473)"),
    (500, 3, "it is in trouble (status 500)"),
    (501, 1, "it is not initialized (status 501)"),
    (502, 3, "it is in trouble (status 502)"),
    (503, 3, "it is sealed"),
    (504, 3, "it is in trouble (status 504)"),
    (507, 1, "it is in trouble (status 507)"),
]


@pytest.mark.parametrize(("code", "requests", "why"), STATUSES)
def test_what_does_not_pass_is_told_once_it_has_been_tried(server: VaultServer, code: int, requests: int, why: str):
    server.answer(code)
    with pytest.raises(Unavailable) as caught:
        open_it(server, Settings(kv_version=2)).fetch("shop/app/token", None)
    assert (caught.value.what, caught.value.why) == (f"Vault at {server.address} does not answer", why)
    assert caught.value.fix
    assert server.stats().requests == requests


def test_no_attempt_begins_after_the_deadline(server: VaultServer):
    server.answer(503)
    begin = time.monotonic()
    store = open_it(server, Settings(kv_version=2), seconds=0.005)
    with pytest.raises(Unavailable):
        store.fetch("shop/app/token", None)
    assert server.stats().requests <= 1
    time.sleep(0.01)
    with pytest.raises(Unavailable, match=r"does not answer") as caught:
        store.fetch("shop/app/token", None)
    assert caught.value.why == "the run's time is over"
    assert server.stats().requests <= 1
    assert time.monotonic() - begin < 2


def test_retry_after_is_obeyed_within_the_deadline():
    def script(asked: Asked) -> Said:
        return say(429, {"Retry-After": "1"}, errors=[]) if len(server.asked) == 1 else say(**KV_2_ANSWER)

    with scripted(script) as server:
        begin = time.monotonic()
        assert open_at(server.address).fetch("shop/x", None).version == "1"
        assert 1 <= time.monotonic() - begin < 4
        server.asked.clear()
        begin = time.monotonic()
        with pytest.raises(Unavailable, match=r"does not answer"):
            open_at(server.address, seconds=0.5).fetch("shop/x", None)
        assert time.monotonic() - begin < 1
        assert len(server.asked) == 1


BROKEN: list[tuple[str, Said | None, int, type[StoreError], str]] = [
    ("a reset", None, 3, Unavailable, "the connection broke off"),
    (
        "half an answer",
        (200, {"Content-Length": "1000"}, b'{"data": {"dat'),
        3,
        Unavailable,
        "the connection broke off",
    ),
    (
        "garbage",
        (200, {}, b"<html>hunter2</html>"),
        1,
        Unavailable,
        "something else than an answer of Vault (status 200)",
    ),
    ("a list", (200, {}, b"[]"), 1, Unavailable, "something else than an answer of Vault (status 200)"),
    (
        "a web server's 404",
        (404, {}, b"<html>hunter2"),
        1,
        Unavailable,
        "something else than an answer of Vault (status 404)",
    ),
    (
        "another API's 404",
        say(404, message="hunter2"),
        1,
        Unavailable,
        "something else than an answer of Vault (status 404)",
    ),
    ("a guard's 403", (403, {}, b"<html>hunter2"), 1, Denied, "no policy of the token of VAULT_TOKEN allows it"),
    ("an unauthorized", say(401, errors=["hunter2"]), 1, Denied, "no policy of the token of VAULT_TOKEN allows it"),
    ("an old one without a token", say(400, errors=["missing client token"]), 1, Denied, "no policy of"),
    ("a bad request", say(400, errors=["hunter2"]), 1, StoreError, "does not understand the request (status 400)"),
    ("no data", say(), 1, StoreError, "Vault's answer is not that of a KV version 2 engine"),
    ("no metadata", say(data={"data": {"value": "x"}}), 1, StoreError, "not that of a KV version 2 engine"),
    ("no content", (204, {}, b""), 1, StoreError, "Vault's answer is not that of a KV version 2 engine"),
    ("no address", (302, {"Location": "http://["}, b""), 1, Unavailable, "(a redirect that cannot be read)"),
    ("bad Retry-After", say(503, {"Retry-After": "soon"}, errors=[]), 3, Unavailable, "it is in trouble (status 503)"),
]


@pytest.mark.parametrize(
    ("answer", "requests", "cls", "text"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN]
)
def test_an_answer_that_is_none_is_told_in_plain_words(
    answer: Said | None, requests: int, cls: type[StoreError], text: str
):
    with scripted(lambda _: answer) as server, pytest.raises(StoreError) as caught:
        open_at(server.address).fetch("shop/x", None)
    assert type(caught.value) is cls
    assert text in told(caught.value)
    assert "hunter2" not in told(caught.value)
    assert len(server.asked) == requests


REDIRECTS = [
    ("{other}/v1/shop/data/x", "redirects to {other}"),
    ("https://vault-1.example.com:8200/v1/shop/data/x", "redirects to https://vault-1.example.com:8200"),
    ("http://hunter2@127.0.0.1:1/", "redirects to http://127.0.0.1:1"),
    ("/v1/shop/data/y", "redirects to another path"),
    ("", "redirects to another path"),
    ("http://", "redirects to another path"),
]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(("location", "what"), REDIRECTS)
def test_a_redirect_is_not_followed(status: int, location: str, what: str):
    with scripted(lambda _: say(**KV_2_ANSWER)) as other:
        target = location.format(other=other.address)
        with scripted(lambda _: say(status, {"Location": target})) as server, pytest.raises(Unavailable) as caught:
            open_at(server.address).fetch("shop/x", None)
        assert caught.value.what == f"Vault at {server.address} " + what.format(other=other.address)
        assert "hunter2" not in told(caught.value)
        assert (len(server.asked), len(other.asked)) == (1, 0)


def test_where_nothing_listens_is_told():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        open_at(f"http://127.0.0.1:{port}").fetch("shop/x", None)
    assert caught.value.why == "nothing listens there"
    with pytest.raises(Unavailable) as caught:
        open_at("http://vault.invalid").fetch("shop/x", None)
    assert caught.value.why == "the name vault.invalid is unknown"


def test_a_server_that_does_not_answer_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            open_at(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5).fetch("shop/x", None)
        assert time.monotonic() - begin < 2
        assert caught.value.why == "nothing came in time"


def test_an_old_vault_without_the_look_up_is_taken_for_kv_2():
    def script(asked: Asked) -> Said:
        return say(404, errors=[]) if "internal/ui" in asked.path or "absent" in asked.path else say(**KV_2_ANSWER)

    with scripted(script) as server:
        store = open_at(server.address, Settings())
        assert plain(store.fetch("shop/x", None)) == {"value": "x"}
        assert plain(store.fetch("team/kv/data/x", None)) == {"value": "x"}
        with pytest.raises(NotFound) as caught:
            store.fetch("shop/absent", None)
    assert [asked.path for asked in server.asked] == [
        "/v1/sys/internal/ui/mounts/shop/x",
        "/v1/shop/data/x",
        "/v1/team/kv/data/x",
        "/v1/shop/data/absent",
    ]
    assert caught.value.why == "Vault did not tell what engine this is (status 404), so it was taken for KV version 2"
    assert "spec.vault.kvVersion" in caught.value.fix


# --- the way there


def test_the_namespace_goes_with_every_request():
    for wanted, environ in (
        (APP_ROLE._replace(namespace="/team-a/"), {}),
        (APP_ROLE, {"VAULT_NAMESPACE": "team-a"}),
        (APP_ROLE, {"BAO_NAMESPACE": "team-a"}),
    ):
        with scripted(leasing()) as server:
            store = open_at(server.address, wanted, environ)
            store.fetch("shop/x", None)
            store.close()
        assert [asked.headers.get("X-Vault-Namespace") for asked in server.asked] == ["team-a"] * 4
    with scripted(lambda _: say(403, errors=["1 error occurred"])) as server, pytest.raises(Denied) as caught:
        open_at(server.address, Settings(kv_version=2, namespace="team-a")).fetch("shop/x", None)
    assert "the token of VAULT_TOKEN in the namespace team-a" in caught.value.why


def test_netrc_and_this_process_s_proxies_have_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login web password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with scripted(lambda _: say(**KV_2_ANSWER)) as server:
        assert open_at(server.address).fetch("shop/x", None).version == "1"
    (asked,) = server.asked
    assert "Authorization" not in asked.headers
    assert asked.headers["X-Vault-Token"] == "hvs.hunter2"
    assert asked.headers["X-Vault-Request"] == "true"


PROXIES = [
    ({"HTTP_PROXY": "{proxy}"}, True),
    ({"http_proxy": "{proxy}", "NO_PROXY": "example.com"}, True),
    ({"ALL_PROXY": "{proxy}"}, True),
    ({"HTTPS_PROXY": "{proxy}"}, False),
    ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1"}, False),
    ({"HTTP_PROXY": "{proxy}", "no_proxy": "example.com, 127.0.0.0/8"}, False),
    ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "*"}, False),
    ({"VAULT_HTTP_PROXY": "{proxy}", "NO_PROXY": "*"}, True),
    ({"VAULT_PROXY_ADDR": "{proxy}", "HTTP_PROXY": "http://127.0.0.1:1"}, True),
    ({"BAO_HTTP_PROXY": "{proxy}"}, True),
]


@pytest.mark.parametrize(("environ", "through"), PROXIES)
def test_the_platform_s_proxy_is_used(environ: dict[str, str], through: bool):
    with scripted(lambda _: say(**KV_2_ANSWER)) as proxy, scripted(lambda _: say(**KV_2_ANSWER)) as server:
        given = {name: value.format(proxy=proxy.address) for name, value in environ.items()}
        assert open_at(server.address, environ=given | {"VAULT_TOKEN": "t"}).fetch("shop/x", None).version == "1"
    assert (len(proxy.asked), len(server.asked)) == ((1, 0) if through else (0, 1))


def test_a_proxy_that_is_not_there_is_told_by_its_variable(server: VaultServer):
    environ = {"VAULT_TOKEN": server.token, "HTTPS_PROXY": "http://web:hunter2@127.0.0.1:1"}
    with pytest.raises(Unavailable) as caught:
        open_it(server, environ=environ).fetch("shop/x", None)
    assert caught.value.why == "the proxy of HTTPS_PROXY does not"
    assert "hunter2" not in told(caught.value)


def tunnel(listening: socket.socket) -> None:
    """A proxy for one CONNECT."""
    client, _ = listening.accept()
    host, _, port = client.recv(65536).decode().split(" ")[1].partition(":")
    with client, socket.create_connection((host, int(port)), SECONDS_MAX) as upstream:
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        def copy(source: socket.socket, target: socket.socket) -> None:
            # Either end may go at any time.
            with suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=copy, args=(upstream, client), daemon=True)
        back.start()
        copy(client, upstream)
        back.join(SECONDS_MAX)


def test_tls_goes_through_a_proxy_and_is_verified_there_too(server: VaultServer):
    for tls, trusted in ((Tls(ca_file=str(server.ca)), True), (Tls(server_name="vault.example.com"), False)):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            proxy = threading.Thread(target=tunnel, args=(listening,), daemon=True)
            proxy.start()
            environ = {"VAULT_TOKEN": server.token, "https_proxy": f"http://127.0.0.1:{listening.getsockname()[1]}"}
            store = open_it(server, Settings(kv_version=2, tls=tls), environ)
            if trusted:
                assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}
            else:
                with pytest.raises(Unavailable, match=r"is not trusted$"):
                    store.fetch("shop/app/token", None)
            store.close()
            proxy.join(SECONDS_MAX)


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_only_the_named_authority_is_trusted(server: VaultServer, other_authority: Authority, tmp_path: Path):
    own, other = str(server.ca), str(other_authority.certificate)
    many = tmp_path / "many"
    many.mkdir()
    (many / "one.pem").write_bytes(server.ca.read_bytes())
    (many / "two.pem").write_bytes(other_authority.certificate.read_bytes())
    cases: list[tuple[Tls, dict[str, str], str]] = [
        (Tls(ca_file=own), {}, ""),
        (Tls(), {"VAULT_CACERT": own}, ""),
        (Tls(), {"BAO_CACERT": own}, ""),
        (Tls(), {"VAULT_CAPATH": str(many)}, ""),
        (Tls(ca_secret_ref=SECRET_REF), {}, ""),
        (Tls(ca_file=own), {"VAULT_CACERT": other}, ""),
        (Tls(ca_file=own, server_name="localhost"), {}, ""),
        (Tls(), {}, "signed by none of the authorities that this machine trusts"),
        (Tls(ca_file=other), {}, "signed by none of the authorities in spec.vault.tls.caFile"),
        (Tls(), {"VAULT_CACERT": other}, "signed by none of the authorities in VAULT_CACERT"),
        (Tls(ca_file=own, server_name="vault.example.com"), {}, "its certificate is for other names"),
        (Tls(ca_file=own), {"VAULT_TLS_SERVER_NAME": "vault.example.com"}, "its certificate is for other names"),
    ]
    for tls, environ, why in cases:
        config = StoreConfig("shop", None, "vault", Settings(server.address, tls=tls, kv_version=2), default=False)
        given = {"VAULT_TOKEN": server.token} | environ
        store = open_store(config, context(config, given, credentials={SECRET_REF: server.ca.read_text()}))
        if not why:
            assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}, (tls, environ)
            continue
        server.reset()
        with pytest.raises(Unavailable) as caught:
            store.fetch("shop/app/token", None)
        assert caught.value.what == f"Vault at {server.address} is not trusted"
        assert why in caught.value.why
        assert server.stats().requests == 0


def test_no_authority_is_added_to_the_named_one(server: VaultServer):
    """requests would add those that it brings, at the first connection."""
    config = StoreConfig("shop", None, "vault", Settings(), default=False)
    given = context(config, {})
    connection = connection_of(server.address, Tls(ca_file=str(server.ca)), given)
    http = Http(connection, "", given.limits)
    assert http.ask(lambda adapter: adapter.get("/v1/sys/health")).status == 200
    http.close()
    assert connection.tls is not None
    assert len(connection.tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("tls", "environ"),
    [
        (Tls(insecure_skip_verify=True), {}),
        (Tls(), {"VAULT_SKIP_VERIFY": "true"}),
        (Tls(), {"BAO_SKIP_VERIFY": "1"}),
    ],
)
def test_a_certificate_is_taken_unseen_only_by_a_setting_and_with_a_warning(
    server: VaultServer, tls: Tls, environ: dict[str, str]
):
    warnings: list[str] = []
    plain_server = server._replace(authority=None)
    given = {"VAULT_TOKEN": server.token} | environ
    store = open_it(plain_server, Settings(kv_version=2, tls=tls), given, warn=warnings.append)
    assert plain(store.fetch("shop/app/token", None)) == {"value": "t0ken"}
    (warning,) = warnings
    assert warning.startswith(f"the certificate of {server.address} is not verified (")


def test_a_setting_is_above_the_environment_that_would_verify_nothing(server: VaultServer):
    tls = Tls(insecure_skip_verify=False)
    environ = {"VAULT_TOKEN": server.token, "VAULT_SKIP_VERIFY": "true"}
    with pytest.raises(Unavailable, match=r"is not trusted$"):
        open_it(server, Settings(kv_version=2, tls=tls), environ).fetch("shop/x", None)
    with pytest.raises(Unavailable, match=r"is not trusted$"):
        open_it(server._replace(authority=None), environ=environ | {"VAULT_SKIP_VERIFY": "no"}).fetch("shop/x", None)


def test_the_wrong_scheme_is_told(server: VaultServer):
    for url, why, fix in (
        (server.address.replace("https:", "http:"), "it speaks TLS", "write https://"),
        (server.control.replace("http:", "https:"), "what is there does not speak TLS", "write http://"),
    ):
        with pytest.raises(Unavailable) as caught:
            open_it(server, Settings(url=url)).fetch("shop/x", None)
        assert caught.value.why == why
        assert caught.value.fix.startswith(fix)


def test_a_client_certificate_is_shown_where_one_is_demanded(tmp_path: Path, other_authority: Authority):
    with start_vault(tmp_path, client_ca=True) as server:
        server.mount("secret", version="2")
        server.put("secret", "db", {"value": "x"})
        assert server.client is not None
        ca, certificate, key = str(server.ca), str(server.client.certificate), str(server.client.key)
        stranger = other_authority.issue("stranger")
        cases: list[tuple[Tls, dict[str, str], bool]] = [
            (Tls(ca, cert_file=certificate, key_file=key), {}, True),
            (Tls(ca), {"VAULT_CLIENT_CERT": certificate, "VAULT_CLIENT_KEY": key}, True),
            (Tls(ca), {}, False),
            (Tls(ca, cert_file=str(stranger.certificate), key_file=str(stranger.key)), {}, False),
        ]
        for tls, environ, taken in cases:
            store = open_it(server, Settings(tls=tls), {"VAULT_TOKEN": server.token} | environ)
            if taken:
                assert plain(store.fetch("secret/db", None)) == {"value": "x"}
                continue
            with pytest.raises(Unavailable) as caught:
                store.fetch("secret/db", None)
            # In TLS 1.3 the refusal comes after the handshake; a busy machine can see less of it.
            assert caught.value.why in {
                "it demands a client certificate, or refuses ours",
                "it ended the connection in TLS: it may demand a client certificate, or refuse ours",
            }


def encrypted(key: Path, target: Path) -> str:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    protection = serialization.BestAvailableEncryption(b"hunter2")
    form = serialization.PrivateFormat.PKCS8
    target.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, form, protection))
    return str(target)


def test_certificates_that_cannot_be_used_are_told_by_their_setting(other_authority: Authority, tmp_path: Path):
    pair = other_authority.issue("client")
    certificate = str(pair.certificate)
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Tls, dict[str, str], str]] = [
        (Tls("/nowhere"), {}, "what tls.caFile or VAULT_CACERT names for TLS cannot be used"),
        (Tls(str(pair.key)), {}, "what tls.caFile or VAULT_CACERT names for TLS cannot be used"),
        (Tls(), {"VAULT_CAPATH": "/nowhere"}, "what VAULT_CAPATH names for TLS cannot be used"),
        (Tls(cert_file=certificate), {}, "a client certificate needs a file and its key"),
        (Tls(cert_file=certificate, key_file="/nowhere"), {}, "what tls.certFile and tls.keyFile"),
        (Tls(cert_file=certificate, key_file=encrypted(pair.key, tmp_path / "key")), {}, "what tls.certFile and"),
    ]
    for tls, environ, what in cases:
        config = StoreConfig("shop", None, "vault", Settings("https://127.0.0.1:1", tls=tls), default=False)
        with pytest.raises(StoreError) as caught:
            open_store(config, context(config, {"VAULT_TOKEN": "t"} | environ))
        assert caught.value.what.startswith(what)
