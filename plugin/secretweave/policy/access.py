"""Which stores and refs may be read for whom, which kinds may pass, and where a value may stand."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from secretweave.errors import PolicyError, Where
from secretweave.model import Use
from secretweave.policy.settings import Policy, StoreRule

ASK = "ask who owns the configuration"


def refuses_kind(api_version: str, kind: str, rules: Policy) -> bool:
    return any(
        fnmatchcase(api_version, each.api_version) and fnmatchcase(kind, each.kind) for each in rules.refused_kinds
    )


def kind(api_version: str, kind: str, where: Where, rules: Policy) -> PolicyError | None:
    """The fault of an object whose kind may not pass."""
    if not refuses_kind(api_version, kind, rules):
        return None
    return PolicyError(
        f"the kind {kind} ({api_version}) may not pass",
        where=where,
        why="policy.refusedKinds of the configuration names it",
        fix=f"take the object out, or {ASK}",
    )


def native(use: Use, rules: Policy) -> PolicyError | None:
    """The fault of a reference in a Kubernetes kind that stands for a restricted resource type."""
    for each in rules.restricted.native_kinds:
        if fnmatchcase(use.api_version, each.api_version) and use.kind == each.kind:
            return PolicyError(
                f"a reference in a {each.kind}, which stands for the restricted type {each.type}",
                where=use.where,
                why="a resource of a restricted type may not use a secret reference",
                fix="take the reference out",
            )
    return None


def place(use: Use, rules: Policy) -> PolicyError | None:
    """The fault of a value that would stand outside a Secret without leave."""
    if use.sink != "elsewhere" or is_allowed_place(use, rules):
        return None
    setting = f"{{store: {use.store.name}, kind: {use.kind}, field: {_pattern(use.field)}}}"
    return PolicyError(
        f"a secret value may not stand in this field of a {use.kind or 'document'}",
        where=use.where,
        why="it would be readable there by whoever may read the object",
        fix=f"move it into a Secret or a container's env, or allow it in the configuration: policy.values: [{setting}]",
    )


def is_allowed_place(use: Use, rules: Policy) -> bool:
    return any(
        each.store == use.store.name and fnmatchcase(use.kind, each.kind) and _matches(use.field, each.field)
        for each in rules.values
    )


def _steps(path: str) -> list[tuple[str, str]]:
    """The steps of a key path, as `objects.step` writes them: (index of a list, key), one of them empty."""
    found = re.findall(r'\["((?:[^"\\]|\\.)*)"\]|\[([0-9]+|\*)\]|([^.\[\]]+)', path, re.DOTALL)
    return [(index, plain or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)) for quoted, index, plain in found]


def _matches(field: str, pattern: str) -> bool:
    steps, wanted = _steps(field), _steps(pattern)
    return len(steps) == len(wanted) and all(
        bool(index) == bool(any_index) and fnmatchcase(index, any_index) and fnmatchcase(key, any_key)
        for (index, key), (any_index, any_key) in zip(steps, wanted, strict=True)
    )


def _pattern(field: str) -> str:
    """The field as a pattern in YAML: any item of a list."""
    any_item = re.sub(r"\[[0-9]+\]", "[*]", field)
    return '"' + any_item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read(use: Use, identity: str | None, rules: Policy, destination: str | None = None) -> PolicyError | None:
    """The fault of a read that is not allowed to the run's identity and destination, or to the manifest's namespace.

    To name destinations as well makes a rule narrower. Only one that names namespaces alone, beside rules that bind,
    becomes more by it: it is then one that binds, as with identities.
    """
    own = [rule for rule in rules.stores if rule.store == use.store.name]
    if not own:
        unruled = rules.unruled_stores or ("refuse" if rules.stores else "allow")
        return _unruled(use) if unruled == "refuse" else None
    if any(rule.prefixes is not None for rule in own) and not _is_plain(use.reference.ref):
        return PolicyError(
            f"a ref with empty or dot segments: {use.reference}",
            where=use.where,
            why="the policy allows reads by the ref's prefix, and such a ref may mean another path",
            fix="write the ref without `//`, `.` and `..`",
        )
    covering = [rule for rule in own if _covers(rule, use)]
    fitting = [rule for rule in covering if _fits_host(rule, identity, destination)]
    allowing = [rule for rule in fitting if rule.namespaces is None or use.namespace in rule.namespaces]
    if any(not _binds(rule) and rule.namespaces is None for rule in allowing):
        return None
    by_host = any(_binds(rule) for rule in own)
    by_namespace = any(not _binds(rule) and rule.namespaces is not None for rule in own)
    if (
        allowing
        and (not by_host or any(_binds(rule) for rule in allowing))
        and (not by_namespace or any(rule.namespaces is not None for rule in allowing))
    ):
        return None
    if covering and by_host and not any(_binds(rule) for rule in fitting):
        return _not_bound(use, identity, destination, [rule for rule in covering if _binds(rule)])
    reachable = [rule for rule in own if _fits_host(rule, identity, destination)]
    return _not_allowed(use, covering, reachable)


def _binds(rule: StoreRule) -> bool:
    """Does the rule name what the host vouches for?"""
    return rule.identities is not None or rule.destinations is not None


def _fits_host(rule: StoreRule, identity: str | None, destination: str | None) -> bool:
    return (rule.identities is None or identity in rule.identities) and (
        rule.destinations is None or destination in rule.destinations
    )


def _not_bound(use: Use, identity: str | None, destination: str | None, binding: list[StoreRule]) -> PolicyError:
    """Says by what a read fails for which the host must vouch: the identity, else the destination."""
    if any(_fits_host(rule._replace(destinations=None), identity, None) for rule in binding):
        if destination is None:
            fix = "such a rule holds under Argo CD only, for an Application with spec.destination.namespace"
            return _refused(use, f"a run without a destination may not read {use.reference}", fix)
        return _refused(use, f"the destination namespace {destination} may not read {use.reference}", ASK)
    if identity is None:
        fix = "pass --identity; the rules of this store are bound to it"
        return _refused(use, f"a run without an identity may not read {use.reference}", fix)
    return _refused(use, f"the identity {identity} may not read {use.reference}", ASK)


def _not_allowed(use: Use, covering: list[StoreRule], reachable: list[StoreRule]) -> PolicyError:
    """Says by what a read fails: its ref, else the namespace. *reachable*: the rules that fit who asks."""
    if not covering:
        prefixes = ", ".join(sorted({each for rule in reachable for each in rule.prefixes or ()}))
        ask = f"{ASK}; what may be read lies under {prefixes}" if prefixes else ASK
        return _refused(use, f"{use.reference} is under no prefix that may be read", ask)
    if use.namespace is None:
        return _refused(
            use,
            f"{use.reference} may be read from some namespaces only, and that of this object is unknown",
            "pass --namespace (Helm: --post-renderer-args --namespace=NAME), or write metadata.namespace",
        )
    return _refused(use, f"the namespace {use.namespace} may not read {use.reference}", ASK)


def _covers(rule: StoreRule, use: Use) -> bool:
    """Whether the ref is, or stands under, one of the rule's prefixes; by whole segments."""
    if rule.prefixes is None:
        return True
    segments = use.reference.ref.split("/")
    return any(segments[: len(prefix)] == prefix for each in rule.prefixes for prefix in [each.rstrip("/").split("/")])


def _is_plain(ref: str) -> bool:
    return not {"", ".", ".."} & set(ref.split("/"))


def _refused(use: Use, what: str, fix: str) -> PolicyError:
    return PolicyError(what, where=use.where, why="policy.stores of the configuration does not allow it", fix=fix)


def _unruled(use: Use) -> PolicyError:
    return PolicyError(
        f"the store {use.store.name} may not be read",
        where=use.where,
        why="no rule of policy.stores in the configuration names it",
        fix=ASK,
    )


def uses(
    found: Iterable[Use], identity: str | None, rules: Policy, destination: str | None = None
) -> tuple[list[PolicyError], list[tuple[Where, str]]]:
    """The faults of the references, and a warning for each value that may stand outside a Secret."""
    faults: list[PolicyError] = []
    warnings = []
    for use in found:
        judged = (native(use, rules) or place(use, rules), read(use, identity, rules, destination))
        own = [fault for fault in judged if fault is not None]
        faults += own
        if not own and use.sink == "elsewhere":
            warnings.append((use.where, f"the value of {use.reference} stands outside a Secret"))
    return faults, warnings
