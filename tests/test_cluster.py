"""What the Kubernetes API may be that the real one of tests/hosts is not."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from secretweave.errors import StoreError, Unavailable
from secretweave.sdk import cluster
from secretweave.stores.base import Limits
from tests.servers.certificates import Authority

SECRET = {
    "kind": "Secret",
    "apiVersion": "v1",
    "metadata": {"name": "db", "resourceVersion": "7"},
    "data": {"password": base64.b64encode(b"hunter2").decode()},
}
METADATA = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "7"}}
AS_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Api(BaseHTTPRequestHandler):
    knows_forms = True
    """Does it give an object in the form that is asked for?"""

    def do_GET(self) -> None:
        as_metadata = self.knows_forms and self.headers["Accept"] == AS_METADATA
        body = json.dumps(METADATA if as_metadata else SECRET).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bare(tmp_path: Path) -> Authority:
    """An authority as old clusters of EKS have it: https://github.com/kubernetes-client/python/issues/2394."""
    return Authority(tmp_path, identifiers=False)


@pytest.fixture
def address(bare: Authority) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.socket = bare.issue("api").server_context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def connected(address: str, authority: Path, folder: Path) -> Iterator[cluster.Cluster]:
    config = folder / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": address, "certificate-authority": str(authority)}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    limits = Limits(time.monotonic() + 20, attempts=1)
    found = cluster.connect({}, limits, pytest.fail, kubeconfig=str(config))
    try:
        yield found
    finally:
        found.close()


def read(address: str, authority: Path, folder: Path) -> cluster.Object:
    with connected(address, authority, folder) as found:
        return found.get("Secret", "shop", "db")


def test_an_authority_without_key_identifiers_is_trusted_by_every_python(bare: Authority, address: str, tmp_path: Path):
    assert read(address, bare.certificate, tmp_path).data == {"password": b"hunter2"}


def test_another_authority_is_not(address: str, tmp_path: Path):
    (tmp_path / "other").mkdir()
    with pytest.raises(Unavailable) as caught:
        read(address, Authority(tmp_path / "other").certificate, tmp_path)
    assert caught.value.what == "the API server is not trusted"


@pytest.mark.parametrize(("knows_forms", "version"), [(True, "7"), (False, None)])
def test_a_version_is_told_by_metadata_alone(
    bare: Authority,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    knows_forms: bool,
    version: str | None,
):
    """What gives the whole object all the same (a cache before the API, say) may give an old one."""
    monkeypatch.setattr(Api, "knows_forms", knows_forms)
    with connected(address, bare.certificate, tmp_path) as found:
        assert found.version("Secret", "shop", "db") == version
    with pytest.raises(StoreError, match="the store is closed"):
        found.version("Secret", "shop", "db")
