"""Flux's real controllers beside a real API server, artifacts that a test serves, and the objects they stand in."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from tests.hosts.cluster import free_ports, start, stop, wait_until_ready
from tests.hosts.programs import Kubectl, absent, need

Object = dict[str, Any]
SOURCE = "source.toolkit.fluxcd.io/v1"
NAMESPACE = "flux-system"
"""Of the controllers."""
LEASE = "secretweave"
MANIFESTS = Path(__file__).parents[2] / "flux"
"""What is installed in a cluster."""
PLURALS = {
    "SecretWeave": ("flux.secretweave.dev/v1alpha1", "secretweaves"),
    "Kustomization": ("kustomize.toolkit.fluxcd.io/v1", "kustomizations"),
    "ExternalArtifact": (SOURCE, "externalartifacts"),
    "GitRepository": (SOURCE, "gitrepositories"),
    "OCIRepository": (SOURCE, "ocirepositories"),
    "Bucket": (SOURCE, "buckets"),
    "Secret": ("v1", "secrets"),
    "ConfigMap": ("v1", "configmaps"),
    "Namespace": ("v1", "namespaces"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Deployment": ("apps/v1", "deployments"),
    "Event": ("events.k8s.io/v1", "events"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
}
SECONDS_MAX = 30.0
"""What a change may take until it is seen in the cluster; 2 cores of a busy machine."""


class Cluster:
    """The API as an admin sees it. Unlike kubectl it starts no process, so it can be asked again and again."""

    def __init__(self, kubeconfig: Path) -> None:
        found = YAML(typ="safe", pure=True).load(kubeconfig.read_text())
        self.kubeconfig = kubeconfig
        self.ca = kubeconfig.parent / "apiserver.crt"
        self.address = found["clusters"][0]["cluster"]["server"]
        self._token = found["users"][0]["user"]["token"]
        self._trust_all = ssl.create_default_context()
        self._trust_all.check_hostname, self._trust_all.verify_mode = False, ssl.CERT_NONE

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return self._call("GET", _path(kind, namespace, name))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def get(self, kind: str, namespace: str, name: str) -> Object:
        return self._call("GET", _path(kind, namespace, name))

    def list(self, kind: str, namespace: str) -> list[Object]:
        found: list[Object] = self._call("GET", _path(kind, namespace))["items"]
        return found

    def names(self, kind: str, namespace: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.list(kind, namespace)}

    def apply(self, kind: str, namespace: str, name: str, **fields: Any) -> Object:
        """Server-side; *fields* are those beside metadata, of which `metadata` may be given too."""
        metadata = {**fields.pop("metadata", {}), "name": name} | ({"namespace": namespace} if namespace else {})
        wanted = {"apiVersion": PLURALS[kind][0], "kind": kind, "metadata": metadata, **fields}
        path = _path(kind, namespace, name) + "?fieldManager=test&force=true"
        return self._call("PATCH", path, wanted, "application/apply-patch+yaml")

    def patch(self, kind: str, namespace: str, name: str, fields: Object, part: str = "") -> Object:
        return self._call("PATCH", _path(kind, namespace, name) + part, fields, "application/merge-patch+json")

    def annotate(self, kind: str, namespace: str, name: str, key: str, value: str) -> None:
        self.patch(kind, namespace, name, {"metadata": {"annotations": {key: value}}})

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self._call("DELETE", _path(kind, namespace, name))

    def namespace(self, name: str) -> str:
        self.apply("Namespace", "", name)
        return name

    def until(
        self,
        kind: str,
        namespace: str,
        name: str,
        wanted: Callable[[Object], Any],
        seconds: float = SECONDS_MAX,
    ) -> Object:
        """The object as soon as it is as wanted; what it was last is the failure."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.find(kind, namespace, name)
            if found is not None and wanted(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{kind} {namespace}/{name} after {seconds} s: {json.dumps(_told(found))[:4000]}")
            time.sleep(0.1)

    def until_ready(self, kind: str, namespace: str, name: str, seconds: float = SECONDS_MAX) -> Object:
        """Ready, and for the spec as it is now."""
        return self.until(kind, namespace, name, is_ready, seconds)

    def until_not_ready(
        self, kind: str, namespace: str, name: str, *, reason: str = "", seconds: float = SECONDS_MAX
    ) -> str:
        """The message of its Ready condition, once that is False with this reason."""

        def is_so(found: Object) -> bool:
            ready = condition(found, "Ready")
            return ready.get("status") == "False" and (not reason or ready.get("reason") == reason)

        return str(condition(self.until(kind, namespace, name, is_so, seconds), "Ready")["message"])

    def values(self, namespace: str, name: str) -> dict[str, str]:
        """What a Secret holds; nothing where there is none."""
        found = self.find("Secret", namespace, name) or {}
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    def until_values(self, namespace: str, name: str, wanted: Mapping[str, str], seconds: float = SECONDS_MAX) -> float:
        """How many seconds it took."""
        begun = time.monotonic()
        while (found := self.values(namespace, name)) != wanted:
            assert time.monotonic() - begun < seconds, f"{namespace}/{name} holds {found}, not {wanted}"
            time.sleep(0.05)
        return time.monotonic() - begun

    def _call(self, method: str, path: str, body: Object | None = None, content: str = "") -> Object:
        headers = {"Authorization": f"Bearer {self._token}"} | ({"Content-Type": content} if content else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self._trust_all, timeout=30) as answer:
                found: Object = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                error.add_note(error.read().decode())
            raise
        return found


def _path(kind: str, namespace: str, name: str = "") -> str:
    version, plural = PLURALS[kind]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}" + (f"/{name}" if name else "")


