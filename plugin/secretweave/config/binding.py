"""`{project}` and `{namespace}` in a configuration: what one configuration gives to each tenant of a host.

    spec: {vault: {auth: {kubernetes: {role: "argocd-{project}"}}}}       any text of a SecretStore's provider
    stores: [{store: shop, prefixes: ["{project}/{namespace}"]}]          a rule's prefixes, namespaces and destinations

Only these two words in braces are placeholders; other braces stay. What keeps one tenant from being taken for another:

- A name is one of DNS: labels of lower-case letters, digits and `-`, a letter or digit at both ends of each, and `.`
  between them in a project's name. So it is never empty, `.` or `..`, and holds no `/`, `:`, `%`, `*` or space: it
  cannot leave its segment of a path, nor its part of an ARN.
- Two placeholders need a character between them that no name holds: `{project}-{namespace}` would be the same for the
  project `a` with the namespace `b-c` as for `a-b` with `c`. It is refused.
- A project's name with a dot is refused in the host of a URL, where it would be another domain.
- Credentials that come from variables are refused a placeholder in their names: `-`, `.` and `/` are all `_` there.
- A ref may have words in it that are no part of a secret's name, as the `data/` of a Vault path. A prefix in which a
  name makes a segment that is such a word (stores.words) allows nothing.
- What has no name in this run makes a store unusable, and an entry of a rule fit nothing.

What it cannot see: `argocd-{project}` is for the project `ops` the same as `argocd-ops` written out elsewhere. And a
bare `{project}` is whatever a project may be called: put a word of your own before it where others choose names, too.
SecretStores among the manifests (secretStores.inStream) are taken as they are written.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secretweave import stores
from secretweave.config import lookup
from secretweave.config.lookup import Unusable
from secretweave.errors import ConfigError, PolicyError, Where
from secretweave.forms import NAMESPACE, PROJECT
from secretweave.settings import key_of

if TYPE_CHECKING:
    from secretweave.config import Config
    from secretweave.model import StoreConfig
    from secretweave.policy.settings import StoreRule

# Patterns as text: a run whose configuration has no placeholder compiles none.
PLACEHOLDER = r"\{(project|namespace)\}"
JOINED = r"\{(?:project|namespace)\}[A-Za-z0-9.-]*\{(?:project|namespace)\}"
"""Capitals count as well: where names are compared without case they hold nothing apart."""
NAMES = {"project": PROJECT, "namespace": NAMESPACE}
HOST = r"[^/]*://[^/?#]*"
FROM_VARIABLES = (
    "credentials come from variables, in whose names `-`, `.` and `_` are one: two tenants could have the same",
    "set credentials.from to `cluster` or `folder`",
)


def bound(config: "Config", names: Mapping[str, str | None]) -> "Config":
    """The configuration for one run, in which *names* has the `project` and the `namespace`; None: there is none.

    A host that vouches for a project has tenants, and there the namespace is the destination that the host vouches for:
    a SecretStore of a namespace then serves that one alone, since a manifest chooses its own. Without a `project` among
    the names, as on the command line, it serves the manifests of its namespace.

    Raises ConfigError: a placeholder stands where none can be, or a name that is needed is malformed. A store that
    cannot be used is told by what looks it up.
    """
    operators = config.settings.operator_namespace
    policy = config.settings.policy
    found = tuple(_foreign(each, names, operators) or _store(each, names, config) for each in config.stores)
    rules = tuple(_rule(each, names, found) for each in policy.stores)
    return config._replace(stores=found, settings=config.settings._replace(policy=policy._replace(stores=rules)))


def _foreign(store: "StoreConfig", names: Mapping[str, str | None], operators: str) -> "StoreConfig | None":
    """The store marked, if it is another namespace's than the destination."""
    destination = names.get("namespace")
    if "project" not in names or lookup.is_shared(store, operators) or store.namespace == destination:
        return None
    why = (
        f"it is the store of the namespace {store.namespace}, and the Application's destination is "
        f"{destination or 'no namespace'}; what a manifest says of its namespace does not count"
    )
    fix = "deploy to that namespace with an Application of its own, or ask for a cluster-wide store"
    return _marked(store, Unusable(PolicyError, f"the store `{store.name}` may not be used here", why, fix))


def _store(store: "StoreConfig", names: Mapping[str, str | None], config: "Config") -> "StoreConfig":
    if not _holds(store.settings):
        return store
    for setting, text in _texts(store.settings, f"spec.{store.type}"):
        _refuse_joined(text, Where(resource=f"SecretStore {store.id}", field=setting))
        for name in re.findall(PLACEHOLDER, text):
            fault = _unfit(name, names, text)
            if "SecretRef." in setting and config.settings.credentials.from_ == "environment":
                fault = FROM_VARIABLES
            if fault:
                what = f"the store `{store.name}` cannot be used here: {setting} holds {{{name}}}"
                return _marked(store, Unusable(ConfigError, what, *fault))
    return store._replace(settings=_replaced(store.settings, names))


