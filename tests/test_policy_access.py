"""Which stores, refs, kinds and places a run may use: rule, use, and what becomes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import Where
from secretweave.model import Address, Reference, StoreConfig, Use
from secretweave.objects import step
from secretweave.policy import access, concerns
from secretweave.policy.settings import NativeKind, Policy, RefusedKind, Restricted, StoreRule, ValuePlace

PROD, TEST = ("prod",), ("test",)
CI = ("ci",)


def use(
    ref: str = "app/db",
    *,
    store: str = "shop",
    namespace: str | None = "prod",
    kind: str = "Secret",
    api_version: str = "v1",
    field: str = "stringData.a",
    sink: str = "secret",
) -> Use:
    config = StoreConfig(store, None, "file", None, default=True)
    reference, address = Reference(store, ref), Address(config.id, ref, None)
    return Use(reference, config, address, Where("stdin"), api_version, kind, namespace, "x", field, sink)  # type: ignore[arg-type]


def rule(*prefixes: str, store: str = "shop", **bound: tuple[str, ...]) -> StoreRule:
    return StoreRule(store, prefixes=prefixes or None, **bound)


def told(found: Use, rules: Policy, identity: str | None = None) -> list[str]:
    return [fault.what for fault in access.uses([found], identity, rules)[0]]


@pytest.mark.parametrize(
    ("rules", "asked", "identity", "expected"),
    [
        # No rule at all; a rule for another store.
        ((), use(), None, []),
        ((rule(store="other"),), use(), None, ["the store shop may not be read"]),
        ((rule(store="sho"), rule(store="shopp")), use(), None, ["the store shop may not be read"]),
        # Prefixes, by whole segments.
        ((rule("app"),), use("app/db"), None, []),
        ((rule("app/db"),), use("app/db"), None, []),
        ((rule("app/db/"),), use("app/db/user"), None, []),
        ((rule("app/d"),), use("app/db"), None, ["shop:app/db may not be read"]),
        ((rule("db"),), use("app/db"), None, ["shop:app/db may not be read"]),
        ((rule("App"),), use("app/db"), None, ["shop:app/db may not be read"]),
        ((rule("app/db"),), use("app"), None, ["shop:app may not be read"]),
        ((rule("app*"),), use("app/db"), None, ["shop:app/db may not be read"]),
        ((rule("none"), rule("app")), use("app/db"), None, []),
        ((rule(""),), use("app/db"), None, ["shop:app/db may not be read"]),
        ((StoreRule("shop", prefixes=()),), use("app/db"), None, ["shop:app/db may not be read"]),
        ((rule("app"),), use("app/../db"), None, ["a ref with empty or dot segments: shop:app/../db"]),
        ((rule("app"),), use("app/./db"), None, ["a ref with empty or dot segments: shop:app/./db"]),
        ((rule("app"),), use("app//db"), None, ["a ref with empty or dot segments: shop:app//db"]),
        ((rule("app"),), use("/app/db"), None, ["a ref with empty or dot segments: shop:/app/db"]),
        ((rule("app"),), use("app/"), None, ["a ref with empty or dot segments: shop:app/"]),
        ((rule(),), use("app/../db"), None, []),
        # Namespaces, exactly.
        ((rule(namespaces=PROD),), use(), None, []),
        ((rule(namespaces=PROD),), use(namespace="prods"), None, ["the namespace prods may not read shop:app/db"]),
        ((rule(namespaces=PROD),), use(namespace="pro"), None, ["the namespace pro may not read shop:app/db"]),
        ((rule(namespaces=()),), use(), None, ["the namespace prod may not read shop:app/db"]),
        (
            (rule(namespaces=PROD),),
            use(namespace=None),
            None,
            ["shop:app/db may be read from some namespaces only, and that of this object is unknown"],
        ),
        ((rule("app", namespaces=PROD), rule("x", namespaces=TEST)), use(), None, []),
        (
            (rule("app", namespaces=PROD), rule("x", namespaces=TEST)),
            use(namespace="test"),
            None,
            ["the namespace test may not read shop:app/db"],
        ),
        # Open to everybody beside bound ones.
        ((rule("app"), rule(namespaces=PROD)), use(namespace=None), None, []),
        # Identities, exactly.
        ((rule(identities=CI),), use(), "ci", []),
        ((rule(identities=CI),), use(), "c", ["the identity c may not read shop:app/db"]),
        ((rule(identities=CI),), use(), "", ["a run without an identity may not read shop:app/db"]),
        ((rule(identities=CI),), use(), None, ["a run without an identity may not read shop:app/db"]),
        ((rule(identities=()),), use(), "ci", ["the identity ci may not read shop:app/db"]),
        # Both must allow: a namespace that a manifest chooses can only narrow.
        ((rule(identities=CI), rule(namespaces=PROD)), use(), "ci", []),
        ((rule(identities=CI), rule(namespaces=PROD)), use(), "dev", ["the identity dev may not read shop:app/db"]),
        (
            (rule(identities=CI), rule(namespaces=PROD)),
            use(namespace="test"),
            "ci",
            ["the namespace test may not read shop:app/db"],
        ),
        (
            (rule("app/db", identities=CI), rule("app", namespaces=PROD)),
            use("app/token"),
            "ci",
            ["the identity ci may not read shop:app/token"],
        ),
        (
            (rule(identities=CI, namespaces=PROD),),
            use(namespace="test"),
            "ci",
            ["the identity ci may not read shop:app/db"],
        ),
    ],
)
def test_who_may_read_what(rules: tuple[StoreRule, ...], asked: Use, identity: str | None, expected: list[str]):
    assert told(asked, Policy(stores=rules), identity) == expected


@pytest.mark.parametrize(
    ("unruled", "rules", "expected"),
    [
        (None, (), []),
        (None, (rule(store="other"),), ["the store shop may not be read"]),
        ("allow", (rule(store="other"),), []),
        ("refuse", (), ["the store shop may not be read"]),
    ],
)
def test_stores_without_a_rule(unruled: str | None, rules: tuple[StoreRule, ...], expected: list[str]):
    assert told(use(), Policy(stores=rules, unruled_stores=unruled)) == expected  # type: ignore[arg-type]


NAME = st.sampled_from(["a", "b", "c"])
NAMES = st.none() | st.lists(NAME, max_size=2).map(tuple)
REF = st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=3).map("/".join)
RULE = st.builds(StoreRule, st.just("shop"), NAMES, NAMES, st.none() | st.lists(REF, max_size=2).map(tuple))


@given(st.lists(RULE, min_size=1, max_size=4), REF, st.none() | NAME, st.none() | NAME, NAME)
def test_another_namespace_gives_nothing_that_the_identity_may_not_read(
    rules: list[StoreRule], ref: str, identity: str | None, namespace: str | None, other: str
):
    """A manifest that names another namespace reads no more than what the rules that name its identity say."""

    def allowed(each: StoreRule) -> bool:
        mine = each.identities is None or identity in each.identities
        under = each.prefixes is None or any(f"{ref}/".startswith(f"{prefix}/") for prefix in each.prefixes)
        return mine and under

    for place in (namespace, other):
        if not told(use(ref, namespace=place), Policy(stores=tuple(rules)), identity):
            assert any(allowed(each) for each in rules)


@pytest.mark.parametrize(
    ("api_version", "kind", "refused"),
    [
        ("rbac.authorization.k8s.io/v1", "ClusterRole", True),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", True),
        ("rbac.authorization.k8s.io/v1", "Role", False),
        ("example.com/v1", "ClusterRole", False),
        ("v1", "Namespace", True),
        ("v1", "namespace", False),
        ("humanitec.io/v1alpha1", "Workload", True),
    ],
)
def test_refused_kinds(api_version: str, kind: str, *, refused: bool):
    rules = Policy(
        refused_kinds=(
            RefusedKind("ClusterRole*", "rbac.authorization.k8s.io/*"),
            RefusedKind("Namespace"),
            RefusedKind("*", "humanitec.io/*"),
        )
    )
    fault = access.kind(api_version, kind, Where("stdin", 1), rules)
    assert (fault.what if fault else None) == (f"the kind {kind} ({api_version}) may not pass" if refused else None)
    assert concerns(api_version, kind, rules) == refused


@pytest.mark.parametrize(
    ("field", "pattern", "allowed"),
    [
        ("data.token", "data.token", True),
        ("data.token", "data.*", True),
        ("data.token", "data.t*n", True),
        ("data.token", "data", False),
        ("data.token", "*", False),
        ("data.token", "data.*.*", False),
        ("data.token", "data.Token", False),
        ('data["app.ini"]', 'data["app.ini"]', True),
        ('data["app.ini"]', "data.*", True),
        ('data["app.ini"]', 'data["*.ini"]', True),
        ("data.app.ini", 'data["app.ini"]', False),
        ('data["app.ini"]', "data.app.ini", False),
        ("args[0]", "args[*]", True),
        ("args[10]", "args[1]", False),
        ("args[1]", "args[1]", True),
        ("args.x", "args[*]", False),
        ("args[0]", "args.*", False),
        ("args[0][1]", "args[*]", False),
        ("spec.containers[0].args[2]", "spec.containers[*].args[*]", True),
        ('data[""]', "data.*", True),
        ('data[""]', "data", False),
    ],
)
def test_where_a_value_may_stand(field: str, pattern: str, *, allowed: bool):
    rules = Policy(values=(ValuePlace("shop", "ConfigMap", pattern),))
    found = use(kind="ConfigMap", field=field, sink="elsewhere")
    faults, warnings = access.uses([found], None, rules)
    assert [fault.what for fault in faults] == (
        [] if allowed else ["a secret value may not stand in this field of a ConfigMap"]
    )
    assert [text for _, text in warnings] == (["the value of shop:app/db stands outside a Secret"] if allowed else [])


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        (ValuePlace("shop", "Config*", "data.*"), True),
        (ValuePlace("shop", "Secret", "data.*"), False),
        (ValuePlace("second", "ConfigMap", "data.*"), False),
        (ValuePlace("sho*", "ConfigMap", "data.*"), False),
    ],
)
def test_of_which_store_and_in_which_kind(place: ValuePlace, *, allowed: bool):
    found = use(kind="ConfigMap", field="data.a", sink="elsewhere")
    assert (told(found, Policy(values=(place,))) == []) == allowed


@given(st.lists(st.text(st.sampled_from('ab"\\[].*'), max_size=4) | st.integers(0, 12), min_size=1, max_size=4))
def test_the_setting_that_an_error_names_allows_the_value(keys: list[str | int]):
    """No key of a manifest can be spelled so that its path reads as another one."""
    from secretweave.yamltree import Mapping, load

    field = ""
    for key in keys:
        field = step(field, key)
    found = use(kind="ConfigMap", field=field, sink="elsewhere")
    fault = access.uses([found], None, Policy())[0][0]
    (setting,) = load(fault.fix.partition("policy.values: [")[2].removesuffix("]").encode())
    assert isinstance(setting, Mapping)
    pattern = setting.text("field")
    if not any(isinstance(key, str) and set("[*") & set(key) for key in keys):
        assert told(found, Policy(values=(ValuePlace("shop", "ConfigMap", pattern),))) == []
    longer = step(field, "a")
    assert told(found._replace(field=longer), Policy(values=(ValuePlace("shop", "ConfigMap", pattern),))) != []


def test_a_kind_that_stands_for_a_restricted_type_holds_no_reference():
    open_to_all = (ValuePlace("shop", "*", "metadata.annotations.*"),)
    found = use(kind="Namespace", field="metadata.annotations.a", sink="elsewhere")
    cluster = found._replace(api_version="cluster.x-k8s.io/v1beta2", kind="Cluster")
    assert told(found, Policy(values=open_to_all)) == [
        "a reference in a Namespace, which stands for the restricted type k8s-namespace"
    ]
    assert told(cluster, Policy(values=open_to_all)) == [
        "a reference in a Cluster, which stands for the restricted type k8s-cluster"
    ]
    assert told(cluster._replace(api_version="example.com/v1"), Policy(values=open_to_all)) == []
    relaxed = Restricted(native_kinds=(NativeKind("example.com/*", "Site", "k8s-cluster"),))
    assert told(found, Policy(restricted=relaxed, values=open_to_all)) == []
    assert told(found._replace(api_version="example.com/v2", kind="Site"), Policy(restricted=relaxed)) == [
        "a reference in a Site, which stands for the restricted type k8s-cluster"
    ]


def test_an_unknown_namespace_names_what_to_add():
    fault = access.uses([use(namespace=None)], None, Policy(stores=(rule(namespaces=PROD),)))[0][0]
    assert fault.fix == "pass --namespace (Helm: --post-renderer-args --namespace=NAME), or write metadata.namespace"
