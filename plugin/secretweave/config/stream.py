"""SecretStores among the manifests, where the configuration allows them to be used."""

from collections.abc import Iterable
from typing import NamedTuple

from secretweave import config as configured
from secretweave import stores, yamltree
from secretweave.config import Config, files, lookup
from secretweave.errors import InputError, SecretweaveError, Where


class Manifest(NamedTuple):
    """A document of the input."""

    source: str
    number: int
    line: int
    """The line breaks before it."""
    data: bytes


def extended(
    config: Config, manifests: Iterable[Manifest], namespace: str | None, faults: list[SecretweaveError]
) -> Config:
    """The configuration with the SecretStores of the *manifests*; those without a namespace are in *namespace*.

    What is wrong with one goes into *faults*. A document that cannot be read is passed over: the scan tells of it.
    """
    operators = config.settings.operator_namespace
    seen = {lookup.subject(store, operators): Where("the configuration") for store in config.stores}
    found = []
    for manifest in manifests:
        if b"SecretStore" not in manifest.data:
            continue
        try:
            source = files.Source(manifest.source, tuple(yamltree.load(manifest.data)))
        except InputError:
            continue
        for place, node in configured.objects((source,)):
            if configured.head(node) != configured.STORE:
                continue
            at = place._replace(document=manifest.number, line=manifest.line, files=False)
            store = configured.store(node, at, faults)
            if store is None:
                continue
            if stores.is_local(store.type):
                what = f"a SecretStore of the manifests may not be of the type {store.type}"
                faults.append(at.fault(node, what, "move it into the configuration"))
                continue
            store = store._replace(namespace=store.namespace or namespace)
            configured.once(lookup.subject(store, operators), at.where(node), seen, faults)
            found.append(store)
    return config._replace(stores=(*config.stores, *found))