def _told(found: Object | None) -> Any:
    return found and found.get("status", found)


def condition(obj: Object, kind: str) -> Object:
    found = (each for each in obj.get("status", {}).get("conditions", ()) if each["type"] == kind)
    return next(found, {})


def is_ready(obj: Object) -> bool:
    ready = condition(obj, "Ready")
    seen = (obj["metadata"]["generation"], obj.get("status", {}).get("observedGeneration"))
    # An ExternalArtifact's producer is not bound to tell which generation it saw.
    return ready.get("status") == "True" and seen[1] in {None, seen[0]}


class ApiServer:
    """The process of a cluster's API server, found by what it was started with: it can be away for a while."""

    def __init__(self, kubeconfig: Path) -> None:
        self._address = Cluster(kubeconfig).address
        self._log = kubeconfig.parent / "kube-apiserver-again.log"
        port = f"--secure-port={self._address.rpartition(':')[2]}"
        ((self._pid, self._command),) = ((pid, words) for pid, words in _processes() if port in words)
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """It is killed, and afterwards started again with the same etcd and at the same port."""
        os.kill(self._pid, signal.SIGKILL)
        if self._process:
            self._process.wait()
        try:
            yield
        finally:
            self._process = start(self._command, self._log)
            self._pid = self._process.pid
            wait_until_ready(self._address, self._process, self._log)

    def end(self) -> None:
        """The one that was started here: the other one ends with its cluster."""
        if self._process and self._process.poll() is None:
            stop(self._process)


def _processes() -> Iterator[tuple[int, list[str]]]:
    """(number, command line) of each that runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_text(errors="replace").split("\0")[:-1]


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A .tar.gz as source-controller writes one, the same for the same files."""
    data = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=data, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name, content in sorted(files.items()):
            text = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return data.getvalue()


class Artifacts:
    """Serves archives by their names, and stands in for a source-controller: it writes the objects' status."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.served: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""

    def publish(
        self, kind: str, namespace: str, name: str, files: Mapping[str, str | bytes], revision: str = ""
    ) -> Object:
        """A GitRepository or another source whose artifact holds the files. Gives its status."""
        data = archive(files)
        digest = hashlib.sha256(data).hexdigest()
        path = f"{kind.lower()}/{namespace}/{name}/{digest}.tar.gz"
        self.served[f"/{path}"] = data
        specs = {
            "GitRepository": {"url": "https://git.invalid/shop.git", "interval": "1h"},
            "OCIRepository": {"url": "oci://registry.invalid/shop", "interval": "1h"},
            "ExternalArtifact": {},
        }
        created = self.cluster.apply(kind, namespace, name, spec=specs[kind])
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        artifact = {
            "url": f"{self.url}/{path}",
            "path": path,
            "revision": revision or f"main@sha1:{digest[:40]}",
            "digest": f"sha256:{digest}",
            "lastUpdateTime": now,
            "size": len(data),
        }
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Succeeded",
            "message": "stored artifact",
            "lastTransitionTime": now,
            "observedGeneration": created["metadata"]["generation"],
        }
        status = {"artifact": artifact, "conditions": [ready]}
        if kind != "ExternalArtifact":
            status["observedGeneration"] = created["metadata"]["generation"]
        self.cluster.patch(kind, namespace, name, {"status": status}, "/status")
        return status


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Nothing on the tests' stderr."""


