"""Which configured store a reference means, by the rules that the original system states or implies.

A name is looked for in the environment's namespace (that of the object), then among the cluster-wide stores: those in
the operator's namespace and those without one. The default store is the one cluster-wide store that is labelled so; the
label on a store of an environment is ignored. None or two of them is an error only where a default is needed.
"""

from collections.abc import Iterable
from typing import NamedTuple

from secretweave.errors import BadReference, SecretweaveError
from secretweave.model import StoreConfig
from secretweave.settings import nearest


class Unusable(NamedTuple):
    """In the place of a store's settings: why no run like this one may use it, or can."""

    error: type[SecretweaveError]
    what: str
    why: str
    fix: str


def find(stores: Iterable[StoreConfig], name: str, namespace: str | None, operator_namespace: str) -> StoreConfig:
    """The store *name* (empty: the default store) for an object in *namespace* (None: unknown).

    Raises BadReference; or what is wrong with a store that is there and Unusable: no other one stands in for it.
    """
    found = _find(tuple(stores), name, namespace, operator_namespace)
    if isinstance(found.settings, Unusable):
        error, what, why, fix = found.settings
        raise error(what, why=why, fix=fix)
    return found


def _find(stores: tuple[StoreConfig, ...], name: str, namespace: str | None, operator_namespace: str) -> StoreConfig:
    shared = [store for store in stores if is_shared(store, operator_namespace)]
    if not name:
        return _default(shared)
    local = [store for store in stores if store.namespace is not None and store.namespace == namespace]
    for store in (*local, *shared):
        if store.name == name:
            return store
    raise _unknown(name, namespace, [*local, *shared], elsewhere=any(store.name == name for store in stores))


def is_shared(store: StoreConfig, operator_namespace: str) -> bool:
    """Does the store serve every namespace?"""
    return store.namespace in {None, operator_namespace}


def subject(store: StoreConfig, operator_namespace: str) -> str:
    """What no two stores of a configuration may be called alike."""
    return f"SecretStore {'' if is_shared(store, operator_namespace) else f'{store.namespace}/'}{store.name}"


def _default(shared: list[StoreConfig]) -> StoreConfig:
    labelled = [store for store in shared if store.default]
    if len(labelled) == 1:
        return labelled[0]
    if labelled:
        names = ", ".join(store.id for store in labelled)
        raise BadReference(
            "the reference means the default store, but several are labelled as default",
            why=f"labelled are {names}",
            fix="name a store in the reference, or leave the label app.humanitec.io/default-store on one",
        )
    raise BadReference(
        "the reference means the default store, but no store is the default",
        why=_there_are(shared),
        fix='name a store in the reference, or label one cluster-wide store app.humanitec.io/default-store: "true"',
    )


def _unknown(name: str, namespace: str | None, usable: list[StoreConfig], *, elsewhere: bool) -> BadReference:
    if elsewhere and namespace is None:
        return BadReference(
            f"the store `{name}` serves one namespace only, and the namespace of this object is unknown",
            fix="pass --namespace (Helm: --post-renderer-args), or write metadata.namespace",
        )
    near = nearest(name, (store.name for store in usable))
    return BadReference(
        f"no store is called `{name}`" + (f" for the namespace `{namespace}`" if elsewhere else ""),
        why=_there_are(usable),
        fix=f"write `{near}`, if that is meant"
        if near
        else "correct the name, or ask who owns the configuration to add such a SecretStore",
    )


def _there_are(stores: list[StoreConfig]) -> str:
    names = sorted({store.name for store in stores})
    return "the stores here are: " + ", ".join(names) if names else "no store is configured"