def _unfit(name: str, names: Mapping[str, str | None], text: str) -> tuple[str, str] | None:
    """Why, and the fix, if the name cannot stand in a setting of that text."""
    value = _name(name, names)
    if value is None:
        if name == "project":
            return "a run has a project under Argo CD only", "let Argo CD run it; `check` and `plan` take --project"
        return "the namespace of this run is unknown", "pass --namespace; for Argo CD set spec.destination.namespace"
    host = re.match(HOST, text)
    if "." in value and host and f"{{{name}}}" in host[0]:
        return f"the {name} {value} has a dot, and would be another domain in a URL's host", "use a name without dots"
    return None


def _marked(store: "StoreConfig", why: Unusable) -> "StoreConfig":
    """Without its settings, so that nothing can open it by mistake."""
    return store._replace(settings=why)


def _rule(rule: "StoreRule", names: Mapping[str, str | None], found: "tuple[StoreConfig, ...]") -> "StoreRule":
    if not _holds(rule):
        return rule
    where = Where(resource="Configuration", field="spec.policy.stores")
    if _holds((rule.store, rule.identities)):
        raise ConfigError(
            f"a rule of the store `{rule.store}` has a placeholder among its identities, or in the store's name",
            where=where,
            why="under Argo CD an identity is the project's name itself",
            fix="write names there; placeholders may stand in prefixes, namespaces and destinations",
        )
    words: frozenset[str] = frozenset()
    if _holds(rule.prefixes):
        own = (each for each in found if each.name == rule.store and not isinstance(each.settings, Unusable))
        words = frozenset().union(*map(stores.words, own))

    def filled(texts: tuple[str, ...] | None, words: frozenset[str] = frozenset()) -> tuple[str, ...] | None:
        """None stays None, and nothing else becomes it: left out, it would fit any."""
        if texts is None:
            return None
        for text in texts:
            _refuse_joined(text, where)
        return tuple(new for text in texts if (new := _entry(text, names, words)) is not None)

    return rule._replace(
        prefixes=filled(rule.prefixes, words),
        namespaces=filled(rule.namespaces),
        destinations=filled(rule.destinations),
    )


def _entry(text: str, names: Mapping[str, str | None], words: frozenset[str]) -> str | None:
    """An entry of a rule, filled; None where it must fit nothing."""
    if any(_name(name, names) is None for name in re.findall(PLACEHOLDER, text)):
        return None
    segments = [(segment, _fill(segment, names)) for segment in text.split("/")]
    if any(new in words for segment, new in segments if new != segment):
        return None
    return "/".join(new for _, new in segments)


def _refuse_joined(text: str, where: Where) -> None:
    if re.search(JOINED, text):
        raise ConfigError(
            "nothing holds two placeholders apart",
            where=where,
            why="of `{project}-{namespace}` the project a-b with the namespace c would make the same as a with b-c",
            fix="put a character between them that names do not have, such as `/` or `_`; or leave one of them out",
        )


def _name(name: str, names: Mapping[str, str | None]) -> str | None:
    """Raises ConfigError."""
    value = names.get(name)
    if value and not re.fullmatch(NAMES[name], value):
        raise ConfigError(
            f"the {name} of this run is malformed",
            why=f"the configuration has settings with {{{name}}} in them",
            fix="lower-case letters, digits and `-`, with a letter or digit at both ends",
        )
    return value or None


def _fill(text: str, names: Mapping[str, str | None]) -> str:
    return re.sub(PLACEHOLDER, lambda match: names[match[1]] or "", text)


def _holds(value: Any) -> bool:
    """Is there a placeholder in any text of it?"""
    if isinstance(value, str):
        return "{project}" in value or "{namespace}" in value
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    return isinstance(value, tuple) and any(map(_holds, value))


def _texts(value: Any, path: str) -> "list[tuple[str, str]]":
    """Each text in settings with its key path."""
    if isinstance(value, str):
        return [(path, value)]
    if hasattr(value, "_fields"):
        members = [(f"{path}.{key_of(field)}", each) for field, each in zip(value._fields, value, strict=True)]
    elif isinstance(value, tuple):
        members = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
    elif isinstance(value, Mapping):
        members = [(f"{path}.{key}", each) for key, each in value.items()]
    else:
        return []
    return [found for key, each in members for found in _texts(each, key)]


def _replaced(value: Any, names: Mapping[str, str | None]) -> Any:
    if isinstance(value, str):
        return _fill(value, names)
    if isinstance(value, Mapping):
        return {key: _replaced(each, names) for key, each in value.items()}
    if isinstance(value, tuple):
        members = [_replaced(each, names) for each in value]
        return value._make(members) if hasattr(value, "_make") else tuple(members)
    return value
