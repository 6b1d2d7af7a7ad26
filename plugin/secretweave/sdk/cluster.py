"""Reads single objects from the Kubernetes API, for the store of that name and for credential Secrets.

`Cluster.send` is the same connection for whom one kind of request is too few: flux/cluster.py.

Of the package `kubernetes` it takes what finds and authenticates a cluster: the configuration, the loaders of a
ServiceAccount and of kubeconfigs, and the pool of connections. It leaves out `ApiClient` and its models: to import them
takes 170 ms and 50 MB more, and one GET needs none of them.

Where the cluster is, the first that fits:

1. a kubeconfig or a context that is set
2. `KUBECONFIG` of the environment, several files joined by `:` too
3. in a Pod, the mounted ServiceAccount
4. `~/.kube/config`
"""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from secretweave import __version__
from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.sdk import importing, load, network
from secretweave.stores.base import Limits

CONCURRENCY = 16
EXTRA = "kubernetes"
BARE = ("kubernetes", "kubernetes.client", "kubernetes.config")
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
KEY = re.compile(r"(?!\.\.)(?!\.\Z)[-._a-zA-Z0-9]{1,253}")
"""Of the data of a Secret or a ConfigMap."""
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""As what an object is given without its data, by the same right: https://kubernetes.io/docs/reference/using-api/
api-concepts/#metadata-only-fetches"""
PASSING = frozenset({429, 500, 502, 503, 504})
MORE_TIME = "look after the stores, or raise limits.deadline in the configuration"
Kind = Literal["Secret", "ConfigMap"]


class Object(NamedTuple):
    version: str
    """Its resourceVersion."""
    data: Mapping[str, bytes]


