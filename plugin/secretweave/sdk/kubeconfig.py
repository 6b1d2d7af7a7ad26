"""Finds the server and the credentials of a kubeconfig's context, for `cluster`.

The package's own loader does most of it. Here is done before it what it leaves out or would do to our harm:

- Keys and certificates that stand in the file itself it writes to the disk, where they stay if the process is killed:
  they go into memory that has a path.
- A credential plugin (`exec`) gets from it our stdin, which holds the manifests, and no time limit; if the plugin
  fails, it goes on without credentials.
- It does not know `proxy-url`, and does as if impersonation (`as`) were not asked for.
- `auth-provider`, which Kubernetes 1.26 gave up, it renews over connections that are not checked.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
"""

import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from secretweave.errors import StoreError
from secretweave.stores.base import Limits

EXEC_VERSIONS = frozenset({"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"})
EXEC_CLUSTER = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
"""What a plugin may be told of the cluster."""


class MemoryFiles:
    """Files that have a path in this process, and no place on a disk."""

    def __init__(self) -> None:
        self._handles: list[int] = []

    def add(self, data: bytes) -> str:
        handle = os.memfd_create("secretweave", os.MFD_CLOEXEC)
        self._handles.append(handle)
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        return f"/proc/self/fd/{handle}"

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.pop())


class Opened(NamedTuple):
    context: str
    proxy: str | None
    files: MemoryFiles

    def close(self) -> None:
        self.files.close()


