"""A namespace with a SecretWeave, and the controller's parts: a source over HTTP, the cluster's API in memory."""

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]  # a C extension without stubs

from secretweave import config as configs
from secretweave.flux.controller import keys
from secretweave.flux.controller.polling import Polling
from secretweave.flux.controller.published import Published
from secretweave.flux.controller.queue import Key
from secretweave.flux.controller.reconcile import Done, Parts, Reconciler
from secretweave.flux.controller.sharing import Shared
from secretweave.flux.controller.watch import Metrics, Watch
from secretweave.service.kept import Kept
from tests.flux_api import Memory
from tests.hosts.programs import need

SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: "secret://main/db#password"}
"""
PLAIN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
"""
OBJECTS = {"deploy/secret.yaml": SECRET, "deploy/settings.yaml": PLAIN}
KEY = Key("shop", "web")


def archive(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


class Upstream:
    """Serves archives as source-controller does."""

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}
        self.asked = 0
        archives, upstream = self.archives, self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.asked += 1
                data = archives.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: Any) -> None:
                """pytest shows enough."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def artifact(self, files: Mapping[str, str], revision: str) -> dict[str, Any]:
        data = archive(files)
        digest = hashlib.sha256(data).hexdigest()
        self.archives[f"/{digest}.tar.gz"] = data
        url = f"http://127.0.0.1:{self.server.server_address[1]}/{digest}.tar.gz"
        return {"url": url, "digest": f"sha256:{digest}", "revision": revision, "size": len(data)}

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class World:
    """A namespace `shop` with a GitRepository and a SecretWeave `web`, and the controller's parts."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.folder = folder
        self.upstream = upstream
        self.memory = Memory()
        self.lines: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self.store: dict[str, Any] = {"file": {"path": "secrets.json"}}
        self.environ = {"PATH": os.environ["PATH"]}
        self.values({"db": {"password": "hunter2-hunter2"}})
        self.published = Published(str(folder / "data"), "http://secretweave.flux-system.svc")
        self.watch = Watch(lambda line: self.lines.append(json.loads(line)), Metrics())
        self.restart()
        self.source(OBJECTS, "main@sha1:1")
        self.weave()

    def restart(self) -> None:
        self.kept, self.shared = Kept(self.watch, 10, 60), Shared(self.watch)
        parts = Parts(
            self.memory.api,
            self.config,
            self.published,
            keys.digest_key(self.memory.api, "flux-system"),
            self.kept,
            self.shared,
            Polling(self.kept, self.shared),
            self.watch,
            self.environ,
        )
        self.reconciler = Reconciler(parts)

    def values(self, secrets: dict[str, Any]) -> None:
        path = self.folder / "secrets.json"
        path.write_text(json.dumps(secrets))
        path.chmod(0o600)

    def config(self) -> configs.Config:
        path = self.folder / "config.json"
        head = {"apiVersion": "humanitec.io/v1alpha1", "kind": "SecretStore", "metadata": {"name": "main"}}
        store = {**head, "spec": self.store}
        flux = {"kustomize": {"program": str(need("kustomize"))}, **self.settings.get("flux", {})}
        spec = {
            "apiVersion": "secretweave.dev/v1alpha1",
            "kind": "Configuration",
            "spec": {"sops": {"program": str(need("sops"))}, **self.settings, "flux": flux},
        }
        path.write_text(json.dumps(store) + "\n---\n" + json.dumps(spec))
        return configs.load(str(path), {})

    def source(self, files: Mapping[str, str], revision: str, **more: Any) -> None:
        metadata = {"name": "web", "namespace": "shop", **more}
        source = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata}
        if ("gitrepositories", metadata["namespace"], "web") not in self.memory.objects:
            self.memory.create({**source, "spec": {}}, "gitrepositories")
        self.memory.patch_status(
            "", "gitrepositories", metadata["namespace"], "web", {"artifact": self.upstream.artifact(files, revision)}
        )

    def weave(self, name: str = "web", **spec: Any) -> None:
        ref = {"kind": "GitRepository", "name": "web"}
        whole = {"sourceRef": ref, "path": "./deploy", "interval": "10m", "refreshInterval": "1m", **spec}
        head = {"apiVersion": "flux.secretweave.dev/v1alpha1", "kind": "SecretWeave"}
        obj = {**head, "metadata": {"name": name, "namespace": "shop"}, "spec": whole}
        self.memory.apply(obj, "secretweaves", manager="secretweave", force=True)

    def run(self) -> Done:
        return self.reconciler.reconcile(KEY)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.memory.objects["secretweaves", "shop", "web"]["status"]
        return found

    @property
    def external(self) -> dict[str, Any]:
        return self.memory.objects["externalartifacts", "shop", "web"]

    def conditions(self) -> dict[str, tuple[str, str]]:
        return {each["type"]: (each["status"], each["reason"]) for each in self.status["conditions"]}

    def message(self) -> str:
        found: str = next(each["message"] for each in self.status["conditions"] if each["type"] == "Ready")
        return found

    def files(self) -> dict[str, bytes]:
        """What is published."""
        digest = self.external["status"]["artifact"]["digest"]
        data = Path(self.published.file(KEY, digest)).read_bytes()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = {each.name: tar.extractfile(each) for each in tar.getmembers()}
            return {name: file.read() for name, file in found.items() if file}

    def identities(self) -> list[pyrage.x25519.Identity]:
        secret = self.memory.objects["secrets", "shop", "web-age"]
        text = base64.b64decode(secret["data"]["age.agekey"]).decode()
        return [pyrage.x25519.Identity.from_str(line) for line in text.splitlines() if not line.startswith("#")]
