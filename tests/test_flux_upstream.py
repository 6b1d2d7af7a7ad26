"""How the artifact of a Flux source is fetched: from real servers on loopback."""

import gzip
import hashlib
import io
import os
import select
import socket
import ssl
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from secretweave.errors import InputError, PolicyError, SecretweaveError
from secretweave.flux import upstream
from secretweave.flux.settings import Artifacts
from tests.argocd_source import unvisited
from tests.servers import certificates

LIMITS = Artifacts(archive_bytes=100_000)


def packed(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0)


ARCHIVE = packed(a=b"1", b=os.urandom(5000))
SHA256 = f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}"
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers))
        number = min(len(self.server.asked), len(self.server.answers)) - 1
        try:
            self.server.answers[number](self)
        except OSError:
            # The client has left.
            self.close_connection = True

    def do_CONNECT(self) -> None:
        """As a proxy: hands everything on, both ways, until one side ends."""
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.server.tunnel_to)) as there:
            ends = {self.connection: there, there: self.connection}
            while True:
                for each in select.select(list(ends), [], [])[0]:
                    data = each.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    ends[each].sendall(data)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's name
        """No output."""

    def give(self, body: bytes = ARCHIVE, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answers: tuple[Answer, ...], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.tunnel_to = 0
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/gitrepository/apps/shop/1.tar.gz"


@contextmanager
def serving(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(answers, tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetched(
    url: str,
    folder: Path,
    *,
    digest: str = SHA256,
    size: int | None = None,
    seconds: float = 20,
    limits: Artifacts = LIMITS,
) -> dict[str, bytes]:
    upstream.fetch(url, digest, size, str(folder / "root"), limits, time.monotonic() + seconds)
    return {name: (folder / "root" / name).read_bytes() for name in sorted(os.listdir(folder / "root"))}


def refused(url: str, folder: Path, **options: Any) -> SecretweaveError:
    with pytest.raises(SecretweaveError) as caught:
        fetched(url, folder, **options)
    assert not (folder / "root").exists() or os.listdir(folder / "root") == []
    return caught.value


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_an_artifact(tmp_path: Path, algorithm: str):
    digest = f"{algorithm}:{hashlib.new(algorithm, ARCHIVE).hexdigest()}"
    with serving(Handler.give) as server:
        found = fetched(server.url, tmp_path, digest=digest, size=len(ARCHIVE))
    assert found["a"] == b"1"
    assert len(found["b"]) == 5000
    assert server.asked == ["/gitrepository/apps/shop/1.tar.gz"]
    (headers,) = server.headers
    assert not {"Authorization", "Cookie"} & set(headers)
    assert headers["Accept-Encoding"] == "identity"


def test_a_digest_without_a_name_is_sha256_s(tmp_path: Path):
    with serving(Handler.give) as server:
        assert fetched(server.url, tmp_path, digest=SHA256.removeprefix("sha256:"))["a"] == b"1"


def test_a_query_and_chunks(tmp_path: Path):
    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(ARCHIVE), 999):
            piece = ARCHIVE[start : start + 999]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    with serving(chunked) as server:
        assert fetched(f"{server.url}?x=1#y", tmp_path)["a"] == b"1"
    assert server.asked == ["/gitrepository/apps/shop/1.tar.gz?x=1"]


def test_a_server_that_closes(tmp_path: Path):
    def closed(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(ARCHIVE)

    with serving(closed) as server:
        assert fetched(server.url, tmp_path)["a"] == b"1"


# What is not the artifact.


@pytest.mark.parametrize("size", [None, len(ARCHIVE)], ids=["unknown", "known"])
def test_another_content(tmp_path: Path, size: int | None):
    with serving(lambda handler: handler.give(ARCHIVE[:-1] + b"!")) as server:
        fault = refused(server.url, tmp_path, size=size)
    assert (type(fault), fault.what) == (InputError, "what was fetched is not the source's artifact")
    assert fault.why == "its digest is not the one that the source's status tells"
    assert len(server.asked) == 1


def test_nothing_is_unpacked_before_the_digest_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upstream, "unpack", lambda *_: pytest.fail("unpacked"))
    with serving(Handler.give) as server:
        refused(server.url, tmp_path, digest="sha256:" + "0" * 64)


@pytest.mark.parametrize("size", [0, len(ARCHIVE) - 1, len(ARCHIVE) + 1], ids=["none", "less", "more"])
def test_another_size(tmp_path: Path, size: int):
    with serving(Handler.give) as server:
        fault = refused(server.url, tmp_path, size=size)
    assert fault.why == f"it has {len(ARCHIVE):,} bytes, and the source's status says {size:,}"


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "G" * 64,
        "sha256:" + "A" * 64,
        "sha1:" + "0" * 40,
        "md5:" + "0" * 32,
        "blake3:" + "0" * 64,
        "sha512:" + "0" * 64,
        ":" + "0" * 40,
        "a:sha256:" + "0" * 64,
    ],
)
def test_digests_that_are_not_known(tmp_path: Path, digest: str):
    with unvisited() as port:
        fault = refused(f"http://127.0.0.1:{port}/", tmp_path, digest=digest)
    assert isinstance(fault, InputError)
    assert "--artifact-digest-algo=sha256" in fault.fix


