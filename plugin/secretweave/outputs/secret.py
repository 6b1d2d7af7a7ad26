"""The values themselves, in Kubernetes Secrets."""

from collections.abc import Callable, Iterable, Mapping

from secretweave import resolve
from secretweave.config import Config
from secretweave.fetching import Times
from secretweave.model import StoreConfig, Use
from secretweave.outputs import Outcome, Outside
from secretweave.stores import is_local, open_store
from secretweave.stores.base import CallLimits, Context, Limits, SecretKeyRef

MASKED = False


def values(uses: Iterable[Use], config: Config, outside: Outside) -> Outcome:
    """The values that could be had, and a fault for each that could not."""
    uses = tuple(uses)
    show = config.settings.report.show_key_names
    limits = config.settings.limits
    times = Times(outside.deadline, limits.deadline, limits.request)
    opener = outside.keeping.open if outside.keeping else open_store
    records, unfetched = resolve.fetch(uses, lambda store: context(store, config, outside), times, opener)
    found, absent = resolve.values(uses, records, show_key_names=show)
    return found, [*unfetched, *absent]


def context(store: StoreConfig, config: Config, outside: Outside) -> Context:
    seconds = config.settings.limits.request
    limits, warn = Limits(outside.deadline, attempt_seconds=seconds / 3), outside.warn
    if outside.keeping and not is_local(store.type):
        limits, warn = CallLimits(seconds, seconds / 3), outside.keeping.warn
    show = config.settings.report.show_key_names
    credential = _credential(store, config, outside.environ, limits, warn)
    token = outside.keeping.token if outside.keeping else None
    return Context(store, outside.environ, show, warn, credential, limits, token)


def _credential(
    store: StoreConfig, config: Config, environ: Mapping[str, str], limits: Limits, warn: Callable[[str], None]
) -> Callable[[SecretKeyRef], str]:
    """Reads credential Secrets from where the configuration says; what that needs is imported at the first one."""
    readers: list[Callable[[SecretKeyRef], str]] = []

    def read(ref: SecretKeyRef) -> str:
        if not readers:
            from secretweave import credentials

            source = config.settings.credentials
            readers.append(
                credentials.reader(
                    source.from_,
                    store.namespace or config.settings.operator_namespace,
                    folder=source.folder,
                    kubeconfig=source.kubeconfig,
                    kube_context=source.context,
                    environ=environ,
                    limits=limits,
                    warn=warn,
                )
            )
        return readers[0](ref)

    return read
