"""Which stores an object of the cluster may use: the platform's, and the SecretStores that the cluster has.

| SecretStore | whose it is | what it may be |
|---|---|---|
| in the mounted configuration | the platform's | anything; it wins over one of the cluster that is called alike |
| of the operator's namespace in the cluster | the platform's | anything but `file` and `env` |
| of the object's own namespace in the cluster | a tenant's | only what is logged in to with Secrets of that namespace |
| of another namespace | another tenant's | not looked at |

A tenant chooses the address of its store, and so to whom credentials are shown. What the controller itself is must not
be among them: neither its cloud identity, nor its ServiceAccount's token, nor a file or variable of its Pod. So a
tenant's store has a login that is wholly made of Secrets, `credentials.from` is `cluster`, and the type `kubernetes`,
which would read Secrets as the controller, is the platform's alone. A type that is not in LOGINS is refused.

Whoever may write SecretStores in a namespace can have that namespace's Secrets shown to an address of their choice, as
with the original Operator and with External Secrets: RBAC on `secretstores` is to be given like that on `secrets`.

The same holds for ServiceAccounts: with spec.serviceAccountName of a SecretWeave, a token of that account is shown to
the Vault of a tenant's store. Flux's own Kustomizations act as accounts of their namespace in the same way.

A SecretStore that is wrong or refused is a fault of what refers to it, and of nothing else.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from secretweave import config as configs
from secretweave import stores, yamltree
from secretweave.config import Config, binding, lookup
from secretweave.config.lookup import Unusable
from secretweave.errors import ConfigError, InputError, NotFound, PolicyError, SecretweaveError
from secretweave.flux.cluster import yaml
from secretweave.model import StoreConfig
from secretweave.settings import Place

if TYPE_CHECKING:
    from secretweave.flux.cluster import Api

PLURAL = "secretstores"
SHOWN = 3
"""How many faults of one SecretStore a reference to it tells of."""


def configured(api: "Api", config: Config, namespace: str, *, has_account: bool = False) -> Config:
    """*config* for one object in *namespace*, which is its identity and its destination, with the cluster's stores.

    *has_account*: the object names a ServiceAccount, by whose token a tenant's Vault may be logged in to as well.
    Raises StoreError: the SecretStores cannot be listed, which would let one store be taken for another. Raises
    ConfigError as config/binding.py does, or as SecretStores of a source would be used, which nothing here looks at. A
    cluster without the kind has none.
    """
    if config.settings.secret_stores.in_stream == "use":
        raise ConfigError(
            "secretStores.inStream `use` is not for a controller that serves several tenants",
            why="a SecretStore in a tenant's source would be logged in to as the controller itself",
            fix="take it out of the configuration, and have SecretStores applied to the cluster",
        )
    operators = config.settings.operator_namespace
    names = {"project": namespace, "namespace": namespace}
    found = {lookup.subject(each, operators): each for each in config.stores}
    for where in dict.fromkeys((operators, namespace)):
        for obj in _listed(api, where):
            store = _store(obj, where, config, has_account=has_account)
            if store is not None:
                found.setdefault(lookup.subject(store, operators), _bindable(store, config, names))
    return binding.bound(config._replace(stores=tuple(found.values())), names)


def _listed(api: "Api", namespace: str) -> list[dict[str, Any]]:
    try:
        return api.list(configs.STORE[0], PLURAL, namespace)
    except NotFound:
        return []


def _store(obj: Mapping[str, Any], namespace: str, config: Config, *, has_account: bool) -> StoreConfig | None:
    """The store of an object, perhaps Unusable; None: nothing can refer to what is called like that."""
    metadata = obj.get("metadata") or {}
    name = metadata.get("name")
    if not isinstance(name, str) or metadata.get("namespace") != namespace:
        return None
    is_tenants = namespace != config.settings.operator_namespace
    subject = f"SecretStore {namespace}/{name}"
    # Its settings are judged as those of a file are, with their key paths.
    head = {"apiVersion": configs.STORE[0], "kind": configs.STORE[1]}
    labels = metadata.get("labels") or {}
    document = {
        **head,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": obj.get("spec"),
    }
    faults: list[SecretweaveError] = []
    place = Place(f"{subject} (cluster)", files=not is_tenants)
    try:
        (node,) = yamltree.load(yaml(document))
        store = configs.store(node, place, faults)
    except (InputError, ValueError) as error:
        store, faults = None, [error if isinstance(error, InputError) else _unreadable()]
    if store is None:
        told = [f"{each.where.field}: {each.what}" if each.where.field else each.what for each in faults]
        more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        fix = next((each.fix for each in faults if each.fix), "") or "correct the SecretStore"
        why = Unusable(ConfigError, f"the {subject} of the cluster is faulty", "; ".join(told[:SHOWN]) + more, fix)
        return StoreConfig(name, namespace, "", why, _is_default(labels))
    refused = _refused(store, subject, config, is_tenants=is_tenants, has_account=has_account)
    return store._replace(settings=refused) if refused else store


def _unreadable() -> ConfigError:
    return ConfigError("it is not to be read", fix="look at it with kubectl")


def _is_default(labels: Mapping[str, Any]) -> bool:
    return labels.get(configs.DEFAULT_LABEL) == "true"


def _bindable(store: StoreConfig, config: Config, names: Mapping[str, str]) -> StoreConfig:
    """Unusable where a placeholder stands wrong in it: that would be a fault of the whole configuration."""
    if isinstance(store.settings, Unusable):
        return store
    alone = config._replace(stores=(store,), settings=config.settings._replace(policy=type(config.settings.policy)()))
    try:
        binding.bound(alone, names)
    except ConfigError as error:
        # Not its `why`, which shows the placeholders: they would be taken for ones of this text.
        what = f"the store `{store.name}` cannot be used: {error.what}"
        return store._replace(settings=Unusable(ConfigError, what, "", "write the names out in it"))
    return store


def _refused(
    store: StoreConfig, subject: str, config: Config, *, is_tenants: bool, has_account: bool
) -> Unusable | None:
    what = f"the {subject} of the cluster may not be used"
    if stores.is_local(store.type):
        return Unusable(
            PolicyError,
            what,
            f"a store of the type {store.type} reads files or variables of the controller's own Pod",
            "have it written into the mounted configuration",
        )
    if not is_tenants:
        return None
    if store.type not in LOGINS:
        return Unusable(
            PolicyError,
            what,
            f"a store of the type {store.type} asks as the controller itself",
            f"have it made in the namespace {config.settings.operator_namespace}, or in the mounted configuration",
        )
    if config.settings.credentials.from_ != "cluster":
        return Unusable(
            PolicyError,
            what,
            "credentials.from of the configuration is not `cluster`, and what else it names is the platform's",
            f"have it made in the namespace {config.settings.operator_namespace}, or in the mounted configuration",
        )
    own, ways = LOGINS[store.type]
    if not (own(store.settings.auth) or (has_account and store.type == "vault" and _account(store.settings.auth))):
        return Unusable(
            PolicyError,
            what,
            "it has no login of its own, and would show its address who the controller is",
            f"log in with Secrets of the namespace {store.namespace}: spec.{store.type}.auth.{ways}",
        )
    return None


def _vault(auth: Any) -> bool:
    """By what AppRole and userpass send nothing is sent that is not the SecretStore's or a Secret's."""
    ways = [name for name, value in zip(auth._fields, auth, strict=True) if value is not None]
    return len(ways) == 1 and ways[0] in {"token_secret_ref", "app_role", "user_pass"}


def _account(auth: Any) -> bool:
    """By these a token of the run's own service account is sent (stores.base.Context.token), never the controller's."""
    return [value is not None for value in auth].count(True) == 1 and bool(auth.kubernetes or auth.jwt)


def _aws(auth: Any) -> bool:
    """A role on top is taken with the keys."""
    keys = auth.access_key_id_secret_ref, auth.secret_access_key_secret_ref
    return all(keys) and auth.profile is None and auth.web_identity is None


def _gcp(auth: Any) -> bool:
    """stores/gcpsm.py takes a service account's key from a Secret, and nothing that names a file or a program."""
    return auth.secret_access_key_secret_ref is not None and auth.credentials_file is None


def _azure(auth: Any) -> bool:
    others = auth.workload_identity, auth.managed_identity, auth.cli
    return auth.client_secret_secret_ref is not None and not any(each is not None for each in others)


LOGINS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "vault": (_vault, "tokenSecretRef, appRole or userPass, or by kubernetes or jwt with a serviceAccountName"),
    "awssm": (_aws, "accessKeyIDSecretRef and secretAccessKeySecretRef"),
    "awsssm": (_aws, "accessKeyIDSecretRef and secretAccessKeySecretRef"),
    "gcpsm": (_gcp, "secretAccessKeySecretRef"),
    "azurekv": (_azure, "clientIDSecretRef and clientSecretSecretRef"),
}
"""By type: is a login made of Secrets alone; and what to write for that."""