def test_an_archive_that_is_none(tmp_path: Path):
    with serving(lambda handler: handler.give(b"x")) as server:
        fault = refused(server.url, tmp_path, digest=f"sha256:{hashlib.sha256(b'x').hexdigest()}")
    assert fault.what == "the source's archive cannot be read"


# What is too large.


def test_a_size_that_is_too_large(tmp_path: Path):
    with unvisited() as port:
        fault = refused(f"http://127.0.0.1:{port}/", tmp_path, size=100_001)
    assert fault.what == "the source's artifact has more than 100,000 bytes"
    assert "spec.flux.artifacts.archiveBytes" in fault.fix


def test_a_length_that_is_too_large(tmp_path: Path):
    with serving(lambda handler: handler.give(length=1 << 40)) as server:
        assert "more than 100,000" in refused(server.url, tmp_path).what


def test_a_stream_without_an_end(tmp_path: Path):
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))

    with serving(endless) as server:
        assert "more than 100,000" in refused(server.url, tmp_path).what


# What a server may answer.


@pytest.mark.parametrize("status", [404, 410])
def test_an_artifact_that_is_gone(tmp_path: Path, status: int):
    with serving(lambda handler: handler.give(b"", status)) as server:
        fault = refused(server.url, tmp_path)
    assert (type(fault), fault.what) == (upstream.Gone, "the source's artifact is gone")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403])
def test_other_statuses(tmp_path: Path, status: int):
    with serving(lambda handler: handler.give(b"", status)) as server:
        fault = refused(server.url, tmp_path)
    assert fault.what == f"the server of the source's artifact refuses it with status {status}"
    assert len(server.asked) == 1


def cut(handler: Handler) -> None:
    handler.give(ARCHIVE[:3000], length=len(ARCHIVE))
    handler.close_connection = True


def cut_chunk(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"fff\r\nx")
    handler.close_connection = True


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()
    handler.close_connection = True


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-x\r\n")
    handler.close_connection = True


def unavailable(handler: Handler) -> None:
    handler.give(b"", 503)


def busy(handler: Handler) -> None:
    handler.give(b"", 429)


FLEETING = pytest.mark.parametrize("answer", [cut, cut_chunk, reset, no_http, unavailable, busy])


@FLEETING
def test_what_passes(tmp_path: Path, answer: Answer):
    with serving(answer, answer, Handler.give) as server:
        assert fetched(server.url, tmp_path, size=len(ARCHIVE))["a"] == b"1"
    assert len(server.asked) == 3


@FLEETING
def test_what_does_not_pass(tmp_path: Path, answer: Answer):
    started = time.monotonic()
    with serving(answer) as server:
        fault = refused(server.url, tmp_path, seconds=1)
    assert (type(fault), fault.what) == (InputError, "the source's artifact cannot be fetched from 127.0.0.1")
    assert fault.why
    assert time.monotonic() - started < 3
    assert len(server.asked) > 1


def test_what_lasts_holds_nobody_up(tmp_path: Path):
    started = time.monotonic()
    with serving(unavailable) as server:
        refused(server.url, tmp_path, seconds=600)
    assert time.monotonic() - started < 30
    assert len(server.asked) == 5


def test_nobody_who_answers(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert refused(f"http://127.0.0.1:{port}/", tmp_path, seconds=0.5).why == "Connection refused"


def trickled(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(ARCHIVE)))
    handler.end_headers()
    for byte in ARCHIVE:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


