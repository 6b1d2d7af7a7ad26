"""Argo CD's config-management-plugin server, and a caller that does what the repo-server does.

The messages are those of https://github.com/argoproj/argo-cd/blob/v3.2.12/cmpserver/plugin/plugin.proto, the variables
those that reposerver/repository/repository.go there makes (newEnv, getPluginEnvs, populatePluginAppDetails).
"""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from tests.hosts.programs import need

SERVICE = "plugin.ConfigManagementPluginService"
MESSAGES = {
    "Empty": (),
    "EnvEntry": ("string name = 1", "string value = 2"),
    "Metadata": (
        "string app_name = 1",
        "string app_rel_path = 2",
        "string checksum = 3",
        "int64 size = 4",
        "repeated EnvEntry env = 5",
    ),
    "File": ("bytes chunk = 1",),
    "AppStreamRequest": ("Metadata metadata = 1", "File file = 2"),
    "ManifestResponse": ("repeated string manifests = 1",),
    "RepositoryResponse": ("bool is_supported = 1", "bool is_discovery_enabled = 2"),
    "CheckPluginConfigurationResponse": ("bool is_discovery_configured = 1", "bool provide_git_creds = 2"),
    "MapEntry": ("string key = 1", "string value = 2"),
    "ParameterAnnouncement": (
        "string name = 1",
        "string title = 2",
        "string tooltip = 3",
        "bool required = 4",
        "string item_type = 5",
        "string collection_type = 6",
        "string string = 7",
        "repeated string array = 8",
        "repeated MapEntry map = 9",
    ),
    "ParametersAnnouncementResponse": ("repeated ParameterAnnouncement announcements = 1",),
}
"""Wire types and numbers as in plugin.proto; only those are seen by the server, so the names are free."""
CHUNK = 1024
"""Argo CD's default, ARGOCD_CMP_CHUNK_SIZE."""
MESSAGE_MAX = 100 << 20
"""Argo CD's default, ARGOCD_GRPC_MAX_SIZE_MB."""
SECONDS_MAX = 120
START_SECONDS_MAX = 30

Parameter = Mapping[str, Any]
"""As in an Application: `name`, and one or more of `string`, `array`, `map`."""
Repository = Mapping[str, "str | bytes | Link"]
"""What a repository holds, by path; a path that ends in a slash is a folder."""


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Refused(Exception):
    """What the server answers a call with that fails: the text that Argo CD shows beside the Application."""


class Matched(NamedTuple):
    supported: bool
    discovery: bool


class Checked(NamedTuple):
    discovery: bool
    git_credentials: bool


def environment(
    app: str = "shop",
    *,
    project: str = "default",
    namespace: str = "shop",
    path: str = ".",
    kube_version: str = "1.34.0",
    api_versions: Sequence[str] = ("v1", "apps/v1"),
    parameters: Sequence[Parameter] | None = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables of a GenerateManifest or a MatchRepository; *parameters* None: the Application has no `plugin`."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    return {
        "ARGOCD_APP_NAME": app,
        "ARGOCD_APP_NAMESPACE": namespace,
        "ARGOCD_APP_PROJECT_NAME": project,
        "ARGOCD_APP_REVISION": revision,
        "ARGOCD_APP_REVISION_SHORT": revision[:7],
        "ARGOCD_APP_REVISION_SHORT_8": revision[:8],
        "ARGOCD_APP_SOURCE_REPO_URL": "https://git.example.com/shop.git",
        "ARGOCD_APP_SOURCE_PATH": path,
        "ARGOCD_APP_SOURCE_TARGET_REVISION": "main",
        "KUBE_VERSION": kube_version,
        "KUBE_API_VERSIONS": ",".join(api_versions),
        **_of_plugin(parameters, env),
    }


def environment_of_details(
    app: str = "shop", *, path: str = ".", parameters: Sequence[Parameter] | None = ()
) -> dict[str, str]:
    """The variables of a GetParametersAnnouncement: neither a project, nor a namespace, nor a cluster is known then.

    *app* is empty while a person makes a new Application in the UI.
    """
    return {
        "ARGOCD_APP_NAME": app,
        "ARGOCD_APP_SOURCE_REPO_URL": "https://git.example.com/shop.git",
        "ARGOCD_APP_SOURCE_PATH": path,
        "ARGOCD_APP_SOURCE_TARGET_REVISION": "main",
        **_of_plugin(parameters, None),
    }


def _of_plugin(parameters: Sequence[Parameter] | None, env: Mapping[str, str] | None) -> dict[str, str]:
    if parameters is None:
        return {}
    found = {f"ARGOCD_ENV_{name}": value for name, value in (env or {}).items()}
    found["ARGOCD_APP_PARAMETERS"] = json.dumps(list(parameters), separators=(",", ":")) if parameters else "null"
    for parameter in parameters:
        name = f"PARAM_{_escaped(parameter['name'])}"
        if "string" in parameter:
            found[name] = parameter["string"]
        found |= {f"{name}_{_escaped(key)}": value for key, value in parameter.get("map", {}).items()}
        found |= {f"{name}_{index}": value for index, value in enumerate(parameter.get("array", ()))}
    return found


def _escaped(name: str) -> str:
    return re.sub("[^A-Z0-9_]", "_", name.upper())


