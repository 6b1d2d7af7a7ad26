"""The stores: whether each answers and knows who asks, and whether the secret of --ref may be read.

A store is opened as a run opens it, all at once and within the same limits, and asked for nothing that a secret hangs
on (its `probe`). The secret of --ref is read, since only that shows that it can be, and what was read is thrown away:
neither it nor its length is told.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from secretweave import fetching, references, select
from secretweave.config import Config, binding
from secretweave.config.binding import FROM_VARIABLES, PLACEHOLDER
from secretweave.config.lookup import Unusable
from secretweave.doctor.base import DEFECT, Case, Finding, crash, judged
from secretweave.errors import BadReference, ConfigError, PolicyError, SecretweaveError, StoreError, Where
from secretweave.fetching import Errand, Times
from secretweave.model import Address, Record, Reference, SecretValue, StoreConfig, Use
from secretweave.outputs import Outside, secret
from secretweave.policy import access
from secretweave.stores import is_local, open_store
from secretweave.stores.base import PROBE, Context, ProbedStore, Store, Wanted

REF = "ref"
PROBED = Wanted(PROBE, None)
NOTHING = Record(SecretValue(b""), "")
IN_DAEMON = "kubectl exec deploy/argocd-repo-server -n argocd -c secretweave-daemon -- secretweave doctor"


class Sought(NamedTuple):
    """The secret of --ref."""

    reference: Reference
    store: StoreConfig

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.reference.ref, self.reference.version)


def check(case: Case) -> Iterator[Finding]:
    if case.config is None:
        return
    if case.host == "sidecar" and _has_daemon(case):
        what = "the daemon asks them, and what they log in with is in its container alone"
        yield Finding("skipped", "stores", what, IN_DAEMON)
        return
    try:
        config = _bound(case.config, case)
    except SecretweaveError as error:
        yield from judged("fault", "stores", error)
        return
    if not config.stores:
        yield Finding("warning", "stores", "none is configured", "add a SecretStore to the configuration")
    sought: Sought | None = None
    if case.options.ref:
        try:
            sought = _sought(case.options.ref, config, case)
        except SecretweaveError as error:
            yield from judged("fault", REF, error)
    for store in config.stores:
        if isinstance(store.settings, Unusable):
            yield _unusable(store, store.settings, case)
    usable = [store for store in config.stores if not isinstance(store.settings, Unusable)]
    yield from _asked(usable, sought, config, case)


def _has_daemon(case: Case) -> bool:
    from secretweave.argocd import generate

    return "SECRETWEAVE_SOCKET" in case.environ or os.path.exists(generate.socket_of(case.environ))


def _bound(config: Config, case: Case) -> Config:
    """As a run would have it: an Application's, where the configuration is for tenants."""
    identity, names = case.options.identity, {"namespace": case.options.namespace}
    if identity and (case.has_tenants or _is_for_tenants(config)):
        names["project"] = identity
    return binding.bound(config, names)


def _is_for_tenants(config: Config) -> bool:
    bare = binding.bound(config, {"namespace": "x"})
    rules = config.settings.policy.stores
    return any(isinstance(store.settings, Unusable) for store in bare.stores) or any(
        re.search(PLACEHOLDER, text)
        for rule in rules
        for texts in (rule.prefixes, rule.namespaces, rule.destinations)
        for text in texts or ()
    )


def _unusable(store: StoreConfig, why: Unusable, case: Case) -> Finding:
    subject, option = _subject(store), _lacking(why, case)
    if option:
        return Finding("skipped", subject, f"{why.what}, which is not given", f"pass {option}")
    if why.error is PolicyError:
        return Finding("skipped", subject, why.what, "pass --namespace with the store's own namespace")
    return Finding("fault", subject, f"{why.what} ({why.why})", why.fix)


def _lacking(why: Unusable, case: Case) -> str:
    """The option by which the store could be used; empty: none."""
    if (why.why, why.fix) == FROM_VARIABLES:
        return ""
    placeholders = re.findall(PLACEHOLDER, why.what)
    if "project" in placeholders and not case.options.identity:
        return "--identity PROJECT"
    return "--namespace NAME" if "namespace" in placeholders and not case.options.namespace else ""


def _subject(store: StoreConfig) -> str:
    return f"store {store.id}"