def trickled_head(handler: Handler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


def silent(handler: Handler) -> None:
    time.sleep(5)
    handler.close_connection = True


@pytest.mark.parametrize("answer", [trickled, trickled_head, silent])
def test_a_server_that_is_slow(tmp_path: Path, answer: Answer):
    started = time.monotonic()
    with serving(answer) as server:
        fault = refused(server.url, tmp_path, seconds=0.7)
        assert time.monotonic() - started < 2
    assert fault.why == "it does not answer in time"
    assert len(server.asked) == 1


def test_a_server_that_falls_silent_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.3)
    with serving(silent, Handler.give) as server:
        assert fetched(server.url, tmp_path)["a"] == b"1"


def test_a_time_that_is_over(tmp_path: Path):
    with unvisited() as port:
        assert refused(f"http://127.0.0.1:{port}/", tmp_path, seconds=-1).why == "it does not answer in time"


# Where it leads.


def moved(to: str) -> Answer:
    """*to*: `{port}` in it is the server's own."""
    return lambda handler: handler.give(b"", 302, Location=to.replace("{port}", str(handler.server.server_port)))


@pytest.mark.parametrize("to", ["/other", "other", "?x", "http://127.0.0.1:{port}/other"])
def test_a_redirect_on_the_same_server(tmp_path: Path, to: str):
    with serving(moved(to), Handler.give) as server:
        assert fetched(server.url, tmp_path)["a"] == b"1"
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1:{other}/x", "http://localhost:{other}/x", "//127.0.0.2/x", "https://127.0.0.1:{port}/x"]
)
def test_a_redirect_to_another_server(tmp_path: Path, to: str):
    with unvisited() as other, serving(moved(to.replace("{other}", str(other)))) as server:
        fault = refused(server.url, tmp_path)
    assert (type(fault), fault.why) == (PolicyError, "it leads to another server")
    assert len(server.asked) == 1


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://user@127.0.0.1/", "gopher://x"])
def test_a_redirect_to_something_else(tmp_path: Path, to: str):
    with serving(moved(to)) as server:
        assert isinstance(refused(server.url, tmp_path), PolicyError)


def test_redirects_without_an_end(tmp_path: Path):
    with serving(moved("/again")) as server:
        assert refused(server.url, tmp_path).why == "it leads from one address to the next without an end"
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://",
        "http:///x",
        "//127.0.0.1/x",
        "/etc/passwd",
        "http://user:hunter2@127.0.0.1/x",
        "http://@127.0.0.1/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:x/x",
        "http://[::1/x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/é",
    ],
)
def test_addresses_that_are_not_asked(tmp_path: Path, url: str):
    fault = refused(url, tmp_path)
    assert (type(fault), fault.what) == (
        PolicyError,
        "the address of the source's artifact is not one that may be asked",
    )
    assert "hunter2" not in f"{fault.why}{fault.fix}"


# TLS and proxies.


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    authority = certificates.Authority(tmp_path)
    with serving(Handler.give, tls=authority.issue("source").server_context()) as server:
        fault = refused(server.url, tmp_path)
        assert fault.what == "the server of the source's artifact is not trusted"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        assert fetched(server.url, tmp_path)["a"] == b"1"


def test_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(Handler.give) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{proxy.server_port}")
        assert fetched("http://source.flux-system.svc/x?y", tmp_path)["a"] == b"1"
    assert proxy.asked == ["http://source.flux-system.svc:80/x?y"]
    assert proxy.headers[0]["Host"] == "source.flux-system.svc:80"
    assert proxy.headers[0]["Proxy-Authorization"] == "Basic dXNlcjpwQHNz"


def test_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    authority = certificates.Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    pair = authority.issue("source", names=("source.flux-system.svc",))
    with serving(Handler.give, tls=pair.server_context()) as server, serving() as proxy:
        proxy.tunnel_to = server.server_port
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
        assert fetched("https://source.flux-system.svc/x", tmp_path)["a"] == b"1"
    assert (proxy.asked, server.asked) == (["source.flux-system.svc:443"], ["/x"])


def test_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with unvisited() as port, serving(Handler.give) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        assert fetched(server.url, tmp_path)["a"] == b"1"
        monkeypatch.setenv("no_proxy", ".svc,.invalid")
        assert refused("http://source.invalid/", tmp_path / "other", seconds=0.2).why == "its name is not known"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "https://127.0.0.1:1", "http://x:y", "http://"])
def test_proxies_that_cannot_be_used(tmp_path: Path, proxy: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", proxy)
    fault = refused("http://source.flux-system.svc/", tmp_path)
    assert fault.what == "the proxy to the source's artifact has no usable address"