def archive(repository: Repository) -> bytes:
    """The tgz that the repo-server makes of it."""
    packed = io.BytesIO()
    folders = {str(folder) for path in repository for folder in Path(os.path.dirname(path), "entry").parents} - {"."}
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in sorted(folders):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for path, content in repository.items():
            if isinstance(content, Link):
                entry = _entry(path, tarfile.SYMTYPE, 0o777)
                entry.linkname = content.target
                tar.addfile(entry)
            elif not path.endswith("/"):
                data = content.encode() if isinstance(content, str) else content
                entry = _entry(path, tarfile.REGTYPE, 0o644)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 1)


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = kind, mode
    return entry


def _classes() -> dict[str, Any]:
    """The messages' classes, without code that protoc would have to make."""
    file = descriptor_pb2.FileDescriptorProto(name="secretweave/tests/plugin.proto", package="plugin", syntax="proto3")
    field_types = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for declared in fields:
            *repeated, kind, field, _, number = declared.split()
            added = message.field.add(name=field, number=int(number))
            added.label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            if kind in MESSAGES:
                added.type, added.type_name = field_types.TYPE_MESSAGE, f".plugin.{kind}"
            else:
                added.type = getattr(field_types, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"plugin.{name}")) for name in MESSAGES}


class Caller:
    """What the repo-server asks of a plugin. Every call raises Refused."""

    def __init__(self, socket: Path) -> None:
        self._message = _classes()
        # grpcio would send the socket's path as the authority, which Go's server refuses.
        options = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", MESSAGE_MAX)]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def check(self) -> Checked:
        found = self._ask("CheckPluginConfiguration", "CheckPluginConfigurationResponse", None)
        return Checked(found.is_discovery_configured, found.provide_git_creds)

    def match(self, repository: Repository, environ: Mapping[str, str], path: str = ".") -> Matched:
        found = self._ask("MatchRepository", "RepositoryResponse", self._stream(repository, environ, path))
        return Matched(found.is_supported, found.is_discovery_enabled)

    def parameters(self, repository: Repository, environ: Mapping[str, str], path: str = ".") -> list[dict[str, Any]]:
        """The parameters that Argo CD's UI offers, with what is set of each."""
        found = self._ask(
            "GetParametersAnnouncement", "ParametersAnnouncementResponse", self._stream(repository, environ, path)
        )
        return [
            {
                field.name: {each.key: each.value for each in value}
                if field.name == "map"
                else list(value)
                if field.name == "array"
                else value
                for field, value in each.ListFields()
            }
            for each in found.announcements
        ]

    def generate(
        self, repository: Repository, environ: Mapping[str, str], path: str = ".", *, seconds: float = SECONDS_MAX
    ) -> list[str]:
        """The manifests: each as the JSON or YAML text that the server makes of a document."""
        stream = self._stream(repository, environ, path)
        return list(self._ask("GenerateManifest", "ManifestResponse", stream, seconds).manifests)

    def _stream(self, repository: Repository, environ: Mapping[str, str], path: str) -> Iterator[Any]:
        data, request = archive(repository), self._message["AppStreamRequest"]
        metadata = self._message["Metadata"](
            app_name=Path(path).name or "repository",
            app_rel_path=path,
            checksum=hashlib.sha256(data).hexdigest(),
            size=len(data),
            env=[self._message["EnvEntry"](name=name, value=value) for name, value in environ.items()],
        )
        yield request(metadata=metadata)
        for start in range(0, len(data), CHUNK):
            yield request(file=self._message["File"](chunk=data[start : start + CHUNK]))

    def _ask(self, method: str, answer: str, stream: Iterator[Any] | None, seconds: float = SECONDS_MAX) -> Any:
        call = self._channel.unary_unary if stream is None else self._channel.stream_unary
        bound = call(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._message[answer].FromString,
        )
        try:
            return bound(self._message["Empty"]() if stream is None else stream, timeout=seconds)
        except grpc.RpcError as error:
            raise Refused(error.details()) from None


class CmpServer(NamedTuple):
    """A server that runs, in a folder of its own."""

    socket: Path
    folder: Path
    pid: int
    log: Path
    """Everything that it wrote so far."""

    def caller(self) -> Caller:
        return Caller(self.socket)


@contextmanager
def cmp_server(folder: Path, plugin: str, **environ: str) -> Iterator[CmpServer]:
    """Starts the server with the text of a plugin.yaml, and ends it; *environ*: what its container sets."""
    program = need("argocd-cmp-server")
    for name in ("config", "plugins", "work", "home"):
        (folder / name).mkdir(parents=True)
    (folder / "config" / "plugin.yaml").write_text(plugin)
    log = folder / "log"
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "ARGOCD_PLUGINSOCKFILEPATH": str(folder / "plugins"),
        "ARGOCD_CMP_WORKDIR": str(folder / "work"),
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [program, "--config-dir-path", folder / "config"],
            env=settings | environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        yield CmpServer(_socket(folder, process), folder, process.pid, log)
    finally:
        # At SIGTERM it removes its socket, and stays.
        process.kill()
        process.wait()


def _socket(folder: Path, process: subprocess.Popen[bytes]) -> Path:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        found = list((folder / "plugins").glob("*.sock"))
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError((folder / "log").read_text())