def _sought(text: str, config: Config, case: Case) -> Sought:
    """Raises SecretweaveError: malformed, of no store that there is, or not allowed by the policy."""
    reference = _reference(text)
    namespace = case.options.namespace
    try:
        store = config.store(reference.store, namespace)
    except ConfigError as error:
        option = _lacking(Unusable(type(error), error.what, error.why, error.fix), case)
        error.fix = f"pass {option}" if option else error.fix
        raise
    address = Address(store.id, reference.ref, reference.version)
    # As a Secret of that namespace would use it.
    use = Use(reference, store, address, Where(), "v1", "Secret", namespace, "", "", "secret")
    destination = namespace if case.has_tenants or _is_for_tenants(case.config or config) else None
    refused = access.read(use, case.options.identity, config.settings.policy, destination)
    if refused is not None:
        raise refused
    return Sought(reference, store)


def _reference(text: str) -> Reference:
    if "://" in text:
        template = references.parse(text) or ()
        if len(template) == 1 and isinstance(template[0], Reference):
            return template[0]
        raise BadReference("--ref is not one reference", fix="write secret://STORE/REF#KEY, or STORE:REF#KEY")
    store, colon, rest = text.partition(":")
    ref, _, key = rest.partition("#")
    if not colon or not ref:
        raise ConfigError("--ref names no store and secret", fix="write secret://STORE/REF#KEY, or STORE:REF#KEY")
    return Reference(store, ref, key=key or None)


class _Probed:
    """A store, of which PROBE is not read, but asked whether all is well. Whatever goes wrong is its own affair."""

    concurrency = 1

    def __init__(self, store: Store) -> None:
        self._store = store

    def fetch(self, ref: str, version: str | None) -> Record:
        with _contained():
            if (ref, version) != PROBED:
                return self._store.fetch(ref, version)
            if hasattr(self._store, "probe"):
                probed: ProbedStore = self._store  # type: ignore[assignment]  # as was just seen
                probed.probe()
        return NOTHING

    def close(self) -> None:
        with suppress(Exception):
            self._store.close()


class _contained:  # noqa: N801 - reads as what it is: a function for `with`
    """Makes a StoreError of a defect: the other stores are to be asked all the same."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _frames: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, StoreError):
            raise StoreError(crash(error), fix=DEFECT) from None


def _open(store: StoreConfig, context: Context) -> Store:
    with _contained():
        return _Probed(open_store(store, context))


def _asked(stores: list[StoreConfig], sought: Sought | None, config: Config, case: Case) -> Iterator[Finding]:
    limits = config.settings.limits
    deadline = time.monotonic() + limits.deadline
    warnings: dict[str, list[str]] = {store.id: [] for store in stores}
    errands = []
    for store in stores:
        outside = Outside(case.environ, deadline, warnings[store.id].append)
        # A store is opened here as a run opens it.
        context = secret.context(store, config, outside)
        wanted = (PROBED, *([sought.wanted] if sought and sought.store == store else []))
        errands.append(Errand(_opener(store, context), wanted, is_local(store.type)))
    answers = fetching.ask(errands, Times(deadline, limits.deadline, limits.request))
    for store, answer in zip(stores, answers, strict=True):
        subject = _subject(store)
        outcome = answer if isinstance(answer, StoreError) else answer[PROBED]
        for text in dict.fromkeys(warnings[store.id]):
            yield Finding("warning", subject, text)
        if isinstance(outcome, StoreError):
            yield from judged("fault", subject, outcome)
        elif is_local(store.type):
            yield Finding("ok", subject, f"{store.type}: it can be opened")
        else:
            yield Finding("ok", subject, f"{store.type}: it answers, and knows who asks")
    if sought:
        answer = next(answer for store, answer in zip(stores, answers, strict=True) if store == sought.store)
        yield from _read(sought, answer, case)


def _opener(store: StoreConfig, context: Context) -> Callable[[], Store]:
    return lambda: _open(store, context)


def _read(sought: Sought, answer: fetching.Answers, case: Case) -> Iterator[Finding]:
    """What came of the secret, without a word of what is in it."""
    reference = sought.reference
    outcome, probed = (answer, answer) if isinstance(answer, StoreError) else (answer[sought.wanted], answer[PROBED])
    if isinstance(outcome, StoreError) and isinstance(probed, StoreError):
        yield Finding("skipped", REF, f"{reference}: its store has the fault that is told above")
        return
    try:
        if isinstance(outcome, StoreError):
            raise outcome
        if reference.key is not None:
            select.pick(outcome, reference.key, show_names=False)
    except SecretweaveError as error:
        for finding in judged("fault", REF, error):
            yield finding._replace(what=f"{reference}: {finding.what}")
        return
    whose = f" by {case.options.identity}" if case.options.identity else ""
    version = f", version {outcome.version}" if outcome.version else ""
    yield Finding("ok", REF, f"{reference} can be read{whose}{version}")