@contextmanager
def _serving(handler: type[_Quiet]) -> Iterator[str]:
    """The address of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def artifacts(cluster: Cluster) -> Iterator[Artifacts]:
    found = Artifacts(cluster)

    class Handler(_Quiet):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            data = found.served.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            # Who asked may be a program that the test kills.
            with contextlib.suppress(OSError):
                self.wfile.write(data or b"")

    with _serving(Handler) as found.url:
        yield found


def install_crds(kubeconfig: Path, *files: Path) -> None:
    """Those of Flux, and further ones; returns once they are served."""
    kubectl = Kubectl(need("kubectl"), kubeconfig, "default")
    for path in (need("flux-crds"), *files):
        done = kubectl.run("apply", "--server-side", "--force-conflicts", f"--filename={path}")
        assert done.returncode == 0, done.stderr
        done = kubectl.run("wait", "--for=condition=Established", "--timeout=60s", f"--filename={path}")
        assert done.returncode == 0, done.stderr


class Controller(NamedTuple):
    log: Path
    health: str
    """An address whose /healthz and /readyz it answers."""
    folder: Path

    def lines(self) -> list[Object]:
        """Of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def kustomize_controller(folder: Path, cluster: Cluster) -> Iterator[Controller]:
    """Flux's, for the whole cluster. *folder* takes its log."""
    with _controller("kustomize-controller", folder, cluster, ["--feature-gates=ExternalArtifact=true"]) as found:
        yield found


@contextmanager
def source_controller(folder: Path, cluster: Cluster, namespace: str) -> Iterator[Controller]:
    """Flux's, for one namespace: in others tests write the status of a GitRepository themselves."""
    (port,) = free_ports(1)
    storage = folder / "storage"
    storage.mkdir()
    address = f"127.0.0.1:{port}"
    arguments = [f"--storage-path={storage}", f"--storage-addr={address}", f"--storage-adv-addr={address}"]
    with _controller("source-controller", folder, cluster, arguments, namespace) as found:
        yield found


@contextmanager
def _controller(
    name: str, folder: Path, cluster: Cluster, arguments: list[str], namespace: str = ""
) -> Iterator[Controller]:
    """*namespace*: the only one that it looks at; empty: it looks at all."""
    metrics, health = free_ports(2)
    log, room = folder / f"{name}.log", folder / f"{name}-tmp"
    room.mkdir()
    cluster.namespace(NAMESPACE)
    process = start(
        [
            "env",
            f"KUBECONFIG={cluster.kubeconfig}",
            f"RUNTIME_NAMESPACE={namespace or NAMESPACE}",
            f"TMPDIR={room}",
            str(need(name)),
            f"--metrics-addr=127.0.0.1:{metrics}",
            f"--health-addr=127.0.0.1:{health}",
            f"--watch-all-namespaces={'false' if namespace else 'true'}",
            "--enable-leader-election=false",
            "--requeue-dependency=2s",
            *arguments,
        ],
        log,
    )
    found = Controller(log, f"http://127.0.0.1:{health}", room)
    try:
        wait_until_healthy(found, "/readyz", lambda: process.poll() is None)
        yield found
    finally:
        stop(process)


