"""Reads the credential Secrets that SecretStores name (`tokenSecretRef: {name, key}`), from where the platform says:

| source | the key KEY of the Secret NAME of the namespace NAMESPACE is |
|---|---|
| `cluster` | that Secret of the cluster, read with one request however many of its keys are asked for |
| `folder` | the file `NAMESPACE/NAME/KEY` in the folder, else `NAME/KEY`: a mounted Secret is such a folder of files |
| `environment` | the variable `SECRETWEAVE_CREDENTIAL_NAME_KEY`, in upper case, `_` for all but letters and digits |

`NAME/KEY` is not looked for where the folder has a `NAMESPACE/NAME`. A variable belongs to every namespace, and two
references that become the same one (`a-b` with `c`, `a` with `b.c`) share its value: name one of the Secrets otherwise.

Line ends at the end of a credential are dropped in all three: they are an editor's or an `echo`'s, and no token, key or
password ends with one.

Who reads from the cluster needs `get` on these very Secrets (`resourceNames`), and no `list`.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from secretweave.errors import Denied, NotFound, StoreError, Where
from secretweave.stores.base import Limits, SecretKeyRef

if TYPE_CHECKING:
    from secretweave.sdk.cluster import Cluster

Read = Callable[[str, str], bytes]
"""(name of the Secret, key) -> its bytes"""

VARIABLE = "SECRETWEAVE_CREDENTIAL_"
SIZE_MAX = 1 << 20
"""Of a file: a Secret is no larger."""


def reader(
    source: str,
    namespace: str,
    *,
    folder: str | None,
    kubeconfig: str | None,
    kube_context: str | None,
    environ: Mapping[str, str],
    limits: Limits,
    warn: Callable[[str], None],
) -> Callable[[SecretKeyRef], str]:
    """What gives the text of a credential; several threads may ask it. It raises StoreError, never NotFound.

    *source*: `cluster`, `folder` or `environment`; *namespace*: the SecretStore's, or the operator's.
    """
    if source == "cluster":

        def connect() -> "Cluster":
            from secretweave.sdk import cluster

            return cluster.connect(environ, limits, warn, kubeconfig=kubeconfig, context=kube_context)

        read: Read = _FromCluster(connect, namespace)
    elif source == "folder":
        if not folder:
            raise StoreError("no folder of credentials is set", fix="set the folder, or read them from elsewhere")
        read = _FromFolder(folder, namespace)
    else:
        read = _FromEnvironment(environ)

    def credential(ref: SecretKeyRef) -> str:
        from secretweave.sdk.cluster import KEY, NAME, NAMESPACE

        for pattern, text, what in (
            (NAMESPACE, namespace, "namespace of the SecretStore"),
            (NAME, ref.name, "name of the credential Secret"),
            (KEY, ref.key, "key of the credential Secret"),
        ):
            if not pattern.fullmatch(text):
                raise StoreError(f"the {what} is not one that Kubernetes allows", fix="correct it in the SecretStore")
        try:
            text = read(ref.name, ref.key).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise StoreError(f"{_named(ref)} is not text", fix="store it as UTF-8") from None
        if not text:
            raise StoreError(f"{_named(ref)} is empty", fix="store the credential there")
        return text

    return credential


def _named(ref: SecretKeyRef) -> str:
    return f"the key `{ref.key}` of the credential Secret `{ref.name}`"


def _no_key(name: str, key: str) -> StoreError:
    return StoreError(f"the credential Secret `{name}` has no key `{key}`", fix="add it, or correct the SecretStore")


class _FromCluster:
    """Reads each Secret once, and connects at the first."""

    def __init__(self, connect: Callable[[], "Cluster"], namespace: str) -> None:
        from threading import Lock

        self._connect = connect
        self._namespace = namespace
        self._cluster: Cluster | None = None
        self._lock = Lock()
        self._known: dict[str, Mapping[str, bytes] | StoreError] = {}

    def __call__(self, name: str, key: str) -> bytes:
        # They are few, and what asks for them cannot go on without: one at a time.
        with self._lock:
            if name not in self._known:
                self._known[name] = self._secret(name)
            known = self._known[name]
        if isinstance(known, StoreError):
            raise type(known)(known.what, why=known.why, fix=known.fix)
        if key not in known:
            raise _no_key(name, key)
        return known[key]

    def _secret(self, name: str) -> Mapping[str, bytes] | StoreError:
        try:
            if self._cluster is None:
                self._cluster = self._connect()
            return self._cluster.get("Secret", self._namespace, name).data
        except NotFound:
            # A plain StoreError: a `default` stands for a missing secret, not for a store without its credentials.
            return StoreError(
                f"the namespace `{self._namespace}` has no credential Secret `{name}`",
                fix="create it, or correct the SecretStore",
            )
        except StoreError as error:
            return type(error)(f"the credential Secret `{name}`: {error.what}", why=error.why, fix=error.fix)


class _FromFolder:
    def __init__(self, folder: str, namespace: str) -> None:
        self._folder = folder
        self._namespace = namespace

    def __call__(self, name: str, key: str) -> bytes:
        own = os.path.join(self._folder, self._namespace, name)
        secret = own if os.path.isdir(own) else os.path.join(self._folder, name)
        path = os.path.join(secret, key)
        try:
            # O_NONBLOCK: a pipe under this name must not hang the run before it is seen to be one.
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(secret):
                raise _no_key(name, key) from None
            raise StoreError(
                f"no credential Secret `{name}` is in the folder of credentials",
                why=f"neither {self._namespace}/{name} nor {name} is there",
                fix="mount it there, or correct the SecretStore",
            ) from None
        except OSError as error:
            raise Denied(
                "the file of a credential cannot be opened",
                where=Where(path),
                why=error.strerror or "",
                fix="correct its mode or its owner",
            ) from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError("the credential is not a regular file", where=Where(path), fix="mount the Secret")
            if status.st_mode & 0o022:
                raise Denied("others than its owner may write the file", where=Where(path), fix="chmod go-w the file")
            with open(handle, "rb", closefd=False) as file:
                data = file.read(SIZE_MAX + 1)
        finally:
            os.close(handle)
        if len(data) > SIZE_MAX:
            raise StoreError(f"the file is larger than {SIZE_MAX} bytes", where=Where(path), fix="correct the file")
        return data


class _FromEnvironment:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __call__(self, name: str, key: str) -> bytes:
        variable = VARIABLE + re.sub(r"[^A-Z0-9]", "_", f"{name}_{key}".upper())
        if variable not in self._environ:
            raise StoreError(
                f"the credential Secret `{name}` has no key `{key}` in the environment",
                why=f"{variable} is not set",
                fix="set it, or read credentials from elsewhere",
            )
        return os.fsencode(self._environ[variable])