def use(
    loader: Any, configuration: Any, paths: str, context: str | None, environ: Mapping[str, str], limits: Limits
) -> Opened:
    """Puts into *configuration* what the context, else the current one, says. *loader*: kubernetes.config.kube_config.

    *paths* may be several, joined by `:`. Raises StoreError.
    """
    files = MemoryFiles()
    try:
        merged = loader.KubeConfigMerger(paths).config
        chosen = _chosen(merged, paths, context)
        proxy = _prepare(merged, chosen, files, environ, limits)
        made = loader.KubeConfigLoader(config_dict=merged, active_context=chosen, config_base_path=None)
        made.load_and_set(configuration)
    except StoreError:
        files.close()
        raise
    except OSError as error:
        files.close()
        _unusable(f"a file of it cannot be read: {error.strerror}")
    except (loader.ConfigException, loader.yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        # Their texts hold whole sections of the file, tokens and all.
        files.close()
        _unusable("it is no kubeconfig, or a file that it names is missing")
    return Opened(chosen, proxy, files)


def _unusable(why: str) -> NoReturn:
    raise StoreError("the kubeconfig cannot be used", why=why, fix="see what `kubectl` says to it") from None


def _chosen(merged: Any, paths: str, context: str | None) -> str:
    if merged is None:
        raise StoreError(
            "no Kubernetes cluster is configured",
            why=f"{paths} is not there",
            fix="set `kubeconfig`, or KUBECONFIG in the environment; in a Pod, mount its ServiceAccount's token",
        )
    chosen: str | None = context or merged.value.get("current-context")
    if not chosen:
        raise StoreError("the kubeconfig has no current context", fix="set `context`")
    return chosen


def _prepare(merged: Any, chosen: str, files: MemoryFiles, environ: Mapping[str, str], limits: Limits) -> str | None:
    """Writes into the *merged* kubeconfig what the loader shall find of the *chosen* context. Gives the proxy."""
    named = _named(merged, "context", chosen).value["context"]
    node = _named(merged, "cluster", named["cluster"])
    cluster = node.value["cluster"]
    if cluster.get("insecure-skip-tls-verify") not in {None, True, False}:
        # The loader would take the text "false" for true.
        raise StoreError("`insecure-skip-tls-verify` of the kubeconfig is neither true nor false", fix="remove it")
    owner = _named(merged, "user", named["user"]) if named.get("user") else None
    user = dict(owner.value.get("user") or {}) if owner else {}
    if "auth-provider" in user:
        raise StoreError(
            "the kubeconfig uses `auth-provider`",
            why="Kubernetes 1.26 replaced it by credential plugins",
            fix="use a context whose user has `exec`, a token or a client certificate",
        )
    if any(user.get(key) for key in ("as", "as-uid", "as-groups", "as-user-extra")):
        raise StoreError("the kubeconfig impersonates another user", fix="use a context whose user has no `as`")
    if owner and user.get("exec") and not user.get("token") and not user.get("tokenFile"):
        told = _told(cluster, _folder(node)) if user["exec"].get("provideClusterInfo") else None
        user |= _credentials(_run(user["exec"], told, _folder(owner), environ, limits), files)
    for holder, key in ((cluster, "certificate-authority"), (user, "client-certificate"), (user, "client-key")):
        if data := holder.pop(f"{key}-data", None):
            holder[key] = files.add(_decoded(data))
    if owner:
        owner.value["user"] = user
    proxy: str | None = cluster.get("proxy-url") or None
    return proxy


def _folder(node: Any) -> str:
    """To which the paths are relative that a part of a kubeconfig names."""
    return os.path.dirname(os.path.abspath(str(node.path)))


def _named(merged: Any, kind: str, name: str) -> Any:
    for node in merged.value[f"{kind}s"]:
        if node.value["name"] == name:
            return node
    raise StoreError(f"the kubeconfig has no {kind} `{name}`", fix="correct `context`, or the kubeconfig")


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode("".join(text.split()), validate=True)


def _credentials(status: Mapping[str, Any], files: MemoryFiles) -> dict[str, str]:
    """A plugin's answer, as a kubeconfig says it of a user."""
    user = {}
    if status.get("token"):
        user["token"] = status["token"]
    if status.get("clientCertificateData") and status.get("clientKeyData"):
        user["client-certificate"] = files.add(status["clientCertificateData"].encode())
        user["client-key"] = files.add(status["clientKeyData"].encode())
    if not user:
        _plugin_failed("it gave neither a token nor a client certificate with its key")
    return user


def _run(
    settings: Mapping[str, Any],
    cluster: Mapping[str, Any] | None,
    folder: str,
    environ: Mapping[str, str],
    limits: Limits,
) -> Mapping[str, Any]:
    """What a credential plugin answers. It is a program that the platform's own file names."""
    import json
    import subprocess

    if settings["apiVersion"] not in EXEC_VERSIONS or settings.get("interactiveMode") == "Always":
        _plugin_failed("it speaks another version of the protocol, or asks a person")
    spec: dict[str, Any] = {"interactive": False} | ({"cluster": cluster} if cluster else {})
    info = {"apiVersion": settings["apiVersion"], "kind": "ExecCredential", "spec": spec}
    added = {each["name"]: each["value"] for each in settings.get("env") or ()}
    command = settings["command"]
    try:
        result = subprocess.run(  # noqa: S603 - to run it is what the kubeconfig asks for
            # A path is relative to the kubeconfig; a bare name is looked for on the PATH.
            [os.path.join(folder, command) if "/" in command else command, *(settings.get("args") or ())],
            env={**environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(0.0, limits.deadline - time.monotonic()),
            check=False,
        )
    except OSError as error:
        _plugin_failed(f"it cannot be started: {error.strerror}")
    except subprocess.TimeoutExpired:
        _plugin_failed("it did not end in time")
    if result.returncode:
        _plugin_failed(f"it ended with the code {result.returncode}")
    try:
        answer = json.loads(result.stdout)
        status: Mapping[str, Any] = answer["status"]
        is_credential = (answer["kind"], answer["apiVersion"]) == ("ExecCredential", settings["apiVersion"])
    except (ValueError, KeyError, TypeError):
        is_credential = False
    if not is_credential:
        _plugin_failed("it gave no ExecCredential of its version")
    return status


def _told(cluster: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The cluster, as a plugin is told of it."""
    import base64

    told = {key: cluster[key] for key in EXEC_CLUSTER if cluster.get(key)}
    if "certificate-authority-data" not in told and cluster.get("certificate-authority"):
        with open(os.path.join(folder, cluster["certificate-authority"]), "rb") as file:
            told["certificate-authority-data"] = base64.b64encode(file.read()).decode()
    for extension in cluster.get("extensions") or ():
        if extension["name"] == "client.authentication.k8s.io/exec":
            told["config"] = extension["extension"]
    return told


def _plugin_failed(why: str) -> NoReturn:
    raise StoreError(
        "the credential plugin of the kubeconfig failed",
        why=why,
        fix="run a `kubectl get` with this context as the same user",
    ) from None
