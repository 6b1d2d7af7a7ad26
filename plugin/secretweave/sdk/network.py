"""What the stores that speak HTTP share: connections with our TLS, the pause before another attempt, causes."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from secretweave.sdk import load
from secretweave.stores.base import Limits

if TYPE_CHECKING:
    import ssl


def adapter(extra: str, tls: "ssl.SSLContext | None", *, server_name: str = "") -> Any:
    """The class of requests' adapters whose connections trust what *tls* trusts, and nothing else. None: plain HTTP.

    requests by itself reads a whole bundle of authorities for every connection, 13 ms each, and adds certifi's to the
    one that is trusted. *server_name*: what the certificate must be for, if not the host.
    """
    security: dict[str, Any] = {"ssl_context": tls} if tls is not None else {}
    if server_name:
        security["server_hostname"] = server_name

    class Adapter(load("requests.adapters", extra).HTTPAdapter):  # type: ignore[misc]  # loaded late: Any
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options | security)

        def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
            return super().proxy_manager_for(*arguments, **options | security)

        def cert_verify(self, conn: Any, *_: Any) -> None:
            """The context has said it all."""
            if tls is not None:
                conn.cert_reqs = tls.verify_mode

    return Adapter


def pause(limits: Limits, attempt: int) -> float:
    """Seconds to wait after so many attempts: doubled each time, and jittered, so that many runs do not come as one."""
    import random

    longest = min(limits.pause_seconds * 2 ** (attempt - 1), limits.pause_seconds_max)
    return float(longest * random.uniform(0.5, 1))  # noqa: S311 - it spreads requests, and guards nothing


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that an answer asks to wait; 0: it asks for none."""
    from urllib3 import exceptions
    from urllib3.util.retry import Retry

    text = headers.get("Retry-After")
    try:
        return float(Retry().parse_retry_after(text)) if text else 0.0
    except (exceptions.HTTPError, ValueError, OverflowError):
        return 0.0


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it was made of: SDKs, requests and urllib3 keep causes in attributes and `args` too."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kept = (getattr(each, name, None) for name in ("reason", "inner_exception"))
        parts = (each.__cause__, each.__context__, *kept, *each.args)
        waiting += [part for part in parts if isinstance(part, BaseException)]