def wait_until_healthy(found: Controller, path: str, lives: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and lives():
        try:
            with urllib.request.urlopen(found.health + path, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{found.log.stem} did not come up:\n{found.log.read_text()[-4000:]}")


def kustomization(
    cluster: Cluster, namespace: str, name: str, *, source: tuple[str, str], age: str = "", path: str = "./"
) -> None:
    """Applies what the source holds to the namespace. *source*: kind and name; *age*: the Secret that decrypts it."""
    spec: Object = {
        "interval": "1h",
        "retryInterval": "2s",
        "path": path,
        "prune": True,
        "targetNamespace": namespace,
        "sourceRef": {"kind": source[0], "name": source[1]},
    }
    if source[0] == "ExternalArtifact":
        spec["sourceRef"]["apiVersion"] = SOURCE
    if age:
        spec["decryption"] = {"provider": "sops", "secretRef": {"name": age}}
    cluster.apply("Kustomization", namespace, name, spec=spec)


class Weaver:
    """`secretweave flux controller`, the real command in a process of its own, which can be killed and started again.

    *folder* takes its volume, its configuration and its log. Its ports stay the same, as a Service's do.
    """

    def __init__(self, folder: Path, cluster: Cluster, stores: str) -> None:
        """*stores*: SecretStore documents, whose credentials lie in Secrets of the controller's namespace."""
        artifacts_port, health, metrics = free_ports(3)
        self._stores = stores
        self.volume = folder / "volume"
        self.log = folder / "controller.log"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self.cluster = cluster
        self._controller = Controller(self.log, f"http://127.0.0.1:{health}", folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.pod = ""
        """The name of its Pod, where it has one: one that is started again in it goes on with its Lease."""
        self.config = folder / "controller.yaml"
        self.config.write_text(f"""\
{stores}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  operatorNamespace: {NAMESPACE}
  sops: {{program: {need("sops")}}}
  flux:
    kustomize: {{program: {need("kustomize")}}}
    artifacts: {{folder: {self.volume}, address: "127.0.0.1:{artifacts_port}", url: "http://127.0.0.1:{artifacts_port}"}}
    health: 127.0.0.1:{health}
    metrics: 127.0.0.1:{metrics}
""")
        home = folder / "home"
        home.mkdir()
        self._environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "KUBECONFIG": str(_as_the_service_account(cluster, folder)),
            "RUNTIME_NAMESPACE": NAMESPACE,
            "SECRETWEAVE_CONFIG": str(self.config),
        }

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, ready: bool = True) -> None:
        """*ready*: waits until it is at work: it serves, and the Lease is its own."""
        command = [sys.executable, "-m", "secretweave", "flux", "controller"]
        # It ends with the tests, however they end.
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig=KILL", *command]
        # An earlier run's log stays: what is never to be in it is looked for in all of it.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environ | ({"POD_NAME": self.pod} if self.pod else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._controller.folder,
                start_new_session=True,
            )
        if ready:
            self.until_ready()

    def until_ready(self) -> None:
        wait_until_healthy(self._controller, "/readyz", self.lives)

    def is_ready(self) -> bool:
        return self.answers("/readyz")

    def answers(self, probe: str) -> bool:
        """Well, by the HTTP status."""
        with contextlib.suppress(OSError), urllib.request.urlopen(self._controller.health + probe, timeout=5):
            return True
        return False

    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def replica(self, folder: Path) -> "Weaver":
        """Another one that is set up alike, with a volume of its own; not started."""
        return Weaver(folder, self.cluster, self._stores)

    def kill(self, *, lease_ends: bool = True) -> None:
        """At once, with what it has started. *lease_ends*: nobody has to wait until its Lease is over."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if lease_ends and self.cluster.find("Lease", NAMESPACE, LEASE):
            self.cluster.delete("Lease", NAMESPACE, LEASE)

    def stop(self) -> int:
        """As Kubernetes does. Gives the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.ended()

    def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(30)

    @contextmanager
    def plaintext_allowed(self) -> Iterator[None]:
        """It takes the configuration up by itself."""
        text = self.config.read_text()
        self.config.write_text(text.replace("  flux:\n", "  flux:\n    allowPlaintext: true\n"))
        try:
            yield
        finally:
            self.config.write_text(text)

    def file(self, namespace: str, name: str, digest: str) -> Path:
        """Where an archive of its lies."""
        return self.volume / namespace / name / f"{digest.removeprefix('sha256:')}.tar.gz"

    def aged(self, namespace: str, name: str) -> list[Path]:
        """The files of an object, as if they had been written ten minutes earlier, the first of them first."""
        found = sorted((self.volume / namespace / name).iterdir(), key=lambda path: path.stat().st_mtime)
        for path in found:
            written = path.stat().st_mtime - 600
            os.utime(path, (written, written))
        return found

    def lines(self, event: str) -> list[Object]:
        """Of its logs."""
        return [each for each in self._controller.lines() if each.get("event") == event]

    def metrics(self) -> str:
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def files(self) -> list[Path]:
        """Of its volume."""
        return [path for path in self.volume.rglob("*") if path.is_file()]


