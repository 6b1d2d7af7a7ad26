"""The fault proxy does what its faults say, to plain and to encrypted connections alike."""

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.certificates import Authority, Pair
from tests.servers.proxy import (
    Expired,
    Fault,
    Half,
    Hang,
    Latency,
    Proxy,
    Redirect,
    Reset,
    Rule,
    Status,
    Trickle,
    elsewhere,
)

# It tests the tests' own proxy.
pytestmark = pytest.mark.once

BODY = b'{"a": "0123456789"}'

Client = Callable[[Proxy], http.client.HTTPConnection]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("proxy")


@pytest.fixture(params=["http", "https"])
def certificate(request: pytest.FixtureRequest, pair: Pair) -> Pair | None:
    return pair if request.param == "https" else None


@pytest.fixture
def upstream(certificate: Pair | None) -> Iterator[Proxy]:
    with Proxy(certificate=certificate, rules=[Rule(Status(200, BODY, {"X-From": "upstream"}))]) as server:
        yield server


@pytest.fixture
def proxy(upstream: Proxy, certificate: Pair | None, authority: Authority) -> Iterator[Proxy]:
    with Proxy(upstream.url, certificate=certificate, trust=authority.certificate) as server:
        yield server


@pytest.fixture
def client(authority: Authority) -> Iterator[Client]:
    opened: list[http.client.HTTPConnection] = []

    def connect(proxy: Proxy) -> http.client.HTTPConnection:
        if proxy.url.startswith("https"):
            trust = ssl.create_default_context(cafile=authority.certificate)
            opened.append(http.client.HTTPSConnection("127.0.0.1", proxy.port, context=trust, timeout=1))
        else:
            opened.append(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=1))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def ask(
    connection: http.client.HTTPConnection, path: str = "/x?y=1", method: str = "GET", token: str = "t"
) -> tuple[int, bytes]:
    connection.request(method, path, b"body" if method == "POST" else None, {"X-Vault-Token": token} if token else {})
    response = connection.getresponse()
    return response.status, response.read()


def test_without_rules_requests_are_handed_on_over_one_connection(proxy: Proxy, upstream: Proxy, client: Client):
    connection = client(proxy)
    assert [ask(connection), ask(connection, "/z", "POST")] == [(200, BODY), (200, BODY)]
    assert [each.line for each in proxy.seen] == ["GET /x?y=1", "POST /z"]
    assert [each.line for each in upstream.seen] == ["GET /x?y=1", "POST /z"]
    assert upstream.seen[1].body == b"body"
    assert upstream.seen[1].credentials == {"x-vault-token"}
    assert proxy.connections == 1


def test_latency_delays_an_answer(proxy: Proxy, client: Client):
    proxy.rules = [Rule(Latency(0.2))]
    start = time.monotonic()
    assert ask(client(proxy)) == (200, BODY)
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reset(), ConnectionResetError),
        # Under TLS, OpenSSL may tell of a reset as the end of the data.
        (Reset(midway=True), (ConnectionResetError, http.client.IncompleteRead)),
        (Half(), http.client.IncompleteRead),
        (Hang(), TimeoutError),
    ],
    ids=["reset", "reset midway", "half", "hang"],
)
def test_a_broken_answer_is_seen_as_what_it_is(
    proxy: Proxy, client: Client, fault: Fault, error: type[Exception] | tuple[type[Exception], ...]
):
    proxy.rules = [Rule(fault)]
    with pytest.raises(error):
        ask(client(proxy))


def test_a_trickle_never_pauses_long_and_takes_long(proxy: Proxy, client: Client):
    proxy.rules = [Rule(Trickle(0.005))]
    start = time.monotonic()
    assert ask(client(proxy)) == (200, BODY)
    assert time.monotonic() - start > 0.005 * len(BODY)


def test_a_status_comes_with_its_headers_and_body(proxy: Proxy, upstream: Proxy, client: Client):
    proxy.rules = [Rule(Status(429, b"slow down", {"Retry-After": "1"}))]
    connection = client(proxy)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After"), response.read()) == (429, "1", b"slow down")
    assert not upstream.seen


def test_a_redirect_leads_to_a_server_that_keeps_what_it_is_shown(
    proxy: Proxy, certificate: Pair | None, client: Client
):
    with elsewhere(certificate) as other:
        proxy.rules = [Rule(Redirect(other.url))]
        connection = client(proxy)
        connection.request("GET", "/x")
        response = connection.getresponse()
        assert (response.status, response.getheader("Location")) == (307, f"{other.url}/x")
        assert ask(client(other)) == (200, b"{}")
        assert other.seen[0].credentials == {"x-vault-token"}
        assert other.seen[0].holds("y=1")


def test_a_rule_begins_late_ends_early_and_is_for_some_paths(proxy: Proxy, client: Client):
    proxy.rules = [Rule(Status(503), path="^GET /a", after=1, times=2)]
    connection = client(proxy)
    assert [ask(connection, path)[0] for path in ("/a", "/b", "/a", "/b", "/a", "/a")] == [200, 200, 503, 200, 503, 200]


def test_a_rule_may_be_for_those_who_show_who_they_are(proxy: Proxy, client: Client):
    proxy.rules = [Rule(Status(403), known=True)]
    connection = client(proxy)
    assert [ask(connection, token=token)[0] for token in ("", "t")] == [200, 403]


def test_a_rule_may_be_for_some_bodies(proxy: Proxy, client: Client):
    proxy.rules = [Rule(Status(403), body=b"od")]
    connection = client(proxy)
    assert [ask(connection, method=method)[0] for method in ("GET", "POST")] == [200, 403]


def test_an_expired_token_is_refused_and_another_is_good(proxy: Proxy, client: Client):
    proxy.rules = [Rule(Expired(Status(401)), after=1)]
    connection = client(proxy)
    assert [ask(connection, token=token)[0] for token in ("a", "a", "b", "a")] == [200, 401, 200, 401]


def test_a_port_that_refuses_is_taken_and_closed(client: Client):
    with Proxy(refuse=True) as proxy, pytest.raises(ConnectionRefusedError):
        client(proxy).connect()


def test_a_certificate_of_another_authority_is_not_trusted(tmp_path: Path, upstream: Proxy, client: Client):
    stranger = Authority(tmp_path).issue("proxy")
    with Proxy(upstream.url, certificate=stranger) as proxy:
        with pytest.raises(ssl.SSLCertVerificationError):
            client(proxy).connect()
        assert not proxy.seen


def test_it_ends_while_requests_hang(client: Client):
    with Proxy(rules=[Rule(Hang())]) as proxy:
        client(proxy).request("GET", "/")
        start = time.monotonic()
    assert time.monotonic() - start < 1