class Cluster:
    """A connection to one API server; several threads may ask at once."""

    def __init__(self, configuration: Any, identity: str, limits: Limits, release: Callable[[], None]) -> None:
        """*identity*: who asks, in words; *release* gives back what *configuration* holds."""
        import urllib3

        self._configuration = configuration
        self.identity = identity
        self._limits = limits
        self._release = release
        self._closed = False
        url = urllib3.util.parse_url(configuration.host)
        self._server = f"{url.host}:{url.port}" if url.port else f"{url.host}"
        self._secure = url.scheme == "https"
        self._pool = _module("kubernetes.client.rest").RESTClientObject(configuration).pool_manager
        if self._secure and configuration.verify_ssl:
            self._pool.connection_pool_kw["ssl_context"] = _tls(configuration)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object, by one GET. Raises NotFound, Denied, Unavailable or another StoreError."""
        status, body = self._object(kind, namespace, name)
        if status == 403:
            resource = f"{kind.lower()}s"
            raise Denied(
                f"the API server denies reading {kind}s in the namespace `{namespace}`",
                why=f"no rule of RBAC lets {self.identity} get them",
                fix=f"give it a Role there with `verbs: [get]` on `{resource}`, and their names in `resourceNames`",
            )
        document = _document(body) if status in {200, 404} else {}
        if status == 404 and (document.get("kind"), document.get("reason")) == ("Status", "NotFound"):
            raise NotFound(
                f"the namespace `{namespace}` has no {kind} `{name}`",
                fix="correct the reference, or the namespace of the SecretStore",
            )
        if status != 200 or document.get("kind") != kind:
            raise self._not_the_api(f"a {kind}", status)
        try:
            return _object(document)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise StoreError(f"the API server gave no readable {kind}", fix="look at it with kubectl") from None

    def version(self, kind: Kind, namespace: str, name: str) -> str | None:
        """The version of what `get` would give, by one GET that brings no data; None: only `get` can tell.

        Raises StoreError only for what ends all asking.
        """
        status, body = self._object(kind, namespace, name, {"Accept": METADATA})
        document = _document(body) if status == 200 else {}
        if (document.get("apiVersion"), document.get("kind")) != ("meta.k8s.io/v1", "PartialObjectMetadata"):
            return None
        metadata = document.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        return version if isinstance(version, str) and version else None

    def probe(self) -> None:
        """Raises StoreError: no answer, or the API server does not know who asks.

        What it serves it tells to all whom it knows: the ClusterRole system:discovery.
        https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
        """
        status, body = self._ask(f"{self._configuration.host}/api/v1")
        if status in {401, 403}:
            raise self._unknown()
        if status != 200 or _document(body).get("kind") != "APIResourceList":
            raise self._not_the_api("a list of resources", status)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float,
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object of the answer to any request, all attempts within *seconds*; {}: it is none.

        A POST that broke off is sent again like the rest: its caller must take "already there" for an answer.
        Raises Unavailable, or Denied where the API server does not know who asks.
        """
        if self._closed:
            raise StoreError("the connection is closed", fix="report it: this is a defect")
        deadline = time.monotonic() + seconds
        status, data = self._ask(f"{self._configuration.host}{path}", method, body, headers or {}, deadline)
        if status == 401:
            raise self._unknown()
        return status, _document(data)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.clear()
            self._release()

    def _object(
        self, kind: Kind, namespace: str, name: str, more: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, bytes]:
        """The status and the body of the answer to a GET of one object, with these headers more."""
        if self._closed:
            raise StoreError("the store is closed", fix="report it: this is a defect")
        if not NAMESPACE.fullmatch(namespace):
            raise StoreError("the namespace is no name of a namespace", fix="correct the namespace")
        if not NAME.fullmatch(name):
            raise StoreError(
                f"the reference names no {kind}",
                why=f"the name of a {kind} is made of a-z, 0-9, `-` and `.`",
                fix="correct the reference",
            )
        url = f"{self._configuration.host}/api/v1/namespaces/{namespace}/{kind.lower()}s/{name}"
        status, body = self._ask(url, more=more)
        if status == 401:
            raise self._unknown()
        return status, body

    def _unknown(self) -> Denied:
        return Denied(
            "the API server does not accept the credentials",
            why=f"those of {self.identity} are wrong or have expired",
            fix="renew them",
        )

    def _not_the_api(self, wanted: str, status: int) -> Unavailable:
        return Unavailable(
            "what answers is not the Kubernetes API",
            why=f"{self._server} gave something else than {wanted} (status {status})",
            fix="correct the address of the API server",
        )

    def _ask(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        more: Mapping[str, str] = MappingProxyType({}),
        deadline: float = math.inf,
    ) -> tuple[int, bytes]:
        """The status and the body, after what can pass has been given time to.

        *more*: headers; *deadline*: of this call, beside that of all.
        """
        import urllib3

        limits, attempt = self._limits, 0
        while True:
            attempt += 1
            ends = min(limits.deadline, deadline)
            left = ends - time.monotonic()
            if left <= 0:
                raise Unavailable("the API server was not asked", why="the time of the run is over", fix=MORE_TIME)
            seconds = min(limits.attempt_seconds, left)
            headers, pause, can_pass = self._headers(), 0.0, True
            try:
                response = self._pool.request(
                    method,
                    url,
                    body=body,
                    headers={**headers, **more},
                    timeout=urllib3.Timeout(connect=seconds, read=seconds),
                    # One attempt, and no redirect: it would carry the token to where it leads.
                    retries=False,
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                fault, can_pass = self._unreachable(error)
            else:
                if response.status not in PASSING:
                    return response.status, response.data
                fault = self._unavailable(f"it answers with status {response.status}")
                pause = network.retry_after(response.headers)
            pause = max(pause, network.pause(limits, attempt))
            if not can_pass or attempt >= limits.attempts or time.monotonic() + pause >= ends:
                raise fault from None
            time.sleep(pause)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"secretweave/{__version__}"}
        # As kubectl does: what is sent without TLS is no secret any more.
        if not self._secure:
            return headers
        try:
            # Reads the token of a ServiceAccount again when it has aged.
            known = self._configuration.auth_settings().values()
        except (OSError, ValueError, _config_exception()):
            raise Unavailable(
                f"the token of {self.identity} cannot be read", fix="correct its file, or the volume that holds it"
            ) from None
        for each in known:
            value = each["value"].strip()
            if not (value.isascii() and value.isprintable()):
                raise Denied(f"the token of {self.identity} is no token", fix="write the token alone, on one line")
            headers[each["key"]] = value
        return headers

    def _unreachable(self, error: Exception) -> tuple[StoreError, bool]:
        """What a failed attempt says, and whether another one may succeed."""
        import ssl

        from urllib3 import exceptions

        cause = error.args[0] if error.args else None
        if isinstance(error, exceptions.SSLError) and isinstance(cause, ssl.SSLCertVerificationError):
            fix = f"correct the CA for {self._server}, or the address to one that its certificate names"
            return Unavailable("the API server is not trusted", why="its certificate fails the check", fix=fix), False
        for cls, why in (
            (exceptions.SSLError, "TLS failed: it speaks none, or a certificate file for it is none"),
            (exceptions.ProxyError, "the proxy does not let it through"),
            (exceptions.NewConnectionError, "no connection: it refuses, or its name is unknown"),
            (exceptions.TimeoutError, f"no answer within {self._limits.attempt_seconds:g} s"),
        ):
            if isinstance(error, cls):
                return self._unavailable(why), True
        return self._unavailable("the connection broke"), True

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            "the API server does not answer",
            why=why,
            fix=f"see whether {self._server} is its address, and that it runs",
        )


def connect(
    environ: Mapping[str, str],
    limits: Limits,
    warn: Callable[[str], None],
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    service_account: str = SERVICE_ACCOUNT,
) -> Cluster:
    """The cluster that is meant. Raises StoreError: none is, or its kubeconfig cannot be used. It sends no request."""
    from secretweave.sdk import kubeconfig as files

    configuration = _module("kubernetes.client.configuration").Configuration()
    paths = kubeconfig or environ.get("KUBECONFIG")
    in_pod = environ.get("KUBERNETES_SERVICE_HOST") and os.path.exists(f"{service_account}/token")
    if not paths and not context and in_pod:
        _use_service_account(configuration, service_account, environ)
        return _connected(configuration, "the ServiceAccount of this Pod", environ, limits, warn, None, lambda: None)
    paths = paths or os.path.join(environ.get("HOME") or "/", ".kube", "config")
    opened = files.use(_module("kubernetes.config.kube_config"), configuration, paths, context, environ, limits)
    identity = f"the context `{opened.context}` of the kubeconfig"
    try:
        return _connected(configuration, identity, environ, limits, warn, opened.proxy, opened.close)
    except BaseException:
        opened.close()
        raise


