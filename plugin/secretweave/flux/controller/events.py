"""What changes in the cluster, by kopf: its watching, reconnecting and logging in, and nothing else of it.

The handlers are of the kind that only looks: no finalizer and no annotation comes onto anybody's object, and kopf posts
no events. What a handler does is to put a key into the queue. A kind that the cluster does not have is waited for.

https://docs.kopf.dev/en/stable/events/  https://docs.kopf.dev/en/stable/embedding/
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from secretweave.errors import ConfigError, Unavailable
from secretweave.flux.controller import resource
from secretweave.report import one_line

SILENCE_SECONDS = 90
"""The API server ends a watch after so long, and a connection that died unseen is noticed a little later."""

Kind = tuple[str, str, str]
"""Group, version, plural."""
Told = Callable[[str, Mapping[str, Any]], None]
"""(what happened: ADDED, MODIFIED, DELETED or empty for what is there already; the object)"""


def watch(
    kinds: Mapping[Kind, Told],
    namespace: str | None,
    note: Callable[..., None],
    environ: Mapping[str, str],
    stopped: Callable[[], bool],
) -> None:
    """Watches, in the main thread, until SIGTERM or SIGINT; *stopped*: did one come before kopf listened for them?

    Raises ConfigError: kopf is not installed; Unavailable: the cluster cannot be watched any more.
    """
    try:
        import kopf
    except ImportError:
        raise ConfigError("kopf is not installed", fix="install secretweave[flux]") from None

    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.watching.server_timeout = SILENCE_SECONDS
    settings.watching.client_timeout = SILENCE_SECONDS + 15
    _quieten(note)

    def login(**kwargs: Any) -> Any:
        if environ.get("KUBECONFIG"):
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    kopf.on.login(registry=registry)(login)
    for (group, version, plural), told in kinds.items():
        kopf.on.event(group, version, plural, registry=registry, id=plural)(_handler(told))

    async def operate() -> None:
        started, stop = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            await started.wait()
            if stopped():
                stop.set()

        waiting = asyncio.create_task(wait())
        try:
            await kopf.operator(
                registry=registry,
                settings=settings,
                standalone=True,
                clusterwide=namespace is None,
                namespaces=() if namespace is None else (namespace,),
                ready_flag=started,
                stop_flag=stop,
            )
        finally:
            waiting.cancel()

    try:
        asyncio.run(operate())
    except asyncio.CancelledError:
        return
    except Exception as error:
        # Whatever it is: without events nothing is fresh, and another start is what mends it.
        raise Unavailable(
            "the cluster cannot be watched",
            why=f"kopf ends with {type(error).__name__}",
            fix="see the lines before this one; for a login see the kubeconfig or the Pod's ServiceAccount",
        ) from error


def _handler(told: Told) -> Any:
    async def handle(type: str | None, body: Mapping[str, Any], **_: Any) -> None:  # noqa: A002 - kopf's name
        told(type or "", body)

    return handle


def _quieten(note: Callable[..., None]) -> None:
    """What the libraries log from warnings on becomes lines of our log: their messages, without tracebacks."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                text = record.getMessage()
            except (TypeError, ValueError):
                text = "a message that cannot be shown"
            note("watch", level=record.levelname.lower(), text=one_line(text)[:2000])

    for name in ("kopf", "asyncio", "aiohttp"):
        logger = logging.getLogger(name)
        logger.handlers = [Lines()]
        logger.setLevel(logging.WARNING)
        logger.propagate = False


def own_namespace(environ: Mapping[str, str]) -> str:
    """The controller's: RUNTIME_NAMESPACE, as Flux's own controllers are told theirs, else that of the Pod."""
    given = environ.get("RUNTIME_NAMESPACE", "")
    if not given and os.path.exists(POD_NAMESPACE):
        with open(POD_NAMESPACE, encoding="ascii") as file:
            given = file.read().strip()
    if not resource.NAME.fullmatch(given):
        raise ConfigError(
            "the controller does not know its own namespace",
            fix="set RUNTIME_NAMESPACE, as `flux/` of the project does",
        )
    return given


POD_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