def _as_the_service_account(cluster: Cluster, folder: Path) -> Path:
    """A kubeconfig: what the controller may do is what `flux/rbac.yaml` gives it, and no more."""
    cluster.namespace(NAMESPACE)
    kubectl = Kubectl(need("kubectl"), cluster.kubeconfig, NAMESPACE)
    done = kubectl.run("apply", "--server-side", "--force-conflicts", f"--filename={MANIFESTS / 'rbac.yaml'}")
    assert done.returncode == 0, done.stderr
    token = kubectl.run("create", "token", "secretweave", "--duration=2h")
    assert token.returncode == 0, token.stderr
    path = folder / "kubeconfig"
    path.write_text(f"""\
apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: "{cluster.address}", certificate-authority: {cluster.ca}}}}}]
users: [{{name: secretweave, user: {{token: {token.stdout.strip()}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: secretweave}}}}]
current-context: test
""")
    path.chmod(0o600)
    return path


@contextmanager
def weaver(folder: Path, cluster: Cluster, stores: str) -> Iterator[Weaver]:
    found = Weaver(folder, cluster, stores)
    found.start()
    try:
        yield found
    finally:
        if found.lives():
            found.kill()


def secretweave(
    cluster: Cluster,
    namespace: str,
    name: str,
    *,
    source: tuple[str, str] = ("GitRepository", "shop"),
    refresh: str = "1s",
    **spec: Any,
) -> Object:
    wanted = {"sourceRef": {"kind": source[0], "name": source[1]}, "interval": "10m", "refreshInterval": refresh}
    return cluster.apply("SecretWeave", namespace, name, spec=wanted | spec)


class Fetched(NamedTuple):
    """An archive as whoever an ExternalArtifact is for gets it."""

    digest: str
    files: dict[str, bytes]


def fetched(artifact: Mapping[str, Any]) -> Fetched:
    """*artifact*: of the status. Raises AssertionError: it is not what the status says."""
    with urllib.request.urlopen(artifact["url"], timeout=10) as answer:
        data = answer.read()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert digest == artifact["digest"]
    assert len(data) == artifact["size"]
    assert artifact["revision"].endswith(f"@{digest}")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(each.name, tar.extractfile(each)) for each in tar if each.isfile()]
        return Fetched(digest, {name: file.read() for name, file in members if file is not None})


class Git:
    """Repositories that are served by Git's own program over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""

    def commit(self, name: str, files: Mapping[str, str | bytes]) -> str:
        """Makes them all there is in the branch `main` of a repository. Gives the commit."""
        bare, tree = self.folder / f"{name}.git", self.folder / name
        if not bare.exists():
            self._git(self.folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
            self._git(self.folder, "clone", "--quiet", str(bare), str(tree))
        for path in tree.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for file, content in files.items():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_bytes(content.encode() if isinstance(content, str) else content)
        self._git(tree, "add", "--all")
        self._git(tree, "commit", "--quiet", "--message=test")
        self._git(tree, "push", "--quiet", "origin", "HEAD:main")
        return self._git(tree, "rev-parse", "HEAD").strip()

    def _git(self, where: Path, *arguments: str) -> str:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1"}
        for who in ("AUTHOR", "COMMITTER"):
            environ |= {f"GIT_{who}_NAME": "test", f"GIT_{who}_EMAIL": "test@example.invalid"}
        done = subprocess.run(["git", *arguments], cwd=where, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, bytes]:
        """(status, header lines, body): by CGI. https://git-scm.com/docs/git-http-backend"""
        path, _, query = path.partition("?")
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        status = re.match(rb"Status: (\d+)", head)
        return int(status[1]) if status else 200, head, content


@contextmanager
def git(folder: Path) -> Iterator[Git]:
    found = Git(folder)

    class Handler(_Quiet):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("Transfer-Encoding"):
                body = b"".join(_chunks(self.rfile))
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, head, content = found.answer(self.command, self.path, headers, body)
            self.send_response(status)
            for line in head.decode().split("\r\n"):
                name, _, value = line.partition(": ")
                if value and name != "Status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - the library's names

    with _serving(Handler) as found.url:
        yield found


def _chunks(file: BufferedIOBase) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        yield file.read(size)
        file.readline()
    file.readline()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """`HOST:PORT` of Debian's docker-registry, over plain HTTP; *folder* takes what it keeps."""
    program = shutil.which("docker-registry")
    if program is None:
        absent("docker-registry is not installed: apt-get install docker-registry")
    (port,) = free_ports(1)
    (folder / "registry.yaml").write_text(f"""\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder / "registry"}}}}}
http: {{addr: "127.0.0.1:{port}"}}
""")
    process = start([program, "serve", str(folder / "registry.yaml")], folder / "registry.log")
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2):
                break
            assert time.monotonic() < deadline, (folder / "registry.log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        stop(process)