def preload() -> None:
    """Imports what every connection needs."""
    _module("kubernetes.client.rest")
    _module("kubernetes.client.configuration")


def _module(name: str) -> Any:
    """A module of the package `kubernetes`, loaded without the models where that works."""
    with importing:
        try:
            client = load("kubernetes.client", EXTRA, bare=BARE)
            if not hasattr(client, "Configuration"):
                # The loaders import both from here. ApiClient serves `auth-provider` alone, which we refuse.
                client.Configuration = load("kubernetes.client.configuration", EXTRA, bare=BARE).Configuration
                client.ApiClient = None
            return load(name, EXTRA, bare=BARE)
        except (StoreError, AttributeError):
            # Another version may need more of it; where it is not installed at all, this says so again.
            for each in [each for each in sys.modules if each.partition(".")[0] == "kubernetes"]:
                del sys.modules[each]
            return load(name, EXTRA)


def _config_exception() -> type[Exception]:
    found: type[Exception] = _module("kubernetes.config.config_exception").ConfigException
    return found


def _use_service_account(configuration: Any, folder: str, environ: Mapping[str, str]) -> None:
    loader = _module("kubernetes.config.incluster_config")
    try:
        loader.InClusterConfigLoader(f"{folder}/token", f"{folder}/ca.crt", environ=environ).load_and_set(configuration)
    except (OSError, ValueError, loader.ConfigException):
        raise StoreError(
            "the ServiceAccount of this Pod cannot be used",
            why=f"its token or its ca.crt in {folder} is missing, empty or unreadable",
            fix="mount the ServiceAccount's token into the Pod, or set a kubeconfig",
        ) from None


def _connected(
    configuration: Any,
    identity: str,
    environ: Mapping[str, str],
    limits: Limits,
    warn: Callable[[str], None],
    proxy: str | None,
    release: Callable[[], None],
) -> Cluster:
    import urllib3

    fix = f"correct the address of {identity}"
    try:
        url = urllib3.util.parse_url(configuration.host)
    except ValueError:
        url = urllib3.util.Url()
    if url.scheme not in {"http", "https"} or not url.host:
        raise StoreError("the API server has no usable address", fix=fix)
    configuration.connection_pool_maxsize = CONCURRENCY
    _use_proxy(configuration, url, proxy, environ)
    if url.scheme == "http":
        configuration.tls_server_name = None
        warn(f"{identity}: the API server is asked without TLS, and no credentials are sent to it")
    elif not configuration.verify_ssl:
        warn(f"{identity}: the API server's certificate is not checked (insecure-skip-tls-verify)")
    try:
        return Cluster(configuration, identity, limits, release)
    except ValueError:
        raise StoreError("the proxy to the API server has no usable address", fix=fix) from None


def _use_proxy(configuration: Any, server: Any, proxy: str | None, environ: Mapping[str, str]) -> None:
    """Takes the kubeconfig's proxy, else the environment's, which is never asked for this machine (as in kubectl)."""
    import urllib3

    def variable(name: str) -> str:
        # Both spellings are in use.
        return environ.get(name.upper()) or environ.get(name) or ""

    is_local = server.host == "localhost" or server.host.startswith("127.") or server.host == "[::1]"
    configuration.no_proxy = "" if proxy else variable("no_proxy")
    configuration.proxy = proxy or (not is_local and variable(f"{server.scheme}_proxy")) or None
    if configuration.proxy:
        if "://" not in configuration.proxy:
            configuration.proxy = f"http://{configuration.proxy}"
        try:
            login = urllib3.util.parse_url(configuration.proxy).auth
        except ValueError:
            # Its address is judged where it is used.
            login = None
        if login:
            configuration.proxy_headers = urllib3.util.make_headers(proxy_basic_auth=login)


def _tls(configuration: Any) -> Any:
    """As urllib3 makes it, without what Python 3.13 demands beside trust: EKS' authority names no key identifiers.

    https://github.com/kubernetes-client/python/issues/2394
    """
    import ssl

    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.ssl_ca_cert:
        context.load_default_certs()
    return context


def _document(body: bytes) -> dict[str, Any]:
    import json

    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _object(document: dict[str, Any]) -> Object:
    import binascii

    encoded = document.get("data" if document["kind"] == "Secret" else "binaryData") or {}
    data = {key: binascii.a2b_base64(value, strict_mode=True) for key, value in encoded.items()}
    if document["kind"] == "ConfigMap":
        data |= {key: value.encode() for key, value in (document.get("data") or {}).items()}
    return Object(str(document["metadata"]["resourceVersion"]), data)
