"""Debian's docker-registry on loopback, and a stand-in with other habits.

https://distribution.github.io/distribution/about/configuration/
https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.hosts.build import CACHE, run
from tests.hosts.programs import absent
from tests.servers.certificates import Authority

PACKAGE = "docker-registry"
"""And its program."""
USER, PASSWORD = "pusher", "correct horse"
HASH = "$2b$04$JMDQIigeoVdwX5ZIACGu0.0.lcegUnSHWC7Q5EDFDu/dZ5Azg3/W2"
"""The password's bcrypt hash: the one form that the registry takes."""
STARTS_WITHIN = 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Pulled(NamedTuple):
    manifest: dict[str, Any]
    digest: str
    config: dict[str, Any]
    layer: bytes


class Registry(NamedTuple):
    address: str
    """`127.0.0.1:PORT`"""
    folder: Path
    """In which it keeps everything."""

    def get(self, path: str) -> tuple[bytes, str]:
        """What lies there, and its digest as the registry says it; over plain HTTP, without a login."""
        request = urllib.request.Request(f"http://{self.address}/v2/{path}", headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request) as answer:
            return answer.read(), answer.headers.get("Docker-Content-Digest", "")

    def pull(self, repository: str, tag: str) -> Pulled:
        data, digest = self.get(f"{repository}/manifests/{tag}")
        manifest = json.loads(data)
        (layer,) = manifest["layers"]
        config, _ = self.get(f"{repository}/blobs/{manifest['config']['digest']}")
        content, _ = self.get(f"{repository}/blobs/{layer['digest']}")
        return Pulled(manifest, digest, json.loads(config), content)

    def is_empty(self) -> bool:
        return not list((self.folder / "data").rglob("*"))


def _program() -> str:
    """Where the hosts are required, as in CI, it is installed if need be, as is what tests/hosts/image.py needs."""
    if os.environ.get("SECRETWEAVE_REQUIRE_HOSTS") == "1" and os.geteuid() == 0 and shutil.which("apt-get"):
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{PACKAGE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if shutil.which(PACKAGE) is None:
                run("apt-get", "update", "-qq")
                install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends")
                run(*install, PACKAGE, DEBIAN_FRONTEND="noninteractive")
    return shutil.which(PACKAGE) or absent(f"{PACKAGE} is not installed: apt install {PACKAGE}")


@contextmanager
def running(folder: Path, *, auth: bool = False, tls: Authority | None = None) -> Iterator[Registry]:
    """*auth*: it asks for USER and PASSWORD; *tls*: it speaks TLS by a certificate of that authority."""
    program = _program()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    http: dict[str, Any] = {"addr": address}
    if tls is not None:
        pair = tls.issue("registry")
        http["tls"] = {"certificate": str(pair.certificate), "key": str(pair.key)}
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": http,
    }
    if auth:
        (folder / "htpasswd").write_text(f"{USER}:{HASH}\n")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    (folder / "data").mkdir()
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yaml")], stdout=log, stderr=log)
    try:
        _wait(address, process, folder / "log")
        yield Registry(address, folder)
    finally:
        process.terminate()
        process.wait()


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    host, _, port = address.partition(":")
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())


class Asked(NamedTuple):
    method: str
    path: str
    authorization: str
    body: bytes


class StandIn(ThreadingHTTPServer):
    """A registry with the habits that Debian's has not, by the distribution spec; it keeps its blobs in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.asked: list[Asked] = []
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, bytes] = {}
        self.faults: list[tuple[str, int]] = []
        """(a method, the status that it gets), each once and in order."""
        self.challenge = ""
        """Of what has no `Bearer t0ken`."""
        self.grants: Callable[[Asked], bool] = lambda _: True
        """Does the token service give a token?"""
        self.elsewhere = ""
        """Another place to which uploads and blobs are sent."""
        self.other_digest = False
        """It changes manifests."""
        self.seconds = 0.0
        """How long every answer takes."""

    def tokens(self) -> None:
        """It wants tokens, which its own token service gives."""
        self.challenge = (
            f'Bearer realm="http://{self.address}/token?x=1",service="tests",scope="repository:team/app:pull,push"'
        )

    @property
    def methods(self) -> list[str]:
        return [each.method for each in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self) -> None:
        own = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, self.headers.get("Authorization", ""), body)
        own.asked.append(asked)
        time.sleep(own.seconds)
        if own.faults and own.faults[0][0] == self.command:
            self.answer(own.faults.pop(0)[1])
        elif self.path.startswith("/token"):
            granted = own.grants(asked)
            self.answer(200 if granted else 401, b'{"access_token": "t0ken"}' if granted else b"")
        elif own.challenge and asked.authorization != "Bearer t0ken":
            self.answer(401, WWW_Authenticate=own.challenge)
        else:
            self.distribute(body)

    def distribute(self, body: bytes) -> None:
        own, digest = self.server, f"sha256:{hashlib.sha256(body).hexdigest()}"
        path, _, _ = self.path.partition("?")
        kind, name = path.split("/")[-2:]
        if self.command == "POST":
            self.answer(202, Location=f"{own.elsewhere}/v2/team/app/blobs/uploads/1?state=a")
        elif self.command == "PUT":
            kept = own.tags if kind == "manifests" else own.blobs
            kept[name if kind == "manifests" else digest] = body
            self.answer(201)
        elif kind == "blobs" and own.elsewhere:
            self.answer(307, Location=f"{own.elsewhere}{self.path}")
        else:
            found = (own.tags if kind == "manifests" else own.blobs).get(name)
            told = f"sha256:{hashlib.sha256(found or b'').hexdigest()}"
            told = "sha256:" + "0" * 64 if own.other_digest else told
            self.answer(404 if found is None else 200, found or b"", Docker_Content_Digest=told)

    do_GET = do_HEAD = do_POST = do_PUT = serve  # noqa: N815 - the names of http.server


@contextmanager
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
